"""What the stopping policies share: at a rung a trial continues or stops, and none waits."""

import math
from typing import ClassVar

from sweeps.ledger import Row
from sweeps.policies.base import NOT_FINITE, Arrivals, Decision, Promotion, Stop, score_in


class Stopping:
    """At a rung a trial continues or stops, and none waits; subclasses set the cutoff."""

    said: ClassVar[str] = "{} at {{rung}}"  # how a reason names a score and its rung

    def __init__(self, rungs: tuple[int, ...], field: str) -> None:
        self.rungs = rungs
        self.field = field
        self.rung_at = {tokens: Arrivals() for tokens in rungs}
        self._cutoffs: dict[tuple[str, int], float | None] = {}  # at the arrival of the trial
        self._stopped: set[str] = set()
        self._passed: set[tuple[str, int]] = set()

    def rungs_of(self, trial: str) -> tuple[int, ...]:
        """All rungs."""
        return self.rungs

    def observe(self, row: Row) -> None:
        """Update the state by one row of the ledger."""
        if row["kind"] == "stopped" and row["rung"] in self.rung_at:
            self._stopped.add(row["trial"])
        elif row["kind"] == "promoted":
            self._passed.add((row["trial"], row["rung"]))
        elif row["kind"] == "started":
            self._stopped.discard(row["trial"])
        elif row["kind"] == "measured":
            self.measured(row)
        elif row["kind"] == "diverged":
            for tokens, arrived in self.rung_at.items():
                if row["trial"] not in arrived:
                    self.arrive(row["trial"], tokens, math.inf)
                    return

    def measured(self, row: Row) -> None:
        """Update the state by a record."""
        if row["tokens"] in self.rung_at:
            self.arrive(row["trial"], row["tokens"], score_in(row, self.field))

    def arrive(self, trial: str, tokens: int, score: float) -> None:
        """Add a trial to a rung; its cutoff follows from the trials that arrived before."""
        if trial not in self.rung_at[tokens]:
            self._cutoffs[trial, tokens] = self.cutoff(trial, tokens)
            self.rung_at[tokens].add(trial, score)

    def cutoff(self, trial: str, tokens: int) -> float | None:
        """The score above which a trial that arrives now is stopped; None stops no trial."""
        raise NotImplementedError

    def decide(self, trial: str, tokens: int) -> Decision:
        """Continue or stop, by the cutoff at the arrival of the trial."""
        if tokens not in self.rung_at or (trial, tokens) in self._passed:
            return "continue"
        arrived = self.rung_at[tokens]
        score, cutoff = arrived.score(trial), self._cutoffs[trial, tokens]
        rank, count = arrived.rank(trial), len(arrived)
        if not math.isfinite(score):
            return Stop(NOT_FINITE, tokens, None, rank, count, cutoff)
        if cutoff is not None and score > cutoff:
            above, below = _apart(score, cutoff)
            reason = f"{self.said.format(above)} is above the cutoff {below}"
            return Stop(reason, tokens, score, rank, count, cutoff)
        after = next((rung for rung in self.rungs if rung > tokens), None)
        return Promotion(trial, tokens, after, score, rank, count, cutoff=cutoff)

    def promotion(self, *, idle: bool) -> Promotion | None:
        """No trial ever waits."""
        return None

    def holds(self, trial: str) -> bool:
        """Whether the trial was stopped, by this policy or by one with the same rung."""
        return trial in self._stopped

    def standing(self, trial: str) -> Stop:
        """Never called: each stop was written when it was decided."""
        raise AssertionError(trial)


def _apart(score: float, cutoff: float) -> tuple[str, str]:
    """Two different numbers as texts that differ: with four decimals, or with all they have."""
    short = f"{score:.4f}", f"{cutoff:.4f}"
    return short if short[0] != short[1] else (repr(score), repr(cutoff))
