"""Figures of a study: arms against their baseline."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.findings.arms import ArmRuns, arms_of, comparison, numeric_arms, tuned_pools
from sweeps.findings.results import Facts, Results
from sweeps.findings.stability import by_rate
from sweeps.findings.verdict import NOISE_MARGIN
from sweeps.ledger import Trial
from sweeps.report.plots.look import (
    ABOVE,
    DASHES,
    LOSSES,
    MARKS,
    OKABE_ITO,
    STOPPED,
    add_legend,
    brief,
    canvas,
    cross_entries,
    cross_of,
    crosses_of,
    draw_cross,
    entry,
    mark_above,
    mark_trouble,
    plain,
    say_nothing,
    set_limit,
    unit_of_time,
)
from sweeps.report.plots.rates import level_entries, plot_rates, rate_axis, shown_losses
from sweeps.report.plots.trials import X_AXES, end_of
from sweeps.text import count, show

VERDICTS = {
    "better": OKABE_ITO[2],
    "worse": OKABE_ITO[1],
    "no difference": OKABE_ITO[0],
    "no conclusion": "0.5",
    "void": OKABE_ITO[3],
}


def figures(results: Results) -> dict[str, Figure]:
    """Every figure of a study by its name."""
    found = {"arms": forest(results)}
    pools = tuned_pools(results)
    if pools and all(by_rate(pool) for pool in pools.values()):
        found["retuning"] = retuning(results, pools)
    values = numeric_arms(results)
    if values:
        found["loss_vs_value"] = against_value(results, values)
    return found | {f"loss_by_{x}": curves(results, x) for x in X_AXES}


def looks(arms: Sequence[ArmRuns]) -> dict[str, tuple[str, str]]:
    """Colour and dashes of every arm; arms that run the same trials show through each other."""
    return {
        arm.name: (OKABE_ITO[n % len(OKABE_ITO)], DASHES[n % len(DASHES)])
        for n, arm in enumerate(arms)
    }


def forest(results: Results) -> Figure:
    """The difference of every arm from the baseline with its 95% interval, and every seed's."""
    figure, axes = canvas(results)
    compared = comparison(results)
    arms = [] if compared is None else compared["arms"][1:]
    axes.set_xlabel(f"difference from the baseline: {LOSSES[results.metric]}; left is better")
    if compared is None or not arms:
        say_nothing(axes, "no arm is settled yet")
        return figure
    axes.axvline(0, color="0.2", lw=1)
    noise = compared["noise"]
    handles = []
    if noise is not None:
        width = NOISE_MARGIN * noise["sd"]
        axes.axvspan(-width, width, color="0.92", lw=0, zorder=0)
        words = f"within {NOISE_MARGIN:g} standard\ndeviations of the noise"
        handles.append(entry(words, color="0.88", lw=8))
    for row, place in enumerate(arms):
        _forest_row(axes, -row, place)
    axes.set_yticks([-row for row in range(len(arms))], [brief(p["arm"], 26) for p in arms])
    axes.set_ylim(-len(arms) + 0.4, 0.6)
    axes.grid(visible=False, axis="y")
    seen = {place["verdict"] for place in arms}
    handles += [
        entry(verdict, color=colour, marker="o", ms=6)
        for verdict, colour in VERDICTS.items()
        if verdict in seen
    ]
    handles.append(entry("a seed", color="0.4", marker="|", ls="", ms=8))
    add_legend(figure, handles)
    return figure


def _forest_row(axes: Axes, y: float, place: Facts) -> None:
    """One arm: interval and mean, or in words why there is none."""
    colour = VERDICTS[place["verdict"]]
    if place["difference"] is None:
        axes.text(0, y, f" {place['words'].partition(':')[0]}", va="center", color=colour)
        return
    seeds = list(place["differences"].values())
    axes.plot(seeds, [y - 0.16] * len(seeds), "|", color="0.4", ms=8)
    if place["low"] is not None:
        ends = [place["low"], place["high"]]
        axes.plot(ends, [y, y], "-", color=colour, lw=2.2, solid_capstyle="butt")
    axes.plot(place["difference"], y, "o", color=colour, ms=7)


