"""Intervals and tests as pure functions of numbers.

numpy and scipy are imported where they are called. The distributions are those of `scipy.special`, which
loads in a third of the time that `scipy.stats` takes and gives the same numbers, bit for bit.

Whoever tests as seeds arrive, and stops at the first difference, tests more often than at 5%. So a
study spends its level in parts, a part at each look (Lan and DeMets, Biometrika 70, 1983). Looks need not
be planned: the part of a look follows from the number of its seeds and from the looks before it.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, final, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
# With which the seeds of `seeds_to_settle` find the difference: the convention since Cohen (1988), who
# held that missing a difference is a quarter as bad as seeing one that is not there (20% against 5%).
POWER = 0.8
MOST_SEEDS = 1000
NOISE_MARGIN = 2.0  # a difference within this many noise standard deviations is no difference
# Degrees of freedom that a pooled variance has from the rest of the study, beside the arm's own.
SHARED = 2
# Its boundaries hold where the differences of an arm have up to so many times the variance that the rest says:
# (1 + 4) / 2, if the arm or the baseline has four times the variance of the others.
RATIO = 2.5
Variance = Literal["own", "pooled"]  # of an arm's differences in its test
# Draws of the process of t statistics: the level of all looks together is then between 4.9% and 5.1%.
_DRAWS = 2**19
_FUTURES = 10_000  # draws of how a study goes on
_SELDOM = 0.1
_NEARLY_ONE = 1 - 1e-12
_STEPS = 40  # halvings that find a boundary
_LEVELS = 60  # for each of which boundaries are found, to find the level of a statistic
_LEAST, _LEAST_POOLED = 1e-6, 2e-4  # of these levels; a pooled statistic is known by its draws only


@final
@dataclass(frozen=True)
class Effect:
    """The mean of paired differences, with its interval and p-value."""

    n: int
    mean: float
    sd: float | None  # of the differences; None for a single one
    low: float | None  # 95% interval of the mean
    high: float | None
    p: float | None  # of a two-sided test that the mean is 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Effect":
        """The effect whose numbers a row holds by their names."""
        return cls(**{number.name: row[number.name] for number in fields(cls)})


def t_quantile(freedom: int) -> float:
    """How many standard errors a 95% t interval reaches on either side (Student, 1908)."""
    from scipy import special

    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95% t interval of the mean of two or more values."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return t_quantile(len(values) - 1) * error


def spent(seeds: int, ends: Sequence[int]) -> float:
    """The share of the level that is spent after so many seeds: 1 at the first of the ends, the number of
    seeds that the study was planned to have at most; 2 at the second, up to which it was extended.

    From each end to the next it is ln(1 + (e - 1) t), where t goes from 0 to 1: the function of Lan and
    DeMets (1983) that is nearest to the boundaries of Pocock (Biometrika 64, 1977).
    """
    share, before = 0.0, 0
    for end in ends:
        t = min(max(seeds - before, 0) / (end - before), 1.0)
        share += math.log1p((math.e - 1) * t)
        before = end
    return share


def boundaries(
    looks: Sequence[int], ends: Sequence[int], level: float = ALPHA, rests: Sequence[int] = ()
) -> tuple[float, ...]:
    """What the absolute paired t statistic has to exceed at each look for a difference, by the number of
    seeds at each look. Without a difference, the chance to exceed it at some look is `level` times what
    is `spent`.

    A boundary c at a look solves P(|t| > c, and no boundary exceeded before) = level times what the look
    spends. The left side is P(|t| > c), which Student's distribution gives, less P(|t| > c, and a boundary
    exceeded before), which is counted in draws of the process. So the first boundary is the quantile of
    a t test, and the others are that of a test at the same level, and a little closer. No normal approximation
    is used, which is far off at three seeds.

    Where the variance is pooled, `rests` are the degrees of freedom of the `Rest` at each look. Then all is
    counted in draws, of an arm whose differences have `RATIO` times the variance that the rest says.
    """
    if any(rests):
        return _pooled_boundaries(tuple(looks), tuple(ends), level, tuple(rests))
    return _boundaries(tuple(looks), tuple(ends), level)


@lru_cache(maxsize=64)
def _boundaries(looks: tuple[int, ...], ends: tuple[int, ...], level: float) -> tuple[float, ...]:
    from scipy import special

    found: list[float] = []
    before = 0.0
    crossed: NDArray[np.bool_] | None = None  # whether a draw has exceeded one
    for position, seeds in enumerate(looks):
        now = level * spent(seeds, ends)
        one_test = -float(special.stdtrit(seeds - 1, (now - before) / 2))
        if now <= before:  # no level is left, so nothing is a difference
            found.append(math.inf)
        elif crossed is None:
            found.append(one_test)
        else:
            crossers = _statistics(looks)[position][crossed]
            found.append(_root(seeds, now - before, crossers, one_test))
        before = now
        if position + 1 < len(looks):
            exceeds = _statistics(looks)[position] > found[-1]
            crossed = exceeds if crossed is None else crossed | exceeds
    return tuple(found)


@lru_cache(maxsize=64)
def _pooled_boundaries(
    looks: tuple[int, ...], ends: tuple[int, ...], level: float, rests: tuple[int, ...]
) -> tuple[float, ...]:
    import numpy as np

    found: list[float] = []
    before, left = 0.0, np.ones(_DRAWS, dtype=bool)  # the draws that have exceeded none
    for seeds, statistic in zip(looks, _pooled_statistics(looks, rests), strict=True):
        now = level * spent(seeds, ends)
        exceed, ordered = round((now - before) * _DRAWS), statistic[left]
        place = len(ordered) - exceed - 1
        found.append(float(np.partition(ordered, place)[place]) if now > before else math.inf)
        left &= statistic <= found[-1]
        before = now
    return tuple(found)


@lru_cache(maxsize=2)
def _pooled_statistics(
    looks: tuple[int, ...], rests: tuple[int, ...]
) -> "list[NDArray[np.float64]]":
    """Draws of the absolute pooled t statistic at each look, of normal differences with mean 0 that have
    `RATIO` times the variance of the rest. The same at every call."""
    import numpy as np

    own, others = np.random.default_rng([0, 0]), np.random.default_rng([0, 1])
    total, squares, shared = (np.zeros(_DRAWS) for _ in range(3))
    found, seeds, known = [], 0, 0
    for n, freedom in zip(looks, rests, strict=True):
        for _ in range(n - seeds):
            values = own.standard_normal(_DRAWS)
            total += values
            squares += values * values
        if freedom > known:
            shared += others.chisquare(freedom - known, _DRAWS)
        seeds, known = n, max(known, freedom)
        variance = (squares - total * total / n) / (n - 1)
        if freedom:
            variance = pooled(n, variance, shared / known / RATIO)
        found.append(np.abs(total / n) / np.sqrt(variance / n))
    return found


def _root(seeds: int, spends: float, crossers: "NDArray[np.float64]", high: float) -> float:
    """The boundary at a look that spends so much, given the statistics of the draws that have exceeded one
    before; it is not above `high`."""
    import numpy as np
    from scipy import special

    ordered, low = np.sort(crossers), 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        again = (len(ordered) - np.searchsorted(ordered, middle, side="right")) / _DRAWS
        if 2 * special.stdtr(seeds - 1, -middle) - again > spends:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=2)  # of 4 MB a look
def _statistics(looks: tuple[int, ...]) -> "list[NDArray[np.float64]]":
    """Draws of the absolute t statistic at each look, of normal differences with mean 0; their scale does
    not matter. The same at every call."""
    import numpy as np

    draw = np.random.default_rng(0)
    total, squares = np.zeros(_DRAWS), np.zeros(_DRAWS)
    at = {}
    for n in range(1, max(looks) + 1):
        values = draw.standard_normal(_DRAWS)
        total += values
        squares += values * values
        if n in looks:
            error = np.sqrt((squares - total * total / n) / (n - 1) / n)
            at[n] = np.abs(total / n) / error
    return [at[n] for n in looks]


def _level_reached(
    looks: Sequence[int], ends: Sequence[int], statistic: float, rests: Sequence[int] = ()
) -> float:
    """The smallest level at which an absolute t statistic exceeds the boundary of the last look; 1 if none
    does. It is interpolated, to within 0.5% of itself. Of a pooled statistic no level below
    `_LEAST_POOLED` is known."""
    import numpy as np
    from scipy import special

    if any(rests):
        bounds, levels = _levels(tuple(looks), tuple(ends), tuple(rests))
        if statistic <= math.exp(bounds[0]):
            return 1.0
        return min(1.0, math.exp(np.interp(math.log(statistic), bounds, levels)))
    spends = np.diff([0.0, *(spent(n, ends) for n in looks)])[-1]
    most = float(2 * special.stdtr(looks[-1] - 1, -statistic) / spends)
    if len(looks) == 1:
        return min(1.0, most)
    bounds, levels = _levels(tuple(looks), tuple(ends))
    if statistic > math.exp(bounds[-1]):
        return most  # so far out, nothing has been exceeded before
    if statistic <= math.exp(bounds[0]):
        return 1.0
    return min(1.0, math.exp(np.interp(math.log(statistic), bounds, levels)))


@lru_cache(maxsize=64)
def _levels(
    looks: tuple[int, ...], ends: tuple[int, ...], rests: tuple[int, ...] = ()
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Rising boundaries of the last look, and the levels whose boundaries they are; as logarithms."""
    import numpy as np

    most = 0.999 / spent(looks[-1], ends)  # at which nearly everything is spent
    least = _LEAST_POOLED if any(rests) else _LEAST
    levels = np.sort([*np.geomspace(least, most, _LEVELS), ALPHA])[::-1]
    bounds = np.array([boundaries(looks, ends, float(level), rests)[-1] for level in levels])
    return np.log(np.maximum.accumulate(bounds)), np.log(levels)


