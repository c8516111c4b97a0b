"""`python -m sweeps.run SPACE`: run a sweep, or go on with it."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sweeps import ledger as led
from sweeps.engine import provenance
from sweeps.engine.driver import Driver, RefusedError
from sweeps.engine.probe import fits, known_speeds, measured_speeds
from sweeps.engine.view import View
from sweeps.exits import fail
from sweeps.findings.arms import void_arms
from sweeps.plan import arms
from sweeps.plan import space as sp
from sweeps.plan import trials as pl
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.simulate.forecast import Forecast, forecast
from sweeps.text import count, duration, show
from tinylm import config as cfg
from tinylm import data

FAILED, NONE_SUCCEEDED, LOCKED, DAMAGED, STORAGE, CLUSTER, REFUSED, CAPPED = 3, 4, 5, 6, 7, 8, 9, 75

_SHOWN = 50  # trials of a plan that are printed

Address = Annotated[str, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")]
Tracker = Annotated[
    Literal["mlflow", "wandb"] | None, typer.Option(help="Send the trials there too.")
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def default_scale() -> str:
    """The config of a sweep that names none: `tinystories_17m` with a CUDA device, else `cpu`."""
    import torch

    return "tinystories_17m" if torch.cuda.is_available() else "cpu"


def ask(space: str, scale: str, changes: list[str], seed: int) -> Request:
    """What a command line asks for; `ConfigError` with what is wrong in it."""
    path = sp.find(space)
    parsed, written = sp.read(path)
    named = cfg.parse_assignments(changes)
    varied = {path for _, path in parsed.varied()}
    swept = [f"--set {name}: {path} sweeps this path" for name in named if name in varied]
    if "run.seed" in named:
        swept.append("--set run.seed: trials take their seeds from `seeds` and --seed")
    if swept:
        raise cfg.ConfigError(swept)
    source = f"{path} with --set" if named else f"{path}: base"
    base = cfg.overlay(cfg.load(scale), {**parsed.base, **named}, source)
    return Request(parsed, written, str(path), base, scale, seed)


def folder(request: Request, out: Path | None) -> Path:
    """Where the sweep lives: `--out`, else `results/<space>-<scale>`."""
    name = f"{Path(request.source).stem}-{Path(request.scale).stem}"
    place = out if out is not None else led.RESULTS / name
    wrong = []
    if not led.NAME.fullmatch(place.name) or ".." in place.parts:
        wrong.append(f"--out {place}: a folder named by letters, digits, _, - and . is due")
    if place.exists() and not place.is_dir():
        wrong.append(f"--out {place}: not a folder")
    if wrong:
        raise cfg.ConfigError(wrong)
    return place


@cache
def size(model: cfg.Model) -> tuple[int, int]:
    """Parameters and FLOPs per training token of a model."""
    from tinylm.model import size as counted

    found = counted(model)
    return found.params, found.flops_per_token


def local_slots(request: Request) -> int:
    """How many trials this machine runs at once."""
    fits = int((os.cpu_count() or 1) / request.space.resources.cpus)
    if request.base.run.device == "cuda":
        import torch

        fits = min(fits, int(torch.cuda.device_count() / request.space.resources.gpus))
    return max(1, fits)


def show_plan(request: Request, plan: pl.Plan, audit: float, console: Console) -> None:
    """Print the trials, what they cost, and how long they take here."""
    load = pl.load(request, plan)
    configs, full = load.configs, load.tokens
    flops = sum(size(config.model)[1] * config.budget.tokens for config in configs)
    for note in plan.notes:
        console.print(note, highlight=False)
    if plan.trials:
        console.print(_trials_table(plan.trials[:_SHOWN]))
    if len(plan.trials) > _SHOWN:
        console.print(f"and {len(plan.trials) - _SHOWN} more")
    space = request.space
    if isinstance(space.search, sp.OptunaSearch):
        console.print(f"{space.search.samples} trials, suggested by Optuna while the sweep runs")
    if space.retune:
        paths = " and ".join(space.retune)
        runs = sum(len(arms.runs(request, arm, {})) for arm in plan.arms)
        console.print(f"then {runs} runs of {len(plan.arms)} arms, each at its best {paths}")
    if space.confirm:
        console.print(f"then the best again, on {space.confirm} fresh seeds")
    console.print(f"full grid: {count(full)} tokens, {count(flops)} FLOPs")
    slots = local_slots(request)
    try:
        speeds = measured_speeds(configs, lambda said: console.print(said, style="dim"))
    except cfg.ConfigError as error:
        show_forecast(request, forecast(request, load, None, slots), full, console)
        console.print(f"time: unknown here ({error})")
        return
    found = forecast(request, load, speeds, slots)
    show_forecast(request, found, full, console)
    if audit:
        console.print(
            f"--audit {audit:g}: up to {count(audit * (full - found.tokens))} tokens more"
        )
    assert found.seconds is not None
    slowest, fastest = min(speeds), max(speeds)
    rates = f"{slowest:.0f}" if slowest == fastest else f"{slowest:.0f} to {fastest:.0f}"
    console.print(
        f"time: about {duration(found.seconds)} with {slots} trials at once "
        f"({rates} tokens/s measured here, one alone; evaluation and start-up aside)"
    )


def _trials_table(planned: list[PlannedTrial]) -> Table:
    """Trials, their values and what each costs."""
    paths = list(dict.fromkeys(path for one in planned for path in one.values))
    arms = any(one.arm for one in planned)
    head = ("trial", *(["arm"] if arms else []), *paths)
    table = Table(*head, "seed", "params", "tokens", "FLOPs", box=None)
    for column in table.columns[1 + arms :]:
        column.justify = "right"
    for one in planned:
        params, flops = size(one.config.model)
        tokens = one.config.budget.tokens
        values = (show(one.values.get(path)) for path in paths)
        counts = (count(params), count(tokens), count(flops * tokens))
        name = [one.arm] if arms else []
        table.add_row(one.trial, *name, *values, str(one.config.run.seed), *counts)
    return table


def caps_reached(request: Request, tokens: int, hours: float | None) -> Iterator[tuple[str, float]]:
    """The caps below what a sweep is expected to use, with that."""
    caps = request.space.caps
    expected = {"tokens": tokens, "hours": hours}
    if hours is not None and caps.price_per_hour is not None:
        expected["money"] = hours * caps.price_per_hour
    for cap, amount in expected.items():
        limit = getattr(caps, cap)
        if limit is not None and amount is not None and amount > limit:
            yield cap, amount


def show_forecast(request: Request, found: Forecast, full: int, console: Console) -> None:
    """Print the tokens that a sweep is expected to take, and how many trials come how far."""
    spread = "" if found.low == found.high else f", {count(found.low)} to {count(found.high)}"
    console.print(
        f"with {request.space.schedule.policy}: about {count(found.tokens)} tokens{spread}: "
        f"{found.tokens / full:.0%} (replay of {found.basis})"
    )
    stages = ", ".join(f"{trials:.3g} at {count(at)}" for at, trials in found.occupancy.items())
    console.print(f"trials that get there: {stages}")
    hours = None if found.seconds is None else found.seconds / 3600
    for cap, amount in caps_reached(request, found.tokens, hours):
        console.print(f"caps.{cap} ends it before: about {count(amount)} would be used")


class CorpusFacts:
    """What a trial's planned row says beside its config: counts, digest and entropy of its corpus.

    Tokenizes each corpus at its first call, so that the trials find it ready and bad data ends
    here.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._corpora: dict[str, data.Corpus] = {}
        self._entropies: dict[str, float] = {}

    def __call__(self, config: cfg.Config) -> dict[str, Any]:
        """`params`, `flops_per_token`, `corpus` and `unigram_entropy`; `ConfigError` for a corpus
        that won't do."""
        key = cfg.digest([config.data.model_dump(), config.model.vocab_size])
        if key not in self._corpora:
            self._corpora[key] = data.prepare(config, self._tell)
            self._entropies[key] = self._corpora[key].train.unigram_entropy()
        data.check_size(self._corpora[key], config)
        params, flops = size(config.model)
        return {
            "params": params,
            "flops_per_token": flops,
            "corpus": self._corpora[key].digest,
            "unigram_entropy": self._entropies[key],
        }


