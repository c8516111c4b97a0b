"""Figures of a sweep; the only module that imports matplotlib.

What a figure shows is told apart twice, by colour (viridis where values have an order, Okabe-Ito
where not, https://jfly.uni-koeln.de/color/) and by line or mark, so that it reads in black and
white. Nothing here has a date or a random part: the same ledger gives the same SVG, byte for byte.
"""

import io
import itertools
import math
import re
import statistics
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sweeps.ledger import Trial
from sweeps.study import Study, Swept, at
from sweeps.words import count, named, show

Colour = tuple[float, float, float]

STYLE: dict[str, Any] = {
    "svg.hashsalt": "sweeps",
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.dpi": 150,
}
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKS = ("o", "D", "v", "p", "h", "<", ">")
CROSSES = ("X", "x", "+", "1", "2")
# Up to so many trials have a name in the legend; more have a colour bar or share a name.
NAMED = 12
# Without its light end, which vanishes on paper.
ORDERED = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256)))
# No axis reaches further above the losses' upper quartile than this many times its height.
REACH = 1.5

X_AXES = {
    "step": "updates",
    "tokens": "training tokens",
    "seconds": "training time without evaluation",
}
LOSSES = {
    "val_loss": "validation loss (nats per token)",
    "bits_per_byte": "validation loss (bits per byte)",
}


def draw(of: Study) -> dict[str, bytes]:
    """Every figure of a sweep, as file name -> content of an SVG and of a PNG file."""
    with matplotlib.style.context(["default", STYLE]):
        return {
            f"{name}.{kind}": content
            for name, figure in figures(of).items()
            for kind, content in render(figure).items()
        }


def figures(of: Study) -> dict[str, Figure]:
    """Every figure of a sweep by its name."""
    against = {f"loss_vs_{swept.name}": _loss_against(of, swept) for swept in of.swept}
    return against | {f"loss_by_{x}": _learning_curves(of, x) for x in X_AXES}


def render(figure: Figure) -> dict[str, bytes]:
    """A figure as `svg` and as `png`."""
    with warnings.catch_warnings():
        # A question may be in a script that the font lacks; boxes are drawn for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        svg = _saved(figure, "svg", {"Date": None})
        figure.set_layout_engine("none")  # laid out once, for both kinds of file
        return {"svg": svg, "png": _saved(figure, "png", {})}


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, metadata=metadata)
    return stream.getvalue()


# What the figures share -------------------------------------------------------------------------


def _text(words: str) -> str:
    """Words as matplotlib shows them: a dollar begins no formula, an underscore hides nothing."""
    shown = words.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _brief(words: str, width: int) -> str:
    return _text(textwrap.shorten(words, width, placeholder="…"))


