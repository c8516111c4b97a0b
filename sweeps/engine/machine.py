"""What this machine can run: slots, and the size, speed and memory of a config's run.

Speed and memory are measured once and kept in the cache folder, so that a command that is run again
plans the same trials. (Where and with what a session runs is in provenance.py, which measures
nothing.)
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sweeps import ledger as led
from sweeps.engine.provenance import memory, processor
from sweeps.plan.request import Machine, Request
from tinylm import config as cfg
from tinylm import data

MEMORY_SHARE = 0.8  # of a slot's memory that a run may fill
_NO_END = 1e18  # bytes: more than any machine has, and a number that JSON can hold
_WINDOWS = (1, 9)  # batch sizes at which the memory of an update is measured on a CPU

Peaks = Callable[[Sequence[cfg.Config]], list[float]]  # peak bytes of a run of each config


def default_scale() -> str:
    """The config of a sweep that names none: `tinystories_17m` with a CUDA device, else `cpu`."""
    import torch

    return "tinystories_17m" if torch.cuda.is_available() else "cpu"


def this_machine(request: Request) -> Machine:
    """What planning a request needs to know of this machine."""
    device = request.base.run.device
    slots, share = local_slots(request), request.space.resources.gpus
    return Machine(size, lambda config: fits(config, slot_memory(device, slots, share)))


def local_slots(request: Request) -> int:
    """How many trials this machine runs at once."""
    resources = request.space.resources
    slots = int((os.cpu_count() or 1) / resources.cpus)
    if request.base.run.device == "cuda":
        import torch

        slots = min(slots, int(torch.cuda.device_count() / resources.gpus))
    return max(1, slots)


@cache
def size(model: cfg.Model) -> tuple[int, int]:
    """Parameters and FLOPs per training token of a model."""
    from tinylm.model import size as counted

    sizes = counted(model)
    return sizes.params, sizes.flops_per_token


class CorpusFacts:
    """What a trial's `planned` row holds besides its config: its model's size, and facts about its
    corpus.

    The first call with a corpus tokenizes it: trials find it ready, and bad data ends the command
    before anything is trained.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._corpora: dict[str, data.Corpus] = {}
        self._entropies: dict[str, float] = {}

    def __call__(self, config: cfg.Config) -> dict[str, Any]:
        """`params`, `flops_per_token`, `corpus` and `unigram_entropy`; `ConfigError` if the corpus
        can't be used."""
        key = cfg.digest([config.data.model_dump(), config.model.vocab_size])
        if key not in self._corpora:
            self._corpora[key] = data.prepare(config, self._tell)
            self._entropies[key] = self._corpora[key].train.unigram_entropy()
        data.check_size(self._corpora[key], config)
        params, flops = size(config.model)
        return {
            "params": params,
            "flops_per_token": flops,
            "corpus": self._corpora[key].digest,
            "unigram_entropy": self._entropies[key],
        }


def _kept(what: str) -> Path:
    """The file of one kind of measurement: shape -> number."""
    return data.cache_folder() / f"{what}.json"


def _read(what: str) -> dict[str, float]:
    try:
        numbers: dict[str, float] = json.loads(_kept(what).read_text())
    except (OSError, ValueError):
        return {}
    return numbers


def _keep(what: str, numbers: dict[str, float]) -> None:
    led.write_whole(_kept(what), json.dumps(_read(what) | numbers, indent=1).encode())


def _shape(config: cfg.Config) -> str:
    """A digest of everything in a config that speed and memory depend on, and of the processor."""
    run = config.run.model_dump(exclude={"seed", "repeat", "checkpoint_every_tokens"})
    return cfg.digest([config.model.model_dump(), config.optim.batch_size, run, processor()])


def known_speeds(configs: Sequence[cfg.Config]) -> list[float] | None:
    """Tokens per second of every config, as measured here before; None if one is not known."""
    kept = _read("speeds")
    speeds = [kept[shape] for config in configs if (shape := _shape(config)) in kept]
    return speeds if len(speeds) == len(configs) else None


def measured_speeds(configs: Sequence[cfg.Config], tell: Callable[[str], None]) -> list[float]:
    """Tokens per second of every config; each distinct shape is measured now, and kept."""
    from tinylm import measure

    shapes = {_shape(config): config for config in configs}
    speeds = {}
    for number, (shape, config) in enumerate(shapes.items(), start=1):
        if len(shapes) > 1:
            tell(f"measuring speed: model shape {number} of {len(shapes)}")
        speeds[shape] = measure.probe(config)
    _keep("speeds", speeds)
    return [speeds[_shape(config)] for config in configs]


def product_flops(config: cfg.Config) -> float:
    """FLOPs per second of a large matrix product here."""
    from tinylm import measure

    return measure.product_flops(config)


def slot_memory(device: str, slots: int, share: float) -> float:
    """Bytes of memory of a slot: a share of a GPU's, or one of `slots` equal parts of this
    machine's."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory * min(1.0, share)
    return memory() / slots


def _peak(config: cfg.Config) -> int:
    from tinylm import measure

    return measure.memory(config)


def measured_peaks(configs: Sequence[cfg.Config]) -> list[float]:
    """Peak bytes of a run of each config, measured in its own process; infinite if it ran out of
    memory."""
    peaks: list[float] = []
    for config in configs:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                peaks.append(pool.submit(_peak, config).result())
            except (BrokenProcessPool, MemoryError, RuntimeError):
                # Killed, or torch's out-of-memory error, which is a RuntimeError.
                peaks.append(math.inf)
    return peaks


def _needed(config: cfg.Config, peaks: Peaks) -> float:
    """Peak bytes of a run: measured as it is on a GPU; on a CPU, where a run that does not fit would
    be killed, measured at two small batch sizes and extrapolated along a straight line."""
    if config.run.device == "cuda":
        return peaks([config])[0]
    micro = config.optim.batch_size // config.run.accumulate
    tokens = config.model.context_length
    at_few, at_more = peaks(
        [
            cfg.overlay(
                config,
                {"optim.batch_size": windows, "run.accumulate": 1}
                | dict.fromkeys(
                    ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens"),
                    windows * tokens,
                ),
            )
            for windows in _WINDOWS
        ]
    )
    slope = (at_more - at_few) / (_WINDOWS[1] - _WINDOWS[0])
    return at_few + (micro - _WINDOWS[0]) * slope


def fits(config: cfg.Config, room: float, peaks: Peaks = measured_peaks) -> bool:
    """Whether a run of a config fits in a slot with this much memory, in bytes.

    A measured peak is kept, so that a sweep that is resumed plans the same trials.
    """
    shape = _shape(config)
    kept = _read("memory")
    if shape not in kept:
        kept[shape] = min(_needed(config, peaks), _NO_END)
        _keep("memory", {shape: kept[shape]})
    return kept[shape] <= MEMORY_SHARE * room
