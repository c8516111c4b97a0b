"""AdamW as language models use it, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from tinylm import config as cfg


def learning_rate(step: int, config: cfg.Config) -> float:
    """The rate of the update that follows `step` completed ones.

    It rises linearly to the peak in the first `warmup_fraction` of all updates; the last update
    of a decaying schedule has the rate `lr * lr_final_fraction`.
    """
    c = config.optim
    update = step + 1
    warmup = c.warmup_fraction * config.steps
    if update < warmup:
        return c.lr * update / warmup
    final = c.lr * c.lr_final_fraction
    if c.schedule == "constant":
        return c.lr
    if c.schedule == "wsd":
        decay = c.decay_fraction * config.steps
        return c.lr + (final - c.lr) * max(0.0, (update - config.steps + decay) / decay)
    # A training that is all warm-up ends at its peak.
    progress = (update - warmup) / (config.steps - warmup) if config.steps > warmup else 0.0
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
