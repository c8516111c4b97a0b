"""One session of a sweep: prepare, train what is left under Ray, conclude. The same for every command.

Ray is imported when there is something to train.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeps import exits, steering
from sweeps import ledger as led
from sweeps.engine import Allowed, TrackerName, provenance
from sweeps.engine.address import LOCAL, require_address
from sweeps.engine.driver import Driver
from sweeps.engine.failures import failure_of, storing
from sweeps.engine.left import Left, to_resume
from sweeps.engine.machine import (
    CorpusFacts,
    ProbeError,
    is_too_large,
    known_speeds,
    learn,
    local_slots,
    passes,
    probes,
    product_flops,
    require_a_slot,
    this_machine,
)
from sweeps.engine.refusals import refuse_other_bits
from sweeps.engine.scratch import require_a_place
from sweeps.engine.sharing import Share
from sweeps.engine.store import as_stored, opened
from sweeps.engine.view import (
    View,
    planned,
    show_begun,
    show_choice,
    show_forecast,
    show_inits,
    show_plan,
    show_time,
)
from sweeps.exits import ClusterError, Code, RefusedError, StorageError, UsageError
from sweeps.plan import trials as pl
from sweeps.plan.request import Machine, Request
from sweeps.simulate.forecast import Forecast, forecast
from sweeps.text import cap_amount, node_words, passes_words, sentence
from tinylm import config as cfg
from tinylm.data import check_files
from tinylm.documents import HUB
from tinylm.machine import CHOICES, Tried, as_begun, choose, to_choose
from tinylm.signals import Interrupted

if TYPE_CHECKING:
    from sweeps.engine.preflight import Needs

_MANY = 10_000  # trials, which take about a second to plan
_CHECKPOINT_BYTES = 12  # a parameter: the weight and two moments


@dataclass(frozen=True)
class Options:
    """How a sweep is run; nothing here changes its question."""

    command: str  # the command line, which resumes the sweep when it is run again
    folder_option: str  # the option that chooses the sweep's folder
    address: str = LOCAL  # or that of a running Ray cluster
    tracker: TrackerName | None = None
    audit: float = 0.0  # share of the stopped trials to train to the end
    slots: int | None = None  # trials at once, at most
    gpus: int | None = None  # that a Ray of its own has; None for those that it finds
    allow: Allowed | None = None  # a difference that would be refused
    store: str = ""  # the URL of a copy of the sweep


@dataclass(frozen=True)
class Readers:
    """The functions that a session needs from packages that it may not import."""

    publish: Callable[[led.Files, Console], None]  # write and print the analysis
    void_arms: Callable[[led.Sweep], Sequence[str]]  # the arms that had no effect
    to_sample: Callable[[led.Files], Sequence[Sequence[led.Trial]]]  # the best runs, the baseline's
    to_test: Callable[[led.Files], Sequence[led.Trial]]  # the runs that read the test text


def preview(request: Request, folder: Path, options: Options, console: Console) -> led.Row:
    """Print the trials of a request, what they cost, and how long they take here; the same for programs.

    Raises the `CommandError` with which `run` would end before it trains, as far as that is known.
    """
    _require_a_slot(request, options)
    _require_a_folder(folder)
    with as_stored(led.Files(folder), options.store) as files:
        return _preview(request, folder, led.ReadLedger(files), options, console)


def _preview(
    request: Request, folder: Path, ledger: led.ReadLedger, options: Options, console: Console
) -> led.Row:
    """The preview of the sweep in a folder, which has these rows."""
    there = None if options.address == LOCAL else _share_there(request, options)
    _refuse_audit(request, options.audit)
    facts = CorpusFacts(lambda message: console.print(message, style="dim", highlight=False))
    before = list(led.rows(ledger.files, {"sweep", "planned"}))
    if not before and options.address == LOCAL:
        require_a_place()
    request, tried = with_choices(request, before, lambda note: console.print(note, style="dim"))
    show_choice(tried, console)
    machine = this_machine(request, options.gpus)
    plan = _planned(request, machine, before, console)
    load = pl.load(request, plan)
    for config in (request.base, *load.configs):
        check_files(config)
    left = None
    if before:
        driver = _driver(ledger, request, plan, machine, facts, options, downloads=False)
        refuse_other_bits(driver.sweep, request)
        left = Left.of(driver.state)
    read = passes(load.configs, facts)
    show_plan(request, plan, load, left.states if left else {}, console)
    if read:
        console.print(sentence(passes_words(read)), highlight=False)
    slots = there.planned if there else _slots_here(request, load.configs, options, console)
    if there and there.others:
        console.print(there.words, highlight=False)
    audit = options.audit
    try:
        speeds, inits = probes(load.configs, lambda note: console.print(note, style="dim"))
    except (cfg.ConfigError, ProbeError) as error:
        expected = forecast(request, load, None, slots)
        show_forecast(request, expected, load.tokens, 0.0, console)
        if left is not None:
            show_begun(left, expected.tokens, console)
        console.print(f"time: unknown ({error})", highlight=False, markup=False)
        return planned(folder, plan, load, expected, left)
    expected = forecast(request, load, speeds, slots)
    show_inits(load.configs, inits, console)
    show_forecast(request, expected, load.tokens, audit, console)
    if left is not None:
        show_begun(left, expected.tokens, console)
    if left is None or (left.tokens and left.cap is None):
        show_time(expected, speeds, slots, console, left)
    return planned(folder, plan, load, expected, left)


def _planned(
    request: Request, machine: Machine, before: Sequence[led.Row], console: Console
) -> pl.Plan:
    """The trials of a request; said first, if it has so many that this takes a while."""
    asked = pl.number_asked(request)
    if asked is not None and _MANY < asked <= pl.MOST_TRIALS:
        console.print(f"planning {asked:,} trials", style="dim", highlight=False)
    return pl.plan(request, machine, pl.earlier_draws(before, request.seed))


def _share_there(request: Request, options: Options) -> Share:
    """How many trials the cluster would run at once; `ClusterError` if it does not answer, or can't run any."""
    from sweeps.engine import tune

    gpus = _gpus(request, options)
    return tune.share_of(options.address, request.space.resources, options.slots, gpus)


