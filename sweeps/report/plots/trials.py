"""Figures of trials: learning curves, and the loss against a swept path."""

import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from sweeps.findings.compute import cost_and_loss
from sweeps.findings.optimism import confirming
from sweeps.findings.results import Results, SweptPath, status_of
from sweeps.ledger import Trial
from sweeps.report.plots.look import (
    ABOVE,
    AUDITED,
    CROSSES,
    DASHES,
    GRAY,
    KINDS,
    LOSSES,
    MARKS,
    NAMED,
    OKABE_ITO,
    ORDERED,
    STOPPED,
    Color,
    Dashes,
    End,
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
    mark_of,
    mark_trouble,
    name_ends,
    plain,
    say_nothing,
    set_limit,
    unit_of_time,
    value_ticks,
    whole,
    with_audits,
)
from sweeps.report.thinning import spread_points, thinned
from sweeps.selection import END, Measured, Point, at, last_record, when
from sweeps.text import count, named, show

_BEST = 5  # curves that are named where a color bar explains the others
_FRESH: dict[str, Any] = {"color": "black", "ls": ":", "lw": 1.3}  # of a confirmation run
Place = Callable[[Measured], float]
XAxis = Literal["step", "tokens", "seconds"]
X_AXES: dict[XAxis, str] = {
    "step": "updates",
    "tokens": "training tokens",
    "seconds": "training time without evaluation",
}


@dataclass(frozen=True)
class Looks:
    """The color and dashes of each trial, and the legend or color bar that explains them."""

    colors: dict[str, Any]  # by trial
    dashes: dict[str, Dashes]
    marks: dict[str, dict[str, Any]]  # the mark of a single point
    scale: ScalarMappable | None  # of the color bar, if there is one
    ordered: SweptPath | None  # the path that the colors show
    names: dict[str, str]  # trial -> its name in the legend; empty for no entry
    apart: bool  # whether the names tell all values apart
    shares: dict[str, float]  # the place of a trial's value on the color scale, from 0 to 1


def _naming(results: Results) -> tuple[bool, Callable[[Trial], str]]:
    """Whether the legend can name all trials, and the name of a trial.

    The name is the trial's values, without the seed, or its label if only seeds differ. If these
    would be too many names, it is the trial's value of the first path that is not numeric.
    """
    choices = {named(trial.values) for trial in results.trials}
    if len(choices) == 1 and len(results.trials) <= NAMED:
        return True, lambda trial: trial.label
    if 1 < len(choices) <= NAMED:
        return True, lambda trial: named(trial.values)
    category = next((s for s in results.swept if not s.numeric and len(s.values) > 1), None)
    if category is None:
        return False, lambda trial: ""
    path, name = category.path, category.name
    return False, lambda t: f"{name}={show(t.value(path))}" if path in t.values else ""


def colored_path(results: Results) -> SweptPath | None:
    """The path that the colors of trials show; None if they only tell trials apart."""
    return next((s for s in results.swept if s.numeric and len(s.values) > 1), None)


