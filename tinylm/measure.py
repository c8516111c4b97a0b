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


def updates(config: cfg.Config) -> Callable[[], float]:
    """A function that makes one more update of a new run, which needs no corpus, and returns the loss
    before it."""
    torch.set_num_threads(config.run.threads)
    state = train.start(config)
    loss_of = train.loss_function(state.model, config)
    ids = np.random.default_rng(0).integers(
        0, config.model.vocab_size, config.tokens_per_step + config.model.context_length, np.uint16
    )
    tokens = data.Tokens(ids, documents=1)
    corpus = data.Corpus(Path(), tokens, tokens, np.ones(config.model.vocab_size, np.int64))

    def update() -> float:
        loss, _ = train.update(state, loss_of, corpus, config, config.optim.lr)
        return loss.item()  # waits for the device

    return update


def memory(config: cfg.Config) -> int:
    """Peak memory of the first two updates of a run in bytes, as `train.peak_memory` counts it."""
    update = updates(config)
    update()
    update()
    return train.peak_memory(config.run.device)


def probe(config: cfg.Config, clock: train.Clock = time.perf_counter) -> Probe:
    """The loss at init, and the speed, measured on `PROBE_UPDATES` updates after a first one.

    It is measured on fewer updates if they take longer than `PROBE_SECONDS`.
    """
    update, losses = updates(config), []

    def timed() -> float:
        start = clock()
        losses.append(update())
        return clock() - start

    times = [timed()]  # compiles, allocates
    if times[0] < PROBE_SECONDS:
        times = [timed()]
    while len(times) < PROBE_UPDATES and math.fsum(times) < PROBE_SECONDS:
        times.append(timed())
    return Probe(len(times) * config.tokens_per_step / math.fsum(times), losses[0])


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
        update()  # compiles, allocates
        start, tokens, passed = clock(), 0, 0.0
        while passed < ROUND_SECONDS:
            update()
            tokens += configs[number].tokens_per_step
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
    on_gpu = config.run.device == "cuda"
    size = 8192 if on_gpu else 1024
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    factor = torch.ones(size, size, device=config.run.device, dtype=dtype)
    best = math.inf
    for _ in range(PRODUCTS):
        start = clock()
        (factor @ factor)[0, 0].item()  # waits for the device
        best = min(best, clock() - start)
    return 2 * size**3 / best