def _slots_here(
    request: Request, configs: Sequence[cfg.Config], options: Options, console: Console
) -> int:
    """How many trials this machine would run at once; notes on it are printed."""
    found = local_slots(request, configs, options.slots, options.gpus)
    for note in found.notes:
        console.print(note, highlight=False)
    return found.number


def _gpus(request: Request, options: Options) -> int | None:
    """How many GPUs trials use: 0 for none, None for those that Ray has."""
    if options.gpus is not None:
        return options.gpus
    return 0 if request.base.run.device == "cpu" else None


def with_choices(
    request: Request, before: Sequence[led.Row], tell: Callable[[str], None]
) -> tuple[Request, Sequence[Tried]]:
    """The request with the fastest settings in place of `fastest`, and what was measured: those that its
    sweep began with, if it has begun, else those of this machine."""
    paths = to_choose(request.base)
    if not paths:
        return request, []
    begun = next((row["base"] for row in before if row["kind"] == "sweep"), None)
    if begun is not None:
        return replace(request, base=as_begun(request.base, begun)), []
    if is_too_large(request.base):
        values = {path: CHOICES[path][0] for path in paths}
        tried = [Tried(values, None, "does not fit in memory")]
        return replace(request, base=cfg.overlay(request.base, values)), tried
    base, tried = choose(request.base, tell)
    return replace(request, base=base), tried


def _require_a_slot(request: Request, options: Options) -> None:
    """Raise `UsageError` if a trial can never start, the address is none, or GPUs are declared of a cluster
    that has its own."""
    require_address(options.address)
    if options.address == LOCAL:
        require_a_slot(request, options.gpus)
    elif options.gpus is not None:
        raise UsageError(f"--gpus {options.gpus}: a running cluster has its own; leave --gpus out")


def _require_a_folder(folder: Path) -> None:
    """Raise `StorageError` if a sweep can't be written into a folder."""
    with storing(folder):
        led.require_writable(led.Files(folder))


