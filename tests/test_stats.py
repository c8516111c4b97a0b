"""Intervals, tests and the noise are those of the textbooks, and no more often wrong than said."""

import math
import random
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sweeps import stats as stats_module
from sweeps.stats import (
    ALPHA,
    POWER,
    RATIO,
    Decision,
    Effect,
    Fate,
    Outlook,
    Rest,
    Seen,
    alike,
    boundaries,
    decide,
    effect,
    effect_at_look,
    half_interval,
    holm,
    look,
    outlook,
    pairing,
    pooled,
    pooled_noise,
    possible,
    read_again,
    rest,
    scatters_more,
    seeds_to_bound,
    seeds_to_settle,
    spent,
    t_quantile,
    widened,
)

SEVERAL = st.lists(st.floats(-1, 1), min_size=3, max_size=9).filter(
    lambda values: statistics.pstdev(values) > 1e-6
)


@given(mine=SEVERAL)
def test_an_effect_is_the_paired_t_test_and_its_interval(mine: list[float]) -> None:
    found, other = effect(mine), stats.ttest_1samp(mine, 0.0)
    interval = other.confidence_interval(0.95)
    assert found.p == pytest.approx(float(other.pvalue), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@given(st.integers(1, 1000))
def test_a_t_interval_reaches_as_far_as_the_quantile_of_scipy_stats(freedom: int) -> None:
    assert t_quantile(freedom) == float(stats.t.ppf(0.975, freedom))


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


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.03), (0.01, 0.03), (0.0, 0.2)])
def test_the_seeds_that_bound_a_difference_are_the_fewest_within_the_margin(
    mean: float, sd: float
) -> None:
    needed = seeds_to_bound(mean, sd, 0.02)
    assert needed is not None

    def end(n: int) -> float:
        return mean + float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n)

    assert end(needed) <= 0.02 < end(needed - 1)


@pytest.mark.parametrize("rest_freedom", [4, 20])
@pytest.mark.parametrize("sd", [0.016, 0.03])
def test_the_seeds_that_bound_a_difference_follow_the_pooled_test(
    rest_freedom: int, sd: float
) -> None:
    needed = seeds_to_bound(0.0, sd, 0.02, rest_freedom)
    assert needed is not None

    def end(n: int) -> float:
        return boundaries([n], [n], rests=[rest_freedom])[0] * sd / math.sqrt(n)

    assert end(needed) <= 0.02 < end(needed - 2)


def test_the_seeds_that_settle_a_difference_find_it_by_the_pooled_test() -> None:
    needed = seeds_to_settle(1.5, 1.0, ALPHA / 8, 20)
    assert needed is not None
    draw = np.random.default_rng(5)
    differences = 1.5 + draw.standard_normal((4000, needed))
    variance = pooled(needed, differences.var(1, ddof=1), draw.chisquare(20, 4000) / 20)
    bound = boundaries([needed], [needed], ALPHA / 8, rests=[20])[0]
    found = np.abs(differences.mean(1)) > bound * np.sqrt(variance / needed)
    assert POWER < found.mean() < POWER + 0.12


@pytest.mark.parametrize(("mean", "sd"), [(0.021, 0.0), (0.0, 1.0)])
def test_a_difference_that_no_number_of_seeds_bounds(mean: float, sd: float) -> None:
    assert seeds_to_bound(mean, sd, 0.02) is None


def test_a_difference_that_no_number_of_seeds_settles() -> None:
    assert (seeds_to_settle(0.0, 1.0), seeds_to_settle(1e-6, 1.0)) == (None, None)


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


def test_half_an_interval_is_t_times_the_standard_error() -> None:
    """Of 0 and 2: t(0.975, 1) is 12.706, and the standard error 1."""
    assert half_interval([0.0, 2.0]) == pytest.approx(12.706, abs=1e-3)