def refuse_other_corpus(sweep: led.Sweep, facts: CorpusFacts) -> None:
    """Raise `RefusedError` where the documents of unfinished trials are not those they had."""
    for trial in sweep.trials.values():
        if trial.status in {"finished", "diverged"}:
            continue
        config = cfg.validate(trial.config, trial.label)
        digest = facts(config)["corpus"]
        if digest != trial.corpus:
            where = config.data.path or config.data.corpus
            raise RefusedError(
                f"data: {where} has changed since the sweep began: its digest was {trial.corpus}, "
                f"it is {digest}"
            )


def exit_code(driver: Driver) -> int:
    """The exit code of a sweep that has nothing left to do."""
    failed = [trial for trial in driver.sweep.attempted if trial.status == "failed"]
    trials = driver.sweep.trials.values()
    if trials and all(trial.status == "failed" for trial in trials):
        return NONE_SUCCEEDED
    return FAILED if failed or void_arms(driver.sweep) else 0


def tell_void(driver: Driver) -> None:
    """Name the arms that did not apply."""
    for arm in void_arms(driver.sweep):
        print(f"void: arm {arm} did not apply: its training is the baseline's", file=sys.stderr)


def _sample(file: Path) -> led.Row | None:
    """Text that a checkpoint writes; None, and a message, where it is damaged."""
    from sweeps.engine.sample import sampled
    from tinylm.checkpoint import CheckpointError

    try:
        return sampled(file)
    except CheckpointError as error:  # what was measured stands without it
        print(f"no text is sampled: {error}", file=sys.stderr)
        return None


