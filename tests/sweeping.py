"""Real sweeps of a few seconds, run as a user runs them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from sweeps import ledger as led

RATES = [1e-3, 4e-3, 1.6e-2, 6.4e-2]
STOPPING = {"policy": "asha", "eta": 2, "grace": "1/4", "score": "decayed"}


def write_space(folder: Path, schedule: dict[str, Any], rates: list[float] = RATES) -> Path:
    tree = {
        "question": "Which rate?",
        "search": {"method": "grid"},
        "space": {"optim.lr": {"grid": rates}},
        "schedule": schedule,
    }
    path = folder / "rates.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def command(space: Path, scale: Path, out: Path, *more: str) -> list[str]:
    asked = [str(space), "--scale", str(scale), "--out", str(out), *more]
    return [sys.executable, "-m", "sweeps.run", *asked]


def run(asked: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)


def wait_for_rows(sweep: Path, kind: str, count: int) -> None:
    """Return once the ledger holds so many rows of a kind."""
    deadline = time.monotonic() + 900
    while count_rows(sweep, kind) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def curves(sweep: Path) -> dict[str, list[tuple[int, float, float]]]:
    trials = led.fold(led.read(led.Files(sweep))).trials.values()
    return {t.label: [(p["step"], p["train_loss"], p["val_loss"]) for p in t.curve] for t in trials}


def count_rows(sweep: Path, kind: str) -> int:
    return sum(row["kind"] == kind for row in led.read(led.Files(sweep)))


def interrupt(asked: list[str], out: Path, number: int) -> tuple[int, str]:
    """Start a driver, signal it when it has seen three more checkpoints; exit code and output."""
    before = count_rows(out, "checkpointed")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_for_rows(out, "checkpointed", before + 3)
        os.kill(driver.pid, number)
        said = driver.communicate(timeout=900)[0].decode()
    return driver.returncode, said
