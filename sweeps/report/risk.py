"""Sentences on the risk of the values that a search recommends."""

import math

from sweeps.findings.risk import NEAR, Expected, Risk
from sweeps.findings.stability import LR
from sweeps.text import loss, named, quantity, show, tally


def risk_words(found: Risk | None, name: str) -> list[str]:
    """How often training near the best values goes wrong, and the recommendation by expected loss; empty
    where a reader need not know. Without values it is the risk of what has this name."""
    if found is None or not found.matters:
        return []
    return [_share_words(found, name), *([_edge_words(found)] if found.edge is not None else [])]


def _share_words(found: Risk, name: str) -> str:
    """How many of the runs near the best values went wrong."""
    where = f"At {named(found.values) or name}"
    where += f" and within a factor of {NEAR:g} of it" * bool(found.beside)
    runs = quantity(found.runs, "run")
    interval = f"95% interval {found.low:.0%} to {found.high:.0%}"
    left = quantity(found.stopped, "run")
    early = f" Not counted: {left} that {'was' if found.stopped == 1 else 'were'} stopped." * bool(
        found.stopped
    )
    if not found.wrong:
        return f"{where}, none of {runs} went wrong ({interval}).{early}"
    share = len(found.wrong) / found.runs
    return f"{where}, {len(found.wrong)} of {runs} went wrong: {tally(found.wrong)} ({share:.0%}, {interval}).{early}"


def _edge_words(found: Risk) -> str:
    """That the best rate is near the edge of stability, and which values are best by their expected loss."""
    assert found.edge is not None  # else it is not said
    times = found.edge / found.values[LR]
    said = f"The lowest unstable rate, {show(found.edge)}, is only {times:.3g} times the best one."
    own, safest = found.expected, found.safest
    if own is None or safest is None:
        return (
            f"{said} With one seed to the end, the loss to expect of the best rate on another seed is not known; "
            "`seeds: [0, 1, 2]` shows it."
        )
    over = f"mean over {own.seeds} seeds, those that went wrong included"
    if not found.rivals:
        return (
            f"{said} The expected loss of the best rate is {_value(own)} ({over}). No other values ended on as many "
            "seeds to compare it with."
        )
    if math.isinf(safest.loss):
        return (
            f"{said} A seed of the best rate diverged, so its expected loss is infinite, and no values that ended on "
            "as many seeds have a lower one."
        )
    if safest.loss >= own.loss:
        return f"{said} The best rate has the lowest expected loss as well: {_value(own)} ({over})."
    return (
        f"{said} By expected loss {named(safest.values)} is the better choice: {_value(safest)} against "
        f"{_value(own)} ({over})."
    )


def _value(found: Expected) -> str:
    """An expected loss."""
    return loss(found.loss) if math.isfinite(found.loss) else "infinite, because a run diverged"
