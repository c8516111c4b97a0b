"""Validate the optimism of a choice on equal configs: the numbers of docs/validation.md.

    python benchmarks/validation/flattery.py [--searches 4000]

Makes searches of 20 values that are all the same, from the 200 final losses in losses_smoke.csv, and chooses the best
by its mean. By how much that is below the mean of all 200 is what choosing flatters it; what a report says is the
optimism of `sweeps/findings/optimism.py`. Nothing is trained. It takes a minute on one core.
"""

import random
import statistics
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sweeps.findings.optimism import optimism_of

HERE = Path(__file__).parent
VALUES = 20


def main(
    searches: Annotated[int, typer.Option(min=10, help="Searches of each kind.")] = 4000,
) -> None:
    """Print what is said and what is true, as means over the searches."""
    recorded = np.genfromtxt(HERE / "losses_smoke.csv", delimiter=",", names=True)["val_loss"]
    pool: list[float] = recorded.tolist()
    truth = statistics.fmean(pool)
    for seeds in (2, 3, 5, 10):
        draw = random.Random(seeds)  # noqa: S311 no secret
        said, measured = [], []
        for _ in range(searches):
            drawn = draw.sample(pool, VALUES * seeds)
            values = [dict(enumerate(drawn[n::VALUES])) for n in range(VALUES)]
            best = min(statistics.fmean(value.values()) for value in values)
            said.append(optimism_of(values, range(seeds), best))
            measured.append(truth - best)
        errors = [one - other for one, other in zip(said, measured, strict=True)]
        covers = statistics.fmean(one >= other for one, other in zip(said, measured, strict=True))
        print(
            f"{seeds} seeds: says {statistics.fmean(said):.4f}, is {statistics.fmean(measured):.4f}; "
            f"in one search off by {statistics.stdev(errors):.4f}; says at least as much in {covers:.0%}"
        )


if __name__ == "__main__":
    typer.run(main)
