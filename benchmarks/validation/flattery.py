"""Validate what is said of a choice among equal configs: the numbers of docs/validation.md.

    python benchmarks/validation/flattery.py record
    python benchmarks/validation/flattery.py check [--searches 4000]

`record` trains the config of `seeds.yaml` on 200 seeds and writes the loss of each at its end on the validation text
and on the test text to both_texts_smoke.csv; it goes on where it was ended. It takes three minutes on one core.

`check` makes searches of 20 values that are all the same and chooses the best by its mean; it trains nothing and takes
a minute. By how much that mean is below the one of all 200 runs in losses_smoke.csv is the luck of the choice; what a
report says is the optimism of `sweeps/findings/optimism.py`. By how much more the loss rises from validation text to
test text than that of a config that was not chosen is what the validation text flatters; what a report says is the
interval of `sweeps/findings/tested.py`.
"""

import csv
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sweeps.findings.optimism import optimism_of
from sweeps.stats import effect, share_interval
from tinylm import config as cfg
from tinylm import data, train, yaml

HERE = Path(__file__).parent
BOTH = HERE / "both_texts_smoke.csv"
VALUES = 20
SEEDS = (2, 3, 5, 9)  # of each value; 9 of 20 values and of the base config are 189 of the 200

app = typer.Typer(add_completion=False)


def column(path: Path, name: str) -> list[float]:
    """A column of the recorded losses."""
    found: list[float] = np.genfromtxt(path, delimiter=",", names=True)[name].tolist()
    return found


@app.command()
def record(seeds: Annotated[int, typer.Option(min=189)] = 200) -> None:
    """Train the seeds that are missing in both_texts_smoke.csv."""
    base = cfg.overlay(cfg.load("smoke"), yaml.read_mapping(HERE / "seeds.yaml")["base"])
    corpus = data.prepare(base)
    known = len(column(BOTH, "seed")) if BOTH.exists() else 0
    with BOTH.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if not known:
            writer.writerow(("seed", "validation", "test"))
        for seed in range(known, seeds):
            config = cfg.overlay(base, {"run.seed": seed})
            state = train.start(config)
            *_, last = train.train(state, corpus, config)
            test, _ = train.evaluate(state.model, corpus, config, "test")
            writer.writerow((seed, last.val_loss, test))
            stream.flush()


@app.command()
def check(
    searches: Annotated[int, typer.Option(min=10, help="Searches of each kind.")] = 4000,
) -> None:
    """Print what is said and what is true, over the searches."""
    optimism(column(HERE / "losses_smoke.csv", "val_loss"), searches)
    flattery(column(BOTH, "validation"), column(BOTH, "test"), searches)


def flattery(validation: Sequence[float], test: Sequence[float], searches: int) -> None:
    """Print by how much the validation text flatters a choice on average, and how often the interval has it."""
    pairs = list(zip(validation, test, strict=True))
    for seeds in SEEDS:
        draw = random.Random(seeds)  # noqa: S311 no secret
        found = []
        for _ in range(searches):
            drawn = draw.sample(pairs, (VALUES + 1) * seeds)
            base, *values = (drawn[n :: VALUES + 1] for n in range(VALUES + 1))
            best = min(values, key=lambda value: statistics.fmean(loss for loss, _ in value))
            rises = zip(best, base, strict=True)
            found.append(effect([(t - v) - (t0 - v0) for (v, t), (v0, t0) in rises]))
        truth = statistics.fmean(one.mean for one in found)
        ends = [(one.low, one.high) for one in found]
        covers = sum(low <= truth <= high for low, high in ends if low is not None is not high)
        claimed = sum(low > 0 for low, _ in ends if low is not None)
        low, high = share_interval(covers, searches)
        print(
            f"{seeds} seeds: the validation text flatters by {truth:.4f}; the interval covers that in "
            f"{covers / searches:.1%} ({low:.1%} to {high:.1%}) and lies above 0 in {claimed / searches:.1%}"
        )


def optimism(pool: Sequence[float], searches: int) -> None:
    """Print by how much the best is too low by luck, as is said and as is true, as means over the searches."""
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
    app()
