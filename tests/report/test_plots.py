"""Figures come out the same each time, in all states of a sweep, and hide no trial."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from ledgers import (
    BUDGET,
    EVERY,
    FIRST,
    RATES,
    audited_sweep,
    confirmed_sweep,
    ended,
    loss,
    points,
    shares_sweep,
    story,
    studied,
    two_draws,
)
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sweeps.findings.everything import findings
from sweeps.findings.results import Results
from sweeps.ledger import Files
from sweeps.report import plots
from sweeps.report.analysis import Analysis
from sweeps.report.plots import look
from sweeps.report.plots.trials import XAxis, learning_curves, looks_of, loss_against
from sweeps.text import named, show


@pytest.fixture(scope="module")
def rates(lr: Files) -> Results:
    """Eight rates under asha; two diverge."""
    return studied(lr)


@pytest.fixture(scope="module")
def against_lr(rates: Results) -> Figure:
    return loss_against(rates, rates.swept[0])


def spots(axes: Axes, mark: str) -> set[float]:
    """Where on the x axis the mark stands."""
    return {x for line in axes.lines if line.get_marker() == mark for x, _ in points(line)}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_figures_drawn_twice_are_the_same_byte_for_byte(analysis: Analysis) -> None:
    before = {
        path.name: path.read_bytes() for path in analysis.paths if path.suffix in {".svg", ".png"}
    }
    again = plots.draw(analysis.findings)
    assert {f"{name}.{kind}": again[name][kind] for name in again for kind in again[name]} == before


def test_no_svg_has_a_date(lr: Files, analysis: Analysis) -> None:
    assert "<dc:date>" not in (lr.analysis / "loss_vs_lr.svg").read_text()


def test_the_figure_of_a_path_is_logarithmic_where_its_values_are(against_lr: Figure) -> None:
    assert against_lr.axes[0].get_xscale() == "log"


def test_the_ticks_are_the_values_tried(against_lr: Figure) -> None:
    assert tuple(against_lr.axes[0].xaxis.get_majorticklocs()) == RATES


def test_every_line_of_the_figure_is_at_one_token_count(against_lr: Figure) -> None:
    lines = [line for line in against_lr.axes[0].lines if line.get_linestyle() == "-"]
    rungs = (2 * EVERY, 6 * EVERY, BUDGET)
    expected = [
        [loss(lr, rung) for lr in RATES if lr in line_x(line)]
        for line, rung in zip(lines, rungs, strict=True)
    ]
    assert [[y for _, y in points(line)] for line in lines] == expected


def test_points_of_budgets_that_differ_are_at_shares_of_them(tmp_path: Path) -> None:
    results = studied(shares_sweep(tmp_path))
    words = legend(loss_against(results, results.swept[0]))
    assert words[:2] == ["at the end of the budget", "at 1/4 of the budget"]


def test_compute_is_drawn_of_finished_trials_alone(tmp_path: Path) -> None:
    found = findings(studied(shares_sweep(tmp_path)))
    assert legend(plots.figures(found)["loss_vs_compute"]) == [
        "tokens=1572864",
        "best for its compute",
    ]


def test_confirmation_runs_are_drawn_apart(tmp_path: Path) -> None:
    figure = learning_curves(studied(confirmed_sweep(tmp_path / "s")), "tokens")
    fresh = [line for line in figure.axes[0].lines if line.get_color() == "black"]
    ends = [round(points(line)[-1][1] - loss(2e-3, BUDGET), 9) for line in fresh]
    assert ends == [0.03, 0.05]  # the third has not begun
    assert "confirmation runs" in legend(figure)


def test_without_confirmation_runs_the_legend_has_none(lr: Files) -> None:
    assert "confirmation runs" not in legend(learning_curves(studied(lr), "tokens"))


def line_x(line: object) -> set[float]:
    return set(line.get_xdata())  # type: ignore[attr-defined]


def test_stopped_trials_have_their_own_mark(against_lr: Figure) -> None:
    assert spots(against_lr.axes[0], "s") == {2.5e-4, 5e-4, 4e-3, 8e-3}


def test_finished_values_have_colors_of_the_whole_scale_however_near_they_are(
    rates: Results,
) -> None:
    looks = looks_of(rates)
    ended = {looks.shares[t.trial] for t in rates.trials if t.status == "finished"}
    assert sorted(ended) == pytest.approx(
        [0.15 + 0.7 * n / (len(ended) - 1) for n in range(len(ended))]
    )
    assert len({*looks.shares.values()}) == len({t.value("optim.lr") for t in rates.trials})


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One rate that finished, and the audits of three: one of them diverged."""
    folder = tmp_path_factory.mktemp("audited")
    return studied(audited_sweep(folder, {2.0: 2.75, 3.0: 3.5, 4.0: math.inf}))


