"""What the figures share: colors, axes, marks and files.

Trials and arms differ in color (viridis for ordered values, else Okabe-Ito,
https://jfly.uni-koeln.de/color/) and also in line style or mark, so that a figure can be read in
black and white.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sweeps.findings.results import Results, SweptPath
from sweeps.findings.verdict import Kind
from sweeps.ledger import Trial
from sweeps.outcomes import outcome
from sweeps.selection import Metric, last_record
from sweeps.text import count, quantity, show

LOSSES: dict[Metric, str] = {
    "val_loss": "validation loss (nats per token)",
    "bits_per_byte": "validation loss (bits per byte)",
}
Color = tuple[float, float, float]

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
Dashes = str | tuple[int, tuple[int, ...]]
DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":", (0, (9, 2)), (0, (9, 2, 1, 2)))
MARKS = ("o", "D", "v", "p", "h", "<", ">")
# The mark of each problem (`sweeps.outcomes`).
CROSSES = {
    "non-finite": "x",
    "blown up": "X",
    "spiked": "2",
    "stuck": "_",
    "overfitted": "*",
    "out of memory": "+",
    "failed": "1",
}
BLACK, GRAY = "#000000", "#8a8a8a"  # black is the color of the text, which is light on a dark page


@dataclass(frozen=True)
class Mark:
    """How a decision, an ending or a problem is marked."""

    marker: str  # matplotlib's
    color: str
    is_hollow: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """The look of a single point, for `Axes.plot`."""
        fill = {"mfc": "none", "mec": self.color} if self.is_hollow else {"color": self.color}
        return {"marker": self.marker, **fill, "ls": ""}

    @property
    def symbol(self) -> str:
        """Plotly's name of the mark."""
        return _SYMBOLS[self.marker] + "-open" * self.is_hollow


KINDS: dict[str, Mark] = {
    "finished": Mark("o", OKABE_ITO[0]),
    "stopped": Mark("s", BLACK, is_hollow=True),
    "audited": Mark("d", BLACK, is_hollow=True),
    "promoted": Mark(">", OKABE_ITO[2]),
    "paused": Mark("|", GRAY),
    "unfinished": Mark("o", GRAY, is_hollow=True),
    "withdrawn": Mark("o", GRAY, is_hollow=True),
    "above the axis": Mark("^", GRAY),
    **{kind: Mark(cross, OKABE_ITO[1]) for kind, cross in CROSSES.items()},
}
VERDICTS: dict[Kind, str] = {
    "better": OKABE_ITO[2],
    "worse": OKABE_ITO[1],
    "no difference": OKABE_ITO[0],
    "no conclusion": GRAY,
    "void": OKABE_ITO[3],
}
# The colors and dashes of the edge of stability, and the color of the interval of the best rate.
RATES: dict[str, tuple[str, Dashes]] = {
    "best": (OKABE_ITO[2], "-"),
    "highest stable": (OKABE_ITO[4], "--"),
    "first unstable": (OKABE_ITO[3], "-."),
    "first diverging": (OKABE_ITO[1], ":"),
}
INTERVAL = OKABE_ITO[5]
# The legend names at most this many trials; more trials have a color bar or share a name.
NAMED = 12
# Viridis without its light end, which vanishes on paper.
DARKEST, LIGHTEST = 0.0, 0.88
ORDERED = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(DARKEST, LIGHTEST, 256)))
# Viridis without its dark end, which vanishes on a dark page.
ON_DARK = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.25, 1.0, 256)))
_ROOM_X, _ROOM_Y = 380.0, 200.0  # points for the labels of an axis and of a color bar, at least
_ROWS = 8  # of crosses, below one another
# The loss axis ends at most this many times (upper quartile - lowest loss) above the upper quartile.
REACH = 1.5