@final
@dataclass(frozen=True)
class Rest:
    """What the contrasts between the other arms of a study say of the variance of paired differences."""

    freedom: int  # degrees of freedom
    variance: float


def rest(
    base: Sequence[float], own: Sequence[float], others: Sequence[Sequence[float]]
) -> Rest | None:
    """The rest of a study beside an arm: losses on its seeds, or on the first of these; None if it has fewer than
    `SHARED` degrees of freedom.

    It is the residual of a two-way layout (an effect of the arm and one of the seed; Scheffe, The Analysis of
    Variance, 1959), less the part of the arm's own differences: that of contrasts between each other arm and the
    mean of all before it, by falling numbers of seeds. If all runs have one variance, it does not depend on the
    arm's differences.
    """
    total = [a + b for a, b in zip(base, own, strict=False)]
    squares, freedom = 0.0, 0
    by_seeds = sorted(others, key=len, reverse=True)
    for number, losses in enumerate(by_seeds, start=2):
        contrasts = [loss - sum_ / number for loss, sum_ in zip(losses, total, strict=False)]
        if len(contrasts) < 2:
            break
        of_contrasts = statistics.variance(contrasts) * (len(contrasts) - 1)
        squares += of_contrasts * number / (number + 1)
        freedom += len(contrasts) - 1
        total = [loss + sum_ for loss, sum_ in zip(losses, total, strict=False)]
    return Rest(freedom, 2 * squares / freedom) if freedom >= SHARED else None