def test_ends_of_audits_have_a_mark_and_a_legend(audited: Results) -> None:
    figure = loss_against(audited, audited.swept[0])
    assert spots(figure.axes[0], "d") == {2.0, 3.0}
    assert "end of an audit" in legend(figure)


def test_an_audited_loss_is_on_the_line_of_the_final_losses(audited: Results) -> None:
    lines = loss_against(audited, audited.swept[0]).axes[0].lines
    assert [(1.0, 3.0), (2.0, 2.75), (3.0, 3.5)] in [points(line) for line in lines]


def test_a_trial_stays_where_it_was_stopped_when_its_audit_diverges(audited: Results) -> None:
    axes = loss_against(audited, audited.swept[0]).axes[0]
    assert (spots(axes, "s"), spots(axes, "x")) == ({2.0, 3.0, 4.0}, {4.0})


def test_the_curve_of_an_audit_begins_where_its_trial_was_stopped(audited: Results) -> None:
    lines = learning_curves(audited, "tokens").axes[0].lines
    assert [(FIRST, 5.0), (BUDGET, 2.75)] in [points(line) for line in lines]


def test_each_kind_of_divergence_has_its_own_cross(against_lr: Figure) -> None:
    axes = against_lr.axes[0]
    blown_up, not_finite = look.CROSSES["blown up"], look.CROSSES["non-finite"]
    assert (spots(axes, blown_up), spots(axes, not_finite)) == ({1.6e-2}, {3.2e-2})


def test_crosses_stand_on_the_upper_edge(against_lr: Figure) -> None:
    crosses = [
        line for line in against_lr.axes[0].lines if line.get_marker() in look.CROSSES.values()
    ]
    assert {points(line)[0][1] for line in crosses} == {1.0}


def test_the_legend_says_how_trials_diverged(against_lr: Figure) -> None:
    assert [text for text in legend(against_lr) if text in look.CROSSES] == [
        "non-finite",
        "blown up",
    ]


def test_a_diverged_loss_of_60_does_not_stretch_the_axis(against_lr: Figure) -> None:
    assert against_lr.axes[0].get_ylim()[1] < 5


def test_a_trial_that_diverged_after_a_rung_is_a_cross_and_no_point(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.1, 2e-3: 3.0})
    with story(tmp_path) as tell:
        trial = tell.plan({"optim.lr": 4e-3})
        tell.start(trial)
        tell.measure(trial, BUDGET, 9.0)
        tell.diverge(trial, BUDGET)
    of = studied(files)
    axes = loss_against(of, of.swept[0]).axes[0]
    assert (spots(axes, "o"), spots(axes, "x")) == ({1e-3, 2e-3}, {4e-3})


def test_a_huge_finished_loss_is_an_arrow_at_the_edge(tmp_path: Path) -> None:
    losses = {1e-3: 3.1, 2e-3: 3.0, 4e-3: 3.1, 8e-3: 3.2, 1.6e-2: 60.0}
    of = studied(ended(tmp_path, "optim.lr", losses))
    figure = loss_against(of, of.swept[0])
    assert (spots(figure.axes[0], "^"), "above the axis" in legend(figure)) == ({1.6e-2}, True)


