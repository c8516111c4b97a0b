"""What this machine can run: slots, and the size, speed and memory of a config's run.

Speed and memory are measured once and kept in the cache folder, so that a command that is run again
plans the same trials. (Where and with what a session runs is in provenance.py, which measures
nothing.)
"""

import ctypes
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from sweeps import ledger as led
from sweeps.engine.failures import Failure, failure_of
from sweeps.engine.limits import gpu_memory, kernel_kills, room_for, usable_cpus, usable_memory
from sweeps.exits import UsageError
from sweeps.plan.request import Machine, Request
from sweeps.text import quantity
from tinylm import config as cfg
from tinylm import data, documents
from tinylm.machine import keep, kept, measured_here, shape
from tinylm.size import size as counted

Answer = TypeVar("Answer")
MEMORY_SHARE = 0.8  # of a slot's memory that a run may fill
WORKER = 0.6e9  # bytes of a trial's process without its model: the interpreter, torch and Ray
RAY = 0.2e9  # of these, what a run outside of Ray does not take
OTHERS = 1.5e9  # bytes of the driver and of Ray's own processes
TOKEN_BYTES = 8  # bytes of text in a token, at most; in a large vocabulary they are about 5
_NO_END = 1e18  # bytes: more than any machine has, and a number that JSON can hold
_WINDOWS = (1, 9)  # batch sizes at which the memory of an update is measured on a CPU

Peaks = Callable[[Sequence[cfg.Config]], list[float]]  # peak bytes of a run of each config


def default_scale() -> str:
    """The config of a sweep that names none: `tinystories_17m` with a CUDA device, else `cpu`."""
    if not _may_have_gpu():
        return "cpu"
    import torch

    return "tinystories_17m" if torch.cuda.is_available() else "cpu"