def pooled(seeds: int, own: Any, of_rest: Any) -> Any:
    """The variance of paired differences, of the arm's own and that of the rest, which counts as `SHARED` degrees
    of freedom: a moderated variance (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004), whose weight is fixed."""
    return ((seeds - 1) * own + SHARED * of_rest) / (seeds - 1 + SHARED)


def effect_at_look(
    differences: Sequence[float],
    looks: Sequence[int],
    ends: Sequence[int],
    before: float = 1.0,
    rests: Sequence[int] = (),
    shared: Rest | None = None,
) -> Effect:
    """The mean of the differences at the last look, its repeated interval and its sequential p-value, which
    was `before` at the look before.

    The repeated intervals of all looks cover the truth together, at the level that is spent at the last of
    them (Jennison and Turnbull, JRSS B 51, 1989). The sequential p-value is the smallest level at which
    a boundary would have been exceeded so far (Liu and Anderson, JASA 103, 2008). Holm's correction of such
    p-values keeps the level over all arms and looks (Maurer and Bretz, Stat. Biopharm. Res. 5, 2013).
    With one look, at the end, they are the t interval and the p-value of the t test.

    A `shared` rest of the study is pooled with the variance; `rests` are its degrees of freedom at each look.
    """
    found = effect(differences)
    if found.sd is None or found.p is None:
        return found
    variance = found.sd**2 if shared is None else pooled(found.n, found.sd**2, shared.variance)
    error = math.sqrt(variance / found.n)
    half = boundaries(looks, ends, rests=rests)[-1] * error
    now = found.p if not error else _level_reached(looks, ends, abs(found.mean) / error, rests)
    return replace(found, low=found.mean - half, high=found.mean + half, p=min(before, now))


# What an arm is found to be, lower losses being better.
Decision = Literal["better", "worse", "no difference", "no conclusion"]


def decide(found: Effect, p_holm: float | None, margin: float | None) -> Decision:
    """What an effect is evidence for, lower being better: a difference if its adjusted p-value is below
    `ALPHA`, no difference if its interval is within the margin on either side."""
    if found.low is None or found.high is None or p_holm is None:
        return "no conclusion"
    if p_holm < ALPHA:
        return "better" if found.mean < 0 else "worse"
    return "no difference" if is_within(found, margin) else "no conclusion"


def margin_of(matters: float | None, noise: Mapping[str, Any] | None) -> float | None:
    """Within which there is no difference: what matters, or by the noise, as a row has it."""
    if matters is not None or noise is None:
        return matters
    return NOISE_MARGIN * float(noise["sd"])


def is_within(found: Effect, margin: float | None) -> bool:
    """Whether the interval of an effect is within a margin on either side."""
    if found.low is None or found.high is None or margin is None:
        return False
    return max(abs(found.low), abs(found.high)) <= margin


@final
@dataclass(frozen=True)
class Fate:
    """What has become of the runs of an arm or of the baseline; of the trials of its re-tune grid, where
    that chose no values to run."""

    runs: int
    diverged: int
    finished: int

    @classmethod
    def of(cls, statuses: Collection[str]) -> "Fate":
        """The fate of runs with these statuses."""
        ended = [sum(one == status for one in statuses) for status in ("diverged", "finished")]
        return cls(len(statuses), *ended)

    @property
    def is_gone(self) -> bool:
        """Whether all of them diverged."""
        return 0 < self.runs == self.diverged


