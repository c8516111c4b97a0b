"""What a run would need on this machine, and where its loss starts, measured on updates with random
tokens."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tinylm import config as cfg
from tinylm import data, train

PROBE_UPDATES = 20
PROBE_SECONDS = 20.0
ROUNDS = 5  # of measurements in which settings take turns
ROUND_SECONDS = 0.5  # that each measurement takes at least
PRODUCTS = 10  # matrix products that are timed to find the peak


class Probe(NamedTuple):
    """What the first updates of a run show."""

    tokens_per_s: float  # training tokens per second
    loss_init: float  # of random tokens, before any update; nats per token


def _corpus(config: cfg.Config) -> data.Corpus:
    """Random tokens, enough for an update."""
    ids = np.random.default_rng(0).integers(
        0, config.model.vocab_size, config.tokens_per_step + config.model.context_length, np.uint16
    )
    tokens = data.Tokens(ids, documents=1)
    return data.Corpus(Path(), tokens, tokens, np.ones(config.model.vocab_size, np.int64))


def updates(config: cfg.Config) -> Callable[[], Tensor]:
    """A function that makes one more update of a new run, which needs no corpus, and returns the loss
    before it, still on the device."""
    torch.set_num_threads(config.run.threads)
    updater = train.Updater(train.start(config), _corpus(config), config)

    def update() -> Tensor:
        loss, _ = updater.update(config.optim.lr)
        return loss

    return update


def memory(config: cfg.Config) -> int:
    """Peak memory of the first two updates of a run in bytes, as `train.peak_memory` counts it; on CUDA also
    of a batch of an evaluation, whose memory the device keeps for it."""
    torch.set_num_threads(config.run.threads)
    state, corpus = train.start(config), _corpus(config)
    updater = train.Updater(state, corpus, config)
    for _ in range(2):
        updater.update(config.optim.lr)
    if config.run.device == "cuda":
        batch = config.eval.batch_size * config.model.context_length
        one = cfg.overlay(config, {"eval.tokens": batch, "eval.block": "window"})
        evaluation = train.Evaluation(state.model, corpus, one)
        for _ in range(2):
            evaluation.measure()
    return train.peak_memory(config.run.device)


def probe(config: cfg.Config, clock: train.Clock = time.perf_counter) -> Probe:
    """The loss at init, and the speed, measured on `PROBE_UPDATES` updates after a first one.

    It is measured on fewer updates if they take longer than `PROBE_SECONDS`, and on the first alone if
    that one takes as long, unless it was compiled meanwhile.
    """
    update = updates(config)

    def timed(number: int) -> tuple[float, float]:
        """Seconds of some updates, and the loss before the last of them."""
        start = clock()
        losses = [update() for _ in range(number)]
        loss = losses[-1].item()  # waits for the device
        return clock() - start, loss

    seconds, loss_init = timed(1)  # compiles, allocates
    if seconds >= PROBE_SECONDS and not config.run.compile:
        return Probe(config.tokens_per_step / seconds, loss_init)
    together = 1
    if config.run.device == "cuda":
        timed(1)  # records the graph of an update
        together = PROBE_UPDATES
    times = [timed(together)[0]]
    while together * len(times) < PROBE_UPDATES and math.fsum(times) < PROBE_SECONDS:
        times.append(timed(together)[0])
    tokens = together * len(times) * config.tokens_per_step
    return Probe(tokens / math.fsum(times), loss_init)


def speeds(
    configs: Sequence[cfg.Config], clock: train.Clock = time.perf_counter
) -> list[tuple[float | None, str]]:
    """The speed of each config in training tokens per second, or None and why it has none.

    They take turns, so that what else the machine does slows all of them: `ROUNDS` times each, of which
    the median counts. One that is less than half as fast as another is measured no further, and not
    compiled.
    """
    reasons = [""] * len(configs)
    measured: dict[int, list[float]] = {}

    def measure(number: int) -> None:
        update = updates(configs[number])  # anew: the memory of one setting is enough
        update().item()  # compiles, allocates
        together = 1
        if configs[number].run.device == "cuda":
            update().item()  # records the graph of an update
            together = 10
        start, tokens, passed = clock(), 0, 0.0
        while passed < ROUND_SECONDS:
            [update() for _ in range(together)][-1].item()  # waits for the device
            tokens += together * configs[number].tokens_per_step
            passed = clock() - start
        measured.setdefault(number, []).append(tokens / passed)

    def is_slow(number: int) -> bool:
        best = max(map(statistics.median, measured.values()), default=0.0)
        return number not in measured or 2 * statistics.median(measured[number]) < best

    for number, config in enumerate(configs):
        plain = cfg.overlay(config, {"run.compile": False})
        if config.run.compile and plain in configs and is_slow(configs.index(plain)):
            slow = "skipped: uncompiled, it runs at less than half the speed of another setting"
            reasons[number] = reasons[configs.index(plain)] or slow
            continue
        try:
            measure(number)
        except Exception as error:  # noqa: BLE001 whatever it is, this setting can't be used
            first = str(error).strip().partition("\n")[0]
            reasons[number] = f"{type(error).__name__}: {first}"
    for _ in range(ROUNDS - 1):
        for number in list(measured):
            if not is_slow(number):
                measure(number)
    return [
        (statistics.median(measured[number]) if number in measured else None, reason)
        for number, reason in enumerate(reasons)
    ]


def product_flops(config: cfg.Config, clock: train.Clock = time.perf_counter) -> float:
    """FLOPs per second of a large matrix product on the device, in the precision and with the
    threads of a run; the best of `PRODUCTS`."""
    torch.set_num_threads(config.run.threads)
    train.set_arithmetic(config)
    on_gpu = config.run.device == "cuda"
    size = 8192 if on_gpu else 1024
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    # Of random numbers: those of ones or zeros may be faster.
    factor = torch.randn(size, size, device=config.run.device, dtype=dtype)
    best = math.inf
    for _ in range(PRODUCTS):
        start = clock()
        (factor @ factor)[0, 0].item()  # waits for the device
        best = min(best, clock() - start)
    return 2 * size**3 / best
