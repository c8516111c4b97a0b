"""Made-up but valid ledgers, written through `sweeps.ledger.Ledger`."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from sweeps import ledger
from sweeps.findings.best import to_test
from sweeps.findings.everything import findings
from sweeps.findings.results import Results, results_of
from sweeps.ledger import VALUES, Files, Ledger, Trial, fold
from sweeps.report.analysis import Analysis, write
from sweeps.text import show
from tinylm import config as cfg

BASE = cfg.overlay(cfg.load("cpu"), {"run.precision": "fp32", "run.compile": False})
EVERY = BASE.eval.every_tokens
BUDGET = BASE.budget.tokens


def loss(lr: float, tokens: int, best: float = 2e-3) -> float:
    """A made-up validation loss: a bowl in log lr around a best rate, falling with tokens."""
    octaves = math.log2(lr / best)
    return float(3.0 + 1.2 * (EVERY / tokens) ** 0.5 + 0.03 * octaves**2)


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line in a figure."""
    xs, ys = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


@dataclass
class Story:
    """Writes the rows of a made-up sweep, with defaults for the fields that a test does not set."""

    ledger: Ledger
    attempts: dict[str, int] = field(default_factory=dict)

    def ask(
        self,
        space: Mapping[str, Any],
        question: str = "Which rate?",
        *,
        by_value: bool = False,
        scale: str = "cpu",
        **more: Any,
    ) -> None:
        """Write the request and a session."""
        drawn = not all("grid" in domain for domain in space.values())
        search = {"method": "random", "samples": 1} if drawn else {"method": "grid"}
        written = {"question": question, "search": search, "space": dict(space), **more}
        base = BASE.model_dump()
        judged = {"judged": VALUES} if by_value else {}
        self.ledger.append(
            "sweep", space=written, base=base, scale=scale, seed=0, source="lr.yaml", **judged
        )
        self.ledger.append(
            "session", command="python -m sweeps.run lr", versions={}, machine={}, slots=2
        )

    def plan(self, values: Mapping[str, Any], seed: int = 0, **more: Any) -> str:
        """Plan a trial; returns its id. `more` replaces fields of the row."""
        config = cfg.overlay(BASE, {**values, "run.seed": seed})
        parts = [path.split(".")[1] + "=" + show(value) for path, value in values.items()]
        shown = " ".join(parts)
        row = {
            "trial": cfg.identity(config),
            "label": f"{shown} seed={seed}" if seed else shown,
            "config": config.model_dump(),
            "values": dict(values),
            "seed": seed,
            "params": 1_312_896,
            "flops_per_token": 7_900_000,
            "corpus": "0123456789abcdef",
            "role": "search",
            "arm": "",
            "grid": "",
        }
        return str(self.ledger.append("planned", **row | more)["trial"])

    def start(self, trial: str, step: int = 0) -> None:
        """Start a new attempt that resumes from a step."""
        self.attempts[trial] = self.attempts.get(trial, 0) + 1
        self._append("started", trial, step=step, checkpoint=None)

    def measure(self, trial: str, tokens: int, val_loss: float, **more: Any) -> None:
        """Write a record; `more` replaces fields of the row."""
        row = {
            "step": tokens // BASE.tokens_per_step,
            "tokens": tokens,
            "seconds": tokens / 10_000,
            "train_loss": val_loss - 0.05,
            "val_loss": val_loss,
            "bits_per_byte": val_loss / math.log(2) / 4,
            "lr": 1e-3,
            "grad_norm": 0.5,
            "peak_loss": 8.0,
            "loss_init": 7.7,
            "tokens_per_s": 10_000.0,
            "last": tokens == BUDGET,
            "peak_memory": 10**9,
        }
        self._append("measured", trial, **row | more)

    def train(self, trial: str, lr: float, first: int, last: int, plus: float = 0.0) -> None:
        """Write the records number `first` to `last`, with the made-up losses of a rate."""
        for number in range(first, last + 1):
            tokens = number * EVERY
            self.measure(trial, tokens, loss(lr, tokens) + plus, lr=lr)

    def pause(self, trial: str, rung: int, score: float) -> None:
        """Pause the trial at a rung."""
        self._append("paused", trial, rung=rung, score=score)

    def promote(self, trial: str, rung: int, to: int | None, score: float) -> None:
        """Promote the trial and resume it."""
        more = {"rung": rung, "to": to, "score": score, "rank": 1, "arrived": 3, "forced": False}
        self.ledger.append("promoted", trial=trial, **more)
        self.start(trial, rung // BASE.tokens_per_step)

    def stop(self, trial: str, rung: int, score: float) -> None:
        """Stop the trial at a rung."""
        reason = f"rank 7 of 8 at {rung} tokens; 2 continue"
        more = {"rung": rung, "score": score, "rank": 7, "arrived": 8}
        self.ledger.append("stopped", trial=trial, reason=reason, **more)

    def diverge(
        self, trial: str, tokens: int, reason: str = "training loss nan at step", **more: Any
    ) -> None:
        """Let the trial diverge after this many tokens; `more` are further fields of the row."""
        step = tokens // BASE.tokens_per_step
        how = "non-finite" if " nan " in reason else "blown up"
        more = {
            **more,
            "step": step,
            "tokens": tokens,
            "peak_loss": 14.0,
            "loss_init": 7.7,
            "how": how,
        }
        self._append("diverged", trial, reason=f"{reason} {step}", **more)

    def fail(self, trial: str, reason: str, **more: Any) -> None:
        """Let the trial fail, without another attempt."""
        self._append("failed", trial, reason=reason, final=True, **more)

    def finish(self, trial: str, tokens: int = BUDGET) -> None:
        """Finish the trial."""
        step = tokens // BASE.tokens_per_step
        self._append("finished", trial, step=step, tokens=tokens)

    def whole(self, trial: str, lr: float, plus: float = 0.0) -> None:
        """Start, train and finish a trial."""
        self.start(trial)
        self.train(trial, lr, 1, BUDGET // EVERY, plus)
        self.finish(trial)

    def sample(self, **texts: str) -> None:
        """Write a text sampled from the checkpoint of each of these trials."""
        how = {"step": 512, "tokens": 200, "temperature": 0.8, "top_p": 0.95, "seed": 0}
        each = [{"trial": trial, "text": text, **how} for trial, text in texts.items()]
        self.ledger.append("sampled", texts=each)

    def _append(self, kind: str, trial: str, **fields: Any) -> None:
        self.ledger.append(kind, trial=trial, attempt=self.attempts[trial], **fields)


def studied(files: Files) -> Results:
    """The results of a sweep, read from its ledger."""
    return results_of(files.name, ledger.read(files))


def analyzed(files: Files) -> Analysis:
    """The analysis of a sweep, written."""
    return write(files, findings(studied(files)))


@contextmanager
def story(folder: Path) -> Iterator[Story]:
    """A writer of the ledger of a new sweep in the folder."""
    with Ledger(Files(folder)) as ledger:
        yield Story(ledger)


def tell_tested(files: Files, loss_of: Callable[[Trial], float | None]) -> None:
    """Write down what runs of a sweep lose on its test text; nothing of those for which it is None."""
    runs = [run.trial for run in to_test(findings(studied(files)))]
    with Ledger(files) as ledger:
        losses = {t.trial: loss_of(t) for t in fold(ledger.rows()).trials.values()}
        rows = {trial: read_of(loss) for trial, loss in losses.items() if loss is not None}
        ledger.append("tested", runs=runs, trials=rows)


def damage(files: Files, kind: str) -> None:
    """Change the first row of a kind, so that its checksum no longer matches."""
    row = f'"kind":"{kind}"'.encode()
    changed = row.replace(b'":"', b'": "')
    files.ledger.write_bytes(files.ledger.read_bytes().replace(row, changed, 1))


def read_of(loss: float | None) -> dict[str, Any]:
    """What a run has read of the test text; None for a loss that is not finite."""
    return {"loss": loss, "bits_per_byte": loss, "tokens": 16_384, "split": "ab" * 8}


RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
FIRST, SECOND = 2 * EVERY, 6 * EVERY  # rungs: 1/8 and 3/8 of the budget


def audited_sweep(
    folder: Path, ends: Mapping[float, float], top: int = 1, audited: int | None = None
) -> Files:
    """A sweep with one rate that finishes at a loss of 3, and others that are stopped.

    `ends` are the final losses of their audits, by rate; only the first `audited` rates are audited.
    """
    with story(folder) as tell:
        schedule = {"policy": "asha", "grace": "1/8", "finish": top}
        tell.ask({"optim.lr": {"grid": [1.0, *ends]}}, schedule=schedule)
        first = tell.plan({"optim.lr": 1.0})
        tell.start(first)
        tell.measure(first, FIRST, 4.0)
        tell.measure(first, BUDGET, 3.0)
        tell.finish(first)
        for rate in ends:
            trial = tell.plan({"optim.lr": rate})
            tell.start(trial)
            tell.measure(trial, FIRST, 5.0)
            tell.stop(trial, FIRST, 5.0)
        for rate, end in list(ends.items())[:audited]:
            stopped = {"optim.lr": rate}
            trial = cfg.identity(cfg.overlay(BASE, {**stopped, "run.seed": 0}))
            audit = f"{trial}-audit"
            tell.ledger.append("audited", trial=audit, of=trial, stopped=len(ends), share=1.0)
            tell.start(audit, FIRST // BASE.tokens_per_step)
            if math.isfinite(end):
                tell.measure(audit, BUDGET, end)
                tell.finish(audit)
            else:
                tell.diverge(audit, SECOND)
    return Files(folder)


def audited_seeds(
    folder: Path,
    chosen: Mapping[int, float],
    audits: Mapping[int, float],
    *,
    by_value: bool,
    top: int = 1,
) -> Files:
    """A rate with these losses by seed, and another one that was stopped, with those of its audits."""
    with story(folder) as tell:
        schedule = {"policy": "asha", "grace": "1/8", "finish": top}
        rates = {"optim.lr": {"grid": [1e-3, 2e-3]}}
        tell.ask(rates, schedule=schedule, by_value=by_value)
        for seed, val_loss in chosen.items():
            trial = tell.plan({"optim.lr": 1e-3}, seed)
            tell.start(trial)
            tell.measure(trial, BUDGET, val_loss)
            tell.finish(trial)
        for seed, val_loss in audits.items():
            stopped = tell.plan({"optim.lr": 2e-3}, seed)
            tell.start(stopped)
            tell.measure(stopped, FIRST, 5.0)
            tell.stop(stopped, FIRST, 5.0)
            tell.ledger.append("audited", trial=f"{stopped}-audit", of=stopped, stopped=1, share=1)
            tell.start(f"{stopped}-audit")
            tell.measure(f"{stopped}-audit", BUDGET, val_loss)
            tell.finish(f"{stopped}-audit")
    return Files(folder)


def shares_sweep(folder: Path) -> Files:
    """Of two budgets the longer one finishes, and the shorter one is stopped at 1/4 of its own. That is
    1/8 of the longer one."""
    with story(folder) as tell:
        paths = {"budget.tokens": {"grid": [BUDGET, 2 * BUDGET]}}
        tell.ask(paths, schedule={"policy": "asha", "grace": "1/4", "eta": 2})
        short, long = (tell.plan({"budget.tokens": n * BUDGET}) for n in (1, 2))
        tell.start(short)
        tell.measure(short, BUDGET // 8, 5.0)
        tell.measure(short, BUDGET // 4, 4.1)
        tell.pause(short, BUDGET // 4, 4.1)
        tell.start(long)
        tell.measure(long, BUDGET // 8, 4.9)
        tell.measure(long, BUDGET // 4, 4.5)
        tell.measure(long, BUDGET // 2, 3.9)
        tell.pause(long, BUDGET // 2, 3.9)
        tell.promote(long, BUDGET // 2, BUDGET, 3.9)
        tell.measure(long, 2 * BUDGET, 3.0)
        tell.finish(long, 2 * BUDGET)
        tell.stop(short, BUDGET // 4, 4.1)
    return Files(folder)


def lr_sweep(folder: Path) -> Files:
    """Eight rates under asha: 0.002 and 0.001 finish, two diverge, two stop at each rung."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": list(RATES)}}, "Which peak learning rate is best?")
        ids = {lr: tell.plan({"optim.lr": lr}) for lr in RATES}
        for lr in RATES[:6]:
            tell.start(ids[lr])
            tell.train(ids[lr], lr, 1, 2)
            tell.pause(ids[lr], FIRST, loss(lr, FIRST))
        for lr in (1.6e-2, 3.2e-2):
            tell.start(ids[lr])
            tell.measure(ids[lr], EVERY, 60.0 if lr > 2e-2 else 6.5)
        above = "training loss more than 1 nat above its value at init (7.700) for 20 updates up to step"
        tell.diverge(ids[1.6e-2], EVERY + 10 * 2048, above)
        tell.diverge(ids[3.2e-2], EVERY + 4 * 2048)
        for lr in (1e-3, 2e-3, 4e-3, 8e-3):
            tell.promote(ids[lr], FIRST, SECOND, loss(lr, FIRST))
            tell.train(ids[lr], lr, 3, 6)
            tell.pause(ids[lr], SECOND, loss(lr, SECOND))
        for lr in (1e-3, 2e-3):
            tell.promote(ids[lr], SECOND, None, loss(lr, SECOND))
            tell.train(ids[lr], lr, 7, 16)
            tell.finish(ids[lr])
        for lr in (2.5e-4, 5e-4):
            tell.stop(ids[lr], FIRST, loss(lr, FIRST))
        for lr in (4e-3, 8e-3):
            tell.stop(ids[lr], SECOND, loss(lr, SECOND))
    return Files(folder)


def ended(
    folder: Path,
    path: str,
    losses: Mapping[Any, float | tuple[float, ...]],
    domain: Mapping[str, Any] | None = None,
) -> Files:
    """A sweep of one path whose trials all finish, with one record and these losses.

    A tuple of losses is one for each seed; the domain is a grid of the values unless given.
    """
    with story(folder) as tell:
        tell.ask({path: domain or {"grid": list(losses)}})
        for value, given in losses.items():
            for seed, val_loss in enumerate(given if isinstance(given, tuple) else (given,)):
                trial = tell.plan({path: value}, seed)
                tell.start(trial)
                tell.measure(trial, BUDGET, val_loss)
                tell.finish(trial)
    return Files(folder)


def read_often(folder: Path, ends: Mapping[float, float]) -> Files:
    """A sweep of rates on a text that is read 40 times: after a quarter of the budget the validation loss
    is 3.4718 and the training loss 3.3, at the end the validation loss is given and the training loss 2.
    """
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": list(ends)}})
        for rate, end in ends.items():
            trial = tell.plan({"optim.lr": rate}, train_tokens=BUDGET // 40)
            tell.start(trial)
            tell.measure(trial, BUDGET // 4, 3.4718, train_loss=3.3)
            tell.measure(trial, BUDGET, end, train_loss=2.0)
            tell.finish(trial)
    return Files(folder)


def starts_high(folder: Path) -> Files:
    """A sweep of one rate, whose loss at init is far above that of a uniform guess."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.measure(trial, BUDGET, 3.0, loss_init=24.2)
        tell.finish(trial)
    return Files(folder)


def keep(tell: Story, trial: str, saved: Path) -> Path:
    """Give a trial a checkpoint at its end; returns the file."""
    name = f"checkpoints/{trial}-1/checkpoint_0/checkpoint.pt"
    file = tell.ledger.files.folder / name
    file.parent.mkdir(parents=True)
    file.write_bytes(saved.read_bytes())
    more = {"step": BUDGET // 2048, "tokens": BUDGET, "path": name}
    tell._append("checkpointed", trial, **more)
    return file


def run(tell: Story, saved: Path, values: Mapping[str, Any], seed: int, loss: float) -> Path:
    """A run that finishes with this loss; returns its checkpoint."""
    trial = tell.plan(values, seed)
    tell.start(trial)
    tell.measure(trial, BUDGET, loss)
    file = keep(tell, trial, saved)
    tell.finish(trial)
    return file


Saved = dict[tuple[float, int], Path]  # rate and seed -> checkpoint


def rates(
    folder: Path, saved: Path, losses: Mapping[float, tuple[float, ...]]
) -> tuple[Files, Saved]:
    """A sweep of rates with these losses, one for each seed, and the checkpoints."""
    kept = {}
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": list(losses)}})
        for rate, given in losses.items():
            for seed, loss in enumerate(given):
                kept[rate, seed] = run(tell, saved, {"optim.lr": rate}, seed, loss)
    return Files(folder), kept


def better_audit(folder: Path, saved: Path) -> tuple[Files, Path]:
    """A sweep with a stopped trial whose audit ended lower than the best, and its checkpoint."""
    files = Files(folder)
    with story(files.folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}}, schedule={"policy": "asha", "grace": "1/8"})
        run(tell, saved, {"optim.lr": 1e-3}, 0, 3.0)
        stopped = tell.plan({"optim.lr": 2e-3})
        tell.start(stopped)
        tell.measure(stopped, FIRST, 5.0)
        tell.stop(stopped, FIRST, 5.0)
        audit = f"{stopped}-audit"
        tell.ledger.append("audited", trial=audit, of=stopped, stopped=1, share=1.0)
        tell.start(audit, FIRST // 2048)
        tell.measure(audit, BUDGET, 2.5)
        file = keep(tell, audit, saved)
        tell.finish(audit)
    return files, file


def bowl(rates: list[float], best: float) -> dict[float, float]:
    """Losses that rise with the distance of the rate from the best one."""
    return {rate: 3 + abs(rate - best) for rate in rates}


def confirmed_sweep(folder: Path) -> Files:
    """Two rates on two seeds, the better one of which has finished on two fresh seeds and trains on a third."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}}, seeds=[0, 1], confirm=3)
        for lr, seed in itertools.product((1e-3, 2e-3), (0, 1)):
            tell.whole(tell.plan({"optim.lr": lr}, seed), lr, seed / 100)
        seeds = (1001, 1002, 1003)
        again = {str(s): tell.plan({"optim.lr": 2e-3}, s, role="confirm") for s in seeds}
        tell.ledger.append("confirming", values={"optim.lr": 2e-3}, trials=again)
        tell.whole(again["1001"], 2e-3, 0.03)
        tell.whole(again["1002"], 2e-3, 0.05)
    return Files(folder)


def two_draws(folder: Path, number: int) -> Files:
    """A sweep with this many draws of two paths, each measured twice and still unfinished."""
    drawn = {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.weight_decay": {"uniform": [0, 1]}}
    with story(folder) as tell:
        tell.ask(drawn)
        for number_of_trial in range(number):
            rate = 1e-4 * 100 ** (number_of_trial / number)
            trial = tell.plan({"optim.lr": rate, "optim.weight_decay": number_of_trial / number})
            tell.start(trial)
            tell.train(trial, rate, 1, 2)
    return Files(folder)


def rewrite(files: Files, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a ledger as version 0.1 wrote it: its rows have no checksums."""
    files.folder.mkdir(parents=True, exist_ok=True)
    files.ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Memory(list[dict[str, Any]]):
    """The rows of a ledger that is kept in memory."""

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:  # type: ignore[override]
        """Append one row."""
        time = "2026-01-01T00:00:00.000+00:00"
        super().append({"seq": len(self), "time": time, "kind": kind, **fields})
        return self[-1]


def long_rows(trials: int) -> list[dict[str, Any]]:
    """The rows of a sweep with this many trials, which all finish after 16 records."""
    rows = Memory()
    tell = Story(rows)  # type: ignore[arg-type]
    tell.ask({"optim.lr": {"loguniform": [1e-4, 1e-2]}})
    tell.plan({"optim.lr": 1e-3})
    planned = rows.pop()
    for number in range(trials):
        trial = f"{number:012}"
        values = {"optim.lr": 1e-4 * (1 + number)}
        config = cfg.overlay(BASE, values).model_dump()
        rows.append(**planned | {"trial": trial, "values": values, "config": config})
        tell.whole(trial, 2e-3, number / 1000)
    return rows
