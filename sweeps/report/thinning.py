"""Curves with as many points as a screen shows; `curves.csv` has all of them."""

from bisect import bisect_left
from collections.abc import Container

from sweeps.ledger import Trial

MOST = 100  # points that are spread evenly over a curve
TOGETHER = 30_000  # over all curves of a chart
FEWEST = 10


def spread_points(curves: int) -> int:
    """How many points are spread evenly over each of so many curves."""
    return max(FEWEST, min(MOST, TOGETHER // max(curves, 1)))


def thinned(trial: Trial, spread: int, kept: Container[float]) -> list[int]:
    """The numbers of the records that are drawn of a trial, ascending; all of them if they are few.

    These are so many records, evenly spaced by tokens from the first to the last; those at the token
    counts that are `kept`, such as rungs; and those with the lowest and the highest validation loss.
    """
    curve = trial.curve
    if len(curve) <= spread:
        return list(range(len(curve)))
    tokens = [row["tokens"] for row in curve]
    losses = [row["val_loss"] for row in curve]
    first, last = tokens[0], tokens[-1]
    places = [first + (last - first) * number / (spread - 1) for number in range(spread)]
    places[-1] = last
    drawn = {bisect_left(tokens, place) for place in places}
    drawn |= {index for index, each in enumerate(tokens) if each in kept}
    return sorted(drawn | {losses.index(min(losses)), losses.index(max(losses))})
