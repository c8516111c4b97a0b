"""The training loop: a generator of plain records.

The caller prints, reports, saves, or stops by not asking for more. Everything is a function of
(config, seed, step), so a run that resumes from a `State` saved between two records gives the same
records, bit for bit on a CPU, as one that was never interrupted. The one exception is a budget in
seconds: there the learning rate also depends on the time that has passed.
"""

import contextlib
import copy
import ctypes
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm import data, optim
from tinylm.model import Transformer, build, cross_entropy, stream
from tinylm.optim import Progress

Forward = Callable[[Tensor], Tensor]  # token ids (B, T) -> logits (B, T, V)
Loss = Callable[[Tensor], Tensor]  # token ids (B, T + 1) -> mean cross-entropy in nats
_COMPILED_SHAPES = 1000  # in one process, at most
Clock = Callable[[], float]  # seconds since some fixed moment


@dataclass(frozen=True)
class Record:
    """What is known of a run after `step` updates. Losses are nats per token."""

    step: int
    tokens: int
    seconds: float  # of training, without evaluation and saving
    train_loss: float  # mean over the updates since the last record
    val_loss: float
    bits_per_byte: float
    lr: float  # of the last update
    grad_norm: float  # of the last update, before clipping
    peak_loss: float  # highest training loss of any update so far
    loss_init: float  # training loss of the first batch, before any update
    spike: float  # largest rise of the smoothed training loss above its minimum, after warm-up
    first_losses: tuple[float, ...]  # of the first `FIRST_LOSSES` updates; in the first record only
    tokens_per_s: float  # since the last record
    last: bool  # whether the run is finished
    peak_memory: int  # bytes: of the CUDA allocator in this run, else of the process so far


@dataclass
class State:
    """Everything that changes during a run."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    watch: "LossWatch"
    step: int = 0
    seconds: float = 0.0


def train(
    state: State, corpus: data.Corpus, config: cfg.Config, clock: Clock = time.perf_counter
) -> Iterator[Record]:
    """A record at every `eval.every_tokens` and at the end; the state moves with them.

    The state may be saved between two records. Raises `Diverged`.
    """
    torch.set_num_threads(config.run.threads)
    loss_of = loss_function(state.model, config)
    while not is_over(state, config):
        step_before, seconds_before, started = state.step, state.seconds, clock()
        losses: list[float] = []
        pending: list[Tensor] = []  # losses that are still on the device
        record_is_due = False
        while not record_is_due:
            rate = optim.learning_rate(_after_next_update(state, config), config.optim)
            loss, norm = update(state, loss_of, corpus, config, rate)
            pending.append(loss)
            state.seconds = seconds_before + (_now(clock, config) - started)
            tokens = state.step * config.tokens_per_step
            record_is_due = tokens % config.eval.every_tokens == 0 or is_over(state, config)
            if record_is_due or len(pending) == _FETCH_UPDATES:
                latest = torch.stack(pending).tolist()
                state.watch.observe(latest, state.step, state.seconds, config)
                losses += latest
                pending = []
        passed = _now(clock, config) - started
        state.seconds = seconds_before + passed
        val_loss, bits_per_byte = evaluate(state.model, corpus, config)
        if not math.isfinite(val_loss):
            reason = f"validation loss {val_loss} at step {state.step}"
            raise Diverged("non-finite", reason, state.step, config, state.watch)
        yield Record(
            step=state.step,
            tokens=tokens,
            seconds=state.seconds,
            train_loss=math.fsum(losses) / len(losses),
            val_loss=val_loss,
            bits_per_byte=bits_per_byte,
            lr=rate,
            grad_norm=norm.item(),
            peak_loss=state.watch.peak_loss,
            loss_init=state.watch.loss_init,
            spike=state.watch.spike,
            first_losses=() if step_before else tuple(losses[:FIRST_LOSSES]),
            tokens_per_s=(state.step - step_before) * config.tokens_per_step / passed,
            last=is_over(state, config),
            peak_memory=peak_memory(config.run.device),
        )


FIRST_LOSSES = 10  # updates at the start whose losses are kept, to distinguish two runs
# Losses are fetched from the device this often: each fetch waits for the device.
_FETCH_UPDATES = 10


def start(config: cfg.Config) -> State:
    """A run before its first update; `ConfigError` if its device is not available."""
    # What is compiled is kept for later runs; torch would set a folder that a reboot empties.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(data.cache_folder() / "compiled"))
    # So is the traced loss. torch leaves out functions with gradients of their own by default.
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")
    assert cfg.FASTEST not in {config.run.precision, config.run.compile}  # see machine.choose
    require(config.run.device)
    if config.run.device == "cpu":
        _keep_freed_memory()
    if config.run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # of an earlier run in the same process
    model = build(config.model, config.run.seed).to(config.run.device)
    return State(model, optim.adamw(model, config), LossWatch())


# Of mallopt, as <malloc.h> of glibc numbers them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _keep_freed_memory() -> None:
    """Leave the memory of freed tensors with this process, where the C library is glibc: to give it back
    and get it again, page by page, takes a tenth of the time of an update."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**30)