def conclude(driver: Driver, ended_by: int | None, command: str, console: Console) -> int:
    """Write the analysis, print the ranking and what is left; the exit code."""
    from sweeps import analyze

    if ended_by is None and not driver.is_capped():
        driver.sample(_sample)
    analyze.publish(driver.ledger.files, console)
    if ended_by is not None:
        print(f"interrupted; what was measured is kept. To go on: {command}", file=sys.stderr)
        return 128 + ended_by
    failed = [trial for trial in driver.sweep.attempted if trial.status == "failed"]
    for trial in failed:
        print(f"failed: {trial.label}: {trial.reason}", file=sys.stderr)
    if failed:
        print(f"the same command tries them again: {command}", file=sys.stderr)
    tell_void(driver)
    cap = driver.reached_cap()
    if cap is not None and driver.is_capped():
        print(
            f"caps.{cap['cap']}: {count(cap['used'])} of {count(cap['limit'])} used up; raise it in "
            f"{driver.request.source}, and the same command goes on: {command}",
            file=sys.stderr,
        )
        return CAPPED
    return exit_code(driver)


@app.command()
def main(
    space: Annotated[str, typer.Argument(help="A name in search_spaces/, or a YAML file.")],
    scale: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "",
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="PATH=VALUE", help="Replace a value in every trial."),
    ] = [],  # noqa: B006 typer copies it
    out: Annotated[Path | None, typer.Option(help="Folder; results/<space>-<scale>.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Added to the space's seeds.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, and end.")] = False,
    audit: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the stopped trials to train to their ends."),
    ] = 0.0,
    address: Address = "local",
    tracker: Tracker = None,
) -> None:
    """Run the sweep of a search space under Ray Tune. The same command again goes on with it."""

    def wanted() -> tuple[Request, Path]:
        request = ask(space, scale or default_scale(), changes, seed)
        return request, folder(request, out)

    which = "" if scale else " (none was named)"
    execute(wanted, Call("sweeps.run", address, tracker, "--out", which, plan=plan, audit=audit))


def console() -> Console:
    """Where tables are printed; a file or a pipe has no width, and 80 columns would cut them."""
    return Console() if sys.stdout.isatty() else Console(width=160)


@dataclass(frozen=True)
class Call:
    """How a sweep is run."""

    module: str  # the command
    address: str  # of a Ray cluster, or local
    tracker: Tracker
    folder_option: str  # the option that names the sweep's folder
    scale_note: str = ""  # said behind the name of the scale
    plan: bool = False  # print what would run, and end
    audit: float = 0.0


