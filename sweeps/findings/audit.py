"""What audits show about trials that were stopped early."""

import math
from dataclasses import dataclass

from sweeps.findings.ranking import final_losses
from sweeps.findings.results import Place, Results
from sweeps.ledger import Row
from sweeps.selection import Point, at, last_record
from sweeps.stats import CONFIDENCE


@dataclass(frozen=True)
class Audited(Place):
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
    top: int  # the schedule finishes at least this many trials
    false_kills: int  # audited trials whose final loss is among the `top` lowest of all
    rate: float  # false kills per audited trial
    low: float  # 95% interval of the rate among all stopped trials (Clopper and Pearson, 1934)
    high: float
    regret: float  # final loss of the best ranked trial less the best audited one's, at least 0
    point: Point | None
    places: tuple[Audited, ...]  # best first; diverged trials have no loss

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
            "trials": [place.as_json() for place in self.places],
        }


def _places(results: Results) -> list[Audited]:
    places = []
    for name, stopped in results.sweep.trials.items():
        audit = results.sweep.audit(name)
        if stopped.status != "stopped" or audit is None:
            continue
        last = last_record(stopped)
        if audit.status in {"finished", "diverged"} and last is not None:
            places.append(Audited(audit, at(audit, results.final), last.tokens))
    return places


def audit(results: Results) -> Audit | None:
    """The results of the audited trials; None without an audit.

    If all stopped trials were audited, the interval is a single number.
    """
    places = _places(results)
    ranked = final_losses(results, results.trials)
    if not places or not ranked:
        return None
    top = results.space.schedule.finishers
    losses = [loss for place in places if (loss := place.loss(results.metric)) is not None]
    bar = sorted([*ranked, *losses])[:top][-1]
    false = sum(loss <= bar for loss in losses)
    stopped = len(results.having("stopped"))
    low = high = false / len(places)
    if len(places) < stopped:
        from scipy import stats  # takes a second

        interval = stats.binomtest(false, len(places)).proportion_ci(CONFIDENCE, method="exact")
        low, high = float(interval.low), float(interval.high)
    return Audit(
        stopped=stopped,
        audited=len(places),
        top=top,
        false_kills=false,
        rate=false / len(places),
        low=low,
        high=high,
        regret=max(0.0, min(ranked) - min(losses, default=math.inf)),
        point=results.final,
        places=tuple(sorted(places, key=lambda place: place.loss(results.metric) or math.inf)),
    )
