"""Remedies for the bias of early rungs, as policies to replay on recorded curves.

None of them is used in sweeps. docs/early_stopping.md has the results.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from sweeps.ledger import Row
from sweeps.policies import Decision, Promotion, Stop
from sweeps.policies.asha import Asha
from sweeps.policies.halving import Rung
from sweeps.policies.none import RunAll
from sweeps.simulate.curves import SCORE, Curve

# (trial, score) of the trials that arrived at a rung, best first, and the number that survives by rank
# -> the trials that may continue.
Choice = Callable[[list[tuple[str, float]], int], set[str]]


class Chosen(Asha):
    """ASHA that starts new trials first, where `choice` says which trials may continue from a rung,
    and `rescore` replaces a trial's score at a rung."""

    def __init__(
        self,
        rungs: tuple[int, ...],
        eta: int,
        finish: int,
        choice: Choice | None = None,
        rescore: Callable[[str, int], float] | None = None,
    ) -> None:
        super().__init__(rungs, SCORE, eta, finish, "start")
        self._choice = choice
        self._rescore = rescore
        self._scores: dict[int, dict[str, float]] = {tokens: {} for tokens in rungs}

    def observe(self, row: Row) -> None:
        if row["kind"] == "measured" and row["tokens"] in self._scores:
            if self._rescore is not None:
                row = {**row, SCORE: self._rescore(row["trial"], row["tokens"])}
            self._scores[row["tokens"]][row["trial"]] = row[SCORE]
        super().observe(row)

    def by_rank(self, rung: Rung) -> Promotion | None:
        if self._choice is None:
            return super().by_rank(rung)
        scores = self._scores[rung.tokens]
        ranked = sorted(scores.items(), key=lambda item: rung.arrived.key(item[0]))
        may = self._choice(ranked, self.quota(rung))
        waits = (trial for trial, score in ranked if trial in may and rung.holds(trial))
        best = next(waits, None)
        return None if best is None else rung.promotion(best, forced=False)


def next_lower(rate_of: Mapping[str, float], alike: Mapping[str, Any]) -> Choice:
    """The survivors, and for each the trial with the next lower rate and equal other values."""

    def choice(ranked: list[tuple[str, float]], survivors: int) -> set[str]:
        may = {trial for trial, _ in ranked[:survivors]}
        for leader in list(may):
            lower = [
                trial
                for trial, score in ranked
                if alike[trial] == alike[leader]
                and rate_of[trial] < rate_of[leader]
                and math.isfinite(score)
            ]
            may.update(sorted(lower, key=rate_of.__getitem__)[-1:])
        return may

    return choice


def octaves(rate_of: Mapping[str, float]) -> Choice:
    """As many as survive by rank, but the best trial of every octave of the rate comes before any
    second-best."""

    def choice(ranked: list[tuple[str, float]], survivors: int) -> set[str]:
        seen: dict[int, int] = {}
        order = []
        for rank, (trial, _) in enumerate(ranked):
            octave = round(math.log2(rate_of[trial]))
            order.append((seen.get(octave, 0), rank, trial))
            seen[octave] = seen.get(octave, 0) + 1
        return {trial for _, _, trial in sorted(order)[:survivors]}

    return choice


def strata(rate_of: Mapping[str, float], eta: int) -> Choice:
    """The best 1/eta of the lower half of the rates, and the best 1/eta of the higher half."""
    middle = float(np.median(list(rate_of.values())))

    def choice(ranked: list[tuple[str, float]], survivors: int) -> set[str]:
        low = [trial for trial, _ in ranked if rate_of[trial] <= middle]
        high = [trial for trial, _ in ranked if rate_of[trial] > middle]
        return {*low[: round(len(low) / eta)], *high[: round(len(high) / eta)]}

    return choice


def zone(width: float) -> Choice:
    """The survivors, and the trials within `width` nats of the worst of them."""

    def choice(ranked: list[tuple[str, float]], survivors: int) -> set[str]:
        if not survivors:
            return set()
        bar = ranked[survivors - 1][1] + width
        return {trial for trial, score in ranked if score <= bar and math.isfinite(score)}

    return choice


