"""Real sweeps of a few seconds, run as a user runs them."""

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from sweeps import ledger as led

RATES = [1e-3, 4e-3, 1.6e-2, 6.4e-2]
LISTENS = "0A"  # a state of a socket in /proc/net/tcp
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


def command(space: Path, scale: Path, out: Path | str, *more: str) -> list[str]:
    asked = [str(space), "--scale", str(scale), "--out", str(out), *more]
    return [sys.executable, "-m", "sweeps.run", *asked]


def run(asked: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)


def descendants(process: int) -> list[int]:
    """The ids of a process and of all that it started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def process_of(row: led.Row) -> int:
    """The id of the process that trains an attempt, by a row that names its worker."""
    return int(row["worker"].rpartition(":")[2])


def is_running(process: int) -> bool:
    """Whether a process has not ended; one that has may still wait for init to take note of it."""
    try:
        said = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] != "Z"


def kill(name: str, processes: list[int]) -> None:
    """Kill those of the processes that have a name."""
    for one in processes:
        if Path(f"/proc/{one}/comm").read_text().strip() == name:
            os.kill(one, signal.SIGKILL)


def addresses(process: int) -> set[str]:
    """The addresses at which a process and all that it started listen."""
    sockets = set()
    for one in descendants(process):
        for file in Path(f"/proc/{one}/fd").glob("*"):
            with contextlib.suppress(OSError):  # it has just been closed
                sockets.add(str(file.readlink()))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[place] for place in (1, 3, 9))
            if state == LISTENS and f"socket:[{inode}]" in sockets:
                digits = bytes.fromhex(local.partition(":")[0])
                words = [digits[at : at + 4][::-1] for at in range(0, len(digits), 4)]
                address = ipaddress.ip_address(b"".join(words))
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def run_watched(asked: list[str]) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command; how it ended, and the addresses at which it listened."""
    found: set[str] = set()
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = ran.communicate(timeout=0.5)
                return subprocess.CompletedProcess(asked, ran.returncode, out, err), found
            found |= addresses(ran.pid)


def wait_for_rows(sweep: Path, kind: str, count: int, **fields: object) -> None:
    """Return once the ledger holds so many rows of a kind with these fields."""
    deadline = time.monotonic() + 900
    while count_rows(sweep, kind, **fields) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def curves(sweep: Path) -> dict[str, list[tuple[int, float, float]]]:
    trials = led.fold(led.read(led.Files(sweep))).trials.values()
    return {t.label: [(p["step"], p["train_loss"], p["val_loss"]) for p in t.curve] for t in trials}


def count_rows(sweep: Path, kind: str, **fields: object) -> int:
    return sum(row | {"kind": kind, **fields} == row for row in led.read(led.Files(sweep)))


def interrupt(asked: list[str], out: Path, number: int) -> tuple[int, str]:
    """Start a driver, signal it when it has seen three more checkpoints; exit code and output."""
    before = count_rows(out, "checkpointed")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_for_rows(out, "checkpointed", before + 3)
        os.kill(driver.pid, number)
        said = driver.communicate(timeout=900)[0].decode()
    return driver.returncode, said
