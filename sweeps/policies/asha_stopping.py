"""`asha_stopping`: asynchronous successive halving of the stopping type, as in Ray Tune."""

import math
from typing import ClassVar, Literal

from sweeps.policies.base import GeometricSchedule
from sweeps.policies.stopping import Stopping


class AshaStoppingSchedule(GeometricSchedule):
    """Ray Tune's ASHA: stop a trial that is worse than the best 1/eta of earlier arrivals."""

    decides_on_arrival: ClassVar[bool] = True

    policy: Literal["asha_stopping"]

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "AshaStopping":
        """The policy before any row."""
        return AshaStopping(rungs, field, self.eta)


class AshaStopping(Stopping):
    """The rule of Ray Tune's AsyncHyperBandScheduler with one bracket, decision by decision.

    The cutoff of a rung is the (1 - 1/eta) percentile of the negated scores that arrived before,
    interpolated linearly. The first trial to arrive always continues, and no decision is revised.
    Unlike in Ray, a score that is not finite stops its trial. It counts as an arrival as bad as the
    worst finite one.
    """

    def __init__(self, rungs: tuple[int, ...], field: str, eta: int) -> None:
        super().__init__(rungs, field)
        self.eta = eta

    def cutoff(self, trial: str, tokens: int) -> float | None:
        """The percentile of the scores that arrived before; None for the first arrival."""
        arrived = self.rung_at[tokens]
        if not arrived.finite:
            return None
        # As numpy.percentile computes it, to the last bit, but without a pass over all scores.
        last = len(arrived) - 1
        number = ((1 - 1 / self.eta) * 100 / 100) * last
        below = math.floor(number)
        low, high = -arrived.at(last - below), -arrived.at(max(0, last - below - 1))
        share = number - below
        if share < 0.5:
            return -(low + (high - low) * share)
        return -(high - (high - low) * (1 - share))