def power_law(curves: Mapping[str, Curve], budget: int) -> Callable[[str, int], float]:
    """The final score by a + b * tokens ** -c, fitted to a trial's records up to the rung (c on a
    grid, a and b by least squares); the score itself with fewer than four records."""

    def rescore(trial: str, tokens: int) -> float:
        curve = curves[trial]
        seen = [(t, s) for t, s in zip(curve.tokens, curve.scores, strict=True) if t <= tokens]
        if len(seen) < 4:
            return seen[-1][1]
        t_N, score_N = np.array(seen).T
        fits = []
        for c in np.linspace(0.1, 1.5, 29):
            features_NF = np.stack([np.ones_like(t_N), (t_N / budget) ** -c], axis=1)
            (a, b), *_ = np.linalg.lstsq(features_NF, score_N, rcond=None)
            error = float(((features_NF @ (a, b) - score_N) ** 2).sum())
            fits.append((error, float(a + b)))
        return min(fits)[1]

    return rescore


@dataclass(frozen=True)
class Areas:
    """The two areas of a learning-rate schedule at each token count (arXiv:2408.11029): the sum of
    the rates so far, and the sum over updates of how far the rate has fallen, with momentum."""

    forward: Mapping[int, float]
    decayed: Mapping[int, float]


MOMENTUM = 0.99  # per update


def areas(rates: Sequence[float], tokens_per_step: int) -> Areas:
    """The areas of the rates of all updates."""
    forward, decayed, momentum = {}, {}, 0.0
    total = fallen = 0.0
    for step, rate in enumerate(rates):
        before = rates[step - 1] if step else rate
        momentum = MOMENTUM * momentum + max(0.0, before - rate)
        total, fallen = total + rate, fallen + momentum
        forward[(step + 1) * tokens_per_step] = total
        decayed[(step + 1) * tokens_per_step] = fallen
    return Areas(forward, decayed)


def two_term(
    curves: Mapping[str, Curve], areas_of: Mapping[str, Areas], alpha: float, gain: float
) -> Callable[[str, int], float]:
    """The final score by L0 + A * forward ** -alpha - gain * decayed (arXiv:2408.11029), L0 and A
    fitted to the trial's records up to the rung; the score itself with fewer than two."""

    def rescore(trial: str, tokens: int) -> float:
        curve, found = curves[trial], areas_of[trial]
        seen = [t for t in curve.tokens if t <= tokens]
        score_N = np.array(curve.scores[: len(seen)])
        if len(seen) < 2:
            return float(score_N[-1])
        features_NF = np.array([[1.0, found.forward[t] ** -alpha] for t in seen])
        target_N = score_N + gain * np.array([found.decayed[t] for t in seen])
        (level, slope), *_ = np.linalg.lstsq(features_NF, target_N, rcond=None)
        end = max(found.forward)
        return float(level + slope * found.forward[end] ** -alpha - gain * found.decayed[end])

    return rescore


def fit_two_term(curves: Mapping[str, Curve], areas_of: Mapping[str, Areas]) -> tuple[float, float]:
    """The alpha and gain with the least squared error over all curves, each with its own L0 and A."""

    def error(alpha: float, gain: float) -> float:
        total = 0.0
        for trial, curve in curves.items():
            if curve.diverged:
                continue
            found = areas_of[trial]
            features_NF = np.array([[1.0, found.forward[t] ** -alpha] for t in curve.tokens])
            target_N = np.array(curve.scores) + gain * np.array(
                [found.decayed[t] for t in curve.tokens]
            )
            fit, *_ = np.linalg.lstsq(features_NF, target_N, rcond=None)
            total += float(((features_NF @ fit - target_N) ** 2).sum())
        return total

    grid = [(a, g) for a in np.linspace(0.1, 1.5, 15) for g in np.linspace(0.0, 2.0, 21)]
    alpha, gain = min(grid, key=lambda pair: error(*pair))
    return float(alpha), float(gain)


class RayAsha(RunAll):
    """Ray Tune's AsyncHyperBandScheduler behind the interface of a policy."""

    def __init__(self, rungs: tuple[int, ...], eta: int, budget: int) -> None:
        self.rungs = rungs
        self._theirs = AsyncHyperBandScheduler("tokens", SCORE, "min", budget, rungs[0], eta)
        self._decisions: dict[str, str] = {}

    def observe(self, row: Row) -> None:
        if row["kind"] == "planned":
            self._theirs.on_trial_add(None, _RayTrial(row["trial"]))
        elif row["kind"] == "measured":
            self._decisions[row["trial"]] = self._theirs.on_trial_result(
                None, _RayTrial(row["trial"]), {"tokens": row["tokens"], SCORE: row[SCORE]}
            )

    def decide(self, trial: str, tokens: int) -> Decision:
        if self._decisions[trial] == TrialScheduler.STOP:
            return Stop("Ray says so", tokens, None, 1, 1)
        return "continue"


class _RayTrial:
    """The only attribute of a trial that Ray's scheduler reads."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
