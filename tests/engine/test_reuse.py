"""Workers that one attempt passes on to the next."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweeping import (
    command,
    count_rows,
    curves,
    is_running,
    process_of,
    run,
    wait_for_rows,
    write_space,
)

from sweeps import ledger as led

SLOTS = 4
RATES = [1e-3 * 1.3**place for place in range(16)]
ROUNDS = {"policy": "sha", "eta": 2, "grace": "1/4"}


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Who trained what in each situation of `reusing.py`."""
    program = Path(__file__).with_name("reusing.py")
    done = run([sys.executable, str(program), str(tmp_path_factory.mktemp("reusing"))])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("situation", "workers", "started"),
    [
        pytest.param("late", [0, 0, 1], 2, id="it-comes-up-late-and-takes-the-next-attempt"),
        pytest.param("dead", [0, 0, 2], 3, id="it-dies-before-it-comes-up-and-no-attempt-fails"),
        pytest.param("spare", [0, 0], 2, id="others-need-its-slot-so-it-ends"),
    ],
)
def test_a_worker_whose_attempt_another_one_took(
    passed: dict[str, Any], situation: str, workers: list[int], started: int
) -> None:
    assert passed[situation] == {"errors": [], "workers": workers, "started": started}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, scale: Path) -> Callable[[Path], list[str]]:
    """The command of a sweep in rounds, on more slots than two cores have, in a folder."""
    space = write_space(tmp_path_factory.mktemp("rounds"), ROUNDS, RATES)
    space.write_text(f"{space.read_text()}resources: {{cpus: 0.25, gpus: 1}}\n")
    return lambda out: command(space, scale, out, "--gpus", str(SLOTS))


@pytest.fixture(scope="module")
def whole(asked: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "rates"
    done = run(asked(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_workers_stay_from_one_round_to_the_next(whole: Path) -> None:
    """Where a round ends, its slots have nothing to do until its last trial is there."""
    started = [row for row in led.read(led.Files(whole)) if row["kind"] == "started"]
    assert len({row["worker"] for row in started}) <= SLOTS


def training(out: Path) -> dict[str, int]:
    """The processes of the workers that train a trial, by trial."""
    by: dict[str, int] = {}
    for row in led.read(led.Files(out)):
        if row["kind"] == "started":
            by[row["trial"]] = process_of(row)
        elif led.ends_attempt(row):
            by.pop(row["trial"], None)
    return by


@contextlib.contextmanager
def between_rounds(out: Path) -> Iterator[list[int]]:
    """The workers of a sweep that have nothing to do while its first round waits for its last trial, which ends with
    the context."""
    wait_for_rows(out, "paused", len(RATES) // 2)
    held: tuple[str, int] | None = None
    while count_rows(out, "paused") < len(RATES) - 1 or held is None:
        by = training(out)
        if held is not None and held[0] not in by:  # it had ended before it was suspended
            os.kill(held[1], signal.SIGCONT)
            held = None
        if held is None and by:
            held = next(iter(by.items()))
            os.kill(held[1], signal.SIGSTOP)
        time.sleep(0.05)
    started = [row for row in led.read(led.Files(out)) if row["kind"] == "started"]
    every = {process_of(row) for row in started}
    yield sorted(every - {held[1]})
    os.kill(held[1], signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.fault("SIGKILL of workers that have nothing to do", "no trial fails; the same curves")
def test_idle_workers_that_die_cost_no_attempt(
    tmp_path: Path, asked: Callable[[Path], list[str]], whole: Path
) -> None:
    out = tmp_path / "rates"
    with subprocess.Popen(asked(out), stderr=subprocess.PIPE, text=True) as driver:
        with between_rounds(out) as idle:
            for worker in idle:
                os.kill(worker, signal.SIGKILL)
            while any(map(is_running, idle)):
                time.sleep(0.05)
            time.sleep(1)  # Ray's head hears of it
        said = driver.communicate(timeout=900)[1]
    assert (driver.returncode, count_rows(out, "failed"), curves(out)) == (0, 0, curves(whole)), (
        said
    )


@pytest.mark.slow
@pytest.mark.fault(
    "SIGSTOP of a worker that has nothing to do, then SIGTERM", "exit code 143, with the analysis"
)
def test_a_sweep_that_waits_for_a_hung_idle_worker_ends_by_a_signal(
    tmp_path: Path, asked: Callable[[Path], list[str]]
) -> None:
    out = tmp_path / "rates"
    with subprocess.Popen(asked(out), stderr=subprocess.PIPE, text=True) as driver:
        with between_rounds(out) as idle:
            os.kill(idle[0], signal.SIGSTOP)
        # All of the second round but the trial that waits for the worker.
        wait_for_rows(out, "paused", len(RATES) + len(RATES) // 2 - 1)
        driver.terminate()
        said = driver.communicate(timeout=300)[1]
    assert driver.returncode == 128 + signal.SIGTERM, said
    assert (out / "analysis" / "summary.md").exists()
