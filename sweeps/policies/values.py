"""One decision for all seeds of a value, whatever the policy."""

import math
import statistics
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from sweeps.ledger import Row, ends_attempt
from sweeps.policies.base import Decision, Promotion, Schedule, Stop, score_in

# A value passes this many rungs on its first seed, before its others start. By then the policy has ruled out most
# values for the price of one seed, and the rest are judged by the mean of all (docs/validation.md).
ALONE = 1

Tokens = int | Fraction


@dataclass
class _Seed:
    """A trial of a value."""

    trial: str
    number: int  # its seed
    value: "_Value"
    scores: dict[Tokens, float] = field(default_factory=dict)
    waits_at: int | None = None  # a rung
    is_running: bool = False
    is_failed: bool = False
    is_over: bool = False  # finished or diverged
    has_diverged: bool = False
    is_by_hand: bool = False  # somebody stopped it, or has it trained to its end

    @property
    def is_awaited(self) -> bool:
        """Whether its value is not judged at a rung without it."""
        return not (self.is_failed or self.is_over or self.is_by_hand)


@dataclass
class _Value:
    """The trials that differ only by seed; the policy sees them as one, under the name of the first."""

    name: str
    rungs: tuple[int, ...]  # at which it is judged
    seeds: list[_Seed] = field(default_factory=list)
    arrived: set[Tokens] = field(default_factory=set)  # where the policy has its score
    pending: set[Tokens] = field(default_factory=set)  # where only some of its seeds have one
    # The rungs that it has passed; None where a trial continued under another policy.
    passed: dict[int, Promotion | None] = field(default_factory=dict)
    waits: bool = False  # in the policy
    has_finished: bool = False  # all of its seeds, one at least
    has_diverged: bool = False  # and the policy knows

    @property
    def is_free(self) -> bool:
        """Whether one of its trials has finished, so that the others run to the end as well."""
        return any(seed.is_over and not seed.has_diverged for seed in self.seeds)

    def waiting(self, rung: int) -> list[_Seed]:
        """The trials that wait at a rung."""
        return [seed for seed in self.seeds if seed.waits_at == rung]


