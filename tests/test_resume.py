"""Real sweeps that are killed, terminated, or damaged, and resume."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import driver
from faults import LOST, rows_lost
from sweeping import (
    RATES,
    STOPPING,
    command,
    curves,
    descendants,
    interrupt,
    is_running,
    kill,
    process_of,
    run,
    wait_for_rows,
    write_space,
)

from sweeps import ledger as led
from sweeps.exits import Code
from sweeps.plan.reading import read
from sweeps.plan.request import Request
from tinylm import config as cfg


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, scale: Path, address: str
) -> tuple[Path, bytes, dict[int, tuple[int, str]], subprocess.CompletedProcess[str]]:
    """A sweep whose driver was killed, then terminated, then warned, then left to end; with a Ray of its
    own, then with one that goes on."""
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "rates"
    own = command(write_space(folder, {"policy": "none"}, RATES[:2]), scale, out)
    joined = [*own, "--address", address]
    interrupt(own, out, signal.SIGKILL)
    rows = led.Files(out).ledger.read_bytes()
    ended = {
        int(signal.SIGTERM): interrupt(own, out, signal.SIGTERM),
        int(signal.SIGUSR1): interrupt(joined, out, signal.SIGUSR1),
    }
    return out, rows, ended, run(joined)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
@pytest.mark.fault(
    "SIGTERM and SIGUSR1 while trials train", "128 + signal, and the command that resumes"
)
def test_a_signal_ends_a_sweep_with_its_code_and_how_to_resume(
    killed: Any, number: int, code: int
) -> None:
    """Ray Tune has a handler of its own for SIGUSR1, which ends it as if all were done."""
    found, said = killed[2][number]
    assert (found, "To resume: " in said) == (code, True), said


@pytest.mark.slow
@pytest.mark.fault("SIGKILL of the driver, then signals, then a resume", "the curves of whole runs")
def test_a_killed_sweep_ends_with_the_curves_of_whole_runs(killed: Any, trained: Any) -> None:
    out, _, _, last = killed
    assert last.returncode == 0, last.stderr
    assert curves(out) == dict(list(trained.items())[:2])


@pytest.mark.slow
@pytest.mark.fault("SIGKILL of the driver", "every row stays")
def test_a_killed_sweep_keeps_every_row_it_had(
    killed: Any, record_property: Callable[..., None]
) -> None:
    out, rows, _, _ = killed
    lost = rows_lost(rows, led.Files(out).ledger)
    record_property(LOST, lost)
    assert lost == 0


@pytest.mark.slow
@pytest.mark.fault("SIGUSR1 while trials train", "they save at their next records")
def test_a_warned_sweep_saves_what_was_trained(killed: Any) -> None:
    rows = led.read(led.Files(killed[0]))
    left = [row for row in rows if row["kind"] == "preempted"]
    assert left and {row["how"] for row in left} == {"signal"}
    before = [rows[row["seq"] - 1] for row in left[-1:]]
    assert [row["kind"] for row in before] == ["checkpointed"]


@pytest.mark.slow
def test_a_killed_sweep_resumes_from_checkpoints(killed: Any) -> None:
    started = [row for row in led.read(led.Files(killed[0])) if row["kind"] == "started"]
    assert any(row["step"] > 0 and row["attempt"] > 1 for row in started)


@pytest.mark.fault("a text that changed under unfinished trials", "exit code 9")
def test_a_trial_whose_corpus_changed_is_refused(tmp_path: Path, scale: Path) -> None:
    """A sweep of the same config, planned when its documents were others."""
    out = tmp_path / "rates"
    space = write_space(tmp_path, STOPPING)
    with led.Ledger(led.Files(out)) as ledger:
        parsed, tree = read(space)
        what = Request(parsed, tree, str(space), cfg.load(str(scale)), str(scale), 0)
        driver(ledger, what).begin({})
    again = run(command(space, scale, out))
    assert (again.returncode, "has changed since" in again.stderr) == (Code.REFUSED, True), (
        again.stderr
    )


@pytest.mark.slow
@pytest.mark.fault("a model that no memory holds", "exit code 3; the other trial finishes")
def test_a_failing_trial_is_tried_again_reported_and_exits_3(tmp_path: Path, scale: Path) -> None:
    """A model that no machine has memory for fails beside one that finishes."""
    space = write_space(tmp_path, {"policy": "none"})
    tree = yaml.safe_load(space.read_text())
    tree["space"] = {"model.d_ff": {"grid": [37, 10**11]}}
    space.write_text(yaml.safe_dump(tree))
    done = run(command(space, scale, tmp_path / "widths"))
    assert done.returncode == Code.FAILED, done.stdout + done.stderr
    assert "failed: d_ff=100000000000" in done.stderr
    trials = led.fold(led.read(led.Files(tmp_path / "widths"))).trials.values()
    assert [(t.status, t.attempt) for t in trials] == [("finished", 1), ("failed", 3)]
    failed = list(trials)[1]
    assert failed.how == led.OUT_OF_MEMORY
    assert failed.reason.startswith("RuntimeError: ") and "allocate memory" in failed.reason
    assert "1 of 2 runs do not fit in the" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("process", ["gcs_server", "raylet"])
@pytest.mark.fault(
    "SIGKILL of Ray's GCS or raylet", "exit code 8, an analysis, no process left; resumes"
)
def test_a_sweep_whose_ray_is_lost_exits_8_leaves_no_process_and_resumes(
    tmp_path: Path, scale: Path, trained: Any, process: str
) -> None:
    """Ray itself would end the driver, without a word, after a minute."""
    out = tmp_path / "rates"
    asked = command(write_space(tmp_path, {"policy": "none"}, RATES[:2]), scale, out)
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        wait_for_rows(out, "checkpointed", 2)
        before = descendants(driver.pid)
        kill(process, before)
        said = driver.communicate(timeout=900)[1].decode()
    assert (driver.returncode, f"Ray's {process} has died\nTo resume: " in said) == (8, True), said
    assert (out / "analysis" / "summary.md").exists()
    assert not [one for one in before if is_running(one)]
    again = run(asked)
    assert again.returncode == 0, again.stderr
    assert curves(out) == dict(list(trained.items())[:2])


@pytest.mark.slow
@pytest.mark.fault("SIGSTOP of a worker", "ended and tried again; the same curve")
def test_a_hung_worker_is_ended_and_its_run_tried_again(
    tmp_path: Path, scale: Path, trained: Any, address: str
) -> None:
    space = write_space(tmp_path, {"policy": "none"}, RATES[:1])
    space.write_text(f"{space.read_text()}resources: {{hang_after: 5}}\n")
    out = tmp_path / "rates"
    asked = command(space, scale, out, "--address", address)
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL) as driver:
        wait_for_rows(out, "checkpointed", 2)
        rows = led.read(led.Files(out))
        measured = next(row for row in rows if row["kind"] == "measured")
        os.kill(process_of(measured), signal.SIGSTOP)
        driver.communicate(timeout=900)
    assert driver.returncode == 0
    failed = [row["how"] for row in led.read(led.Files(out)) if row["kind"] == "failed"]
    assert (failed, curves(out)) == (["hung"], dict(list(trained.items())[:1]))
