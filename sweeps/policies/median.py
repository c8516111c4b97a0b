"""`median`: stop trials that are worse than the median."""

import math
from fractions import Fraction
from typing import ClassVar, Literal

from sweeps.ledger import Row
from sweeps.policies.base import Arrivals, Grace, Schedule, finite, score_in
from sweeps.policies.stopping import Stopping

FEWEST = 3  # other trials that must have reached a rung before a trial is stopped there


class MedianSchedule(Schedule):
    """The median stopping rule of Vizier (doi:10.1145/3097983.3098043, section 3.2.2)."""

    decides_on_arrival: ClassVar[bool] = True
    scores_all: ClassVar[bool] = True

    policy: Literal["median"]
    score: Literal["raw"] = "raw"  # records between rungs count as well, and have no branch
    grace: Grace

    def shares(self) -> tuple[Fraction, ...]:
        """Every multiple of the grace."""
        return tuple(self.grace * number for number in range(1, math.ceil(1 / self.grace)))

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "Median":
        """The policy before any row."""
        return Median(rungs, field)


class Median(Stopping):
    """The median stopping rule of Vizier (doi:10.1145/3097983.3098043, section 3.2.2).

    A trial stops at a rung if its best score so far is worse than the median of the running
    averages of the other trials that reached the rung. An average is over all records so far, and
    infinite for a trial that diverged. Fewer than three other trials stop no trial.
    """

    said: ClassVar[str] = "{}, its best by {{rung}},"

    def __init__(self, rungs: tuple[int, ...], field: str) -> None:
        super().__init__(rungs, field)
        self._seen: dict[str, tuple[int, int, float, float]] = {}  # tokens, records, sum, best
        self._averages = {tokens: Arrivals() for tokens in rungs}

    def measured(self, row: Row) -> None:
        """Update the state by a record; a trial that resumes from a checkpoint may repeat some."""
        last, count, total, best = self._seen.get(row["trial"], (0, 0, 0.0, math.inf))
        if row["tokens"] > last:
            score = score_in(row, self.field)
            seen = (row["tokens"], count + 1, total + score, min(best, score))
            self._seen[row["trial"]] = seen
        super().measured(row)

    def arrive(self, trial: str, tokens: int, score: float) -> None:
        """Add a trial to a rung, with its running average."""
        _, count, total, best = self._seen.get(trial, (0, 1, math.inf, math.inf))
        alive = math.isfinite(score)
        super().arrive(
            trial, tokens, best if alive else math.inf
        )  # the best score is what is compared
        self._averages[tokens].add(trial, total / count if alive else math.inf)

    def cutoff(self, trial: str, tokens: int) -> float | None:
        """The median of the running averages of the trials that arrived before."""
        averages = self._averages[tokens]
        if len(averages) < FEWEST:
            return None
        return finite(averages.median())
