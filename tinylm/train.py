"""The training loop: a generator of plain records.

The caller prints, reports, saves, or stops by not asking for more. Everything is a function of
(config, seed, step), so a training that goes on from a `State` saved between two records gives
the same records, bit for bit on a CPU, as one that was never interrupted. The one exception is a
budget in seconds: there the learning rate is a function of the time that has passed as well.
"""

import copy
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm import data, optim
from tinylm.model import Transformer, build

Forward = Callable[[Tensor], Tensor]  # token ids (B, T) -> logits (B, T, V)

# A training has diverged when its loss, the warm-up over, has been this many nats above the loss
# at init for this many updates in a row.
DIVERGED_NATS = 1.0
DIVERGED_UPDATES = 20
# What a spike is measured on: a running mean in which each update's loss has this weight.
SMOOTHING = 0.1
FIRST_LOSSES = 10  # updates at the beginning whose losses are kept, to tell two trainings apart
PROBE_UPDATES = 20
PROBE_SECONDS = 20.0
# Losses are fetched from the device this often: each fetch waits for the device.
_FETCH_UPDATES = 10


@dataclass(frozen=True)
class Record:
    """What is known of a training after `step` updates. Losses are nats per token."""

    step: int
    tokens: int
    seconds: float  # of training; evaluation and saving excluded
    train_loss: float  # mean over the updates since the last record
    val_loss: float
    bits_per_byte: float
    lr: float  # of the last update
    grad_norm: float  # of the last update, before clipping
    peak_loss: float  # highest training loss of any update so far
    loss_init: float  # training loss of the first batch, before any update
    spike: float  # most that the smoothed training loss has risen above its lowest, warm-up over
    first_losses: tuple[float, ...]  # of the first `FIRST_LOSSES` updates; in the first record only
    tokens_per_s: float  # since the last record
    last: bool  # whether the training is over
    peak_memory: int  # bytes: of the CUDA allocator in this training, else of the process so far


class Diverged(Exception):  # noqa: N818 a result, not an error
    """A training whose loss is not finite (`non-finite`) or stays far above the loss at init
    (`blown up`)."""

    def __init__(
        self,
        how: Literal["non-finite", "blown up"],
        reason: str,
        step: int,
        tokens: int,
        state: "State",
    ) -> None:
        super().__init__(reason)
        self.how = how
        self.reason = reason
        self.step = step
        self.tokens = tokens
        self.peak_loss = state.peak_loss
        self.loss_init = state.loss_init


@dataclass
class State:
    """All that changes while a training runs."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    loss_init: float = math.nan
    peak_loss: float = -math.inf
    updates_above: int = 0  # updates in a row with a loss far above the loss at init
    smooth_loss: float = math.nan  # running mean of the training loss
    lowest_loss: float = math.inf  # the least that it has been
    spike: float = 0.0  # the most that it has risen above that, the warm-up over


def require(device: str) -> None:
    """Raise `ConfigError` where a device is not to be had."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device]:
        raise cfg.ConfigError(
            [f"run.device: no {device} device here; --set run.device=cpu trains on the processor"]
        )


def start(config: cfg.Config) -> State:
    """A training before its first update; `ConfigError` where its device is not to be had."""
    require(config.run.device)
    if config.run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # of a training before, in a process that is used again
    model = build(config.model, config.run.seed).to(config.run.device)
    return State(model, optim.adamw(model, config))


def _autocast(config: cfg.Config) -> AbstractContextManager[None]:
    return torch.autocast(config.run.device, torch.bfloat16, enabled=config.run.precision == "bf16")


def _loss(forward: Forward, window_BT: Tensor, config: cfg.Config, reduction: str) -> Tensor:
    """Cross-entropy in nats of every token of the windows but the first, given those before it."""
    with _autocast(config):
        logit_BTV = forward(window_BT[:, :-1])
    return F.cross_entropy(
        logit_BTV.flatten(0, 1).float(), window_BT[:, 1:].flatten(), reduction=reduction
    )