def test_the_interval_of_the_noise_is_that_of_chi_square() -> None:
    """One degree of freedom: chi square is 5.024 and 0.000982 at its ends."""
    noise = pooled_noise([[0.0, 1.0]])
    assert noise is not None
    low, high = math.sqrt(0.5 / 5.0239), math.sqrt(0.5 / 0.00098207)
    assert (noise.low, noise.high) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize(("times", "more"), [(4.3, False), (4.4, True)])
def test_more_scatter_is_told_by_an_f_test(times: float, more: bool) -> None:
    """F(0.95; 2, 2) is 19.0, a ratio of 4.36 between standard deviations."""
    one, other = pooled_noise([[0.0, 1.0, 2.0]]), pooled_noise([[0.0, times, 2 * times]])
    assert one is not None and other is not None
    assert scatters_more(other, one) is more


def test_groups_that_scatter_more_than_the_base_are_left_out() -> None:
    base, like, wild = [0.0, 1.0, 2.0], [5.0, 6.0, 7.0], [0.0, 90.0, 200.0]
    assert alike(base, [like, wild]) == [base, like]


LOOKS, ENDS = (3, 5, 8, 12), (12,)


def t_statistics(differences: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", n: int) -> Any:
    """The absolute paired t statistics of the first n differences of each study."""
    first = differences[:, :n]
    return np.abs(first.mean(1)) / first.std(1, ddof=1) * math.sqrt(n)


@pytest.fixture(scope="module")
def crossings() -> Any:
    """Whether each of 200,000 studies without a difference has exceeded a boundary, by the look."""
    draw = np.random.default_rng(1)
    differences = draw.normal(0, 0.02, (200_000, max(LOOKS)))
    found = zip(LOOKS, boundaries(LOOKS, ENDS), strict=True)
    exceeds = np.array([t_statistics(differences, n) > bound for n, bound in found])
    return np.logical_or.accumulate(exceeds)


@pytest.mark.parametrize("position", range(len(LOOKS)))
def test_studies_without_a_difference_spend_their_level_look_by_look(
    crossings: Any, position: int
) -> None:
    """Within four standard errors of what is to be spent by then, which is 5% at the last look."""
    expected = ALPHA * spent(LOOKS[position], ENDS)
    error = math.sqrt(expected * (1 - expected) / crossings.shape[1])
    assert crossings[position].mean() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_one_look_at_the_end_is_the_t_test(n: int) -> None:
    assert boundaries([n], [n]) == pytest.approx((t_quantile(n - 1),), rel=1e-12)


@given(mine=SEVERAL)
def test_an_effect_at_the_only_look_is_the_effect(mine: list[float]) -> None:
    found, other = effect_at_look(mine, [len(mine)], [len(mine)]), effect(mine)
    assert (found.p, found.low, found.high) == pytest.approx((other.p, other.low, other.high))


def test_a_look_depends_on_those_before_it_alone() -> None:
    assert boundaries(LOOKS[:2], ENDS) == boundaries(LOOKS, ENDS)[:2]


def test_boundaries_are_the_same_at_every_call() -> None:
    before = boundaries(LOOKS, ENDS)
    stats_module._statistics.cache_clear()
    stats_module._boundaries.cache_clear()
    assert boundaries(LOOKS, ENDS) == before


def test_the_level_is_spent_by_pococks_function_of_lan_and_demets() -> None:
    """ln(1 + (e - 1) / 4) is 0.3574; a study ends with its whole level."""
    assert spent(3, [12]) == pytest.approx(0.3574, abs=1e-4)
    assert spent(12, [12]) == 1.0


def test_seeds_that_are_added_after_the_end_spend_the_level_again() -> None:
    assert (spent(12, [12, 20]), spent(20, [12, 20])) == (1.0, 2.0)
    assert spent(16, [12, 20]) == 1 + spent(4, [8])


def test_after_an_extension_a_sequential_p_value_is_that_of_all_its_looks() -> None:
    bound = boundaries([3, 5], [3, 5])[-1]
    found = effect_at_look(scaled(5, 1.001 * bound), [3, 5], [3, 5]).p
    assert found == pytest.approx(ALPHA, rel=0.01)


def test_an_extension_changes_no_boundary_before_it() -> None:
    assert boundaries([3, 5], [5, 9]) == boundaries([3, 5], [5])


def test_a_difference_of_several_looks_needs_a_smaller_p_value_than_one() -> None:
    """The p-values of the plain t tests at the boundaries are all below 5%, and their sum is above it."""
    at = zip(LOOKS, boundaries(LOOKS, ENDS), strict=True)
    plain = [float(2 * stats.t.sf(bound, n - 1)) for n, bound in at]
    assert max(plain) < ALPHA < sum(plain)


def scaled(n: int, statistic: float) -> list[float]:
    """Differences whose t statistic is this."""
    shape = np.arange(n) - (n - 1) / 2
    return list(shape + statistic * shape.std(ddof=1) / math.sqrt(n))


@pytest.mark.parametrize("looks", [(3,), (3, 5), (3, 5, 8)])
@pytest.mark.parametrize(("times", "is_below"), [(1.0001, True), (0.9999, False)])
def test_a_sequential_p_value_is_below_the_level_where_the_boundary_is_exceeded(
    looks: tuple[int, ...], times: float, is_below: bool
) -> None:
    bound = boundaries(looks, ENDS)[-1]
    found = effect_at_look(scaled(looks[-1], times * bound), looks, ENDS)
    assert found.p is not None and (found.p < ALPHA) is is_below


@pytest.mark.parametrize("level", [0.5, 0.01, ALPHA / 8, 3e-5, 1e-7])
def test_a_sequential_p_value_is_the_level_whose_boundary_is_met(level: float) -> None:
    bound = boundaries(LOOKS, ENDS, level)[-1]
    found = effect_at_look(scaled(12, bound), LOOKS, ENDS).p
    assert found == pytest.approx(level, rel=5e-3)


def test_a_sequential_p_value_never_rises() -> None:
    assert effect_at_look([1.0, -1.0, 0.5], [2, 3], [3], before=0.02).p == 0.02


def test_where_no_level_would_exceed_the_boundary_the_p_value_is_1() -> None:
    assert effect_at_look([1.0, -1.0, 0.0], LOOKS[:1], ENDS).p == 1.0


def test_a_repeated_interval_excludes_0_just_where_the_boundary_is_exceeded() -> None:
    bound = boundaries(LOOKS[:2], ENDS)[-1]
    found = [effect_at_look(scaled(5, x * bound), LOOKS[:2], ENDS).low for x in (0.999, 1.001)]
    assert found[0] is not None and found[1] is not None
    assert found[0] < 0 < found[1]


@pytest.mark.parametrize(
    ("interval", "p", "margin", "decision"),
    [
        ((-3.0, -1.0), 0.04, 9.0, "better"),
        ((1.0, 3.0), 0.04, 9.0, "worse"),
        ((-1.0, 3.0), 0.06, 3.0, "no difference"),
        ((-1.0, 3.0), 0.06, 2.9, "no conclusion"),
        ((-1.0, 3.0), 0.06, None, "no conclusion"),
        ((-1.0, 3.0), None, 3.0, "no conclusion"),
    ],
)
def test_an_effect_decides_by_its_p_value_and_else_by_its_interval(
    interval: tuple[float, float], p: float | None, margin: float | None, decision: str
) -> None:
    low, high = interval
    assert decide(Effect(3, (low + high) / 2, 1.0, low, high, p), p, margin) == decision


BASE = {0: 3.0, 1: 3.1, 2: 3.2, 3: 3.3, 4: 3.4}
WORSE = {seed: loss + 0.1 + 0.001 * seed for seed, loss in BASE.items()}
NEAR = {seed: loss + 0.02 * (-1) ** seed for seed, loss in BASE.items()}


def first(losses: dict[int, float], n: int) -> dict[int, float]:
    """The losses of the first seeds."""
    return {seed: losses[seed] for seed in range(n)}


def test_a_look_settles_an_arm_whose_boundary_is_exceeded() -> None:
    seen = look(BASE, {"a": first(WORSE, 3), "b": first(NEAR, 3)}, {}, ENDS, ["a", "b"], None)
    assert {name: one.decision for name, one in seen.items()} == {
        "a": "worse",
        "b": "no conclusion",
    }


def test_a_settled_arm_stays_as_it_was_settled() -> None:
    before = look(BASE, {"a": first(WORSE, 3)}, {}, ENDS, ["a"], None)
    assert look(BASE, {"a": NEAR}, before, ENDS, ["a"], None) == before


def test_what_was_seen_of_an_arm_without_losses_is_nothing() -> None:
    assert look(BASE, {"a": {}}, {}, ENDS, ["a"], None) == {"a": Seen((), None, 1.0)}


def test_an_open_arm_is_tested_again_with_more_seeds() -> None:
    before = look(BASE, {"b": first(NEAR, 3)}, {}, ENDS, ["b"], None)
    seen = look(BASE, {"b": NEAR}, before, ENDS, ["b"], 1.0)["b"]
    assert (seen.looks, seen.decision) == ((3, 5), "no difference")


def test_without_new_seeds_nothing_is_spent() -> None:
    before = look(BASE, {"b": first(NEAR, 3)}, {}, ENDS, ["b"], None)
    assert look(BASE, {"b": first(NEAR, 3)}, before, ENDS, ["b"], None) == before


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_seeds_are_no_look(n: int) -> None:
    seen = look(BASE, {"a": first(WORSE, n)}, {}, ENDS, ["a"], 9.0)["a"]
    assert (seen.looks, seen.decision) == ((), "no conclusion")


def test_registered_arms_are_corrected_for_each_other_also_without_losses() -> None:
    one, two = (look(BASE, {"a": WORSE}, {}, ENDS, names, None)["a"] for names in ("a", "ab"))
    assert one.p_holm is not None and two.p_holm == pytest.approx(2 * one.p_holm)


def test_an_arm_that_is_added_later_changes_no_registered_one() -> None:
    alone = look(BASE, {"a": WORSE}, {}, ENDS, ["a"], None)["a"]
    beside = look(BASE, {"a": WORSE, "late": NEAR}, {}, ENDS, ["a"], None)["a"]
    assert beside == alone


def test_an_arm_that_is_added_later_is_corrected_for_all() -> None:
    late = look(BASE, {"a": NEAR, "late": WORSE}, {}, ENDS, ["a"], None)["late"]
    assert late.effect is not None and late.effect.p is not None
    assert late.p_holm == pytest.approx(2 * late.effect.p)


def test_arms_with_the_same_losses_are_one_test() -> None:
    one = look(BASE, {"a": WORSE}, {}, ENDS, ["a"], None)["a"]
    assert look(BASE, {"a": WORSE, "b": WORSE}, {}, ENDS, ["a", "b"], None)["a"] == one


def test_an_arm_that_changes_nothing_is_no_test() -> None:
    one = look(BASE, {"a": WORSE}, {}, ENDS, ["a"], None)["a"]
    seen = look(BASE, {"a": WORSE, "void": BASE}, {}, ENDS, ["a", "void"], 1.0)
    assert (seen["a"], seen["void"].decision) == (one, "no difference")


def test_an_arm_that_can_not_be_what_it_seems_takes_the_last_step_of_the_correction() -> None:
    arms = {"a": WORSE, "b": NEAR}
    fair = look(BASE, arms, {}, ENDS, ["a", "b"], None)
    unfair = look(BASE, arms, {}, ENDS, ["a", "b"], 9.0, can_be={"a": ["better", "no conclusion"]})
    assert (unfair["a"].decision, unfair["a"].p_holm) == ("no conclusion", 1.0)
    assert fair["b"].p_holm is not None
    assert unfair["b"].p_holm == min(1.0, 2 * fair["b"].effect.p)  # type: ignore[union-attr, operator]


def test_where_no_level_is_left_nothing_is_a_difference() -> None:
    first, after = boundaries([3, 5], [3])
    assert (math.isfinite(first), after) == (True, math.inf)


WHOLE, LOST, GONE = Fate(3, 0, 3), Fate(3, 1, 2), Fate(3, 3, 0)
BEGUN, NOTHING = Fate(3, 0, 2), Fate(0, 0, 0)
ALL: tuple[Decision, ...] = ("better", "worse", "no difference", "no conclusion")


@pytest.mark.parametrize(
    ("own", "base", "found"),
    [
        (WHOLE, WHOLE, ALL),
        (BEGUN, WHOLE, ALL),
        (NOTHING, NOTHING, ALL),
        (LOST, WHOLE, ("no conclusion", "worse")),
        (WHOLE, LOST, ("no conclusion", "better")),
        (LOST, LOST, ("no conclusion",)),
        (GONE, WHOLE, ("worse",)),
        (GONE, LOST, ("worse",)),
        (GONE, GONE, ("no conclusion",)),
        (WHOLE, GONE, ("better",)),
        (BEGUN, GONE, ("no conclusion",)),
        (LOST, GONE, ("no conclusion",)),
        (NOTHING, GONE, ("no conclusion",)),
    ],
)
def test_what_an_arm_can_be_follows_from_what_became_of_its_runs(
    own: Fate, base: Fate, found: tuple[str, ...]
) -> None:
    assert possible(own, base) == found


def test_a_fate_counts_the_runs_that_diverged_and_finished() -> None:
    assert Fate.of(["finished", "diverged", "failed", "finished"]) == Fate(4, 1, 2)


def test_a_decision_that_is_certain_needs_no_losses() -> None:
    found = look({0: 1.0}, {"a": {}}, {}, [3], ["a"], None, (), {"a": ["worse"]})
    assert found["a"].decision == "worse"


@pytest.mark.parametrize(
    ("decision", "margin", "again"),
    [
        ("no conclusion", 0.3, "no difference"),
        ("no difference", 0.1, "no conclusion"),
        ("no conclusion", None, "no conclusion"),
        ("better", 0.3, "better"),
        ("worse", 0.3, "worse"),
    ],
)
def test_another_margin_is_read_from_the_same_interval(
    decision: Any, margin: float | None, again: str
) -> None:
    seen = Seen((3,), Effect(3, 0.0, 0.1, -0.2, 0.2, 0.5), 0.5, decision)
    assert read_again(seen, margin) == again


def spread(mean: float, sd: float = 0.01) -> Effect:
    """The effect of three differences."""
    return effect([mean - sd, mean, mean + sd])


def foreseen(mean: float, margin: float | None = 0.014) -> Outlook:
    found = outlook(spread(mean), [3], [5, 8, 12], [12], ALPHA, margin)
    assert found is not None
    return found


def test_the_larger_the_difference_the_fewer_seeds_settle_it() -> None:
    assert [foreseen(mean).most for mean in (0.1, 0.02, 0.01)] == [5, 12, None]


def test_the_seeds_that_settle_an_arm_are_those_of_a_look() -> None:
    found = foreseen(0.02)
    assert (found.fewest, found.most) == (5, 12)


def test_without_a_margin_only_a_difference_settles_an_arm() -> None:
    assert foreseen(0.0, None).chance < 0.2 < 0.5 < foreseen(0.0).chance


def test_a_smaller_level_settles_less() -> None:
    (one, several) = (
        outlook(spread(0.02), [3], [5, 8, 12], [12], level, None) for level in (ALPHA, ALPHA / 8)
    )
    assert one is not None and several is not None and several.chance < one.chance


@pytest.mark.parametrize("found", [effect([0.1]), effect([0.1, 0.1, 0.1])])
def test_without_a_scatter_nothing_is_foreseen(found: Effect) -> None:
    assert outlook(found, [3], [5], [5], ALPHA, None) is None


def test_without_a_look_that_is_left_nothing_is_foreseen() -> None:
    assert outlook(spread(0.1), [3], [], [3], ALPHA, None) is None


def test_what_is_foreseen_is_as_likely_as_said() -> None:
    """Of studies whose truth is drawn as the outlook draws it, so many are settled by their last look."""
    draw, times, settled = np.random.default_rng(5), 1000, 0
    foreseen_ = outlook(spread(0.02), [3], [5], [5], ALPHA, None)
    bound = boundaries([3, 5], [5])[-1]
    sd = 0.01 * np.sqrt(2 / draw.chisquare(2, times))
    truth = 0.02 + sd / math.sqrt(3) * draw.standard_normal(times)
    more = truth[:, None] + sd[:, None] * draw.standard_normal((times, 2))
    every = np.hstack([np.tile([0.01, 0.02, 0.03], (times, 1)), more])
    statistic = every.mean(1) / (every.std(1, ddof=1) / math.sqrt(5))
    settled = int((np.abs(statistic) > bound).sum())
    assert foreseen_ is not None
    assert settled / times == pytest.approx(foreseen_.chance, abs=0.06)


@given(
    mine=st.lists(st.floats(-1, 1), min_size=5, max_size=5, unique=True),
    yours=st.lists(st.floats(-1, 1), min_size=5, max_size=5, unique=True),
)
def test_pairing_is_the_correlation_of_scipy_stats(mine: list[float], yours: list[float]) -> None:
    assume(min(map(statistics.stdev, (mine, yours))) > 1e-3)
    found, other = pairing(mine, yours), stats.pearsonr(mine, yours)
    assume(found is not None and abs(other.statistic) < 0.999)
    assert found is not None
    interval = other.confidence_interval(0.95)
    assert (found.correlation, found.low, found.high) == pytest.approx(
        (other.statistic, interval.low, interval.high), abs=1e-6
    )


def test_pairing_saves_the_variance_that_both_share() -> None:
    base = [0.0, 1.0, 2.0, 3.0]
    found = pairing([0.1, 0.9, 2.1, 2.9], base)
    assert found is not None
    differences = [0.1, -0.1, 0.1, -0.1]
    alone = statistics.variance(base) + statistics.variance([0.1, 0.9, 2.1, 2.9])
    assert found.times == pytest.approx(alone / statistics.variance(differences))


@pytest.mark.parametrize(
    ("own", "base"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
    ],
    ids=["three seeds", "no spread", "equal"],
)
def test_what_pairing_bought_is_not_always_known(own: list[float], base: list[float]) -> None:
    assert pairing(own, base) is None


@pytest.mark.parametrize(("found", "of"), [(0, 6), (1, 6), (3, 7), (6, 6)])
def test_the_interval_of_a_share_is_the_exact_one(found: int, of: int) -> None:
    low, high = stats_module.share_interval(found, of)
    exact = stats.binomtest(found, of).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))