def retuning(results: Results, pools: Mapping[str, Sequence[Trial]]) -> Figure:
    """The re-tune grid of every arm: losses against the learning rate."""
    figure, axes = canvas(results)
    axes.set_ylabel(LOSSES[results.metric])
    trials = [trial for pool in pools.values() for trial in pool]
    rate_axis(axes, trials)
    losses = [loss for pool in pools.values() for loss in shown_losses(results, list(pool))]
    if not losses:
        say_nothing(axes, "nothing measured yet")
        return figure
    set_limit(axes, losses)
    handles, above, row = [], False, 0
    for number, (name, pool) in enumerate(pools.items()):
        colour, mark = OKABE_ITO[number % len(OKABE_ITO)], MARKS[number % len(MARKS)]
        dash = DASHES[number // len(OKABE_ITO) % len(DASHES)]
        above = plot_rates(results, axes, list(pool), (colour, dash + mark), row) or above
        row += any(map(cross_of, pool))  # no arm's crosses on another's
        handles.append(entry(brief(name, 26), color=colour, ls=dash, marker=mark, ms=6))
    handles += level_entries(results, "#000000")
    if any(trial.status == "stopped" for trial in trials):
        handles.append(entry("stopped early there", **STOPPED | {"ms": 8}))
    if above:
        handles.append(entry("above the axis", **ABOVE))
    add_legend(figure, [*handles, *cross_entries(crosses_of(trials))])
    return figure


def against_value(results: Results, arms: Mapping[float, ArmRuns]) -> Figure:
    """Final losses against the value that the arms are made of, and against the time they took."""
    figure, left = canvas(results)
    left.remove()
    left, right = figure.subplots(1, 2, sharey=True)
    path = (results.sweep.request or {})["space"]["each"]["path"]
    ends = {
        value: [
            (t.curve[-1]["seconds"], t.curve[-1][results.metric]) for t in arm.having("finished")
        ]
        for value, arm in arms.items()
    }
    ends = {value: found for value, found in ends.items() if found}
    left.set_ylabel(LOSSES[results.metric])
    left.set_xlabel(plain(path))
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


def curves(results: Results, x: str) -> Figure:
    """The mean validation loss of every arm against x, with a band from the lowest to the highest
    seed."""
    figure, axes = canvas(results)
    unit, divisor = unit_of_time(results) if x == "seconds" else ("", 1.0)
    axes.set_xlabel(X_AXES[x] + (f" ({unit})" if unit else ""))
    axes.set_ylabel(LOSSES[results.metric])
    arms = arms_of(results.sweep)
    runs = [trial for arm in arms for trial in arm.runs.values()]
    sound = [trial for trial in runs if trial.curve and trial.status != "diverged"]
    if not sound:
        say_nothing(axes, "nothing measured yet")
        return figure
    top = set_limit(axes, [row[results.metric] for trial in sound for row in trial.curve])
    crosses, styles = crosses_of(runs), looks(arms)
    handles, row_of_crosses = [], 0
    for arm in arms:
        colour, dash = styles[arm.name]
        _band(axes, arm, results.metric, x, (colour, dash), divisor)
        for trial in arm.runs.values():
            kind, end = cross_of(trial), end_of(trial, x)
            if kind is not None and end is not None:
                draw_cross(axes, end / divisor, crosses[kind], colour, row_of_crosses)
            elif kind is None and trial.curve and end is not None:
                loss = trial.curve[-1][results.metric]
                mark_trouble(axes, end / divisor, loss, trial, colour)
                if loss > top:
                    mark_above(axes, end / divisor, colour)
        row_of_crosses += any(map(cross_of, arm.runs.values()))
        handles.append(entry(brief(arm.name, 26), color=colour, ls=dash))
    if any(len(arm.runs) > 1 for arm in arms):
        handles.append(entry("band: lowest to\nhighest seed", color="0.8", lw=6))
    if any(trial.curve[-1][results.metric] > top for trial in sound):
        handles.append(entry("ends above the axis", **ABOVE))
    axes.set_xlim(left=0)
    if x == "tokens":
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
    add_legend(figure, [*handles, *cross_entries(crosses)])
    return figure


def _band(
    axes: Axes, arm: ArmRuns, metric: str, x: str, look: tuple[str, str], divisor: float
) -> None:
    """Mean and range over the seeds of an arm, at the records that all of them have reached; beyond,
    where the time of some was enough for more, each of these alone."""
    alive = [t for t in arm.runs.values() if t.curve and t.status not in {"diverged", "failed"}]
    if not alive:
        return
    rows = list(zip(*(trial.curve for trial in alive), strict=False))
    along = [statistics.median(row[x] for row in each) / divisor for each in rows]
    losses = [[row[metric] for row in each] for each in rows]
    means = [statistics.fmean(each) for each in losses]
    colour, dash = look
    axes.plot(along, means, dash, color=colour, lw=1.6, ms=3)
    low, high = [min(each) for each in losses], [max(each) for each in losses]
    axes.fill_between(along, low, high, color=colour, alpha=0.2, lw=0)
    for trial in alive:
        rest = trial.curve[len(rows) - 1 :]
        if len(rest) > 1:
            further = [row[x] / divisor for row in rest]
            axes.plot(further, [row[metric] for row in rest], "-", color=colour, lw=0.7, alpha=0.7)
