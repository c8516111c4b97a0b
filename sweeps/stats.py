"""Intervals and tests as pure functions of numbers.

scipy is imported where it is called. The distributions are those of `scipy.special`, which loads in a
third of the time that `scipy.stats` takes and gives the same numbers, bit for bit.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
# With which the seeds of `seeds_to_settle` find the difference: the convention since Cohen (1988), who
# held that missing a difference is a quarter as bad as seeing one that is not there (20% against 5%).
POWER = 0.8
MOST_SEEDS = 1000


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


def t_quantile(freedom: int) -> float:
    """How many standard errors a 95% t interval reaches on either side (Student, 1908)."""
    from scipy import special

    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95% t interval of the mean of two or more values."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return t_quantile(len(values) - 1) * error


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


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for multiple tests, in the given order (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def seeds_to_settle(mean: float, sd: float, alpha: float = ALPHA) -> int | None:
    """The total number of seeds with which a paired t test at this level finds a difference of this size
    with a probability of `POWER` (noncentral t); None if `MOST_SEEDS` are not enough."""
    from scipy import stats

    def power(n: int) -> float:
        critical = stats.t.ppf(1 - alpha / 2, n - 1)
        shift = abs(mean) / sd * math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1, shift))

    if mean == 0 or power(MOST_SEEDS) < POWER:
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


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