def test_an_interval_is_widened_by_as_much_as_another_one_is_wider() -> None:
    found, like = effect([0.1, 0.2, 0.4]), effect([1.0, 2.0, 3.0, 5.0])
    assert found.high is not None and like.low is not None and like.high is not None
    doubled = replace(
        like, low=like.mean - 2 * (like.mean - like.low), high=2 * like.high - like.mean
    )
    high = widened(found, doubled).high
    assert high is not None
    assert high - found.mean == pytest.approx(2 * (found.high - found.mean))


def test_an_interval_is_not_widened_by_one_that_is_not_known() -> None:
    like = Effect(3, 0.1, 0.01, None, None, None)
    found = widened(effect([0.1, 0.2, 0.4]), like)
    assert (found.low, found.high) == (None, None)


RESTS = (14, 28, 49, 77)  # degrees of freedom of the rest of a study of eight arms


def noisy_studies(ratio: float, number: int = 100_000) -> Any:
    """Paired t statistics with a pooled variance at each look, of arms without a difference that have so many times
    the variance of the rest."""
    draw = np.random.default_rng(2)
    differences = math.sqrt(ratio) * draw.normal(size=(number, max(LOOKS)))
    found, known, shared = [], 0, np.zeros(number)
    for n, freedom in zip(LOOKS, RESTS, strict=True):
        shared, known = shared + draw.chisquare(freedom - known, number), freedom
        variance = pooled(n, differences[:, :n].var(1, ddof=1), shared / freedom)
        found.append(np.abs(differences[:, :n].mean(1)) / np.sqrt(variance / n))
    return np.array(found)