def test_every_ordinary_loss_is_inside_the_axis(tmp_path: Path) -> None:
    losses = {1e-3: 3.4, 2e-3: 3.0, 4e-3: 3.1, 8e-3: 3.5}
    of = studied(ended(tmp_path, "optim.lr", losses))
    low, high = loss_against(of, of.swept[0]).axes[0].get_ylim()
    assert low < 3.0 < 3.5 < high


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Twenty draws of two paths."""
    return studied(two_draws(tmp_path_factory.mktemp("many"), 20))


def test_many_trials_have_a_color_bar_and_no_names(many: Results) -> None:
    figure = learning_curves(many, "tokens")
    assert (len(figure.axes), legend(figure)) == (2, [])


def test_draws_of_several_paths_are_points_without_lines(many: Results) -> None:
    axes = loss_against(many, many.swept[0]).axes[0]
    assert {line.get_linestyle() for line in axes.lines} == {"None"}


def test_training_losses_are_drawn_while_they_can_be_read(rates: Results) -> None:
    assert "thin: training loss" in legend(learning_curves(rates, "step"))


@pytest.mark.parametrize(
    ("x", "end"), [("step", 384), ("tokens", BUDGET), ("seconds", BUDGET / 10_000)]
)
def test_curves_end_where_the_training_does(rates: Results, x: XAxis, end: float) -> None:
    lines = learning_curves(rates, x).axes[0].lines
    assert max(along for line in lines for along, _ in points(line)) == end


def test_a_path_without_order_is_a_plot_of_dots(tmp_path: Path) -> None:
    of = studied(ended(tmp_path, "model.norm", {"pre": 3.0, "post": 3.1}))
    axes = loss_against(of, of.swept[0]).axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert (labels, {line.get_linestyle() for line in axes.lines}) == (["pre", "post"], {"None"})


CROWDED = {
    "a zero": [0.0, 0.01, 0.1, 1.0],
    "zero and small ones": [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
    "twelve draws": [0.1137 + 0.071 * math.sin(n) for n in range(12)],
    "all but one together": [0.5, 0.50001, 0.50002, 0.50003, 9.0],
}


@pytest.mark.parametrize("name", CROWDED)
@pytest.mark.parametrize("axis", ["xaxis", "yaxis"])
def test_the_labels_of_values_never_overlap(tmp_path: Path, name: str, axis: str) -> None:
    values = sorted(CROWDED[name])
    of = studied(ended(tmp_path, "optim.weight_decay", dict.fromkeys(values, 3.0)))
    figure, axes = look.canvas(of)
    look.value_ticks(getattr(axes, axis), of.swept[0])
    axes.set(xlim=(values[0], values[-1]), ylim=(values[0], values[-1]))
    figure.draw_without_rendering()
    labels = getattr(axes, axis).get_ticklabels()
    assert [label.get_text().strip() for label in labels] == [show(value) for value in values]
    touching = [
        (one.get_text(), other.get_text())
        for one, other in itertools.combinations(labels, 2)
        if one.get_window_extent().overlaps(other.get_window_extent())
    ]
    # A label of a lower row begins with the empty rows above it.
    rows = [(a.count("\n"), b.count("\n"), a.count(" "), b.count(" ")) for a, b in touching]
    assert not [row for row in rows if row[0] == row[1] and row[2] == row[3]]


def names_at_ends(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_seeds_share_a_name(tmp_path: Path) -> None:
    of = studied(ended(tmp_path, "model.norm", {"pre": (3.0, 3.1), "post": (3.1, 3.2)}))
    assert names_at_ends(learning_curves(of, "step")) == ["norm=pre", "norm=post"]


def test_curves_that_went_to_the_end_are_colored_and_named_there(rates: Results) -> None:
    figure = learning_curves(rates, "tokens")
    finished = [trial for trial in rates.trials if trial.status == "finished"]
    assert set(names_at_ends(figure)) == {trial.label for trial in finished}
    colors = {str(text.get_color()) for text in figure.axes[0].texts}
    assert len(colors) == len(finished)


def test_curves_that_were_stopped_or_lost_are_thin_and_gray(rates: Results) -> None:
    figure = learning_curves(rates, "tokens")
    (lines,) = figure.axes[0].collections
    others = [t for t in rates.trials if t.curve and t.status != "finished"]
    assert len(lines.get_paths()) == len(others) > 0
    assert {to_hex(color) for color in np.atleast_2d(lines.get_edgecolor())} == {to_hex(look.GRAY)}
    assert "stopped early, or lost" in legend(figure)


def test_where_all_were_lost_the_curves_are_colored(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        for rate in (1e-3, 2e-3):
            trial = tell.plan({"optim.lr": rate})
            tell.start(trial)
            tell.measure(trial, FIRST, 3.0)
            tell.diverge(trial, FIRST)
    figure = learning_curves(studied(Files(tmp_path)), "tokens")
    assert "stopped early, or lost" not in legend(figure)


def test_of_many_curves_the_best_are_named(many: Results) -> None:
    names = names_at_ends(learning_curves(many, "tokens"))
    best = sorted(many.trials, key=lambda trial: trial.curve[-1]["val_loss"])[:5]
    assert names == [named(trial.values) for trial in best]


@pytest.mark.parametrize(
    ("places", "moved"),
    [
        ([0.2, 0.5], [0.2, 0.5]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.0, 0.0], [0.0, 0.1]),
        ([1.0, 1.0], [0.9, 1.0]),
        ([], []),
    ],
)
def test_names_at_ends_move_as_little_as_keeps_them_apart(
    places: list[float], moved: list[float]
) -> None:
    assert look.spread(places, 0.1) == pytest.approx(moved)


def test_the_line_goes_through_the_mean_of_the_seeds(tmp_path: Path) -> None:
    of = studied(ended(tmp_path, "optim.lr", {1e-3: (3.0, 3.2), 2e-3: (3.3, 3.5)}))
    line = loss_against(of, of.swept[0]).axes[0].lines[0]
    assert [y for _, y in points(line)] == [pytest.approx(3.1), pytest.approx(3.4)]


def test_a_sweep_that_has_measured_nothing_has_figures(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.plan({"optim.lr": 1e-3})
        tell.plan({"optim.lr": 2e-3})
    assert len(plots.figures(findings(studied(Files(tmp_path))))) == 5


@pytest.mark.parametrize("words", ["$x_1$", "a$b", "_hidden", "$5 or $6"])
def test_words_are_no_formula_and_are_not_hidden(words: str) -> None:
    text = Figure().text(0, 0, look.plain(words)).get_text()
    assert not is_math_text(text)
    assert text.replace(r"\$", "$").strip() == words


def test_any_question_can_be_a_title(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, "_学习率 $x_1$ costs $5 " + "and more " * 90)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    figure = plots.figures(findings(studied(Files(tmp_path))))["loss_by_step"]
    assert set(look.render(figure)) == {"svg", "png"}


def test_the_axis_reaches_as_far_above_the_quartile_as_the_rule_says() -> None:
    axes = Figure().subplots()
    top = look.set_limit(axes, [3.0, 3.0, 3.0, 3.2, 1000.0])
    assert math.isclose(top, 3.2 + look.REACH * 0.2 + 0.05 * 0.5)


def two_by_six(folder: Path) -> Results:
    """Twelve trials of two widths, six budgets each: as many names as a legend has."""
    with story(folder) as tell:
        budgets = [BUDGET * n for n in range(1, 7)]
        tell.ask({"model.d_model": {"grid": [64, 128]}, "budget.tokens": {"grid": budgets}})
        for width in (64, 128):
            for budget in budgets:
                trial = tell.plan({"model.d_model": width, "budget.tokens": budget})
                tell.start(trial)
                tell.measure(trial, budget, 4 - budget / BUDGET / 10 - width / 1000)
                tell.finish(trial, budget)
    return studied(Files(folder))


@pytest.mark.parametrize("name", ["loss_vs_compute", "loss_by_tokens"])
def test_no_two_entries_of_a_legend_look_alike(tmp_path: Path, name: str) -> None:
    (box,) = plots.figures(findings(two_by_six(tmp_path)))[name].legends
    found = [
        (line.get_color(), line.get_marker(), line.get_markerfacecolor(), line.get_linestyle())
        for line in box.get_lines()
    ]
    dashes = [line._dash_pattern for line in box.get_lines()]  # type: ignore[attr-defined]
    entries = list(map(str, zip(found, dashes, strict=True)))
    assert len(set(entries)) == len(entries) >= 12


def test_a_point_of_the_compute_looks_as_in_the_legend(tmp_path: Path) -> None:
    figure = plots.figures(findings(two_by_six(tmp_path)))["loss_vs_compute"]
    (box,) = figure.legends
    told = {(line.get_marker(), str(line.get_color())) for line in box.get_lines()[:12]}
    drawn = {(line.get_marker(), str(line.get_color())) for line in figure.axes[0].lines}
    assert told <= drawn
