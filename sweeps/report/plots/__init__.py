"""Figures of a sweep, drawn with matplotlib.

The same ledger gives the same SVG, byte for byte: there are no dates and no random ids in it.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.stability import LR, by_rate
from sweeps.report.plots import arms
from sweeps.report.plots.look import MARKS, OKABE_ITO, STYLE, render, saved
from sweeps.report.plots.rates import edge_of_stability
from sweeps.report.plots.trials import X_AXES, learning_curves, loss_against


def draw(found: SearchFindings | StudyFindings) -> dict[str, bytes]:
    """Every figure of a sweep, as file name -> content of an SVG and of a PNG file."""
    with matplotlib.style.context(["default", STYLE]):
        return {
            f"{name}.{kind}": content
            for name, figure in figures(found).items()
            for kind, content in render(figure).items()
        }


def figures(found: SearchFindings | StudyFindings) -> dict[str, Figure]:
    """Every figure of a sweep by its name."""
    if isinstance(found, StudyFindings):
        return arms.figures(found)
    results = found.results
    drawn = {f"loss_vs_{swept.name}": loss_against(results, swept) for swept in results.swept}
    if any(swept.path == LR for swept in results.swept) and by_rate(results.trials):
        drawn["edge_of_stability"] = edge_of_stability(found)
    return drawn | {f"loss_by_{x}": learning_curves(results, x) for x in X_AXES}


def cost_against_regret(found: Mapping[str, Mapping[str, Any]], kind: str) -> bytes:
    """The content of a figure of each policy's cost and regret; `kind` is a file type of matplotlib."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for (name, result), color, mark in zip(
            sorted(found.items()), itertools.cycle(OKABE_ITO), itertools.cycle(MARKS), strict=False
        ):
            regret = result["regret"]
            if regret["mean"] is None:  # no trial finished in any replay
                continue
            spread = [
                [regret["mean"] - max(regret["low"], 0.0)], [regret["high"] - regret["mean"]]
            ] if regret["low"] is not None else None  # fmt: skip
            axes.errorbar(
                [100 * result["cost"]], [regret["mean"]], yerr=spread, fmt=mark, color=color,
                capsize=3, label=f"{name}: best kept {result['best_kept']:.0%}", clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("cost (% of the full grid's tokens)")
        axes.set_ylabel("regret of the final score (mean, 95% interval)")
        axes.set_xlim(0, 105)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
        return saved(figure, kind, {"Date": None} if kind == "svg" else {})
