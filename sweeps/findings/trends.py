"""How losses change: at the end of a run, against the training loss, and where trials were stopped."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.findings.results import Results
from sweeps.ledger import Trial
from sweeps.outcomes import outcome, overfit
from sweeps.selection import Point, at, records, same_point

TAIL = 0.1  # last part of a run that shows whether the loss still falls
DIGITS = 4  # of a loss that are compared, as many as are shown


@dataclass(frozen=True)
class Slope:
    """The change of the validation loss over the last part of training."""

    change: float  # nats; mean over the runs; below 0 if the loss fell
    share: float  # of training that it is over; the most of any run


def slope(runs: Sequence[Trial]) -> Slope | None:
    """The change over the last tenth, or from the last record before that; None without one."""
    changes, shares = [], []
    for trial in runs:
        *_, end = curve = records(trial)
        before = [record for record in curve if record.tokens <= (1 - TAIL) * end.tokens]
        if before:
            changes.append(end.val_loss - before[-1].val_loss)
            shares.append(1 - before[-1].tokens / end.tokens)
    return Slope(statistics.fmean(changes), max(shares)) if changes else None


@dataclass(frozen=True)
class Gap:
    """The validation loss less the training loss (its mean since the record before), in nats; mean
    over the runs."""

    end: float
    half: float | None  # halfway; None if no run was measured by then
    best: float | None  # where the validation loss was lowest, of those that overfitted

    @property
    def widens(self) -> bool:
        """Whether the validation loss is above the training loss, and farther than halfway."""
        return self.half is not None and self.end > 0 and self.end > self.half


def gap(runs: Sequence[Trial]) -> Gap:
    """The gap of at least one measured run: at the end, halfway, and before it overfitted."""
    half = [value for trial in runs if (value := _gap_at(trial, 0.5)) is not None]
    ends = [value for trial in runs if (value := _gap_at(trial, 1.0)) is not None]
    best = [one.best.gap for trial in runs if (one := overfit(trial)) is not None]
    return Gap(
        statistics.fmean(ends),
        statistics.fmean(half) if half else None,
        statistics.fmean(best) if best else None,
    )


def _gap_at(trial: Trial, share: float) -> float | None:
    curve = records(trial)
    until = [record for record in curve if record.tokens <= share * curve[-1].tokens]
    return until[-1].gap if until else None


@dataclass(frozen=True)
class CutShort:
    """A trial that was stopped while its loss fell faster than the best trial's."""

    label: str
    point: Point  # where it was stopped
    fall: float  # of its loss since the record before
    best_fall: float  # of the best trial's, between the same points


def cut_short(results: Results, best: Trial) -> tuple[CutShort, ...]:
    """The stopped trials whose loss was falling faster than the best trial's at the same tokens (at the
    same share of budgets that differ), and that would have caught up by the end if it had gone on so;
    without the audited and the unstable ones, and those that somebody stopped."""
    metric = results.metric
    found = []
    for trial in results.having("stopped"):
        is_audited = results.sweep.audit(trial.trial) is not None
        if len(trial.curve) < 2 or is_audited or trial.is_stopped_by_hand:
            continue
        before, last = records(trial)[-2:]
        points = [same_point(trial, record.tokens, best) for record in (before, last)]
        best_before, best_last = (at(best, point) for point in points)
        if best_before is None or best_last is None or points[-1] is None or outcome(trial):
            continue
        fall = before.loss(metric) - last.loss(metric)
        best_fall = best_before.loss(metric) - best_last.loss(metric)
        left = (trial.budget - last.tokens) / (last.tokens - before.tokens)
        behind = last.loss(metric) - best_last.loss(metric)
        is_faster = round(fall, DIGITS) > round(best_fall, DIGITS)
        if is_faster and behind <= (fall - best_fall) * left:
            found.append(CutShort(trial.label, points[-1], fall, best_fall))
    return tuple(found)
