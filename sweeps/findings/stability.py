"""How the loss depends on the learning rate, and where training stops being stable."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.findings.outcomes import outcome
from sweeps.findings.results import Facts
from sweeps.ledger import Trial
from sweeps.selection import Point, at, final_point
from sweeps.stats import CONFIDENCE

LR = "optim.lr"
# The fit takes the rates within this factor of the best one: further off the loss is no parabola.
FIT_FACTOR = 4.0
_FURTHEST = math.log(100)  # an interval that reaches further than this factor is none
UNSTABLE = {"non-finite", "blown up", "spiked", "stuck"}


def by_rate(trials: Sequence[Trial]) -> dict[float, list[Trial]]:
    """The trials of each learning rate, ascending; nothing where they differ by more than that and
    the seed."""
    if len({str({k: v for k, v in t.values.items() if k != LR}) for t in trials}) != 1:
        return {}
    found: dict[float, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: float(trial.values.get(LR, 0.0))):
        if LR in trial.values:
            found.setdefault(float(trial.values[LR]), []).append(trial)
    return found if len(found) > 1 else {}


@dataclass(frozen=True)
class Fit:
    """A parabola in the logarithm of the rate: its lowest point, and where that may lie."""

    rate: float
    low: float | None  # 95% interval; None where it is not bounded, or nothing is left to judge by
    high: float | None
    points: int


def fit(losses: Mapping[float, Sequence[float]]) -> Fit | None:
    """The rate of the lowest loss by least squares; None where the best rate is not bracketed.

    The interval is that of a ratio of two coefficients (Fieller, 1954).
    """
    import numpy as np
    from scipy import stats

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
    # All x at which b + 2 c x may be 0: a quadratic inequality in x.
    t2 = float(stats.t.ppf((1 + CONFIDENCE) / 2, spare)) ** 2
    square = 4 * c * c - t2 * 4 * covariance_FF[2, 2]
    linear = 4 * b * c - t2 * 4 * covariance_FF[1, 2]
    constant = b * b - t2 * covariance_FF[1, 1]
    root = linear * linear - 4 * square * constant
    ends = [
        (-linear + sign * math.sqrt(max(root, 0.0))) / (2 * square) if square > 0 else math.inf
        for sign in (-1, 1)
    ]
    if root < 0 or max(map(abs, ends)) > _FURTHEST:
        return Fit(rate, None, None, len(points))
    low, high = ends
    return Fit(rate, best * math.exp(low), best * math.exp(high), len(points))


def stability(trials: Sequence[Trial], metric: str) -> Facts | None:
    """What the trials say of the learning rate; None where they do not differ by it alone.

    `best` is the rate with the lowest mean final loss; `first_unstable` the lowest rate at which a
    trial diverged, spiked or was stuck, and `highest_stable` the highest measured one below, as far as each was
    trained; `first_diverging` the lowest at which one diverged; `edge_ratio` and `diverging_ratio`
    the best over the highest stable and over the first diverging. `sensitivity` is the mean over the rates of min(loss, loss at
    init) less the lowest (arXiv:2309.14322, section 2.2), at `sensitivity_tokens`, the latest that
    all measured rates share; a diverged one counts with its loss at init.
    """
    rates = by_rate(trials)
    finished = [t for t in trials if t.status == "finished"]
    tokens = final_point(finished)
    if not rates or tokens is None:
        return None
    losses: dict[float, list[float]] = {}
    for rate, each in rates.items():
        ends = [at(t, tokens) for t in each if t.status == "finished"]
        found = [row[metric] for row in ends if row is not None]
        if found:
            losses[rate] = found
    best = min(losses, key=lambda rate: statistics.fmean(losses[rate]))
    diverging = [r for r, each in rates.items() if any(t.status == "diverged" for t in each)]
    # A rate below the best one is not stuck for being unstable.
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
    fitted = fit(losses)
    return {
        "best": best,
        "lowest": min(rates),
        "highest": max(rates),
        "highest_stable": highest,
        "first_unstable": first,
        "unstable_how": sorted({outcome(t) for t in unstable[first]} & UNSTABLE) if first else [],
        "first_diverging": min(diverging, default=None),
        "edge_ratio": best / highest if first is not None else None,
        "diverging_ratio": best / min(diverging) if diverging else None,
        "unmeasured": len(rates) - len(measured),
        "highest_whole": max((r for r in losses if first is None or r < first), default=None),
        "stopped_unseen": sum(
            t.status == "stopped" and not outcome(t) for each in rates.values() for t in each
        ),
        "tokens": tokens,
        "rates": len(rates),
        "rates_finished": len(losses),
        "fit": fitted and vars(fitted),
        **_sensitivity(rates, metric),
    }


def _sensitivity(rates: Mapping[float, Sequence[Trial]], metric: str) -> Facts:
    """The sensitivity to the learning rate, and the tokens that it is taken at."""
    alive = [t for each in rates.values() for t in each if t.status != "diverged" and t.curve]
    tokens = final_point(alive)
    none = {"sensitivity": None, "sensitivity_tokens": None}
    if tokens is None or metric != "val_loss":
        return none
    means = []
    for each in rates.values():
        capped = [_capped(trial, tokens, metric) for trial in each]
        if any(loss is None for loss in capped):  # one that diverged at its very first update
            return none
        means.append(statistics.fmean(loss for loss in capped if loss is not None))
    return {
        "sensitivity": statistics.fmean(means) - min(means),
        "sensitivity_tokens": tokens,
        "sensitivity_decades": math.log10(max(rates) / min(rates)),
    }


def _capped(trial: Trial, tokens: Point, metric: str) -> float | None:
    """The loss at so many tokens, no higher than at init; that of a diverged trial is the latter."""
    row = at(trial, tokens)
    if row is None or trial.status == "diverged":
        return trial.loss_init
    loss: float = row[metric]
    return loss if trial.loss_init is None else min(loss, trial.loss_init)
