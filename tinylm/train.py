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
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm import data, machine, optim
from tinylm.model import Transformer, build, cross_entropy, stream
from tinylm.optim import Progress
from tinylm.size import size

Forward = Callable[[Tensor], Tensor]  # token ids (B, T) -> logits (B, T, V)
Loss = Callable[[Tensor], Tensor]  # token ids (B, T + 1) -> mean cross-entropy in nats
Losses = Callable[[Tensor], Tensor]  # the same -> cross-entropy of each but the first, (B * T)
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
    mfu: float | None  # the share of the device's peak rate; None where that is not known
    # Until the first update of this process could begin: of compiling it, and on CUDA of loading kernels.
    # No part of `seconds`; 0 in later records.
    compile_seconds: float
    last: bool  # whether the run is finished
    peak_memory: int  # bytes: taken from the CUDA device in this run, else of the process so far


@dataclass
class State:
    """Everything that changes during a run."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    watch: "LossWatch"
    step: int = 0
    seconds: float = 0.0


def train(
    state: State,
    corpus: data.Corpus,
    config: cfg.Config,
    clock: Clock = time.perf_counter,
    *,
    recorded: bool = True,
) -> Iterator[Record]:
    """A record at every `eval.every_tokens` and at the end; the state moves with them.

    The state may be saved between two records. Raises `Diverged`. `recorded` is that of `Updater`.
    """
    if is_over(state, config):
        return
    torch.set_num_threads(config.run.threads)
    updater = Updater(state, corpus, config, recorded=recorded)
    evaluation = Evaluation(state.model, corpus, config)
    compile_seconds = _timed(updater.prepare, config, clock) if updater.must_prepare else 0.0
    peak = _peak_rate(config)
    # A device that computes by itself is waited for at records only.
    waits = config.run.device != "cuda" or config.budget.seconds is not None
    while not is_over(state, config):
        step_before, seconds_before, started = state.step, state.seconds, clock()
        losses: list[float] = []
        pending: list[Tensor] = []  # losses that are still on the device
        record_is_due = False
        while not record_is_due:
            rate = optim.learning_rate(_after_next_update(state, config), config.optim)
            loss, norm = updater.update(rate)
            pending.append(loss)
            state.seconds = seconds_before + (_now(clock, config) - started)
            tokens = state.step * config.tokens_per_step
            record_is_due = tokens % config.eval.every_tokens == 0 or is_over(state, config)
            if record_is_due or (waits and len(pending) == _FETCH_UPDATES):
                latest = torch.stack(pending).tolist()
                state.watch.observe(latest, state.step, state.seconds, config)
                losses += latest
                pending = []
        passed = _now(clock, config) - started
        state.seconds = seconds_before + passed
        val_loss, bits_per_byte = evaluation.measure()
        if not math.isfinite(val_loss):
            reason = f"validation loss {val_loss} at step {state.step}"
            raise Diverged("non-finite", reason, state.step, config, state.watch)
        speed = (state.step - step_before) * config.tokens_per_step / passed
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
            tokens_per_s=speed,
            mfu=None if peak is None else speed * size(config.model).flops_per_token / peak,
            compile_seconds=compile_seconds,
            last=is_over(state, config),
            peak_memory=peak_memory(config.run.device),
        )
        compile_seconds = 0.0


FIRST_LOSSES = 10  # updates at the start whose losses are kept, to distinguish two runs
_FETCH_UPDATES = 10  # after which losses are looked at, at the latest, where they are at hand


def _timed(action: Callable[[], None], config: cfg.Config, clock: Clock) -> float:
    """The seconds that something takes, until the device is done with it."""
    started = clock()
    action()
    if config.run.device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def _peak_rate(config: cfg.Config) -> float | None:
    """FLOPs per second of the run's device at best, if that is known."""
    if config.run.device != "cuda":
        return None
    return machine.peak_rate(torch.cuda.get_device_name(), config.run.precision)


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
    set_arithmetic(config)
    if config.run.device == "cuda":
        torch.cuda.empty_cache()  # what an earlier run in the same process has left
        torch.cuda.reset_peak_memory_stats()
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