def looks_of(results: Results) -> Looks:
    """The look of each trial, and of each audit that has ended: by its value of the first numeric path
    that several were tried of, else by its name."""
    ordered = colored_path(results)
    trials = results.trials
    if ordered is not None:
        trials = sorted(
            trials, key=lambda t: t.value(ordered.path) if ordered.path in t.values else math.inf
        )
    apart, name_of = _naming(results)
    names = {trial.trial: name_of(trial) for trial in trials}
    number = {name: index for index, name in enumerate(dict.fromkeys(names.values()))}
    audited = _audited(results)  # an audit looks like its trial
    names |= {audit: names[trial.trial] for audit, trial in audited.items()}
    dashes = {trial: DASHES[number[name] % len(DASHES)] for trial, name in names.items()}
    marks = {trial: mark_of(number[name]) for trial, name in names.items()}
    if ordered is None:
        plain = {t: OKABE_ITO[number[name] % len(OKABE_ITO)] for t, name in names.items()}
        return Looks(plain, dashes, marks, None, None, names, apart, {})
    norm = (LogNorm if ordered.log else Normalize)(ordered.values[0], ordered.values[-1])
    scale = ScalarMappable(norm, ORDERED)
    colored = [trial for trial in trials if ordered.path in trial.values]
    places = norm(np.array([trial.value(ordered.path) for trial in colored], float))
    ends = sorted({p for p, t in zip(places, colored, strict=True) if status_of(t) == "finished"})
    # Without a color bar: so that near values look different, and a single one can be read.
    if apart and ends:
        spread = np.linspace(0.15, 0.85, len(ends)) if len(ends) > 1 else [0.5]
        places = np.interp(places, [-0.01, *ends, 1.01], [0.0, *spread, 1.0])
    shares = {t.trial: float(place) for t, place in zip(colored, places, strict=True)}
    colors: dict[str, Any] = {trial.trial: "0.5" for trial in trials}
    colors |= {trial: ORDERED(share) for trial, share in shares.items()}
    colors |= {audit: colors[trial.trial] for audit, trial in audited.items()}
    return Looks(colors, dashes, marks, None if apart else scale, ordered, names, apart, shares)


def _audited(results: Results) -> dict[str, Trial]:
    """The stopped trials whose audit has ended, by the id of the audit."""
    return {audit.trial: t for t in results.trials if (audit := results.ended_audit(t))}


def _color_bar(figure: Figure, axes: Axes, looks: Looks) -> None:
    if looks.scale is None or looks.ordered is None:
        return
    bar = figure.colorbar(looks.scale, ax=axes, label=plain(looks.ordered.path), pad=0.02)
    value_ticks(bar.ax.yaxis, looks.ordered)


def _legend_color(looks: Looks, trial: str) -> Any:
    """The color of a trial in a legend; gray where a color bar shows its colors."""
    return looks.colors[trial] if looks.scale is None else "0.3"


def _bright(results: Results) -> set[str]:
    """The trials whose curves are colored: those that were not stopped early or lost, and audits that
    finished, with their trials; all if there are none."""
    whole_ones = {
        name
        for trial, end in zip(results.trials, whole(results, results.trials), strict=True)
        if end.curve and status_of(end) in {"finished", "unfinished"}
        for name in (trial.trial, end.trial)
    }
    return whole_ones or {trial.trial for trial in with_audits(results, results.trials)}


def _ends(results: Results, looks: Looks, bright: set[str], place: Place) -> list[End]:
    """The ends of the colored curves, of those with one name the furthest; where a color bar explains the
    others, those of the best."""
    found: dict[str, End] = {}
    for trial in whole(results, results.trials):
        last = last_record(trial)
        if trial.trial in bright and last is not None:
            name = looks.names[trial.trial] if looks.apart else named(trial.values)
            words = textwrap.shorten(name, 34, placeholder="…")
            end = End(place(last), last.val_loss, words, looks.colors[trial.trial])
            found[name] = max(found.get(name, end), end, key=lambda end: (end.x, -end.y))
    return sorted(found.values(), key=lambda end: end.y)[: NAMED if looks.apart else _BEST]


def _curve_handles(
    results: Results, looks: Looks, *, named_at_end: bool, gray: bool, train: bool
) -> list[Line2D]:
    first = {name: trial for trial, name in reversed(looks.names.items()) if name}
    names = [] if named_at_end and looks.apart else dict.fromkeys(looks.names.values())
    handles = [
        entry(
            textwrap.shorten(name, 34, placeholder="…"),
            color=_legend_color(looks, first[name]),
            ls=looks.dashes[first[name]],
        )
        for name in names
        if name
    ]
    if gray:
        handles.append(entry("stopped early, or lost", color=GRAY, lw=0.7))
    if train:
        handles.append(entry("thin: training loss", color="0.5", lw=0.7))
    return handles + ending_entries(results, results.trials, ms=6)


def place_on(x: XAxis, record: Measured) -> float:
    """The x position of a record."""
    match x:
        case "step":
            return record.step
        case "tokens":
            return record.tokens
        case "seconds":
            return record.seconds