def possible(own: Fate, base: Fate) -> tuple[Decision, ...]:
    """What an arm can be found to be, after what has become of its runs and of the baseline's. A single
    decision is certain.

    An arm of which every run diverged is worse, whatever the losses. Once the worst runs of one side have
    diverged, the remaining ones are not a fair sample: they are evidence against that side alone.
    """
    if own.is_gone and base.is_gone:
        return ("no conclusion",)
    if own.is_gone:
        return ("worse",)
    if base.is_gone:
        return ("better" if 0 < own.runs == own.finished else "no conclusion",)
    if own.diverged and base.diverged:
        return ("no conclusion",)
    if own.diverged:
        return ("no conclusion", "worse")
    return ("no conclusion", "better") if base.diverged else get_args(Decision)


@final
@dataclass(frozen=True)
class Seen:
    """What a look has found of an arm. Once a look has settled it, later ones leave it as it is."""

    looks: tuple[int, ...]  # the number of differences at each of its looks, this one included
    effect: Effect | None  # at the last of these; None without a difference
    p_holm: float | None = None
    decision: Decision = "no conclusion"
    rests: tuple[
        int, ...
    ] = ()  # degrees of freedom of the rest at each look; 0 where none was pooled

    @property
    def is_settled(self) -> bool:
        """Whether more seeds would change nothing."""
        return self.decision != "no conclusion"


def look(
    base: Mapping[int, float],
    arms: Mapping[str, Mapping[int, float]],
    before: Mapping[str, Seen],
    ends: Sequence[int],
    registered: Collection[str],
    margin: float | None,
    changed: Collection[str] = (),
    can_be: Mapping[str, Collection[Decision]] = MappingProxyType({}),
    variance: Variance = "own",
) -> dict[str, Seen]:
    """What a look finds of each arm, from the losses by seed, the baseline's first, and from what the look
    `before` found. The ends are those of `spent`; within the margin there is no difference.

    The registered arms are corrected for each other, those with no losses yet among them: that an arm is
    added later changes nothing about them. The others are corrected for all arms, and for what was looked at
    of arms before they were `changed`. Arms with the same losses are one test, and one whose losses are the
    baseline's is none. What an arm `can_be` is what is `possible`, if that is not everything. A variance that is
    pooled is that of the arms whose runs did not go wrong.
    """
    paired = {
        name: [own[seed] - base[seed] for seed in base if seed in own] for name, own in arms.items()
    }
    beside = _beside(base, arms) if variance == "pooled" else {}
    seen = {name: _seen(paired[name], before.get(name), ends, beside.get(name)) for name in arms}
    every = (*registered, *changed, *arms)
    tests: dict[str, tuple[object, float]] = {name: (name, 1.0) for name in every}
    for name, one in seen.items():
        if one.effect is not None and one.effect.p is not None:
            direction = "better" if one.effect.mean < 0 else "worse"
            is_evidence = direction in can_be.get(name, (direction,))
            tests[name] = (tuple(paired[name]), one.effect.p if is_evidence else 1.0)
        if paired[name] and not any(paired[name]):
            del tests[name]
            seen[name] = replace(one, p_holm=1.0)
    for family in (tests, {name: one for name, one in tests.items() if name in registered}):
        p_values = dict(family.values())
        adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
        for name in family.keys() & seen.keys():
            seen[name] = replace(seen[name], p_holm=adjusted[family[name][0]])
    return {
        name: one
        if one.is_settled
        else replace(one, decision=_decided(one, margin, can_be.get(name)))
        for name, one in seen.items()
    }


_Beside = Callable[[int], Rest | None]  # the rest of the study, at so many of the arm's seeds


def _beside(
    base: Mapping[int, float], arms: Mapping[str, Mapping[int, float]]
) -> dict[str, _Beside]:
    """The rest of the study for each arm that has losses on the first seeds, without a gap; arms with the same
    losses are one, and those with the baseline's are none."""
    seeds = list(base)
    losses = {
        name: tuple(own[seed] for seed in seeds if seed in own)
        for name, own in arms.items()
        if set(seeds[: len(own.keys() & base.keys())]) <= own.keys()
    }
    of_base = tuple(base.values())
    distinct = {own for own in losses.values() if own != of_base[: len(own)]}

    def of(own: tuple[float, ...]) -> _Beside:
        others = sorted(distinct - {own})
        return lambda n: rest(of_base[:n], own[:n], [one[:n] for one in others])

    return {name: of(own) for name, own in losses.items() if own in distinct}


def _decided(seen: Seen, margin: float | None, can_be: Collection[Decision] | None) -> Decision:
    """What is decided on an arm that is not settled."""
    if can_be is not None and len(can_be) == 1:
        (certain,) = can_be
        return certain
    found = "no conclusion" if seen.effect is None else decide(seen.effect, seen.p_holm, margin)
    return found if can_be is None or found in can_be else "no conclusion"


