"""`none`: every trial runs to its end."""

from fractions import Fraction
from typing import Literal

from sweeps.ledger import Row
from sweeps.policies.base import Decision, Promotion, Schedule, Stop


class NoSchedule(Schedule):
    """Every trial runs to its end."""

    policy: Literal["none"]
    score: Literal["raw"] = "raw"

    def shares(self) -> tuple[Fraction, ...]:
        """No rungs."""
        return ()

    def policy_at(self, rungs: tuple[int, ...], field: str) -> "RunAll":
        """The policy before any row."""
        return RunAll()


class RunAll:
    """Nothing waits, nothing stops."""

    rungs: tuple[int, ...] = ()

    def observe(self, row: Row) -> None:
        """Nothing changes."""

    def decide(self, trial: str, tokens: int) -> Decision:
        """Always on."""
        return "continue"

    def promotion(self, *, idle: bool) -> Promotion | None:
        """Nothing ever waits."""
        return None

    def holds(self, trial: str) -> bool:
        """Never."""
        return False

    def standing(self, trial: str) -> Stop:
        """Never asked, since nothing waits."""
        raise AssertionError(trial)
