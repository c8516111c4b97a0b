"""How much of the noise of a verdict is that of the evaluation? The numbers of docs/validation.md.

    python benchmarks/validation/evaluation.py record
    python benchmarks/validation/evaluation.py check

`record` trains two learning rates near the best one on several seeds, at scale cpu and at the size of `seeds.yaml`,
and writes the loss at each record to evaluation_curves.csv and that of the end, on sets of validation windows, to
evaluation_sets.csv. It goes on where it was ended, and takes a quarter of an hour on one core; at scale cpu two
seeds of each rate are recorded so far. `check` reads these
and the curves of benchmarks/early_stopping, and trains nothing.
"""

import csv
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 its usual name

from tinylm import config as cfg
from tinylm import data, machine, train

HERE = Path(__file__).parent
CURVES, ENDS = HERE / "evaluation_curves.csv", HERE / "evaluation_sets.csv"
RECORDED = HERE.parent / "early_stopping" / "curves"
SETS = 64  # every 64th window belongs to one set, so that each is spread over the validation text
NEAR = 0.15  # nats above the best: the settings between which people have to decide

Floats = NDArray[np.float64]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Pair:
    """Two learning rates, and how many seeds they are trained on."""

    scale: str
    rates: tuple[float, float]
    seeds: int
    tokens: int  # on which the end is evaluated
    changes: Mapping[str, int]

    def config(self, rate: float, seed: int) -> cfg.Config:
        """The config of a run, with the settings that are fastest on this machine."""
        changes = {**self.changes, "optim.lr": rate, "run.seed": seed}
        return machine.choose(cfg.overlay(cfg.load(self.scale), changes), print)[0]


SMALL = {"budget.tokens": 24_576, "eval.every_tokens": 3_072, "eval.tokens": 4_096}
PAIRS = (
    Pair("smoke", (0.018, 0.024), 32, 131_072, {**SMALL, "run.checkpoint_every_tokens": 3_072}),
    Pair("cpu", (0.006, 0.008), 6, 262_144, {}),
)


