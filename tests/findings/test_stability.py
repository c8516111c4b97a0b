"""The learning rate: its fit, its edge of stability, its sensitivity."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from ledgers import BUDGET, EVERY, FIRST, ended, lr_sweep, read_often, story, studied
from scipy import stats

from sweeps.findings.stability import Stability, fit, stability
from sweeps.ledger import Files

RATES = [1e-3 * 2**n for n in range(7)]


def parabola(rate: float, best: float) -> float:
    return 3 + 0.05 * math.log(rate / best) ** 2


def found(files: Files) -> Stability:
    of = studied(files)
    facts = stability(of.trials, of.metric)
    assert facts is not None
    return facts


@pytest.mark.parametrize("best", [5e-3, 8e-3, 1.1e-2])
def test_the_minimum_of_a_parabola_is_found(best: float) -> None:
    fitted = fit({rate: [parabola(rate, best)] for rate in RATES})
    assert fitted is not None
    assert fitted.rate == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("rate", "is_taken"), [(1e-3, False), (2e-3, True), (3.2e-2, True), (6.4e-2, False)]
)
def test_the_fit_takes_rates_within_a_factor_of_four_of_the_best(
    rate: float, is_taken: bool
) -> None:
    """The best is 8e-3; a wild loss elsewhere moves the fit only if it is taken."""
    losses = {rate: [parabola(rate, 8e-3)] for rate in RATES}
    wild = fit(losses | {rate: [3.5]})
    assert (wild != fit(losses)) is is_taken


def test_an_optimum_on_the_edge_has_no_fit() -> None:
    assert fit({rate: [parabola(rate, 1e-4)] for rate in RATES}) is None


def test_three_points_leave_nothing_to_judge_by() -> None:
    fitted = fit({rate: [parabola(rate, 2e-3)] for rate in RATES[:3]})
    assert fitted is not None and fitted.low is None


def reaching(factor: float) -> dict[float, list[float]]:
    """Losses whose interval for the best rate, 8e-3, reaches this far up and down.

    They are a parabola and a residual that no parabola explains. Without a linear term, Fieller's
    interval ends at x with x squared = q V11 / (4 c squared - 4 q V22), where V is the inverse of the
    normal matrix and q the t quantile squared times the residual's variance.
    """
    x = np.log(np.array(RATES[1:6]) / 8e-3)
    features = np.stack([np.ones_like(x), x, x**2], axis=1)
    residual = np.array([-1.0, 4.0, -6.0, 4.0, -1.0])
    inverse = np.linalg.inv(features.T @ features)
    curvature, spare, reach = 0.05, 2, math.log(factor) ** 2
    q = 4 * curvature**2 * reach / (inverse[1, 1] + 4 * reach * inverse[2, 2])
    size = math.sqrt(q * spare / (stats.t.ppf(0.975, spare) ** 2 * (residual @ residual)))
    losses = 3 + curvature * x**2 + size * residual
    return {rate: [float(loss)] for rate, loss in zip(RATES[1:6], losses, strict=True)}


def test_an_interval_that_reaches_far_from_the_best_rate_is_known() -> None:
    fitted = fit(reaching(70))
    assert fitted is not None and fitted.low is not None and fitted.high is not None
    assert [fitted.low * 70, fitted.high / 70] == pytest.approx([8e-3, 8e-3])


def test_an_interval_that_reaches_a_hundred_times_the_best_rate_is_dropped() -> None:
    fitted = fit(reaching(140))
    assert fitted is not None and (fitted.low, fitted.high) == (None, None)


def test_the_interval_of_the_best_rate_covers_it_as_often_as_it_says() -> None:
    """200 noisy parabolas with three seeds a rate; 190 are due, 181 are missed once in 300 times."""
    draw, covered = random.Random(0), 0
    for _ in range(200):
        losses = {r: [parabola(r, 7e-3) + draw.gauss(0, 0.01) for _ in range(3)] for r in RATES}
        fitted = fit(losses)
        assert fitted is not None
        if fitted.low is None or fitted.high is None:
            covered += 1  # an interval without bounds
        else:
            covered += fitted.low <= 7e-3 <= fitted.high
    assert covered >= 181


def test_the_edge_lies_between_the_highest_stable_and_the_first_unstable_rate(
    tmp_path: Path,
) -> None:
    facts = found(lr_sweep(tmp_path))
    assert (facts.highest_stable, facts.first_unstable) == (8e-3, 1.6e-2)
    assert (facts.first_diverging, facts.unstable_how) == (1.6e-2, ("blown up",))
    assert facts.edge_ratio == pytest.approx(2e-3 / 8e-3)


def test_a_stuck_rate_is_unstable_though_it_does_not_diverge(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    with story(tmp_path) as tell:
        trial = tell.plan({"optim.lr": 4e-3}, unigram_entropy=6.0)
        tell.start(trial)
        tell.measure(trial, BUDGET, 6.1)
        tell.finish(trial)
    facts = found(files)
    assert (facts.first_unstable, facts.first_diverging) == (4e-3, None)


def test_a_stable_sweep_has_no_edge(tmp_path: Path) -> None:
    facts = found(ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.1}))
    assert (facts.highest_stable, facts.first_unstable, facts.edge_ratio) == (
        2e-3,
        None,
        None,
    )


def test_the_sensitivity_caps_losses_at_init_and_counts_what_diverged(tmp_path: Path) -> None:
    """Losses 3, 3.5 and 9 with 7.7 at init, and one that diverged."""
    files = ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.5, 4e-3: 9.0})
    with story(tmp_path) as tell:
        trial = tell.plan({"optim.lr": 8e-3})
        tell.start(trial)
        tell.diverge(trial, FIRST)
    facts = found(files)
    assert facts.sensitivity is not None
    assert facts.sensitivity.nats == pytest.approx((3.0 + 3.5 + 7.7 + 7.7) / 4 - 3.0)
    assert facts.sensitivity.point == BUDGET


def test_trials_that_differ_in_more_than_the_rate_have_no_edge(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}, "model.norm": {"grid": ["pre", "post"]}})
        for norm, rate in (("pre", 1e-3), ("post", 2e-3)):
            tell.whole(tell.plan({"optim.lr": rate, "model.norm": norm}), rate)
    of = studied(Files(tmp_path))
    assert stability(of.trials, of.metric) is None


def test_a_rate_that_is_too_low_is_not_unstable_for_being_stuck(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {2e-3: 3.0, 4e-3: 3.1})
    with story(tmp_path) as tell:
        trial = tell.plan({"optim.lr": 1e-6}, unigram_entropy=6.0)
        tell.start(trial)
        tell.measure(trial, BUDGET, 6.1)
        tell.finish(trial)
    assert (found(files).first_unstable, found(files).highest_stable) == (None, 4e-3)


def test_a_rate_that_was_never_measured_is_not_stable(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    with story(tmp_path) as tell:
        tell.plan({"optim.lr": 4e-3})
    assert (found(files).highest_stable, found(files).unmeasured) == (2e-3, 1)


def test_a_flat_and_noisy_valley_has_no_fit_beyond_its_rates() -> None:
    draw = random.Random(0)
    for _ in range(300):
        fitted = fit({rate: [3 + draw.gauss(0, 0.01)] for rate in RATES[:5]})
        assert fitted is None or RATES[0] < fitted.rate < RATES[4]


def test_a_rate_that_overfits_is_stable_and_named(tmp_path: Path) -> None:
    facts = found(read_often(tmp_path, {1e-3: 3.4, 2e-3: 3.3, 4e-3: 4.1174}))
    assert (facts.first_unstable, facts.overfitted) == (None, (4e-3,))


def test_a_trial_that_overfitted_before_it_was_stopped_was_stable(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    with story(tmp_path) as tell:
        trial = tell.plan({"optim.lr": 4e-3})
        tell.start(trial)
        tell.measure(trial, EVERY, 3.0)
        tell.measure(trial, FIRST, 3.2, train_loss=2.0)
        tell.stop(trial, FIRST, 3.2)
    assert found(files).stopped_unseen == 1
