"""Which trials are compared, and where: at equal training tokens, or each at the end of its budget."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, final

from sweeps.ledger import Row, Trial

Metric = Literal["val_loss", "bits_per_byte"]  # lower is better

END = "end"
# Where trials are compared: at this many tokens or, where their budgets differ or are of time, at END;
# before the end, at this share of budgets of tokens that differ.
Point = int | Fraction | str


def when(point: Point | None) -> str:
    """A point in words: at 786,432 tokens, at 1/8 of the budget, or at the end of the budget."""
    if point is None:
        return "so far"
    if isinstance(point, Fraction):
        return f"at {point} of the budget"
    return "at the end of the budget" if point == END else f"at {point:,} tokens"


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """A record of a trial, as the ledger holds it."""

    row: Row

    @property
    def time(self) -> str:
        """When the record was written: UTC, ISO 8601."""
        return str(self.row["time"])

    @property
    def step(self) -> int:
        step: int = self.row["step"]
        return step

    @property
    def tokens(self) -> int:
        tokens: int = self.row["tokens"]
        return tokens

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without evaluation."""
        seconds: float = self.row["seconds"]
        return seconds

    @property
    def train_loss(self) -> float:
        """Nats per token, the mean over the updates since the previous record."""
        loss: float = self.row["train_loss"]
        return loss

    @property
    def val_loss(self) -> float:
        """Nats per token."""
        loss: float = self.row["val_loss"]
        return loss

    @property
    def bits_per_byte(self) -> float:
        bits: float = self.row["bits_per_byte"]
        return bits

    def loss(self, metric: Metric) -> float:
        """The validation loss in the units of a metric."""
        return self.val_loss if metric == "val_loss" else self.bits_per_byte

    def decayed(self, metric: Metric) -> float | None:
        """The validation loss after a decay branch; None if there was no branch."""
        loss: float | None = self.row.get(f"decayed_{metric}")
        return loss

    @property
    def spike(self) -> float | None:
        """How far the smoothed training loss rose above its minimum so far, in nats; None in
        ledgers without it."""
        spike: float | None = self.row.get("spike")
        return spike

    @property
    def first_losses(self) -> list[float]:
        """Training losses of the first updates; only in a trial's first record."""
        return list(self.row.get("first_losses", ()))

    @property
    def peak_memory(self) -> int:
        """Bytes; 0 if not measured."""
        memory: int = self.row.get("peak_memory", 0)
        return memory


def records(trial: Trial) -> list[Measured]:
    """All records of a trial, in order of step."""
    return [Measured(row) for row in trial.curve]


def last_record(trial: Trial) -> Measured | None:
    """The trial's last record."""
    return Measured(trial.curve[-1]) if trial.curve else None


def best_record(trial: Trial) -> Measured | None:
    """The record with the lowest validation loss; of equal ones, the first."""
    return min(records(trial), key=lambda record: record.val_loss, default=None)


def at(trial: Trial, point: Point | None) -> Measured | None:
    """The trial's record at exactly this many tokens or this share of its budget, or at the end of a
    finished one."""
    if point == END:
        return last_record(trial) if trial.status == "finished" else None
    if isinstance(point, Fraction):
        point = point * trial.budget
    return next((Measured(row) for row in trial.curve if row["tokens"] == point), None)


def losses_at(trials: Iterable[Trial], point: Point | None, metric: Metric) -> list[float]:
    """The losses of the trials that were measured at the point."""
    measured = (at(trial, point) for trial in trials)
    return [record.loss(metric) for record in measured if record is not None]


def budgets(trials: Iterable[Trial]) -> set[tuple[int, float | None]]:
    """The different budgets of the trials: tokens, and seconds if the budget is one of time."""
    return {(t.config["budget"]["tokens"], t.config["budget"]["seconds"]) for t in trials}


def have_one_budget(trials: Iterable[Trial]) -> bool:
    """Whether equal tokens are the same share of every trial's learning-rate schedule."""
    found = budgets(trials)
    return len(found) < 2 and all(seconds is None for _, seconds in found)


def same_point(trial: Trial, tokens: int, other: Trial) -> Point | None:
    """Where another trial is as far in its schedule as this one is at a token count: at equal tokens, or
    at an equal share where their budgets differ; None for budgets of time."""
    if have_one_budget([trial, other]):
        return tokens
    timed = any(seconds is not None for _, seconds in budgets([trial, other]))
    return None if timed else Fraction(tokens, trial.budget)


def common_tokens(trials: Iterable[Trial]) -> int | None:
    """The latest token count at which every one of the trials was measured; None for budgets that
    differ or are of time: there the learning rate of one has decayed where another's has not."""
    alike = list(trials)
    if not alike or not have_one_budget(alike):
        return None
    return max(set.intersection(*({row["tokens"] for row in t.curve} for t in alike)), default=None)


def final_point(trials: Iterable[Trial]) -> Point | None:
    """Where trials are compared: at the latest token count that all have measured; finished trials
    whose budgets differ or are of time, each at its end."""
    compared = list(trials)
    if all(trial.status == "finished" for trial in compared):
        ends = {trial.curve[-1]["tokens"] for trial in compared if trial.curve}
        return next(iter(ends), None) if len(ends) < 2 and have_one_budget(compared) else END
    return common_tokens(compared)


def groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials grouped by values, so that those in a group differ only by seed; in plan order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(json.dumps(trial.values), []).append(trial)
    return list(found.values())


def best_group(trials: Iterable[Trial], metric: Metric) -> list[Trial]:
    """The finished trials of the values with the lowest mean final loss, among the values with the most
    finished seeds; empty if no trial has finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    point = final_point(finished)
    if point is None:
        return []
    choices = groups(finished)
    most = max(map(len, choices))
    full = [group for group in choices if len(group) == most]
    return min(full, key=lambda group: statistics.fmean(losses_at(group, point, metric)))
