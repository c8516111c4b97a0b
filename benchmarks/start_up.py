"""Measure how long a node takes until it trains many trials at once.

    python -m benchmarks.start_up [--workers 1 --workers 2 ...]

Each sweep has as many trials as workers, on a Ray of one node that is told to have as many cores. Measured are the
seconds from the sweep's command to the first and the last `started` row, and until each trial has a record; and, of a
worker until then, the CPU seconds and the memory that is its own alone. The sweep is ended there; its trials would train
for minutes.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil  # type: ignore[import-untyped]  # Ray's
import typer
import yaml

HOST = "127.0.0.2"  # 127.0.0.1 is replaced by Ray where a process joins
WORKER = "ray::lr="  # how the process of a trial is called
SETTINGS = (
    "run.precision=fp32",
    "run.compile=false",
    "budget.tokens=102_400_000",
    "eval.every_tokens=102_400",
    "run.checkpoint_every_tokens=102_400",
)
_STILL_SECONDS = 0.2  # between two looks at the ledger
_SETTLING_SECONDS = 10  # until a node that has started is idle


@dataclass(frozen=True)
class StartUp:
    """What the start of so many workers took."""

    workers: int
    first: float  # seconds to the first worker that has begun
    last: float  # to the last
    training: float  # until each has written a record
    cpu: float  # seconds of a worker, its imports and its training until then; the mean
    mb: float  # of a worker, without what it shares; the mean


def write_space(folder: Path, workers: int) -> Path:
    """A space with a trial for each worker."""
    tree: dict[str, Any] = {"question": "How long does a start take?"}
    tree |= {"search": {"method": "grid"}, "schedule": {"policy": "none"}}
    tree |= {"space": {"optim.lr": {"grid": [1e-3 * (1 + number) for number in range(workers)]}}}
    path = folder / "start_up.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@contextlib.contextmanager
def node(cores: int, environment: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """A Ray of one node with so many cores: its process, and its address."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port = found.getsockname()[1]
    asked = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    asked += [f"--node-ip-address={HOST}", "--disable-usage-stats"]
    asked += [f"--port={port}", f"--num-cpus={cores}", "--include-dashboard=false"]
    ray = subprocess.Popen(asked, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield psutil.Process(ray.pid), f"{HOST}:{port}"
    finally:
        ray.terminate()
        ray.wait()


def rows_of(ledger: Path) -> list[dict[str, Any]]:
    """The whole rows so far."""
    if not ledger.exists():
        return []
    lines = ledger.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def measured(workers: int, folder: Path) -> StartUp:
    """Start a sweep, wait until all its workers train, and end it."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with node(workers, environment) as (ray, address):
        while not any("raylet" in one.name() for one in ray.children(recursive=True)):
            time.sleep(_STILL_SECONDS)
        time.sleep(_SETTLING_SECONDS)
        return _started(workers, folder, ray, address, environment)


def _started(
    workers: int, folder: Path, ray: psutil.Process, address: str, environment: dict[str, str]
) -> StartUp:
    """The same, on a node that runs."""
    asked = [sys.executable, "-m", "sweeps.run", str(write_space(folder, workers))]
    asked += ["--scale", "smoke", "--address", address, "--out", str(folder / "sweep")]
    asked += [word for setting in SETTINGS for word in ("--set", setting)]
    begun, moments = time.perf_counter(), dict[str, list[float]](started=[], training=[])
    sweep = subprocess.Popen(asked, env=environment, stdout=subprocess.DEVNULL)
    try:
        while len(moments["training"]) < workers:
            time.sleep(_STILL_SECONDS)
            if sweep.poll() is not None:
                raise RuntimeError(f"the sweep ended with {sweep.returncode}")
            now, rows = time.perf_counter() - begun, rows_of(folder / "sweep" / "ledger.jsonl")
            for name, kind in (("started", "started"), ("training", "measured")):
                seen = len({row["trial"] for row in rows if row["kind"] == kind})
                moments[name] += [now] * (seen - len(moments[name]))
        found = ray.children(recursive=True)
        actors = [one for one in found if " ".join(one.cmdline()).startswith(WORKER)]
        times = [one.cpu_times() for one in actors]
        cpu = statistics.fmean(one.user + one.system for one in times)
        mb = statistics.fmean(one.memory_full_info().uss for one in actors) / 1e6
    finally:
        sweep.send_signal(signal.SIGINT)
        sweep.wait()
    started = moments["started"]
    return StartUp(workers, started[0], started[-1], moments["training"][-1], cpu, mb)


def main(
    workers: Annotated[list[int] | None, typer.Option(min=1)] = None, out: Path | None = None
) -> None:
    """Print a line for each number of workers, and write them as JSON."""
    found = []
    for number in workers or [1, 2, 4, 8, 16]:
        with tempfile.TemporaryDirectory() as place:
            found.append(measured(number, Path(place)))
        print(json.dumps(asdict(found[-1])), flush=True)
    if out is not None:
        out.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
