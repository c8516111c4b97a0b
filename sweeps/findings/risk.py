"""The risk of the values that a search recommends: how often training near them goes wrong, and whether other
values are better once that is counted."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps import stats
from sweeps.findings.results import Results
from sweeps.findings.stability import UNSTABLE, Stability
from sweeps.ledger import Row, Trial
from sweeps.outcomes import RULES, outcome
from sweeps.selection import at, groups
from tinylm.config import is_number

# Values are near the best where each is equal to it or, on a path that is spaced by ratios, within this
# factor of it: a step of the usual grid.
NEAR = 2.0
# A best rate is near the edge of stability if the lowest unstable rate is less than this times as high.
EDGE = 4.0
_EQUAL = 1.0001  # two factors within this of each other are equal


@dataclass(frozen=True)
class Expected:
    """The mean loss over all seeds of some values, those that went wrong included: a run that diverged has an
    infinite loss, any other the loss at its end."""

    values: dict[str, Any]
    seeds: int
    loss: float  # may be infinite

    def as_json(self) -> Row:
        """The fields of summary.json, where an infinite loss is null."""
        return {**asdict(self), "loss": self.loss if math.isfinite(self.loss) else None}


@dataclass(frozen=True)
class Risk:
    """What has become of the runs near the best values, and the expected losses."""

    values: dict[str, Any]  # the best
    # Near them, that finished or went wrong; not those that failed for other reasons than their losses.
    runs: int
    beside: int  # of these, at other values than the best
    stopped: int  # other runs near them, which were stopped before anything went wrong
    wrong: tuple[str, ...]  # what happened to each of those that went wrong, from `RULES`
    low: float  # 95% interval of the share of runs that go wrong (Clopper and Pearson)
    high: float
    edge: float | None  # the lowest unstable rate, if the best rate is near it
    expected: Expected | None  # of the best values; None for a single seed
    safest: Expected | None  # the lowest one; None if no values have several seeds
    rivals: int  # other values with an expected loss

    @property
    def matters(self) -> bool:
        """Whether a reader has to know."""
        return bool(self.wrong) or self.edge is not None

    def as_json(self) -> Row:
        """The fields of summary.json."""
        both = {"expected": self.expected, "safest": self.safest}
        known = {name: value for name, value in asdict(self).items() if name != "rivals"}
        return {**known, **{name: one and one.as_json() for name, one in both.items()}}


def risk(results: Results, best: Sequence[Trial], stable: Stability | None) -> Risk | None:
    """The risk of the best values of a search; None without any, and where trials end at a target."""
    if not best or results.to_target:
        return None
    every = results.audited(
        [one for one in results.sweep.trials.values() if one.role in {"search", "confirm"}]
    )
    ended = [one for one in every if one.status in {"finished", "stopped", "diverged"}]
    values = best[0].values
    kinds = [(one, outcome(one)) for one in ended if _is_near(results, one.values, values)]
    wrong = [kind for _, kind in kinds if kind in UNSTABLE]
    # How a run that was stopped would have gone on is not known.
    near = [one for one, kind in kinds if one.status != "stopped" or kind in UNSTABLE]
    low, high = stats.share_interval(len(wrong), len(near))
    expected = list(_expected(results, ended, values))
    first = None if stable is None else stable.first_unstable
    is_near_edge = stable is not None and first is not None and first * _EQUAL < EDGE * stable.best
    return Risk(
        values=values,
        runs=len(near),
        beside=sum(one.values != values for one in near),
        stopped=len(kinds) - len(near),
        wrong=tuple(sorted(wrong, key=list(RULES).index)),
        low=low,
        high=high,
        edge=first if is_near_edge else None,
        expected=next((one for one in expected if one.values == values), None),
        safest=min(expected, key=lambda one: one.loss, default=None),
        rivals=sum(one.values != values for one in expected),
    )


def _is_near(results: Results, values: dict[str, Any], best: dict[str, Any]) -> bool:
    """Whether values are near the best ones."""
    by_ratio = {swept.path for swept in results.swept if swept.numeric and swept.log}

    def is_near(path: str) -> bool:
        one: Any = values.get(path)
        other: Any = best.get(path)
        if path not in by_ratio or not (is_number(one) and is_number(other)):
            return bool(one == other)
        return bool(other <= one * NEAR * _EQUAL and one <= other * NEAR * _EQUAL)

    return all(is_near(path) for path in {**values, **best})


def _expected(results: Results, ended: Sequence[Trial], best: dict[str, Any]) -> Iterator[Expected]:
    """The expected losses of the best values, and of all others that ended on as many seeds or more; none
    for a single seed."""
    whole = groups(one for one in ended if one.status != "stopped")
    least = max([2, *(len(group) for group in whole if group[0].values == best)])
    for group in whole:
        losses = [loss for one in group if (loss := _end(results, one)) is not None]
        if len(losses) == len(group) >= least:
            yield Expected(group[0].values, len(group), statistics.fmean(losses))


def _end(results: Results, trial: Trial) -> float | None:
    """The loss with which a run counts; None if it has none where runs are compared."""
    if trial.status == "diverged":
        return math.inf
    record = at(trial, results.final)
    return None if record is None else record.loss(results.metric)