def render(figure: Figure) -> dict[str, bytes]:
    """A figure as `svg` and as `png`.

    `Figure.savefig` would compute the layout twice for each of them, which takes longer than drawing.
    """
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack characters of the question; matplotlib draws boxes for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        layout = figure.get_layout_engine()
        assert layout is not None  # see `canvas`
        layout.execute(figure)
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
        figure.set_dpi(STYLE["savefig.dpi"])  # an SVG has one of its own
        FigureCanvasAgg(figure).print_png(png)
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    """The content of a file of a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, metadata=metadata)
    return stream.getvalue()


def plain(words: str) -> str:
    """Text escaped for matplotlib: `$` does not start a formula, a leading `_` does not hide a label."""
    shown = words.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def brief(words: str, width: int) -> str:
    """Text wrapped to this width and cut after two lines."""
    return plain("\n".join(textwrap.wrap(words, width, max_lines=2, placeholder="…")))


def canvas(results: Results) -> tuple[Figure, Axes]:
    """An empty figure with the question and the size of the sweep above it."""
    # Text may be slightly wider in one file type than in the other, so leave some room.
    figure = Figure(figsize=(8, 4.8), layout=ConstrainedLayoutEngine(w_pad=0.1))
    FigureCanvasAgg(figure)
    question = textwrap.wrap(results.question, 74, max_lines=3, placeholder=" …")
    figure.suptitle(plain("\n".join(question)), x=0.01, ha="left", size=11, weight="bold")
    axes = figure.subplots()
    params = sorted({trial.params for trial in results.trials})
    size = " to ".join(count(number) for number in sorted({*params[:1], *params[-1:]}))
    seeds = len(
        {trial.seed for trial in results.trials if trial.role != "tuning"}
    )  # those that are compared
    ended = len(results.asked) - len(results.having("unfinished"))
    parts = [
        results.name,
        f"results for {ended} of {quantity(len(results.asked), 'trial')}",
        *([f"{size} parameters"] if size else []),
        *(["one seed" if seeds == 1 else f"{seeds} seeds"] if seeds else []),
    ]
    axes.set_title(plain(" · ".join(parts)), loc="left", size=8, color="0.35", pad=10)
    return figure, axes


def set_limit(axes: Axes, losses: Sequence[float]) -> float:
    """Set the limits of the loss axis; returns its upper end."""
    bottom, top = limits(losses)
    axes.set_ylim(bottom, top)
    return top


def limits(losses: Sequence[float]) -> tuple[float, float]:
    """The limits of a loss axis, such that a few huge losses do not squeeze the others together."""
    if not losses:
        return 0.0, 1.0
    low, quartile = np.min(losses), np.percentile(losses, 75)
    high = min(np.max(losses), quartile + REACH * (quartile - low))
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return float(low - margin), float(high + margin)


class Marks:
    """Single marks on axes. Those that look alike are drawn by one call, however many they are."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self._places: dict[tuple[tuple[str, Any], ...], list[tuple[float, float]]] = {}

    def add(self, x: float, y: float, **look: Any) -> None:
        """Add a mark with a look that `Axes.plot` knows; y is a share of the axes if the look says
        `edge`."""
        self._places.setdefault(tuple(look.items()), []).append((x, y))

    def draw(self) -> None:
        """Draw all that were added."""
        for look, places in self._places.items():
            chosen = {"ls": "", **dict(look)}
            if chosen.pop("edge", False):
                chosen["transform"] = self.axes.get_xaxis_transform()
            self.axes.plot(*zip(*places, strict=True), **chosen)


def mark_of(number: int) -> dict[str, Any]:
    """The look of a single point: different for at least `NAMED` numbers from 0, whatever its color."""
    hollow = number // len(MARKS) % 2 == 1
    fill = {"mfc": "white", "mew": 1.5} if hollow else {"mec": "white", "mew": 0.5}
    return {"marker": MARKS[number % len(MARKS)], "ms": 7, **fill}


def mark_above(marks: Marks, x: float, color: Any) -> None:
    """Add a mark for a loss above the axis."""
    marks.add(x, 0.95, marker="^", color=color, ms=7, edge=True, zorder=4)


def entry(label: str, **look: Any) -> Line2D:
    """A legend entry."""
    return Line2D([], [], label=plain(label), **look)


ABOVE = KINDS["above the axis"].look | {"ms": 7}
STOPPED = KINDS["stopped"].look | {"ms": 9}
AUDITED = KINDS["audited"].look | {"ms": 11}