def _require_ray(options: Options) -> None:
    """Raise `StorageError` if a Ray of its own can't start here, or `ClusterError` if that at the
    address can't be joined."""
    if options.address == LOCAL:
        require_a_place()
    else:
        from sweeps.engine import tune

        tune.require_cluster(options.address)


def _refuse_audit(request: Request, audit: float) -> None:
    """Raise `ConfigError` if trials are to be audited that end at a target."""
    target = request.space.target
    if audit and target is not None and target.ends != "nothing":
        text = f"--audit: trains to the end of the budget, but target.ends is {target.ends}"
        raise cfg.ConfigError([f"{request.source}: {text}"])


def run(
    request: Request, folder: Path, options: Options, readers: Readers, console: Console
) -> int:
    """Run what is left to do of a sweep, and write its analysis; the exit code.

    Raises the `CommandError` that ends it: `RefusedError`, `LockedError`, `LedgerError`,
    `StorageError` or `ClusterError`; `ConfigError` if the corpus, the device or the tracker can't be
    used; `Interrupted`, with the command that resumes it, if a signal ends it.
    """
    try:
        return _run(request, folder, options, readers, console)
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        begun = led.Files(folder).has_begun
        words = _kept(options) if begun else "interrupted before the sweep began"
        raise Interrupted(number, words) from error


@contextmanager
def _resumable(files: led.Files, options: Options) -> Iterator[None]:
    """Say of an error of the storage or the cluster how the sweep resumes, if it has begun."""
    try:
        with storing(files.folder):
            yield
    except (ClusterError, StorageError) as error:
        if not files.ledger.exists():
            raise
        raise type(error)(f"{error}\nTo resume: {options.command}") from error


def _kept(options: Options) -> str:
    """What is said of a sweep that a signal ended."""
    return f"interrupted; everything measured so far is kept. To resume: {options.command}"


def _run(
    request: Request, folder: Path, options: Options, readers: Readers, console: Console
) -> int:
    """Run what is left to do of a sweep, and write its analysis; the exit code."""
    files = led.Files(folder)
    _refuse_audit(request, options.audit)
    _require_a_slot(request, options)
    _require_a_folder(folder)
    by_workers = options.address != LOCAL
    with (
        _resumable(files, options),
        opened(files, options.store, by_workers=by_workers) as checkpoints,
    ):
        before = list(led.rows(files, {"sweep", "planned"}))
        if not before:  # what is done needs no Ray
            _require_ray(options)  # before a text is prepared, which may take long
        if options.address == LOCAL and request.base.run.device != "cpu":
            from tinylm import train

            train.require(request.base.run.device)
        request, tried = with_choices(request, before, console.print)
        show_choice(tried, console)
        machine = this_machine(request, options.gpus)
        plan = _planned(request, machine, before, console)
        copy = f", with a copy in {options.store}" if options.store else ""
        console.print(f"scale: {request.scale}; sweep: {folder}{copy}", highlight=False)
        facts = CorpusFacts(lambda message: print(message, flush=True))
        for config in (request.base, *pl.load(request, plan).configs):
            facts.corpus(config)
        for note in plan.notes:
            console.print(note, highlight=False)
        callbacks = _callbacks(options.tracker, files)
        steering.settle(files)  # what was asked of a driver that was killed
        with led.Ledger(files) as ledger:
            driver = _driver(ledger, request, plan, machine, facts, options)
            driver.keep_in(checkpoints)
            session = _Session(driver, options, readers, console, tried)
            code = session.run(callbacks)
        checkpoints.code = session.settle(code)
        return checkpoints.code


def _driver(
    ledger: led.ReadLedger,
    request: Request,
    plan: pl.Plan,
    machine: Machine,
    facts: CorpusFacts,
    options: Options,
    *,
    downloads: bool = True,
) -> Driver:
    """The driver of a sweep; `RefusedError`, with advice, if its folder has another base or corpus."""
    try:
        driver = Driver(ledger, request, plan, machine, facts, options.audit)
        refuse_other_corpus(driver.sweep, facts, downloads=downloads)
        if options.allow != "code":
            refuse_other_code(driver, _program)
    except RefusedError as error:
        advice = f"undo this change, or choose another {options.folder_option}"
        raise RefusedError(f"{error}\n{advice}") from error
    return driver