def set_arithmetic(config: cfg.Config) -> None:
    """Compute as a config says, whatever an earlier run in this process did."""
    tf32 = config.run.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    deterministic = config.run.deterministic and config.run.device == "cuda"
    if deterministic:
        # Without it, torch refuses to multiply matrices.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


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


# Of the arrays of training tokens of the feeds that are in use, which a decay branch shares with its run.
_ids_on_device: WeakValueDictionary[int, Tensor] = WeakValueDictionary()


class Feed:
    """The training windows of a run on its device: the same as those of `data.batch`."""

    def __init__(self, tokens: data.Tokens, config: cfg.Config) -> None:
        self._tokens, self._config = tokens, config
        self._on_device = None  # the token ids, where they fit
        if config.run.device == "cuda":
            self._on_device = _ids_on_device.get(id(tokens.ids))
            if self._on_device is None and tokens.ids.nbytes <= available_memory() // 8:
                self._on_device = on_device(tokens, config.run.device)
                _ids_on_device[id(tokens.ids)] = self._on_device
            self._offset_T = torch.arange(config.model.context_length + 1, device="cuda")

    def windows(self, step: int) -> Tensor:
        """The windows of the update after `step`, (B, T + 1)."""
        c, seed = self._config, self._config.run.seed
        count, length = c.optim.batch_size, c.model.context_length
        if self._on_device is None:
            window_BT = torch.from_numpy(data.batch(self._tokens, count, length, seed, step))
            return _moved(window_BT, c.run.device)
        start_B = torch.from_numpy(data.starts(self._tokens, count, length, seed, step))
        return windows_of(self._on_device, _moved(start_B, c.run.device), self._offset_T)


def _moved(values: Tensor, device: str) -> Tensor:
    """Values on a device; a CUDA device copies them while the program goes on."""
    if device != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def available_memory() -> int:
    """Bytes of the CUDA device that this process may still take."""
    free, total = torch.cuda.mem_get_info()
    share = torch.cuda.get_per_process_memory_fraction()
    return min(free, int(share * total) - torch.cuda.memory_reserved())


def on_device(tokens: data.Tokens, device: str) -> Tensor:
    """The ids of tokens on a device, as signed numbers of 16 bits: torch has hardly any operations on
    unsigned ones."""
    ids = torch.empty(len(tokens.ids), dtype=torch.int16, device=device)
    for first in range(0, len(ids), data.CHUNK):
        part = tokens.ids[first : first + data.CHUNK].astype(np.int16)
        ids[first : first + len(part)] = torch.from_numpy(part)
    return ids


def windows_of(ids: Tensor, start_B: Tensor, offset_T: Tensor) -> Tensor:
    """The ids at each offset from each start, of what `on_device` returns; (B, T), unsigned."""
    return ids[start_B[:, None] + offset_T].long() & 0xFFFF