def read_again(seen: Seen, margin: float | None) -> Decision:
    """What a look decides on an arm by another margin, from the interval that it found: whether there is
    a difference does not depend on the margin."""
    if seen.decision in {"better", "worse"} or seen.effect is None:
        return seen.decision
    return "no difference" if is_within(seen.effect, margin) else "no conclusion"


def _seen(
    differences: Sequence[float],
    before: Seen | None,
    ends: Sequence[int],
    beside: _Beside | None = None,
) -> Seen:
    """What a look finds of an arm, before the correction for others. A study that was extended, and has no
    looks from before, is taken to have been looked at where it was to end."""
    if before is None and (early := [n for n in ends[:-1] if 2 <= n < len(differences)]):
        before = _seen(differences[: early[-1]], None, ends[: len(early)], beside)
    earlier = before or Seen((), None)
    if earlier.is_settled or len(differences) <= max(earlier.looks, default=0):
        return earlier
    if len(differences) < 2:
        return Seen((), effect(differences))
    looks = (*earlier.looks, len(differences))
    p = earlier.effect.p if earlier.effect is not None else None
    shared = None if beside is None else beside(len(differences))
    before_it = earlier.rests or (0,) * len(earlier.looks)
    rests = (*before_it, 0 if shared is None else shared.freedom)
    found = effect_at_look(differences, looks, ends, 1.0 if p is None else p, rests, shared)
    return Seen(looks, found, rests=rests if any(rests) else ())


def effect(differences: Sequence[float]) -> Effect:
    """The mean of at least one difference, its t interval and its t test."""
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Effect(n, mean, None, None, None, None)
    from scipy import special

    sd = statistics.stdev(differences)
    error = sd / math.sqrt(n)
    half = half_interval(differences)
    certain = 0.0 if mean else 1.0  # where the differences are all the same
    p = float(2 * special.stdtr(n - 1, -abs(mean) / error)) if error else certain
    return Effect(n, mean, sd, mean - half, mean + half, p)


def widened(found: Effect, like: Effect) -> Effect:
    """An effect whose t interval is made wider by the factor by which that of another effect, which allows for
    several looks, is wider than a t interval; without an interval if the other one has none."""
    if found.low is None or found.high is None or like.sd == 0:
        return found
    if like.low is None or like.high is None or like.sd is None:
        return replace(found, low=None, high=None, p=None)
    plain = t_quantile(like.n - 1) * like.sd / math.sqrt(like.n)
    half = (found.high - found.low) / 2 * (like.high - like.low) / 2 / plain
    return replace(found, low=found.mean - half, high=found.mean + half, p=None)


@final
@dataclass(frozen=True)
class Outlook:
    """How many seeds in all are likely to settle an arm, by the looks that are left."""

    fewest: int  # that settle it in a tenth of the cases
    most: int | None  # that settle it with a probability of `POWER`; None if the last look does not
    chance: float  # that the last look, or one before, settles it


def outlook(
    found: Effect,
    looks: Sequence[int],
    left: Sequence[int],
    ends: Sequence[int],
    level: float,
    margin: float | None,
    rests: Sequence[int] = (),
) -> Outlook | None:
    """What the looks that are `left`, of these numbers of seeds, are likely to find of an arm after its own
    looks: a difference at this level (a part of `ALPHA`, for several arms), or an interval within the
    margin. None for an arm that has no interval yet.

    The true difference and its scatter over seeds are drawn from what the seeds so far say about them (the
    normal distribution with the reference prior; Box and Tiao, Bayesian Inference, 1973), and the further
    seeds from these. What was pooled from the rest of the study, as `rests` say, stays as it is. The same at every
    call.
    """
    import numpy as np

    if found.sd is None or not found.sd or not left:
        return None
    draw, n = np.random.default_rng(0), found.n
    sd = found.sd * np.sqrt((n - 1) / draw.chisquare(n - 1, _FUTURES))
    truth = found.mean + sd / math.sqrt(n) * draw.standard_normal(_FUTURES)
    total = np.full(_FUTURES, n * found.mean)
    squares = np.full(_FUTURES, (n - 1) * found.sd**2 + n * found.mean**2)
    every, shared = (*looks, *left), 0.0  # the last is a sum of squares
    if any(rests) and found.low is not None and found.high is not None:
        error = (found.high - found.low) / 2 / boundaries(looks, ends, rests=rests)[-1]
        shared = max(0.0, error**2 * n * (n - 1 + SHARED) - (n - 1) * found.sd**2)
    further = [*rests, *[rests[-1]] * len(left)] if shared else []
    freedom = SHARED if shared else 0
    differ, cover = (boundaries(every, ends, one, further)[len(looks) :] for one in (level, ALPHA))
    settled, shares = np.zeros(_FUTURES, dtype=bool), []
    for seeds, to_differ, to_cover in zip(left, differ, cover, strict=True):
        for _ in range(seeds - n):
            value = truth + sd * draw.standard_normal(_FUTURES)
            total, squares = total + value, squares + value * value
        n = max(n, seeds)
        error = np.sqrt((squares - total * total / n + shared) / (n - 1 + freedom) / n)
        off = np.abs(total / n)
        settled |= off > to_differ * error
        if margin is not None:
            settled |= off + to_cover * error <= margin
        shares.append(float(settled.mean()))
    first = next((k for k, share in zip(left, shares, strict=True) if share >= _SELDOM), left[-1])
    most = next((k for k, share in zip(left, shares, strict=True) if share >= POWER), None)
    return Outlook(first, most, shares[-1])