@torch.no_grad()
def evaluate(forward: Forward, corpus: data.Corpus, config: cfg.Config) -> tuple[float, float]:
    """Validation loss in nats per token, and bits per byte, over the fixed windows."""
    length = config.model.context_length
    windows = data.validation_windows(corpus.validation, config.eval.tokens // length, length)
    nats = 0.0
    for first in range(0, len(windows), config.eval.batch_size):
        window_BT = torch.from_numpy(windows[first : first + config.eval.batch_size])
        loss_N = _loss(forward, window_BT.to(config.run.device), config, "none")
        nats += loss_N.double().sum().item() if config.run.device != "mps" else loss_N.sum().item()
    targets = windows[:, 1:]
    text_bytes = int(corpus.bytes_of_token[targets].sum())
    return nats / targets.size, nats / math.log(2) / text_bytes


def _update(
    state: State, forward: Forward, corpus: data.Corpus, config: cfg.Config, rate: float
) -> tuple[Tensor, Tensor]:
    """One update of the state at a learning rate; loss and gradient norm, still on the device."""
    c = config.optim
    windows = data.batch(
        corpus.train, c.batch_size, config.model.context_length, config.run.seed, state.step
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=config.run.device)
    for micro in np.split(windows, config.run.accumulate):
        window_BT = torch.from_numpy(micro).to(config.run.device)
        loss = _loss(forward, window_BT, config, "mean") / config.run.accumulate
        loss.backward()
        total += loss.detach()
    limit = math.inf if c.clip_norm == "none" else c.clip_norm
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return total, norm


# The budget --------------------------------------------------------------------------------------


def _share(updates: float, seconds: float, config: cfg.Config) -> float:
    """The share of a training that is over after so many updates and seconds."""
    by_tokens = updates / config.steps
    limit = config.budget.seconds
    return by_tokens if limit is None else max(by_tokens, seconds / limit)


def _after_next(state: State, seconds: float, config: cfg.Config) -> float:
    """The share that will be over after one more update, which takes as long as those before."""
    each = seconds / state.step if state.step else 0.0
    return _share(state.step + 1, seconds + each, config)


def is_over(state: State, seconds: float, config: cfg.Config) -> bool:
    """Whether, after so many seconds, one more update would be more than the budget."""
    if config.budget.seconds is None or state.step == 0:
        return state.step >= config.steps
    return _after_next(state, seconds, config) > 1


def _rate(state: State, seconds: float, config: cfg.Config) -> float:
    """The learning rate of the next update."""
    if config.budget.seconds is None:
        return optim.learning_rate(state.step, config)
    return optim.rate_at(min(1.0, _after_next(state, seconds, config)), 1.0, config.optim)


class _Clock:
    """Seconds of training, this stretch included; read only where the budget is one of time."""

    def __init__(self, before: float, config: cfg.Config) -> None:
        self._before = before
        self._begun = time.perf_counter()
        self._waits = config.run.device == "cuda" and config.budget.seconds is not None

    def seconds(self) -> float:
        """Of all that has been trained so far."""
        if self._waits:
            torch.cuda.synchronize()  # updates are under way that have been asked for
        return self._before + time.perf_counter() - self._begun


def _watch(state: State, losses: list[float], config: cfg.Config) -> None:
    """Fold the latest losses into the state; `Diverged` where they say so."""
    first = state.step - len(losses)
    if first == 0:
        state.loss_init = state.smooth_loss = losses[0]
    for step, loss in enumerate(losses, start=first + 1):
        tokens = step * config.tokens_per_step
        if not math.isfinite(loss):
            reason = f"training loss {loss} at step {step}"
            raise Diverged("non-finite", reason, step, tokens, state)
        state.peak_loss = max(state.peak_loss, loss)
        state.smooth_loss += SMOOTHING * (loss - state.smooth_loss)
        state.lowest_loss = min(state.lowest_loss, state.smooth_loss)
        # As the schedule has it, but for updates since the clock was last read.
        warm = _share(step, state.seconds, config) > config.optim.warmup_fraction
        if warm:
            state.spike = max(state.spike, state.smooth_loss - state.lowest_loss)
        above = warm and loss > state.loss_init + DIVERGED_NATS
        state.updates_above = state.updates_above + 1 if above else 0
        if state.updates_above >= DIVERGED_UPDATES:
            reason = (
                f"training loss more than {DIVERGED_NATS:g} nat above its value at init "
                f"({state.loss_init:.3f}) for {DIVERGED_UPDATES} updates up to step {step}"
            )
            raise Diverged("blown up", reason, step, tokens, state)


PRODUCTS = 10  # of matrices, to find the peak


def _on_random_tokens(config: cfg.Config) -> Callable[[], None]:
    """An update of a new training that needs no corpus, as a function that makes one more."""
    torch.set_num_threads(config.run.threads)
    state = start(config)
    forward = torch.compile(state.model) if config.run.compile else state.model
    ids = np.random.default_rng(0).integers(
        0, config.model.vocab_size, config.tokens_per_step + config.model.context_length, np.uint16
    )
    tokens = data.Tokens(ids, documents=1)
    corpus = data.Corpus(Path(), tokens, tokens, np.ones(config.model.vocab_size, np.int64))

    def update() -> None:
        rate = optim.learning_rate(state.step, config)
        _update(state, forward, corpus, config, rate)[0].item()  # waits for the device

    return update


def memory(config: cfg.Config) -> int:
    """Most bytes held, as `peak_memory` counts them, over the first two updates of a training."""
    update = _on_random_tokens(config)
    update()
    update()
    return peak_memory(config.run.device)


def probe(config: cfg.Config) -> float:
    """Training tokens per second, measured on `PROBE_UPDATES` updates with random tokens after a
    first one; on fewer where they take longer than `PROBE_SECONDS`."""
    update = _on_random_tokens(config)

    def timed() -> float:
        begun = time.perf_counter()
        update()
        return time.perf_counter() - begun

    times = [timed()]  # compiles, allocates
    if times[0] < PROBE_SECONDS:
        times = [timed()]
    while len(times) < PROBE_UPDATES and math.fsum(times) < PROBE_SECONDS:
        times.append(timed())
    return len(times) * config.tokens_per_step / math.fsum(times)


def product_flops(config: cfg.Config) -> float:
    """FLOPs a second of a large matrix product with the device, precision and threads of a training;
    the best of several."""
    torch.set_num_threads(config.run.threads)
    on_gpu = config.run.device == "cuda"
    size = 8192 if on_gpu else 1024
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    factor = torch.ones(size, size, device=config.run.device, dtype=dtype)
    best = math.inf
    for _ in range(PRODUCTS):
        begun = time.perf_counter()
        (factor @ factor)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def peak_memory(device: str) -> int:
    """Most bytes held so far: by tensors on a CUDA device, else by this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def train(state: State, corpus: data.Corpus, config: cfg.Config) -> Iterator[Record]:
    """Records at every `eval.every_tokens` and at the end; the state moves with them.

    The state may be saved between two records. Raises `Diverged`.
    """
    torch.set_num_threads(config.run.threads)
    forward = torch.compile(state.model) if config.run.compile else state.model
    steps_per_record = config.eval.every_tokens // config.tokens_per_step
    while not is_over(state, state.seconds, config):
        before, clock = state.step, _Clock(state.seconds, config)
        stop = min((before // steps_per_record + 1) * steps_per_record, config.steps)
        losses: list[float] = []
        while state.step < stop and not (losses and is_over(state, clock.seconds(), config)):
            fetched: list[Tensor] = []
            while True:
                rate = _rate(state, clock.seconds(), config)
                loss, norm = _update(state, forward, corpus, config, rate)
                fetched.append(loss)
                full = state.step == stop or len(fetched) == _FETCH_UPDATES
                if full or is_over(state, clock.seconds(), config):
                    break
            latest = torch.stack(fetched).tolist()
            _watch(state, latest, config)
            losses += latest
        passed = clock.seconds() - state.seconds
        state.seconds += passed
        val_loss, bits_per_byte = evaluate(forward, corpus, config)
        tokens = state.step * config.tokens_per_step
        if not math.isfinite(val_loss):
            reason = f"validation loss {val_loss} at step {state.step}"
            raise Diverged("non-finite", reason, state.step, tokens, state)
        yield Record(
            step=state.step,
            tokens=tokens,
            seconds=state.seconds,
            train_loss=math.fsum(losses) / len(losses),
            val_loss=val_loss,
            bits_per_byte=bits_per_byte,
            lr=rate,
            grad_norm=norm.item(),
            peak_loss=state.peak_loss,
            loss_init=state.loss_init,
            spike=state.spike,
            first_losses=() if before else tuple(losses[:FIRST_LOSSES]),
            tokens_per_s=(state.step - before) * config.tokens_per_step / passed,
            last=is_over(state, state.seconds, config),
            peak_memory=peak_memory(config.run.device),
        )


def decay_branch(
    state: State, corpus: data.Corpus, config: cfg.Config, updates: int
) -> Record | None:
    """The record after so many more updates in which the learning rate falls linearly from what it
    is now to `optim.lr_final_fraction` of that; None where they diverge. The state stays as it is.
    """
    whole = (state.step + updates) * config.tokens_per_step
    branch = cfg.overlay(
        config,
        {
            "optim.schedule": "wsd",
            "optim.lr": optim.learning_rate(state.step - 1, config),
            "optim.warmup_fraction": 0.0,
            "optim.decay_fraction": updates / (state.step + updates),
            "budget.tokens": whole,
            "eval.every_tokens": whole,
            "run.checkpoint_every_tokens": whole,
        },
    )
    try:
        (last,) = train(copy.deepcopy(state), corpus, branch)
    except Diverged:
        return None
    return last
