"""What a sweep is expected to take: its policy replayed in virtual time, at the speeds of this machine.

The curves are those of earlier sweeps with the same metric and budget, in random order; if there are
too few of them, or the budgets of the trials differ, made-up curves that never cross.
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from sweeps import ledger as led
from sweeps.plan.reading import parse
from sweeps.plan.request import Request
from sweeps.plan.trials import Load
from sweeps.policies.none import RunAll
from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve, arrivals, reaches
from sweeps.simulate.machine import replay
from tinylm import config as cfg

START_UP = 8.0  # seconds; see `start_up`
FEWEST = 8  # with fewer curves of earlier sweeps, made-up ones are replayed
_REPEATS = 20
_ANY_SPEED = (
    1e12  # tokens per second if none is known: so high that no budget in seconds ends a run
)


@dataclass(frozen=True)
class Forecast:
    """What a sweep is expected to take."""

    tokens: int  # mean over the replays
    low: int  # the fewest and the most of them, and of the seeds of a study
    high: int
    seconds: float | None  # wall-clock, of training alone; None without speeds
    # Each rung, and the end, in tokens, or as a share where each trial has its own budget -> trials that
    # reach it.
    occupancy: dict[int | str, float]
    basis: str  # what the forecast is based on
    trials: float  # that start, as tokens: further seeds only of values that pass their first rung
    fewest: int
    most: int
    start_up: float  # seconds until the first trial trains

    def whole_seconds(self, share: float = 1.0) -> float | None:
        """Wall-clock seconds of a share of the training, with the start-up, without evaluation; None
        without speeds."""
        return None if self.seconds is None else share * self.seconds + self.start_up

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `forecast` row."""
        return asdict(self)


def start_up() -> float:
    """Seconds from the beginning of a session until its first trial trains: the median of the sweeps under
    results/, or what it is on an idle machine."""
    found = [seconds for files in led.sweeps() if (seconds := _start_up(files)) is not None]
    return statistics.median(found) if found else START_UP


def _start_up(files: led.Files) -> float | None:
    """What the first record of a sweep took without its training; None if its first session has none."""
    begun = None
    try:
        for row in led.rows(files, {"session", "measured"}):
            if row["kind"] == "measured":
                return None if begun is None else max(0.0, row["t"] - begun - row["seconds"])
            begun = row["t"]
    except (led.LedgerError, OSError, KeyError):
        pass
    return None


def earlier_curves(request: Request, rungs: Sequence[int]) -> list[Curve]:
    """The curves of the sweeps under results/ with the same metric and budget whose records reach the
    first rung."""
    found = {curve.trial: curve for files in led.sweeps() for curve in _curves(files, request)}
    return [curve for curve in found.values() if reaches(curve, rungs[0])]


def _curves(files: led.Files, request: Request) -> list[Curve]:
    try:
        return list(_read_curves(files, request))
    except (led.LedgerError, OSError, KeyError, ValueError):
        return []  # damaged, or of another version; `sweeps.analyze` reports it


def _read_curves(files: led.Files, request: Request) -> Iterator[Curve]:
    sweep = led.fold(led.rows(files))
    metric = request.space.metric
    if sweep.request is None or parse(sweep.request["space"], files.name).metric != metric:
        return
    if metric == "bits_per_byte" and sweep.request.get("bits") != led.BITS:
        return  # of another definition
    budget = request.base.budget.tokens
    trials = [trial for trial in sweep.trials.values() if trial.budget == budget and trial.tokens]
    ended = [t for t in trials if t.status == "finished" and t.how != led.AT_TARGET]
    for trial in trials:
        scores = {row["tokens"]: row[metric] for row in trial.curve}
        if trial.status == "diverged":
            scores[trial.tokens] = math.inf
        elif trial.status == "stopped" and ended:
            scores |= _behind(
                scores, [{r["tokens"]: r[metric] for r in end.curve} for end in ended]
            )
        elif trial.status != "finished" or trial.how == led.AT_TARGET:
            continue
        yield Curve(trial.trial, trial.label, tuple(scores), tuple(scores.values()), tuple(scores))


def _behind(scores: dict[int, float], ended: Sequence[dict[int, float]]) -> dict[int, float]:
    """How a stopped trial would have continued if it had stayed as far behind the worst finished trial
    as it was."""
    last = max(scores)
    worst = max(ended, key=lambda end: end.get(last, -math.inf))
    gap = max(0.0, scores[last] - worst.get(last, math.inf))
    return {tokens: score + gap for tokens, score in worst.items() if tokens > last}


def _made_up(rungs: Sequence[int], budgets: Sequence[int]) -> list[Curve]:
    """Curves with a record at each rung that never cross, the best first."""
    ends = [(*rungs, budget) for budget in budgets]
    return [
        Curve(str(rank), "", tokens, (float(rank),) * len(tokens), tokens)
        for rank, tokens in enumerate(ends)
    ]


def _draw(
    pool: Sequence[Curve],
    configs: Sequence[cfg.Config],
    speeds: Sequence[float],
    scales: Sequence[Fraction],
) -> list[Curve]:
    """A curve of the pool for every trial, at the trial's speed and scale. Each is used once before any is
    used again; trials that differ only by seed have the same."""
    drawn = []
    values: dict[cfg.Config, int] = {}
    for number, (config, speed, scale) in enumerate(zip(configs, speeds, scales, strict=True)):
        first_seed = config.model_copy(update={"run": config.run.model_copy(update={"seed": 0})})
        value = values.setdefault(first_seed, len(values))
        curve = pool[value % len(pool)]
        pace = speed / float(scale)
        seconds = tuple(tokens / pace for tokens in curve.tokens)
        drawn.append(
            replace(
                curve,
                trial=str(number),
                seconds=seconds,
                scale=scale,
                values=str(value),
                seed=config.run.seed,
            )
        )
    return drawn


