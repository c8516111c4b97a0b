"""How the loss depends on the learning rate, and where training stops being stable."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sweeps.ledger import Row, Trial
from sweeps.outcomes import outcome, overfit
from sweeps.selection import Metric, Point, at, final_point, losses_at
from sweeps.stats import t_quantile

LR = "optim.lr"
# The fit uses rates within this factor of the best one: farther out the loss is not parabolic.
FIT_FACTOR = 4.0
# An interval that reaches farther than this factor from the best rate is dropped: it covers the whole of
# a usual range of rates (1e-4 to 1e-2), and so says nothing.
FURTHEST = 100.0
UNSTABLE = {"non-finite", "blown up", "spiked", "stuck"}


def rate_of(trial: Trial) -> float:
    """The peak learning rate of a trial."""
    return float(trial.value(LR))


def by_rate(trials: Sequence[Trial]) -> dict[float, list[Trial]]:
    """The trials of each learning rate, ascending; empty if they differ by more than the rate and the
    seed."""
    if len({str({k: v for k, v in t.values.items() if k != LR}) for t in trials}) != 1:
        return {}
    found: dict[float, list[Trial]] = {}
    varying = [trial for trial in trials if LR in trial.values]
    for trial in sorted(varying, key=rate_of):
        found.setdefault(rate_of(trial), []).append(trial)
    return found if len(found) > 1 else {}


@dataclass(frozen=True)
class Fit:
    """A parabola in the logarithm of the rate: its minimum, and an interval for the minimum."""

    rate: float
    low: float | None  # 95% interval; None if unbounded or without residual degrees of freedom
    high: float | None
    points: int


def fit(losses: Mapping[float, Sequence[float]]) -> Fit | None:
    """The rate of the lowest loss by least squares; None if the best rate is not bracketed.

    The interval is Fieller's, for the ratio of two coefficients (Fieller, 1954).
    """
    import numpy as np

    means = {rate: statistics.fmean(each) for rate, each in losses.items()}
    best = min(means, key=means.__getitem__)
    near = [
        r for r in losses if best / FIT_FACTOR <= r * 1.0001 and r <= best * FIT_FACTOR * 1.0001
    ]
    if not min(near) < best < max(near):
        return None
    points = [(math.log(rate / best), loss) for rate in near for loss in losses[rate]]
    x_N, y_N = np.array(points).T
    features_NF = np.stack([np.ones_like(x_N), x_N, x_N**2], axis=1)
    (_, b, c), *_ = np.linalg.lstsq(features_NF, y_N, rcond=None)
    if c <= 0 or not min(x_N) < -b / (2 * c) < max(x_N):
        return None
    rate = best * math.exp(-b / (2 * c))
    spare = len(points) - 3
    if spare < 1:
        return Fit(rate, None, None, len(points))
    residual_N = y_N - features_NF @ np.linalg.lstsq(features_NF, y_N, rcond=None)[0]
    covariance_FF = (
        float(residual_N @ residual_N) / spare * np.linalg.inv(features_NF.T @ features_NF)
    )
    # All x at which b + 2 c x can be 0: a quadratic inequality in x.
    t2 = t_quantile(spare) ** 2
    square = 4 * c * c - t2 * 4 * covariance_FF[2, 2]
    linear = 4 * b * c - t2 * 4 * covariance_FF[1, 2]
    constant = b * b - t2 * covariance_FF[1, 1]
    root = linear * linear - 4 * square * constant
    ends = [
        (-linear + sign * math.sqrt(max(root, 0.0))) / (2 * square) if square > 0 else math.inf
        for sign in (-1, 1)
    ]
    if root < 0 or max(map(abs, ends)) > math.log(FURTHEST):
        return Fit(rate, None, None, len(points))
    low, high = ends
    return Fit(rate, best * math.exp(low), best * math.exp(high), len(points))


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss depends on the learning rate (arXiv:2309.14322, section 2.2)."""

    nats: float  # mean over the rates of min(loss, loss at init), less the lowest
    point: Point  # the latest point that all measured rates share
    decades: float  # from the lowest rate to the highest


