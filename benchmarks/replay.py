"""Measure how long replays of very large sweeps take.

    python benchmarks/replay.py [--trials 10000] [--workers 1000]

Prints the CPU seconds of one replay for each policy. Trials have eleven records, and policies with
rungs have ten.
"""

import random
import time
from typing import Annotated

import typer

from sweeps.policies import SCHEDULES
from sweeps.simulate.curves import SCORE, Curve
from sweeps.simulate.judge import rounded_rungs
from sweeps.simulate.machine import replay
from sweeps.simulate.settings import fitting

TOKENS = tuple(2**power for power in range(1, 12))
GIVEN = {"eta": 2, "grace": "1/1024", "finish": 1}
MEDIAN = {"grace": "1/11"}


def curves(trials: int) -> list[Curve]:
    """Noisy curves, each of which falls toward its own final score."""
    rng = random.Random(0)  # noqa: S311 no secret
    found = []
    for number in range(trials):
        final = rng.random()
        scores = tuple(final + 2 / tokens + rng.gauss(0, 0.05) for tokens in TOKENS)
        found.append(Curve(str(number), "", TOKENS, scores, tuple(map(float, TOKENS))))
    return found


def main(
    trials: Annotated[int, typer.Option(min=1)] = 10_000,
    workers: Annotated[int, typer.Option(min=1)] = 1_000,
) -> None:
    """Time one replay of each policy."""
    pool = curves(trials)
    for name in SCHEDULES:
        chosen = fitting(name, MEDIAN if name == "median" else GIVEN)
        rungs = rounded_rungs(chosen, TOKENS[-1])
        begun = time.process_time()
        result = replay(pool, chosen.policy_at(rungs, SCORE), workers)
        passed = time.process_time() - begun
        print(
            f"{name:14s} {len(rungs):2d} rungs {passed:5.1f} s, {len(result.finished)} of {trials} "
            f"finished, workers {result.busy / (workers * result.seconds):.0%} busy"
        )


if __name__ == "__main__":
    typer.run(main)
