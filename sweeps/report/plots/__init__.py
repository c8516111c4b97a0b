"""Figures of a sweep, drawn with matplotlib.

The same ledger gives the same SVG, byte for byte: there are no dates and no random ids in it.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sweeps import ledger
from sweeps.exits import StorageError
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.stability import LR, by_rate
from sweeps.report.plots import arms
from sweeps.report.plots.look import MARKS, OKABE_ITO, STYLE, render, saved
from sweeps.report.plots.rates import edge_of_stability
from sweeps.report.plots.trials import (
    X_AXES,
    learning_curves,
    loss_against,
    loss_against_compute,
)
from sweeps.simulate.judge import Judgment

_AGAINST = "loss_vs_"  # followed by the name of a swept path
_FIRST = {"arms", "loss_by_tokens"}


def draw(found: SearchFindings | StudyFindings) -> dict[str, dict[str, bytes]]:
    """Every figure of a sweep by its name, as the content of an `svg` and of a `png` file."""
    with matplotlib.style.context(["default", STYLE]):
        return {name: render(figure) for name, figure in figures(found).items()}


def to_open_first(names: Iterable[str]) -> list[str]:
    """The figures that answer the question of a sweep: its arms, or the loss against each path."""
    return [name for name in names if name in _FIRST or name.startswith(_AGAINST)]


def figures(
    found: SearchFindings | StudyFindings, *, named_at_end: bool = True
) -> dict[str, Figure]:
    """Every figure of a sweep by its name; curves are named at their ends or in a legend."""
    if isinstance(found, StudyFindings):
        return arms.figures(found)
    results = found.results
    drawn = {}
    if results.budgets_differ:
        drawn[f"{_AGAINST}compute"] = loss_against_compute(results, found.front)
    drawn |= {f"{_AGAINST}{swept.name}": loss_against(results, swept) for swept in results.swept}
    if any(swept.path == LR for swept in results.swept) and by_rate(results.trials):
        drawn["edge_of_stability"] = edge_of_stability(found)
    return drawn | {
        f"loss_by_{x}": learning_curves(results, x, named_at_end=named_at_end) for x in X_AXES
    }


def write_cost_against_regret(found: Mapping[str, Judgment], out: Path) -> None:
    """Draw what each policy costs and how far from the best it ends, into a file whose suffix names a
    format of matplotlib; `StorageError` if it can't be written."""
    figure = _cost_against_regret(found, out.suffix.removeprefix("."))
    try:
        ledger.write_whole(out, figure)
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror or error}") from error


def _cost_against_regret(found: Mapping[str, Judgment], kind: str) -> bytes:
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for (name, result), color, mark in zip(
            sorted(found.items()), itertools.cycle(OKABE_ITO), itertools.cycle(MARKS), strict=False
        ):
            regret = result.regret
            spread = (
                None
                if regret.low is None or regret.high is None
                else [[regret.mean - regret.low], [regret.high - regret.mean]]
            )
            axes.errorbar(
                [100 * result.cost], [regret.mean], yerr=spread, fmt=mark, color=color,
                capsize=3, label=f"{name}: best kept {result.best_kept:.0%}", clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("cost (% of the full grid's tokens)")
        axes.set_ylabel("regret of the final score (mean, 95% interval)")
        axes.set_xlim(0, 105)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
        return saved(figure, kind, {"Date": None} if kind == "svg" else {})
