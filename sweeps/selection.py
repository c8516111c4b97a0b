"""Which trials are compared, and where: at equal training tokens, or each at the end of its budget."""

import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from typing import Any, Literal, final

from sweeps.ledger import Row, Trial, value_of
from tinylm import config as cfg

Metric = Literal["val_loss", "bits_per_byte"]  # lower is better

# Paths that don't change the loss, or only as a new seed would.
NO_CHANGE = {
    "run.seed", "run.repeat", "run.device", "run.threads", "run.checkpoint_every_tokens",
    "eval.every_tokens", "eval.batch_size",
}  # fmt: skip

_TOKENS = itemgetter("tokens")  # of a row

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

    @property
    def gap(self) -> float:
        """The validation loss less the training loss, in nats."""
        return self.val_loss - self.train_loss

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


def records(trial: Trial) -> list[Measured]:
    """All records of a trial, in order of step."""
    return [Measured(row) for row in trial.curve]


def last_record(trial: Trial) -> Measured | None:
    """The trial's last record."""
    return Measured(trial.curve[-1]) if trial.curve else None


def best_record(trial: Trial) -> Measured | None:
    """The record with the lowest validation loss; of equal ones, the first."""
    return None if trial.lowest is None else Measured(trial.lowest)


def at(trial: Trial, point: Point | None) -> Measured | None:
    """The trial's record at exactly this many tokens or this share of its budget, or at the end of a
    finished one."""
    if point == END:
        return last_record(trial) if trial.status == "finished" else None
    if isinstance(point, Fraction):
        point = point * trial.budget
    if point is None or isinstance(point, str):
        return None
    index = bisect_left(trial.curve, point, key=_TOKENS)  # by rising tokens
    found = trial.curve[index] if index < len(trial.curve) else None
    return Measured(found) if found and found["tokens"] == point else None


def first_at_most(trial: Trial, metric: Metric, limit: float) -> Measured | None:
    """The trial's first record with a loss at or below a limit."""
    return next((Measured(row) for row in trial.curve if row[metric] <= limit), None)


def losses_at(trials: Iterable[Trial], point: Point | None, metric: Metric) -> list[float]:
    """The losses of the trials that were measured at the point."""
    measured = (at(trial, point) for trial in trials)
    return [record.loss(metric) for record in measured if record is not None]


def losses_by_seed_at(
    runs: Iterable[Trial], point: Point | None, metric: Metric
) -> dict[int, float]:
    """The losses of the runs that were measured at the point, by seed."""
    return {run.seed: record.loss(metric) for run in runs if (record := at(run, point))}


def losses_by_seed(runs: Iterable[Trial], metric: Metric) -> dict[int, float]:
    """The final losses of the runs that finished, by seed."""
    return {
        trial.seed: end.loss(metric)
        for trial in runs
        if trial.status == "finished" and (end := last_record(trial)) is not None
    }


def means_on_shared_seeds(
    own: Mapping[int, float], other: Mapping[int, float]
) -> tuple[float, float]:
    """The means of losses by seed and of others, over the seeds that both have; over all of each where they
    share none."""
    shared = own.keys() & other.keys()
    one, another = (
        statistics.fmean(losses[seed] for seed in losses if seed in shared or not shared)
        for losses in (own, other)
    )
    return one, another


def budgets(trials: Iterable[Trial]) -> set[tuple[int, float | None]]:
    """The different budgets of the trials: tokens, and seconds if the budget is one of time."""
    return {(t.config["budget"]["tokens"], t.config["budget"]["seconds"]) for t in trials}


def have_one_budget(trials: Iterable[Trial]) -> bool:
    """Whether equal tokens are the same share of every trial's learning-rate schedule."""
    found = budgets(trials)
    return len(found) < 2 and all(seconds is None for _, seconds in found)


