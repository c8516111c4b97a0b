"""A thinned curve keeps what is claimed of it, and no more points than a screen shows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import BASE, BUDGET, points, story, studied
from matplotlib.collections import LineCollection

from sweeps.findings.everything import findings
from sweeps.findings.results import Results
from sweeps.ledger import Files, Trial
from sweeps.report import page as report
from sweeps.report.plots.trials import learning_curves
from sweeps.report.thinning import FEWEST, MOST, TOGETHER, spread_points, thinned

SPREAD = 11


def after(records: int) -> int:
    """Tokens after so many records, an update each; 380 of them end with the budget."""
    return BUDGET - (380 - records) * BASE.tokens_per_step


LOSSES = st.lists(st.floats(0, 9), min_size=2, max_size=300)


def trial(losses: list[float], every: int = 7) -> Trial:
    """A trial with a record of these losses after each so many tokens."""
    curve = [{"tokens": every * (n + 1), "val_loss": loss} for n, loss in enumerate(losses)]
    return Trial("a", "a", BASE.model_dump(), {}, 0, 1, 1, "c", role="search", curve=curve)


@given(LOSSES)
def test_the_ends_are_kept(losses: list[float]) -> None:
    drawn = thinned(trial(losses), SPREAD, [])
    assert (drawn[0], drawn[-1]) == (0, len(losses) - 1)


@given(LOSSES)
def test_the_lowest_and_the_highest_loss_are_kept(losses: list[float]) -> None:
    kept = [losses[number] for number in thinned(trial(losses), SPREAD, [])]
    assert (min(kept), max(kept)) == (min(losses), max(losses))


@given(LOSSES, st.data())
def test_rungs_are_kept(losses: list[float], data: st.DataObject) -> None:
    rung = data.draw(st.integers(1, len(losses)))
    assert rung - 1 in thinned(trial(losses), SPREAD, [7 * rung])


@given(LOSSES)
def test_what_is_drawn_ascends_and_is_drawn_once(losses: list[float]) -> None:
    drawn = thinned(trial(losses), SPREAD, [7, 14])
    assert drawn == sorted(set(drawn))


@given(LOSSES)
def test_only_the_lowest_and_the_highest_are_added_to_the_spread(losses: list[float]) -> None:
    assert len(thinned(trial(losses), SPREAD, [])) <= SPREAD + 2


def test_a_short_curve_is_drawn_whole() -> None:
    assert thinned(trial([3.0, 2.0, 4.0]), 3, []) == [0, 1, 2]


def test_points_are_evenly_spaced_by_tokens() -> None:
    falling = [300.0 - n for n in range(301)]
    assert thinned(trial(falling), SPREAD, []) == list(range(0, 301, 30))


def test_a_rung_past_the_end_of_a_stopped_trial_adds_nothing() -> None:
    falling = [300.0 - n for n in range(301)]
    assert thinned(trial(falling), SPREAD, [10**9]) == thinned(trial(falling), SPREAD, [])


def test_an_unmeasured_trial_has_no_points() -> None:
    assert thinned(trial([]), SPREAD, []) == []


@pytest.mark.parametrize(("curves", "each"), [(0, MOST), (1, MOST), (1000, TOGETHER // 1000)])
def test_many_curves_share_their_points(curves: int, each: int) -> None:
    assert spread_points(curves) == each


def test_however_many_curves_there_are_each_has_some_points() -> None:
    assert spread_points(10**6) == FEWEST


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A rate with 380 records, and one that stopped early after its first 64."""
    folder = tmp_path_factory.mktemp("long") / "s"
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        whole, early = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        tell.start(whole)
        tell.start(early)
        for number in range(1, 381):
            tell.measure(whole, after(number), 9.0 - number / 100)
        for number in range(1, 65):
            tell.measure(early, after(number), 9.5 - number / 100)
        tell.pause(early, after(64), 8.87)
        tell.finish(whole)
        tell.stop(early, after(64), 8.87)
    return studied(Files(folder))


def test_the_page_knows_how_many_records_it_does_not_draw(long: Results) -> None:
    content = report.page(findings(long))
    drawn = [len(one["loss"]) for one in content["trials"]]
    assert (content["records"], drawn) == (444, [MOST + 1, 64])  # the rung as well


def test_the_page_has_the_rungs_of_a_thinned_curve(long: Results) -> None:
    assert after(64) in report.page(findings(long))["trials"][0]["tokens"]


def test_figures_are_thinned_as_the_page_is(long: Results) -> None:
    drawn = report.page(findings(long))["trials"][0]["tokens"]
    lines = [points(line) for line in learning_curves(long, "tokens").axes[0].lines]
    assert [x for x, _ in max(lines, key=len)] == drawn


def test_many_curves_are_drawn_by_one_call(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"loguniform": [1e-4, 1e-2]}})
        for number in range(1, 14):
            drawn = tell.plan({"optim.lr": number * 1e-4})
            tell.whole(drawn, number * 1e-4)
    collections = learning_curves(studied(Files(tmp_path)), "tokens").axes[0].collections
    (lines,) = (one for one in collections if isinstance(one, LineCollection))
    assert [np.shape(path.vertices)[0] for path in lines.get_paths()] == [16] * 13
