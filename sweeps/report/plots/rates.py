"""Figures of the loss against the learning rate, with the edge of stability."""

import math
import statistics
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweeps.findings.everything import SearchFindings
from sweeps.findings.results import Results
from sweeps.findings.stability import LR, by_rate, rate_of
from sweeps.ledger import Trial
from sweeps.report.plots.look import (
    ABOVE,
    AUDITED,
    INTERVAL,
    KINDS,
    LOSSES,
    OKABE_ITO,
    RATES,
    STOPPED,
    Dashes,
    Marks,
    add_cross,
    add_legend,
    canvas,
    cross_entries,
    cross_of,
    crosses_of,
    ending_entries,
    entry,
    label_size,
    mark_above,
    mark_trouble,
    say_nothing,
    set_limit,
    whole,
    with_audits,
)
from sweeps.report.plots.trials import levels_of, tint
from sweeps.selection import Point, last_record, losses_at, when
from sweeps.text import show


def plot_rates(
    results: Results,
    axes: Axes,
    trials: list[Trial],
    look: tuple[str, Dashes, str],
    row: int | None = None,
) -> bool:
    """Draw losses against learning rates; returns whether a loss is above the axis.

    There is one line for each point at which trials are compared. Stopped trials have a frame
    around their last loss, and a mark at the end of their audit. Trials that diverged or failed have a
    cross at the upper edge, in the given row and in the color of the line if there are several lines.
    `look` is a color, dashes and a mark.
    """
    color, dashes, mark = look
    top, above, marks = axes.get_ylim()[1], False, Marks(axes)
    for level in levels_of(results):
        means = _means(results, trials, level.point)
        faded = tint(color, level.strength)
        inside = [loss if loss <= top else math.nan for loss in means.values()]
        size, width = (7, 1.8) if level.last else (4, 1.0)
        line: dict[str, Any] = {"ls": dashes, "marker": mark, "color": faded, "lw": width}
        axes.plot(list(means), inside, mec="white", mew=0.5, ms=size, **line)
    for trial in with_audits(results, trials):
        rate, kind = rate_of(trial), cross_of(trial)
        last = last_record(trial)
        if kind is not None:
            of_line = KINDS[kind].color if row is None else color
            add_cross(marks, rate, crosses_of([trial])[kind], of_line, row or 0)
        elif last is not None and last.loss(results.metric) > top:
            mark_above(marks, rate, color)
            above = True
        elif trial.status in {"finished", "stopped"} and last is not None:
            loss = last.loss(results.metric)
            mark_trouble(marks, rate, loss, trial, color)
            if trial.status == "stopped":
                marks.add(rate, loss, **STOPPED | {"mec": color, "ms": 8})
            elif trial.role == "audit":
                marks.add(rate, loss, **AUDITED | {"mec": color})
    marks.draw()
    return above


def _means(results: Results, trials: list[Trial], point: Point) -> dict[float, float]:
    """The mean loss at a point, for each rate with a measurement there."""
    losses = {
        rate: losses_at([t for t in each if t.status != "diverged"], point, results.metric)
        for rate, each in by_rate(whole(results, trials)).items()
    }
    return {rate: statistics.fmean(found) for rate, found in losses.items() if found}


def shown_losses(results: Results, trials: list[Trial]) -> list[float]:
    """The losses that `plot_rates` draws for the trials."""
    return [
        loss
        for level in levels_of(results)
        for loss in _means(results, trials, level.point).values()
    ]


def level_entries(results: Results, color: str) -> list[Line2D]:
    """The legend entries of the points."""
    return [
        entry(
            when(level.point),
            color=tint(color, level.strength),
            lw=1.8 if level.last else 1.0,
        )
        for level in reversed(levels_of(results))
    ]


def rate_axis(axes: Axes, trials: list[Trial]) -> None:
    """Make the x axis a logarithmic one of learning rates, with ticks at the rates that were tried."""
    axes.set_xscale("log")
    axes.set_xlabel("peak learning rate (optim.lr)")
    rates = sorted({rate_of(trial) for trial in trials if LR in trial.values})
    every = math.ceil(len(rates) / 12)
    axes.set_xticks(rates[::every], [f"{rate:.3g}" for rate in rates[::every]])
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", labelsize=label_size(len(rates[::every])))


def edge_of_stability(search: SearchFindings) -> Figure:
    """Losses against the rate, with the best, the highest stable, the first unstable and the first
    diverging rate, and the interval for the minimum of a fitted parabola."""
    results, found = search.results, search.stability
    figure, axes = canvas(results)
    axes.set_ylabel(LOSSES[results.metric])
    rate_axis(axes, results.trials)
    losses = shown_losses(results, results.trials)
    if not losses or found is None:
        say_nothing(axes, "no rate has finished yet")
        return figure
    set_limit(axes, losses)
    above = plot_rates(results, axes, results.trials, (OKABE_ITO[0], "-", "o"))
    handles = level_entries(results, OKABE_ITO[0])
    handles += ending_entries(results, results.trials, ms=8)
    for words, rate in found.edges.items():
        color, dash = RATES[words]
        if rate is not None:
            axes.axvline(rate, color=color, ls=dash, lw=1.2, zorder=1)
            handles.append(entry(f"{words}: {show(rate)}", color=color, ls=dash))
    fit = found.fit
    if fit is not None and fit.low is not None and fit.high is not None:
        axes.axvspan(fit.low, fit.high, color=INTERVAL, alpha=0.25, lw=0)
        words = f"minimum of a parabola:\n{fit.rate:.2g} ({fit.low:.2g} to {fit.high:.2g})"
        handles.append(entry(words, color=INTERVAL, alpha=0.5, lw=6))
    if above:
        handles.append(entry("above the axis", **ABOVE))
    crosses = crosses_of(with_audits(results, results.trials))
    add_legend(figure, [*handles, *cross_entries(crosses)])
    return figure
