"""The law of a loss by its tokens, and what an arm is worth by it."""

import math
import random

import pytest

from sweeps.stats import ALPHA, Law, Scaling, effect, scaling

HOFFMANN = {-0.5, 0.3, 0.7, 1.5}  # exponents


def loss(tokens: float, exponent: float = 0.4) -> float:
    """A loss that falls with tokens as E + A D^-b."""
    return 3.0 + math.copysign(1.5, exponent) * tokens**-exponent


def law(low: float = 0.5, high: float = 2.0, exponent: float = 0.4) -> Law:
    """The law through such losses."""
    middle = loss(1.0, exponent)
    return Law(low, high, loss(low, exponent) - middle, middle - loss(high, exponent))


@pytest.mark.parametrize("exponent", sorted(HOFFMANN))
@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0.25, 3.0), (0.75, 8.0)])
def test_the_law_finds_the_exponent_of_the_losses(low: float, high: float, exponent: float) -> None:
    assert law(low, high, exponent).exponent == pytest.approx(exponent, rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.61, 0.9, 1.0, 1.37, 1.99, 2.0])
def test_the_law_is_inverted_exactly(share: float) -> None:
    assert law().times(law().difference(share)) == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("share", [0.6, 1.0, 1.3, 1.8])
def test_between_the_horizons_the_law_is_that_of_the_losses(share: float) -> None:
    assert law().difference(share) == pytest.approx(loss(share) - loss(1.0), abs=1e-9)


@pytest.mark.parametrize(("above", "below"), [(0.6, 0.4), (0.4, 0.4), (0.3, 0.5), (1e-6, 0.5)])
def test_an_arm_with_the_baselines_loss_is_worth_its_tokens(above: float, below: float) -> None:
    assert Law(0.5, 2.0, above, below).times(0.0) == 1.0


def test_equal_drops_over_equal_ratios_are_a_law_of_the_logarithm() -> None:
    assert Law(0.5, 2.0, 0.4, 0.4).times(-0.2) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("difference", "bound"), [(9.0, 0.5), (0.7, 0.5), (-0.7, 2.0), (-9.0, 2.0)]
)
def test_beyond_the_horizons_the_law_gives_the_horizon(difference: float, bound: float) -> None:
    assert law().times(difference) == bound


@pytest.mark.parametrize(
    ("above", "below"),
    [([0.5], [0.4]), ([], []), ([0.5, -0.7], [0.4, 0.4]), ([0.5, 0.5], [0.1, -0.1])],
    ids=["one seed", "none", "it rises at first", "it rises later"],
)
def test_without_two_seeds_or_a_falling_loss_nothing_is_known(
    above: list[float], below: list[float]
) -> None:
    assert scaling(0.5, 2.0, above, below) is None


def test_the_spread_of_both_drops_is_pooled_as_a_share_of_them() -> None:
    found = scaling(0.5, 2.0, [0.9, 1.1], [0.47, 0.53])
    assert found is not None
    shares = 2 * 0.1**2, 2 * 0.06**2
    assert found.spread == pytest.approx(math.sqrt(sum(shares) / 2))


def known(spread: float = 0.1, seeds: int = 3) -> Scaling:
    """What is known of the law above, with this spread."""
    return Scaling(law(), spread, seeds)


def test_the_interval_of_a_speedup_has_a_1_at_the_end_where_that_of_the_difference_has_a_0() -> (
    None
):
    differences = [-0.05, -0.03, -0.01]
    found = effect(differences)
    assert found.low is not None
    touching = effect([one - found.low for one in differences])
    worth = known().speedup(touching)
    assert worth is not None
    assert worth.high == pytest.approx(1.0, abs=2e-3)


STEADY = Law(0.5, 2.0, 0.4, 0.4)  # equal drops, so that any law between the horizons is a line


def test_without_noise_at_the_horizons_the_interval_is_that_of_the_difference() -> None:
    found = effect([-0.10, -0.06, -0.08, -0.07])
    worth = Scaling(STEADY, 0.0, 3).speedup(found)
    assert worth is not None
    assert found.low is not None
    assert found.high is not None
    ends = STEADY.times(found.high), STEADY.times(found.low)
    assert (worth.low, worth.high) == pytest.approx(ends, rel=1e-3)


def test_a_curve_that_bends_widens_the_interval() -> None:
    found = effect([-0.0801, -0.0800, -0.0799])
    one, other = (Scaling(Law(0.5, 2.0, above, 0.4), 0.0, 3).speedup(found) for above in (0.4, 0.6))
    assert one is not None
    assert other is not None
    assert other.high / other.low > one.high / one.low


