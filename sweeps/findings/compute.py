"""The compute that a sweep used: tokens, FLOPs and seconds, and when its attempts ran."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sweeps.findings.results import Results, tokens_per_s
from sweeps.ledger import Row, Trial
from sweeps.selection import Metric, last_record
from sweeps.text import duration


@dataclass(frozen=True)
class Forecast:
    """The compute that all trials of the space were expected to use, when it was last changed."""

    tokens: int
    low: int
    high: int
    seconds: float | None  # wall-clock, of training alone
    # Seconds before it; None in ledgers of versions that did not forecast it.
    start_up: float | None
    basis: str  # what the forecast is based on
    before: int  # tokens that these trials had been trained on when it was made
    since: int  # that they have been trained on since

    def left(self, tokens: int) -> int:
        """What was still to be trained of so many tokens when it was made."""
        return max(0, tokens - self.before)

    @property
    def words(self) -> str:
        """What of the time was expected: all but evaluation, or training alone; empty if none is known."""
        if not self.seconds:
            return ""
        if self.start_up is None:
            return f"{duration(self.seconds)} of training"
        return f"{duration(self.seconds + self.start_up)} with start-up"


@dataclass(frozen=True)
class Compute:
    """The compute used, the forecast, and the compute that training every trial in full would use."""

    tokens_audit: int
    wall_clock: float  # seconds of the sweep's sessions
    forecast: Forecast | None
    tokens: int  # in total
    tokens_withdrawn: int  # of these, in trials that the space no longer has, and in their audits
    tokens_full: int  # if every trial were trained in full
    tokens_branches: int  # in decay branches
    tokens_repeated: int  # trained again after an interruption
    flops: int  # in total
    flops_withdrawn: int
    flops_full: int
    seconds: float  # of training, summed over trials

    @property
    def tokens_kept(self) -> int:
        """The tokens in trials that the space has, and in their audits."""
        return self.tokens - self.tokens_withdrawn

    @property
    def share(self) -> float | None:
        """These, as a share of what training every trial in full would use; None without trials."""
        return self.tokens_kept / self.tokens_full if self.tokens_full else None

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def cost_and_loss(trial: Trial, metric: Metric) -> tuple[int, float]:
    """FLOPs and final loss of a finished trial."""
    end = last_record(trial)
    assert end is not None  # a finished trial has a last record
    return end.tokens * trial.flops_per_token, end.loss(metric)


def front(results: Results) -> tuple[Trial, ...]:
    """The trials that finished, in an audit too, whose loss no other one reaches for as little compute,
    the cheapest first."""
    best: list[Trial] = []
    lowest = math.inf
    finished = [t for t in results.audited(results.trials) if t.status == "finished"]
    for trial in sorted(finished, key=lambda trial: cost_and_loss(trial, results.metric)):
        _, loss = cost_and_loss(trial, results.metric)
        if loss < lowest:
            best.append(trial)
            lowest = loss
    return tuple(best)


def compute(results: Results) -> Compute:
    """The compute that a sweep has used so far."""
    trials = list(results.sweep.trials.values())
    reached = sum(trial.tokens for trial in trials)
    branches = sum(trial.branch_tokens for trial in trials)
    ends = [record for trial in trials if (record := last_record(trial)) is not None]
    spent = sum(trial.spent_tokens for trial in trials)
    withdrawn = results.sweep.withdrawn.values()
    return Compute(
        tokens_audit=sum(trial.spent_tokens for trial in results.sweep.audits.values()),
        wall_clock=results.sweep.seconds,
        forecast=_forecast(results, spent),
        tokens=results.sweep.spent_tokens,
        tokens_withdrawn=sum(trial.spent_tokens for trial in withdrawn),
        tokens_full=sum(trial.budget for trial in trials),
        tokens_branches=branches,
        tokens_repeated=spent - reached - branches,
        flops=results.sweep.spent_flops,
        flops_withdrawn=sum(trial.spent_tokens * trial.flops_per_token for trial in withdrawn),
        flops_full=sum(trial.budget * trial.flops_per_token for trial in trials),
        seconds=math.fsum(record.seconds for record in ends),
    )


def _forecast(results: Results, spent: int) -> Forecast | None:
    """The forecast of a sweep whose trials have been trained on so many tokens; None if there is none."""
    row = results.sweep.forecast
    if row is None:
        return None
    then = results.sweep.spent_at_forecast
    before = sum(then.get(trial, 0) for trial in results.sweep.trials)
    return Forecast(
        row["tokens"],
        row["low"],
        row["high"],
        row["seconds"],
        row.get("start_up"),
        row["basis"],
        before,
        spent - before,
    )


@dataclass(frozen=True)
class Bar:
    """An attempt at a trial, in seconds of the sweep's sessions from the first start of a trial."""

    label: str  # of the trial
    slot: int  # in `Timeline.slots`
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """When each attempt ran, and how busy the slots were."""

    bars: tuple[Bar, ...]
    slots: tuple[
        str, ...
    ]  # their names: hosts, if several trained, and devices, where Ray gave some
    nodes: tuple[tuple[float, Row], ...]  # `node` rows, and their seconds as those of bars
    utilization: float | None  # the share of slots in use, over all sessions


