"""Simulate large sweeps on many workers that fail, start slowly and differ in speed: the tables of
docs/scale.md.

    python -m benchmarks.scale [--trials 10000] [--workers 1000] [--out scale.json]

The policies are those that run a sweep; workers, trials and the clock are simulated. Curves are made up: a power
law of the tokens whose final losses are spread as those of a random search, with noise at each record, so
that early ranks mislead. An attempt takes a while to start. A worker's speed is drawn anew for each attempt
(log-normal). Workers fail after exponential times; their trial goes on from its last checkpoint on another.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve
from sweeps.simulate.machine import Replay
from sweeps.simulate.settings import settings

app = typer.Typer()

RECORDS = 81  # of a run
HOUR = 3600.0
HALVING = {"eta": 3, "grace": "1/81"}
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "asha, start first": ("asha", {**HALVING, "finish": 3, "first": "start"}),
    "asha, promote first": ("asha", {**HALVING, "finish": 3, "first": "promote"}),
    "asha_stopping": ("asha_stopping", HALVING),
    "sha": ("sha", HALVING),
    "hyperband": ("hyperband", {"eta": 3}),
    "median": ("median", {"grace": "1/81"}),
}


@dataclass(frozen=True)
class Conditions:
    """What workers do besides training."""

    start: float = 30.0  # seconds until an attempt trains
    lifetime: float = 12 * HOUR  # mean time until a worker fails
    checkpoint: float = 300.0  # seconds of training between two checkpoints
    spread: float = 0.2  # standard deviation of the logarithm of a worker's speed


class Workers(Replay):
    """Virtual workers under conditions."""

    def __init__(self, policy: Values, workers: int, conditions: Conditions, seed: int) -> None:
        super().__init__(policy, workers)
        self._conditions, self._draw = conditions, random.Random(seed)  # noqa: S311 no secret
        self.lost = 0.0  # seconds of training that failures cost
        self.taken = 0.0  # seconds that workers were taken

    def passes(self, seconds: float, *, begins: bool) -> float:
        """With starts, failures and a speed of its own."""
        of, draw = self._conditions, self._draw
        left = seconds * math.exp(draw.gauss(0.0, of.spread))
        passed = of.start if begins else 0.0
        while (life := draw.expovariate(1 / of.lifetime)) < left:
            kept = life // of.checkpoint * of.checkpoint
            self.lost += life - kept
            left -= kept
            passed += life + of.start
        self.taken += passed + left
        return passed + left


def curves(trials: int, seed: int) -> list[Curve]:
    """Made-up curves of an hour each, in random order."""
    draw = random.Random(seed)  # noqa: S311 no secret
    tokens = tuple(range(1, RECORDS + 1))
    seconds = tuple(HOUR * one / RECORDS for one in tokens)
    found = []
    for number in range(trials):
        final, fall = 3 + draw.expovariate(3), draw.uniform(0.3, 0.7)
        scores = tuple(
            final + 2 * (one**-fall - RECORDS**-fall) + draw.gauss(0, 0.02) for one in tokens
        )
        found.append(Curve(str(number), "", tokens, scores, seconds))
    return found


@dataclass(frozen=True)
class Outcome:
    """What a policy took, and what it found."""

    policy: str
    trials: int
    workers: int
    hours: float  # on the clock
    use: float  # share of the workers' time that is training kept
    lost: float  # share of the time of workers that are taken
    cost: float  # share of the training of all trials in full
    regret: float  # of the best that finished, in the unit of the scores


def simulated(name: str, trials: Sequence[Curve], workers: int, seed: int) -> Outcome:
    """A sweep of these trials."""
    policy, given = POLICIES[name]
    schedule = settings(policy, given)
    machine = Workers(Values(schedule, schedule.rungs(RECORDS), SCORE), workers, Conditions(), seed)
    done = machine.run(trials)
    whole = len(trials) * RECORDS
    final = {curve.trial: curve.final for curve in trials}
    return Outcome(
        name, len(trials), workers, done.seconds / HOUR, done.busy / (workers * done.seconds),
        machine.lost / machine.taken, done.tokens / whole,
        min(final[one] for one in done.finished) - min(final.values()),
    )  # fmt: skip


@app.command()
def main(
    trials: Annotated[int, typer.Option(min=1)] = 10_000,
    workers: Annotated[list[int] | None, typer.Option(min=1)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each is simulated.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Print how long a sweep takes under each policy, how busy the workers are, and what is lost."""
    found = []
    print(
        f"{'policy':20s} {'workers':>7s} {'hours':>7s} {'use':>6s} {'lost':>6s} {'cost':>6s} {'regret':>7s}"
    )
    for number in workers or [1000]:
        for name in POLICIES:
            for seed in range(seeds):
                one = simulated(name, curves(trials, seed), number, seed)
                found.append(one)
                print(
                    f"{one.policy:20s} {one.workers:7d} {one.hours:7.2f} {one.use:6.1%} {one.lost:6.2%} "
                    f"{one.cost:6.1%} {one.regret:7.4f}",
                    flush=True,
                )
    if out is not None:
        out.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    app()
