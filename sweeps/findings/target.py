"""How much training the trials took to the target of their sweep."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from sweeps.findings.arms import ArmRuns, ToTarget
from sweeps.findings.results import Results, TrialResult
from sweeps.ledger import Row
from sweeps.plan.sections import Target
from sweeps.selection import Measured, first_at_most


@dataclass(frozen=True)
class Race:
    """The trials at their first records at or below the target, the one of the fewest tokens first."""

    target: Target
    reached: tuple[TrialResult, ...]
    trained: int  # trials that have a record

    def as_json(self) -> Row:
        """The fields of summary.json."""
        seconds = (one.record and one.record.seconds for one in self.reached)
        return {
            "metric": self.target.metric,
            "limit": self.target.limit,
            "ends": self.target.ends,
            "trained": self.trained,
            "reached": [
                {**one.as_json(), "seconds": each}
                for one, each in zip(self.reached, seconds, strict=True)
            ],
        }


def to_target(arm: ArmRuns, base: ArmRuns, target: Target) -> ToTarget:
    """What the runs of an arm took to the target, beside the baseline's."""
    own, other = (_first(each, target) for each in (arm, base))
    both = [seed for seed in own if seed in other]

    def times(of: Callable[[Measured], float]) -> float | None:
        if not both or not all(of(own[seed]) for seed in both):
            return None
        return fmean(of(other[seed]) for seed in both) / fmean(of(own[seed]) for seed in both)

    return ToTarget(
        reached=len(own),
        runs=sum(bool(trial.curve) for trial in arm.runs.values()),
        steps=fmean(one.step for one in own.values()) if own else None,
        tokens=fmean(one.tokens for one in own.values()) if own else None,
        seconds=fmean(one.seconds for one in own.values()) if own else None,
        shared=len(both),
        times_tokens=times(lambda one: one.tokens),
        times_seconds=times(lambda one: one.seconds),
    )


def _first(arm: ArmRuns, target: Target) -> dict[int, Measured]:
    """The first record at or below the target of each run that has one, by seed."""
    found = {
        seed: first_at_most(trial, target.metric, target.limit) for seed, trial in arm.runs.items()
    }
    return {seed: record for seed, record in found.items() if record is not None}


def race(results: Results) -> Race | None:
    """The trials that reached the target; None if the space has no target."""
    target = results.space.target
    if target is None:
        return None
    trials = [trial for trial in results.trials if trial.curve]
    found = [(trial, first_at_most(trial, target.metric, target.limit)) for trial in trials]
    reached = [(trial, record) for trial, record in found if record is not None]
    reached.sort(key=lambda pair: (pair[1].tokens, pair[1].loss(target.metric)))
    return Race(target, tuple(TrialResult(*pair) for pair in reached), len(trials))