@final
@dataclass(frozen=True)
class Pairing:
    """What pairing two arms by seed buys."""

    n: int  # seeds
    correlation: float
    low: float  # its 95% interval
    high: float
    times: float  # how many times as many seeds would do as well without pairing


def pairing(own: Sequence[float], base: Sequence[float]) -> Pairing | None:
    """What pairing has bought of the losses of two arms at the same seeds: their correlation, with its
    interval (Fisher, Metron 1, 1921), and the variance of the differences that it has saved. None for
    fewer than four seeds, which have no interval, and for losses or differences that are all the same."""
    n = len(own)
    differences = [a - b for a, b in zip(own, base, strict=True)]
    if n < 4 or 0 in {len(set(some)) - 1 for some in (own, base, differences)}:
        return None
    found = statistics.correlation(own, base)
    half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / math.sqrt(n - 3)
    center = math.atanh(max(-_NEARLY_ONE, min(_NEARLY_ONE, found)))
    alone, paired = (sum(map(statistics.variance, some)) for some in ((own, base), (differences,)))
    return Pairing(n, found, math.tanh(center - half), math.tanh(center + half), alone / paired)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for multiple tests, in the given order (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _boundary_of_one_look(seeds: int, alpha: float, rest: int) -> float:
    """The boundary of a single look at this level, where the rest of the study has so many degrees of freedom, or
    nothing is pooled. For a pooled variance it is an approximation (Satterthwaite, Biometrics Bulletin 2, 1946) to
    that of `boundaries`: 3% too high at five seeds, and less at more."""
    from scipy import special

    own = seeds - 1
    if not rest:
        return -float(special.stdtrit(own, alpha / 2))
    mean = own * RATIO + SHARED
    freedom = mean**2 / (own * RATIO**2 + SHARED**2 / rest)
    inflation = math.sqrt(RATIO * (own + SHARED) / mean)
    return -float(special.stdtrit(freedom, alpha / 2)) * inflation


def seeds_to_settle(mean: float, sd: float, alpha: float = ALPHA, rest: int = 0) -> int | None:
    """The total number of seeds with which a paired t test at this level finds a difference of this size
    with a probability of `POWER` (noncentral t); None if `MOST_SEEDS` are not enough. The `sd` is that of the test,
    pooled if the rest of the study has degrees of freedom."""
    from scipy import stats

    def power(n: int) -> float:
        critical = _boundary_of_one_look(n, alpha, rest)
        shift = abs(mean) / sd * math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1 + SHARED * bool(rest), shift))

    if mean == 0 or power(MOST_SEEDS) < POWER:
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def seeds_to_bound(mean: float, sd: float, margin: float, rest: int = 0) -> int | None:
    """The total number of seeds with which the interval of a mean with this scatter is within the margin
    on either side; None if `MOST_SEEDS` are not enough. See `seeds_to_settle`."""
    numbers = range(2, MOST_SEEDS + 1)

    def exceeds(n: int) -> bool:
        return abs(mean) + _boundary_of_one_look(n, ALPHA, rest) * sd / math.sqrt(n) > margin

    position = bisect_left(numbers, True, key=lambda n: not exceeds(n))
    return numbers[position] if position < len(numbers) else None


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a run over seeds, with its 95% interval (chi square)."""

    sd: float
    low: float
    high: float
    freedom: int  # degrees of freedom


def pooled_noise(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The noise, pooled over groups of losses that differ only by seed; None if no group has two
    losses."""
    several = [group for group in groups if len(group) > 1]
    if not several:
        return None
    from scipy import special

    freedom = sum(len(group) - 1 for group in several)
    squares = math.fsum((len(group) - 1) * statistics.variance(group) for group in several)
    high, low = (
        math.sqrt(squares / float(2 * special.gammaincinv(freedom / 2, share)))
        for share in (ALPHA / 2, 1 - ALPHA / 2)
    )
    return Noise(math.sqrt(squares / freedom), low, high, freedom)


def scatters_more(one: Noise, other: Noise) -> bool:
    """Whether one noise is significantly larger than the other, by an F test."""
    from scipy import special

    ratio = (one.sd / other.sd) ** 2 if other.sd else 1.0
    return float(special.fdtrc(one.freedom, other.freedom, ratio)) < ALPHA


