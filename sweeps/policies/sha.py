"""`sha`: synchronous successive halving."""

from typing import Literal

from sweeps.policies.base import Finish, GeometricSchedule, Promotion
from sweeps.policies.halving import Halving


class ShaSchedule(GeometricSchedule):
    """Successive halving, round by round (arXiv:1502.07943)."""

    policy: Literal["sha"]
    finish: Finish

    @property
    def finishers(self) -> int:
        """The setting `finish`."""
        return self.finish

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "Sha":
        """The policy before any row."""
        return Sha(rungs, field, self.eta, self.finish)


class Sha(Halving):
    """Synchronous successive halving (arXiv:1502.07943).

    No trial leaves a rung before all have arrived: no trial is left to start, and no running trial
    is on its way to that rung or a lower one.
    """

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The best paused survivor of the lowest rung that has one, once all have arrived there."""
        if not idle:
            return None
        on_the_way = min(self.running.values(), default=None)
        for tokens in self.rungs:
            if on_the_way is not None and on_the_way < tokens:
                return None
            promotion = self.by_rank(self.rung_at[tokens])
            if promotion is not None:
                return promotion
        return self.to_finish_enough()