def _callbacks(tracker: TrackerName | None, files: led.Files) -> list[Any]:
    """Tune callbacks that report the trials to a tracker; `ConfigError` if the tracker can't be used."""
    if tracker is None:
        return []
    from sweeps.engine import trackers

    return [trackers.tracker(tracker, files)]


def refuse_other_corpus(sweep: led.Sweep, facts: CorpusFacts, *, downloads: bool = True) -> None:
    """Raise `RefusedError` if the documents of unfinished trials have changed; without `downloads`, those
    of a corpus that is downloaded are not looked at."""
    for trial in sweep.trials.values():
        if trial.status in {"finished", "diverged"}:
            continue
        config = cfg.validate(trial.config, trial.label)
        if not downloads and config.data.corpus in HUB:
            continue
        digest = facts.corpus(config).digest
        if digest != trial.corpus:
            where = config.data.path or config.data.corpus
            raise RefusedError(
                f"data: {where} has changed since the sweep began: its digest was {trial.corpus}, "
                f"now it is {digest}"
            )


def _program() -> led.Program:
    """What trains in this session."""
    here = provenance.program()
    return led.Program(here["code"], here["versions"]["torch"], here["versions"]["numpy"])


def refuse_other_code(driver: Driver, program: Callable[[], led.Program]) -> None:
    """Raise `RefusedError` if runs that were begun would go on with other code, or another torch or numpy."""
    begun = to_resume(driver.state)
    if not begun:
        return
    now = program()
    found: dict[str, list[str]] = {}  # difference -> labels of trials
    for trial in begun:
        for before in driver.sweep.programs(trial)[-1:]:
            for name in before.differing(now):
                words = _DIFFERENT[name].format(getattr(before, name), getattr(now, name))
                found.setdefault(words, []).append(trial.label)
    if found:
        lines = [f"  {words} ({', '.join(labels)})" for words, labels in found.items()]
        head = "code: runs would resume with another version of the training code, torch or numpy:"
        allow = "to continue them anyway, which the ledger and the log will say, add --allow code"
        raise RefusedError("\n".join([head, *lines, allow]))


_DIFFERENT = {
    "code": "the training code of tinylm was {}, it is {} here",
    "torch": "torch was {}, it is {} here",
    "numpy": "numpy was {}, it is {} here",
}


def exit_code(sweep: led.Sweep, void: Sequence[str]) -> Code:
    """The exit code of a sweep that has nothing left to do, some of whose arms may be void."""
    trials = sweep.trials.values()
    if trials and all(trial.status == "failed" for trial in trials):
        return Code.NONE_SUCCEEDED
    failed = any(trial.status == "failed" for trial in sweep.attempted)
    return Code.FAILED if failed or void else Code.DONE


_LATE: dict[led.Action, str] = {"stop": "{} is stopped", "finish": "{} is to be trained to its end"}


