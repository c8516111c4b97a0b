"""Fakes of what the driver depends on: facts, an engine without Ray, trials without training."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps import ledger as led
from sweeps.engine.driver import Driver
from sweeps.engine.job import Job
from sweeps.plan import trials as pl
from sweeps.plan.reading import read
from sweeps.plan.request import Machine, Request, base_config, with_shared_blocks
from sweeps.plan.space import Space
from tinylm import config as cfg
from tinylm.config import ConfigError

Loss = Callable[[dict[str, Any], float], float]  # (config, share of the budget) -> loss


def facts(config: cfg.Config) -> dict[str, Any]:
    """The facts of a planned row, without a model or a corpus."""
    return {"params": 7, "flops_per_token": 11, "corpus": "c" * 16, "unigram_entropy": 9.0}


def size(model: cfg.Model) -> tuple[int, int]:
    """Rough parameters and FLOPs per token of a model."""
    products = 3 if model.ffn == "swiglu" else 2
    params = model.n_layers * model.d_model * (4 * model.d_model + products * model.d_ff)
    return params, 6 * params


MACHINE = Machine(size, lambda config: config.optim.batch_size <= 16)


def request(tree: dict[str, Any], scale: str = "smoke", seed: int = 0) -> Request:
    """The request of a space that is written as a mapping."""
    space = Space.model_validate(tree)
    base = with_shared_blocks(space, base_config(scale, space.base, "space.yaml"), space.base)
    return Request(space, tree, "space.yaml", base, scale, seed)


def problems(folder: Path, tree: dict[str, Any]) -> str:
    """The error message of an invalid space file, from reading or from planning it."""
    path = folder / "asked.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def read_and_plan() -> pl.Plan:
        space, _ = read(path)
        base = with_shared_blocks(space, base_config("smoke", space.base, "asked.yaml"), space.base)
        return pl.plan(Request(space, tree, "asked.yaml", base, "smoke", 0), MACHINE)

    with pytest.raises(ConfigError) as caught:
        read_and_plan()
    return str(caught.value)


def grid(rates: list[float], **schedule: Any) -> dict[str, Any]:
    """A space of learning rates."""
    return {
        "question": "Which rate?",
        "search": {"method": "grid"},
        "space": {"optim.lr": {"grid": rates}},
        "schedule": schedule or {"policy": "asha", "eta": 3, "grace": "1/8"},
    }


def driver(ledger: led.ReadLedger, what: Request, audit: float = 0.0) -> Driver:
    """A driver for a request, which looks for what people ask at every turn."""
    plan = pl.plan(what, MACHINE, pl.earlier_draws(ledger.rows(), what.seed))
    return Driver(ledger, what, plan, MACHINE, facts, audit, itertools.count().__next__)


def v_shaped(config: dict[str, Any], share: float) -> float:
    """Losses that fall during training and are lowest at a rate of 4e-3; curves never cross."""
    return 2.0 + abs(math.log2(config["optim"]["lr"] / 4e-3)) / 10 + (1 - share)


class Engine:
    """Runs jobs on a number of slots in turn, one record at a time; `loss` may be infinite or raise. If there are
    fewer workers than slots, jobs wait for one."""

    def __init__(
        self, driver: Driver, loss: Loss, slots: int = 2, workers: int | None = None
    ) -> None:
        self.driver = driver
        self.loss = loss
        self.slots = slots
        self.workers = workers or slots
        self.node = "a"  # of the jobs that begin now
        self.asked_to_end: set[str] = set()  # trials whose workers were
        self.queue: list[Job] = []
        self.running: list[tuple[Job, int]] = []
        self.decayed: Callable[[dict[str, Any]], float] = lambda config: loss(config, 1.0)
        self.jobs: list[Job] = []
        self.most = 0

    def run(self, records: float = math.inf) -> None:
        """Run until nothing is left to do, or until this many records were reported."""
        while records > 0:
            while len(self.running) + len(self.queue) < self.slots and (
                job := self.driver.next_job()
            ):
                self.jobs.append(job)
                self.queue.append(job)
                self._begin()
            self._begin()
            self.most = max(self.most, len(self.running))
            if not self.running:
                if not self.driver.is_capped():
                    self.driver.end()
                return
            self._advance(*self.running.pop(0))
            records -= 1

    def _begin(self) -> None:
        """Begin the jobs that wait for a worker, while one is free, but for those that are not wanted now."""
        unwanted = self.driver.no_longer_wanted()
        self.driver.take_back(unwanted)
        self.queue = [job for job in self.queue if job.trial not in unwanted]
        while self.queue and len(self.running) < self.workers:
            job = self.queue.pop(0)
            self.driver.began(job.trial, node=self.node)
            step = "0" if job.checkpoint is None else Path(job.checkpoint).read_text()
            if step.isdecimal():
                self.running.append((job, int(step)))
            else:
                why = f"{job.checkpoint}: damaged"
                self.driver.failed(job.trial, "checkpoint", why, "trace")

    def _advance(self, job: Job, step: int) -> None:
        config = cfg.validate(job.config, job.label)
        step += config.eval.every_tokens // config.tokens_per_step
        tokens = step * config.tokens_per_step
        try:
            loss = self.loss(job.config, tokens / config.budget.tokens)
        except ArithmeticError as error:
            self.driver.failed(job.trial, "error", repr(error), "trace")
            return
        if math.isinf(loss):
            event = {"event": "diverged", "step": step, "tokens": tokens, "reason": "loss inf"}
            event |= {"how": "non-finite"}
            self.driver.reported(job.trial, {**event, "save": False, "peak_loss": -math.inf})
            return
        save = tokens % config.run.checkpoint_every_tokens == 0 or tokens in job.rungs
        event = {"event": "measured", "save": save, "step": step, "tokens": tokens}
        event |= {
            "val_loss": loss,
            "bits_per_byte": loss,
            "train_loss": loss,
            "seconds": step * 1.0,
        }
        event |= {"lr": 0.1, "grad_norm": 1.0, "tokens_per_s": 9.0, "peak_memory": 10**9}
        event |= {"last": tokens == config.budget.tokens}
        if job.branch and tokens in job.rungs:
            event |= {"decayed_val_loss": self.decayed(job.config), "decayed_bits_per_byte": 1.0}
            event |= {"branch_tokens": round(job.branch * tokens)}
        ends = job.trial in self.asked_to_end
        self.asked_to_end.discard(job.trial)
        continues = self.driver.reported(job.trial, event, ends=ends)
        if self.driver.wants_checkpoint(job.trial, save):
            self._save(job, step)
        if continues:
            self.running.append((job, step))

    def _save(self, job: Job, step: int) -> None:
        name = f"{job.trial}-{job.attempt}/checkpoint_{step}/checkpoint.pt"
        file = self.driver.ledger.files.checkpoints.resolve() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(step))
        self.driver.saved(job.trial, file)
