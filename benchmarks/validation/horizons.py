"""Validate the speedups on arms whose speedup is known: the coverage of docs/validation.md.

    python benchmarks/validation/horizons.py record [--seeds 64]
    python benchmarks/validation/horizons.py check [--studies 2000]

An arm that is the baseline with 1.25 times the tokens has a speedup of 1.25. `record` trains the baseline at
0.5 to 2 times the tokens of `seeds.yaml` at scale smoke, at three rates and on many seeds, and writes the
final losses to horizons_smoke.csv; it goes on where it was ended. It takes an hour on one core.
`check` makes studies of them, without training anything, in two minutes. In half of them the arm has the seeds of
the baseline, as in every study: but being the baseline itself, its noise is that of the horizons, too, more than
another arm's would be. In the others it has seeds of its own.
"""

import csv
import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.stats import Law, Speedup, effect, scaling, share_interval
from tinylm import config as cfg
from tinylm import data, train

HERE = Path(__file__).parent
RECORDED = HERE / "horizons_smoke.csv"
SHARES = (0.5, 0.75, 1.0, 1.125, 1.25, 1.5, 2.0)  # of the tokens
RATES = (0.012, 0.024, 0.048)  # the best at 1 and its neighbors
FIELDS = ("share", "lr", "seed", "val_loss")

app = typer.Typer(add_completion=False)


def base_config() -> cfg.Config:
    """The config of `seeds.yaml` at scale smoke."""
    changes = {"budget.tokens": 24_576, "eval.every_tokens": 3_072, "eval.tokens": 4_096}
    return cfg.overlay(cfg.load("smoke"), {**changes, "run.checkpoint_every_tokens": 3_072})


def recorded() -> dict[tuple[float, float, int], float]:
    """The final losses by share of the tokens, rate and seed."""
    if not RECORDED.exists():
        return {}
    with RECORDED.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {(float(r["share"]), float(r["lr"]), int(r["seed"])): float(r["val_loss"]) for r in rows}


def final_loss(config: cfg.Config, corpus: data.Corpus) -> float:
    """The validation loss at the end of a run; infinite if it diverges."""
    loss = math.inf
    try:
        for record in train.train(train.start(config), corpus, config):
            loss = record.val_loss
    except train.Diverged:
        return math.inf
    return loss


def missing(seeds: int) -> Iterator[tuple[float, float, int]]:
    """What is not recorded yet."""
    known = recorded()
    for seed, share, rate in itertools.product(range(seeds), SHARES, RATES):
        if (share, rate, seed) not in known:
            yield share, rate, seed


@app.command()
def record(seeds: Annotated[int, typer.Option(min=8)] = 64) -> None:
    """Train what is missing in horizons_smoke.csv."""
    base = base_config()
    corpus = data.prepare(base)
    left = list(missing(seeds))
    is_new = not RECORDED.exists()
    with RECORDED.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if is_new:
            writer.writerow(FIELDS)
        for share, rate, seed in left:
            tokens = int(share * base.budget.tokens)
            changes = {"budget.tokens": tokens, "optim.lr": rate, "run.seed": seed}
            writer.writerow((share, rate, seed, final_loss(cfg.overlay(base, changes), corpus)))
            stream.flush()


Losses = dict[tuple[float, float, int], float]


def rate(times: int, of: int) -> dict[str, float]:
    """A share with its 95% interval."""
    low, high = share_interval(times, of)
    return {"rate": times / of, "low": low, "high": high}


def whole_seeds(losses: Losses) -> list[int]:
    """The seeds of which everything is recorded."""
    known = {seed for _, _, seed in losses}
    needed = list(itertools.product(SHARES, RATES))
    return sorted(seed for seed in known if all((*one, seed) in losses for one in needed))


ARMS = (1.125, 1.25, 1.5)  # shares of the tokens
OUTER = ((0.5, 2.0), (0.75, 1.5))  # horizons


def law_of(losses: Losses, seeds: Sequence[int], outer: tuple[float, float]) -> Law:
    """The law of the means over all seeds, at the best rate of each horizon."""

    def mean(share: float) -> float:
        return min(statistics.fmean(losses[share, lr, seed] for seed in seeds) for lr in RATES)

    low, middle, high = mean(outer[0]), mean(1.0), mean(outer[1])
    return Law(*outer, low - middle, middle - high)


def difference(losses: Losses, share: float, seeds: Sequence[int]) -> float:
    """The difference between the means over all seeds at a share of the tokens and at all of them."""
    of = {at: statistics.fmean(losses[at, RATES[1], seed] for seed in seeds) for at in (1.0, share)}
    return of[share] - of[1.0]


def study(
    losses: Losses,
    share: float,
    seeds: Sequence[int],
    of_horizons: int,
    outer: tuple[float, float],
    of_arm: Sequence[int],
) -> Speedup | None:
    """What a study says an arm is worth that is the baseline with a share of its tokens, on seeds `of_arm`. The last
    seed of the baseline is the one of re-tune grids, on which each horizon chooses its rate."""
    *own, tuning = seeds
    middle = RATES[1]  # of the baseline and the arm
    best = {at: min(RATES, key=lambda lr, at=at: losses[at, lr, tuning]) for at in outer}  # type: ignore[misc]
    low, high = ({seed: losses[at, best[at], seed] for seed in own[:of_horizons]} for at in outer)
    base = {seed: losses[1.0, middle, seed] for seed in own}
    above = [low[seed] - base[seed] for seed in low]
    below = [base[seed] - high[seed] for seed in high]
    found = scaling(*outer, above, below)
    differences = [
        losses[share, middle, other] - base[seed] for seed, other in zip(own, of_arm, strict=True)
    ]
    return None if found is None else found.speedup(effect(differences))


@app.command()
def check(studies: Annotated[int, typer.Option(min=1)] = 2000, out: Path | None = None) -> None:
    """Print how often the intervals cover the truth, and write it as JSON."""
    losses = recorded()
    seeds = whole_seeds(losses)
    found: list[dict[str, Any]] = []
    kinds = itertools.product(OUTER, (3, 5, 8, 12), (2, 3), ARMS, (True, False))
    for outer, number, of_horizons, share, is_paired in kinds:
        if share >= outer[1]:
            continue
        draw = random.Random(f"{share} {number} {of_horizons}")  # noqa: S311 no secret
        drawn = []
        for _ in range(studies):
            some = draw.sample(seeds, 2 * number + 1)
            own = some[: number + 1]
            of_arm = own[:-1] if is_paired else some[number + 1 :]
            drawn.append(study(losses, share, own, of_horizons, outer, of_arm))
        known = [one for one in drawn if one is not None]
        covers = sum(one.low <= share <= one.high for one in known)
        row: dict[str, Any] = {
            "outer": outer,
            "share": share,
            "by_the_means": law_of(losses, seeds, outer).times(difference(losses, share, seeds)),
            "seeds": number,
            "of_horizons": of_horizons,
            "seeds_of_baseline": is_paired,
            "coverage": rate(covers, len(known)),
            "too_high": sum(one.low > share for one in known) / len(known),
            "too_low": sum(one.high < share for one in known) / len(known),
            "median": statistics.median(one.times for one in known),
            "width": statistics.median(one.high / one.low for one in known),
            "bound": sum(one.high >= outer[1] for one in known) / len(known),
        }
        found.append(row)
        print(json.dumps(row))
    if out is not None:
        out.write_text(
            json.dumps({"seeds": len(seeds), "studies": studies, "rows": found}, indent=1)
        )


if __name__ == "__main__":
    app()