def _canvas(of: Study) -> tuple[Figure, Axes]:
    """An empty figure under the question and the size of the sweep."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    question = textwrap.wrap(of.question, 74, max_lines=3, placeholder=" …")
    figure.suptitle(_text("\n".join(question)), x=0.01, ha="left", size=11, weight="bold")
    axes = figure.subplots()
    params = sorted({trial.params for trial in of.trials})
    size = " to ".join(count(number) for number in sorted({*params[:1], *params[-1:]}))
    seeds = len({trial.seed for trial in of.trials})
    results = len(of.trials) - len(of.having("unfinished"))
    parts = [
        of.name,
        f"{results} of {len(of.trials)} trials have a result",
        *([f"{size} parameters"] if size else []),
        "one seed" if seeds == 1 else f"{seeds} seeds",
    ]
    axes.set_title(_text(" · ".join(parts)), loc="left", size=8, color="0.35", pad=10)
    return figure, axes


def _limit(axes: Axes, losses: Sequence[float]) -> float:
    """Set the loss axis so that a few huge losses do not flatten the rest; its top."""
    if not losses:
        return axes.get_ylim()[1]
    low, quartile = np.min(losses), np.percentile(losses, 75)
    high = min(np.max(losses), quartile + REACH * (quartile - low))
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    top = float(high + margin)
    axes.set_ylim(low - margin, top)
    return top


def _mark_above(axes: Axes, x: float, colour: Any) -> None:
    axes.plot(x, 0.95, "^", color=colour, ms=7, transform=axes.get_xaxis_transform(), zorder=4)


def _handle(label: str, **look: Any) -> Line2D:
    return Line2D([], [], label=_text(label), **look)


ABOVE = {"marker": "^", "ls": "", "color": "0.3", "ms": 7}
STOPPED: dict[str, Any] = {"marker": "s", "mfc": "none", "mec": "black", "ms": 9, "ls": ""}


def divergence(trial: Trial) -> str:
    """The kind of a divergence: its reason up to the numbers of the one case."""
    return re.split(r" (?:at step|\()", trial.reason)[0]


def _crosses(trials: Iterable[Trial]) -> dict[str, str]:
    """A cross for each kind of divergence, and one for failures."""
    kinds = [f"diverged: {divergence(t)}" for t in trials if t.status == "diverged"]
    failed = ["failed"] if any(t.status == "failed" for t in trials) else []
    return {
        kind: CROSSES[number % len(CROSSES)]
        for number, kind in enumerate(dict.fromkeys([*kinds, *failed]))
    }


def _cross(trial: Trial) -> str | None:
    if trial.status == "diverged":
        return f"diverged: {divergence(trial)}"
    return "failed" if trial.status == "failed" else None


def _draw_cross(axes: Axes, x: float, mark: str, colour: Any) -> None:
    """A mark on the upper edge of the axes: there is no loss to put it at."""
    axes.plot(
        x,
        1.0,
        mark,
        color=colour,
        ms=11 if mark == "X" else 8,
        mew=1.0 if mark == "X" else 2.0,
        mec="white" if mark == "X" else colour,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        zorder=5,
    )


def _cross_handles(crosses: dict[str, str]) -> list[Line2D]:
    return [
        _handle(textwrap.fill(kind, 34), marker=mark, ls="", color="0.2", ms=8)
        for kind, mark in crosses.items()
    ]


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend outside of the axes, where it covers nothing."""
    if handles:
        figure.legend(handles=handles, loc="outside right center")


