"""What a sweep is going to take: speeds measured here, and its policy replayed in virtual time.

The curves are those of earlier sweeps with the same metric and budget, drawn at random; where there
are too few of them, made-up curves whose order never changes.
"""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sweeps import ledger as led
from sweeps import provenance, replay
from sweeps import space as sp
from sweeps.curves import SCORE, Curve, reaches
from sweeps.driver import Asked
from tinylm import config as cfg
from tinylm.data import cache_folder

FEWEST = 8  # curves of earlier sweeps that say more than made-up ones
_REPEATS = 20


@dataclass(frozen=True)
class Forecast:
    """What a sweep is expected to take."""

    tokens: int  # mean over replays
    low: int  # the least and the most of them
    high: int
    seconds: float | None  # by the clock, evaluation and start-up aside; None without speeds
    occupancy: dict[int, float]  # tokens of each rung, and of the end -> trials that get there
    basis: str  # what was replayed

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `forecast` row."""
        return asdict(self)


def earlier_curves(asked: Asked, rungs: Sequence[int]) -> list[Curve]:
    """The curves of the sweeps under results/ that have the same metric and budget, and records
    that meet the first rung."""
    found = {curve.trial: curve for files in led.sweeps() for curve in _curves(files, asked)}
    return [curve for curve in found.values() if reaches(curve, rungs[0])]


def _curves(files: led.Files, asked: Asked) -> list[Curve]:
    try:
        return list(_read_curves(files, asked))
    except (led.LedgerError, OSError, KeyError):
        return []  # damaged, or of another version: whoever analyzes that sweep is told


def _read_curves(files: led.Files, asked: Asked) -> Iterator[Curve]:
    sweep = led.fold(led.read(files))
    metric = asked.space.metric
    if sweep.asked is None or sweep.asked["space"].get("metric", "val_loss") != metric:
        return
    budget = asked.base.budget.tokens
    trials = [trial for trial in sweep.trials.values() if trial.budget == budget and trial.tokens]
    ended = [trial for trial in trials if trial.status == "finished"]
    for trial in trials:
        scores = {row["tokens"]: row[metric] for row in trial.curve}
        if trial.status == "diverged":
            scores[trial.tokens] = math.inf
        elif trial.status == "stopped" and ended:
            scores |= _behind(
                scores, [{r["tokens"]: r[metric] for r in end.curve} for end in ended]
            )
        elif trial.status != "finished":
            continue
        yield Curve(trial.trial, trial.label, tuple(scores), tuple(scores.values()), tuple(scores))


def _behind(scores: dict[int, float], ended: Sequence[dict[int, float]]) -> dict[int, float]:
    """How a stopped trial would have gone on, had it stayed as far behind the worst of the finished
    as it was."""
    last = max(scores)
    worst = max(ended, key=lambda end: end.get(last, -math.inf))
    gap = max(0.0, scores[last] - worst.get(last, math.inf))
    return {tokens: score + gap for tokens, score in worst.items() if tokens > last}


def _made_up(rungs: Sequence[int], budgets: Sequence[int]) -> list[Curve]:
    """Curves with a record at each rung that keep their order, the best first."""
    ends = [(*rungs, budget) for budget in budgets]
    return [
        Curve(str(rank), "", tokens, (float(rank),) * len(tokens), tokens)
        for rank, tokens in enumerate(ends)
    ]


def _draw(pool: Sequence[Curve], speeds: Sequence[float]) -> list[Curve]:
    """A curve of the pool for every trial, at the trial's speed; all of it before any again."""
    return [
        replace(curve, trial=str(number), seconds=tuple(tokens / speed for tokens in curve.tokens))
        for number, (curve, speed) in enumerate(zip(itertools.cycle(pool), speeds, strict=False))
    ]


def forecast(
    asked: Asked, configs: Sequence[cfg.Config], speeds: Sequence[float] | None, slots: int
) -> Forecast:
    """What trials of these configs take, budgets of the sweep aside; `speeds` are their tokens per
    second, where known."""
    rungs = sp.rungs(asked.space, asked.base, asked.source)
    schedule = asked.space.schedule
    budgets = [config.budget.tokens for config in configs]
    pool = earlier_curves(asked, rungs) if rungs else []
    basis = f"{len(pool)} curves of earlier sweeps"
    if len(pool) < FEWEST:
        pool = _made_up(rungs, budgets)
        basis = "curves that keep their order" if rungs else "every trial to its end"
    results = [
        replay.replay(
            _draw(order, speeds or [1.0] * len(budgets)),
            schedule.policy_at(rungs, SCORE),
            slots,
            float(schedule.branch),
        )
        for order in (replay.arrivals(pool, _REPEATS, asked.seed) if rungs else [pool])
    ]
    spent = [result.tokens for result in results]
    reached = [tokens for result in results for tokens in result.reached.values()]
    return Forecast(
        tokens=round(statistics.fmean(spent)),
        low=min(spent),
        high=max(spent),
        seconds=statistics.fmean(result.seconds for result in results) if speeds else None,
        occupancy={
            stage: sum(tokens >= stage for tokens in reached) / len(results)
            for stage in (*rungs, asked.base.budget.tokens)
        },
        basis=basis,
    )


# Speeds ------------------------------------------------------------------------------------------


def _speed_file() -> Path:
    """What has been measured on this machine: shape -> tokens per second."""
    return cache_folder() / "speeds.json"


def _shape(config: cfg.Config) -> str:
    """The name of everything in a config that its speed depends on, and of the processor."""
    run = config.run.model_dump(exclude={"seed", "checkpoint_every_tokens"})
    return cfg.digest(
        [config.model.model_dump(), config.optim.batch_size, run, provenance.processor()]
    )


def _kept_speeds() -> dict[str, float]:
    try:
        speeds: dict[str, float] = json.loads(_speed_file().read_text())
    except (OSError, ValueError):
        return {}
    return speeds


def known_speeds(configs: Sequence[cfg.Config]) -> list[float] | None:
    """Tokens per second of every config, as `measured_speeds` found them here once; None where one
    is not known."""
    kept = _kept_speeds()
    known = [kept.get(_shape(config)) for config in configs]
    found = [speed for speed in known if speed is not None]
    return found if len(found) == len(known) else None


def measured_speeds(configs: Sequence[cfg.Config], tell: Callable[[str], None]) -> list[float]:
    """Tokens per second of every config, each distinct shape measured anew, and kept."""
    from tinylm import train

    shapes = {_shape(config): config for config in configs}
    found = {}
    for number, (shape, config) in enumerate(shapes.items(), start=1):
        if len(shapes) > 1:
            tell(f"measuring the speed of shape {number} of {len(shapes)}")
        found[shape] = train.probe(config)
    led.write_whole(_speed_file(), json.dumps(_kept_speeds() | found, indent=1).encode())
    return [found[_shape(config)] for config in configs]