class _Replayed:
    """Calls a function of no arguments, always the same one. If `on`, its second call is recorded as a CUDA
    graph, and that and all later calls replay it: the host would take longer to launch the kernels of a small
    model than they run. What a call returns is new."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._calls = 0  # the first one allocates what stays, and compiles
        self._graph: torch.cuda.CUDAGraph | None = None

    # The function is passed to each call: a method that is kept here would keep its object, and a run alive.
    def __call__(self, function: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        self._calls += 1
        if not self._on or self._calls == 1:
            return function()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # which runs nothing
                self._results = function()
        self._graph.replay()
        return tuple(result.clone() for result in self._results)


class Updater:
    """Makes the updates of a run; on a CUDA device as a graph unless told not to record one, which takes
    memory of its own."""

    def __init__(
        self, state: State, corpus: data.Corpus, config: cfg.Config, *, recorded: bool = True
    ) -> None:
        self._state, self._config = state, config
        self._feed = Feed(corpus.train, config)
        self._loss_of = loss_function(state.model, config)
        self._on_cuda = config.run.device == "cuda"
        # Dropout draws its masks from a seed that the host sets for each update.
        self._make = _Replayed(on=self._on_cuda and recorded and not config.model.dropout)
        if self._on_cuda:  # where a graph looks for them
            shape = (config.optim.batch_size, config.model.context_length + 1)
            self._window_BT = torch.empty(shape, dtype=torch.int64, device="cuda")
            self._rate = torch.empty((), device="cuda")

    @property
    def must_prepare(self) -> bool:
        """Whether there is something to prepare."""
        return self._on_cuda or bool(self._config.run.compile)

    def prepare(self) -> None:
        """Compile what is to be compiled, and load kernels; the state stays as it is."""
        self._losses(self._feed.windows(self._state.step))
        self._state.optimizer.zero_grad(set_to_none=True)

    def update(self, rate: float) -> tuple[Tensor, Tensor]:
        """Make one update of the state; its loss and gradient norm, still on the device."""
        window_BT = self._feed.windows(self._state.step)
        if self._on_cuda:
            self._window_BT.copy_(window_BT)
            self._rate.fill_(rate)
        else:
            self._window_BT = window_BT
        for group in self._state.optimizer.param_groups:
            group["lr"] = self._rate if self._on_cuda else rate
        loss, norm = self._make(self._update)
        self._state.step += 1
        return loss, norm

    def _update(self) -> tuple[Tensor, Tensor]:
        """Change the weights."""
        loss = self._losses(self._window_BT)
        clip_norm = self._config.optim.clip_norm
        limit = math.inf if clip_norm == "none" else clip_norm
        norm = nn.utils.clip_grad_norm_(self._state.model.parameters(), limit)
        self._state.optimizer.step()
        self._state.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _losses(self, window_BT: Tensor) -> Tensor:
        """Add the gradients of windows; their mean loss."""
        parts = self._config.run.accumulate
        total = torch.zeros((), device=self._config.run.device)
        with _dropout(self._state, self._config):
            for micro_BT in window_BT.split(len(window_BT) // parts):
                loss = self._loss_of(micro_BT) / parts
                loss.backward()
                total += loss.detach()
        return total


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

    chosen = _compiled(loss, config.run.device) if config.run.compile else loss

    return _in_precision(chosen, config)


def _in_precision(
    loss: Callable[[Tensor], Tensor], config: cfg.Config
) -> Callable[[Tensor], Tensor]:
    """A loss or losses in the precision of a config. No part of what is compiled: torch keeps no traced
    graph that enters autocast."""

    def in_precision(window_BT: Tensor) -> Tensor:
        with _autocast(config):
            return loss(window_BT)

    return in_precision


def _compiled(loss: Callable[[Tensor], Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """A loss or losses, compiled for exactly the shapes that it is called with. So what earlier runs in this
    process had compiled changes no later one; a run of their shapes takes it over."""
    limits = torch.compiler.config
    limits.recompile_limit = limits.accumulated_recompile_limit = _COMPILED_SHAPES
    limits.fail_on_recompile_limit_hit = True  # else it goes on without, slowly
    return torch.compile(loss, dynamic=False, options=_options() if device == "cuda" else None)


def _options() -> dict[str, str | int | bool | Callable[..., Any]]:
    """What the compiler is told for GPUs: to write a concatenation part by part. As one kernel, which
    selects among its inputs, that of the gradients of queries, keys and values takes a twelfth of an
    update."""
    from torch import _inductor

    names = ("max_pointwise_cat_inputs", "max_complex_pointwise_cat_inputs")
    known = _inductor.list_options()  # they differ by version
    return {name: 0 for name in names if name in known}


# Logits that an evaluation has in fp32 at once, at most.
_LOGITS = {"cpu": 0, "mps": 0, "cuda": 2**26}


def _losses_function(forward: Forward, config: cfg.Config, *, compiled: bool) -> Losses:
    """The losses of a model, for an evaluation."""

    def losses(window_BT: Tensor) -> Tensor:
        logit_BTV = forward(window_BT[:, :-1])
        # Few windows at a time: the logarithms of all probabilities would need as much memory as the
        # logits.
        windows = max(1, _LOGITS[config.run.device] // logit_BTV[0].numel())
        pairs = zip(logit_BTV.split(windows), window_BT[:, 1:].split(windows), strict=True)
        return torch.cat(
            [
                F.cross_entropy(
                    logit_bTV.flatten(0, 1).float(), target_bT.flatten(), reduction="none"
                )
                for logit_bTV, target_bT in pairs
            ]
        )

    chosen = _compiled(losses, config.run.device) if compiled else losses
    return _in_precision(chosen, config)


Split = Literal["validation", "test"]


class Evaluation:
    """Measures the loss of a model on a split, over the fixed windows. On a CUDA device it is compiled, if
    the config says so, and recorded; not if it is made `once`.

    The loss is the mean over all positions of the windows: a token at the start of one is predicted
    from few tokens before it, one at the end from almost `model.context_length`.

    Bits per byte are those of the text alone: the bits of all target tokens except `<|endoftext|>`,
    divided by their UTF-8 bytes. The end of a document has no bytes; counting its bits would make a
    corpus of many short documents look harder than its text is. The loss in nats per token counts
    `<|endoftext|>` like any other token.
    """

    def __init__(
        self,
        forward: Forward,
        corpus: data.Corpus,
        config: cfg.Config,
        split: Split = "validation",
        *,
        once: bool = False,
    ) -> None:
        block, self._config = config.eval_block, config
        tokens = corpus.validation if split == "validation" else corpus.test
        assert tokens is not None  # the corpus has the splits that its config asks for
        blocks = data.fixed_windows(tokens, config.eval.tokens // block, block)
        windows = data.cut(blocks, config.model.context_length)
        bytes_BT = corpus.bytes_of_token[windows[:, 1:]]
        self._tokens, self._bytes = bytes_BT.size, int(bytes_BT.sum())
        self._window_BT = _moved(torch.from_numpy(windows), config.run.device)
        self._is_text_BT = _moved(torch.from_numpy(bytes_BT > 0), config.run.device)
        often = config.run.device == "cuda" and not once
        compiled = often and bool(config.run.compile)
        self._losses_of = _losses_function(forward, config, compiled=compiled)
        self._add = _Replayed(on=often)

    @torch.no_grad()
    def measure(self) -> tuple[float, float]:
        """The loss in nats per token, and bits per byte."""
        nats = text_nats = 0.0
        for of_all, of_text in self._add(self._sums)[0].tolist():
            nats += of_all
            text_nats += of_text
        return nats / self._tokens, text_nats / math.log(2) / self._bytes

    def _sums(self) -> tuple[Tensor]:
        """The nats of all tokens and of text, of each batch; still on the device."""
        at_once, sums = self._config.eval.batch_size, []
        for window_bT, is_text_bT in zip(
            self._window_BT.split(at_once), self._is_text_BT.split(at_once), strict=True
        ):
            loss_n = self._losses_of(window_bT)
            if self._config.run.device != "mps":  # which has no fp64
                loss_n = loss_n.double()
            sums.append(torch.stack((loss_n.sum(), (loss_n * is_text_bT.flatten()).sum())))
        return (torch.stack(sums),)


def evaluate(
    forward: Forward, corpus: data.Corpus, config: cfg.Config, split: Split = "validation"
) -> tuple[float, float]:
    """The loss on a split in nats per token, and bits per byte, as `Evaluation` measures them."""
    return Evaluation(forward, corpus, config, split, once=True).measure()


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
    """Peak memory so far in bytes: taken from a CUDA device for tensors, else of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
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
    model = copy.deepcopy(state.model)
    optimizer = optim.adamw(model, config)
    optimizer.load_state_dict(copy.deepcopy(state.optimizer.state_dict()))
    copied = State(model, optimizer, copy.copy(state.watch), state.step, state.seconds)
    # A second graph would need as much memory as that of the run.
    on_cuda = config.run.device == "cuda"
    recorded = on_cuda and torch.cuda.memory_reserved() < available_memory() // 2
    try:
        (last,) = train(copied, corpus, branch, recorded=recorded)
    except Diverged:
        return None
    return last
