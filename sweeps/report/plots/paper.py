"""The figures of a sweep for a paper: a column wide, without a title, as PDF with embedded fonts."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterable
from typing import Any

import matplotlib.style
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.report.plots import figures
from sweeps.report.plots.look import STYLE

WIDTH, HEIGHT = 3.25, 2.2  # inches; a column of a page with two, and the height without the legend
_STYLE: dict[str, Any] = {
    **STYLE,
    "pdf.fonttype": 42,  # fonts are embedded as TrueType; journals refuse matplotlib's default, Type 3
    "font.size": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6,
    "lines.markersize": 4,
}
_LABELS = 6  # on the x axis, at most
_ROW = 0.13  # inches, of a legend


def draw(found: SearchFindings | StudyFindings) -> dict[str, bytes]:
    """Every figure of a sweep by its name, as the content of a PDF file."""
    with matplotlib.style.context(["default", _STYLE]):
        return {name: _pdf(figure) for name, figure in figures(found, named_at_end=False).items()}


def _pdf(figure: Figure) -> bytes:
    figure.suptitle("").set_in_layout(False)
    for axes in figure.axes:
        axes.set_title("", loc="left")
        _shrink(axes.lines)
        axes.set_xlabel(textwrap.fill(axes.get_xlabel(), 48))
        axes.set_ylabel(textwrap.fill(axes.get_ylabel(), 40))
        axes.tick_params(labelsize=6)
        _thin(axes.xaxis)
    rows = _move_legend(figure)
    figure.set_size_inches(WIDTH, HEIGHT + rows * _ROW)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack characters of a name; matplotlib draws boxes for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
    return stream.getvalue()


def _shrink(lines: Iterable[Line2D]) -> None:
    """Make lines and marks as small as the text is."""
    for line in lines:
        line.set_markersize(0.6 * line.get_markersize())
        line.set_linewidth(0.7 * line.get_linewidth())


def _move_legend(figure: Figure) -> int:
    """Put the legend, which stands beside wider figures, below; its rows."""
    rows = 0
    for legend in list(figure.legends):
        handles = [handle for handle in legend.legend_handles if handle is not None]
        words = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        _shrink(one for one in handles if isinstance(one, Line2D))
        columns = 2 if max(map(len, words), default=0) > 16 else 3
        figure.legend(handles, words, loc="outside lower center", ncols=columns)
        rows += math.ceil(len(words) / columns) + max(word.count("\n") for word in words)
    return rows


def _thin(axis: Axis) -> None:
    """Leave out labels of ticks that stand closer than a column has room for."""
    if isinstance(axis.get_major_locator(), FixedLocator):
        labels = [text.get_text().strip() for text in axis.get_ticklabels()]
        places = list(axis.get_majorticklocs())
        every = max(1, math.ceil(len(places) / _LABELS))
        axis.set_ticks(places[::every], labels=labels[::every])