@pytest.mark.parametrize("position", range(len(LOOKS)))
def test_pooled_studies_spend_their_level_at_the_largest_ratio_of_variances(position: int) -> None:
    bounds = np.array(boundaries(LOOKS, ENDS, rests=RESTS))[:, None]
    ever = (noisy_studies(RATIO) > bounds)[: position + 1].any(0).mean()
    expected = ALPHA * spent(LOOKS[position], ENDS)
    assert ever == pytest.approx(expected, abs=5 * math.sqrt(expected / 100_000))


def test_pooled_studies_spend_less_where_all_variances_are_equal() -> None:
    bounds = np.array(boundaries(LOOKS, ENDS, rests=RESTS))[:, None]
    assert (noisy_studies(1.0) > bounds).any(0).mean() < ALPHA / 2


def test_boundaries_of_looks_that_pooled_nothing_are_the_own_ones() -> None:
    assert boundaries(LOOKS, ENDS, rests=(0, 0, 0, 0)) == boundaries(LOOKS, ENDS)


def test_a_pooled_look_depends_on_those_before_it_alone() -> None:
    two = boundaries(LOOKS[:2], ENDS, rests=RESTS[:2])
    assert two == boundaries(LOOKS, ENDS, rests=RESTS)[:2]


def losses_of(arms: int, seeds: int) -> list[list[float]]:
    """Losses of a baseline and arms."""
    return np.random.default_rng(3).normal(size=(arms + 1, seeds)).tolist()


