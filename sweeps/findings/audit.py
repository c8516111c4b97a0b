"""What audits show about trials that were stopped early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.findings.results import Results, TrialResult
from sweeps.ledger import Row, Trial
from sweeps.selection import (
    Point,
    at,
    groups,
    last_record,
    losses_by_seed_at,
    means_on_shared_seeds,
)
from sweeps.stats import share_interval


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

    stopped: int  # trials
    audited: int  # trials
    choices: int  # audited values; trials in ledgers in which each seed is judged alone
    top: int  # the schedule finishes at least this many choices
    false_kills: int  # audited choices whose final mean loss is among the `top` lowest of all
    rate: float  # false kills per audited choice
    low: float  # 95% interval of the rate among all stopped ones (Clopper and Pearson, 1934)
    high: float
    # How far the best audited choice ends below all that finished, at least 0; None if none finished.
    regret: float | None
    point: Point | None
    trial_results: tuple[Audited, ...]  # best first; diverged trials have no loss

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "stopped": self.stopped,
            "audited": self.audited,
            **({"choices": self.choices} if self.choices != self.audited else {}),
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


def _choices(results: Results, trials: Sequence[Trial]) -> list[list[Trial]]:
    """What the policy continued or stopped as one: the seeds of a value, or each trial."""
    return [[one] for one in trials] if results.sweep.judges_each_seed else groups(trials)


def _losses(
    results: Results, choices: Sequence[Sequence[Trial]], point: Point | None
) -> list[dict[int, float]]:
    """The losses of each choice by seed, without choices of which a run diverged."""
    found = []
    for runs in choices:
        ends = losses_by_seed_at(runs, point, results.metric)
        if ends and all(run.status == "finished" for run in runs):
            found.append(ends)
    return found


def _above(losses: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> list[float]:
    """How far others are above a choice, each over the seeds that it shares."""
    means = (means_on_shared_seeds(losses, other) for other in others)
    return [other - own for own, other in means]


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
    diverged = results.having("diverged")
    ranked = _losses(results, _choices(results, [*results.having("finished"), *diverged]), point)
    audits = [result.trial for result in trial_results]
    choices = [
        runs
        for runs in _choices(results, [*audits, *diverged])
        if any(run.role == "audit" for run in runs)
    ]
    lost = _losses(results, choices, point)
    top = results.space.schedule.finishers
    false = sum(sum(gap < 0 for gap in _above(one, [*ranked, *lost])) < top for one in lost)
    stopped = sum(not trial.is_stopped_by_hand for trial in results.having("stopped"))
    low = high = false / len(choices)
    if len(trial_results) < stopped:
        low, high = share_interval(false, len(choices))
    return Audit(
        stopped=stopped,
        audited=len(trial_results),
        choices=len(choices),
        top=top,
        false_kills=false,
        rate=false / len(choices),
        low=low,
        high=high,
        regret=max([0.0, *(min(_above(one, ranked)) for one in lost)]) if ranked else None,
        point=point,
        trial_results=tuple(
            sorted(trial_results, key=lambda result: result.loss(results.metric) or math.inf)
        ),
    )
