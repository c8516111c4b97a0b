"""Early stopping: plain folds over the ledger's rows, without Ray.

A policy is told every row (`observe`) and answers three questions: what becomes of a trial that
has just been measured (`verdict`), which paused trial goes on (`promotion`), and why a trial that
still waits at the end goes no further (`standing`). Its state is what the rows say, so the policy
of a sweep that is resumed is the one that was interrupted. Scores are losses: lower is better.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from sweeps.ledger import Row


@dataclass(frozen=True)
class Promotion:
    """A trial that goes on from a rung, and the numbers of the decision."""

    trial: str
    rung: int  # tokens at which it paused
    to: int | None  # tokens of the next rung; None is the end of its training
    score: float
    rank: int  # 1 is best, of all that arrived
    arrived: int  # trials that reached the rung or diverged on the way to it
    forced: bool  # so that enough trials finish, not by rank

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `promoted` row."""
        return asdict(self)


# Of a trial just measured: on, since this is no rung; wait; or on, since it is next in line.
Verdict = Literal["continue", "pause"] | Promotion


class Policy(Protocol):
    """What the driver asks of a policy."""

    rungs: tuple[int, ...]

    def observe(self, row: Row) -> None:
        """Fold one row of the ledger in."""

    def verdict(self, trial: str, tokens: int) -> Verdict:
        """What becomes of a trial whose row at so many tokens has been observed."""

    def promotion(self, *, last_resort: bool) -> Promotion | None:
        """The paused trial that goes on next; the last resort is for a slot with nothing to start."""

    def holds(self, trial: str) -> bool:
        """Whether the trial waits for a promotion."""

    def standing(self, trial: str) -> dict[str, Any]:
        """Why a trial that waits goes no further: a reason and its numbers."""

    def expected_tokens(self, trials: int, budget: int) -> int:
        """Tokens that so many trials of `budget` tokens take together, roughly."""


class RunAll:
    """Every trial runs to its end."""

    rungs: tuple[int, ...] = ()

    def observe(self, row: Row) -> None:
        """Nothing changes."""

    def verdict(self, trial: str, tokens: int) -> Verdict:
        """Always on."""
        return "continue"

    def promotion(self, *, last_resort: bool) -> Promotion | None:
        """Nothing ever waits."""
        return None

    def holds(self, trial: str) -> bool:
        """Never."""
        return False

    def standing(self, trial: str) -> dict[str, Any]:
        """Never asked, since nothing waits."""
        raise AssertionError(trial)

    def expected_tokens(self, trials: int, budget: int) -> int:
        """The full grid."""
        return trials * budget


@dataclass
class _Rung:
    scores: dict[str, float] = field(default_factory=dict)  # in order of arrival
    paused: set[str] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)