def is_available(device: str) -> bool:
    """Whether a device can be used here."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return available[device]


def require(device: str) -> None:
    """Raise `ConfigError` if a device is not available."""
    if not is_available(device):
        raise cfg.ConfigError(
            [f"run.device: {device} is not available here; use --set run.device=cpu"]
        )


def update(
    state: State, loss_of: Loss, corpus: data.Corpus, config: cfg.Config, rate: float
) -> tuple[Tensor, Tensor]:
    """Make one update of the state; its loss and gradient norm, still on the device."""
    c = config.optim
    windows = data.batch(
        corpus.train, c.batch_size, config.model.context_length, config.run.seed, state.step
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=config.run.device)
    with _dropout(state, config):
        for micro in np.split(windows, config.run.accumulate):
            window_BT = torch.from_numpy(micro).to(config.run.device)
            loss = loss_of(window_BT) / config.run.accumulate
            loss.backward()
            total += loss.detach()
    limit = math.inf if c.clip_norm == "none" else c.clip_norm
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return total, norm


@contextlib.contextmanager
def _dropout(state: State, config: cfg.Config) -> Iterator[None]:
    """The model with dropout, whose masks are a function of the seed and the step (and of how an update
    is split into micro-batches)."""
    if not config.model.dropout:
        yield
        return
    devices = [torch.cuda.current_device()] if config.run.device == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(stream(config.run.seed, f"dropout:{state.step}"))
        state.model.train()
        try:
            yield
        finally:
            state.model.eval()


def _autocast(config: cfg.Config) -> AbstractContextManager[None]:
    return torch.autocast(config.run.device, torch.bfloat16, enabled=config.run.precision == "bf16")


def loss_function(model: Transformer, config: cfg.Config) -> Loss:
    """The mean loss of every token of windows except the first, given those before it; compiled as a
    whole if the config says so."""
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32

    def loss(window_BT: Tensor) -> Tensor:
        x_BTD = model.features(window_BT[:, :-1])
        target_N = window_BT[:, 1:].flatten()
        return cross_entropy(x_BTD.flatten(0, 1), model.head.weight, target_N, dtype)

    chosen = _compiled(loss) if config.run.compile else loss

    # Not a part of what is compiled: torch keeps no traced graph that enters autocast.
    def in_precision(window_BT: Tensor) -> Tensor:
        with _autocast(config):
            return chosen(window_BT)

    return in_precision


def _compiled(loss: Loss) -> Loss:
    """The loss, compiled for exactly the shapes that it is called with. So what earlier runs in this
    process had compiled changes no later one; a run of their shapes takes it over."""
    limits = torch.compiler.config
    limits.recompile_limit = limits.accumulated_recompile_limit = _COMPILED_SHAPES
    limits.fail_on_recompile_limit_hit = True  # else it goes on without, slowly
    return torch.compile(loss, dynamic=False)


def _losses(forward: Forward, window_BT: Tensor, config: cfg.Config) -> Tensor:
    """The loss of every token of windows except the first, (B, T)."""
    with _autocast(config):
        logit_BTV = forward(window_BT[:, :-1])
    # A window at a time: the logarithms of all probabilities would need as much memory as the logits.
    pairs = zip(logit_BTV, window_BT[:, 1:], strict=True)
    return torch.stack(
        [
            F.cross_entropy(logit_TV.float(), target_T, reduction="none")
            for logit_TV, target_T in pairs
        ]
    )


@torch.no_grad()
def evaluate(
    forward: Forward,
    corpus: data.Corpus,
    config: cfg.Config,
    split: Literal["validation", "test"] = "validation",
) -> tuple[float, float]:
    """The loss on a split in nats per token, and bits per byte, over the fixed windows.

    The loss is the mean over all positions of the windows: a token at the start of one is predicted
    from few tokens before it, one at the end from almost `model.context_length`.

    Bits per byte are those of the text alone: the bits of all target tokens except `<|endoftext|>`,
    divided by their UTF-8 bytes. The end of a document has no bytes; counting its bits would make a
    corpus of many short documents look harder than its text is. The loss in nats per token counts
    `<|endoftext|>` like any other token.
    """
    length = config.model.context_length
    block = config.eval_block
    tokens = corpus.validation if split == "validation" else corpus.test
    assert tokens is not None  # the corpus has the splits that its config asks for
    blocks = data.fixed_windows(tokens, config.eval.tokens // block, block)
    windows = data.cut(blocks, length)
    bytes_BT = corpus.bytes_of_token[windows[:, 1:]]
    nats = text_nats = 0.0
    for first in range(0, len(windows), config.eval.batch_size):
        part = slice(first, first + config.eval.batch_size)
        window_BT = torch.from_numpy(windows[part]).to(config.run.device)
        loss_N = _losses(forward, window_BT, config).flatten()
        if config.run.device != "mps":  # which has no fp64
            loss_N = loss_N.double()
        is_text_N = torch.from_numpy(bytes_BT[part] > 0).to(config.run.device).flatten()
        nats += loss_N.sum().item()
        text_nats += (loss_N * is_text_N).sum().item()
    return nats / bytes_BT.size, text_nats / math.log(2) / int(bytes_BT.sum())


def _after_next_update(state: State, config: cfg.Config) -> Progress:
    """The progress after one more update, if it takes as long as the mean of those before."""
    each = state.seconds / state.step if state.step else 0.0
    return Progress.after(state.step + 1, state.seconds + each, config)


def is_over(state: State, config: cfg.Config) -> bool:
    """Whether one more update would exceed the budget."""
    done, total = _after_next_update(state, config)
    return done > total


def _now(clock: Clock, config: cfg.Config) -> float:
    """The clock's seconds; with a budget in seconds, only after the device has caught up."""
    if config.run.device == "cuda" and config.budget.seconds is not None:
        torch.cuda.synchronize()
    return clock()


