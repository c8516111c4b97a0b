"""How this machine runs a config fastest: in which precision, compiled or not.

The config says `fastest` for what is to be chosen; the choice is measured on a few updates at the
config's shape and kept in the cache folder. This module imports no torch: what is measured runs in a
process of its own.
"""

import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tinylm import config as cfg
from tinylm.config import FASTEST
from tinylm.counts import count
from tinylm.data import cache_folder
from tinylm.files import replacing

# The values among which `fastest` chooses, the plainer first.
CHOICES: Mapping[str, Sequence[str | bool]] = {
    "run.precision": ("fp32", "bf16"),
    "run.compile": (False, True),
}
# By which a setting must be faster than a plainer one: compiling takes time, bf16 costs digits.
GAIN = 1.1


@dataclass(frozen=True)
class Tried:
    """A setting that was measured, and its speed or why it can't be used here."""

    values: dict[str, str | bool]
    tokens_per_s: float | None
    reason: str = ""

    @property
    def name(self) -> str:
        """The setting in words."""
        return ", ".join(
            value if isinstance(value, str) else "compiled" if value else "not compiled"
            for value in self.values.values()
        )

    @property
    def words(self) -> str:
        """The setting, and its speed or why it has none."""
        speed = self.reason if self.tokens_per_s is None else f"{count(self.tokens_per_s)} tokens/s"
        return f"{self.name}: {speed}"


@cache
def processor() -> str:
    """The processor's name if the system has one for it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# Peak rates of matrix products without sparsity in 1e12 FLOPs per second: bf16 (summed in fp32), tf32,
# fp32. From NVIDIA's datasheets of the H100, H200, B200, A100, L40S, L4 and A10, and the white papers of
# the architectures Ada and Ampere for RTX 4090 and 3090. By the whole name of a device, as a pattern.
_PEAKS: Mapping[str, tuple[float, float, float]] = {
    "B200": (2250, 1100, 75),
    "H200": (989, 495, 67),
    "H100 PCIe": (756, 378, 51),
    "H100( SXM.*| 80GB HBM3)?": (989, 495, 67),
    "A100[ -](SXM4|PCIE|PCIe|80GB)(-[48]0GB| PCIe)?": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "L4": (121, 60, 30.3),
    "A10": (125, 62.5, 31.2),
    "RTX 4090": (165, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
}


def peak_rate(device: str, precision: str) -> float | None:
    """FLOPs per second of matrix products at most, on the CUDA device with this name; None if unknown."""
    model = device.removeprefix("NVIDIA ").removeprefix("GeForce ")
    for name, rates in _PEAKS.items():
        if re.fullmatch(name, model):
            return rates[("bf16", "tf32", "fp32").index(precision)] * 1e12
    return None


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def to_choose(config: cfg.Config) -> list[str]:
    """The paths at which a config leaves the choice to what is fastest."""
    flat = cfg.flatten(config.model_dump())
    return [path for path in CHOICES if flat[path] == FASTEST]


def as_begun(config: cfg.Config, begun: Mapping[str, Any]) -> cfg.Config:
    """The config with the values of the tree that its run or sweep began with, where it leaves the choice."""
    values = cfg.flatten(begun)
    return cfg.overlay(config, {path: values[path] for path in to_choose(config)})


def choose(config: cfg.Config, tell: Callable[[str], None]) -> tuple[cfg.Config, list[Tried]]:
    """The config with the values that are fastest here, and what was measured; each shape is measured
    once on a machine and kept."""
    paths = to_choose(config)
    if not paths:
        return config, []
    key = measured_here(config)
    known = kept("fastest").get(key)
    if known is not None:
        tried = [Tried(**one) for one in known]
    else:
        tell("measuring the fastest setting for this model here (once; compiling takes a while)")
        tried = _measured(config, paths)
        if any(one.tokens_per_s for one in tried):
            keep("fastest", {key: [asdict(one) for one in tried]})
    return cfg.overlay(config, fastest(tried).values), tried


def _file(what: str) -> Path:
    """The file of one kind of measurement."""
    return cache_folder() / f"{what}.json"


def kept(what: str) -> dict[str, Any]:
    """The measurements of one kind that were made here before, by key."""
    try:
        found: dict[str, Any] = json.loads(_file(what).read_text())
    except (OSError, ValueError):
        return {}
    return found


def keep(what: str, found: Mapping[str, Any]) -> None:
    """Add measurements of one kind to those that are kept; where none can be, they are made again."""
    with contextlib.suppress(OSError):
        _file(what).parent.mkdir(parents=True, exist_ok=True)
        with replacing(_file(what)) as stream:
            stream.write(json.dumps({**kept(what), **found}, indent=1).encode())


def fastest(tried: Sequence[Tried]) -> Tried:
    """The fastest setting, unless a plainer one, which comes before it, is about as fast; the plainest if
    none can be used."""
    best = max((one.tokens_per_s or 0.0 for one in tried), default=0.0)
    return next(one for one in tried if GAIN * (one.tokens_per_s or 0.0) >= best)


def shape(config: cfg.Config) -> str:
    """A digest of everything in a config that speed and memory depend on, of the processor and the GPU."""
    # A GPU keeps memory for evaluations.
    batch = [config.eval.batch_size] if config.run.device == "cuda" else []
    return _shape(config.model, config.optim.batch_size, config.run, *batch)


@cache
def _shape(model: cfg.Model, windows: int, run: cfg.Run, *of_evaluations: int) -> str:
    where = [processor(), *_gpu(run.device), *of_evaluations]
    settings = run.model_dump(exclude={"seed", "repeat", "checkpoint_every_tokens"})
    return cfg.digest([model.model_dump(), windows, settings, *where])


def measured_here(config: cfg.Config) -> str:
    """A digest of everything that a speed depends on, if the machine is idle: the shape, torch, and the
    environment, in whose path the compiler may fail."""
    return _digest_here(shape(config))


@cache
def _digest_here(of_shape: str) -> str:
    return cfg.digest([of_shape, version("torch"), sys.prefix])


def _gpu(device: str) -> list[str]:
    """The name of the GPU that a run would use, if any."""
    if device != "cuda":
        return []
    import torch

    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []


def _measured(config: cfg.Config, paths: Sequence[str]) -> list[Tried]:
    """What was measured of each setting that the config leaves open."""
    settings = [
        dict(zip(paths, values, strict=True))
        for values in product(*(CHOICES[path] for path in paths))
    ]
    configs = [cfg.overlay(config, values) for values in settings]
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            found = process.submit(_speeds, configs).result()
        except BrokenProcessPool:
            found = [(None, "the process that measured it was killed")] * len(configs)
    return [Tried(values, *speed) for values, speed in zip(settings, found, strict=True)]


def _speeds(configs: Sequence[cfg.Config]) -> list[tuple[float | None, str]]:
    from tinylm import measure

    return measure.speeds(configs)