def losses_of_sets(model: torch.nn.Module, corpus: data.Corpus, length: int, tokens: int) -> Floats:
    """The mean loss on each set of validation windows."""
    windows = torch.from_numpy(data.fixed_windows(corpus.validation, tokens // length, length))
    means = []
    with torch.no_grad():
        for window_BT in windows.split(SETS):
            logit_BVT = model(window_BT[:, :-1]).transpose(1, 2)
            means.append(F.cross_entropy(logit_BVT, window_BT[:, 1:], reduction="none").mean(1))
    return torch.stack(means).mean(0).double().numpy()


@app.command()
def record() -> None:
    """Train what is missing in the files."""
    done = {(row["scale"], row["lr"], row["seed"]) for row in rows(ENDS)}
    for pair in PAIRS:
        for seed, rate in itertools.product(range(pair.seeds), pair.rates):
            if (pair.scale, str(rate), str(seed)) in done:
                continue
            config = pair.config(rate, seed)
            corpus, state = data.prepare(config), train.start(config)
            run, curve, before, started = (pair.scale, rate, seed), [], 0.0, time.perf_counter()
            for one in train.train(state, corpus, config):
                passed = time.perf_counter() - started - one.compile_seconds
                evaluating = passed - (one.seconds - before)
                curve.append((*run, one.tokens, one.val_loss, one.seconds, evaluating))
                before, started = one.seconds, time.perf_counter()
            ends = losses_of_sets(state.model, corpus, config.model.context_length, pair.tokens)
            add(CURVES, ("scale", "lr", "seed", "tokens", "score", "seconds", "evaluating"), curve)
            add(
                ENDS,
                ("scale", "lr", "seed", "set", "val_loss"),
                [(*run, *e) for e in enumerate(ends)],
            )
            print(*run, curve[-1][4], f"{one.seconds:.1f} s", flush=True)


def add(path: Path, names: tuple[str, ...], lines: Sequence[tuple[object, ...]]) -> None:
    """Write lines to the end of a file."""
    is_new = not path.exists()
    with path.open("a", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([names, *lines] if is_new else lines)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file; none if it is missing."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def of_pair(path: Path, pair: Pair) -> list[dict[str, str]]:
    """The rows of a pair, on the seeds that both rates have."""
    own = [row for row in rows(path) if row["scale"] == pair.scale]
    by_rate = [{row["seed"] for row in own if row["lr"] == str(rate)} for rate in pair.rates]
    return [row for row in own if row["seed"] in set.intersection(*by_rate)]


def layout(found: list[dict[str, str]], vary: list[str], score: str) -> Floats:
    """Losses by setting, seed and record (or set of windows), of the settings that all seeds have."""
    runs: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in found:
        by_seed = runs.setdefault(tuple(row[path] for path in vary), {})
        by_seed.setdefault(row["seed"], []).append(float(row[score]))
    most = max(map(len, runs.values()))
    length = max(len(losses) for by_seed in runs.values() for losses in by_seed.values())
    whole = [
        [by_seed[seed] for seed in sorted(by_seed)]
        for by_seed in runs.values()
        if len(by_seed) == most and all(len(losses) == length for losses in by_seed.values())
    ]
    return np.array(whole)


def noise_of_pairs(losses_VS: Floats) -> float:
    """The standard deviation over seeds of the difference of two settings, pooled over all pairs: the residual
    of the two-way layout, times the square root of 2."""
    settings, seeds = losses_VS.shape
    residual = losses_VS - losses_VS.mean(1, keepdims=True) - losses_VS.mean(0) + losses_VS.mean()
    return float(np.sqrt(2 * (residual**2).sum() / (settings - 1) / (seeds - 1)))


def recordings() -> Iterator[tuple[str, Floats]]:
    """The name and the curves of each recording with several seeds: settings near the best, seeds, records."""
    for pair in PAIRS:
        yield f"`record`, {pair.scale}", layout(of_pair(CURVES, pair), ["lr"], "score")
    files = {
        "lr_cosine": ["lr_cosine", "lr_cosine_seed1", "lr_cosine_seed2"],
        "joint_cosine": ["joint_cosine", "seeds/joint_cosine_seed1"],
    }
    vary = ["model.d_model", "model.n_layers", "optim.lr"]
    for name, parts in files.items():
        own = [row for part in parts for row in rows(RECORDED / f"{part}.csv")]
        found = layout(own, [path for path in vary if path in own[0]], "score")
        ends = found[:, :, -1].mean(1)
        yield name, found[ends <= ends.min() + NEAR]


def averages() -> Iterator[dict[str, Any]]:
    """What the mean of the last evaluations does to the noise, and to the differences between settings."""
    for name, losses_VSR in recordings():
        for last in (1, 2, 3, 4):
            mean_VS = losses_VSR[:, :, -last:].mean(2)
            noise = noise_of_pairs(mean_VS)
            between = 2 * mean_VS.mean(1).var(ddof=1) - noise**2 / mean_VS.shape[1]
            yield {
                "curves": name,
                "settings": mean_VS.shape[0],
                "seeds": mean_VS.shape[1],
                "last": last,
                "noise": noise,
                "difference": float(np.sqrt(max(0.0, between))),
            }


def sizes(pair: Pair) -> Iterator[dict[str, float]]:
    """What the number of tokens of an evaluation does to the noise, and to the time of a run."""
    ends = layout(of_pair(ENDS, pair), ["lr"], "val_loss")
    curve = of_pair(CURVES, pair)
    config = cfg.overlay(cfg.load(pair.scale), pair.changes)
    records = config.budget.tokens // config.eval.every_tokens
    training = statistics.median(
        float(row["seconds"]) for row in curve if int(row["tokens"]) == config.budget.tokens
    )
    a_token = statistics.median(float(row["evaluating"]) for row in curve) / config.eval.tokens
    used = 1
    while used <= SETS:
        tokens = pair.tokens * used // SETS
        starts = range(SETS // used)
        each = [ends[:, :, start :: SETS // used].mean(2) for start in starts]
        noises = [noise_of_pairs(losses_VS) for losses_VS in each]
        yield {
            "tokens": tokens,
            "noise": float(np.sqrt(np.mean(np.square(noises)))),
            "of_a_run": float(np.sqrt(np.mean([one.var(axis=1, ddof=1).mean() for one in each]))),
            "seconds": training + records * tokens * a_token,
            "seconds_once": training + ((records - 1) * config.eval.tokens + tokens) * a_token,
        }
        used *= 2


@app.command()
def check() -> None:
    """Print the tables."""
    print("| curves | settings | seeds | mean of the last | noise | differences | ratio |")
    print("| --- |" + " ---: |" * 6)
    for one in averages():
        numbers = f"{one['noise']:.4f} | {one['difference']:.4f}"
        ratio = "" if not one["difference"] else f"{one['noise'] / one['difference']:.2f}"
        head = " | ".join(str(one[name]) for name in ("curves", "settings", "seeds", "last"))
        print(f"| {head} | {numbers} | {ratio} |")
    for pair in PAIRS:
        print(f"\n{pair.scale}: lr {pair.rates[1]} against {pair.rates[0]}\n")
        print(
            "| eval.tokens | noise of a difference | noise of a run | seconds of a run | with one long end |"
        )
        print("|" + " ---: |" * 5)
        for size in sizes(pair):
            noise = f"{size['noise']:.5f} | {size['of_a_run']:.5f}"
            seconds = f"{size['seconds']:.2f} | {size['seconds_once']:.2f}"
            print(f"| {size['tokens']:,.0f} | {noise} | {seconds} |")


if __name__ == "__main__":
    app()