def peak_memory(device: str) -> int:
    """Peak memory so far in bytes: of tensors on a CUDA device, else of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


# A run has diverged when, after warm-up, its loss has been this many nats above the loss at init
# for this many updates in a row.
DIVERGED_NATS = 1.0
DIVERGED_UPDATES = 20
# Spikes are measured on a running mean in which the loss of each update has this weight.
SMOOTHING = 0.1


@dataclass
class LossWatch:
    """What the training losses of a run say about its stability so far."""

    loss_init: float = math.nan
    peak_loss: float = -math.inf
    updates_above: int = 0  # updates in a row with a loss far above the loss at init
    smooth_loss: float = math.nan  # running mean of the training loss
    lowest_loss: float = math.inf  # minimum of the running mean
    spike: float = 0.0  # largest rise of the running mean above its minimum, after warm-up

    def observe(
        self, losses: Sequence[float], step: int, seconds: float, config: cfg.Config
    ) -> None:
        """Take in the losses of the latest updates, the last of which completed `step`.

        Raises `Diverged` at a loss that is not finite, or after too many far above the loss at
        init. `seconds` of training determine whether a run with a budget in seconds is still in
        warm-up.
        """
        first = step - len(losses)
        if first == 0:
            self.loss_init = self.smooth_loss = losses[0]
        for number, loss in enumerate(losses, start=first + 1):
            if not math.isfinite(loss):
                reason = f"training loss {loss} at step {number}"
                raise Diverged("non-finite", reason, number, config, self)
            self.peak_loss = max(self.peak_loss, loss)
            self.smooth_loss += SMOOTHING * (loss - self.smooth_loss)
            self.lowest_loss = min(self.lowest_loss, self.smooth_loss)
            progress = Progress.after(number, seconds, config)
            after_warmup = progress.share > config.optim.warmup_fraction
            if after_warmup:
                self.spike = max(self.spike, self.smooth_loss - self.lowest_loss)
            above = after_warmup and loss > self.loss_init + DIVERGED_NATS
            self.updates_above = self.updates_above + 1 if above else 0
            if self.updates_above >= DIVERGED_UPDATES:
                reason = (
                    f"training loss more than {DIVERGED_NATS:g} nat above its value at init "
                    f"({self.loss_init:.3f}) for {DIVERGED_UPDATES} updates up to step {number}"
                )
                raise Diverged("blown up", reason, number, config, self)


class Diverged(Exception):  # noqa: N818 a result, not an error
    """A run whose loss is not finite (`non-finite`) or stays far above the loss at init
    (`blown up`)."""

    def __init__(
        self,
        how: Literal["non-finite", "blown up"],
        reason: str,
        step: int,
        config: cfg.Config,
        watch: LossWatch,
    ) -> None:
        super().__init__(reason)
        self.how = how
        self.reason = reason
        self.step = step
        self.tokens = step * config.tokens_per_step
        self.peak_loss = watch.peak_loss
        self.loss_init = watch.loss_init


def decay_branch(
    state: State, corpus: data.Corpus, config: cfg.Config, updates: int
) -> Record | None:
    """The record after this many more updates, in which the learning rate falls linearly from its
    current value to `optim.lr_final_fraction` of it; None if they diverge.

    The state stays as it is.
    """
    whole = (state.step + updates) * config.tokens_per_step
    now = Progress.after(state.step, state.seconds, config)
    branch = cfg.overlay(
        config,
        {
            "optim.schedule": "wsd",
            "optim.lr": optim.learning_rate(now, config.optim),
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