def execute(wanted: Callable[[], tuple[Request, Path]], call: Call) -> None:
    """Run what is asked for in its folder, or go on with it; ends with an exit code."""
    screen = console()
    place = led.RESULTS
    try:
        request, place = wanted()
        share = request.space.resources.gpus
        machine = Machine(size, lambda config: fits(config, local_slots(request), share))
        planned = pl.plan(request, machine)
        if call.plan:
            show_plan(request, planned, call.audit, screen)
            return
        if call.address == "local":
            from tinylm import train

            train.require(request.base.run.device)
        screen.print(f"scale: {request.scale}{call.scale_note}; sweep: {place}")
        facts = CorpusFacts(lambda message: print(message, flush=True))
        for config in (request.base, *pl.load(request, planned).configs):
            facts(config)
        for note in planned.notes:
            screen.print(note, highlight=False)
        callbacks = _callbacks(call.tracker, led.Files(place))
        with led.Ledger(led.Files(place)) as ledger:
            driver = Driver(ledger, request, planned, machine, facts, call.audit)
            refuse_other_corpus(driver.sweep, facts)
            raise typer.Exit(_run(driver, call, callbacks, screen))
    except cfg.ConfigError as error:
        raise fail(error.shown) from error
    except RefusedError as error:
        raise fail(
            f"{error}\nname another {call.folder_option}, or go back to the config above", REFUSED
        ) from error
    except led.LockedError as error:
        raise fail(error, LOCKED) from error
    except led.LedgerError as error:
        raise fail(error, DAMAGED) from error
    except OSError as error:
        raise fail(f"{error.filename or place}: {error.strerror or error}", STORAGE) from error


def _callbacks(tracker: Tracker, files: led.Files) -> list[Any]:
    """What Tune is to tell of the trials; `ConfigError` where that is not to be had."""
    if tracker is None:
        return []
    from sweeps.engine import trackers

    return [trackers.tracker(tracker, files)]


def _run(driver: Driver, call: Call, callbacks: list[Any], console: Console) -> int:
    """Run what is left to do of a sweep, and write its analysis; the exit code."""
    request, files = driver.request, driver.ledger.files
    command = shlex.join([sys.executable, "-m", call.module, *sys.argv[1:]])

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        print(f"interrupted; what was measured is kept. To go on: {command}", file=sys.stderr)
        raise SystemExit(128 + number)

    if driver.is_done():
        summary = files.analysis / "summary.md"
        print(f"{files.folder}: nothing is left to do; see {summary}", flush=True)
        tell_void(driver)
        driver.sample(_sample)  # which a driver that died left undone
        written = summary.exists() and summary.stat().st_mtime >= files.ledger.stat().st_mtime
        if not written:
            from sweeps import analyze

            analyze.publish(files, console)
        return exit_code(driver)
    from sweeps.engine import tune as engine

    engine.listen(interrupted)
    session: dict[str, Any] = {"command": command, **provenance.describe(request.base.run.device)}
    session |= {"notes": driver.plan.notes}
    resources, device = request.space.resources, request.base.run.device
    if driver.is_capped():
        return conclude(driver, None, command, console)
    if not driver.has_work():  # a driver died when only its last words were missing
        driver.begin({**session, "dashboard": None, "slots": 0}, None)
        driver.end()
        return conclude(driver, None, command, console)
    try:
        with engine.cluster(call.address) as dashboard:
            engine.listen(interrupted)  # ray.init has a handler of its own
            slots = engine.slots(resources, device)
            if dashboard:
                print(f"dashboard: {dashboard} (`make dashboard` prints its token)", flush=True)
            load = pl.load(request, driver.plan)
            speeds = known_speeds(load.configs)
            expected = forecast(request, load, speeds, slots)
            # How many tokens fit into seconds is not known without a speed.
            unknown = speeds is None and request.base.budget.seconds is not None
            fields = None if unknown else expected.fields()
            if call.address == "local":
                from tinylm import measure

                session["product_flops"] = measure.product_flops(request.base)
            driver.begin({**session, "dashboard": dashboard, "slots": slots}, fields)
            view = View(driver, expected.tokens, console)
            with view.shown():
                ended_by = engine.run(driver, view.update, callbacks)
                if ended_by is None and not driver.is_capped():
                    driver.end()
    except engine.ClusterError as error:
        raise fail(f"{error}\nto go on: {command}", CLUSTER) from error
    return conclude(driver, ended_by, command, console)


if __name__ == "__main__":
    app()