def alike(base: Sequence[float], groups: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """The baseline's losses, and the groups whose losses do not scatter more than these."""
    own = pooled_noise([base])
    found = [base]
    for group in groups:
        its = pooled_noise([group])
        if own is None or its is None or not scatters_more(its, own):
            found.append(group)
    return found


def noise_of_runs(
    base: Sequence[float], arms: Sequence[Sequence[float]], repeats: Sequence[float]
) -> tuple[Noise | None, Literal["seeds", "repeats"] | None]:
    """The noise of a run, and what it is taken over: seeds, pooled over the baseline and the arms whose
    spread is no larger; or repeats of one run, if their spread is clearly larger."""
    over_seeds = pooled_noise(alike(base, arms))
    repeated = pooled_noise([repeats])
    if repeated is None or repeated.sd == 0:  # exact repeats show no noise
        return over_seeds, None if over_seeds is None else "seeds"
    if over_seeds is None or scatters_more(repeated, over_seeds):
        return repeated, "repeats"
    return over_seeds, "seeds"


def share_interval(found: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share, of which so many of some independent cases were found (Clopper and
    Pearson, Biometrika 26, 1934)."""
    from scipy import special

    low = float(special.betaincinv(found, of - found + 1, ALPHA / 2)) if found else 0.0
    high = float(special.betaincinv(found + 1, of - found, 1 - ALPHA / 2)) if found < of else 1.0
    return low, high


@final
@dataclass(frozen=True)
class Law:
    """The loss of a baseline by its tokens: E + A D^-b (Hoffmann et al., 2022, arXiv:2203.15556), with the E, A
    and b that go through its losses at three horizons: its own tokens, and lower and higher shares of them.

    So an arm with the baseline's loss is worth exactly its tokens. A law of two parameters, which goes through the
    outer two, would say otherwise (see `Straight`).
    """

    low: float  # the shares of its own tokens
    high: float
    above: float  # by how much its loss is higher at the lower share
    below: float  # and lower at the higher one

    @property
    def exponent(self) -> float:
        """The b; below 0 where the loss falls faster the more tokens there are."""
        import numpy as np

        exponents, ratios = _drops(self.low, self.high)
        ratio = math.log(self.above) - math.log(self.below)
        # Where it is 0, the law is one of the logarithm of the tokens.
        return float(np.interp(ratio, ratios, exponents)) or _NEARLY_ZERO

    def times(self, difference: float) -> float:
        """The share of the tokens at which the baseline's loss is higher by a difference; the lower or the
        higher share where it is beyond."""
        if not -self.below < difference < self.above:
            return self.low if difference > 0 else self.high
        b = self.exponent
        share = difference * math.expm1(-b * math.log(self.low)) / self.above
        return min(max(math.exp(-math.log1p(share) / b), self.low), self.high)

    def difference(self, times: float) -> float:
        """By how much the baseline's loss is higher at a share of the tokens."""
        return float(self.differences(math.log(times)))

    def differences(self, logs: Any) -> Any:
        """`difference` at the logarithms of shares, a number or an array."""
        import numpy as np

        b = self.exponent
        return self.above * np.expm1(-b * logs) / math.expm1(-b * math.log(self.low))


_STEEPEST = 20.0  # exponent, up or down
_NEARLY_ZERO = 1e-12


@lru_cache(maxsize=8)
def _drops(low: float, high: float) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Exponents, and the logarithms of the ratios between the two drops of a loss that has them."""
    import numpy as np

    exponents = np.linspace(-_STEEPEST, _STEEPEST, 4000)  # 0 is not among them
    ratios = np.expm1(-exponents * math.log(low)) / -np.expm1(-exponents * math.log(high))
    return exponents, np.log(ratios)


@final
@dataclass(frozen=True)
class Straight:
    """How far the straight law A D^-b (Kaplan et al., 2020, arXiv:2001.08361) through the losses at the outer
    two horizons is from the loss in the middle."""

    predicted: float
    miss: float  # measured less predicted
    low: float  # 95% interval of that
    high: float

    @property
    def fits(self) -> bool:
        """Whether it misses by no more than the noise."""
        return self.low <= 0 <= self.high


@final
@dataclass(frozen=True)
class Speedup:
    """How many times its tokens the baseline needs for the loss of an arm, with an interval. A number that is
    one of the outer horizons is a bound: it is so little, or so much, or beyond."""

    times: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Scaling:
    """How the loss of a baseline depends on its tokens, as far as runs at three horizons say."""

    law: Law
    spread: float  # of a drop over seeds, as a share of it
    seeds: int  # on which the drops were measured

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the spread."""
        return 2 * (self.seeds - 1)

    def speedup(self, found: Effect, level: float = ALPHA) -> Speedup | None:
        """What an arm is worth whose difference from the baseline is this effect; None without an interval, of
        which `level` is outside, whatever kind it is.

        The interval has the shares of the tokens at which a test can't tell the arm's loss from the law's (Fieller,
        JRSS B 16, 1954). At a share of 1 that is the test of the difference.
        """
        import numpy as np
        from scipy import special

        if found.low is None or found.high is None or found.sd is None:
            return None
        law, times = self.law, self.law.times(found.mean)
        ends = math.log(law.low), math.log(law.high)
        logs = np.unique([*np.linspace(*ends, _SHARES), 0.0, math.log(times)])
        half = (found.high - found.low) / 2
        error = half / -float(special.stdtrit(found.n - 1, level / 2))
        spare = self._reach(logs, error, found.n - 1, level) - abs(
            found.mean - law.differences(logs)
        )
        (within,) = np.nonzero(spare >= 0)
        if not len(within):  # clearly beyond a horizon
            return Speedup(times, times, times)
        first, last = within[0], within[-1]
        outside = max(first - 1, 0), min(last + 1, len(logs) - 1)
        low, high = (
            math.exp(np.interp(0.0, spare[[out, at]], logs[[out, at]]) if out != at else logs[at])
            for out, at in zip(outside, (first, last), strict=True)
        )
        return Speedup(times, max(low, law.low), min(high, law.high))

    def _reach(
        self, logs: "NDArray[np.float64]", error: float, freedom: int, level: float
    ) -> "NDArray[np.float64]":
        """How far a difference with this standard error may be from the law's at logarithms of shares.

        The law's difference is a sum of both drops, weighted by how it depends on them (the delta method). The baseline's
        runs are taken to have half of the variance of the arm's difference, or of a drop if that is less. Their noise
        is in both, and cancels as far as the drops weigh. Degrees of freedom are those of Welch
        and Satterthwaite (Biometrics Bulletin 2, 1946).

        No law is exact. The 95% interval of its curvature between two horizons goes from none, which is a straight
        line along the logarithm of the tokens, to twice as much; its standard deviation is combined with the others
        as in JCGM 100:2008, 4.3.4 and 5.1.2.
        """
        import numpy as np
        from scipy import special

        law = self.law
        at, more, less = (
            Law(law.low, law.high, law.above * by, law.below).differences(logs)
            for by in (1.0, 1 + _STEP, 1 - _STEP)
        )
        of_above = (more - less) / (2 * _STEP)
        of_below = at - of_above  # where both drops are twice as large, so is the difference
        canceled = np.clip(of_above / law.above - of_below / law.below, 0.0, 1.0)
        of_drop = self.spread**2 * (law.above**2 + law.below**2) / 2
        own = error**2 - canceled * min(error**2, of_drop / (freedom + 1))
        drops = self.spread**2 / self.seeds * (of_above**2 + of_below**2)
        lines = law.above / math.log(law.low), -law.below / math.log(law.high)
        curvature = at - logs * np.where(logs < 0, *lines)
        law_error = curvature / float(special.ndtri((1 + CONFIDENCE) / 2))
        variance = own + drops + law_error**2
        shares = (part / np.maximum(variance, np.finfo(float).tiny) for part in (own, drops))
        inverse = sum(
            share**2 / of for share, of in zip(shares, (freedom, self.freedom), strict=True)
        )
        quantile = -special.stdtrit(1 / np.maximum(inverse, _NEARLY_ZERO), level / 2)
        reach: NDArray[np.float64] = quantile * np.sqrt(variance)
        return reach

    def straight(self, middle: float) -> Straight:
        """How far a straight law is from the loss in the middle; the noise of both drops is carried through by the
        delta method."""
        share = -math.log(self.law.low) / math.log(self.law.high / self.law.low)
        first, last = middle + self.law.above, middle - self.law.below
        predicted = first ** (1 - share) * last**share
        of_above = (1 - share) * self.law.above / first
        of_below = share * self.law.below / last
        error = predicted * math.hypot(of_above, of_below) * self.spread / math.sqrt(self.seeds)
        miss, half = middle - predicted, t_quantile(self.freedom) * error
        return Straight(predicted, miss, miss - half, miss + half)


_SHARES = 400  # at which a speedup is tested; between them its ends are interpolated
_STEP = 1e-3  # of a drop, by which the law's sensitivity is found


def scaling(
    low: float, high: float, above: Sequence[float], below: Sequence[float]
) -> Scaling | None:
    """How a loss depends on tokens, given by how much it was higher at the lower share of them, and lower at the
    higher one, on each seed; None with fewer than two seeds, or if it does not fall.

    Drops are paired by seed. Their spread is taken to be the same share of both drops, and is pooled: the noise of a
    run shrinks where the curve gets flat.
    """
    seeds = len(above)
    if seeds < 2 or len(below) != seeds:
        return None
    means = statistics.fmean(above), statistics.fmean(below)
    if min(means) <= 0:
        return None
    shares = [
        statistics.variance(drops) / mean**2
        for drops, mean in zip((above, below), means, strict=True)
    ]
    return Scaling(Law(low, high, *means), math.sqrt(statistics.fmean(shares)), seeds)