def test_the_rest_is_the_residual_of_the_two_way_layout_less_the_own_part() -> None:
    """By least squares, with arms of 5, 5, 3 and 2 seeds."""
    base, own, *others = losses_of(4, 5)
    others = [others[0], others[1][:3], others[2][:2]]
    layout = [(a, s) for a, one in enumerate((base, own, *others)) for s in range(len(one))]
    design = np.array([np.eye(10)[a] + np.eye(10)[5 + s] for a, s in layout])
    losses = np.array([loss for one in (base, own, *others) for loss in one])
    fitted = design @ np.linalg.lstsq(design, losses, rcond=None)[0]
    mine = np.var([a - b for a, b in zip(own, base, strict=True)], ddof=1) * 4 / 2
    found = rest(base, own, others)
    assert found is not None and found.freedom == 4 + 2 + 1
    assert found.variance * 7 / 2 == pytest.approx(float(((losses - fitted) ** 2).sum() - mine))


def test_the_rest_has_no_part_of_the_effects_of_arms_and_seeds() -> None:
    base, own, *others = losses_of(3, 4)
    moved = [[loss + 5 * a + s for s, loss in enumerate(one)] for a, one in enumerate(others, 2)]
    ours = [[loss + s + gap for s, loss in enumerate(one)] for gap, one in ((0, base), (5, own))]
    found, before = rest(ours[0], ours[1], moved), rest(base, own, others)
    assert found is not None and before is not None
    assert found.variance == pytest.approx(before.variance)


