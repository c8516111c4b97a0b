"""Curves with as many points as a screen shows; `curves.csv` has all of them."""

from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter

from sweeps.ledger import Trial

MOST = 100  # points that are spread evenly over a curve
TOGETHER = 30_000  # over all curves of a chart
FEWEST = 10
_TOKENS = itemgetter("tokens")  # of a row


def spread_points(curves: int) -> int:
    """How many points are spread evenly over each of so many curves."""
    return max(FEWEST, min(MOST, TOGETHER // max(curves, 1)))


def thinned(trial: Trial, spread: int, kept: Iterable[float]) -> list[int]:
    """The numbers of the records that are drawn of a trial, ascending; all of them if they are few.

    These are so many records, evenly spaced by tokens from the first to the last; those at the token
    counts that are `kept` (or the next ones), such as rungs; and those with the lowest and the highest validation loss.
    """
    curve = trial.curve
    if len(curve) <= spread:
        return list(range(len(curve)))
    losses = [row["val_loss"] for row in curve]
    first, last = curve[0]["tokens"], curve[-1]["tokens"]
    step = (last - first) / (spread - 1)
    places = [*kept, *(first + number * step for number in range(spread - 1))]
    within = (place for place in places if place <= last)
    drawn = {bisect_left(curve, place, key=_TOKENS) for place in within}
    return sorted(drawn | {losses.index(min(losses)), losses.index(max(losses)), len(curve) - 1})