class Values:
    """A policy for trials of which several differ only by seed: together they continue or stop.

    The policy inside sees one trial for each value. It arrives at a rung when all its seeds have, except
    those that failed, with the mean of their scores on the seeds that the first value had there. Where it
    lacks some of these, its mean is corrected for how hard they are, as the first value's scores show. A seed
    that diverged makes that infinite. The first seed trains alone up to rung number `alone`; the others start
    when the value has passed it (`wants_seed`). A seed that is added later starts unless the value waits.

    A seed that somebody steers is out of the policy's hands: its scores so far stay, but later ones don't
    count, it is never promoted, and neither its value nor the policy waits for it. A value all of whose seeds are
    steered gets no further one.
    """

    def __init__(
        self, schedule: Schedule, rungs: tuple[int, ...], field: str, alone: int = ALONE
    ) -> None:
        self.rungs = rungs
        self._schedule = schedule
        self._policy = schedule.policy_at(rungs, field)
        self._field = field
        self._alone = alone
        self._values: dict[str, _Value] = {}  # by what its trials share
        self._seeds: dict[str, _Seed] = {}  # by trial
        # The scores of the first value that arrived with finite ones, by seed.
        self._first: dict[Tokens, dict[int, float]] = {}
        self._due: dict[str, Promotion] = {}  # of trials whose value was promoted with another seed
        # Values that wait although the policy decides on arrival: a seed that they waited for has failed.
        self._undecided: dict[str, int] = {}

    def wants_seed(self, value: str) -> bool:
        """Whether a further seed of a value may start, or its first one."""
        known = self._values.get(value)
        if known is None or all(seed.is_failed for seed in known.seeds):
            return True
        alone = known.rungs[: self._alone]
        if known.waits or (alone and all(seed.is_by_hand for seed in known.seeds)):
            return False
        return not alone or alone[-1] in known.passed or known.is_free

    def observe(self, row: Row) -> None:
        """Update the state by one row of the ledger; `planned` has what the trials of a value share."""
        if row["kind"] == "planned":
            self._plan(row)
        elif "trial" in row:
            self._observe(self._seeds[row["trial"]], row)
        else:
            for seed in self._seeds.values() if row["kind"] == "session" else ():
                seed.is_running = seed.is_failed = False
            self._policy.observe(row)

    def _plan(self, row: Row) -> None:
        trial, value = row["trial"], self._values.get(row["value"])
        if value is None:
            self._policy.observe(row)
            value = _Value(trial, self._policy.rungs_of(trial))
            self._values[row["value"]] = value
        self._seeds[trial] = _Seed(trial, row["seed"], value)
        value.seeds.append(self._seeds[trial])

    def _tell(self, value: _Value, row: Row, **changes: object) -> None:
        """Let the policy observe a row as one of a value."""
        self._policy.observe({**row, "trial": value.name, **changes})

    def _observe(self, seed: _Seed, row: Row) -> None:
        value, kind = seed.value, row["kind"]
        if seed.is_by_hand:
            return
        if kind == "steered":
            self._release(seed, row)
        elif kind == "measured":
            if row["tokens"] in self.rungs or self._schedule.scores_all:
                seed.scores.setdefault(row["tokens"], score_in(row, self._field))
                value.pending.add(row["tokens"])
        elif kind == "started":
            self._start(seed, row)
        elif kind == "promoted":
            self._promote(seed, row)
        elif kind in {"paused", "stopped"}:
            self._pause(seed, row)
        elif kind == "failed":
            seed.is_failed = row["final"]
        elif kind in {"finished", "diverged"}:
            self._end(seed, row)
        if kind == "steered" or ends_attempt(row):
            seed.is_running = False
            if not any(other.is_running for other in value.seeds):
                self._tell(value, row, kind="capped")
        self._settle(value)

    def _release(self, seed: _Seed, row: Row) -> None:
        """Let go of a trial that somebody has steered; its value waits on if other seeds of it do."""
        value = seed.value
        seed.is_by_hand, seed.waits_at = True, None
        self._due.pop(seed.trial, None)
        if value.waits and all(other.waits_at is None for other in value.seeds):
            value.waits = False
            self._undecided.pop(value.name, None)
            self._tell(value, row)
        self._finish(value, row)

    def _finish(self, value: _Value, row: Row) -> None:
        """Tell the policy that a value has finished, once one of its seeds has, and it waits for no other."""
        finished = any(seed.is_over and not seed.has_diverged for seed in value.seeds)
        going = any(seed.is_awaited or seed.has_diverged for seed in value.seeds)
        if finished and not going:
            value.has_finished = True
            self._tell(value, row, kind="finished")

    def _start(self, seed: _Seed, row: Row) -> None:
        value, left = seed.value, seed.waits_at
        seed.is_running, seed.is_failed, seed.waits_at = True, False, None
        if left is not None:  # the sweep's policy before this one continued it
            value.passed[left] = None
            for other in value.waiting(left):
                other.waits_at = None
        if not value.has_finished and (left is not None or not value.waits):
            value.waits = False
            self._undecided.pop(value.name, None)
            self._tell(value, row)

    def _promote(self, seed: _Seed, row: Row) -> None:
        value, rung = seed.value, row["rung"]
        seed.waits_at = None
        self._due.pop(seed.trial, None)
        if rung not in value.rungs or rung in value.passed:
            return
        numbers: dict[str, Any] = {name: row.get(name) for name in Promotion.__dataclass_fields__}
        promotion = value.passed[rung] = Promotion(**numbers)
        value.waits = False
        self._undecided.pop(value.name, None)
        self._tell(value, row)
        for other in value.waiting(rung):
            self._due[other.trial] = replace(promotion, trial=other.trial)

    def _pause(self, seed: _Seed, row: Row) -> None:
        value, rung = seed.value, row["rung"]
        if rung not in value.rungs:
            return
        seed.waits_at = rung
        promotion = value.passed.get(rung)
        if promotion is not None:  # while its checkpoint was saved
            self._due[seed.trial] = replace(promotion, trial=seed.trial)
        elif rung in value.arrived:
            self._wait(value, row)

    def _wait(self, value: _Value, row: Row) -> None:
        """Let a value wait where it has arrived, or stop there."""
        value.waits = True
        self._tell(value, row)
        if row["kind"] == "stopped":
            self._undecided.pop(value.name, None)
        elif self._schedule.decides_on_arrival:
            self._undecided[value.name] = row["rung"]

    def _end(self, seed: _Seed, row: Row) -> None:
        value = seed.value
        seed.is_over, seed.waits_at = True, None
        seed.has_diverged = row["kind"] == "diverged"
        if seed.has_diverged and not (value.has_finished or value.has_diverged or value.waits):
            value.has_diverged = True
            self._tell(value, row)
            for rung in [rung for rung in value.rungs if rung not in value.arrived][:1]:
                value.arrived.add(rung)
                self._join(value, rung)
        elif not seed.has_diverged:
            self._finish(value, row)

    def _settle(self, value: _Value) -> None:
        """Let a value arrive wherever all its seeds have a score that are awaited."""
        value.pending -= value.arrived
        awaited = [seed for seed in value.seeds if seed.is_awaited]
        for tokens in sorted(value.pending):
            if all(tokens in seed.scores for seed in awaited):
                self._arrive(value, tokens)

    def _arrive(self, value: _Value, tokens: Tokens) -> None:
        value.arrived.add(tokens)
        scores = {seed.number: seed.scores[tokens] for seed in value.seeds if tokens in seed.scores}
        has_diverged = any(seed.has_diverged for seed in value.seeds)
        mean = math.inf if has_diverged else self._mean(tokens, scores)
        self._tell(value, {"kind": "measured", "tokens": tokens, self._field: mean})
        self._join(value, tokens)

    def _mean(self, tokens: Tokens, scores: dict[int, float]) -> float:
        """The mean of a value's scores by seed, as if it had the seeds of the first value that arrived there:
        that one's mean, and the mean difference from it over the seeds that both have; its own mean where they
        have none in common."""
        if all(map(math.isfinite, scores.values())):
            self._first.setdefault(tokens, scores)
        first = self._first.get(tokens, scores)
        shared = first.keys() & scores.keys() or scores.keys()
        mean = statistics.fmean(scores[number] for number in shared)
        if shared < first.keys():
            of_first = statistics.fmean(first[number] for number in shared)
            mean += statistics.fmean(first.values()) - of_first
        return mean

    def _join(self, value: _Value, tokens: Tokens) -> None:
        """Let a value that has arrived wait, if a seed of it does already."""
        if tokens not in value.passed and any(seed.waits_at == tokens for seed in value.seeds):
            self._wait(value, {"kind": "paused", "rung": tokens})

    def decide(self, trial: str, tokens: int) -> Decision:
        """What to do with a trial that was just measured: at a rung it waits for the other seeds."""
        value = self._seeds[trial].value
        if tokens not in value.rungs or tokens in value.passed or value.is_free:
            return "continue"
        if tokens not in value.arrived:
            return "pause"
        decision = self._policy.decide(value.name, tokens)
        return replace(decision, trial=trial) if isinstance(decision, Promotion) else decision

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The trial to continue next, one whose value was promoted before others."""
        if self._due:
            return next(iter(self._due.values()))
        for name, rung in self._undecided.items():
            decision = self._policy.decide(name, rung)
            if isinstance(decision, Promotion):
                return self._of_seed(decision)
        promotion = self._policy.promotion(idle=idle)
        return promotion and self._of_seed(promotion)

    def _of_seed(self, promotion: Promotion) -> Promotion:
        first, *_ = self._seeds[promotion.trial].value.waiting(promotion.rung)
        return replace(promotion, trial=first.trial)

    def holds(self, trial: str) -> bool:
        """Whether the trial is paused or stopped."""
        return self._seeds[trial].waits_at is not None

    def standing(self, trial: str) -> Stop:
        """Why a trial that still waits is stopped: the reason of its value."""
        seed = self._seeds[trial]
        assert seed.waits_at is not None  # it is asked of those that wait
        if not self._schedule.decides_on_arrival:
            return self._policy.standing(seed.value.name)
        decision = self._policy.decide(seed.value.name, seed.waits_at)
        assert isinstance(decision, Stop)  # what is promoted waits no longer
        return decision
