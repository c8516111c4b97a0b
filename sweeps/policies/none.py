"""`none`: every trial runs to the end."""

from fractions import Fraction
from typing import Literal

from sweeps.ledger import Row
from sweeps.policies.base import Decision, Promotion, Schedule, Stop


class NoSchedule(Schedule):
    """Every trial runs to the end."""

    policy: Literal["none"]
    score: Literal["raw"] = "raw"

    def shares(self) -> tuple[Fraction, ...]:
        """No rungs."""
        return ()

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "RunAll":
        """The policy before any row."""
        return RunAll()


class RunAll:
    """No trial waits, no trial stops."""

    rungs: tuple[int, ...] = ()

    def rungs_of(self, trial: str) -> tuple[int, ...]:
        """None."""
        return self.rungs

    def observe(self, row: Row) -> None:
        """Nothing changes."""

    def decide(self, trial: str, tokens: int) -> Decision:
        """Always continue."""
        return "continue"

    def promotion(self, *, idle: bool) -> Promotion | None:
        """No trial ever waits."""
        return None

    def holds(self, trial: str) -> bool:
        """Never."""
        return False

    def standing(self, trial: str) -> Stop:
        """Never called, since no trial waits."""
        raise AssertionError(trial)