def end_of(trial: Trial, x: XAxis) -> float | None:
    """The x position of a trial's end; in seconds, that of its last record."""
    match x:
        case "step":
            return trial.step
        case "tokens":
            return trial.tokens
        case "seconds":
            last = last_record(trial)
            return last and last.seconds


def learning_curves(results: Results, x: XAxis, *, named_at_end: bool = True) -> Figure:
    """The validation loss of each trial against x, of the audits from where their trials were stopped, and
    of the confirmation runs; with few trials, the training loss as well. Those that were stopped early or
    lost are gray, and the names of the others stand at the ends of their curves or in the legend."""
    figure, axes = canvas(results)
    unit, divisor = unit_of_time(results) if x == "seconds" else ("", 1)
    axes.set_xlabel(X_AXES[x] + (f" ({unit})" if unit else ""))
    axes.set_ylabel("loss (nats per token)")
    measured = [trial for trial in results.trials if trial.curve]
    if not measured:
        say_nothing(axes, "nothing measured yet")
        return figure
    drawn = with_audits(results, results.trials)
    fresh = [trial for trial in confirming(results) if trial.curve]
    looks, crosses = looks_of(results), crosses_of([*drawn, *fresh])
    train = len(measured) <= NAMED
    sound = [t for t in (*drawn, *fresh) if t.curve and t.status != "diverged"] or measured
    names = ("val_loss", "train_loss") if train else ("val_loss",)
    set_limit(axes, [row[name] for name in names for trial in sound for row in trial.curve])
    bright = _bright(results)
    gray = [trial.trial for trial in drawn if trial.curve and trial.trial not in bright]
    named_at_end = (
        named_at_end and not results.budgets_differ and (looks.apart or looks.scale is not None)
    )
    if named_at_end:
        looks = replace(looks, colors=looks.colors | dict.fromkeys(gray, GRAY))
    _draw_curves(axes, _curves(results, drawn, x, divisor), looks, set(gray), train=train)
    for curve in _curves(results, fresh, x, divisor):
        axes.plot(curve.along, curve.losses, **_FRESH, zorder=3)
    marks = Marks(axes)
    ends = [_mark_end(marks, trial, x, divisor, looks.colors[trial.trial]) for trial in drawn]
    ends += [_mark_end(marks, trial, x, divisor, _FRESH["color"]) for trial in fresh]
    marks.draw()
    axes.set_xlim(left=0)
    if x == "tokens":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    _color_bar(figure, axes, looks)
    if named_at_end:
        ends_of = _ends(results, looks, bright, lambda record: place_on(x, record) / divisor)
        name_ends(axes, ends_of)
    handles = _curve_handles(
        results, looks, named_at_end=named_at_end, gray=named_at_end and bool(gray), train=train
    )
    handles += [entry("ends above the axis", **ABOVE)] if any(ends) else []
    handles += [entry("confirmation runs", **_FRESH)] if fresh else []
    add_legend(figure, [*handles, *cross_entries(crosses)], below=named_at_end)
    return figure


@dataclass(frozen=True)
class _Curve:
    trial: Trial
    along: list[float]
    losses: list[float]
    train_losses: list[float]


def _curves(results: Results, drawn: Sequence[Trial], x: XAxis, divisor: float) -> Iterator[_Curve]:
    """The measured trials, thinned to what can be seen."""
    # The part of an audit's curve that is its own begins where its trial was stopped.
    begins = {audit: len(trial.curve) - 1 for audit, trial in _audited(results).items()}
    points = spread_points(len(drawn))
    for trial in drawn:
        if not trial.curve:
            continue
        begin = begins.get(trial.trial, 0)
        shown = thinned(trial, points, {trial.curve[begin]["tokens"], *results.rungs_of(trial)})
        curve = [Measured(trial.curve[number]) for number in shown if number >= begin]
        yield _Curve(
            trial,
            [place_on(x, record) / divisor for record in curve],
            [record.val_loss for record in curve],
            [record.train_loss for record in curve],
        )


