"""The risk of the values that a search recommends."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from ledgers import BUDGET, EVERY, FIRST, ended, lr_sweep, story, studied

from sweeps.findings.everything import SearchFindings, findings
from sweeps.findings.risk import Risk
from sweeps.ledger import Files


def risk_of(files: Files) -> Risk:
    found = findings(studied(files))
    assert isinstance(found, SearchFindings) and found.risk is not None
    return found.risk


def rates(folder: Path, losses: Mapping[float, tuple[float, ...]], spike: float = 0.0) -> Files:
    """A sweep of rates with these final losses by seed; an infinite one is that of a run that diverged. Runs
    above a loss of 4 have spiked."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": list(losses)}})
        for rate, given in losses.items():
            for seed, loss in enumerate(given):
                trial = tell.plan({"optim.lr": rate}, seed)
                tell.start(trial)
                if math.isinf(loss):
                    tell.measure(trial, EVERY, 5.0)
                    tell.diverge(trial, FIRST)
                else:
                    tell.measure(trial, BUDGET, loss, spike=3.0 if loss > 4 else 0.0)
                    tell.finish(trial)
    return Files(folder)


def test_runs_at_the_best_values_and_within_a_factor_of_two_are_counted(tmp_path: Path) -> None:
    found = risk_of(
        ended(tmp_path, "optim.lr", {1e-3: 3.4, 2e-3: 3.2, 4e-3: 3.0, 8e-3: 3.1, 1.7e-2: 3.3})
    )
    assert (found.values, found.runs, found.beside) == ({"optim.lr": 4e-3}, 3, 2)


def test_on_a_path_that_is_not_spaced_by_ratios_only_equal_values_are_near(tmp_path: Path) -> None:
    found = risk_of(ended(tmp_path, "model.norm", {"pre": (3.0, 3.1), "post": (3.2, 3.3)}))
    assert (found.runs, found.beside) == (2, 0)


def test_a_search_far_from_trouble_tells_no_risk(tmp_path: Path) -> None:
    found = risk_of(ended(tmp_path, "optim.lr", {2e-3: 3.2, 4e-3: 3.0, 8e-3: 3.1}))
    assert not found.matters


def test_runs_that_diverged_and_spiked_went_wrong(tmp_path: Path) -> None:
    found = risk_of(rates(tmp_path, {4e-3: (3.0, 3.0), 8e-3: (4.5, math.inf)}))
    assert found.wrong == ("non-finite", "spiked")
    assert found.matters


def test_a_run_that_ran_out_of_memory_says_nothing_of_training(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [2e-3, 4e-3]}})
        tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
        failed = tell.plan({"optim.lr": 4e-3})
        tell.start(failed)
        tell.fail(failed, "CUDA out of memory")
    found = risk_of(Files(tmp_path))
    assert (found.runs, found.wrong) == (1, ())


def test_stable_runs_that_were_stopped_early_are_counted_apart(tmp_path: Path) -> None:
    found = risk_of(lr_sweep(tmp_path / "s"))
    assert (found.runs, found.stopped) == (2, 1)


def test_a_run_that_spiked_before_it_was_stopped_went_wrong(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [2e-3, 4e-3]}})
        tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
        stopped = tell.plan({"optim.lr": 4e-3})
        tell.start(stopped)
        tell.measure(stopped, FIRST, 5.0, spike=3.0)
        tell.stop(stopped, FIRST, 5.0)
    found = risk_of(Files(tmp_path))
    assert (found.runs, found.stopped, found.wrong) == (2, 0, ("spiked",))


def test_values_with_fewer_seeds_are_not_compared_by_expected_loss(tmp_path: Path) -> None:
    found = risk_of(rates(tmp_path, {2e-3: (2.9,), 4e-3: (3.2, 3.3), 8e-3: (math.inf,)}))
    assert (found.expected, found.rivals) == (found.safest, 0)


@pytest.mark.parametrize(("unstable", "edge"), [(1.5e-2, 1.5e-2), (1.6e-2, None)])
def test_the_best_rate_is_near_the_edge_below_a_factor_of_four(
    tmp_path: Path, unstable: float, edge: float | None
) -> None:
    found = risk_of(rates(tmp_path, {2e-3: (3.2,), 4e-3: (3.0,), unstable: (math.inf,)}))
    assert found.edge == edge


def test_a_run_that_diverged_makes_the_expected_loss_infinite(tmp_path: Path) -> None:
    losses = {2e-3: (3.3, 3.4, 3.5), 4e-3: (3.2, 3.3, 3.4), 8e-3: (3.0, 3.1, 3.2, math.inf)}
    found = risk_of(rates(tmp_path, losses))
    assert found.expected is not None and found.expected.loss == math.inf
    assert found.expected.as_json()["loss"] is None


def test_the_expected_loss_counts_runs_that_spiked_with_their_end(tmp_path: Path) -> None:
    found = risk_of(rates(tmp_path, {4e-3: (3.0, 3.2), 8e-3: (3.1, 4.5)}))
    assert found.expected is not None
    assert found.expected.loss == pytest.approx(3.1)


def test_the_safest_values_ended_on_as_many_seeds_as_the_best(tmp_path: Path) -> None:
    """2e-3 is lower on its one seed."""
    losses = {2e-3: (2.9,), 4e-3: (3.2, 3.3, 3.4), 8e-3: (3.0, 3.1, math.inf)}
    found = risk_of(rates(tmp_path, losses))
    assert found.safest is not None
    assert found.safest.values == {"optim.lr": 4e-3}


def test_one_seed_has_no_expected_loss(tmp_path: Path) -> None:
    found = risk_of(rates(tmp_path, {4e-3: (3.0,), 8e-3: (math.inf,)}))
    assert (found.expected, found.safest) == (None, None)