def _may_have_gpu() -> bool:
    """Whether this machine has a driver that torch finds CUDA devices by: NVIDIA's or AMD's."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def this_machine(request: Request, gpus: int | None = None) -> Machine:
    """What planning a request needs to know of this machine, or of one with so many GPUs."""
    return Machine(size, lambda config: fits(config, slot_memory(request, gpus)))


@dataclass(frozen=True)
class Slots:
    """How many trials run at once."""

    number: int
    notes: tuple[str, ...] = ()  # why they are fewer than the processors would run


def _at_once(request: Request, gpus: int | None) -> dict[str, tuple[float, str, float]]:
    """For each resource of a trial that is limited here: how much it takes, the unit, how much there
    is. GPUs are those that are declared, else those that are found where trials run on them."""
    resources = request.space.resources
    found = {"cpus": (float(resources.cpus), "CPUs", usable_cpus())}
    if gpus is not None or request.base.run.device == "cuda":
        has = _devices() if gpus is None else gpus
        found["gpus"] = (float(resources.gpus), "GPUs", float(has))
    if resources.memory is not None:
        found["memory"] = (resources.memory / 1e9, "GB of memory", usable_memory() / 1e9)
    return found


def _devices() -> int:
    """How many CUDA devices torch finds."""
    import torch

    return torch.cuda.device_count()


def require_a_slot(request: Request, gpus: int | None = None) -> None:
    """Raise `UsageError` if a trial takes more than this machine has, or if more GPUs are declared than it
    has where trials run on them."""
    on_gpus = request.base.run.device == "cuda"
    if gpus is not None and on_gpus and gpus > (has := _devices()):
        here = f"this machine has {quantity(has, 'GPU')}"
        raise UsageError(f"--gpus {gpus}: run.device is cuda, and {here}")
    wrong = [
        f"{request.source}: resources.{name}: a trial takes {takes:g} {unit}, but only {has:g} "
        "can be used here"
        for name, (takes, unit, has) in _at_once(request, gpus).items()
        if takes > has
    ]
    if wrong:
        raise UsageError("\n".join(wrong))


def _declared_slots(request: Request, gpus: int | None) -> int:
    """How many trials run at once by the resources that they declare; at least one."""
    rooms = (
        room_for(takes, has, by_device=name == "gpus")
        for name, (takes, _, has) in _at_once(request, gpus).items()
    )
    return max(1, min(rooms))


def local_slots(
    request: Request,
    configs: Sequence[cfg.Config],
    limit: int | None = None,
    gpus: int | None = None,
    peaks: Peaks | None = None,
) -> Slots:
    """How many trials of these configs this machine runs at once, `limit` at most, on so many GPUs.

    If the space does not say how much memory a trial takes, it is estimated; measured if it may be too
    much. A config that does not fit even alone limits no other.
    """
    most = _declared_slots(request, gpus)
    if limit is not None:
        most = min(most, limit)
    if request.space.resources.memory is not None:
        return Slots(most)
    room = min(MEMORY_SHARE * usable_memory(), usable_memory() - OTHERS)
    shapes = {shape(config): config for config in configs}
    needs = {
        key: needed(config, room / most, room, peaks or measured_peaks)
        for key, config in shapes.items()
    }
    fitting = [need for need in needs.values() if need <= room]
    number = min(most, int(room / max(fitting))) if fitting else 1
    notes = []
    if number < most:
        notes.append(
            f"{number} of {most} trials at once: one takes up to {max(fitting, default=0) / 1e9:.2g} GB "
            f"of memory, and {room / 1e9:.3g} GB can be used"
        )
    large = sum(needs[shape(config)] > room for config in configs)
    if large:
        notes = [] if not fitting else notes
        notes.append(
            f"{large} of {len(configs)} runs do not fit in the {room / 1e9:.3g} GB of memory that can "
            "be used"
        )
    return Slots(number, tuple(notes))


@cache
def size(model: cfg.Model) -> tuple[int, int]:
    """Parameters and FLOPs per training token of a model."""
    sizes = counted(model)
    return sizes.params, sizes.flops_per_token


class CorpusFacts:
    """What a trial's `planned` row holds besides its config: its model's size, and facts about its
    corpus.

    The first call with a corpus tokenizes it, if that was not done before: trials find it ready, and
    bad data ends the command before anything is trained.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._corpora: dict[str, data.Corpus] = {}
        self._entropies: dict[str, float] = {}

    def corpus(self, config: cfg.Config) -> data.Corpus:
        """The corpus of a config; `ConfigError` if it can't be used."""
        key = cfg.digest([config.data.model_dump(), config.model.vocab_size])
        if key not in self._corpora:
            self._corpora[key] = data.prepare(config, self._tell)
        data.check_size(self._corpora[key], config)
        return self._corpora[key]

    def __call__(self, config: cfg.Config) -> dict[str, Any]:
        """`params`, `flops_per_token`, `corpus`, `unigram_entropy` and `train_tokens`; `ConfigError` if
        the corpus can't be used."""
        corpus = self.corpus(config)
        if corpus.digest not in self._entropies:
            self._entropies[corpus.digest] = corpus.train.unigram_entropy()
        params, flops = size(config.model)
        return {
            "params": params,
            "flops_per_token": flops,
            "corpus": corpus.digest,
            "unigram_entropy": self._entropies[corpus.digest],
            "train_tokens": len(corpus.train.ids),
        }


def passes(configs: Sequence[cfg.Config], facts: CorpusFacts) -> list[tuple[float, int]]:
    """How often a run of each config reads its training text, and the tokens of the text; empty if a
    text is too large to be read more than once, is downloaded, or the budget is one of time.

    It prepares the texts, which takes less time than a run that reads them more than once.
    """
    texts = {cfg.digest(config.data.model_dump()): config.data for config in configs}
    enough = TOKEN_BYTES * max(config.budget.tokens for config in configs)
    timed = any(config.budget.seconds is not None for config in configs)
    if timed or any(documents.local_bytes(text) > enough for text in texts.values()):
        return []
    read = [(config.budget.tokens, len(facts.corpus(config).train.ids)) for config in configs]
    return [(budget / tokens, tokens) for budget, tokens in read]


