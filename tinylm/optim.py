"""AdamW as language models use it, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from tinylm import config as cfg


def learning_rate(step: int, config: cfg.Config) -> float:
    """The rate of the update that follows `step` completed ones, where tokens are the budget."""
    return rate_at(step + 1, config.steps, config.optim)


def rate_at(update: float, total: float, c: cfg.Optim) -> float:
    """The rate of an update at whose end so much of the total (updates, or a share of 1) is over.

    It rises linearly to the peak in the first `warmup_fraction` of all updates; the last update
    of a decaying schedule has the rate `lr * lr_final_fraction`.
    """
    warmup = c.warmup_fraction * total
    if update < warmup:
        return c.lr * update / warmup
    final = c.lr * c.lr_final_fraction
    if c.schedule == "constant":
        return c.lr
    if c.schedule == "wsd":
        decay = c.decay_fraction * total
        return c.lr + (final - c.lr) * max(0.0, (update - total + decay) / decay)
    # A training that is all warm-up ends at its peak.
    progress = (update - warmup) / (total - warmup) if total > warmup else 0.0
    if c.schedule == "linear":
        return c.lr + (final - c.lr) * progress
    return final + (c.lr - final) * 0.5 * (1 + math.cos(math.pi * progress))


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
    )