def test_a_single_arm_has_no_rest() -> None:
    base, own = losses_of(1, 5)
    assert rest(base, own, []) is None


def study_of(losses: list[list[float]]) -> tuple[dict[int, float], dict[str, dict[int, float]]]:
    """The losses by seed of a baseline and of arms."""
    base, *arms = (dict(enumerate(one)) for one in losses)
    return base, {str(number): own for number, own in enumerate(arms)}


def test_a_pooled_interval_is_that_of_the_moderated_variance() -> None:
    base, arms = study_of(losses_of(3, 3))
    seen = look(base, arms, {}, ENDS, list(arms), None, variance="pooled")["1"]
    own, *others = ([*arms[name].values()] for name in ("1", "0", "2"))
    shared = rest([*base.values()], own, others)
    assert seen.effect is not None and seen.effect.sd is not None and shared is not None
    error = math.sqrt((2 * seen.effect.sd**2 + 2 * shared.variance) / 4 / 3)
    assert seen.rests == (4,)
    assert seen.effect.high == pytest.approx(
        seen.effect.mean + error * boundaries([3], ENDS, rests=[4])[0]
    )


def test_an_arm_that_lost_a_run_is_not_pooled() -> None:
    base, arms = study_of(losses_of(3, 5))
    del arms["0"][2]
    found = look(base, arms, {}, ENDS, list(arms), None, variance="pooled")
    assert {name: one.rests for name, one in found.items()} == {"0": (), "1": (4,), "2": (4,)}