def _nothing(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set_yticks([])


# Learning curves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Looks:
    """How the trials are told apart: colour and dashes of each, and what explains them."""

    colours: dict[str, Any]  # by trial
    dashes: dict[str, str]
    scale: ScalarMappable | None  # explained by a colour bar
    ordered: Swept | None  # the path of the scale
    names: dict[str, str]  # trial -> what it is called in the legend; empty for no entry


def _naming(of: Study) -> tuple[bool, Callable[[Trial], str]]:
    """Whether the legend has room to name all, and what it calls a trial.

    That is the trial's values, which its seeds share, or its label where there is nothing but
    seeds; where these are too many, its value of the first path that has no order.
    """
    choices = {named(trial.values) for trial in of.trials}
    if len(choices) == 1 and len(of.trials) <= NAMED:
        return True, lambda trial: trial.label
    if 1 < len(choices) <= NAMED:
        return True, lambda trial: named(trial.values)
    category = next((s for s in of.swept if not s.numeric and len(s.values) > 1), None)
    if category is None:
        return False, lambda trial: ""
    path, name = category.path, category.name
    return False, lambda t: f"{name}={show(t.values[path])}" if path in t.values else ""


def _looks(of: Study) -> _Looks:
    ordered = next((s for s in of.swept if s.numeric and len(s.values) > 1), None)
    trials = of.trials
    if ordered is not None:
        trials = sorted(trials, key=lambda t: t.values.get(ordered.path, math.inf))
    apart, name_of = _naming(of)
    names = {trial.trial: name_of(trial) for trial in trials}
    number = {name: index for index, name in enumerate(dict.fromkeys(names.values()))}
    dashes = {trial: DASHES[number[name] % len(DASHES)] for trial, name in names.items()}
    if ordered is None:
        plain = {t: OKABE_ITO[number[name] % len(OKABE_ITO)] for t, name in names.items()}
        return _Looks(plain, dashes, None, None, names)
    norm = (LogNorm if ordered.log else Normalize)(ordered.values[0], ordered.values[-1])
    scale = ScalarMappable(norm, ORDERED)
    colours = {
        t.trial: scale.to_rgba(t.values[ordered.path]) if ordered.path in t.values else "0.5"
        for t in trials
    }
    return _Looks(colours, dashes, None if apart else scale, ordered, names)


def _colour_bar(figure: Figure, axes: Axes, looks: _Looks) -> None:
    if looks.scale is None or looks.ordered is None:
        return
    bar = figure.colorbar(looks.scale, ax=axes, label=_text(looks.ordered.path), pad=0.02)
    _value_ticks(bar.ax.yaxis, looks.ordered)


def _value_ticks(axis: Any, swept: Swept) -> None:
    """Ticks at the values themselves where these are few, in plain figures."""
    if len(swept.values) <= NAMED:
        axis.set_major_locator(FixedLocator(list(swept.values)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: show(float(value))))


def _curve_handles(of: Study, looks: _Looks, *, train: bool) -> list[Line2D]:
    first = {name: trial for trial, name in reversed(looks.names.items()) if name}
    grey = looks.scale is not None
    handles = [
        _handle(
            textwrap.shorten(name, 34, placeholder="…"),
            color="0.3" if grey else looks.colours[first[name]],
            ls=looks.dashes[first[name]],
        )
        for name in dict.fromkeys(looks.names.values())
        if name
    ]
    if train:
        handles.append(_handle("thin: training loss", color="0.5", lw=0.7))
    if of.having("stopped"):
        handles.append(_handle("stopped early", **STOPPED | {"ms": 6}))
    return handles + _cross_handles(_crosses(of.trials))


def _unit_of_time(of: Study) -> tuple[str, float]:
    """Seconds, minutes or hours, whichever shows the longest training in two or three digits."""
    longest = max((t.curve[-1]["seconds"] for t in of.trials if t.curve), default=0)
    return ("hours", 3600) if longest > 7200 else ("minutes", 60) if longest > 300 else ("s", 1)


def _end(trial: Trial, x: str) -> float | None:
    """Where on the axis a trial ended; of the time it took to diverge only the measured is known."""
    if x == "seconds":
        return trial.curve[-1]["seconds"] if trial.curve else None
    end: int = getattr(trial, x)
    return end


def _learning_curves(of: Study, x: str) -> Figure:
    """Validation loss, and training loss where it stays readable, of every trial against x."""
    figure, axes = _canvas(of)
    unit, divisor = _unit_of_time(of) if x == "seconds" else ("", 1)
    axes.set_xlabel(X_AXES[x] + (f" ({unit})" if unit else ""))
    axes.set_ylabel("loss (nats per token)")
    measured = [trial for trial in of.trials if trial.curve]
    if not measured:
        _nothing(axes, "nothing measured yet")
        return figure
    looks, crosses = _looks(of), _crosses(of.trials)
    train = len(measured) <= NAMED
    sound = [trial for trial in measured if trial.status != "diverged"] or measured
    kinds = ("val_loss", "train_loss") if train else ("val_loss",)
    top = _limit(axes, [row[kind] for trial in sound for row in trial.curve for kind in kinds])
    above = False
    for trial in of.trials:
        colour, dashes = looks.colours[trial.trial], looks.dashes[trial.trial]
        along = [row[x] / divisor for row in trial.curve]
        losses = [row["val_loss"] for row in trial.curve]
        end = _end(trial, x)
        if train:
            thin = [row["train_loss"] for row in trial.curve]
            axes.plot(along, thin, dashes, color=colour, lw=0.7, alpha=0.6)
        dot = "o" if len(along) == 1 else ""
        axes.plot(along, losses, dashes, marker=dot, color=colour, lw=1.6 if train else 1.0, ms=3)
        if trial.status == "stopped":
            axes.plot(along[-1:], losses[-1:], **STOPPED | {"mec": colour, "ms": 5}, zorder=4)
        kind = _cross(trial)
        if trial.status == "failed" and losses and losses[-1] <= top:
            axes.plot(along[-1:], losses[-1:], crosses["failed"], color=colour, ms=8, zorder=4)
        elif kind is not None and end is not None:
            _draw_cross(axes, end / divisor, crosses[kind], colour)
        elif losses and losses[-1] > top:
            _mark_above(axes, along[-1], colour)
            above = True
    axes.set_xlim(left=0)
    if x == "tokens":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    _colour_bar(figure, axes, looks)
    handles = _curve_handles(of, looks, train=train)
    _legend(figure, [*handles, *([_handle("ends above the axis", **ABOVE)] if above else [])])
    return figure


# Loss against a swept path ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    """A token count at which trials are compared, and how strongly it is drawn."""

    tokens: int
    strength: float  # 1 for the end of the training, less the earlier it is
    last: bool


def _levels(of: Study) -> list[_Level]:
    counts = sorted({*of.rungs, *(n for n in (of.common, of.final) if n is not None)})
    strengths = np.linspace(0.4, 0.7, max(len(counts) - 1, 1))
    return [
        _Level(tokens, 1.0, last=True)
        if tokens == counts[-1]
        else _Level(tokens, float(strengths[number]), last=False)
        for number, tokens in enumerate(counts)
    ]


def _tint(colour: str, strength: float) -> Colour:
    """The colour, mixed with white."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _series(of: Study, swept: Swept) -> dict[str, list[Trial]]:
    """The trials that have the path, together where all other values are the same."""
    found: dict[str, list[Trial]] = {}
    for trial in of.trials:
        if swept.path in trial.values:
            others = {path: v for path, v in trial.values.items() if path != swept.path}
            found.setdefault(named(others), []).append(trial)
    return found


@dataclass(frozen=True)
class _Point:
    x: float
    tokens: int
    loss: float
    trial: Trial


def _points(
    of: Study, trials: Iterable[Trial], level: _Level, place: Callable[[Any], float], path: str
) -> list[_Point]:
    """The trials measured at the level, by rising x."""
    found = [
        _Point(place(trial.values[path]), level.tokens, row[of.metric], trial)
        for trial in trials
        if (row := at(trial, level.tokens)) is not None
    ]
    return sorted(found, key=lambda point: point.x)


def _means(points: Sequence[_Point]) -> Iterator[tuple[float, float]]:
    """The mean over seeds at each x."""
    for x in dict.fromkeys(point.x for point in points):
        yield x, statistics.fmean(point.loss for point in points if point.x == x)


def _draw_level(
    axes: Axes,
    points: Sequence[_Point],
    level: _Level,
    look: tuple[str, str],
    *,
    line: bool,
    bar: bool,
) -> None:
    """The points of one level, and a line through their means that breaks above the axis, or a
    bar at each mean."""
    colour, mark = look
    tint = _tint(colour, level.strength)
    means, top = list(_means(points)), axes.get_ylim()[1]
    if line:
        along, losses = zip(*means, strict=True)
        inside = [loss if loss <= top else math.nan for loss in losses]
        axes.plot(along, inside, color=tint, lw=1.8 if level.last else 1.1)
    elif bar and len(means) < len(points):
        axes.plot(*zip(*means, strict=True), "_", color=tint, ms=30, mew=1.5)
    axes.plot(
        [point.x for point in points],
        [point.loss for point in points],
        mark,
        color=tint,
        mec="white",
        mew=0.5,
        ms=7 if level.last else 5,
        zorder=3,
    )
    for point in points:
        if point.loss > top:
            _mark_above(axes, point.x, colour)


def _loss_against(of: Study, swept: Swept) -> Figure:
    """The loss at every rung and at the end against one path: equal tokens on every line."""
    figure, axes = _canvas(of)
    axes.set_xlabel(_text(swept.path))
    axes.set_ylabel(LOSSES[of.metric])
    place: Callable[[Any], float] = float if swept.numeric else swept.values.index
    series, levels, crosses = _series(of, swept), _levels(of), _crosses(of.trials)
    bar = len(series) == 1  # all trials with one value differ by their seed alone
    joined = swept.numeric and len(series) <= len(MARKS) and len(series) < len(of.trials)
    if not joined:
        series = {"": [trial for trials in series.values() for trial in trials]}
    looks = {name: (OKABE_ITO[i], MARKS[i]) for i, name in enumerate(series)}
    drawn = {
        (name, level): [
            point
            for point in _points(of, trials, level, place, swept.path)
            if point.trial.status != "diverged"
        ]
        for name, trials in series.items()
        for level in levels
    }
    shown = [point for points in drawn.values() for point in points]
    top = _limit(axes, [point.loss for point in shown])
    for (name, level), points in drawn.items():
        if points:
            _draw_level(axes, points, level, looks[name], line=joined, bar=bar)
    _mark_stopped(axes, shown)
    for name, trials in series.items():
        colour = looks[name][0] if len(series) > 1 else OKABE_ITO[1]
        for trial in trials:
            kind = _cross(trial)
            if kind is not None:
                _draw_cross(axes, place(trial.values[swept.path]), crosses[kind], colour)
    _value_axis(axes, swept)
    if shown:
        handles = _level_handles(levels, series, looks, line=joined, bar=bar)
    else:
        handles = []
        _nothing(axes, "nothing to compare yet")
    if of.having("stopped"):
        handles.append(_handle("stopped early there", **STOPPED))
    if any(point.loss > top for point in shown):
        handles.append(_handle("above the axis", **ABOVE))
    _legend(figure, handles + _cross_handles(crosses))
    return figure


def _mark_stopped(axes: Axes, points: Sequence[_Point]) -> None:
    """A frame around the latest comparison of each stopped trial."""
    latest: dict[str, _Point] = {}
    for point in sorted(points, key=lambda point: point.tokens):
        if point.trial.status == "stopped":
            latest[point.trial.trial] = point
    look: dict[str, Any] = STOPPED | {"ms": 9 if len(latest) <= NAMED else 6}
    for point in latest.values():
        axes.plot(point.x, point.loss, zorder=4, **look)


def _value_axis(axes: Axes, swept: Swept) -> None:
    if not swept.numeric:
        axes.set_xticks(range(len(swept.values)), [_brief(show(v), 24) for v in swept.values])
        axes.set_xlim(-0.5, len(swept.values) - 0.5)
        return
    if swept.log:
        axes.set_xscale("log")
    _value_ticks(axes.xaxis, swept)
    low, high = swept.values[0], swept.values[-1]
    if swept.log and low < high:
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    elif low < high:
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _level_handles(
    levels: Sequence[_Level],
    series: Mapping[str, Sequence[Trial]],
    looks: Mapping[str, tuple[str, str]],
    *,
    line: bool,
    bar: bool,
) -> list[Line2D]:
    names = [name for name in series if name]
    handles = [
        _handle(
            textwrap.shorten(name, 34, placeholder="…"),
            color=looks[name][0],
            marker=looks[name][1],
            ms=6,
        )
        for name in names
    ]
    colour = "#000000" if names else OKABE_ITO[0]
    handles += [
        _handle(
            f"at {level.tokens:,} tokens",
            color=_tint(colour, level.strength),
            marker="o",
            ls="-" if line and not names else "",
            lw=1.8 if level.last else 1.1,
            ms=7 if level.last else 5,
        )
        for level in reversed(levels)
    ]
    seeds = any(len({t.seed for t in trials}) > 1 for trials in series.values())
    if seeds and (line or bar):
        words = "line" if line else "bar"
        handles.append(_handle(f"{words}: mean", marker="" if line else "_", ls="-", color="0.4"))
    return handles


# Policies ----------------------------------------------------------------------------------------


def cost_against_regret(found: Mapping[str, Mapping[str, Any]], kind: str) -> bytes:
    """What each policy costs and how far from the best it ends, as the content of a file of a kind
    that matplotlib writes."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for (name, result), colour, mark in zip(
            sorted(found.items()), itertools.cycle(OKABE_ITO), itertools.cycle(MARKS), strict=False
        ):
            regret = result["regret"]
            if regret["mean"] is None:  # nothing has finished in any replay
                continue
            spread = [
                [regret["mean"] - max(regret["low"], 0.0)], [regret["high"] - regret["mean"]]
            ] if regret["low"] is not None else None  # fmt: skip
            axes.errorbar(
                [100 * result["cost"]], [regret["mean"]], yerr=spread, fmt=mark, color=colour,
                capsize=3, label=f"{name}: best kept {result['best_kept']:.0%}", clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("cost (% of the tokens of all trials trained to their ends)")
        axes.set_ylabel("regret of the final score (mean, 95% interval)")
        axes.set_xlim(0, 105)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
        return _saved(figure, kind, {"Date": None} if kind == "svg" else {})