def known_speeds(configs: Sequence[cfg.Config]) -> list[float] | None:
    """Tokens per second of every config, as measured here before; None if one is not known."""
    known, keys = kept("speeds"), [measured_here(config) for config in configs]
    if not known.keys() >= set(keys):
        return None
    return [known[key][0] for key in keys]


def learn(trials: Iterable[led.Trial]) -> None:
    """Raise the kept speeds to those of trials that ran faster here. What was measured was too low if other programs
    used the machine."""
    known, better = kept("speeds"), dict[str, list[float]]()
    for trial in trials:
        last = trial.curve[-1] if trial.curve else None
        if last is None or not last["seconds"]:
            continue
        key = measured_here(cfg.validate(trial.config, trial.label))
        speed = last["tokens"] / last["seconds"]
        before = better.get(key, known.get(key))
        if before is not None and speed > before[0]:
            better[key] = [speed, before[1]]
    if better:
        keep("speeds", better)


def record_seconds(config: cfg.Config) -> float | None:
    """The seconds between two records of a run, as measured here before; None if not known."""
    speeds = known_speeds([config])
    return (config.eval.every_tokens + config.eval.tokens) / speeds[0] if speeds else None


class ProbeError(Exception):
    """A run could not be tried here; says why."""


def probes(
    configs: Sequence[cfg.Config], tell: Callable[[str], None]
) -> tuple[list[float], list[float]]:
    """Tokens per second and loss at init of every config. Each distinct shape is measured once and
    kept; `ProbeError` if one can't be measured."""
    known, keys = kept("speeds"), [measured_here(config) for config in configs]
    new = {key: config for key, config in zip(keys, configs, strict=True) if key not in known}
    for config in filter(is_too_large, new.values()):
        least = estimated_memory(config)[0]
        sizes = f"it takes at least {least / 1e9:.3g} GB of {usable_memory() / 1e9:.3g} GB"
        raise ProbeError(_told(Failure(led.OUT_OF_MEMORY, sizes), config))
    for number, (key, found) in enumerate(
        zip(new, _tried(_probe, list(new.values())), strict=True), start=1
    ):
        if len(new) > 1:
            tell(f"measured speed: model shape {number} of {len(new)}")
        if isinstance(found, Failure):
            raise ProbeError(_told(found, new[key]))
        known[key] = found
    if new:
        keep("speeds", {key: known[key] for key in new})
    return [known[key][0] for key in keys], [known[key][1] for key in keys]


def _told(failure: Failure, config: cfg.Config) -> str:
    """What people read of a run that failed when it was tried."""
    params, _ = size(config.model)
    what = "does not fit in memory" if failure.how == led.OUT_OF_MEMORY else "failed"
    return (
        f"a run of {params:,} parameters and {config.optim.batch_size} windows {what}: "
        f"{failure.reason}"
    )


def _probe(config: cfg.Config) -> list[float]:
    from tinylm import measure

    return [*measure.probe(config)]  # a class of that module would load torch in the driver as well


def product_flops(config: cfg.Config) -> float | None:
    """FLOPs per second of a large matrix product here, measured once and kept; None if it fails."""
    key = measured_here(config)
    known = kept("products")
    if key not in known:
        found = next(_tried(_product_flops, [config]))
        if isinstance(found, Failure):
            return None
        known[key] = found
        keep("products", {key: found})
    return float(known[key])


def _product_flops(config: cfg.Config) -> float:
    from tinylm import measure

    return measure.product_flops(config)


def slot_memory(request: Request, gpus: int | None = None) -> float:
    """Bytes of memory of a slot: a share of a GPU's, or what a trial declares, or an equal part of
    what this job may use."""
    resources = request.space.resources
    if request.base.run.device == "cuda":
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        return gpu_memory(total, resources.gpus)
    if resources.memory is not None:
        return float(resources.memory)
    return usable_memory() / _declared_slots(request, gpus)