def _draw_curves(
    axes: Axes, curves: Iterable[_Curve], looks: Looks, gray: set[str], *, train: bool
) -> None:
    """Draw the curves: few of them one by one, with their training losses, and many by one call; the gray
    ones thin, behind the others and without training losses."""
    paths, colors, styles, widths, dots = [], [], [], [], Marks(axes)
    for curve in sorted(curves, key=lambda curve: curve.trial.trial not in gray):
        name = curve.trial.trial
        color, dashes = looks.colors[name], looks.dashes[name]
        if train and name not in gray:
            axes.plot(curve.along, curve.train_losses, ls=dashes, color=color, lw=0.7, alpha=0.6)
            width = 1.0 if curve.trial.role == "audit" else 1.6
            axes.plot(curve.along, curve.losses, ls=dashes, color=color, lw=width)
        else:
            paths.append(list(zip(curve.along, curve.losses, strict=True)))
            colors.append(color)
            styles.append(dashes)
            widths.append(0.7 if name in gray else 1.0)
        if len(curve.along) == 1:
            dots.add(curve.along[0], curve.losses[0], marker="o", color=color, ms=3)
    if paths:
        lines = LineCollection(paths, colors=colors, linestyles=styles, linewidths=widths)
        axes.add_collection(lines)
        axes.autoscale_view(scaley=False)
    dots.draw()


def _mark_end(marks: Marks, trial: Trial, x: XAxis, divisor: float, color: Any) -> bool:
    """Add the mark of how a trial ended; returns whether its curve ends above the axis."""
    top, last, end = marks.axes.get_ylim()[1], last_record(trial), end_of(trial, x)
    kind = cross_of(trial)
    if last is not None:
        along, loss = place_on(x, last) / divisor, last.val_loss
        if trial.role == "audit" and trial.status == "finished":
            marks.add(along, loss, **AUDITED | {"mec": color, "ms": 8}, zorder=4)
        elif trial.status == "stopped":
            marks.add(along, loss, **STOPPED | {"mec": color, "ms": 5}, zorder=4)
        mark_trouble(marks, along, loss, trial, color)
        if trial.status == "failed" and loss <= top:
            return False  # `mark_trouble` has marked it
    if kind is not None and end is not None:
        add_cross(marks, end / divisor, CROSSES[kind], KINDS[kind].color)
    elif last is not None and last.val_loss > top:
        mark_above(marks, along, KINDS["above the axis"].color)
        return True
    return False


@dataclass(frozen=True)
class Level:
    """A point at which trials are compared, and how strongly it is drawn."""

    point: Point
    strength: float  # 1 at the end of training, lower at earlier points
    last: bool


def levels_of(results: Results) -> list[Level]:
    """The rungs, the common and the final point; later ones are drawn more strongly."""
    ended = [t for t in whole(results, results.trials) if t.status == "finished"]
    final = results.point_of(ended)
    counts = {*results.rungs, *(n for n in (results.common, final) if isinstance(n, int))}
    points: list[Point] = [*sorted(counts), *([END] if final == END else [])]
    strengths = np.linspace(0.4, 0.7, max(len(points) - 1, 1))
    return [
        Level(point, 1.0, last=True)
        if point == points[-1]
        else Level(point, float(strengths[number]), last=False)
        for number, point in enumerate(points)
    ]


