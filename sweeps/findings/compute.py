"""The compute that a sweep used: tokens, FLOPs and seconds."""

import math
from dataclasses import asdict, dataclass

from sweeps.findings.results import Results
from sweeps.ledger import Row
from sweeps.selection import last_record


@dataclass(frozen=True)
class Forecast:
    """The compute that the sweep was expected to use."""

    tokens: int
    low: int
    high: int
    seconds: float | None  # wall-clock, without evaluation and start-up
    basis: str  # what the forecast is based on


@dataclass(frozen=True)
class Compute:
    """The compute used, the forecast, and the compute that training every trial in full would use."""

    tokens_audit: int
    wall_clock: float  # seconds of the sweep's sessions
    forecast: Forecast | None
    tokens: int  # in total
    tokens_full: int  # if every trial were trained in full
    tokens_branches: int  # in decay branches
    tokens_repeated: int  # trained again after an interruption
    flops: int
    flops_full: int
    seconds: float  # of training, summed over trials

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def compute(results: Results) -> Compute:
    """The compute that a sweep has used so far."""
    trials = list(results.sweep.trials.values())
    reached = sum(trial.tokens for trial in trials)
    branches = sum(trial.branch_tokens for trial in trials)
    ends = [record for trial in trials if (record := last_record(trial)) is not None]
    row = results.sweep.forecast
    forecast = row and Forecast(
        row["tokens"], row["low"], row["high"], row["seconds"], row["basis"]
    )
    return Compute(
        tokens_audit=sum(trial.spent_tokens for trial in results.sweep.audits.values()),
        wall_clock=results.sweep.seconds,
        forecast=forecast or None,
        tokens=results.sweep.spent_tokens,
        tokens_full=sum(trial.budget for trial in trials),
        tokens_branches=branches,
        tokens_repeated=sum(trial.spent_tokens for trial in trials) - reached - branches,
        flops=results.sweep.spent_flops,
        flops_full=sum(trial.budget * trial.flops_per_token for trial in trials),
        seconds=math.fsum(record.seconds for record in ends),
    )
