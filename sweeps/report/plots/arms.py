"""Figures of a study: arms against their baseline."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.findings.arms import ArmFindings, ArmRuns, numeric_arms
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.everything import StudyFindings
from sweeps.findings.results import Results
from sweeps.findings.stability import by_rate
from sweeps.findings.tuning import Tuning
from sweeps.report.plots.look import (
    ABOVE,
    DASHES,
    GRAY,
    LOSSES,
    MARKS,
    OKABE_ITO,
    VERDICTS,
    Dashes,
    Marks,
    add_cross,
    add_legend,
    brief,
    canvas,
    cross_entries,
    cross_of,
    crosses_of,
    ending_entries,
    entry,
    mark_above,
    mark_trouble,
    plain,
    say_nothing,
    set_limit,
    unit_of_time,
    with_audits,
)
from sweeps.report.plots.rates import level_entries, plot_rates, rate_axis, shown_losses
from sweeps.report.plots.trials import X_AXES, XAxis, end_of, place_on
from sweeps.report.speedup import ticks
from sweeps.selection import Metric, last_record, records
from sweeps.stats import NOISE_MARGIN
from sweeps.text import count, show


def figures(found: StudyFindings) -> dict[str, Figure]:
    """Every figure of a study by its name."""
    results = found.results
    styles, drawn = looks(found), {"arms": forest(found)}
    if found.tuning and all(by_rate(grid.trials) for grid in found.tuning):
        drawn["retuning"] = retuning(results, found.tuning, styles)
    values = numeric_arms(results, found.settled)
    if values:
        drawn["loss_vs_value"] = against_value(results, values)
    return drawn | {f"loss_by_{x}": curves(results, found.settled, x, styles) for x in X_AXES}


Look = tuple[str, Dashes, str]  # a color, dashes and a mark


def look_of(number: int) -> Look:
    """The look of the arm with this number, the baseline's is 0."""
    color, mark = OKABE_ITO[number % len(OKABE_ITO)], MARKS[number % len(MARKS)]
    return color, DASHES[number % len(DASHES)], mark


def looks(found: StudyFindings) -> dict[str, Look]:
    """The look of each arm, so that arms that share trials are both visible; those that are settled first."""
    names = [arm.name for arm in found.settled] + [grid.arm for grid in found.tuning]
    return {name: look_of(number) for number, name in enumerate(dict.fromkeys(names))}


def forest(found: StudyFindings) -> Figure:
    """The difference of each arm from the baseline: mean, 95% interval, and each seed."""
    figure, axes = canvas(found.results)
    compared = found.comparison
    arms = () if compared is None else compared.arms[1:]
    metric = found.results.metric
    axes.set_xlabel(f"difference from the baseline: {LOSSES[metric]}; left is better")
    if compared is None or not arms:
        say_nothing(axes, "no arm is settled yet")
        return figure
    axes.axvline(0, color="0.2", lw=1)
    noise = compared.noise
    handles = []
    if noise is not None:
        width = NOISE_MARGIN * noise.sd
        axes.axvspan(-width, width, color="0.92", lw=0, zorder=0)
        words = f"within {NOISE_MARGIN:g} standard\ndeviations of the noise"
        handles.append(entry(words, color="0.88", lw=8))
    for row, arm in enumerate(arms):
        _forest_row(axes, -row, arm)
    axes.set_yticks([-row for row in range(len(arms))], [brief(arm.name, 26) for arm in arms])
    axes.set_ylim(-len(arms) + 0.4, 0.6)
    axes.grid(visible=False, axis="y")
    _speedup_axis(axes, compared)
    seen = {arm.verdict.kind for arm in arms}
    handles += [
        entry(kind, color=color, marker="o", ms=6)
        for kind, color in VERDICTS.items()
        if kind in seen
    ]
    handles.append(entry("a seed", color=GRAY, marker="|", ls="", ms=8))
    add_legend(figure, handles)
    return figure


