"""What casts doubt on the losses of runs: overfitting, and a high loss at init."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.ledger import Trial
from sweeps.outcomes import overfit
from tinylm import config as cfg


@dataclass(frozen=True)
class HighInit:
    """A loss at init so far above that of a uniform guess that training begins with unlearning."""

    loss: float  # mean over the runs
    uniform: float  # ln V
    setting: dict[str, Any]  # a path and the value that lowers it


def high_init(runs: Iterable[Trial]) -> HighInit | None:
    """The loss at init of runs of one model, if it is too high."""
    known = [(trial, trial.loss_init) for trial in runs if trial.loss_init is not None]
    if not known:
        return None
    model = cfg.Model.model_validate(known[0][0].config["model"])
    mean = statistics.fmean(loss for _, loss in known)
    return HighInit(mean, model.uniform_loss, model.lower_init) if model.starts_high(mean) else None


_DOUBTS = {
    "overfitting": ("it overfitted", "the baseline overfitted", "both overfitted"),
    "init": (
        "it has a high loss at init",
        "the baseline has a high loss at init",
        "both have a high loss at init",
    ),
}


@dataclass(frozen=True)
class Doubt:
    """What a difference between runs and their baseline may be due to, other than the change."""

    kind: Literal["overfitting", "init"]
    of_it: bool
    of_baseline: bool

    @property
    def words(self) -> str:
        """A short clause."""
        one, other, both = _DOUBTS[self.kind]
        return both if self.of_it and self.of_baseline else one if self.of_it else other


def doubts(runs: Sequence[Trial], baseline: Sequence[Trial] = ()) -> tuple[Doubt, ...]:
    """The doubts about the final losses of runs, compared with those of a baseline or alone."""
    found = (
        Doubt("overfitting", *(any(map(overfit, some)) for some in (runs, baseline))),
        Doubt("init", *(high_init(some) is not None for some in (runs, baseline))),
    )
    return tuple(doubt for doubt in found if doubt.of_it or doubt.of_baseline)