@dataclass(frozen=True)
class ContextLengths:
    """How runs of different context lengths are compared."""

    tokens: int  # validation tokens that are predicted
    are_same: bool  # whether those are the same tokens at every length
    shortest: int
    longest: int
    per_update: dict[int, set[int]]  # tokens of an update, by context length
    updates: dict[int, set[int]]  # of a whole run, by context length; none in a budget of time

    @property
    def updates_differ(self) -> bool:
        """Whether an update of one length has more tokens than one of another."""
        return len(set.union(*self.per_update.values())) > 1

    @property
    def words(self) -> list[str]:
        """What the comparison is, and what else differs between the lengths, as sentences."""
        said = [
            f"All context lengths predict the same {self.tokens:,} validation tokens. The loss is the mean "
            "over all positions of a window; those at its start have little context."
            if self.are_same
            else "Each context length was evaluated on other validation tokens, so their losses can't be "
            "compared exactly."
        ]
        if self.updates_differ:
            ends = " and ".join(map(self._size_of_update, (self.shortest, self.longest)))
            text = f"Tokens per update differ: {ends}."
            # Where the space varies the batch size itself, there is nothing to match.
            if all(len(sizes) == 1 for sizes in self.per_update.values()):
                text += " Add `match: tokens_per_update` to the space to make them equal."
            said.append(text)
        else:
            (tokens,) = self.per_update[self.shortest]
            said.append(f"Every update has {tokens:,} tokens.")
        return said

    def _size_of_update(self, length: int) -> str:
        updates = self.updates[length]
        made = f" ({_between(updates)} updates)" if updates else ""
        return f"{_between(self.per_update[length])} at context length {length}{made}"


def _between(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def predicts(config: Mapping[str, Any]) -> tuple[int, int]:
    """The number of validation tokens that a run of a config predicts, and that of a block of them: they
    are the same tokens in runs that agree in both, and in the corpus."""
    block = cfg.block_tokens(config["eval"]["block"], config["model"]["context_length"])
    return config["eval"]["tokens"], block


def context_lengths(configs: Iterable[Mapping[str, Any]]) -> ContextLengths | None:
    """How runs of these configs are compared; None if all have one context length."""
    per_update: dict[int, set[int]] = {}
    updates: dict[int, set[int]] = {}
    windows = set()
    for config in configs:
        length = config["model"]["context_length"]
        tokens = length * config["optim"]["batch_size"]
        per_update.setdefault(length, set()).add(tokens)
        made = (
            []
            if config["budget"]["seconds"] is not None
            else [config["budget"]["tokens"] // tokens]
        )
        updates.setdefault(length, set()).update(made)
        windows.add(predicts(config))
    if len(per_update) < 2:
        return None
    return ContextLengths(
        tokens=max(tokens for tokens, _ in windows),
        are_same=len(windows) == 1,
        shortest=min(per_update),
        longest=max(per_update),
        per_update=per_update,
        updates=updates,
    )


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
    first, *others = alike
    shared = set(map(_TOKENS, first.curve))
    for trial in others:
        shared.intersection_update(map(_TOKENS, trial.curve))
    return max(shared, default=None)


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
        found.setdefault(value_of(trial.values), []).append(trial)
    return list(found.values())


def best_group(trials: Iterable[Trial], metric: Metric) -> list[Trial]:
    """The finished trials of the values with the lowest mean final loss, among the values with the most
    finished seeds; empty if no trial has finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    point = final_point(finished)
    if point is None:
        return []
    return _lowest(finished, lambda group: losses_at(group, point, metric))


def fastest_group(trials: Iterable[Trial], metric: Metric, limit: float) -> list[Trial]:
    """The trials of the values that reach a loss in the fewest tokens on average, among the values with
    the most seeds that reach it; empty if no trial does."""
    tokens: dict[str, int] = {}
    reached = []
    for trial in trials:
        record = first_at_most(trial, metric, limit)
        if record is not None:
            tokens[trial.trial] = record.tokens
            reached.append(trial)
    return _lowest(reached, lambda group: [tokens[trial.trial] for trial in group])


def _lowest(
    trials: Iterable[Trial], numbers: Callable[[Sequence[Trial]], Sequence[float]]
) -> list[Trial]:
    """The group of values with the lowest mean of its numbers, among those with the most trials."""
    choices = groups(trials)
    most = max(map(len, choices), default=0)
    full = [group for group in choices if len(group) == most]
    return min(full, key=lambda group: statistics.fmean(numbers(group)), default=[])
