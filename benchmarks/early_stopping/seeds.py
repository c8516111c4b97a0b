"""Where the further seeds of a value should begin: the table of docs/validation.md.

    python benchmarks/early_stopping/seeds.py [--repeats 200] [--noise 0.1]

Replays the default policy on recordings of several seeds (curves/ and curves/seeds/, see record.py), in random
orders of the values and of the seeds, and prints a Markdown table. Nothing is trained.
"""

import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from study import HERE, WORKERS, load, table
from study import noise as noise_of

from sweeps.policies import DEFAULT_SCHEDULE
from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve, by_value, mean_curve
from sweeps.simulate.judge import rounded_rungs
from sweeps.simulate.machine import replay

# How the seeds are trained, with the number of rungs that a value passes on its first one.
EACH = "each a trial of its own"
ALONE = {"from the start": 0, "after the first rung": 1, "after the second": 2}


def recorded() -> Iterator[tuple[str, list[Curve], float]]:
    """The recordings of several seeds, with the noise between them near the best rate."""
    paths = [*(HERE / "curves").glob("*_cosine*.csv"), *(HERE / "curves" / "seeds").glob("*.csv")]
    pools = {path.stem: load(path) for path in sorted(paths)}
    for name in [name for name in pools if name.endswith("_cosine")]:
        seeds = [other for other in pools if other.startswith(name)]
        curves = [curve for seed in seeds for curve in pools[seed].curves]
        values = by_value(curves).values()
        whole = [seed for value in values if len(value) == len(seeds) for seed in value]
        if len(seeds) > 1:
            yield name, whole, noise_of(pools)["sigma"]


def orders(curves: Sequence[Curve], repeats: int) -> Iterator[list[Curve]]:
    """The curves in random orders of values and seeds: the first seeds of all, then the next ones."""
    seeds = sorted({curve.seed for curve in curves})
    values = by_value(curves).values()
    for number in range(repeats):
        draw = random.Random(number)  # noqa: S311 no secret
        turns = draw.sample(seeds, len(seeds))
        order = draw.sample(list(values), len(values))
        yield [next(c for c in value if c.seed == seed) for seed in turns for value in order]


def judged(curves: Sequence[Curve], how: str, finish: int, repeats: int, sigma: float) -> list[str]:
    """The cells of a way to train seeds: what it costs, and the value that is chosen by it.

    That is, of the values with the most finished seeds, the one with the lowest mean. It is worth the mean
    over all recorded seeds. Costs are shares of all seeds of all values in full.
    """
    budget = max(curve.tokens[-1] for curve in curves)
    ends = {value: mean_curve(value, seeds).final for value, seeds in by_value(curves).items()}
    best = min(end for end in ends.values() if math.isfinite(end))
    seeds = len(curves) // len(ends)
    schedule = DEFAULT_SCHEDULE.model_copy(
        update={"finish": finish * (seeds if how == EACH else 1)}
    )
    rungs = rounded_rungs(schedule, budget)
    costs, regrets = [], []
    for order in orders(curves, repeats):
        policy: Any = Values(schedule, rungs, SCORE, ALONE.get(how, 0))
        planned = order if how in ALONE else order[: len(ends)]
        if how == EACH:
            policy = schedule.policy_at(rungs, SCORE)
            planned = [replace(curve, values=None) for curve in order]
        result = replay(planned, policy, WORKERS, float(schedule.branch))
        finished = by_value(curve for curve in curves if curve.trial in set(result.finished))
        most = max(map(len, finished.values()))
        means = {
            value: statistics.fmean(curve.final for curve in own)
            for value, own in finished.items()
            if len(own) == most
        }
        regrets.append(ends[min(means, key=lambda value: means[value])] - best)
        costs.append(result.tokens / sum(curve.tokens[-1] for curve in curves))
    return [
        f"{statistics.fmean(costs):.1%}",
        f"{statistics.fmean(regrets):.4f}",
        f"{statistics.fmean(regret == 0 for regret in regrets):.1%}",
        f"{statistics.fmean(regret <= sigma for regret in regrets):.1%}",
    ]


def noisier(curves: Sequence[Curve], sd: float) -> list[Curve]:
    """The curves with a constant of this standard deviation added to the scores of each, drawn at random."""
    draw = random.Random(0)  # noqa: S311 no secret
    found = []
    for curve in curves:
        more = draw.gauss(0, sd)
        scores = tuple(score + more for score in curve.scores)
        decayed = {tokens: score + more for tokens, score in curve.decayed.items()}
        found.append(replace(curve, scores=scores, decayed=decayed))
    return found


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Replays of each way.")] = 200,
    noise: Annotated[float, typer.Option(min=0, help="Noise to add between seeds, in nats.")] = 0.0,
) -> None:
    """Print the table."""
    rows = []
    for (name, recording, sigma), finish in itertools.product(recorded(), (1, 2, 3)):
        curves = noisier(recording, noise)
        values, seeds = len(by_value(curves)), len({curve.seed for curve in curves})
        for how in (EACH, *ALONE, "one seed"):
            cells = judged(curves, how, finish, repeats, sigma)
            rows.append([f"{name}, {values} values on {seeds} seeds", str(finish), how, *cells])
    head = ("curves", "finish", "further seeds", "cost", "regret", "best kept", "within 1 sigma")
    print(table(head, rows))


if __name__ == "__main__":
    typer.run(main)
