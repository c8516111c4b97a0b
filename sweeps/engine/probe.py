"""What is measured of this machine before a sweep, and kept: speed and memory of trainings."""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from sweeps import ledger as led
from sweeps.engine import provenance
from tinylm import config as cfg
from tinylm.data import cache_folder

MEMORY_SHARE = 0.8  # of a slot's memory that a training may fill
_NO_END = 1e18  # bytes: more than any machine has, and a number that JSON knows
_WINDOWS = (1, 9)  # batch sizes at which the memory of an update is measured on a CPU


def _kept(what: str) -> Path:
    """A file of what has been measured on this machine: shape -> number."""
    return cache_folder() / f"{what}.json"


def _read(what: str) -> dict[str, float]:
    try:
        numbers: dict[str, float] = json.loads(_kept(what).read_text())
    except (OSError, ValueError):
        return {}
    return numbers


def _keep(what: str, found: dict[str, float]) -> None:
    led.write_whole(_kept(what), json.dumps(_read(what) | found, indent=1).encode())


def _shape(config: cfg.Config) -> str:
    """The name of all that speed and memory depend on in a config, and of the processor."""
    run = config.run.model_dump(exclude={"seed", "repeat", "checkpoint_every_tokens"})
    return cfg.digest(
        [config.model.model_dump(), config.optim.batch_size, run, provenance.processor()]
    )


# Speed -------------------------------------------------------------------------------------------


def known_speeds(configs: Sequence[cfg.Config]) -> list[float] | None:
    """Tokens per second of every config, as `measured_speeds` found them here once; None where one
    is not known."""
    kept = _read("speeds")
    known = [kept.get(_shape(config)) for config in configs]
    found = [speed for speed in known if speed is not None]
    return found if len(found) == len(known) else None


def measured_speeds(configs: Sequence[cfg.Config], tell: Callable[[str], None]) -> list[float]:
    """Tokens per second of every config, each distinct shape measured anew, and kept."""
    from tinylm import measure

    shapes = {_shape(config): config for config in configs}
    found = {}
    for number, (shape, config) in enumerate(shapes.items(), start=1):
        if len(shapes) > 1:
            tell(f"measuring the speed of shape {number} of {len(shapes)}")
        found[shape] = measure.probe(config)
    _keep("speeds", found)
    return [found[_shape(config)] for config in configs]


# Memory ------------------------------------------------------------------------------------------


def _peak(config: cfg.Config) -> int:
    from tinylm import measure

    return measure.memory(config)


def _peaks(configs: Sequence[cfg.Config]) -> list[float]:
    """Bytes that a training of each config holds, each measured in a process of its own, which leaves
    nothing behind; infinite where it ran out of them."""
    found: list[float] = []
    for config in configs:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                found.append(pool.submit(_peak, config).result())
            except (BrokenProcessPool, MemoryError, RuntimeError):
                # Killed, or torch's out-of-memory error, which is a RuntimeError.
                found.append(math.inf)
    return found


def _needed(config: cfg.Config) -> float:
    """Bytes of a training: on a GPU as it is; on the CPU, where what does not fit would be killed,
    measured at two small batch sizes and extended in a straight line."""
    if config.run.device == "cuda":
        return _peaks([config])[0]
    micro = config.optim.batch_size // config.run.accumulate
    tokens = config.model.context_length
    at_few, at_more = _peaks(
        [
            cfg.overlay(
                config,
                {"optim.batch_size": size, "run.accumulate": 1}
                | dict.fromkeys(
                    ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens"),
                    size * tokens,
                ),
            )
            for size in _WINDOWS
        ]
    )
    slope = (at_more - at_few) / (_WINDOWS[1] - _WINDOWS[0])
    return at_few + (micro - _WINDOWS[0]) * slope


def fits(config: cfg.Config, slots: int, share: float) -> bool:
    """Whether a training fits beside those of the other slots; `share` is its share of a GPU.

    What was measured once is kept, so that a sweep which goes on plans what it planned.
    """
    shape = _shape(config)
    kept = _read("memory")
    if shape not in kept:
        kept[shape] = min(_needed(config), _NO_END)
        _keep("memory", {shape: kept[shape]})
    if config.run.device == "cuda":
        import torch

        total = torch.cuda.get_device_properties(0).total_memory * min(1.0, share)
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / slots
    return kept[shape] <= MEMORY_SHARE * total