def forecast(request: Request, load: Load, speeds: Sequence[float] | None, slots: int) -> Forecast:
    """What a load is expected to take if no cap ends it; `speeds` are the tokens per second of its
    configs, if known."""
    schedule, budget = request.space.schedule, request.budget
    whole = budget or schedule.least_budget
    rungs = schedule.rungs(whole)
    pool = earlier_curves(request, rungs) if rungs and budget else []
    basis = f"replay of {len(pool)} curves of earlier sweeps"
    if not rungs or not load.pools:
        basis = "no early stopping"
    elif len(pool) < FEWEST:
        pool = []
        basis = "replay of made-up curves that never cross"
    rates = iter(speeds or [_ANY_SPEED] * len(load.configs))
    parts = [
        _replayed(request, configs, list(itertools.islice(rates, len(configs))), pool, whole, slots)
        for configs in load.pools
    ]
    parts.append(_to_their_ends(load.free, list(itertools.islice(rates, len(load.free))), slots))
    further, share = _to_their_ends(load.further, list(rates), slots), _share(request.looks)
    alone = len(load.pools) == 1 and not load.free and not load.further
    # Of several parts that share the slots, only the total work is known.
    seconds = (
        parts[0].seconds
        if alone
        else (sum(part.busy for part in parts) + share * further.busy) / slots
    )
    stages = {
        tokens: tokens if budget else str(Fraction(tokens, whole)) for tokens in (*rungs, whole)
    }
    return Forecast(
        tokens=round(
            sum(statistics.fmean(part.tokens) for part in parts) + share * further.tokens[0]
        ),
        low=sum(min(part.tokens) for part in parts),
        high=sum(max(part.tokens) for part in parts) + further.tokens[0],
        trials=sum(part.reached(0) for part in parts) + share * further.reached(0),
        fewest=sum(min(map(len, part.reaches)) for part in parts),
        most=sum(max(map(len, part.reaches)) for part in [*parts, further]),
        seconds=seconds if speeds else None,
        start_up=start_up(),
        occupancy={
            name: sum(part.reached(at) for part in parts) + share * further.reached(at)
            for at, name in stages.items()
        },
        basis=basis,
    )


def _share(looks: Sequence[int]) -> float:
    """The share of the seeds after the first look that are likely to be trained, if an arm is settled at
    any look alike. That is after 7 seeds where the looks are 3, 5, 8 and 12; in simulated studies of an arm
    that is equal, or worse by 1, 2 or 4 standard deviations, it was 7.9 (docs/validation.md). With three arms it
    was 8.5, and 8.3 where their variance was pooled, so that makes no difference here."""
    first, last = looks[0], looks[-1]
    return (statistics.fmean(looks) - first) / (last - first) if last > first else 0.0


@dataclass(frozen=True)
class _Part:
    """The totals of the replays of a pool."""

    tokens: list[int]  # of each replay
    seconds: float  # mean, wall-clock
    busy: float  # mean, summed over trials
    reaches: list[list[int]]  # tokens of the trials of each replay

    def reached(self, stage: int) -> float:
        """How many trials reach a token count, on average."""
        return statistics.fmean(sum(tokens >= stage for tokens in each) for each in self.reaches)


def _replayed(
    request: Request,
    configs: Sequence[cfg.Config],
    speeds: Sequence[float],
    pool: Sequence[Curve],
    whole: int,
    slots: int,
) -> _Part:
    """The replays of the trials of one pool under the space's policy, on the given curves if any; they
    are those of a budget of `whole` tokens, to which each trial's own is scaled."""
    schedule = request.space.schedule
    rungs = schedule.rungs(whole)
    if not rungs:
        return _to_their_ends(configs, speeds, slots)
    curves = pool or _made_up(rungs, [whole] * len(configs))
    scales = [Fraction(config.budget.tokens, whole) for config in configs]
    results = [
        replay(
            _draw(order, configs, speeds, scales),
            Values(schedule, rungs, SCORE),
            slots,
            float(schedule.branch),
        )
        for order in arrivals(curves, _REPEATS, request.seed)
    ]
    return _Part(
        [result.tokens for result in results],
        statistics.fmean(result.seconds for result in results),
        statistics.fmean(result.busy for result in results),
        [list(result.reached.values()) for result in results],
    )


def _to_their_ends(configs: Sequence[cfg.Config], speeds: Sequence[float], slots: int) -> _Part:
    """The cost of training all trials to the end."""
    tokens = [
        config.budget.tokens
        if config.budget.seconds is None
        else min(config.budget.tokens, round(speed * config.budget.seconds))
        for config, speed in zip(configs, speeds, strict=True)
    ]
    curves = [
        replace(curve, seconds=tuple(tokens / speed for tokens in curve.tokens))
        for curve, speed in zip(_made_up((), tokens), speeds, strict=True)
    ]
    result = replay(curves, RunAll(), slots)
    return _Part([sum(tokens)], result.seconds, result.busy, [tokens])