# Plotly's names of the dashes and marks.
_DASHES = dict(
    zip(DASHES, ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot"), strict=True)
)
_SYMBOLS = {
    "x": "x-thin-open",
    "X": "x",
    "2": "y-up-open",
    "_": "line-ew-open",
    "*": "star",
    "+": "cross-thin-open",
    "1": "y-down-open",
    "o": "circle",
    "D": "diamond",
    "v": "triangle-down",
    "p": "pentagon",
    "h": "hexagon",
    "<": "triangle-left",
    ">": "triangle-right",
    "s": "square",
    "d": "diamond-tall",
    "^": "triangle-up",
    "|": "line-ns-open",
}


def for_page() -> dict[str, Any]:
    """The colors and marks of the figures, as the report page needs them."""
    return {
        "colors": OKABE_ITO,
        "named": NAMED,
        "reach": REACH,
        "shades": [page_colors(ORDERED(number / 9), number / 9) for number in range(10)],
        "symbols": [_SYMBOLS[mark] for mark in MARKS],
        "gray": GRAY,
        "marks": {kind: [mark.symbol, mark.color] for kind, mark in KINDS.items()},
        "verdicts": VERDICTS,
        "rates": {words: [color, page_dash(dash)] for words, (color, dash) in RATES.items()},
        "interval": INTERVAL,
    }


def page_colors(color: Any, share: float | None) -> list[str]:
    """A color on a light and on a dark page; `share` is its place on the scale of ordered values."""
    if share is None:
        return [to_hex(color), "#ececec" if to_hex(color) == BLACK else to_hex(color)]
    return [to_hex(color), to_hex(ON_DARK(share))]


def page_symbol(mark: dict[str, Any]) -> str:
    """Plotly's name of a mark of `mark_of`."""
    return _SYMBOLS[mark["marker"]] + "-open" * ("mfc" in mark)


def page_dash(dashes: Dashes) -> str:
    """Plotly's name of dashes."""
    return _DASHES[dashes]


def whole(results: Results, trials: Iterable[Trial]) -> list[Trial]:
    """The trials, with each stopped one replaced by its audit if that finished."""
    pairs = [(trial, results.ended_audit(trial)) for trial in trials]
    return [audit if audit and audit.status == "finished" else trial for trial, audit in pairs]


def with_audits(results: Results, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, and after them their audits that have ended."""
    audits = map(results.ended_audit, trials)
    return [*trials, *(audit for audit in audits if audit is not None)]


def ending_entries(results: Results, trials: Iterable[Trial], **look: Any) -> list[Line2D]:
    """The legend entries of trials that were stopped early, and of the ends of their audits."""
    trials = list(trials)
    handles = []
    if any(trial.status == "stopped" for trial in trials):
        handles.append(entry("stopped early there", **STOPPED | look))
    if any(trial.role == "audit" for trial in whole(results, trials)):
        handles.append(entry("end of an audit", **AUDITED | look))
    return handles


def crosses_of(trials: Iterable[Trial]) -> dict[str, str]:
    """The marks of the problems that any of the trials had."""
    found = {outcome(trial) for trial in trials}
    return {kind: mark for kind, mark in CROSSES.items() if kind in found}


def cross_of(trial: Trial) -> str | None:
    """The problem of a trial that diverged or failed, and so has no final loss; else None."""
    return outcome(trial) if trial.status in {"diverged", "failed"} else None


def mark_trouble(marks: Marks, x: float, loss: float, trial: Trial, color: Any) -> None:
    """Add a mark for the last loss of a trial that had a problem but did not diverge."""
    kind = outcome(trial)
    if kind and trial.status != "diverged" and loss <= marks.axes.get_ylim()[1]:
        marks.add(x, loss, marker=CROSSES[kind], color=color, ms=11, mew=1.5, zorder=5)


def add_cross(marks: Marks, x: float, mark: str, color: Any, row: int = 0) -> None:
    """Add a mark at the upper edge of the axes, for a trial without a final loss.

    Rows after the first are below the marks of `mark_above`.
    """
    row %= _ROWS
    marks.add(
        x,
        1.0 - 0.05 * (row + (row > 0)),
        marker=mark,
        color=color,
        ms=11 if mark == "X" else 8,
        mew=1.0 if mark == "X" else 2.0,
        mec="white" if mark == "X" else color,
        edge=True,
        clip_on=False,
        zorder=5,
    )


def cross_entries(crosses: dict[str, str]) -> list[Line2D]:
    """The legend entries of problems."""
    return [
        entry(textwrap.fill(kind, 34), marker=mark, ls="", color=KINDS[kind].color, ms=8)
        for kind, mark in crosses.items()
    ]


def add_legend(figure: Figure, handles: Sequence[Line2D], *, below: bool = False) -> None:
    """Add a legend outside the axes, beside or below them."""
    if handles and below:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    elif handles:
        figure.legend(handles=handles, loc="outside right center")


@dataclass(frozen=True)
class End:
    """The end of a curve, and its name."""

    x: float
    y: float
    name: str
    color: Any


_LINE = 0.046  # of the height of axes, for a line of text


def name_ends(axes: Axes, ends: Iterable[End]) -> None:
    """Write the names of curves beside the axes, each as high as its curve ends or as near to that as the
    others leave room, with a thin line between the two."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end.y)
    heights = spread([(min(end.y, high) - low) / (high - low) for end in ordered], _LINE)
    for end, height in zip(ordered, heights, strict=True):
        axes.annotate(
            plain(end.name), (end.x, min(end.y, high)), (1.02, height), textcoords="axes fraction",
            va="center", color=end.color, fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": end.color, "lw": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(places: Sequence[float], apart: float) -> list[float]:
    """The places, which ascend, moved as little as keeps them this far apart between 0 and 1."""
    from scipy.optimize import isotonic_regression

    steps = apart * np.arange(len(places))
    if not len(steps):
        return []
    moved = isotonic_regression(np.array(places) - steps).x
    return [float(place) for place in np.clip(moved, 0.0, max(0.0, 1.0 - steps[-1])) + steps]


def say_nothing(axes: Axes, words: str) -> None:
    """Write the reason why the axes are empty."""
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set_yticks([])


def label_size(ticks: int) -> float:
    """A font size in points at which this many tick labels do not overlap."""
    return 9.0 if ticks <= 9 else 7.0


def value_ticks(axis: Any, swept: SweptPath) -> None:
    """Ticks at the values themselves where these are few, in plain figures; a label that would touch
    its neighbor stands in the next row, or on a vertical axis in the next column. Many values have round
    ticks, also in plain figures: powers of ten take matplotlib as long as all the curves."""
    if len(swept.values) > NAMED:
        if swept.log:
            is_long = swept.values[-1] >= 30 * swept.values[0]
            axis.set_major_locator(LogLocator(subs=(1.0,) if is_long else (1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
            axis.set_minor_formatter(NullFormatter())
        return
    size = label_size(len(swept.values))
    labels = [show(float(value)) for value in swept.values]
    scale = math.log if swept.log else float
    positions = [scale(value) for value in swept.values]
    width = (positions[-1] - positions[0]) or 1.0
    if axis.axis_name == "x":
        room, sizes, apart = _ROOM_X / (0.65 * size), [len(label) + 1 for label in labels], "\n"
    else:
        longest = max(map(len, labels))
        room, sizes, apart = _ROOM_Y / (1.2 * size), [1] * len(labels), "  " * (longest + 1)
    rows = _rows([room * (position - positions[0]) / width for position in positions], sizes)
    axis.set_ticks(
        list(swept.values),
        labels=[apart * row + label for row, label in zip(rows, labels, strict=True)],
    )
    axis.set_tick_params(labelsize=size)
    axis.set_minor_locator(NullLocator())


def _rows(positions: Sequence[float], sizes: Sequence[float]) -> list[int]:
    """The first row for each label in which it touches no other one; positions ascend."""
    ends: list[float] = []
    rows = []
    for position, size in zip(positions, sizes, strict=True):
        free = (row for row, end in enumerate(ends) if end <= position - size / 2)
        row = next(free, len(ends))
        ends[row : row + 1] = [position + size / 2]
        rows.append(row)
    return rows


def unit_of_time(results: Results) -> tuple[str, float]:
    """A unit that shows the longest run in two or three digits, and its length in seconds."""
    ends = [last_record(trial) for trial in results.trials]
    longest = max((end.seconds for end in ends if end is not None), default=0)
    return ("hours", 3600) if longest > 7200 else ("minutes", 60) if longest > 300 else ("s", 1)
