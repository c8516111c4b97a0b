"""What a policy costs and what it finds, over many replays of the same curves."""

import math
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeps.policies import Schedule
from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve, by_value, ended_early, mean_curve, reaches
from sweeps.simulate.machine import ReplayResult, replay
from sweeps.stats import half_interval
from tinylm.config import ConfigError


@dataclass(frozen=True)
class Interval:
    """A mean, and the ends of its 95% t interval; a single value has none."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Judgment:
    """What replays of the same curves cost and found, on average."""

    # Trials that differ only by seed are one here. The final score of the chosen trial minus the best in
    # the pool. The chosen trial is the best that finished; if none did, the best at the last rung that any
    # reached.
    regret: Interval
    best_kept: float  # the share of replays in which the best trial finished
    cost: float  # tokens, as a share of training all curves to the end
    wall_clock: float  # seconds
    utilization: float  # the share of the workers' time spent training
    # The share of the stopped trials whose final score is among the best `top` of the pool; of equal
    # scores, the finished ones count as better.
    false_kills: float
    finished: float  # trials
    chosen: dict[str, int]  # how often each trial was chosen
    # Curves that end before the longest without diverging; their last scores are taken for final ones.
    short: int

    def as_json(self) -> dict[str, Any]:
        """The fields by their names, as `sweeps.replay --json` prints them."""
        return asdict(self)


def rounded_rungs(schedule: Schedule, budget: int) -> tuple[int, ...]:
    """The schedule's rungs in tokens of a budget."""
    return tuple(round(share * budget) for share in schedule.shares())


