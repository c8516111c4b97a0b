"""Record the learning curves that `study.py` replays.

    python benchmarks/early_stopping/record.py SPACE.yaml OUT.csv [--set PATH=VALUE]... [--seed N]
        [--no-branches]

Trains every trial of a space to the end, and a decay branch at each rung. A branch starts from a copy
of the state. Its learning rate falls linearly to `optim.lr_final_fraction` of the current rate, over
as many updates as `BRANCH` times those made so far. Then the copy is discarded.

OUT.csv has one row per record: trial, swept values, seed, tokens, score (validation loss), train_loss,
decayed (validation loss of the branch, at rungs), seconds (CPU time for training and evaluation,
without branches). A run that diverges ends with a row whose score is nan. Trials that are already in
OUT.csv are not run again.
"""

import csv
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.engine.machine import size
from sweeps.plan import trials as pl
from sweeps.plan.reading import read
from sweeps.plan.request import Machine, PlannedTrial, Request, base_config
from sweeps.policies.base import BRANCH
from tinylm import config as cfg
from tinylm import data, train

RUNGS = (1 / 16, 1 / 8, 1 / 4, 3 / 8)  # of the budget, with a decay branch


def branched(state: train.State, corpus: data.Corpus, config: cfg.Config) -> float:
    """Validation loss at the end of a decay branch; nan if it diverges."""
    last = train.decay_branch(state, corpus, config, max(1, round(state.step * float(BRANCH))))
    return float("nan") if last is None else last.val_loss


def record(one: PlannedTrial, branches: bool) -> Iterator[dict[str, Any]]:
    """The rows of one trial."""
    config = one.config
    corpus = data.prepare(config)
    state = train.start(config)
    head = {"trial": one.trial, **one.values, "seed": config.run.seed}
    rungs = {round(share * config.budget.tokens) for share in RUNGS if branches}
    spent, begun = 0.0, time.process_time()
    try:
        for point in train.train(state, corpus, config):
            spent += time.process_time() - begun
            yield {
                **head,
                "tokens": point.tokens,
                "score": point.val_loss,
                "train_loss": point.train_loss,
                "decayed": branched(state, corpus, config) if point.tokens in rungs else "",
                "seconds": round(spent, 2),
            }
            begun = time.process_time()
    except train.Diverged as end:
        spent += time.process_time() - begun
        yield {**head, "tokens": end.tokens, "score": "nan", "seconds": round(spent, 2)}


def _recorded(one: PlannedTrial, branches: bool) -> list[dict[str, Any]]:
    return list(record(one, branches))


def main(
    space: Path,
    out: Path,
    changes: Annotated[list[str], typer.Option("--set")] = [],  # noqa: B006 typer copies it
    scale: str = "cpu",
    seed: int = 0,
    workers: int = os.cpu_count() or 1,
    branches: bool = True,
) -> None:
    """Record the trials that are not in OUT.csv yet, one per worker at a time."""
    parsed, written = read(space)
    plain: dict[str, Any] = {
        "run.precision": "fp32",
        "run.compile": False,
    }  # to be the same on every machine
    base = base_config(
        scale, {**plain, **parsed.base, **cfg.parse_assignments(changes)}, str(space)
    )
    request = Request(parsed, written, str(space), base, scale, seed)
    planned = pl.plan(request, Machine(size, lambda config: True)).trials
    names = ["trial", *parsed.space, "seed", "tokens", "score", "train_loss", "decayed", "seconds"]
    done = set()
    if out.exists():
        with out.open(newline="") as stream:
            done = {row["trial"] for row in csv.DictReader(stream)}
    data.prepare(base)
    with (
        out.open("a", newline="") as stream,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        if not done:
            writer.writeheader()
        todo = [one for one in planned if one.trial not in done]
        for future in as_completed([pool.submit(_recorded, one, branches) for one in todo]):
            writer.writerows(future.result())
            stream.flush()
            print(f"{out.name}: {future.result()[-1]}", flush=True)


if __name__ == "__main__":
    typer.run(main)