class Asha:
    """Asynchronous successive halving that promotes (arXiv:1810.05934, algorithm 2).

    A trial pauses at every rung. Whenever a slot is free, the best trial that is paused among the
    best `arrived // eta` of its rung goes on, the highest rung first; so nothing is stopped for
    arriving late. A trial that would be the next to go on when it frees its slot keeps the slot
    and goes on at once. A trial that diverges arrives at its next rung with an infinite score,
    which is never promoted. Equal scores rank by arrival. When a slot is free, nothing is left to
    start in it, and fewer than `finish` trials have finished or run, the best paused trial of the
    highest rung goes on whatever its rank.
    """

    def __init__(self, rungs: tuple[int, ...], metric: str, eta: int, finish: int) -> None:
        self.rungs = rungs
        self.metric = metric
        self.eta = eta
        self.finish = finish
        self._rungs = {tokens: _Rung() for tokens in rungs}
        self._running: set[str] = set()
        self._finished: set[str] = set()

    def observe(self, row: Row) -> None:
        """Fold one row of the ledger in; kinds that decide nothing are passed over."""
        if row["kind"] == "session":
            self._running.clear()
        elif "trial" in row:
            self._observe_score(row["kind"], row["trial"], row)
            self._observe_place(row["kind"], row["trial"], row)

    def _observe_score(self, kind: str, trial: str, row: Row) -> None:
        if kind == "measured" and row["tokens"] in self._rungs:
            # A trial that goes on from a checkpoint may reach a rung twice; the first score stands.
            self._rungs[row["tokens"]].scores.setdefault(trial, row[self.metric])
        elif kind == "diverged":
            for rung in self._rungs.values():
                if trial not in rung.scores:
                    rung.scores[trial] = math.inf
                    break

    def _observe_place(self, kind: str, trial: str, row: Row) -> None:
        if kind == "started":
            self._running.add(trial)
        elif kind in {"paused", "finished", "diverged", "failed"}:
            self._running.discard(trial)
        if kind in {"started", "finished", "diverged"}:
            # Another policy may have let it go on from a rung where it waited.
            for rung in self._rungs.values():
                rung.paused.discard(trial)
        if kind == "finished":
            self._finished.add(trial)
        elif kind in {"paused", "promoted"} and row["rung"] in self._rungs:
            rung = self._rungs[row["rung"]]
            rung.paused.discard(trial)
            (rung.paused if kind == "paused" else rung.promoted).add(trial)

    def verdict(self, trial: str, tokens: int) -> Verdict:
        """Pause at every rung, or on at once where the trial is next in line."""
        if tokens not in self._rungs or trial in self._rungs[tokens].promoted:
            return "continue"
        self._rungs[tokens].paused.add(trial)
        promotion = self.promotion(last_resort=False)
        self._rungs[tokens].paused.discard(trial)
        return promotion if promotion is not None and promotion.trial == trial else "pause"

    def promotion(self, *, last_resort: bool) -> Promotion | None:
        """The best paused trial in the top 1/eta of its rung, the highest rung first."""
        for tokens in reversed(self.rungs):
            ranked = self._ranked(tokens)
            for rank, trial in enumerate(ranked[: len(ranked) // self.eta], start=1):
                score = self._rungs[tokens].scores[trial]
                if trial in self._rungs[tokens].paused and math.isfinite(score):
                    return self._promotion(trial, tokens, rank, forced=False)
        if last_resort and len(self._finished) + len(self._running) < self.finish:
            for tokens in reversed(self.rungs):
                for rank, trial in enumerate(self._ranked(tokens), start=1):
                    if trial in self._rungs[tokens].paused:
                        return self._promotion(trial, tokens, rank, forced=True)
        return None

    def holds(self, trial: str) -> bool:
        """Whether the trial is paused at one of the rungs."""
        return any(trial in rung.paused for rung in self._rungs.values())

    def standing(self, trial: str) -> dict[str, Any]:
        """The rank of a paused trial at its rung, and how many of those go on."""
        tokens = next(tokens for tokens, rung in self._rungs.items() if trial in rung.paused)
        ranked = self._ranked(tokens)
        rank, best = ranked.index(trial) + 1, len(ranked) // self.eta
        score = self._rungs[tokens].scores[trial]
        return {
            "reason": f"rank {rank} of {len(ranked)} at {tokens} tokens; {best} go on",
            "rung": tokens,
            "score": score,
            "rank": rank,
            "arrived": len(ranked),
        }

    def expected_tokens(self, trials: int, budget: int) -> int:
        """What is spent when every rung lets 1/eta pass; early arrivals can make it more."""
        total, left, before = 0, trials, 0
        for tokens in (*self.rungs, budget):
            total += left * (tokens - before)
            left, before = max(left // self.eta, min(trials, self.finish)), tokens
        return total

    def _ranked(self, tokens: int) -> list[str]:
        scores = self._rungs[tokens].scores
        return sorted(scores, key=scores.__getitem__)  # stable: equal scores stay in order

    def _promotion(self, trial: str, tokens: int, rank: int, *, forced: bool) -> Promotion:
        after = [rung for rung in self.rungs if rung > tokens]
        rung = self._rungs[tokens]
        return Promotion(
            trial=trial,
            rung=tokens,
            to=after[0] if after else None,
            score=rung.scores[trial],
            rank=rank,
            arrived=len(rung.scores),
            forced=forced,
        )
