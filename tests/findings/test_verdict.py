"""Verdicts: what differences over seeds support, and how often they are wrong."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.findings.verdict import judge
from sweeps.stats import (
    ALPHA,
    POWER,
    Effect,
    Noise,
    effect,
    holm,
    pooled_noise,
    seeds_to_settle,
)

UNIT = "nats per token"
NOISE = Noise(0.01, 0.006, 0.02, 12)
SEVERAL = st.lists(st.floats(-1, 1), min_size=3, max_size=9).filter(
    lambda values: statistics.pstdev(values) > 1e-6
)


@given(mine=SEVERAL)
def test_an_effect_is_the_paired_t_test_and_its_interval(mine: list[float]) -> None:
    found, other = effect(mine), stats.ttest_1samp(mine, 0.0)
    interval = other.confidence_interval(0.95)
    assert found.p == pytest.approx(float(other.pvalue), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_difference_has_no_interval() -> None:
    assert effect([0.5]) == Effect(1, 0.5, None, None, None, None)


@pytest.mark.parametrize(("same", "p"), [(0.25, 0.0), (0.0, 1.0)])
def test_equal_differences_are_certain(same: float, p: float) -> None:
    assert effect([same] * 3) == Effect(3, same, 0.0, same, same, p)


def test_holm_multiplies_the_smallest_most_and_keeps_the_order() -> None:
    """Three of four; the third can't be below the second."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_no_stricter_than_bonferroni_and_never_below_the_p_value(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= min(1.0, len(ps) * p) + 1e-15 for p, q in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@pytest.mark.parametrize(("mean", "sd"), [(0.01, 0.01), (0.01, 0.03), (0.5, 0.1)])
def test_the_seeds_that_settle_a_difference_are_the_fewest_with_that_power(
    mean: float, sd: float
) -> None:
    needed = seeds_to_settle(mean, sd)
    assert needed is not None

    def power(n: int) -> float:
        critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
        return float(stats.nct.sf(critical, n - 1, mean / sd * math.sqrt(n)))

    assert power(needed) >= POWER > power(needed - 1)


@pytest.mark.parametrize(("mean", "seeds"), [(1.0, 10), (0.5, 34), (0.2, 199)])
def test_the_seeds_that_settle_a_difference_are_those_of_the_tables(
    mean: float, seeds: int
) -> None:
    """A paired t test at 5% with a power of 80%, by its effect in standard deviations."""
    assert seeds_to_settle(mean, 1.0) == seeds


def test_a_difference_that_no_number_of_seeds_settles() -> None:
    assert (seeds_to_settle(0.0, 1.0), seeds_to_settle(1e-6, 1.0)) == (None, None)


@pytest.mark.parametrize(
    ("differences", "p_holm", "kind", "words"),
    [
        ([-0.030, -0.032, -0.031], 0.01, "better", "better by 0.0310 nats per token"),
        ([0.030, 0.032, 0.031], 0.01, "worse", "worse by 0.0310 nats per token"),
        ([0.001, -0.001, 0.0005], 0.9, "no difference", "no difference larger than 0.00"),
        ([0.03, -0.01, 0.02], 0.4, "no conclusion", "more seeds would settle"),
        ([0.030, 0.032, 0.031], 0.2, "no conclusion", "1 more seed would settle"),
        ([0.03, -0.03, 0.0], 1.0, "no conclusion", "more than 1000 seeds"),
        ([0.03], None, "no conclusion", "one seed has no interval"),
    ],
)
def test_the_four_verdicts(
    differences: list[float], p_holm: float | None, kind: str, words: str
) -> None:
    found = judge(effect(differences), p_holm, NOISE, UNIT)
    assert (found.kind, words in found.words) == (kind, True), found.words


@pytest.mark.parametrize(("end", "kind"), [(0.0199, "no difference"), (0.0201, "no conclusion")])
def test_a_difference_within_twice_the_noise_is_none(end: float, kind: str) -> None:
    """The noise is 0.01."""
    assert judge(Effect(9, 0.0, 0.001, -end, end, 1.0), 1.0, NOISE, UNIT).kind == kind


def test_without_a_noise_there_is_no_verdict_of_no_difference() -> None:
    assert judge(effect([1e-5, -1e-5, 2e-5]), 0.9, None, UNIT).kind == "no conclusion"


def test_the_noise_is_pooled_over_groups_by_their_degrees_of_freedom() -> None:
    found = pooled_noise([[1.0, 3.0], [5.0], [2.0, 4.0, 6.0]])
    assert found is not None
    assert found.freedom == 3 and found.sd == pytest.approx(math.sqrt((2 + 2 * 4) / 3))
    assert found.low < found.sd < found.high


def test_one_run_a_group_has_no_noise() -> None:
    assert pooled_noise([[1.0], [2.0]]) is None


def test_equal_arms_are_called_different_no_more_often_than_said() -> None:
    """Three arms of noise alone against a baseline of noise, 400 times: any verdict of better or
    worse is false. 5% of 400 are 20; 32 are passed by chance once in 200 times."""
    draw = random.Random(0)
    false = 0
    for _ in range(400):
        base = [draw.gauss(4, 0.01) for _ in range(3)]
        arms = [effect([draw.gauss(4, 0.01) - b for b in base]) for _ in range(3)]
        adjusted = holm([arm.p for arm in arms if arm.p is not None])
        false += min(adjusted) < ALPHA
    assert false <= 32
