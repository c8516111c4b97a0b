"""`hyperband`: successive halving with several first rungs at once."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from sweeps.ledger import Row
from sweeps.policies.base import Decision, GeometricSchedule, Promotion, Stop
from sweeps.policies.sha import Sha


class HyperbandSchedule(GeometricSchedule):
    """Brackets of successive halving, each with a later first rung (arXiv:1603.06560)."""

    policy: Literal["hyperband"]

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "Hyperband":
        """The policy before any row."""
        return Hyperband(rungs, field, self.eta)


class Hyperband:
    """Hyperband over the trials of a plan (arXiv:1603.06560).

    With K rungs there are K + 1 brackets; bracket b is `Sha` without the lowest b rungs, so the
    last one runs its trials to the end. Trials are dealt to the brackets in the order of the plan,
    each to the bracket furthest below its share. The shares are those of Hyperband's loop,
    (K + 1) / (K + 1 - b) * eta ** (K - b).
    """

    def __init__(self, rungs: tuple[int, ...], field: str, eta: int) -> None:
        self.rungs = rungs
        count = len(rungs)
        self._brackets = [Sha(rungs[first:], field, eta, 1) for first in range(count + 1)]
        weights = [
            math.ceil(Fraction(count + 1, count + 1 - first) * eta ** (count - first))
            for first in range(count + 1)
        ]
        self._shares = [Fraction(weight, sum(weights)) for weight in weights]
        self._dealt = [0] * (count + 1)
        self._bracket_of: dict[str, Sha] = {}

    def rungs_of(self, trial: str) -> tuple[int, ...]:
        """The rungs of the trial's bracket."""
        return self._bracket_of[trial].rungs

    def observe(self, row: Row) -> None:
        """Update the state by one row of the ledger."""
        if row["kind"] == "planned":
            self._deal(row["trial"])
        elif "trial" in row:
            self._bracket_of[row["trial"]].observe(row)
        else:
            for bracket in self._brackets:
                bracket.observe(row)

    def _deal(self, trial: str) -> None:
        total = sum(self._dealt) + 1
        below = [
            share * total - dealt for share, dealt in zip(self._shares, self._dealt, strict=True)
        ]
        number = below.index(max(below))
        self._dealt[number] += 1
        self._bracket_of[trial] = self._brackets[number]

    def bracket(self, trial: str) -> int:
        """The number of the trial's bracket; the first is 0."""
        return self._brackets.index(self._bracket_of[trial])

    def decide(self, trial: str, tokens: int) -> Decision:
        """The decision of the trial's bracket."""
        return self._bracket_of[trial].decide(trial, tokens)

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The promotion of the first bracket that has one."""
        promotions = (bracket.promotion(idle=idle) for bracket in self._brackets)
        return next((promotion for promotion in promotions if promotion is not None), None)

    def holds(self, trial: str) -> bool:
        """Whether the trial is paused in its bracket."""
        return self._bracket_of[trial].holds(trial)

    def standing(self, trial: str) -> Stop:
        """The reason of the trial's bracket, which it names: the rank is among its trials."""
        stop = self._bracket_of[trial].standing(trial)
        number = f"bracket {self.bracket(trial) + 1} of {len(self._brackets)}"
        return replace(stop, reason=f"{number}: {stop.reason}")
