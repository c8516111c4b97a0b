"""What a sweep is going to take, by replaying its policy in virtual time.

The curves are those of finished and diverged trials of earlier sweeps with the same metric and
budget, drawn at random; where there are too few of them, made-up curves whose order never changes.
"""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeps import ledger as led
from sweeps import replay
from sweeps import space as sp
from sweeps.driver import Asked
from sweeps.replay import Curve

FEWEST = 8  # curves of earlier sweeps that say more than made-up ones
_REPEATS = 20


@dataclass(frozen=True)
class Forecast:
    """What a sweep is expected to take."""

    tokens: int  # mean over replays
    low: int  # the least and the most of them
    high: int
    seconds: float | None  # by the clock, evaluation and start-up aside; None without speeds
    basis: str  # what was replayed

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `forecast` row."""
        return asdict(self)


def earlier_curves(asked: Asked) -> list[Curve]:
    """The whole curves of the sweeps under results/ that have the same metric and budget."""
    return [curve for files in led.sweeps() for curve in _whole_curves(files, asked)]


def _whole_curves(files: led.Files, asked: Asked) -> Iterator[Curve]:
    try:
        sweep = led.fold(led.read(files))
    except led.LedgerError:
        return  # whoever analyzes that sweep is told
    if sweep.asked is None or sweep.asked["space"].get("metric", "val_loss") != asked.space.metric:
        return
    for trial in sweep.trials.values():
        whole = trial.status == "diverged" or trial.tokens == trial.budget
        if trial.budget != asked.base.budget.tokens or not whole or not trial.curve:
            continue
        tokens = [row["tokens"] for row in trial.curve]
        scores = [row[asked.space.metric] for row in trial.curve]
        if trial.status == "diverged":
            tokens, scores = [*tokens, trial.tokens], [*scores, float("inf")]
        yield Curve(trial.trial, trial.label, tuple(tokens), tuple(scores), tuple(tokens))


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
    asked: Asked, planned: Sequence[sp.Planned], speeds: Sequence[float] | None, slots: int
) -> Forecast:
    """What the planned trials take; `speeds` are their tokens per second, where known.

    For an Optuna search, whose trials are not planned, as many as it has samples.
    """
    rungs = sp.rungs(asked.space, asked.base, asked.source)
    search = asked.space.search
    budgets = [one.config.budget.tokens for one in planned]
    if isinstance(search, sp.OptunaSearch):
        budgets = [asked.base.budget.tokens] * search.samples
    pool = earlier_curves(asked) if rungs else []
    basis = f"{len(pool)} curves of earlier sweeps"
    if len(pool) < FEWEST:
        pool = _made_up(rungs, budgets)
        basis = "curves that keep their order" if rungs else "every trial to its end"
    orders = replay.arrivals(pool, _REPEATS, asked.seed) if rungs else [pool]
    results = [
        replay.replay(
            _draw(order, speeds or [1.0] * len(budgets)),
            asked.space.schedule.policy_at(rungs, replay.SCORE),
            slots,
            float(asked.space.schedule.branch),
        )
        for order in orders
    ]
    spent = [result.tokens for result in results]
    return Forecast(
        tokens=round(statistics.fmean(spent)),
        low=min(spent),
        high=max(spent),
        seconds=statistics.fmean(result.seconds for result in results) if speeds else None,
        basis=basis,
    )
