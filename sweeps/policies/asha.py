"""`asha`: asynchronous successive halving that promotes."""

from typing import Literal

from pydantic import Field

from sweeps.policies.base import Finish, GeometricSchedule, Promotion
from sweeps.policies.halving import Halving


class AshaSchedule(GeometricSchedule):
    """Asynchronous successive halving, promotion type (arXiv:1810.05934, algorithm 2)."""

    policy: Literal["asha"]
    finish: Finish
    first: Literal["start", "promote"] = Field(
        default="start",
        description="What a free slot does when it could do either: start a new trial or promote a "
        "paused one.",
    )

    @property
    def finishers(self) -> int:
        """The setting `finish`."""
        return self.finish

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "Asha":
        """The policy before any row."""
        return Asha(rungs, field, self.eta, self.finish, self.first)


class Asha(Halving):
    """Asynchronous successive halving that promotes (arXiv:1810.05934, algorithm 2).

    The best paused trial among the best `arrived // eta` of its rung is promoted, highest rung
    first. So no trial is stopped for arriving late. The published algorithm promotes first and
    starts a trial only if none can be promoted, which suits an endless stream of trials. The plan
    of a sweep is finite: with `first="start"` a free slot starts the next planned trial, so that no
    slot is idle and promotions are decided on as many arrivals as possible. With
    `first="promote"` a trial keeps its slot if it would be promoted next.
    """

    def __init__(
        self,
        rungs: tuple[int, ...],
        field: str,
        eta: int,
        finish: int,
        first: Literal["start", "promote"],
    ) -> None:
        super().__init__(rungs, field, eta, finish)
        self.first = first

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The best paused trial in the top 1/eta of its rung, the highest rung first."""
        if self.first == "start" and not idle:
            return None
        for tokens in reversed(self.rungs):
            promotion = self.by_rank(self.rung_at[tokens])
            if promotion is not None:
                return promotion
        return self.to_finish_enough() if idle else None