def _interval(values: Sequence[float]) -> Interval:
    """The mean of values that can't be below 0, and its 95% t interval; a single value has none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    half = half_interval(values)
    return Interval(mean, max(0.0, mean - half), mean + half)


def _chosen(alive: Sequence[Curve], result: ReplayResult) -> Curve:
    """The trial that a replay ends with: the best of the finished ones, else the best of those that
    got furthest."""

    def standing(curve: Curve) -> tuple[int, float]:
        reached = result.reached[curve.trial]
        at = bisect_right(curve.tokens, reached) - 1
        return -reached, curve.scores[at] if at >= 0 else math.inf

    finished = [curve for curve in alive if curve.trial in set(result.finished)]
    if finished:
        return min(finished, key=lambda curve: curve.final)
    return min(alive, key=standing)


def _of_values(result: ReplayResult, groups: Mapping[str, Sequence[Curve]]) -> ReplayResult:
    """A result with values in place of trials: those whose trials all finished, or of which one diverged,
    and how far all came that were trained."""
    ended, lost = set(result.finished), set(result.diverged)
    finished, diverged, reached = [], [], {}
    for value, seeds in groups.items():
        trials = [seed.trial for seed in seeds]
        begun = [trial for trial in trials if trial in result.reached]
        reached[value] = min((result.reached[trial] for trial in begun), default=0)
        if not lost.isdisjoint(trials):
            diverged.append(value)
        elif ended.issuperset(begun or trials):
            finished.append(value)
    return replace(result, finished=finished, diverged=diverged, reached=reached)


def judge(curves: Sequence[Curve], replays: Iterable[ReplayResult], top: int) -> Judgment:
    """What replays of the same curves cost and found; stopping one of the best `top` is a false kill.
    Trials that differ only by seed are one, with the mean of their scores."""
    groups = by_value(curves)
    values = [mean_curve(value, seeds) for value, seeds in groups.items()]
    ranked = sorted(
        (curve for curve in values if not curve.diverged), key=lambda curve: curve.final
    )
    best = {curve.trial for curve in ranked if curve.final == ranked[0].final}
    full = sum(curve.tokens[-1] for curve in curves)
    labels = Counter(curve.label for curve in values)
    results = [_of_values(result, groups) for result in replays]
    regrets, false_kills, chosen = [], [], Counter[str]()
    for result in results:
        finished = set(result.finished)
        winner = _chosen([curve for curve in values if curve.trial not in result.diverged], result)
        chosen[winner.label if labels[winner.label] == 1 else winner.trial] += 1
        regrets.append(winner.final - ranked[0].final)
        good = sorted(ranked, key=lambda curve: (curve.final, curve.trial not in finished))[:top]
        killed = len(values) - len(finished) - len(result.diverged)
        lost = sum(curve.trial not in finished for curve in good)
        false_kills.append(lost / killed if killed else 0.0)
    return Judgment(
        regret=_interval(regrets),
        best_kept=statistics.fmean(bool(best & set(result.finished)) for result in results),
        cost=statistics.fmean(result.tokens / full for result in results),
        wall_clock=statistics.fmean(result.seconds for result in results),
        utilization=statistics.fmean(
            result.busy / (result.workers * result.seconds) for result in results
        ),
        false_kills=statistics.fmean(false_kills),
        finished=statistics.fmean(len(result.finished) for result in results),
        chosen=dict(chosen.most_common()),
        short=len(ended_early(curves)),
    )


KEPT = 0.95  # the share of replays in which a policy that is recommended kept the best


def recommended(results: Mapping[str, Judgment]) -> str | None:
    """The cheapest policy that kept the best often enough; None where curves end early, so that it is not
    known which is the best."""
    good = {name: found for name, found in results.items() if found.best_kept >= KEPT}
    if not good or any(found.short for found in results.values()):
        return None
    return min(good, key=lambda name: (good[name].cost, good[name].regret.mean))


def _bare(curve: Curve, rungs: Sequence[int]) -> list[int]:
    """The rungs of a curve at which it has no decayed score."""
    return [rung for rung in rungs if rung < curve.tokens[-1] and rung not in curve.decayed]


def has_decayed(curves: Sequence[Curve], schedule: Schedule) -> bool:
    """Whether all curves have decayed scores at the rungs of a schedule."""
    rungs = rounded_rungs(schedule, max(curve.tokens[-1] for curve in curves))
    return not any(_bare(curve, rungs) for curve in curves)


def check_reach(curves: Sequence[Curve], schedule: Schedule, source: str) -> None:
    """Raise `ConfigError` if a trial has no score at the first rung and did not diverge before it, or
    if scores are decayed ones and a rung has none."""
    budget = max(curve.tokens[-1] for curve in curves)
    rungs = rounded_rungs(schedule, budget)
    if not rungs:
        return
    missed = [curve for curve in curves if not reaches(curve, rungs[0])]
    if len(missed) == len(curves):  # the rung is wrong, not the curves
        first, last = min(c.tokens[0] for c in curves), max(c.tokens[-1] for c in curves)
        raise ConfigError(
            [
                f"{source}: no trial has a score at the first rung, {rungs[0]} of {budget} tokens; "
                f"the rows are from {first} to {last} tokens"
            ]
        )
    wrong = [
        f"{source}: trial {curve.trial} has no score at the first rung, {rungs[0]} tokens: its rows "
        f"are from {curve.tokens[0]} to {curve.tokens[-1]} tokens"
        for curve in missed
    ]
    for curve in curves if schedule.branch else ():
        bare = _bare(curve, rungs)
        if bare:
            wrong.append(f"{source}: trial {curve.trial} has no decayed score at {bare[0]} tokens")
    if wrong:
        raise ConfigError(wrong)


def judged(
    curves: Sequence[Curve],
    schedule: Schedule,
    workers: int,
    orders: Sequence[Sequence[Curve]],
    top: int,
) -> Judgment:
    """`judge` of one replay for each order of the curves."""
    rungs = rounded_rungs(schedule, max(curve.tokens[-1] for curve in curves))
    return judge(
        curves,
        (
            replay(order, Values(schedule, rungs, SCORE), workers, float(schedule.branch))
            for order in orders
        ),
        top,
    )
