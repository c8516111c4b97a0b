"""Re-tune grids of arms, and the arms whose values are not settled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.findings.arms import ArmRuns
from sweeps.findings.results import Results, TrialResult, status_of
from sweeps.findings.stability import Stability, stability
from sweeps.ledger import Row, Trial
from sweeps.outcomes import outcome
from sweeps.selection import last_record


@dataclass(frozen=True)
class Tuned(TrialResult):
    """A trial of a re-tune grid at its last record."""

    tuned: dict[str, Any]  # path -> tried value

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {**super().as_json(), "tuned": self.tuned, "outcome": outcome(self.trial)}


@dataclass(frozen=True)
class Tuning:
    """The results of an arm's re-tune grid."""

    arm: str
    chosen: dict[str, Any] | None
    trial_results: tuple[Tuned, ...]
    stability: Stability | None  # if it is a grid of learning rates

    @property
    def trials(self) -> list[Trial]:
        """The trials of the grid."""
        return [result.trial for result in self.trial_results]

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "arm": self.arm,
            "chosen": self.chosen,
            "trials": [result.as_json() for result in self.trial_results],
            "stability": self.stability and self.stability.as_json(),
        }


def tuning(results: Results, arms: Sequence[ArmRuns]) -> tuple[Tuning, ...]:
    """The results of each re-tune grid: first the completed grids in plan order, then those still
    running."""
    paths = list(results.space.retune or {})
    chosen = {arm.name: arm.chosen for arm in arms}
    return tuple(
        Tuning(
            arm=name,
            chosen=chosen.get(name),
            trial_results=tuple(
                Tuned(trial, last_record(trial), {path: trial.value(path) for path in paths})
                for trial in pool
            ),
            stability=stability(results.audited(pool), results.metric),
        )
        for name, pool in _tuned_pools(results, arms).items()
    )


def _tuned_pools(results: Results, arms: Sequence[ArmRuns]) -> Mapping[str, list[Trial]]:
    """The trials of each re-tune grid, by its arm."""
    settled = {arm.name: arm.grid for arm in arms if arm.retuned}
    pools: dict[str, list[Trial]] = dict(settled)
    for trial in results.sweep.trials.values():
        if trial.role == "tuning" and trial.arm not in settled:
            pools.setdefault(trial.arm, []).append(trial)
    return pools


@dataclass(frozen=True)
class Unsettled:
    """An arm without runs, because its values are not settled yet."""

    arm: str
    grid: tuple[Trial, ...]  # its re-tune grid; none if it waits for the baseline's

    @property
    def ended(self) -> int:
        """How many trials of the grid have ended."""
        return sum(status_of(trial) != "unfinished" for trial in self.grid)

    @property
    def is_stopped(self) -> bool:
        """Whether its grid can't choose values, because somebody stopped trials of it and none finished."""
        has_ended = self.ended == len(self.grid)
        has_finished = any(trial.status == "finished" for trial in self.grid)
        stopped = any(trial.is_stopped_by_hand for trial in self.grid)
        return has_ended and stopped and not has_finished

    def as_json(self) -> Row:
        """The fields of summary.json."""
        stopped = {"stopped_by_hand": True} if self.is_stopped else {}
        return {"arm": self.arm, "tried": len(self.grid), "ended": self.ended, **stopped}


def unsettled(
    results: Results, arms: Sequence[ArmRuns], tunings: Sequence[Tuning]
) -> tuple[Unsettled, ...]:
    """The arms whose values are not settled yet."""
    settled = {arm.name for arm in arms}
    grids = {tuning.arm: tuning.trials for tuning in tunings}
    names = dict.fromkeys([*grids, *(results.space.arms or {})])
    return tuple(
        Unsettled(name, tuple(grids.get(name, ()))) for name in names if name not in settled
    )