def tint(color: str, strength: float) -> Color:
    """The color mixed with white."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def _series(results: Results, swept: SweptPath) -> dict[str, list[Trial]]:
    """The trials that have the path, audits in place of stopped ones, grouped by their other values."""
    found: dict[str, list[Trial]] = {}
    for trial in whole(results, results.trials):
        if swept.path in trial.values:
            others = {path: v for path, v in trial.values.items() if path != swept.path}
            found.setdefault(named(others), []).append(trial)
    return found


@dataclass(frozen=True)
class _Dot:
    x: float
    tokens: int
    loss: float
    trial: Trial


def _points(
    results: Results,
    trials: Iterable[Trial],
    level: Level,
    position: Callable[[Any], float],
    path: str,
) -> list[_Dot]:
    """The trials measured at the level, sorted by x."""
    found = [
        _Dot(position(trial.value(path)), record.tokens, record.loss(results.metric), trial)
        for trial in trials
        if (record := at(trial, level.point)) is not None
    ]
    return sorted(found, key=lambda point: point.x)


def _means(points: Sequence[_Dot]) -> Iterator[tuple[float, float]]:
    """The mean loss over the seeds at each x."""
    losses: dict[float, list[float]] = {}
    for point in points:
        losses.setdefault(point.x, []).append(point.loss)
    for x, found in losses.items():
        yield x, statistics.fmean(found)


def _draw_level(
    axes: Axes,
    points: Sequence[_Dot],
    level: Level,
    look: tuple[str, str],
    *,
    line: bool,
    bar: bool,
) -> None:
    """Draw the points of one level, with a line through their means or a bar at each mean.

    The line is interrupted where a mean is above the axis.
    """
    color, mark = look
    faded = tint(color, level.strength)
    means, top, marks = list(_means(points)), axes.get_ylim()[1], Marks(axes)
    if line:
        along, losses = zip(*means, strict=True)
        inside = [loss if loss <= top else math.nan for loss in losses]
        axes.plot(along, inside, color=faded, lw=1.8 if level.last else 1.1)
    elif bar and len(means) < len(points):
        axes.plot(*zip(*means, strict=True), "_", color=faded, ms=30, mew=1.5)
    axes.plot(
        [point.x for point in points],
        [point.loss for point in points],
        mark,
        color=faded,
        mec="white",
        mew=0.5,
        ms=7 if level.last else 5,
        zorder=3,
    )
    for point in points:
        if point.loss > top:
            mark_above(marks, point.x, color)
    marks.draw()


def loss_against(results: Results, swept: SweptPath) -> Figure:
    """The loss against one path, at each rung and at the end; each line is at one point."""
    figure, axes = canvas(results)
    axes.set_xlabel(plain(swept.path))
    axes.set_ylabel(LOSSES[results.metric])
    position: Callable[[Any], float] = float if swept.numeric else swept.values.index
    series, levels, crosses = (
        _series(results, swept),
        levels_of(results),
        crosses_of(with_audits(results, results.trials)),
    )
    bar = len(series) == 1  # trials with the same value differ only by seed
    joined = swept.numeric and len(series) <= len(MARKS) and len(series) < len(results.trials)
    if not joined:
        series = {"": [trial for trials in series.values() for trial in trials]}
    looks = {name: (OKABE_ITO[i], MARKS[i]) for i, name in enumerate(series)}
    drawn = {
        (name, level): [
            point
            for point in _points(results, trials, level, position, swept.path)
            if point.trial.status != "diverged"
        ]
        for name, trials in series.items()
        for level in levels
    }
    shown = [point for points in drawn.values() for point in points]
    top = set_limit(axes, [point.loss for point in shown])
    for (name, level), points in drawn.items():
        if points:
            _draw_level(axes, points, level, looks[name], line=joined, bar=bar)
    marks = Marks(axes)
    _mark_ends(results, marks, shown)
    for point in shown:
        ended = point.trial.status in {"finished", "stopped"}
        if ended and point.loss == point.trial.curve[-1][results.metric]:
            mark_trouble(marks, point.x, point.loss, point.trial, "0.2")
    for name, trials in series.items():
        for trial in with_audits(results, trials):
            kind = cross_of(trial)
            if kind is not None:
                color = looks[name][0] if len(series) > 1 else KINDS[kind].color
                add_cross(marks, position(trial.value(swept.path)), crosses[kind], color)
    marks.draw()
    _value_axis(axes, swept)
    if shown:
        handles = _level_handles(levels, series, looks, line=joined, bar=bar)
    else:
        handles = []
        say_nothing(axes, "nothing to compare yet")
    handles += ending_entries(results, results.trials)
    if any(point.loss > top for point in shown):
        handles.append(entry("above the axis", **ABOVE))
    add_legend(figure, handles + cross_entries(crosses))
    return figure


def loss_against_compute(results: Results, front: Sequence[Trial]) -> Figure:
    """The final loss of every trial that finished, in an audit too, against its compute, and a line
    through the best ones for their compute."""
    figure, axes = canvas(results)
    axes.set_xlabel("FLOPs of the trial")
    axes.set_ylabel(LOSSES[results.metric])
    finished = [t for t in whole(results, results.trials) if t.status == "finished"]
    if not finished:
        say_nothing(axes, "nothing has finished yet")
        return figure
    looks, crosses = looks_of(results), crosses_of(with_audits(results, results.trials))
    ends = {trial.trial: cost_and_loss(trial, results.metric) for trial in finished}
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: count(value)))
    top = set_limit(axes, [loss for _, loss in ends.values()])
    along, losses = zip(*(ends[trial.trial] for trial in front), strict=True)
    axes.step(along, losses, where="post", color=GRAY, lw=1.2, zorder=1)
    marks = Marks(axes)
    for trial in finished:
        flops, loss = ends[trial.trial]
        color = looks.colors[trial.trial]
        marks.add(flops, loss, color=color, **looks.marks[trial.trial])
        if loss > top:
            mark_above(marks, flops, color)
        if trial.role == "audit":
            marks.add(flops, loss, zorder=4, **AUDITED)
        mark_trouble(marks, flops, loss, trial, "0.2")
    marks.draw()
    _color_bar(figure, axes, looks)
    named_trials = {name: trial for trial, name in looks.names.items() if name and trial in ends}
    handles = [
        entry(brief(name, 34), color=_legend_color(looks, trial), ls="", **looks.marks[trial])
        for name, trial in named_trials.items()
    ]
    handles.append(entry("best for its compute", color=GRAY, lw=1.2))
    if any(trial.role == "audit" for trial in finished):
        handles.append(entry("end of an audit", **AUDITED))
    add_legend(figure, handles + cross_entries(crosses))
    return figure


def _mark_ends(results: Results, marks: Marks, points: Sequence[_Dot]) -> None:
    """Add a frame around the last point of each stopped trial, and a mark around the end of its
    audit."""
    audits = {audit: trial.tokens for audit, trial in _audited(results).items()}
    latest: dict[str, _Dot] = {}
    ends: dict[str, _Dot] = {}
    for point in sorted(points, key=lambda point: point.tokens):
        name = point.trial.trial
        if point.trial.status == "stopped" or point.tokens <= audits.get(name, 0):
            latest[name] = point
        elif name in audits:
            ends[name] = point
    smaller = {} if len(latest) <= NAMED else {"ms": 6}
    for found, look in ((latest, STOPPED), (ends, AUDITED)):
        for point in found.values():
            marks.add(point.x, point.loss, zorder=4, **look | smaller)


def _value_axis(axes: Axes, swept: SweptPath) -> None:
    if not swept.numeric:
        axes.set_xticks(range(len(swept.values)), [brief(show(v), 24) for v in swept.values])
        axes.set_xlim(-0.5, len(swept.values) - 0.5)
        return
    if swept.log:
        axes.set_xscale("log")
    value_ticks(axes.xaxis, swept)
    low, high = swept.values[0], swept.values[-1]
    if swept.log and low < high:
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    elif low < high:
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _level_handles(
    levels: Sequence[Level],
    series: Mapping[str, Sequence[Trial]],
    looks: Mapping[str, tuple[str, str]],
    *,
    line: bool,
    bar: bool,
) -> list[Line2D]:
    names = [name for name in series if name]
    handles = [
        entry(
            textwrap.shorten(name, 34, placeholder="…"),
            color=looks[name][0],
            marker=looks[name][1],
            ms=6,
        )
        for name in names
    ]
    color = "#000000" if names else OKABE_ITO[0]
    handles += [
        entry(
            when(level.point),
            color=tint(color, level.strength),
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
        handles.append(entry(f"{words}: mean", marker="" if line else "_", ls="-", color="0.4"))
    return handles
