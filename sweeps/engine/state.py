"""Where a sweep stands, by its rows: what its policy knows, and which trials may start.

Nothing is written here, and nothing decided: the driver asks, and each row that it writes comes back to `observe`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sortedcontainers import SortedSet

from sweeps import ledger as led
from sweeps.exits import RefusedError
from sweeps.plan import trials as pl
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.policies.pools import Pools
from sweeps.selection import Measured, first_at_most, last_record

_CONSULTED = {"withdrawn", "restored"}  # kinds after which `consult` sets up the policy again


@dataclass
class State:
    """The rows of a sweep so far, against its plan; and the jobs that wait for a worker, of which there are no
    rows."""

    request: Request
    plan: pl.Plan
    machine: Machine
    audit: float  # share of the stopped trials to train to the end as well
    sweep: led.Sweep = field(init=False, default_factory=led.Sweep)
    policy: Pools = field(init=False)
    # Trials that the space no longer has, and that are not withdrawn yet.
    gone: frozenset[str] = frozenset()
    # Trials whose jobs wait for a worker -> the fields of the row when it begins.
    queued: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The places of the trials that may start without a promotion; trials that were begun come first.
    ready: SortedSet = field(default_factory=SortedSet)
    # Each trial's place in the order of starting. Only rows of a trial itself change it, `_index` aside.
    _places: dict[str, tuple[bool, int, str]] = field(default_factory=dict)
    _at_target: dict[str, float] = field(default_factory=dict)  # trial -> its first loss there
    _past: list[led.Row] = field(default_factory=list)  # what a policy may see of the rows
    _score: str = field(init=False)  # the field that holds the score in a record at a rung

    def __post_init__(self) -> None:
        self._score = self.request.score_field
        self.policy = self._new_policy()  # which has the rungs

    def consult(self) -> None:
        """Set up the policy, and what has reached the target, from the ledger, as if what is not wanted had
        never been planned."""
        self.gone = frozenset(self.unwanted())
        self.policy = self._new_policy()
        for row in self._past:
            self._advise(row)
        for trial_id in self.queued:
            self._advise({"kind": "started", "trial": trial_id})
        self._at_target.clear()
        for trial in self.sweep.trials.values():
            if trial.trial not in self.gone:
                self._watch_target(trial)
        self._index()

    def _new_policy(self) -> Pools:
        """The policy before any row."""
        return self.request.policy(each_seed=self.sweep.judges_each_seed)

    def read(self, row: led.Row) -> None:
        """Take in a row that was written before, of which the policy is told by `consult`."""
        self.sweep.observe(row)
        self._remember(row)

    def observe(self, row: led.Row) -> None:
        """Take in a row that is written now."""
        kind = row["kind"]
        self.read(row)
        if kind in {"measured", "started"}:
            trial = self.sweep.find(row["trial"])
            self._watch_target(trial, last_record(trial) if kind == "measured" else None)
        self._advise(row)
        if kind == "session":
            self._index()
        elif kind not in _CONSULTED and "trial" in row:
            self._place(row["trial"])

    def queue(self, trial_id: str, **fields: Any) -> None:
        """Note that the job of a trial waits for a worker, with the fields of the row when it begins."""
        self.queued[trial_id] = fields
        self._place(trial_id)
        # The policy counts it as running from now on, or it would promote another in its place.
        self._advise({"kind": "started", "trial": trial_id})

    def _remember(self, row: led.Row) -> None:
        """Keep what a policy may see of a row. Of records, of which there may be a million, those are the
        scores at rungs, or all scores."""
        if row["kind"] != "measured":
            self._past.append(row)
            return
        trial = self.sweep.find(row["trial"])
        if self.request.space.schedule.scores_all or row["tokens"] in self.rungs(trial):
            names = ("kind", "trial", "tokens", self._score)
            self._past.append({name: row[name] for name in names if name in row})

    def _advise(self, row: led.Row) -> None:
        """Let the policy observe a row, unless it is of a trial that the policy has no say in."""
        if row["kind"] in _CONSULTED:
            return
        if "trial" in row:
            trial = self.sweep.find(row["trial"])
            if trial.is_withdrawn or trial.trial in self.gone or is_free(trial):
                return
            is_record = row["kind"] == "measured"
            if is_record and self._score not in row and row["tokens"] in self.rungs(trial):
                raise RefusedError(
                    f"schedule.score: trial {row['trial']} has passed the rung at {row['tokens']} "
                    f"tokens without its {self._score}"
                )
        self.policy.observe(row)

    def _index(self) -> None:
        """Find the trials that may start without a promotion, after a change that any may be affected by."""
        self.ready.clear()
        self._places.clear()
        for trial in self.sweep.trials:
            self._place(trial)

    def _place(self, trial_id: str) -> None:
        """Find out whether a trial may start without a promotion, after a row of it."""
        before = self._places.get(trial_id, (False, len(self._places), trial_id))
        self.ready.discard(before)
        trial = self.sweep.trials.get(trial_id)
        if trial is not None:
            self._places[trial_id] = (not trial.curve, before[1], trial_id)
            if self.is_ready(trial):
                self.ready.add(self._places[trial_id])

    def _watch_target(self, trial: led.Trial, new: Measured | None = None) -> None:
        """Note whether a trial has reached a target that ends it: with a new record, or without one with
        any that it has now."""
        target = self.request.space.target
        if target is None or target.ends == "nothing" or trial.role == "audit":
            return
        if new is None:
            self._at_target.pop(trial.trial, None)
            new = first_at_most(trial, target.metric, target.limit)
        is_asked = not trial.is_withdrawn and trial.trial not in self.gone
        if new is not None and new.loss(target.metric) <= target.limit and is_asked:
            self._at_target.setdefault(trial.trial, new.loss(target.metric))

    def rungs(self, trial: led.Trial) -> tuple[int, ...]:
        """The rungs of a trial, also of one that runs to the end."""
        return self.policy.rungs(trial.budget)

    def is_over(self, trial: led.Trial) -> bool:
        """Whether a trial needs no more training: its budget is used up, or it reached a target that
        ends it."""
        return bool(trial.curve) and (trial.is_whole or trial.trial in self._at_target)

    def is_ready(self, trial: led.Trial) -> bool:
        """Whether a trial may start without a promotion."""
        if trial.trial in self.gone or trial.is_stopped_by_hand or trial.trial in self.queued:
            return False
        if trial.status in {"paused", "stopped"}:
            # Paused at a rung that the current policy does not have.
            return not self.policy.holds(trial.trial)
        if trial.status == "finished":  # at a target that no longer ends it
            return not self.is_over(trial)
        return trial.status == "planned"

    def first_ready(self) -> led.Trial | None:
        """The first trial that may start without a promotion, one that was begun before others."""
        return self.sweep.trials[self.ready[0][-1]] if self.ready else None

    @property
    def under_way(self) -> list[led.Trial]:
        """The trials and audits that are being trained, or whose jobs wait for a worker."""
        return [self.sweep.find(trial) for trial in {*self.sweep.running, *self.queued}]

    def is_under_way(self, trial_id: str) -> bool:
        """Whether a trial or audit is being trained, or its job waits for a worker."""
        return trial_id in self.sweep.running or trial_id in self.queued

    def is_settled(self, trials: list[led.Trial], pool: str) -> bool:
        """Whether nothing is left to do for the trials of a pool."""
        return not self.is_racing(trials, pool) and not self.to_plan(pool)

    def is_racing(self, trials: list[led.Trial], pool: str) -> bool:
        """Whether trials of a pool are to be trained further, of those that are written down."""
        going = any(self.is_ready(trial) or self.is_under_way(trial.trial) for trial in trials)
        return going or self.policy.of(pool).promotion(idle=True) is not None

    def reached_cap(self) -> dict[str, Any] | None:
        """The first cap that is reached, with its limit and what was used, or the target that ends the
        sweep, with the loss that reached it; None if none is reached."""
        caps, sweep, target = self.request.space.caps, self.sweep, self.request.space.target
        if target is not None and target.ends == "sweep":
            # One that was lost with its attempt has to reach the target again.
            ends = [x for t, x in self._at_target.items() if sweep.trials[t].status == "finished"]
            if ends:
                return {"cap": "target", "limit": target.limit, "used": min(ends)}
        hours = sweep.training_seconds / 3600
        used = {
            "tokens": sweep.spent_tokens,
            "flops": sweep.spent_flops,
            "hours": hours,
            "gpu_hours": sweep.busy_seconds / 3600 * self.request.space.resources.gpus,
            "money": hours * (caps.price_per_hour or 0.0),
        }
        for cap, amount in used.items():
            limit = getattr(caps, cap)
            if limit is not None and amount >= limit:
                return {"cap": cap, "limit": limit, "used": amount}
        return None

    def unwanted(self) -> list[str]:
        """The trials that the space no longer has."""
        return pl.unwanted(self.request, self.machine, self.plan, self.sweep)

    def to_plan(self, pool: str | None = None) -> list[PlannedTrial]:
        """The planned trials, or those of a pool, that are not written down yet and may start; in plan
        order."""
        new = {
            one.trial
            for seeds in self._by_value.values()
            if pool is None or seeds[0].pool == pool
            for one in self._may_start(seeds)
        }
        return [one for one in self.plan.trials if one.trial in new] if new else []

    def next_seeds(self, of: led.Trial) -> list[PlannedTrial]:
        """The further seeds of a trial's value that are not written down yet and may start."""
        return self._may_start(self._by_value.get(_value(of), ()))

    def _may_start(self, seeds: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        """Of trials that differ only by seed, those that are not written down yet and may start: the next
        one, once the policy wants it."""
        left = [one for one in seeds if one.trial not in self.sweep.trials]
        if not left or left[0].pool is None or self.sweep.judges_each_seed:
            return left
        return left[:1] if self.policy.wants_seed(left[0].pool, left[0].values) else []

    @cached_property
    def _by_value(self) -> dict[tuple[str | None, str], list[PlannedTrial]]:
        """The planned trials of each pool that differ only by seed, by what they share."""
        found: dict[tuple[str | None, str], list[PlannedTrial]] = {}
        for one in self.plan.trials:
            found.setdefault(_value(one), []).append(one)
        return found


def is_free(trial: led.Trial) -> bool:
    """Whether a trial runs to the end, without early stopping."""
    return trial.pool is None


def is_judged(trial: led.Trial) -> bool:
    """Whether the policy decides on a trial; not on one that somebody has steered."""
    return not is_free(trial) and trial.by_hand is None


def _value(trial: PlannedTrial | led.Trial) -> tuple[str | None, str]:
    """What the trials of a pool share that differ only by seed."""
    return trial.pool, led.value_of(trial.values)