@dataclass(frozen=True)
class Stability:
    """The effect of the learning rate in trials that differ only by it."""

    best: float  # rate with the lowest mean final loss
    lowest: float
    highest: float
    highest_stable: float  # the highest measured rate below the first unstable one
    first_unstable: float | None  # the lowest rate at which a trial diverged, spiked or was stuck
    unstable_how: tuple[str, ...]
    first_diverging: float | None  # the lowest rate at which a trial diverged
    edge_ratio: float | None  # best rate / highest stable rate
    diverging_ratio: float | None  # best rate / first diverging rate
    unmeasured: int  # rates without a record
    highest_whole: float | None  # the highest stable rate with a finished trial
    stopped_unseen: int  # trials that were stable until they were stopped
    stopped_by_hand: int  # of these, by somebody, not by the policy
    overfitted: tuple[float, ...]  # the rates at which a trial overfitted, ascending
    point: Point  # where the final losses are compared
    rates: int
    rates_finished: int
    rates_to_audit: int  # of the others, those of which an audit would train a trial to its end
    fit: Fit | None
    sensitivity: Sensitivity | None

    @property
    def edges(self) -> dict[str, float | None]:
        """The rates that figures mark, by name; None for those that were not met."""
        return {
            "best": self.best,
            "highest stable": self.highest_stable,
            "first unstable": self.first_unstable,
            "first diverging": self.first_diverging,
        }

    def as_json(self) -> Row:
        """The fields of summary.json."""
        fields = asdict(self)
        del fields["sensitivity"], fields["fit"], fields["point"], fields["rates_to_audit"]
        for name in ("overfitted", "stopped_by_hand"):
            if not fields[name]:
                del fields[name]
        rates = {name: fields.pop(name) for name in ("rates", "rates_finished")}
        fields |= {"tokens": self.point, **rates, "fit": self.fit and asdict(self.fit)}
        found = self.sensitivity
        fields |= {
            "sensitivity": found and found.nats,
            "sensitivity_tokens": found and found.point,
        }
        return fields | ({"sensitivity_decades": found.decades} if found else {})


def stability(trials: Sequence[Trial], metric: Metric) -> Stability | None:
    """The effect of the learning rate on the trials; None if they differ by more than the rate, or
    have no token count in common."""
    rates = by_rate(trials)
    finished = [t for t in trials if t.status == "finished"]
    point = final_point(finished)
    if not rates or point is None:
        return None
    losses: dict[float, list[float]] = {}
    for rate, each in rates.items():
        ends = losses_at([t for t in each if t.status == "finished"], point, metric)
        if ends:
            losses[rate] = ends
    best = min(losses, key=lambda rate: statistics.fmean(losses[rate]))
    diverging = [r for r, each in rates.items() if any(t.status == "diverged" for t in each)]
    # If a rate below the best one is stuck, the cause is not instability.
    unstable = {
        r: each for r, each in rates.items() if r > best and {outcome(t) for t in each} & UNSTABLE
    }
    first = min(unstable, default=None)
    measured = [
        r
        for r, each in rates.items()
        if any(t.status == "diverged" or (t.curve and t.status != "failed") for t in each)
    ]
    highest = max(rate for rate in measured if first is None or rate < first)
    how = {outcome(t) for t in unstable[first]} & UNSTABLE if first is not None else set()
    unseen = [
        t
        for each in rates.values()
        for t in each
        if t.status == "stopped" and outcome(t) not in UNSTABLE and not t.is_untried
    ]
    others = [each for rate, each in rates.items() if rate not in losses]
    return Stability(
        best=best,
        lowest=min(rates),
        highest=max(rates),
        highest_stable=highest,
        first_unstable=first,
        unstable_how=tuple(sorted(how)),
        first_diverging=min(diverging, default=None),
        edge_ratio=best / highest if first is not None else None,
        diverging_ratio=best / min(diverging) if diverging else None,
        unmeasured=len(rates) - len(measured),
        highest_whole=max((r for r in losses if first is None or r < first), default=None),
        stopped_unseen=len(unseen),
        stopped_by_hand=sum(t.is_stopped_by_hand for t in unseen),
        overfitted=tuple(r for r, each in rates.items() if any(overfit(t) for t in each)),
        point=point,
        rates=len(rates),
        rates_finished=len(losses),
        rates_to_audit=sum(any(map(_may_be_audited, each)) for each in others),
        fit=fit(losses),
        sensitivity=_sensitivity(rates, metric),
    )


def _may_be_audited(trial: Trial) -> bool:
    """Whether an audit may train a trial to its end."""
    return trial.status == "stopped" and not trial.is_stopped_by_hand


def _sensitivity(rates: Mapping[float, Sequence[Trial]], metric: Metric) -> Sensitivity | None:
    """The sensitivity to the learning rate; a diverged trial counts with its loss at init."""
    alive = [t for each in rates.values() for t in each if t.status != "diverged" and t.curve]
    point = final_point(alive)
    if point is None or metric != "val_loss":
        return None
    means = []
    for each in rates.values():
        capped = [_capped(trial, point) for trial in each]
        known = [loss for loss in capped if loss is not None]
        if len(known) < len(capped):  # one trial diverged at its first update
            return None
        means.append(statistics.fmean(known))
    decades = math.log10(max(rates) / min(rates))
    return Sensitivity(statistics.fmean(means) - min(means), point, decades)


def _capped(trial: Trial, point: Point) -> float | None:
    """The loss at a point, capped at the loss at init, which is also used for a diverged trial."""
    record = at(trial, point)
    if record is None or trial.status == "diverged":
        return trial.loss_init
    return record.val_loss if trial.loss_init is None else min(record.val_loss, trial.loss_init)
