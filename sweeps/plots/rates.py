"""The loss against the learning rate, and where training stops being stable."""

import math
import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.ledger import Trial
from sweeps.plots.look import (
    ABOVE,
    LOSSES,
    OKABE_ITO,
    STOPPED,
    add_legend,
    canvas,
    cross_entries,
    cross_of,
    crosses_of,
    draw_cross,
    entry,
    mark_above,
    say_nothing,
    set_limit,
)
from sweeps.stability import LR, by_rate, stability
from sweeps.study import Study
from sweeps.words import show


def plot_rates(
    axes: Axes, trials: list[Trial], metric: str, look: tuple[str, str], top: float
) -> None:
    """The last losses of trials against their rates: a line through the finished ones, frames around
    those that were stopped, crosses for those that diverged or failed."""
    colour, mark = look
    rates = by_rate(trials)
    ends = {
        rate: [t.curve[-1][metric] for t in each if t.status == "finished"]
        for rate, each in rates.items()
    }
    means = {rate: statistics.fmean(found) for rate, found in ends.items() if found}
    inside = [loss if loss <= top else math.nan for loss in means.values()]
    axes.plot(list(means), inside, color=colour, lw=1.5)
    for trial in trials:
        rate, crosses = float(trial.values[LR]), crosses_of([trial])
        kind = cross_of(trial)
        if kind is not None:
            draw_cross(axes, rate, crosses[kind], colour)
        elif trial.curve and trial.curve[-1][metric] > top:
            mark_above(axes, rate, colour)
        elif trial.status == "finished":
            axes.plot(rate, trial.curve[-1][metric], mark, color=colour, mec="white", ms=7)
        elif trial.curve:
            frame = STOPPED | {"mec": colour, "ms": 7}
            axes.plot(rate, trial.curve[-1][metric], **frame)


def rate_axis(axes: Axes, trials: list[Trial]) -> None:
    """A logarithmic axis of learning rates with the rates that were tried as its ticks."""
    axes.set_xscale("log")
    axes.set_xlabel("peak learning rate (optim.lr)")
    rates = sorted({float(trial.values[LR]) for trial in trials if LR in trial.values})
    every = math.ceil(len(rates) / 12)
    axes.set_xticks(rates[::every], [show(rate) for rate in rates[::every]])
    axes.set_xticks([], minor=True)


def last_losses(trials: list[Trial], metric: str) -> list[float]:
    """The last losses of the trials that did not diverge."""
    return [t.curve[-1][metric] for t in trials if t.curve and t.status != "diverged"]


def edge_of_stability(of: Study) -> Figure:
    """Last losses against the rate, with the best, the highest stable and the first diverging rate,
    and the parabola around the minimum."""
    figure, axes = canvas(of)
    axes.set_ylabel(LOSSES[of.metric])
    rate_axis(axes, of.trials)
    losses = last_losses(of.trials, of.metric)
    found = stability(of.trials, of.metric)
    if not losses or found is None:
        say_nothing(axes, "no rate has been trained to its end yet")
        return figure
    top = set_limit(axes, losses)
    plot_rates(axes, of.trials, of.metric, (OKABE_ITO[0], "o"), top)
    handles = [entry("finished", marker="o", color=OKABE_ITO[0])]
    if of.having("stopped"):
        handles.append(entry("stopped early: last loss there", **STOPPED | {"ms": 7}))
    for name, words, colour, dash in (
        ("best", "best", OKABE_ITO[2], "-"),
        ("highest_stable", "highest stable", OKABE_ITO[4], "--"),
        ("first_diverging", "first diverging", OKABE_ITO[1], ":"),
    ):
        if found[name] is not None:
            axes.axvline(found[name], color=colour, ls=dash, lw=1.2, zorder=1)
            handles.append(entry(f"{words}: {show(found[name])}", color=colour, ls=dash))
    fit = found["fit"]
    if fit is not None and fit["low"] is not None:
        axes.axvspan(fit["low"], fit["high"], color=OKABE_ITO[5], alpha=0.25, lw=0)
        words = f"minimum of a parabola:\n{fit['rate']:.2g} ({fit['low']:.2g} to {fit['high']:.2g})"
        handles.append(entry(words, color=OKABE_ITO[5], alpha=0.5, lw=6))
    if any(loss > top for loss in losses):
        handles.append(entry("above the axis", **ABOVE))
    add_legend(figure, [*handles, *cross_entries(crosses_of(of.trials))])
    return figure
