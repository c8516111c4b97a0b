"""Measure how time and memory grow with the size of a sweep.

    python -m benchmarks.scaling [--what analysis] [--largest 1000] [--out scaling.json]

Measured are the fold of a ledger, its reading by a driver that resumes, the whole analysis of a
sweep with all its files, the plan of a search, the replay of a policy, and the driver, each at five
sizes. The ledger is made up: a search of two paths
with early stopping, whose trials have 200 records; one in ten stops halfway, and one in ten diverges at
its end. The driver, without Ray, hears of made-up records of 100 trials at a time, and writes them: `driver` of
trials with 400 records each, `promoting` of the same with asha.

Each measurement is a process of its own. Its CPU seconds and its wall-clock seconds are counted after the
imports; its peak memory includes them. The exponent k of a fit of seconds ~ size^k, by least squares in
the logarithms, is 1 where the time is linear, and lower where a part of it does not depend on the size.
"""

import json
import math
import random
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.rows import sealed
from tinylm import config as cfg

if TYPE_CHECKING:
    from sweeps.engine.driver import Driver
    from sweeps.engine.job import Job

RECORDS = 200
RUNGS = (RECORDS // 8, RECORDS // 2)
EVERY = 4096  # tokens from one record to the next
ASHA = {"policy": "asha", "grace": "1/8", "eta": 4}
SPACE = {
    "question": "Which rate and which weight decay?",
    "space": {
        "optim.lr": {"loguniform": [1e-4, 1e-2]},
        "optim.weight_decay": {"uniform": [0, 1]},
    },
    "schedule": ASHA,
}


def written_space(trials: int) -> dict[str, Any]:
    """The space of a search with this many trials."""
    return {**SPACE, "search": {"method": "random", "samples": trials}}


class Rows:
    """The rows of a made-up sweep, in order, as lines of its ledger."""

    def __init__(self, trials: int) -> None:
        self._random = random.Random(0)  # noqa: S311 no secret
        self._seq = self._state = 0
        changes: dict[str, Any] = {"budget.tokens": RECORDS * EVERY, "eval.every_tokens": EVERY}
        changes |= {"run.precision": "fp32", "run.compile": False}
        self._base = cfg.overlay(cfg.load("cpu"), changes)
        self._space = written_space(trials)
        self._rates = [10 ** self._random.uniform(-4, -2) for _ in range(trials)]

    def _line(self, kind: str, **fields: Any) -> str:
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=30 * self._seq)
        time, t = moment.isoformat(timespec="milliseconds"), 0.03 * self._seq
        row = {"seq": self._seq, "time": time, "kind": kind, "t": round(t, 3), **fields}
        self._seq += 1
        line, self._state = sealed(row, self._state)
        return line.decode()

    def __iter__(self) -> Iterator[str]:
        asked = {
            "base": self._base.model_dump(),
            "scale": "cpu",
            "seed": 0,
            "source": "made-up.yaml",
        }
        yield self._line("sweep", space=self._space, bits="text", **asked)
        yield self._line("session", command="", versions={}, machine={}, slots=2)
        ids = []
        for rate in self._rates:
            values = {"optim.lr": rate, "optim.weight_decay": self._random.random()}
            config = cfg.overlay(self._base, values)
            ids.append(cfg.identity(config))
            yield self._line(
                "planned", trial=ids[-1], label=f"lr={rate:.4g}", config=config.model_dump(),
                values=values, seed=0, params=1_312_896, flops_per_token=7_900_000, corpus="c" * 16,
                unigram_entropy=5.3, train_tokens=10**7, role="search", arm="", grid="", draws=1,
            )  # fmt: skip
        ends = (0, *RUNGS, RECORDS)
        for stage in range(len(RUNGS) + 1):
            for number, trial in enumerate(ids):
                if stage == len(RUNGS) and number % 10 == 3:
                    rank = {"rank": 3, "arrived": 4, "cutoff": 3.2}
                    rung = {"rung": RUNGS[-1] * EVERY, "score": 3.3}
                    yield self._line("stopped", trial=trial, reason="rank 3 of 4", **rung, **rank)
                else:
                    yield from self._attempt(number, trial, ends[stage], ends[stage + 1], stage + 1)

    def _attempt(
        self, number: int, trial: str, first: int, last: int, attempt: int
    ) -> Iterator[str]:
        """An attempt from one record to another, as far as the next rung or the end."""
        who = {"trial": trial, "attempt": attempt}
        per_step = self._base.tokens_per_step
        if attempt > 1:
            rank = {"score": 3.3, "rank": 1, "arrived": 4, "forced": False, "cutoff": 3.5}
            yield self._line("promoted", trial=trial, rung=first * EVERY, to=last * EVERY, **rank)
        yield self._line("started", **who, step=first * EVERY // per_step, checkpoint=None)
        for record in range(first + 1, last + 1):
            yield self._measured(number, record, who)
        where = {"step": last * EVERY // per_step, "tokens": last * EVERY}
        path = f"checkpoints/{trial}-{attempt}/checkpoint_{last:06}/checkpoint.pt"
        yield self._line("checkpointed", **who, **where, path=path)
        if last < RECORDS:
            yield self._line("paused", **who, rung=last * EVERY, score=3.3)
        elif number % 10 == 5:
            found = {"peak_loss": 14.0, "loss_init": 7.7, "how": "blown up", "reason": "too high"}
            yield self._line("diverged", **who, **where, **found)
        else:
            yield self._line("finished", **who, **where)

    def _measured(self, number: int, record: int, who: dict[str, Any]) -> str:
        draw, rate = self._random.random, self._rates[number]
        loss = 3 + 1.2 * record**-0.5 + 0.03 * math.log2(rate / 2e-3) ** 2 + 0.01 * draw()
        more: dict[str, Any] = (
            {"first_losses": [7 + draw() for _ in range(8)]} if record == 1 else {}
        )
        if record in RUNGS:
            decayed = loss - 0.1
            more = {"decayed_val_loss": decayed, "decayed_bits_per_byte": decayed / 3}
            more["branch_tokens"] = 2048
        return self._line(
            "measured", **who, step=record * EVERY // self._base.tokens_per_step,
            tokens=record * EVERY, seconds=record * EVERY / 9876.5 + 0.01 * draw(),
            train_loss=loss - 0.05 + 0.01 * draw(), val_loss=loss, bits_per_byte=loss / 2.77,
            lr=rate * (1 - record / RECORDS), grad_norm=0.5 + draw(), peak_loss=8 + draw(),
            loss_init=7.712345678, spike=0.1 * draw(), **more, tokens_per_s=10_000 * draw(),
            last=record == RECORDS, peak_memory=502_145_024, worker="host:1234",
        )  # fmt: skip


def ledger_of(folder: Path, trials: int) -> Path:
    """A folder with the ledger of a made-up sweep."""
    sweep = folder / str(trials)
    sweep.mkdir(exist_ok=True)
    with (sweep / "ledger.jsonl").open("w") as stream:
        stream.writelines(Rows(trials))
    return sweep


@dataclass(frozen=True)
class Heard:
    """What a driver has heard and written."""

    reports: int
    rows: int


Work = Callable[[], object]


def fold(folder: Path, trials: int) -> Work:
    """Reads a ledger."""
    from sweeps import ledger
    from sweeps.findings.results import results_of

    files = ledger.Files(folder / str(trials))
    return lambda: results_of(files.name, ledger.rows(files))


def resume(folder: Path, trials: int) -> Work:
    """Reads a ledger as the driver does that resumes its sweep, with checksums, validation and policy."""
    from sweeps import ledger as led
    from sweeps.engine.driver import Driver
    from sweeps.plan.reading import parse
    from sweeps.plan.request import Machine, Request
    from sweeps.plan.trials import plan as plan_of

    files = led.Files(folder / str(trials))
    asked = next(led.rows(files, {"sweep"}))
    space, base = parse(asked["space"], "space"), cfg.validate(asked["base"], "base")
    request = Request(space, asked["space"], "space", base, "cpu", 0)
    machine = Machine(lambda model: (1, 1), lambda config: True)
    plan = plan_of(request, machine)

    def read() -> None:
        with led.Ledger(files) as ledger:
            Driver(ledger, request, plan, machine, lambda config: {})

    return read


def analysis(folder: Path, trials: int) -> Work:
    """Reads a ledger and writes all files of the analysis."""
    from sweeps.findings.everything import Reader
    from sweeps.ledger import Files
    from sweeps.report import analysis, plots  # noqa: F401 imported before the clock starts

    files = Files(folder / str(trials))
    return lambda: analysis.write(files, Reader().findings(files))


def plan(folder: Path, trials: int) -> Work:
    """Plans a search."""
    from sweeps.plan.reading import parse
    from sweeps.plan.request import Machine, Request
    from sweeps.plan.trials import plan as plan_of

    written = written_space(trials)
    request = Request(parse(written, "space"), written, "space", cfg.load("cpu"), "cpu", 0)
    return lambda: plan_of(request, Machine(lambda model: (1, 1), lambda config: True))


def replay(folder: Path, trials: int) -> Work:
    """Replays asha over recorded curves with eleven records, on a tenth as many workers as trials."""
    from benchmarks.replay import GIVEN, TOKENS, curves
    from sweeps.simulate.curves import SCORE
    from sweeps.simulate.judge import rounded_rungs
    from sweeps.simulate.machine import replay
    from sweeps.simulate.settings import fitting

    pool, chosen = curves(trials), fitting("asha", GIVEN)
    policy = chosen.policy_at(rounded_rungs(chosen, TOKENS[-1]), SCORE)
    return lambda: replay(pool, policy, max(1, trials // 10))


AT_ONCE, REPORTS = 100, 400


def driver(folder: Path, trials: int, schedule: dict[str, Any]) -> Work:
    """Drives a search whose trials report to it in turn."""
    from sweeps import ledger as led
    from sweeps.engine.driver import Driver
    from sweeps.plan import trials as pl
    from sweeps.plan.reading import parse
    from sweeps.plan.request import Machine, Request

    every = {"eval.every_tokens": EVERY, "run.checkpoint_every_tokens": REPORTS * EVERY}
    changes = {"budget.tokens": REPORTS * EVERY, **every, "run.precision": "fp32"}
    base = cfg.overlay(cfg.load("cpu"), {**changes, "run.compile": False})
    written = {**written_space(trials), "schedule": schedule}
    request = Request(parse(written, "space"), written, "space", base, "cpu", 0)
    machine = Machine(lambda model: (1, 1), lambda config: True)
    facts = {"params": 1, "flops_per_token": 6, "corpus": "c" * 16, "unigram_entropy": 5.0}
    ledger = led.Ledger(led.Files(folder / f"{schedule['policy']}-{trials}"))
    conductor = Driver(ledger, request, pl.plan(request, machine), machine, lambda config: facts)
    conductor.begin({})
    return lambda: _drive(conductor, base)


def _drive(conductor: "Driver", base: cfg.Config) -> Heard:
    """Let trials report in turn until all have ended."""
    draw = random.Random(0).random  # noqa: S311 no secret
    running: deque[tuple[Job, int]] = deque()
    begun, reports = conductor.take_news()[-1]["seq"], 0
    while True:
        while len(running) < AT_ONCE and (job := conductor.next_job()):
            conductor.began(job.trial, worker="host:1234", address="10.0.0.1")
            before = Path(job.checkpoint).read_text() if job.checkpoint else "0"
            running.append((job, int(before)))
        if not running:
            conductor.end()
            return Heard(reports, conductor.take_news()[-1]["seq"] - begun)
        job, record = running.popleft()
        event = _event(base, job, record + 1, draw)
        goes_on = conductor.reported(job.trial, event)
        if conductor.wants_checkpoint(job.trial, event["save"]):
            conductor.saved(job.trial, _saved(conductor, job, record + 1))
        if goes_on:
            running.append((job, record + 1))
            conductor.take_news()  # as what is shown does
        reports += 1


def _event(base: cfg.Config, job: "Job", record: int, draw: Callable[[], float]) -> dict[str, Any]:
    """What a worker reports of a record."""
    tokens, rate = record * EVERY, job.config["optim"]["lr"]
    loss = 3 + 1.2 * record**-0.5 + 0.03 * math.log2(rate / 2e-3) ** 2 + 0.01 * draw()
    at_rung, last = tokens in job.rungs, record == REPORTS
    event = {
        "event": "measured", "save": at_rung or last, "step": tokens // base.tokens_per_step,
        "tokens": tokens, "seconds": tokens / 9876.5, "train_loss": loss - 0.05, "val_loss": loss,
        "bits_per_byte": loss / 2.77, "lr": rate, "grad_norm": 0.5 + draw(), "peak_loss": 8 + draw(),
        "loss_init": 7.712345678, "spike": 0.1 * draw(), "tokens_per_s": 10_000 * draw(),
        "last": last, "peak_memory": 502_145_024, "worker": "host:1234",
    }  # fmt: skip
    if job.branch and at_rung:
        decayed = {"decayed_val_loss": loss - 0.1, "decayed_bits_per_byte": loss / 2.77 - 0.04}
        event |= {**decayed, "branch_tokens": 2048}
    return event


def _saved(conductor: "Driver", job: "Job", record: int) -> Path:
    """A small file in the place of a checkpoint."""
    name = f"{job.trial}-{job.attempt}/checkpoint_{record:06}/checkpoint.pt"
    file = conductor.ledger.files.checkpoints.resolve() / name
    file.parent.mkdir(parents=True)
    file.write_text(str(record))
    return file


# What is measured: the work, its sizes as shares of the largest, and whether it reads a ledger.
WORKS: dict[str, tuple[Callable[[Path, int], Work], int, bool]] = {
    "fold": (fold, 1, True),
    "resume": (resume, 1, True),
    "analysis": (analysis, 1, True),
    "plan": (plan, 10, False),
    "replay": (replay, 10, False),
    "driver": (partial(driver, schedule={"policy": "none"}), 4, False),
    "promoting": (partial(driver, schedule=ASHA), 4, False),
}
SHARES = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Measurement:
    """What one work took at one size."""

    what: str
    trials: int
    cpu: float  # seconds
    wall: float  # seconds
    peak_mb: float
    page_mb: float | None  # of the report; None if none was written
    reports: int | None  # that a driver heard; None of other works
    rows: int | None  # that it wrote


def measure(what: str, folder: Path, trials: int) -> Measurement:
    """What a work takes, in the process that calls this."""
    work = WORKS[what][0](folder, trials)
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    page = folder / str(trials) / "analysis" / "report.html"
    size = page.stat().st_size / 1e6 if what == "analysis" else None
    heard = (done.reports, done.rows) if isinstance(done, Heard) else (None, None)
    return Measurement(what, trials, cpu, wall, peak, size, *heard)


def exponent(found: list[Measurement]) -> float:
    """The power of the size by which the CPU seconds grow."""
    import numpy as np

    sizes, seconds = ([getattr(one, name) for one in found] for name in ("trials", "cpu"))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


app = typer.Typer()


@app.command()
def main(
    what: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORKS)}.")] = None,
    largest: Annotated[
        int,
        typer.Option(
            min=100, help="Trials of the largest ledger; ten times for a plan, four for a driver."
        ),
    ] = 1000,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Print how time and memory grow with the number of trials."""
    table: dict[str, Any] = {}
    print(
        f"{'what':10s} {'trials':>7s} {'CPU s':>8s} {'wall s':>8s} {'peak MB':>8s} {'page MB':>8s} "
        f"{'reports/s':>9s} {'rows/s':>8s}"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in what or WORKS:
            _, scale, reads = WORKS[name]
            found = []
            for trials in (largest * scale // share for share in SHARES):
                if reads and not (folder / str(trials)).exists():
                    ledger_of(folder, trials)
                # A process of its own, which has none of the memory of this one.
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    one = pool.submit(measure, name, folder, trials).result()
                found.append(one)
                page = "" if one.page_mb is None else f"{one.page_mb:.1f}"
                rates = [
                    "" if number is None else f"{number / one.cpu:,.0f}"
                    for number in (one.reports, one.rows)
                ]
                print(
                    f"{name:10s} {trials:7d} {one.cpu:8.2f} {one.wall:8.2f} {one.peak_mb:8.0f} {page:>8s} "
                    f"{rates[0]:>9s} {rates[1]:>8s}",
                    flush=True,
                )
            table[name] = {
                "measured": [asdict(one) for one in found],
                "exponent": exponent(found),
            }
            print(f"{name:10s} CPU seconds ~ trials^{table[name]['exponent']:.2f}")
    if out is not None:
        out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    app()
