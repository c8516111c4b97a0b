"""A machine in virtual time: recorded trials trained on virtual workers under a policy.

The policy is the same class that runs a sweep; workers, trials and the clock are simulated.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.policies import Policy, Promotion, Stop
from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve


@dataclass
class ReplayResult:
    """What happened to the trials of one replay."""

    workers: int
    tokens: int = 0  # trained
    seconds: float = 0.0  # on the virtual clock, from the first start to the last end
    busy: float = 0.0  # seconds of training, summed over the workers
    finished: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)  # tokens of every trial


@dataclass
class _ReplayTrial:
    """A trial in progress."""

    curve: Curve
    record: int = 0  # how many of its records the policy has seen
    tokens: int = 0
    seconds: float = 0.0


class Replay:
    """The virtual machine: workers that train recorded trials for a policy."""

    def __init__(self, policy: Policy | Values, workers: int, branch: float = 0.0) -> None:
        self._policy = policy
        self._branch = branch
        self._runs: dict[str, _ReplayTrial] = {}
        self._waiting: deque[str] = deque()
        self._later: dict[str, list[Curve]] = {}  # further seeds of values that have begun
        self._free = workers
        self._now = 0.0
        # (time, number, trial) of every running attempt: when it reaches its next stop.
        self._due: list[tuple[float, int, str]] = []
        self._pushed = 0
        self.result = ReplayResult(workers)

    def run(self, curves: Sequence[Curve]) -> ReplayResult:
        """Plan trials in this order and train until nothing is left to do; run again to extend."""
        self._observe("session")
        for curve in curves:
            if isinstance(self._policy, Values) and not self._policy.wants_seed(curve.value):
                self._later.setdefault(curve.value, []).append(curve)
            else:
                self._plan(curve)
        self._fill()
        while self._due:
            self._now, _, trial = heapq.heappop(self._due)
            if not self._arrive(self._runs[trial]):
                self._free += 1
            self._fill()
        self.result.seconds = self._now
        self.result.reached = {trial: run.tokens for trial, run in self._runs.items()}
        return self.result

    def _plan(self, curve: Curve) -> None:
        self._runs[curve.trial] = _ReplayTrial(curve)
        self._observe("planned", trial=curve.trial, value=curve.value, seed=curve.seed)
        self._waiting.append(curve.trial)

    def _promote(self, promotion: Promotion) -> None:
        """Promote a trial, and plan the other seeds of its value if it wants them now."""
        self._observe("promoted", **promotion.fields())
        value = self._runs[promotion.trial].curve.value
        if isinstance(self._policy, Values) and self._policy.wants_seed(value):
            for curve in self._later.pop(value, ()):
                self._plan(curve)

    def _fill(self) -> None:
        """Give every free worker something to do, in the same order as the driver."""
        while self._free:
            promotion = self._policy.promotion(idle=False)
            if promotion is None and not self._waiting:
                promotion = self._policy.promotion(idle=True)
            if promotion is not None:
                self._promote(promotion)
                trial = promotion.trial
            elif self._waiting:
                trial = self._waiting.popleft()
            else:
                return
            self._free -= 1
            self._observe("started", trial=trial)
            self._depart(self._runs[trial], begins=True)

    def _observe(self, kind: str, **fields: Any) -> None:
        self._policy.observe({"kind": kind, **fields})

    def _next_stop(self, run: _ReplayTrial) -> tuple[int, float]:
        """The tokens and seconds of a trial's next rung, or of its end."""
        curve = run.curve
        rung = next((tokens for tokens in self._policy.rungs if tokens > run.tokens), None)
        if rung is None or rung >= curve.tokens[-1]:
            return curve.tokens[-1], curve.seconds[-1]
        after = next(i for i in range(run.record, len(curve.tokens)) if curve.tokens[i] >= rung)
        if after == 0:
            return rung, curve.seconds[0] * rung / curve.tokens[0]
        low, high = curve.tokens[after - 1], curve.tokens[after]
        share = (rung - low) / (high - low)
        return rung, curve.seconds[after - 1] * (1 - share) + curve.seconds[after] * share

    def passes(self, seconds: float, *, begins: bool) -> float:
        """How long a worker takes for so many seconds of training; `begins` where an attempt does. These
        workers start at once and never fail."""
        return seconds

    def _depart(self, run: _ReplayTrial, *, begins: bool) -> None:
        tokens, seconds = self._next_stop(run)
        if tokens < run.curve.tokens[-1]:  # a rung, and the branch there at the speed so far
            seconds += seconds * self._branch
        self._pushed += 1
        due = self._now + self.passes(seconds - run.seconds, begins=begins)
        heapq.heappush(self._due, (due, self._pushed, run.curve.trial))

    def _arrive(self, run: _ReplayTrial) -> bool:
        """Take a trial to its next stop; whether it continues from there."""
        tokens, seconds = self._next_stop(run)
        self.result.tokens += int((tokens - run.tokens) * run.curve.scale)
        self.result.busy += seconds - run.seconds
        run.tokens, run.seconds = tokens, seconds
        curve, trial = run.curve, run.curve.trial
        while run.record < len(curve.tokens) and curve.tokens[run.record] <= tokens:
            at, score = curve.tokens[run.record], curve.scores[run.record]
            run.record += 1
            if not math.isfinite(score):
                self.result.diverged.append(trial)
                self._observe("diverged", trial=trial, tokens=at)
                return False
            if at < tokens or at == curve.tokens[-1]:
                self._observe("measured", trial=trial, tokens=at, **{SCORE: score})
        if tokens == curve.tokens[-1]:
            self.result.finished.append(trial)
            self._observe("finished", trial=trial, tokens=tokens)
            return False
        score = curve.scores[run.record - 1]  # the last, where the rung lies between two records
        if self._branch:
            score = curve.decayed.get(tokens, score)
            self.result.tokens += round(self._branch * tokens * curve.scale)
            self.result.busy += self._branch * seconds
        self._observe("measured", trial=trial, tokens=tokens, **{SCORE: score})
        decision = self._policy.decide(trial, tokens)
        if decision == "pause":
            self._observe("paused", trial=trial, rung=tokens, score=score)
            return False
        if isinstance(decision, Stop):
            self._observe("stopped", trial=trial, **decision.fields())
            return False
        if isinstance(decision, Promotion):
            self._promote(decision)
        self._depart(run, begins=False)
        return True


def replay(
    curves: Sequence[Curve], policy: Policy | Values, workers: int, branch: float = 0.0
) -> ReplayResult:
    """What happens to the trials when they are planned in this order under a new policy; it is one for
    `Values` where several of them differ only by seed.

    With a branch, every arrival at a rung costs that share of the tokens so far in addition, and its
    score is the curve's decayed score if it has one.
    """
    return Replay(policy, workers, branch).run(curves)
