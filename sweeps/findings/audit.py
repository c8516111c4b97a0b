"""What audits show about trials that were stopped early."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.findings.results import Results, TrialResult
from sweeps.ledger import Row, Trial
from sweeps.selection import Point, at, groups, last_record, losses_at
from sweeps.stats import CONFIDENCE


@dataclass(frozen=True)
class Audited(TrialResult):
    """An audited trial at the final token count."""

    rung: int  # tokens at which the trial was stopped

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {**super().as_json(), "rung": self.rung}


@dataclass(frozen=True)
class Audit:
    """Stopped trials that an audit trained in full, and how many should not have been stopped."""

    stopped: int
    audited: int
    top: int  # the schedule finishes at least this many values
    false_kills: int  # audited trials whose final loss is among the `top` lowest of all values
    rate: float  # false kills per audited trial
    low: float  # 95% interval of the rate among all stopped trials (Clopper and Pearson, 1934)
    high: float
    # The final loss of the best ranked trial less the best audited one's, at least 0; None if no trial
    # is ranked.
    regret: float | None
    point: Point | None
    trial_results: tuple[Audited, ...]  # best first; diverged trials have no loss

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "stopped": self.stopped,
            "audited": self.audited,
            "top": self.top,
            "false_kills": self.false_kills,
            "rate": self.rate,
            "low": self.low,
            "high": self.high,
            "regret": self.regret,
            "tokens": self.point,
            "trials": [result.as_json() for result in self.trial_results],
        }


def _trial_results(results: Results, point: Point | None) -> list[Audited]:
    return [
        Audited(audit, at(audit, point), last.tokens)
        for stopped in results.sweep.trials.values()
        if (audit := results.ended_audit(stopped)) and (last := last_record(stopped))
    ]


def _means(results: Results, trials: Iterable[Trial], point: Point | None) -> list[float]:
    """The mean loss of each value over its seeds: as many values finish as the schedule asks for."""
    losses = (losses_at(group, point, results.metric) for group in groups(trials))
    return [statistics.fmean(each) for each in losses if each]


def audit(results: Results) -> Audit | None:
    """The results of the audited trials; None without an audit, and where the target has ended trials,
    which were trained for less than an audit.

    All are compared where the finished and the audited trials can be: at the ends of their budgets if
    these differ. If all stopped trials were audited, the interval is a single number.
    """
    ended = [trial for trial in results.audited(results.trials) if trial.status == "finished"]
    point = results.point_of(ended)
    trial_results = _trial_results(results, point)
    if not trial_results or results.to_target:
        return None
    ranked = _means(results, results.having("finished"), point)
    top = results.space.schedule.finishers
    losses = [loss for result in trial_results if (loss := result.loss(results.metric)) is not None]
    lost = _means(results, [result.trial for result in trial_results], point)
    bar = max(sorted([*ranked, *lost])[:top], default=-math.inf)
    false = sum(loss <= bar for loss in losses)
    stopped = len(results.having("stopped"))
    low = high = false / len(trial_results)
    if len(trial_results) < stopped:
        from scipy import stats  # takes a second

        interval = stats.binomtest(false, len(trial_results)).proportion_ci(
            CONFIDENCE, method="exact"
        )
        low, high = float(interval.low), float(interval.high)
    return Audit(
        stopped=stopped,
        audited=len(trial_results),
        top=top,
        false_kills=false,
        rate=false / len(trial_results),
        low=low,
        high=high,
        regret=max(0.0, min(ranked) - min(losses, default=math.inf)) if ranked else None,
        point=point,
        trial_results=tuple(
            sorted(trial_results, key=lambda result: result.loss(results.metric) or math.inf)
        ),
    )
