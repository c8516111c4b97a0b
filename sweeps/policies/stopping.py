"""What the stopping policies share: at a rung a trial goes on or no further, and nobody waits."""

import math

from sweeps.ledger import Row
from sweeps.policies.base import Arrivals, Decision, Promotion, Stop, score_in


class Stopping:
    """Nobody ever waits: at a rung a trial goes on or is stopped; subclasses say which."""

    def __init__(self, rungs: tuple[int, ...], field: str) -> None:
        self.rungs = rungs
        self.field = field
        self.places = {tokens: Arrivals() for tokens in rungs}
        self._cutoffs: dict[tuple[str, int], float | None] = {}  # when the trial arrived
        self._stopped: set[str] = set()
        self._passed: set[tuple[str, int]] = set()

    def observe(self, row: Row) -> None:
        """Fold one row of the ledger in."""
        if row["kind"] == "stopped" and row["rung"] in self.places:
            self._stopped.add(row["trial"])
        elif row["kind"] == "promoted":
            self._passed.add((row["trial"], row["rung"]))
        elif row["kind"] == "started":
            self._stopped.discard(row["trial"])
        elif row["kind"] == "measured":
            self.measured(row)
        elif row["kind"] == "diverged":
            for tokens, arrived in self.places.items():
                if row["trial"] not in arrived:
                    self.arrive(row["trial"], tokens, math.inf)
                    return

    def measured(self, row: Row) -> None:
        """Fold a record in."""
        if row["tokens"] in self.places:
            self.arrive(row["trial"], row["tokens"], score_in(row, self.field))

    def arrive(self, trial: str, tokens: int, score: float) -> None:
        """Let a trial arrive at a rung; the cutoff is of those that arrived before."""
        if trial not in self.places[tokens]:
            self._cutoffs[trial, tokens] = self.cutoff(trial, tokens)
            self.places[tokens].add(trial, score)

    def cutoff(self, trial: str, tokens: int) -> float | None:
        """The score at a rung beyond which a trial that arrives now is stopped; None stops nobody."""
        raise NotImplementedError

    def decide(self, trial: str, tokens: int) -> Decision:
        """On, or no further, by the cutoff when the trial arrived."""
        if tokens not in self.places or (trial, tokens) in self._passed:
            return "continue"
        arrived = self.places[tokens]
        score, cutoff = arrived.score(trial), self._cutoffs[trial, tokens]
        rank, count = arrived.rank(trial), len(arrived)
        if not math.isfinite(score):
            return Stop("score is not finite", tokens, None, rank, count, cutoff)
        if cutoff is not None and score > cutoff:
            reason = f"{score:.4f} at {tokens} tokens is above the cutoff {cutoff:.4f}"
            return Stop(reason, tokens, score, rank, count, cutoff)
        after = next((rung for rung in self.rungs if rung > tokens), None)
        return Promotion(trial, tokens, after, score, rank, count, cutoff=cutoff)

    def promotion(self, *, idle: bool) -> Promotion | None:
        """Nothing ever waits."""
        return None

    def holds(self, trial: str) -> bool:
        """Whether the trial was stopped, here or by a policy with the same rung."""
        return trial in self._stopped

    def standing(self, trial: str) -> Stop:
        """Never asked: a stop was written down when it was decided."""
        raise AssertionError(trial)
