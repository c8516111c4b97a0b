"""What happens next in a sweep, without Ray.

The driver hands out jobs while there is work, writes down what they report, and decides whether a
trial continues. Where the sweep stands comes from the ledger alone (`sweeps.engine.state`), and what its
results lead to from there (`sweeps.engine.choices`), so a driver that opens the ledger of a driver that
died continues where that one stopped.
"""

import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeps import ledger as led
from sweeps import steering
from sweeps.engine import choices
from sweeps.engine.interval import Interval
from sweeps.engine.job import Job
from sweeps.engine.refusals import refuse_other_base
from sweeps.engine.state import State, is_free, is_judged
from sweeps.engine.store import Checkpoints
from sweeps.plan import trials as pl
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.policies import Promotion, Stop
from tinylm import config as cfg

LOSSES = 10  # of its node, after which a trial fails in a session: it may be what ends them
RETRIES = 2  # attempts that a session makes after a trial's first failure
# Kinds of rows of a trial after which its value may want a further seed.
_RELEASES = {"promoted", "finished", "failed", "steered"}
_REASON = 2000  # characters of the reason of a failure that are kept
_BATCH = 1000  # planned trials that are written with one sync


@dataclass
class Driver:
    """Conducts one sweep, whose rows are written here alone, but for those of `steering.settle`. With a ledger
    that is only read, it says where the sweep stands."""

    ledger: led.ReadLedger
    request: Request
    plan: pl.Plan
    machine: Machine
    # Config -> params, flops_per_token, corpus, ...; passed in, since counting needs torch.
    facts: Callable[[cfg.Config], dict[str, Any]]
    audit: float = 0.0  # share of the stopped trials to train to the end as well
    clock: Callable[[], float] = time.monotonic  # by which requests are looked for
    # In the folder alone, until `keep_in`.
    checkpoints: Checkpoints = field(init=False)
    state: State = field(init=False)
    sweep: led.Sweep = field(init=False)  # that of the state
    # What to do with a trial once the checkpoint that it is saving has arrived, or what it leaves then.
    _due: dict[str, Literal["pause", "finish", "cap", "withdraw", "stop"] | led.Ending] = field(
        default_factory=dict
    )
    _failures: Counter[str] = field(default_factory=Counter)  # of this session
    _losses: Counter[str] = field(default_factory=Counter)  # the same, of nodes and their workers
    _news: list[led.Row] = field(default_factory=list)  # rows that were not told yet; no records
    _inbox: steering.Inbox = field(init=False)
    # Trials under way that are to be stopped: at their next record, or before they have begun.
    _to_stop: set[str] = field(default_factory=set)
    _ends: bool = False  # whether somebody asked that nothing new starts in this session
    # Between checkpoints; None if the config sets it.
    _interval: Interval | None = field(init=False, default=None)
    _leaves: bool = False  # whether all trials are to save and leave, since the driver will end
    # Trial -> Ray's id of the node of its attempt.
    _node: dict[str, str] = field(default_factory=dict)
    _draining: set[str] = field(default_factory=set)  # nodes that trials are to leave, by Ray's id

    def __post_init__(self) -> None:
        self.state = State(self.request, self.plan, self.machine, self.audit)
        self.sweep = self.state.sweep
        self.sweep.source = str(self.ledger.files.ledger)
        self._inbox = steering.Inbox(self.ledger.files, self.clock)
        self.checkpoints = Checkpoints(self.ledger.files)
        if (hours := self.request.space.resources.mtbf_hours) is not None:
            self._interval = Interval(hours * 3600)
        for row in self.ledger.rows():
            self.state.read(row)
            if self._interval is not None:
                self._interval.observe(row)
        self.state.consult()
        refuse_other_base(self.sweep.request, self.request)

    def _record(self, kind: str, **fields: Any) -> led.Row:
        (row,) = self._record_all([(kind, fields)])
        return row

    def _record_all(self, facts: Sequence[tuple[str, dict[str, Any]]]) -> list[led.Row]:
        rows = self.ledger.append_all(facts)
        for row in rows:
            kind = row["kind"]
            name = row.get("trial", "")
            of = self.sweep.trials.get(name) or self.sweep.audits.get(name)
            before = () if of is None else tuple(of.checkpoints)
            self.state.observe(row)
            if of is not None and kind != "unusable":  # the next session deletes what can't be used
                self._free(of, before)
            if self._interval is not None:
                self._interval.observe(row)
            if kind != "measured":
                self._news.append(row)
        for row in rows:
            is_of_trial = row["kind"] in _RELEASES and "trial" in row
            if is_of_trial and not is_free(self.sweep.find(row["trial"])):
                # At once: a value is judged by the seeds that it has.
                self._plan_seeds(self.sweep.find(row["trial"]))
        return rows

    def _free(self, trial: led.Trial, before: Sequence[led.Row]) -> None:
        """Delete those of earlier checkpoints that a trial no longer needs, and the folder of an attempt
        that is empty without them."""
        kept = {one["path"] for one in trial.checkpoints}
        for saved in before:
            # An audit begins from a checkpoint of another trial.
            if saved["path"] not in kept and saved["trial"] == trial.trial:
                files = self.ledger.files
                self.checkpoints.remove(files.checkpoint(saved).parent)

    def _kept(self) -> set[Path]:
        """The folders of the checkpoints that trials may go on from, or that are their last."""
        return {
            self.ledger.files.checkpoint(saved).parent
            for trial in self.sweep.everything
            for saved in trial.checkpoints
        }

    def keep_in(self, checkpoints: Checkpoints) -> None:
        """Keep the checkpoints there, those that there are and those that come."""
        self.checkpoints = checkpoints
        checkpoints.clean(self._kept())

    def _clean(self) -> None:
        """Delete what drivers that died left in the folders of attempts: checkpoints that no row names, and
        folders without any."""
        files, kept = self.ledger.files, self._kept()
        for attempt in files.attempts(one.trial for one in self.sweep.everything):
            for folder in files.saved(attempt):
                if folder not in kept:
                    files.remove_checkpoint(folder)
            with contextlib.suppress(OSError):  # it holds what is needed
                attempt.rmdir()

    def take_news(self) -> list[led.Row]:
        """The rows that were written since this was last called, without records."""
        news, self._news = self._news, []
        return news

    def take_requests(self) -> None:
        """Do what people asked of the sweep since they were last looked for, which is once a second."""
        if not self._inbox.is_due():
            return
        self._to_stop.clear()
        for request in self._inbox.look():
            if request.action == "stop" and self.state.is_under_way(request.trial):
                self._to_stop.add(request.trial)
            else:
                self._take(request)

    def _take(self, request: steering.Request) -> None:
        """Do what is asked, or say why nothing can be done of it, and remove the request."""
        if why := steering.refusal(self.sweep, request):
            self._record("refused", reason=why)
            steering.refuse(self.ledger.files, why)
        elif request.action != "end" or not self._ends:
            self._record("steered", **steering.fields_of(self.sweep, request))
            self._ends = self._ends or request.action == "end"
        self._inbox.remove(request)

    def is_look_due(self) -> bool:
        """Whether a study is to be looked at now, which trains nothing; `begin` does it."""
        return any(choice.kind == "look" for choice in choices.due(self.state))

    def is_capped(self) -> bool:
        """Whether a cap is reached, or the session is ended by hand, and work is left that this prevents."""
        return (self._ends or self.state.reached_cap() is not None) and self.has_work()

    def has_work(self) -> bool:
        """Whether anything is left to train, caps aside; writes nothing."""
        trials, gone = self.sweep.trials, set(self.state.unwanted())
        left = [trial for trial in self.sweep.attempted if trial.trial not in gone]
        return (
            bool(self.state.to_plan())
            or any(
                self.state.is_under_way(trial.trial) or trial.status == "failed" for trial in left
            )
            or any(self.state.is_ready(trial) for trial in left if trial.role != "audit")
            or self.state.policy.promotion(idle=True) is not None
            or choices.suggestion(self.state) is not None
            or any(
                choice.kind == "look" or any(new.trial not in trials for new in choice.runs)
                for choice in choices.due(self.state)
            )
            or any(audit.status == "planned" for audit in self.sweep.audits.values())
            or bool(choices.to_audit(self.state))
        )

    def is_done(self) -> bool:
        """Whether nothing is left to do, not even a row to write; writes nothing."""
        asked = (
            self.sweep.request is not None and self.sweep.request["space"] == self.request.written
        )
        ended = all(trial.status in led.SETTLED for trial in self.sweep.trials.values())
        current = self.sweep.chosen.keys() <= {arm.name for arm in self.plan.arms}
        settled_all = current and next(choices.due(self.state), None) is None
        return asked and ended and settled_all and not self.state.unwanted() and not self.has_work()

    def begin(self, session: dict[str, Any], forecast: dict[str, Any] | None = None) -> None:
        """Write down the request, the session and the forecast; plan what is new; complete what a crash
        cut short."""
        request = self._asked()
        new = self.sweep.request is None or any(
            self.sweep.request.get(k) != v for k, v in request.items()
        )
        if new:
            self._record("sweep", **request)
        self._record("session", **session)
        self._clean()
        if new and forecast is not None:
            self._record("forecast", **forecast)
        self._plan_due()
        self._withdraw()
        self._plan_due()  # of values whose first seed was withdrawn
        while self._choose():
            pass
        for trial in self.sweep.attempted:
            # A crash may have prevented the decision; a new policy may decide differently.
            if trial.checkpoint is not None and self.state.is_ready(trial):
                self._conclude(trial, trial.checkpoint)

    def _asked(self) -> dict[str, Any]:
        """The fields of the `sweep` row."""
        asked = self.request.row()
        if not self.sweep.judges_each_seed:
            asked["judged"] = led.VALUES
        if not self.request.space.is_study:
            return asked
        space = self.request.space
        return {
            **asked,
            "looks": list(self.request.looks),
            "seeds": self.request.seeds,
            "metric": space.metric,
            "matters": space.matters,
            "variance": space.variance,
            "arms": {
                arm.name: {"hypothesis": arm.hypothesis, "changes": dict(arm.changes)}
                for arm in self.plan.arms
                if arm.name != led.BASELINE
            },
        }

    def _plan_due(self) -> None:
        """Write down the planned trials that may start."""
        while new := self.state.to_plan():
            self._plan(new)

    def _plan_seeds(self, of: led.Trial) -> None:
        """Write down the further seeds of a trial's value that may start."""
        while new := self.state.next_seeds(of):
            self._plan(new)

    def _plan(self, planned: Iterable[PlannedTrial]) -> None:
        """Write down the trials that are new or restored, many rows at a time."""
        new: dict[str, PlannedTrial] = {}  # arms may share trials
        for one in planned:
            if one.trial not in self.sweep.trials:
                new.setdefault(one.trial, one)
        restored = not new.keys().isdisjoint(self.sweep.withdrawn)
        left = iter(new.values())
        labels = {trial.label for trial in self.sweep.trials.values()}
        while batch := list(itertools.islice(left, _BATCH)):
            self._record_all([self._planned(one, labels) for one in batch])
        if restored:
            self.state.consult()

    def _planned(self, new: PlannedTrial, labels: set[str]) -> tuple[str, dict[str, Any]]:
        """The kind and the fields of the row of a trial that is new or restored. A label that another
        trial has gets the id, as on the page; `labels` are those taken, and take it in."""
        if new.trial in self.sweep.withdrawn:
            return "restored", {"trial": new.trial}
        label = new.label or self.ledger.files.name
        if label in labels:
            label += f" ({new.trial})"
        labels.add(label)
        return "planned", {
            "trial": new.trial,
            "label": label,
            "config": new.config.model_dump(),
            "values": new.values,
            "seed": new.config.run.seed,
            "role": new.role,
            "arm": new.arm,
            "grid": new.grid,
            "draws": new.draws,
            **self.facts(new.config),
        }

    def _withdraw(self) -> None:
        """Write down which trials the space no longer has; of one that is being trained, `saved` does it."""
        unwanted = self.state.unwanted()
        for trial in unwanted:
            if not self.state.is_under_way(trial):
                self._record("withdrawn", trial=trial)
        if unwanted or self.state.gone:
            self.state.consult()

    def _conclude(self, trial: led.Trial, saved: led.Row) -> None:
        """Write the row that a crash prevented after a checkpoint: the end, a pause or a promotion."""
        if self.state.is_over(trial):
            self._finish(trial)
            return
        if is_judged(trial) and self._decide(trial, saved["tokens"]) == "pause":
            self._pause(trial, saved["tokens"])

    def _decide(self, trial: led.Trial, tokens: int) -> Literal["on", "pause", "stop"]:
        """Write down what the policy decides about a trial at a token count; a pause waits for the
        checkpoint."""
        decision = self.state.policy.decide(trial.trial, tokens)
        if isinstance(decision, Stop):
            self._record("stopped", trial=trial.trial, **decision.fields())
            return "stop"
        if isinstance(decision, Promotion):
            self._record("promoted", **decision.fields())
        return "pause" if decision == "pause" else "on"

    def end(self) -> None:
        """Write down why each trial that still waits is stopped; called when nothing is left to do."""
        self._stop_waiting(self.sweep.trials.values())

    def _stop_waiting(self, trials: Iterable[led.Trial]) -> None:
        for trial in trials:
            if trial.status == "paused" and self.state.policy.holds(trial.trial):
                standing = self.state.policy.standing(trial.trial)
                self._record("stopped", trial=trial.trial, **standing.fields())

    def sample(
        self,
        groups: Iterable[Iterable[led.Trial]],
        write: Callable[[Path], Sequence[dict[str, Any]]],
    ) -> None:
        """Write down texts sampled from the first run of each group whose checkpoint exists, if these runs
        are others than before."""
        chosen = {
            run.trial: (run, file)
            for group in groups
            for run, file in itertools.islice(self._saved(group), 1)
        }
        known = self.sweep.sampled or {"texts": []}
        if chosen.keys() == {text["trial"] for text in known["texts"]}:
            return
        texts = [
            {"trial": run.trial, "step": run.step, **text}
            for run, file in chosen.values()
            for text in write(file)
        ]
        if texts:
            self._record("sampled", texts=texts)

    def fetch(self, groups: Iterable[Iterable[led.Trial]]) -> None:
        """Get the checkpoint of the first run of each group that has one, if it is kept elsewhere."""
        for group in groups:
            next(self._saved(group), None)

    def _saved(self, runs: Iterable[led.Trial]) -> Iterator[tuple[led.Trial, Path]]:
        """The runs whose checkpoints exist, with these."""
        for run in runs:
            if run.checkpoint is not None:
                file = self.ledger.files.checkpoint(run.checkpoint)
                if self.checkpoints.has(file):
                    yield run, file

    def test(
        self,
        runs: Collection[led.Trial],
        read: Callable[[led.Trial, Path | None], dict[str, Any] | None],
    ) -> None:
        """Write down what runs lose on the test text, by their last checkpoints, each run once; of those for
        which it is None, a later call may know it."""
        known, files = self.sweep.tests, self.ledger.files
        found = {}
        for run in runs:
            file = None if run.checkpoint is None else files.checkpoint(run.checkpoint)
            if run.trial in known:
                continue
            if file is not None:
                self.checkpoints.has(file)
            if (losses := read(run, file)) is not None:
                found[run.trial] = losses
        if found:
            self._record("tested", runs=[run.trial for run in runs], trials=found)

    def most_at_once(self) -> int:
        """How many trials could be trained at once now: those that are under way, and those that may start. Of
        those that may only be promoted, this counts one."""
        under_way = len(self.state.under_way)
        if self._ends or self._leaves or self.state.reached_cap():
            return under_way
        audits = self.sweep.audits.values()
        waiting = sum(
            one.status == "planned" and one.trial not in self.state.queued for one in audits
        )
        startable = len(self.state.ready) + waiting + choices.samples_left(self.state)
        return under_way + (startable or int(self.state.policy.promotion(idle=True) is not None))

    def next_job(self) -> Job | None:
        """The next job for a free slot: interrupted trials first, then promotions, then new trials. It waits
        until a worker `began`. None while it depends on running trials, and when all is done."""
        self.take_requests()
        if self._ends or self._leaves or self.state.reached_cap():
            self._look()  # which trains nothing
            return None
        trial = self._next_trial()
        if trial is None:
            return None
        saved, source = self._usable(trial)
        # An audit too: a replay of its curve needs the scores that a policy would see.
        is_scored = not is_free(trial) or trial.role == "audit"
        job = Job(
            trial=trial.trial,
            label=trial.label,
            attempt=trial.attempt + 1,
            config=trial.config,
            corpus=trial.corpus,
            rungs=self.state.rungs(trial) if is_scored else (),
            branch=float(self.request.space.schedule.branch) if is_scored else 0.0,
            checkpoint=source,
            store=self.checkpoints.of_workers,
        )
        self.state.queue(
            trial.trial,
            attempt=job.attempt,
            step=saved["step"] if saved is not None else 0,
            checkpoint=saved["path"] if saved is not None else None,
        )
        return job

    def began(self, trial_id: str, **where: str) -> None:
        """Write down that a worker begins the job of a trial, and where: its `worker`, `address`, `node` and
        `device`, as far as they are known."""
        self._node[trial_id] = where.get("node", "")
        self._record("started", trial=trial_id, **self.state.queued.pop(trial_id), **where)
        self.checkpoints.begin()

    def no_longer_wanted(self) -> list[str]:
        """The trials whose jobs wait for a worker and are not to begin: nothing new starts in this session, or
        somebody stops them."""
        ends = self._ends or self._leaves
        none = bool(self.state.queued) and (ends or self.state.reached_cap() is not None)
        return [trial for trial in self.state.queued if none or trial in self._to_stop]

    def take_back(self, trials: Collection[str]) -> None:
        """Take jobs back that no worker has begun; of these nothing was written. They can be handed out again,
        but for those that somebody stops."""
        for trial in trials:
            del self.state.queued[trial]
        if trials:
            self.state.consult()
        for trial in self._to_stop.intersection(trials):
            self._to_stop.remove(trial)
            self._take(steering.Request("stop", trial))

    def _usable(self, trial: led.Trial) -> tuple[led.Row | None, str | None]:
        """The checkpoint to resume a trial from, its row and where a worker reads it, after writing down which
        later ones are missing; None if there is none: from its beginning it trains the same records again."""
        while (saved := trial.checkpoint) is not None:
            source = self.checkpoints.source(self.ledger.files.checkpoint(saved))
            if source is not None:
                return saved, source
            self._cannot_use(trial, saved, f"{saved['path']}: there is no such file")
        return None, None

    def _cannot_use(self, trial: led.Trial, saved: led.Row, reason: str) -> None:
        """Write down that a checkpoint is damaged or missing: the trial goes on from the one before."""
        step, path = saved["step"], saved["path"]
        self._record(
            "unusable",
            trial=trial.trial,
            attempt=trial.attempt,
            step=step,
            path=path,
            reason=reason.replace(f"{self.ledger.files.folder.resolve()}/", "")[:_REASON],
        )

    def _next_trial(self) -> led.Trial | None:
        first = self.state.first_ready()
        if first is not None and first.curve:
            return first
        promotion = self.state.policy.promotion(idle=False)
        if promotion is None and first is None:
            first = self._suggest()
        if promotion is None and first is None:
            promotion = self.state.policy.promotion(idle=True)
        if promotion is not None:
            self._record("promoted", **promotion.fields())
            return self.sweep.trials[promotion.trial]
        while first is None and self._choose():
            first = self.state.first_ready()
        return self._waiting_audit() if first is None else first

    def _choose(self) -> bool:
        """Write down the choices that are settled now (values of arms, the best to confirm), and plan
        the trials that follow; whether there was anything new."""
        found = list(choices.due(self.state))
        for choice in found:
            self._stop_waiting(self.sweep.trials[trial] for trial in choice.fields.get("grid", ()))
            self._plan(choice.runs)
            self._record(choice.kind, **choice.fields)
        if found:
            self._withdraw()
        return bool(found)

    def _look(self) -> None:
        """Write down a look at a study, if one is due."""
        for choice in list(choices.due(self.state)):
            if choice.kind == "look":
                self._record(choice.kind, **choice.fields)

    def _waiting_audit(self) -> led.Trial | None:
        """The first audit that waits for a slot; None before every trial is decided."""
        if any(one.trial in self.sweep.trials for one in self.state.under_way):
            return None
        if choices.to_audit(self.state):
            self.end()
        drawn = choices.to_audit(self.state)
        stopped = sum(
            trial.status == "stopped" and not trial.is_stopped_by_hand
            for trial in self.sweep.trials.values()
        )
        for trial in drawn:
            self._record(
                "audited",
                trial=f"{trial.trial}-audit",
                of=trial.trial,
                stopped=stopped,
                share=self.audit,
            )
        audits = self.sweep.audits.values()
        waiting = (one for one in audits if one.status == "planned")
        return next((one for one in waiting if one.trial not in self.state.queued), None)

    def _suggest(self) -> led.Trial | None:
        """The next trial of an Optuna search, written down; None if there is none."""
        while (new := choices.suggestion(self.state)) is not None:
            self._plan([new])
            trial = self.sweep.trials[new.trial]
            if self.state.is_ready(trial):  # one that was withdrawn may have finished before
                return trial
        return None

    def reported(self, trial_id: str, event: dict[str, Any], *, ends: bool = False) -> bool:
        """Write down an event of `Attempt.events`, by a worker that may have been asked to end; whether the
        attempt continues."""
        trial = self.sweep.find(trial_id)
        fields = {k: v for k, v in event.items() if k not in {"event", "save"}}
        fields = {k: None if _is_infinite(v) else v for k, v in fields.items()}
        self._record(event["event"], trial=trial_id, attempt=trial.attempt, **fields)
        if event["event"] == "diverged":
            return False
        if self.state.is_over(trial):
            self._due[trial_id] = "finish"
            return False
        if trial_id in self.state.gone:
            self._due[trial_id] = "withdraw"
            return False
        self.take_requests()
        if trial_id in self._to_stop:
            self._due[trial_id] = "stop"
            return False
        decided = self._decide(trial, event["tokens"]) if is_judged(trial) else "on"
        if decided == "pause":
            self._due[trial_id] = "pause"
            return False
        if decided == "stop":
            return False
        if self.state.reached_cap():
            self._due[trial_id] = "cap"
            return False
        if ending := self._ending(trial_id, ends=ends):
            self._due[trial_id] = ending
            return False
        return True

    def _ending(self, trial_id: str, *, ends: bool) -> led.Ending | None:
        """What of a trial that is being trained is about to end, if anything is."""
        if self._leaves:
            return "signal"
        if self._node.get(trial_id) in self._draining:
            return "node"
        return "worker" if ends else None

    def wants_checkpoint(self, trial_id: str, due: bool) -> bool:
        """Whether a checkpoint of the trial's last record is needed; its config and its rungs say that one is
        due, or not."""
        trial = self.sweep.find(trial_id)
        if trial_id in self._due:
            return True
        is_fixed = (
            trial.status != "running" or trial.is_whole or trial.tokens in self.state.rungs(trial)
        )
        if self._interval is None or is_fixed:
            return due
        by_cost = self._interval.is_due(trial_id)
        return due if by_cost is None else by_cost

    def saved(self, trial_id: str, path: Path) -> None:
        """The checkpoint of the last record is at `path`: write it down, and do what waited for it."""
        trial = self.sweep.find(trial_id)
        # The row must not outlive the file, nor an older checkpoint end before this one is safe.
        self.checkpoints.keep(path)
        self._record(
            "checkpointed",
            trial=trial_id,
            attempt=trial.attempt,
            step=trial.step,
            tokens=trial.tokens,
            path=path.relative_to(self.ledger.files.folder.resolve()).as_posix(),
        )
        due = self._due.pop(trial_id, None)
        if due == "finish":
            self._finish(trial)
        elif due == "pause":
            self._pause(trial, trial.tokens)
        elif due == "stop":
            self._take(steering.Request("stop", trial_id))
        elif due == "withdraw":
            self._record("withdrawn", trial=trial_id)
            self.state.consult()
        elif due == "cap":
            cap = self.state.reached_cap()
            assert cap is not None  # a cap that was reached stays reached
            self._record("capped", trial=trial_id, attempt=trial.attempt, **cap)
        elif due is not None:
            self._record("preempted", trial=trial_id, attempt=trial.attempt, how=due)

    def failed(self, trial_id: str, how: str, reason: str, traceback: str) -> None:
        """Write down that an attempt failed; it is retried up to `RETRIES` times per session (`LOSSES` times
        if it lost its node, or never had a worker), and as often as there are damaged checkpoints before it."""
        self._due.pop(trial_id, None)
        trial = self.sweep.find(trial_id)
        is_without_worker = trial_id in self.state.queued
        if is_without_worker:
            self.began(trial_id)
        counted = self._losses if how == "node" or is_without_worker else self._failures
        if how == "checkpoint" and trial.checkpoint is not None:
            self._cannot_use(trial, trial.checkpoint, reason)
            return
        counted[trial_id] += 1
        self._record(
            "failed",
            trial=trial_id,
            attempt=trial.attempt,
            how=how,
            reason=reason[:_REASON],
            traceback=traceback[-led.LONGEST_TEXT :],
            final=self._failures[trial_id] > RETRIES or self._losses[trial_id] > LOSSES,
        )

    def note(self, node: dict[str, Any]) -> None:
        """Write down what has happened to a node of the cluster."""
        cut = {"reason": node["reason"][:_REASON]} if "reason" in node else {}
        self._record("node", **node | cut)
        if node["state"] == "draining":
            self._draining.add(node["node"])

    def leave(self) -> None:
        """Begin nothing more, and let each trial save and leave at its next record."""
        self._leaves = True

    def _finish(self, trial: led.Trial) -> None:
        target = self.request.space.target
        early = {}
        if target is not None and not trial.is_whole:
            reason = f"reached {target.metric} {target.limit:g}"
            early = {"how": led.AT_TARGET, "reason": reason}
        self._record(
            "finished",
            trial=trial.trial,
            attempt=trial.attempt,
            step=trial.step,
            tokens=trial.tokens,
            **early,
        )

    def _pause(self, trial: led.Trial, tokens: int) -> None:
        score = next(row for row in trial.curve if row["tokens"] == tokens)
        self._record(
            "paused",
            trial=trial.trial,
            attempt=trial.attempt,
            rung=tokens,
            score=score[self.request.score_field],
        )


def _is_infinite(value: Any) -> bool:
    """Whether a value is a float that JSON can't express."""
    return isinstance(value, float) and not math.isfinite(value)