def timeline(results: Results) -> Timeline:
    """When each attempt ran, each on the first slot of its device that was free by its first record."""
    attempts = results.attempts
    first = attempts[0].begun if attempts else 0.0
    is_one = len({each.host for each in attempts if each.host}) < 2
    # When each slot of a device of a host was free again.
    free: dict[tuple[str, str, int], float] = {}
    taken = []
    for each in attempts:
        by = each.begun if each.measured is None else each.measured
        host = "" if is_one else each.host
        slots = ((host, each.device, number) for number in itertools.count())
        slot = next(one for one in slots if free.get(one, by) <= by)
        taken.append((each, slot, max(each.begun, free.get(slot, 0.0))))
        free[slot] = each.ended if each.is_over else math.inf
    order = {slot: position for position, slot in enumerate(sorted(free))}
    bars = [
        Bar(results.sweep.find(each.trial).label, order[slot], begun - first, each.ended - first)
        for each, slot, begun in taken
    ]
    room = results.sweep.seconds * _slots(results)
    return Timeline(
        bars=tuple(bars),
        slots=tuple(
            f"{host} {device or f'slot {number + 1}'}".strip() for host, device, number in order
        ),
        nodes=tuple((at - first, row) for at, row in results.sweep.nodes),
        utilization=results.sweep.busy_seconds / room if room else None,
    )


def _slots(results: Results) -> int:
    """The most trials that ran at once; 0 if no session says."""
    return max((int(session.get("slots") or 0) for session in results.sweep.sessions), default=0)


@dataclass(frozen=True)
class Throughput:
    """The speed of the runs of a config."""

    flops_per_s: float  # median over the runs
    peak: float | None  # FLOPs per second of a large matrix product; None if it is not known
    slots: int  # the most trials of the sweep that ran at once

    @property
    def share(self) -> float | None:
        """The share of the peak."""
        return None if self.peak is None else self.flops_per_s / self.peak


def throughput(results: Results, runs: Sequence[Trial]) -> Throughput | None:
    """The speed of the runs; None if it was not measured.

    The peak is not known if the sessions ran on several machines, or if it is below the speed of the
    runs: then it was measured while something else ran.
    """
    rates = [speed * trial.flops_per_token for trial in runs if (speed := tokens_per_s(trial))]
    if not rates:
        return None
    rate = statistics.median(rates)
    machines = [session.get("machine") or {} for session in results.sweep.sessions]
    peaks = [peak for session in results.sweep.sessions if (peak := session.get("product_flops"))]
    peak = max(peaks) if peaks and all(one == machines[0] for one in machines) else None
    return Throughput(rate, peak if peak is None or peak >= rate else None, _slots(results))