def _speedup_axis(axes: Axes, compared: ArmsComparison) -> None:
    """Draw what differences are worth in tokens of the baseline, along the top."""
    found = ticks(compared, *axes.get_xlim())
    if found:
        top = axes.secondary_xaxis("top")
        top.set_xticks([at for at, _ in found], [name for _, name in found])
        top.set_xlabel("token speedup")
        axes.set_xlim(axes.get_xlim())


def _forest_row(axes: Axes, y: float, arm: ArmFindings) -> None:
    """Draw one arm: its interval and mean, hollow where the runs cast doubt on it, or the verdict in words if
    there is no difference."""
    color, effect = VERDICTS[arm.verdict.kind], arm.effect
    if effect is None:
        axes.text(0, y, f" {arm.verdict.headline}", va="center", color=color)
        return
    seeds = list(arm.paired.values())
    axes.plot(seeds, [y - 0.16] * len(seeds), "|", color=GRAY, ms=8)
    if effect.low is not None and effect.high is not None:
        ends = [effect.low, effect.high]
        axes.plot(ends, [y, y], "-", color=color, lw=2.2, solid_capstyle="butt")
    doubts = " and ".join(doubt.words for doubt in arm.verdict.doubts)
    axes.plot(effect.mean, y, "o", color=color, mfc="white" if doubts else color, ms=7)
    if doubts:
        axes.annotate(
            doubts, (0.99, y), (0, 7), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", fontsize=7,
        )  # fmt: skip


def retuning(results: Results, grids: Sequence[Tuning], styles: Mapping[str, Look]) -> Figure:
    """The losses of each arm's re-tune grid against the learning rate."""
    figure, axes = canvas(results)
    axes.set_ylabel(LOSSES[results.metric])
    trials = [trial for grid in grids for trial in grid.trials]
    rate_axis(axes, trials)
    losses = [loss for grid in grids for loss in shown_losses(results, grid.trials)]
    if not losses:
        say_nothing(axes, "nothing measured yet")
        return figure
    set_limit(axes, losses)
    handles, above, row = [], False, 0
    for grid in grids:
        color, dash, mark = styles[grid.arm]
        above = plot_rates(results, axes, grid.trials, (color, dash, mark), row) or above
        row += any(
            map(cross_of, with_audits(results, grid.trials))
        )  # so that the crosses of two arms do not overlap
        handles.append(entry(brief(grid.arm, 26), color=color, ls=dash, marker=mark, ms=6))
    handles += level_entries(results, "#000000")
    handles += ending_entries(results, trials, ms=8)
    if above:
        handles.append(entry("above the axis", **ABOVE))
    crosses = crosses_of(with_audits(results, trials))
    add_legend(figure, [*handles, *cross_entries(crosses)])
    return figure


def against_value(results: Results, arms: Mapping[float, ArmRuns]) -> Figure:
    """Final losses against the value that defines each arm, and against training time."""
    figure, left = canvas(results)
    left.remove()
    left, right = figure.subplots(1, 2, sharey=True)
    assert results.space.each is not None  # its values are the arms
    ends = {value: _ends(results, arm) for value, arm in arms.items() if arm.having("finished")}
    left.set_ylabel(LOSSES[results.metric])
    left.set_xlabel(plain(results.space.each.path))
    unit, divisor = unit_of_time(results)
    right.set_xlabel(f"training time without evaluation ({unit})")
    if not ends:
        say_nothing(left, "nothing has finished yet")
        return figure
    means = {value: statistics.fmean(loss for _, loss in found) for value, found in ends.items()}
    times = {
        value: statistics.median(s for s, _ in found) / divisor for value, found in ends.items()
    }
    for axes, along in ((left, {value: value for value in ends}), (right, times)):
        axes.plot([along[v] for v in means], list(means.values()), "-", color=OKABE_ITO[0], lw=1.4)
        for value, found in ends.items():
            losses = [loss for _, loss in found]
            axes.plot([along[value]] * len(losses), losses, "o", color=OKABE_ITO[0], mec="white")
    if min(ends) > 0 and max(ends) >= 8 * min(ends):
        left.set_xscale("log", base=2)
        left.set_xticks(list(ends), [show(value) for value in ends])
        left.set_xticks([], minor=True)
    for value in ends:
        right.annotate(
            show(value), (times[value], means[value]), (4, 4), textcoords="offset points"
        )
    right.set_xlim(left=0)
    return figure