def test_arms_with_the_losses_of_another_or_of_the_baseline_add_nothing() -> None:
    base, arms = study_of(losses_of(3, 3))
    more = arms | {"same": arms["0"], "void": base}
    found, other = (
        look(base, one, {}, ENDS, list(one), None, variance="pooled")["1"] for one in (arms, more)
    )
    assert found.effect == other.effect


@pytest.mark.parametrize(("times", "is_below"), [(1.001, True), (0.999, False)])
def test_a_pooled_p_value_is_below_the_level_where_the_boundary_is_exceeded(
    times: float, is_below: bool
) -> None:
    shared = Rest(14, 1.0)
    bound = boundaries([3], ENDS, rests=[14])[0]
    differences = [times * bound * math.sqrt(0.5 / 3)] * 3
    found = effect_at_look(differences, [3], ENDS, rests=[14], shared=shared)
    assert found.p is not None and (found.p < ALPHA) is is_below


def test_an_outlook_of_a_pooled_arm_goes_on_with_the_same_rest() -> None:
    """What is pooled settles three seeds that scatter, and whose difference is clear beside the rest."""
    shared = Rest(14, 0.01**2)
    differences = [0.05, 0.06, 0.07]
    together = effect_at_look(differences, [3], [12], rests=[14], shared=shared)
    own = effect_at_look(differences, [3], [12])
    with_rest = outlook(together, [3], [5], [12], ALPHA / 8, None, [14])
    alone = outlook(own, [3], [5], [12], ALPHA / 8, None)
    assert with_rest is not None and alone is not None
    assert with_rest.chance > alone.chance


def test_an_arm_whose_failed_run_was_made_again_is_pooled_from_then_on() -> None:
    """At the look before, it had a gap among the seeds, and the rest of the study was not beside it."""
    base = {0: 3.0, 1: 3.02, 2: 2.99}
    losses = {
        "late": {0: 3.05, 1: 3.0, 2: 3.0},
        "other": {0: 3.01, 1: 3.05, 2: 2.98},
        "third": {0: 3.1, 1: 3.09, 2: 3.12},
    }
    gap = losses | {"late": {0: 3.05, 2: 3.0}}
    first = stats_module.look(base, gap, {}, [3, 5], list(losses), None, variance="pooled")
    assert (first["late"].looks, first["late"].rests) == ((2,), ())
    second = stats_module.look(base, losses, first, [3, 5], list(losses), None, variance="pooled")
    assert second["late"].looks == (2, 3)
    assert second["late"].rests[0] == 0 < second["late"].rests[1]