@pytest.mark.parametrize(("difference", "slope"), [(-0.08, 0.4), (0.08, 0.6)])
def test_without_noise_the_higher_end_is_that_of_a_straight_line_to_the_horizon(
    difference: float, slope: float
) -> None:
    found = effect([difference - 1e-9, difference, difference + 1e-9])
    worth = Scaling(Law(0.5, 2.0, 0.6, 0.4), 0.0, 3).speedup(found)
    assert worth is not None
    assert worth.high == pytest.approx(2 ** (-difference / slope), rel=1e-4)
    assert worth.low < worth.times < worth.high


def test_noise_at_the_horizons_widens_the_interval() -> None:
    found = effect([-0.10, -0.06, -0.08, -0.07])
    one, other = known(spread=0.05).speedup(found), known(spread=0.2).speedup(found)
    assert one is not None
    assert other is not None
    assert other.high - other.low > one.high - one.low


def test_an_interval_at_another_level_is_as_wide_as_that_of_the_difference() -> None:
    found = effect([-0.10, -0.06, -0.08, -0.07])
    one, other = known(0.0).speedup(found), known(0.0).speedup(found, 2 * ALPHA)
    assert one is not None
    assert other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=2e-2)


def test_one_difference_has_no_interval() -> None:
    assert known().speedup(effect([-0.1])) is None


@pytest.mark.parametrize("drops", [(1e-12, 1e-12), (1e-12, 1e3), (1e3, 1e-12), (1e3, 1e3)])
@pytest.mark.parametrize("differences", [[-1e3, 1e3], [-5.0, 5.0], [-1e-9, 2e-9], [0.0, 0.0]])
def test_extreme_numbers_are_bounded_by_the_horizons(
    drops: tuple[float, float], differences: list[float]
) -> None:
    """Without a warning, which would be an error here."""
    worth = Scaling(Law(1e-6, 1e6, *drops), 10.0, 2).speedup(effect(differences))
    assert worth is not None
    assert 1e-6 <= worth.low <= worth.high <= 1e6


def test_the_same_numbers_give_the_same_interval() -> None:
    found = effect([-0.10, -0.06, -0.08])
    assert known().speedup(found) == known().speedup(found)


def test_a_straight_law_fits_losses_of_one() -> None:
    above, below = 3.5 * (2**0.2 - 1), 3.5 * (1 - 2**-0.2)
    found = Scaling(Law(0.5, 2.0, above, below), 0.01, 3).straight(3.5)
    assert found.miss == pytest.approx(0.0, abs=1e-9)
    assert found.fits


def test_a_straight_law_misses_losses_with_an_offset() -> None:
    found = known(spread=0.01).straight(loss(1.0))
    assert found.miss == pytest.approx(loss(1.0) - math.sqrt(loss(0.5) * loss(2.0)))
    assert not found.fits


def covers(
    number: int, truth: float, noise: float, seeds: int, of_horizons: int, exponent: float = 0.4
) -> bool:
    """Whether the interval of a made-up study covers what its arm is worth."""
    draw = random.Random(f"{number} {truth}")

    def losses(tokens: float, count: int) -> list[float]:
        return [loss(tokens, exponent) + draw.gauss(0, noise) for _ in range(count)]

    base, arm = losses(1.0, seeds), losses(truth, seeds)
    low, high = losses(0.5, of_horizons), losses(2.0, of_horizons)
    above = [one - other for one, other in zip(low, base, strict=False)]
    below = [one - other for one, other in zip(base, high, strict=False)]
    found = scaling(0.5, 2.0, above, below)
    assert found is not None
    differences = [one - other for one, other in zip(arm, base, strict=True)]
    worth = found.speedup(effect(differences))
    assert worth is not None
    return worth.low <= truth <= worth.high


def test_intervals_cover_the_truth_in_at_least_19_of_20_studies() -> None:
    covered = sum(covers(number, 1.25, 0.01, 5, 2) for number in range(120))
    assert covered >= 114


@pytest.mark.parametrize("truth", [0.6, 1.25, 1.8])
def test_intervals_of_a_law_without_curvature_cover_the_truth_in_93_to_98_percent(
    truth: float,
) -> None:
    """The noise of the baseline's runs is in the arm's difference and in both drops: counted twice, it would cover
    more."""
    covered = sum(covers(number, truth, 0.0005, 8, 8, exponent=0.02) for number in range(400))
    assert 372 <= covered <= 392