def _ends(results: Results, arm: ArmRuns) -> list[tuple[float, float]]:
    """The training seconds and final losses of the finished runs."""
    records = [last_record(trial) for trial in arm.having("finished")]
    return [(end.seconds, end.loss(results.metric)) for end in records if end is not None]


def curves(
    results: Results, arms: Sequence[ArmRuns], x: XAxis, styles: Mapping[str, Look]
) -> Figure:
    """The mean validation loss of each arm against x, with a band from the lowest to the highest
    seed."""
    figure, axes = canvas(results)
    unit, divisor = unit_of_time(results) if x == "seconds" else ("", 1.0)
    axes.set_xlabel(X_AXES[x] + (f" ({unit})" if unit else ""))
    axes.set_ylabel(LOSSES[results.metric])
    runs = [trial for arm in arms for trial in arm.runs.values()]
    sound = [trial for trial in runs if trial.curve and trial.status != "diverged"]
    if not sound:
        say_nothing(axes, "nothing measured yet")
        return figure
    top = set_limit(axes, [r.loss(results.metric) for trial in sound for r in records(trial)])
    crosses = crosses_of(runs)
    marks = Marks(axes)
    handles, row_of_crosses = [], 0
    for arm in arms:
        color, dash, _ = styles[arm.name]
        _band(axes, arm, results.metric, x, (color, dash), divisor)
        for trial in arm.runs.values():
            kind, end, last = cross_of(trial), end_of(trial, x), last_record(trial)
            if kind is not None and end is not None:
                add_cross(marks, end / divisor, crosses[kind], color, row_of_crosses)
            elif kind is None and last is not None and end is not None:
                loss = last.loss(results.metric)
                mark_trouble(marks, end / divisor, loss, trial, color)
                if loss > top:
                    mark_above(marks, end / divisor, color)
        row_of_crosses += any(map(cross_of, arm.runs.values()))
        handles.append(entry(brief(arm.name, 26), color=color, ls=dash))
    marks.draw()
    if any(len(arm.runs) > 1 for arm in arms):
        handles.append(entry("band: lowest to\nhighest seed", color="0.8", lw=6))
    if any(records(trial)[-1].loss(results.metric) > top for trial in sound):
        handles.append(entry("ends above the axis", **ABOVE))
    axes.set_xlim(left=0)
    if x == "tokens":
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
    add_legend(figure, [*handles, *cross_entries(crosses)])
    return figure


def _band(
    axes: Axes, arm: ArmRuns, metric: Metric, x: XAxis, look: tuple[str, Dashes], divisor: float
) -> None:
    """Draw the mean and range over an arm's seeds, as far as all seeds have records.

    With a budget in seconds, some seeds get further; the rest of each of these is drawn on its own.
    """
    alive = [t for t in arm.runs.values() if t.curve and t.status not in {"diverged", "failed"}]
    if not alive:
        return
    rows = list(zip(*(records(trial) for trial in alive), strict=False))
    along = [statistics.median(place_on(x, record) for record in each) / divisor for each in rows]
    losses = [[record.loss(metric) for record in each] for each in rows]
    means = [statistics.fmean(each) for each in losses]
    color, dash = look
    axes.plot(along, means, ls=dash, color=color, lw=1.6, ms=3)
    low, high = [min(each) for each in losses], [max(each) for each in losses]
    axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
    for trial in alive:
        rest = records(trial)[len(rows) - 1 :]
        if len(rest) > 1:
            further = [place_on(x, record) / divisor for record in rest]
            axes.plot(
                further,
                [record.loss(metric) for record in rest],
                "-",
                color=color,
                lw=0.7,
                alpha=0.7,
            )