def _peak(config: cfg.Config) -> float:
    from tinylm import measure

    return float(measure.memory(config))


def _tried(
    what: Callable[[cfg.Config], Answer], configs: Sequence[cfg.Config]
) -> Iterator[Answer | Failure]:
    """What a function measures of each config, or why it failed: in a process of its own, which may
    run out of memory and be killed."""
    context, left = get_context("spawn"), list(configs)
    while left:
        answers, told = context.Pipe(duplex=False)
        kills = kernel_kills()
        process = context.Process(target=_answer, args=(what, left, told))
        process.start()
        told.close()
        try:
            while left:
                answer = answers.recv()
                left.pop(0)
                yield answer
        except EOFError:
            process.join()
            left.pop(0)
            yield _death(process.exitcode or 0, kernel_kills() > kills)
        finally:
            process.terminate()
            process.join()


def _answer(
    what: Callable[[cfg.Config], object], configs: Sequence[cfg.Config], told: Connection
) -> None:
    for config in configs:
        try:
            told.send(what(config))
        except Exception as error:  # noqa: BLE001 whatever it is, the driver says it
            told.send(failure_of(error))


def _death(code: int, killed: bool) -> Failure:
    """Why a process ended that did not answer, by its exit code."""
    if killed and code == -signal.SIGKILL:
        return Failure(led.OUT_OF_MEMORY, "the kernel killed it: out of memory")
    how = f"signal {-code} ended it" if code < 0 else f"it ended with exit code {code}"
    return Failure("died", how)


def measured_peaks(configs: Sequence[cfg.Config]) -> list[float]:
    """Peak bytes of a run of each config; infinite if it ran out of memory. `UsageError` if another
    error ended it."""
    peaks: list[float] = []
    for config in configs:
        found = next(_tried(_peak, [config]))  # a process has one peak
        if isinstance(found, Failure) and found.how != led.OUT_OF_MEMORY:
            raise UsageError(f"memory can't be measured: {_told(found, config)}")
        peaks.append(math.inf if isinstance(found, Failure) else found)
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


def _peak_of(config: cfg.Config, peaks: Peaks) -> float:
    """Peak bytes of a run. It is measured once and kept, so that a sweep that is resumed plans the same
    trials."""
    key, known = shape(config), kept("memory")
    if key not in known:
        known[key] = min(_needed(config, peaks), _NO_END)
        keep("memory", {key: known[key]})
    return known[key]


def fits(config: cfg.Config, room: float, peaks: Peaks = measured_peaks) -> bool:
    """Whether a run of a config fits in a slot with so much room, in bytes."""
    return _peak_of(config, peaks) <= MEMORY_SHARE * room


def estimated_memory(config: cfg.Config) -> tuple[float, float]:
    """The least and about the most bytes that the process of a trial takes."""
    if config.run.device == "cuda":  # the model is in the device's memory
        return WORKER, WORKER
    model, run = config.model, config.run
    params, _ = size(model)
    layer = 24 * model.d_model + 6 * model.d_ff + 3 * model.n_heads * model.context_length
    floats = model.n_layers * layer + 5 * model.vocab_size  # of a token
    windows = max(config.optim.batch_size // run.accumulate, config.eval.batch_size)
    # Weights, gradients and two moments; about as much again while a checkpoint is written.
    return WORKER + 16 * params, WORKER + 32 * params + 4 * floats * windows * model.context_length


def is_too_large(config: cfg.Config) -> bool:
    """Whether a run surely does not fit in this machine's memory."""
    return estimated_memory(config)[0] > usable_memory()


def needed(config: cfg.Config, share: float, room: float, peaks: Peaks = measured_peaks) -> float:
    """Bytes that the process of a trial takes: estimated if that is surely below `share` or above
    `room`, else measured."""
    least, most = estimated_memory(config)
    if most <= share:
        return most
    return least if least > room else _peak_of(config, peaks) + RAY
