"""AdamW as language models use it, and the learning rate as a function of a run's progress."""

import math
from typing import NamedTuple, Self

import torch
from torch import nn

from tinylm import config as cfg


class Progress(NamedTuple):
    """How much of a run is done: `done` of `total`, both in updates or both in seconds.

    Both numbers are kept, since a learning rate computed from their quotient would differ in its
    last bit.
    """

    done: float
    total: float

    @classmethod
    def after(cls, step: int, seconds: float, config: cfg.Config) -> Self:
        """The progress after `step` updates that took `seconds`.

        With a budget in seconds, tokens and seconds both count: the larger share is the progress.
        """
        in_updates = cls(step, config.steps)
        if config.budget.seconds is None:
            return in_updates
        in_seconds = cls(seconds, config.budget.seconds)
        return in_seconds if in_seconds.share > in_updates.share else in_updates

    @property
    def share(self) -> float:
        """In [0, 1] while the run is within its budget."""
        return self.done / self.total


def learning_rate(progress: Progress, c: cfg.Optim) -> float:
    """The learning rate of the update that ends at this progress.

    It rises linearly to the peak over the first `warmup_fraction` of the run; the last update of a
    decaying schedule has the rate `lr * lr_final_fraction`.
    """
    done, total = progress
    warmup = c.warmup_fraction * total
    if done < warmup:
        return c.lr * done / warmup
    final = c.lr * c.lr_final_fraction
    if c.schedule == "constant":
        return c.lr
    if c.schedule == "wsd":
        decay = c.decay_fraction * total
        return c.lr + (final - c.lr) * max(0.0, (done - total + decay) / decay)
    # A run that is all warm-up ends at its peak.
    decayed = (done - warmup) / (total - warmup) if total > warmup else 0.0
    if c.schedule == "linear":
        return c.lr + (final - c.lr) * decayed
    return final + (c.lr - final) * 0.5 * (1 + math.cos(math.pi * decayed))


def adamw(model: nn.Module, config: cfg.Config) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) whose weight decay acts on matrices only, not on gains."""
    c = config.optim
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": c.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=c.lr,
        betas=(c.beta1, c.beta2),
        eps=c.eps,
        fused=config.run.device != "mps",
        capturable=config.run.device == "cuda",
    )
