"""What the halving policies share: which trials arrived, wait and were promoted at each rung."""

import math

from sortedcontainers import SortedList

from sweeps.ledger import Row, ends_attempt
from sweeps.policies.base import (
    NOT_FINITE,
    Arrivals,
    Decision,
    Promotion,
    Stop,
    finite,
    score_in,
)


class Rung:
    """The trials that arrived at a rung, wait there, and were promoted from it."""

    def __init__(self, tokens: int, to: int | None) -> None:
        self.tokens = tokens
        self.to = to
        self.arrived = Arrivals()
        self.promoted: set[str] = set()
        self._last: tuple[float, int] | None = None  # the key of the worst that was promoted
        self._waiting: dict[str, tuple[tuple[float, int], str]] = {}
        self._sorted: SortedList = SortedList()

    def wait(self, trial: str) -> None:
        """Let a trial wait that has arrived."""
        if trial not in self._waiting:
            self._waiting[trial] = (self.arrived.key(trial), trial)
            self._sorted.add(self._waiting[trial])

    def leave(self, trial: str) -> None:
        """Let a trial no longer wait; no change if it does not."""
        key = self._waiting.pop(trial, None)
        if key is not None:
            self._sorted.remove(key)

    def promote(self, trial: str) -> None:
        """Let a trial that has arrived continue."""
        self.leave(trial)
        self.promoted.add(trial)
        key = self.arrived.key(trial)
        self._last = key if self._last is None else max(self._last, key)

    def worst_promoted(self) -> int:
        """The rank of the worst trial that was promoted from here; 0 if none was."""
        return 0 if self._last is None else self.arrived.rank_of(self._last)

    def holds(self, trial: str) -> bool:
        """Whether the trial waits here."""
        return trial in self._waiting

    def best(self) -> str | None:
        """The best waiting trial; None if none has a finite score."""
        if not self._sorted or not math.isfinite(self._sorted[0][0][0]):
            return None
        best: str = self._sorted[0][1]
        return best

    def promotion(self, trial: str, *, forced: bool) -> Promotion:
        """The decision to promote the trial from here."""
        return Promotion(
            trial=trial,
            rung=self.tokens,
            to=self.to,
            score=self.arrived.score(trial),
            rank=self.arrived.rank(trial),
            arrived=len(self.arrived),
            forced=forced,
        )


class Halving:
    """Trials pause at every rung, and the best `arrived // eta` are promoted; subclasses say when.

    With an eta of None, that is none. When a slot is idle and fewer than `finish` trials have
    finished or are running, the best paused trial of the highest rung is promoted whatever its
    rank. Whoever arrives later and is better than a trial that was promoted is promoted as well, so
    that no trial is stopped where a worse one continued. A trial that diverges arrives at its next
    rung with an infinite score, and an infinite score is never promoted.
    """

    def __init__(self, rungs: tuple[int, ...], field: str, eta: int | None, finish: int) -> None:
        self.rungs = rungs
        self.field = field
        self.eta = eta
        self.finish = finish
        self.rung_at = {
            tokens: Rung(tokens, to) for tokens, to in zip(rungs, (*rungs[1:], None), strict=False)
        }
        # The rung that each running trial left last, in tokens; 0 is the start.
        self.running: dict[str, int] = {}
        self.finished: set[str] = set()

    def rungs_of(self, trial: str) -> tuple[int, ...]:
        """All rungs."""
        return self.rungs

    def observe(self, row: Row) -> None:
        """Update the state by one row of the ledger."""
        kind = row["kind"]
        if kind == "session":
            self.running.clear()
        elif "trial" in row:
            self._observe_score(kind, row["trial"], row)
            self._observe_state(kind, row["trial"], row)

    def _observe_score(self, kind: str, trial: str, row: Row) -> None:
        if kind == "measured" and row["tokens"] in self.rung_at:
            # A resumed trial may reach a rung twice; its first score is kept.
            self.rung_at[row["tokens"]].arrived.add(trial, score_in(row, self.field))
        elif kind == "diverged":
            rung = next((r for r in self.rung_at.values() if trial not in r.arrived), None)
            if rung is not None:
                rung.arrived.add(trial, math.inf)

    def _observe_state(self, kind: str, trial: str, row: Row) -> None:
        if kind == "started":
            left = (tokens for tokens, r in self.rung_at.items() if trial in r.promoted)
            self.running[trial] = max(left, default=0)
        elif ends_attempt(row):
            self.running.pop(trial, None)
        if kind in {"started", "finished", "diverged", "steered"}:
            # The sweep's policy before this one may have continued it from where it waited, or somebody
            # has decided for the policy.
            for rung in self.rung_at.values():
                rung.leave(trial)
        if kind == "finished":
            self.finished.add(trial)
        elif kind in {"paused", "stopped", "promoted"} and row["rung"] in self.rung_at:
            rung = self.rung_at[row["rung"]]
            if kind != "promoted":  # a trial that the policy before stopped here waits here as well
                rung.wait(trial)
            else:
                rung.promote(trial)
                if trial in self.running:
                    self.running[trial] = rung.tokens

    def quota(self, rung: Rung) -> int:
        """One in eta of the trials that arrived at a rung."""
        return 0 if self.eta is None else len(rung.arrived) // self.eta

    def survivors(self, rung: Rung) -> int:
        """How many of the best at a rung are promoted: the quota, and all above a promoted one."""
        return max(self.quota(rung), rung.worst_promoted())

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The paused trial to promote next."""
        raise NotImplementedError

    def by_rank(self, rung: Rung) -> Promotion | None:
        """The best waiting trial of a rung, if it is among the survivors."""
        best = rung.best()
        if best is None or rung.arrived.rank(best) > self.survivors(rung):
            return None
        return rung.promotion(best, forced=False)

    def to_finish_enough(self) -> Promotion | None:
        """The best paused trial of the highest rung, if too few would finish without it."""
        if len(self.finished) + len(self.running) >= self.finish:
            return None
        for tokens in reversed(self.rungs):
            best = self.rung_at[tokens].best()
            if best is not None:
                return self.rung_at[tokens].promotion(best, forced=True)
        return None

    def decide(self, trial: str, tokens: int) -> Decision:
        """Pause at every rung, or promote at once if the trial would be promoted next."""
        rung = self.rung_at.get(tokens)
        if rung is None or trial in rung.promoted:
            return "continue"
        waited = rung.holds(trial)
        rung.wait(trial)
        promotion = self.promotion(idle=False)
        if not waited:
            rung.leave(trial)
        return promotion if promotion is not None and promotion.trial == trial else "pause"

    def holds(self, trial: str) -> bool:
        """Whether the trial is paused at one of the rungs."""
        return any(rung.holds(trial) for rung in self.rung_at.values())

    def standing(self, trial: str) -> Stop:
        """The rank of a paused trial at its rung, and how many of the better ones continued."""
        rung = next(rung for rung in self.rung_at.values() if rung.holds(trial))
        score = finite(rung.arrived.score(trial))
        rank, arrived = rung.arrived.rank(trial), len(rung.arrived)
        survivors = self.survivors(rung)
        verb = "continues" if survivors == 1 else "continue"
        reason = f"rank {rank} of {arrived} at {{rung}}; {survivors} {verb}"
        return Stop(NOT_FINITE if score is None else reason, rung.tokens, score, rank, arrived)