@dataclass(frozen=True)
class _Session:
    """A driver whose ledger is open, until its command ends."""

    driver: Driver
    options: Options
    readers: Readers
    console: Console
    tried: Sequence[Tried]  # settings of which the base config has the fastest

    @property
    def _files(self) -> led.Files:
        return self.driver.ledger.files

    def run(self, callbacks: list[Any]) -> int:
        """Do what is left to do; the exit code."""
        if self.driver.is_done():
            return self._repeat()
        refuse_other_bits(self.driver.sweep, self.driver.request)
        return self._do_rest(callbacks)

    def settle(self, code: int) -> int:
        """Do what was asked while the analysis was written, now that the ledger is closed; the exit code of a
        session that had this one."""
        done = steering.settle(self._files)
        if not done:
            return code
        self.readers.publish(self._files, self.console)
        labels = {one.trial: one.label for one in self.driver.sweep.attempted}
        for one in done:
            _warn(f"{_LATE[one.action].format(labels[one.trial])}, as was asked at the end")
        if all(one.action == "stop" for one in done):
            return code
        _warn(f"To go on: {self.options.command}")
        return Code.CAPPED if code == Code.DONE else code

    def _do_rest(self, callbacks: list[Any]) -> int:
        """Do what is left to do, which is something; the exit code."""
        # Only rows may be left: of a change of the space, or those that an earlier driver did not reach.
        if self.driver.is_look_due() or not self.driver.has_work():
            self.driver.begin({**self._fields(), "dashboard": None, "slots": 0}, None)
        if self.driver.is_capped():
            return self._conclude(None)
        if not self.driver.has_work():
            self.driver.end()
            print(f"{self._files.folder}: nothing is left to train", flush=True)
            return self._conclude(None)
        try:
            ended_by = self._train(callbacks)
        except ClusterError:
            if self.driver.sweep.spent_tokens:
                self.readers.publish(self._files, self.console)
            raise
        return self._conclude(ended_by)

    def _repeat(self) -> int:
        """Print that the sweep is done, and update its analysis if needed; the exit code."""
        files = self._files
        print(f"{files.folder}: nothing is left to do; see {files.summary}", flush=True)
        self._tell_void()
        if self.driver.sweep.sampled is None:  # a crash prevented it
            self.driver.sample(self.readers.to_sample(files), _sample)
        if not self.driver.sweep.is_read:  # the same, or a run could not read it
            self._test()
        ledger, summary = files.ledger, files.summary
        if not summary.exists() or summary.stat().st_mtime < ledger.stat().st_mtime:
            self.readers.publish(files, self.console)
        return exit_code(self.driver.sweep, self.readers.void_arms(self.driver.sweep))

    def _train(self, callbacks: list[Any]) -> int | None:
        """Train what is left under Ray; the signal that ended it early, if one did."""
        from sweeps.engine import tune

        request, limit = self.driver.request, self.options.slots
        if self.options.address == LOCAL:
            configs = pl.load(request, self.driver.plan).configs
            limit = _slots_here(request, configs, self.options, self.console)
            print("starting Ray, which takes 5 to 30 s", flush=True)
        else:
            print(
                f"joining the Ray cluster {self.options.address} and checking its nodes",
                flush=True,
            )
        gpus = _gpus(request, self.options)
        with tune.cluster(self.options.address, request.space.resources, limit, gpus) as cluster:
            events = [one.fields() for one in cluster.check(self._files.folder, self._needs())]
            left_out = [
                f"{one['host']}: {node_words(one)}" for one in events if one["state"] == "refused"
            ]
            try:
                share = tune.share(cluster, limit)
            except ClusterError as error:
                raise ClusterError("\n".join([str(error), *left_out])) from error
            if cluster.dashboard:
                shown = f"dashboard: {cluster.dashboard} (`ray get-auth-token` prints its token)"
                print(shown, flush=True)
            if share.others:
                print(share.words, flush=True)
            expected = self._begin(cluster.dashboard, share.planned)
            for words in left_out:
                _warn(words)
            for event in events:
                self.driver.note(event)
            view = View(
                self.driver, expected.tokens, self.console, share=lambda: cluster.share(limit)
            )
            with view.shown():
                ended_by = tune.run(self.driver, cluster, view.update, limit, callbacks)
                if ended_by is None and not self.driver.is_capped():
                    self.driver.end()
        return ended_by

    def _needs(self) -> "Needs":
        """What the trials need of a node."""
        from sweeps.engine.preflight import Needs

        configs = pl.load(self.driver.request, self.driver.plan).configs
        facts = [self.driver.facts(one) for one in configs]
        return Needs(
            corpora={
                fact["corpus"]: one.model_dump() for fact, one in zip(facts, configs, strict=True)
            },
            device=self.driver.request.base.run.device,
            checkpoint=_CHECKPOINT_BYTES * max(fact["params"] for fact in facts),
            store=self.options.store,
        )

    def _begin(self, dashboard: str, slots: int) -> Forecast:
        """Write down that a session begins; what the sweep is expected to take."""
        request = self.driver.request
        load = pl.load(request, self.driver.plan)
        speeds = known_speeds(load.configs)
        expected = forecast(request, load, speeds, slots)
        # Without a speed, it is not known how many tokens fit into a budget in seconds.
        unknown = speeds is None and request.base.budget.seconds is not None
        session = {**self._fields(), "dashboard": dashboard, "slots": slots}
        if self.options.address == LOCAL:
            session["product_flops"] = product_flops(request.base)
        self.driver.begin(session, None if unknown else expected.fields())
        return expected

    def _fields(self) -> dict[str, Any]:
        """The fields of a `session` row that are known before Ray is up."""
        where = provenance.describe(self.driver.request.base.run.device)
        return {
            "command": self.options.command,
            "folder_option": self.options.folder_option,
            **where,
            "allowed": self.options.allow,
            "notes": self.driver.plan.notes,
            "speeds": [asdict(one) for one in self.tried],
        }

    def _conclude(self, ended_by: int | None) -> int:
        """Write the analysis, print the ranking and what is left to do; the exit code."""
        driver, command = self.driver, self.options.command
        if self.options.address == LOCAL:
            here = [len(driver.sweep.sessions) - 1]
            learn(trial for trial in driver.sweep.attempted if trial.sessions == here)
        print("writing the analysis", flush=True)
        cap, is_held = driver.state.reached_cap(), driver.is_capped()
        # A target that was reached ends a sweep; a cap keeps it from ending.
        capped = is_held and cap is not None and cap["cap"] != "target"
        by_hand = is_held and cap is None
        failed = [trial for trial in driver.sweep.attempted if trial.status == "failed"]
        if ended_by is None and not capped and not by_hand:
            driver.sample(self.readers.to_sample(self._files), _sample)
            if not failed:  # else the next session tries again, and may choose others
                self._test()
        elif self.options.store:  # the analysis wants the best model
            driver.fetch(self.readers.to_sample(self._files))
        self.readers.publish(self._files, self.console)
        if ended_by is not None:
            _warn(_kept(self.options))
            return exits.by_signal(ended_by)
        for trial in failed:
            _warn(f"failed: {trial.label}: {trial.reason}")
        if failed:
            _warn(f"To try the failed trials again: {command}")
        self._tell_void()
        if cap is not None and capped:
            _warn(
                f"caps.{cap['cap']}: used {cap_amount(cap['cap'], cap['used'], cap['limit'])}. "
                f"Raise it in {driver.request.source}, then resume: {command}"
            )
            return Code.CAPPED
        if by_hand:
            _warn(f"ended by hand before all was trained. To resume: {command}")
            return Code.CAPPED
        return exit_code(self.driver.sweep, self.readers.void_arms(self.driver.sweep))

    def _test(self) -> None:
        """Have the test text read, if the sweep has one and it is new to a run of the chosen values or of the
        baseline."""
        trials = self.driver.sweep.trials.values()
        if any(trial.value("data.test_fraction") for trial in trials):
            self.driver.test(self.readers.to_test(self._files), _read_test_text)

    def _tell_void(self) -> None:
        for arm in self.readers.void_arms(self.driver.sweep):
            _warn(f"void: arm {arm} did not apply: its losses equal the baseline's")


def _sample(file: Path) -> list[led.Row]:
    """Texts that a checkpoint writes; none, and a warning, if it can't."""
    from sweeps.engine.worker import sample_texts

    try:
        return sample_texts(file)
    except Exception as error:  # noqa: BLE001 whatever it is, what was measured is valid without it
        _warn(f"no sample text: {failure_of(error).reason}")
        return []


def _read_test_text(run: led.Trial, file: Path | None) -> led.Row | None:
    """What a run loses on the test text; None, and a warning, if that can't be known."""
    from sweeps.engine.worker import read_test_text
    from tinylm.checkpoint import CheckpointError

    try:
        if file is None or not file.is_file():
            raise CheckpointError("its checkpoint is gone")
        return read_test_text(file, run.corpus)
    except Exception as error:  # noqa: BLE001 as of sample text
        _warn(f"no test loss of {run.label}: {failure_of(error).reason}")
        return None


def _warn(message: str) -> None:
    print(message, file=sys.stderr)
