"""The ledger: one writer, whole rows, nothing lost by a crash."""

import errno
import fcntl
import io
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import driver, grid, request
from faults import LOST, rows_lost
from hypothesis import given
from hypothesis import strategies as st
from ledgers import EVERY, Story, lr_sweep, rewrite, studied
from typer.testing import CliRunner

from sweeps import ledger as led
from sweeps.commands import ledger as command
from sweeps.exits import LockedError, StorageError
from sweeps.findings.compute import Bar, timeline
from sweeps.repair import examine, repair
from sweeps.rows import Lines, sealed


@pytest.fixture
def files(tmp_path: Path) -> led.Files:
    return led.Files(tmp_path / "sweep")


def test_rows_come_back_as_written(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        row = ledger.append("session", slots=2)
    assert led.read(files) == [row]


def test_rows_are_numbered_across_sessions(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 1


def test_a_sweep_without_a_ledger_has_no_rows(files: led.Files) -> None:
    assert led.read(files) == []


@pytest.mark.fault("a kill right after a row was written", "the row is in the file")
def test_a_row_is_in_the_file_when_append_returns(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        assert files.ledger.read_bytes().endswith(b"}\n")


@pytest.mark.fault("a crash in the middle of a row", "readers skip the row")
def test_a_last_line_that_a_crash_cut_is_no_row(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        row = ledger.append("session")
    with files.ledger.open("ab") as stream:
        stream.write(b'{"seq":1,"kind":"meas')
    assert led.read(files) == [row]


@pytest.mark.fault("a crash in the middle of a row, then a resume", "the next driver drops the row")
def test_a_writer_replaces_the_line_that_a_crash_cut(
    files: led.Files, record_property: Callable[..., None]
) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    before = files.ledger.read_bytes()
    with files.ledger.open("ab") as stream:
        stream.write(b'{"seq":1,"kind":"meas')
    with led.Ledger(files) as ledger:
        ledger.append("session")
    record_property(LOST, rows_lost(before, files.ledger))
    assert [row["seq"] for row in led.read(files)] == [0, 1]


@pytest.mark.parametrize(
    "damage",
    [
        b"xx\n",
        b"[]\n",
        b"{}\n",
        b'{"seq":7,"kind":"session"}\n',
        b'{"seq":1,"kind":"a"},{"seq":2,"kind":"a"}\n',  # two rows in a line
        b'{"seq":1\n"kind":"a"}\n',  # a row in two lines
        b"\n",
    ],
)
@pytest.mark.fault("a line that is no row", "exit code 6, with its line")
def test_a_damaged_line_is_an_error_with_its_number(files: led.Files, damage: bytes) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    with files.ledger.open("ab") as stream:
        stream.write(damage)
    with pytest.raises(led.LedgerError, match="line 2 is damaged"):
        led.read(files)


def test_an_empty_line_is_told_as_one(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        ledger.append("session")
    files.ledger.write_bytes(files.ledger.read_bytes().replace(b"\n", b"\n\n", 1))
    with pytest.raises(led.LedgerError, match="line 2 is damaged: the line is empty"):
        led.read(files)


def test_damage_far_from_the_beginning_is_an_error_with_its_number(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append_all([("session", {})] * 2500)
    with files.ledger.open("ab") as stream:
        stream.write(b"xx\n")
    with pytest.raises(led.LedgerError, match="line 2501 is damaged"):
        led.read(files)


def test_rows_that_are_written_together_are_those_written_one_by_one(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        rows = ledger.append_all([("withdrawn", {"trial": "a"}), ("restored", {"trial": "b"})])
        ledger.append("session")
    assert [(row["seq"], row["trial"]) for row in rows] == [(1, "a"), (2, "b")]
    assert led.read(files)[1:3] == rows and [row["seq"] for row in led.read(files)] == [0, 1, 2, 3]


def test_opening_a_ledger_does_not_change_its_time(files: led.Files) -> None:
    """An analysis that is newer than the ledger is current."""
    with led.Ledger(files) as ledger:
        ledger.append("session")
    os.utime(files.ledger, ns=(5, 5))
    with led.Ledger(files):
        assert files.ledger.stat().st_mtime_ns == 5


def test_a_damaged_ledger_is_not_written_to(files: led.Files) -> None:
    files.folder.mkdir()
    files.ledger.write_bytes(b"xx\n")
    with led.Ledger(files) as ledger, pytest.raises(led.LedgerError):
        ledger.append("session")
    assert files.ledger.read_bytes() == b"xx\n"


def test_a_choice_that_lacks_its_grid_is_an_error(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        rest = {
            "tried": 0,
            "place": 0,
            "hypothesis": "",
            "changes": {},
            "retuned": False,
            "failed": 0,
        }
        ledger.append("chosen", arm="x", values={}, trials={}, repeats=[], **rest)
    with pytest.raises(led.LedgerError, match="line 1 is damaged: grid: missing"):
        led.read(files)


def test_what_json_has_no_word_for_is_not_written(files: led.Files) -> None:
    with led.Ledger(files) as ledger, pytest.raises(ValueError, match="JSON compliant"):
        ledger.append("measured", val_loss=float("nan"))


@pytest.mark.fault("a second driver", "exit code 5")
def test_a_second_writer_is_locked_out(files: led.Files) -> None:
    with led.Ledger(files), pytest.raises(LockedError):
        led.Ledger(files)


def test_a_second_writer_is_told_who_the_first_is(files: led.Files) -> None:
    first = rf"\(process {os.getpid()} on {platform.node()}, since \d{{4}}-.* UTC\)$"
    with led.Ledger(files), pytest.raises(LockedError, match=first):
        led.Ledger(files)


def test_a_second_writer_is_locked_out_by_one_that_left_no_name(
    files: led.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits longer: a command that steers the sweep leaves none either."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with led.Ledger(files):
        files.driver.unlink()
        with pytest.raises(LockedError, match=r"another driver runs this sweep$"):
            led.Ledger(files)


def test_a_writer_in_this_process_is_no_other_driver(files: led.Files) -> None:
    before = led.has_other_driver(files)
    with led.Ledger(files):
        during = led.has_driver(files), led.has_other_driver(files)
    assert (before, during) == (False, (True, False))


WRITES = """
import sys
import time
from pathlib import Path
from sweeps import ledger
with ledger.Ledger(ledger.Files(Path(sys.argv[1]))):
    print("writes", flush=True)
    sys.stdin.read()
"""


def test_a_writer_in_another_process_is_one_whatever_it_says_of_itself(files: led.Files) -> None:
    words = [sys.executable, "-c", WRITES, str(files.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        files.driver.write_text(f"process {os.getpid()} on {platform.node()}, since today\n")
        found = led.has_other_driver(files)
        other.stdin.close()
    assert found


def test_a_driver_waits_for_one_that_looks_who_runs_the_sweep(
    files: led.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.folder.mkdir(parents=True, exist_ok=True)
    looks = files.ledger.open("a")
    fcntl.flock(looks, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda seconds: looks.close())
    with led.Ledger(files) as ledger:
        assert list(ledger.rows()) == []


def test_a_driver_waits_for_one_that_steers_the_sweep(
    files: led.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may have to read a large ledger."""
    steers, naps = led.Ledger(files, trains=False), iter(range(100))

    def nap(seconds: float) -> None:
        if next(naps) == 99:
            steers.append("withdrawn", trial="a")
            steers.__exit__(None, None, None)

    monkeypatch.setattr(time, "sleep", nap)
    with led.Ledger(files) as ledger:
        assert next(naps, None) is None
        assert ledger.append("withdrawn", trial="b")["seq"] == 1


def test_a_ledger_that_is_a_link_to_itself_is_damage(files: led.Files) -> None:
    files.folder.mkdir(parents=True, exist_ok=True)
    files.ledger.symlink_to(files.ledger)
    with pytest.raises(led.LedgerError, match="is a symbolic link to itself"):
        led.read(files)


def test_a_writer_that_wrote_nothing_leaves_nothing(files: led.Files) -> None:
    with led.Ledger(files):
        pass
    assert not files.folder.exists()


def test_a_writer_that_wrote_nothing_leaves_the_rows_of_others(files: led.Files) -> None:
    with led.Ledger(files):
        files.ledger.unlink()
        files.ledger.write_text("theirs")
    assert files.ledger.read_text() == "theirs"


@pytest.mark.fault("a file system without locks", "exit code 7, with what to do")
def test_a_file_system_without_locks_is_refused_with_what_to_do(
    files: led.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(stream: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"no locks \(Function not implemented\).* Put the sweep on another file system"
    with pytest.raises(StorageError, match=message):
        led.Ledger(files)


@pytest.mark.fault("SIGKILL of a process that holds the lock", "the lock is free")
def test_the_lock_ends_with_a_killed_writer(files: led.Files) -> None:
    program = (
        "import sys, pathlib; from sweeps import ledger as led\n"
        "held = led.Ledger(led.Files(pathlib.Path(sys.argv[1]))); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(files.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError):
            led.Ledger(files)
        os.kill(other.pid, signal.SIGKILL)
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 0


def test_reading_needs_no_lock(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        assert len(led.read(files)) == 1


@pytest.mark.fault("a ledger that may not grow", "exit code 7; the ledger ends with a whole row")
def test_a_full_disk_leaves_a_readable_ledger(
    files: led.Files, record_property: Callable[..., None]
) -> None:
    """A file-size limit is how a full disk looks to a process: the write is cut short."""
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "from sweeps.exits import LockedError, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    while True: print(ledger.append('session', filler='x' * 100)['seq'])\n"
    )
    command = [sys.executable, "-c", program, str(files.folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert re.search(
        rb"StorageError: .*can't be written, .* bytes: File too large; .* MB", done.stderr
    )
    record_property(LOST, len(done.stdout.split()) - len(led.read(files)))
    assert files.ledger.read_bytes().endswith(b"}\n")
    assert len(led.read(files)) > 3


@pytest.mark.fault(
    "a ledger that may not grow for a while", "the next row follows the last whole one"
)
def test_a_line_that_found_no_room_leaves_the_ledger_writable(files: led.Files) -> None:
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "from sweeps.exits import LockedError, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    ledger.append('session')\n"
        "    try: ledger.append('session', filler='x' * 2000)\n"
        "    except StorageError: resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, 10**9))\n"
        "    ledger.append('session')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder)], check=True)
    assert [row["seq"] for row in led.read(files)] == [0, 1]


@pytest.mark.fault("no room for rows that belong together", "none of them is written")
def test_rows_that_find_no_room_together_leave_none_of_them(files: led.Files) -> None:
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "from sweeps.exits import LockedError, StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    ledger.append('session')\n"
        "    try: ledger.append_all([('planned', {'filler': 'x' * 400})] * 5)\n"
        "    except StorageError: pass\n"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder)], check=True)
    assert [row["kind"] for row in led.read(files)] == ["session"]


def test_a_row_of_a_trial_that_was_never_planned_is_damage(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("started", trial="nobody", attempt=1, step=0)
    with pytest.raises(
        led.LedgerError, match="line 1 is damaged: trial 'nobody' was never planned"
    ):
        led.fold(led.read(files))


def test_write_whole_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    led.write_whole(path, b"one")
    led.write_whole(path, b"two")
    assert (path.read_bytes(), list(path.parent.iterdir())) == (b"two", [path])


# The fold


def trial_after(files: led.Files, rows: list[tuple[str, dict[str, object]]]) -> led.Trial:
    """The one trial of a sweep after the rows that follow its planning."""
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, request(grid([1e-3])))
        conductor.begin({})
        (trial,) = conductor.sweep.trials
        for kind, fields in rows:
            ledger.append(kind, trial=trial, **fields)
    return led.fold(led.read(files)).trials[trial]


def point(attempt: int, step: int, loss: float) -> tuple[str, dict[str, object]]:
    where: dict[str, object] = {
        "attempt": attempt,
        "step": step,
        "tokens": step * 10,
        "seconds": 1.0,
        "last": False,
    }
    losses = {"train_loss": loss, "val_loss": loss, "bits_per_byte": loss}
    return "measured", where | losses | {"lr": 0.1, "grad_norm": 1.0, "tokens_per_s": 9.0}


def begin(attempt: int, step: int) -> tuple[str, dict[str, object]]:
    return "started", {"attempt": attempt, "step": step, "checkpoint": None}


def test_an_attempt_that_goes_on_replaces_what_came_after_its_step(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), point(1, 2, 4.0), begin(2, 1), point(2, 2, 4.5)]
    trial = trial_after(files, rows)
    assert [(row["step"], row["val_loss"]) for row in trial.curve] == [(1, 5.0), (2, 4.5)]


def test_what_an_older_attempt_still_says_is_passed_over(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), begin(2, 1), point(1, 2, 9.0), point(2, 2, 4.0)]
    assert trial_after(files, rows).curve[-1]["val_loss"] == 4.0


STOP: tuple[str, dict[str, object]] = ("steered", {"action": "stop", "tokens": 10})
FINISH: tuple[str, dict[str, object]] = ("steered", {"action": "finish", "tokens": 10})


def test_a_trial_that_somebody_stopped_stays_so_whatever_comes(files: led.Files) -> None:
    failed: dict[str, object] = {"attempt": 1, "how": "died", "reason": "late", "final": False}
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, request(grid([1e-3])))
        conductor.begin({})
        (name,) = conductor.sweep.trials
        for kind, fields in [begin(1, 0), point(1, 1, 5.0), STOP, ("failed", failed)]:
            ledger.append(kind, trial=name, **fields)
        ledger.append("session")
    after = led.fold(led.read(files))
    trial = after.trials[name]
    assert (trial.status, trial.reason, trial.tokens) == ("stopped", "stopped by hand", 10)
    assert (trial.is_untried, after.running) == (False, set())


def test_a_trial_that_is_to_be_finished_goes_on_from_where_it_was_stopped(files: led.Files) -> None:
    trial = trial_after(files, [begin(1, 0), point(1, 1, 5.0), STOP, FINISH])
    assert (trial.status, trial.by_hand, len(trial.curve)) == ("planned", "finish", 1)


def test_a_trial_that_is_to_be_finished_keeps_its_slot(files: led.Files) -> None:
    trial = trial_after(files, [begin(1, 0), point(1, 1, 5.0), FINISH])
    assert (trial.status, trial.by_hand) == ("running", "finish")


def test_a_trial_that_was_stopped_before_its_first_record_is_not_tried(files: led.Files) -> None:
    assert trial_after(files, [STOP]).is_untried


def test_a_sweep_ends_early_until_the_next_session_begins(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        driver(ledger, request(grid([1e-3]))).begin({})
        ledger.append("steered", action="end")
        ending = led.fold(led.read(files)).is_ending
        ledger.append("session")
    assert [ending, led.fold(led.read(files)).is_ending] == [True, False]


def test_an_action_that_there_is_not_is_damage(files: led.Files) -> None:
    with pytest.raises(led.LedgerError, match="action"):
        trial_after(files, [("steered", {"action": "double"})])


def test_repeated_work_is_spent_again(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), point(1, 2, 4.0), begin(2, 1), point(2, 2, 4.0)]
    trial_after(files, rows)
    assert led.fold(led.read(files)).spent_tokens == 30


def test_rows_are_one_json_object_a_line(files: led.Files) -> None:
    trial_after(files, [begin(1, 0)])
    lines = files.ledger.read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))


def test_a_command_line_that_is_no_text_is_read_as_text(files: led.Files) -> None:
    """Half a surrogate pair stands for a byte of a file name that is not UTF-8, and can't be printed."""
    with led.Ledger(files) as ledger:
        ledger.append("session", command="run caf\udce9")
    assert led.read(files)[0]["command"] == "run caf?"


@given(st.floats(-1e100, 1e100))
def test_numbers_are_read_as_they_were_written(number: float) -> None:
    row = {"seq": 0, "time": "2026-01-01", "kind": "session", "product_flops": number}
    (read,) = Lines(io.BytesIO(sealed(row, 0)[0]), Path("ledger.jsonl"))
    assert read["product_flops"] == number


@pytest.mark.parametrize("resumed", [0, 1, 2])
def test_the_lowest_loss_is_that_of_the_curve_also_after_a_resume(
    files: led.Files, resumed: int
) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), point(1, 2, 3.0), begin(2, resumed), point(2, 3, 4.0)]
    trial = trial_after(files, rows)
    assert trial.lowest == min(trial.curve, key=lambda row: row["val_loss"])


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "a b"])
def test_a_trial_whose_id_could_be_a_path_is_damage(files: led.Files, name: str) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("withdrawn", trial=name)
    with pytest.raises(led.LedgerError, match="line 1 is damaged: trial: String should match"):
        led.read(files)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other/checkpoints/a-1/0/checkpoint.pt",
        "checkpoints/../../x/y/checkpoint.pt",
        "checkpoints/checkpoint.pt",
        "checkpoints/link/a/checkpoint.pt",
        "checkpoints/a-2/checkpoint_0/checkpoint.pt",
        "checkpoints/b-1/checkpoint_0/checkpoint.pt",
        "checkpoints/a-1/checkpoint_mine/checkpoint.pt",
        "checkpoints/a-1/checkpoint_0/thesis.txt",
        "notes.md",
    ],
)
@pytest.mark.fault("a row whose checkpoint is outside of the sweep", "exit code 6")
def test_a_checkpoint_elsewhere_is_damage(files: led.Files, path: str) -> None:
    """What a row names is deleted once the next checkpoint is there."""
    files.checkpoints.mkdir(parents=True)
    (files.checkpoints / "link").symlink_to("/tmp")
    (files.checkpoints / "a-2").symlink_to("/tmp")
    with pytest.raises(led.LedgerError, match=r"line 8 is damaged: path .* is not a checkpoint"):
        files.checkpoint({"seq": 7, "trial": "a", "path": path})


def test_a_checkpoint_of_a_sweep_is_where_its_row_says(files: led.Files) -> None:
    path = "checkpoints/a-1/checkpoint_000000/checkpoint.pt"
    assert files.checkpoint({"seq": 7, "trial": "a", "path": path}) == files.folder / path


@pytest.mark.fault(
    "an editor replaces the ledger of a running sweep", "exit code 6; nothing is written elsewhere"
)
def test_a_ledger_that_was_replaced_is_not_written_to(
    files: led.Files, record_property: Callable[..., None]
) -> None:
    """As an editor or a sync tool saves it."""
    with led.Ledger(files) as ledger:
        ledger.append("session")
        copy = files.folder / "copy"
        before = files.ledger.read_bytes()
        copy.write_bytes(before)
        copy.replace(files.ledger)
        with pytest.raises(led.LedgerError, match="was replaced by another file while"):
            ledger.append("session")
    record_property(LOST, rows_lost(before, files.ledger))
    assert len(led.read(files)) == 1


@pytest.mark.fault("the ledger of a running sweep is deleted", "exit code 6")
def test_a_ledger_that_was_deleted_is_not_written_to(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        files.ledger.unlink()
        with pytest.raises(led.LedgerError, match="was deleted or moved while"):
            ledger.append("session")


# Checksums


def three(files: led.Files) -> list[bytes]:
    """The lines of a ledger of three sessions with their slots."""
    with led.Ledger(files) as ledger:
        ledger.append_all([("session", {"slots": number}) for number in (10, 20, 30)])
    return files.ledger.read_bytes().splitlines(keepends=True)


def with_seq(line: bytes, seq: int) -> bytes:
    """A line under another number."""
    return re.sub(rb'"seq":\d', b'"seq":%d' % seq, line)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda a, b, c: [a, b.replace(b"20", b"21"), c], 2),
        (lambda a, b, c: [a, with_seq(c, 1)], 2),
        (lambda a, b, c: [a, with_seq(c, 1), with_seq(b, 2)], 2),
        (lambda a, b, c: [a, b, with_seq(b, 2), with_seq(c, 3)], 3),
        (lambda a, b, c: [a.replace(b"10", b"1"), b, c], 1),
        (lambda a, b, c: [a, b, c.replace(b"30", b"31")], 3),
        (lambda a, b, c: [a, b, c.replace(b"30", b"\xb30")], 3),
        (lambda a, b, c: [a, b, c[:-1] + b"\n\n"], 4),
        (lambda a, b, c: [a, b"\0" * 9 + b"\n", c], 2),
        (lambda a, b, c: [a, b[:20] + b"\n", c], 2),
        (lambda a, b, c: [a, b.replace(b',"sum":', b', "sum":'), c], 2),
    ],
    ids=[
        "digit",
        "missing",
        "swapped",
        "doubled",
        "edited",
        "last",
        "bit",
        "empty",
        "zeros",
        "cut",
        "spaced",
    ],
)
@pytest.mark.fault(
    "rows that were changed, swapped, doubled or are missing", "exit code 6, with the line"
)
def test_a_row_that_was_changed_is_damage_at_its_line(
    files: led.Files, change: Callable[..., list[bytes]], line: int
) -> None:
    files.ledger.write_bytes(b"".join(change(*three(files))))
    with pytest.raises(
        led.LedgerError, match=rf"line {line} is damaged: .* keeps the {line - 1} w"
    ):
        led.read(files)


@pytest.mark.parametrize(
    "tail", [b"\0" * 4000, b"\0" * 4000 + b"\n", b'{"seq":3,"ti\0\0\n\0\0\n', b"\x9f\x80\n\xff\n"]
)
@pytest.mark.fault(
    "a power cut that leaves zeros or garbage", "said, and dropped by the next driver"
)
def test_what_a_power_cut_leaves_is_said_and_dropped_by_the_next_driver(
    files: led.Files,
    tail: bytes,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[..., None],
) -> None:
    whole = b"".join(three(files))
    files.ledger.write_bytes(whole + tail)
    assert len(led.read(files)) == 3
    assert f"its last {len(tail)} bytes are no rows" in capsys.readouterr().err
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 3
    record_property(LOST, rows_lost(whole, files.ledger))
    assert f"dropped its last {len(tail)} bytes" in capsys.readouterr().err
    assert files.ledger.read_bytes().startswith(whole) and len(led.read(files)) == 4


def test_the_line_that_a_driver_is_writing_is_not_said(
    files: led.Files, capsys: pytest.CaptureFixture[str]
) -> None:
    three(files)
    with files.ledger.open("ab") as stream:
        stream.write(b'{"seq":3,"ti')
    assert (len(led.read(files)), capsys.readouterr().err) == (3, "")


def test_a_last_row_that_lacks_its_end_alone_is_kept(files: led.Files) -> None:
    files.ledger.write_bytes(b"".join(three(files))[:-1])
    assert [row["seq"] for row in led.read(files)] == [0, 1, 2]
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 3
    assert [row["seq"] for row in led.read(files)] == [0, 1, 2, 3]


def test_a_line_that_a_driver_ends_while_it_is_read_is_no_damage(files: led.Files) -> None:
    class Growing(io.BytesIO):
        """The rest of the file appears once its end was reached."""

        def readline(self, size: int | None = -1, /) -> bytes:
            return super().readline(size) or rest

    lines = three(files)
    whole, rest = b"".join(lines[:2]) + lines[2][:9], lines[2][9:]
    assert [row["seq"] for row in Lines(Growing(whole), files.ledger)] == [0, 1]


def old_rows(files: led.Files) -> list[bytes]:
    """The lines of a ledger of version 0.1 with two rows."""
    files.folder.mkdir()
    time = "2026-01-01T00:00:00.000+00:00"
    rows = [{"seq": number, "time": time, "kind": "withdrawn", "trial": "a"} for number in (0, 1)]
    lines = [json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows]
    files.ledger.write_bytes(b"".join(lines))
    return lines


def test_an_old_ledger_that_was_continued_is_read(files: led.Files) -> None:
    old_rows(files)
    with led.Ledger(files) as ledger:
        ledger.append("session")
    assert [row["kind"] for row in led.read(files)] == ["withdrawn", "withdrawn", "session"]


@pytest.mark.fault("a changed row of version 0.1", "found by the first checksum")
def test_the_first_checksum_of_an_old_ledger_holds_its_old_rows(files: led.Files) -> None:
    old_rows(files)
    with led.Ledger(files) as ledger:
        ledger.append("session")
    files.ledger.write_bytes(files.ledger.read_bytes().replace(b'"a"', b'"b"', 1))
    with pytest.raises(led.LedgerError, match="line 3 is damaged: the checksum"):
        led.read(files)


# Validation


MEASURED = point(1, 1, 3.0)[1] | {"trial": "a"}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"machine": {"memory": [None]}}, "machine.memory: "),
        ({"machine": {"memory": "8 GB"}}, "machine.memory: "),
        ({"machine": {"processor": {"name": "x86"}}}, "machine.processor: "),
        ({"versions": {"torch": 2.7}}, "versions.torch: "),
    ],
    ids=str,
)
@pytest.mark.fault("a session whose machine has wrong types", "exit code 6, with the line")
def test_the_machine_of_a_session_has_types(
    files: led.Files, fields: dict[str, object], rule: str
) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session", **fields)
    with pytest.raises(led.LedgerError, match=f"line 1 is damaged: {rule}"):
        led.read(files)


def test_what_a_later_version_says_of_a_machine_is_skipped(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session", machine={"cpus": 2, "wings": [7]})
    assert led.fold(led.rows(files)).session["machine"] == {"cpus": 2}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"val_loss": None}, "val_loss: .* number, got None"),
        ({"val_loss": "3"}, "val_loss: .* number, got '3'"),
        ({"val_loss": [3.0]}, "val_loss: "),
        ({"val_loss": 1e308}, "val_loss: "),
        ({"tokens": 10**30}, "tokens: "),
        ({"tokens": True}, "tokens: "),
        ({"step": 1.5}, "step: "),
        ({"step": -1}, "step: "),
        ({"worker": "x" * (2**20 + 1)}, "worker: "),
        ({"trial": "../../x"}, "trial: "),
        ({"last": 1}, "last: "),
        ({"first_losses": 3.0}, "first_losses: "),
        ({"worker": {"a": {}}}, "worker: "),
    ],
    ids=str,
)
@pytest.mark.fault("rows with wrong types, NaN or huge numbers", "exit code 6, with the line")
def test_a_record_of_the_wrong_type_is_damage_with_its_line(
    files: led.Files, fields: dict[str, object], rule: str
) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        ledger.append("measured", **MEASURED | fields)
    with pytest.raises(led.LedgerError, match=f"line 2 is damaged: {rule}"):
        led.read(files)


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 10_000, "9" * 10_000]
)
def test_a_number_that_json_lacks_is_damage(files: led.Files, literal: str) -> None:
    rewrite(files, [{"seq": 0, "time": "2026-01-01", "kind": "measured", **MEASURED}])
    text = files.ledger.read_text().replace('"val_loss": 3.0', f'"val_loss": {literal}')
    files.ledger.write_text(text)
    with pytest.raises(led.LedgerError, match="line 1 is damaged"):
        led.read(files)


@pytest.mark.fault("rows of a later version", "skipped, and said once")
def test_kinds_and_fields_of_a_later_version_are_skipped_and_said_once(
    files: led.Files, capsys: pytest.CaptureFixture[str]
) -> None:
    with led.Ledger(files) as ledger:
        ledger.append_all([("measured", MEASURED | {"later": number}) for number in (1, 2)])
        ledger.append_all([("weighed", {"trial": "a"})] * 2)
    assert [(row["kind"], "later" in row) for row in led.read(files)] == [("measured", False)] * 2
    led.read(files)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == [
        "fields of a later version are skipped: 'later' in 'measured'",
        "rows of a later version are skipped: 'weighed'",
    ]


@pytest.mark.fault("a ledger whose texts have control characters", "they never reach a terminal")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\u001b[31mb"),
        ("a\x9bb\x7f", "a\\u009bb\\u007f"),
        ("a\rb", "a\\rb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\tb\nc", "a\tb\nc"),
        ("é \\u001b \\ 🜁", "é \\u001b \\ 🜁"),
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_text_never_moves_the_cursor(
    files: led.Files, text: str, shown: str, ascii_only: bool
) -> None:
    files.folder.mkdir()
    row = {"seq": 0, "time": "2026-01-01T00:00:00+00:00", "kind": "session", "command": text}
    files.ledger.write_text(json.dumps(row, ensure_ascii=ascii_only) + "\n")
    assert led.read(files)[0]["command"] == shown


def test_a_record_that_goes_back_is_damage(files: led.Files) -> None:
    with pytest.raises(led.LedgerError, match="do not come after those of the record before"):
        trial_after(files, [begin(1, 0), point(1, 2, 5.0), point(1, 1, 4.0)])


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
@pytest.mark.fault("a folder, a pipe or a dead link in place of the ledger", "exit code 6")
def test_a_ledger_that_is_no_file_is_damage(files: led.Files, kind: str) -> None:
    files.folder.mkdir()
    make: dict[str, Callable[[], object]] = {
        "folder": files.ledger.mkdir,
        "pipe": lambda: os.mkfifo(files.ledger),
        "link": lambda: files.ledger.symlink_to("nowhere"),
    }
    make[kind]()
    with pytest.raises(led.LedgerError, match=r"ledger.jsonl: is a "):
        led.read(files)


def test_an_older_row_of_a_node_is_of_one_that_was_left_out(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("node", host="a (10.0.0.1)", reason="it has no torch")
    assert led.read(files)[0]["state"] == "refused"


# Clocks


def timed(folder: Path, hours: Callable[[int], float]) -> tuple[list[Bar], float, float]:
    """The bars, the seconds and the busy seconds of a sweep of two sessions whose time of day is off by
    so many hours at its n-th row; a second passes between two rows."""
    seconds, rows = itertools.count(), itertools.count()
    begun = datetime(2026, 1, 1, tzinfo=UTC)

    def now() -> datetime:
        return begun + timedelta(hours=hours(next(rows)))

    for session in (1, 2):
        with led.Ledger(led.Files(folder), lambda: float(next(seconds)), now) as ledger:
            tell = Story(ledger, {} if session == 1 else {"a": 1})
            tell.ask({"optim.lr": {"grid": [1e-3]}})
            if session == 1:
                tell.plan({"optim.lr": 1e-3}, trial="a")
            tell.start("a")
            tell.measure("a", EVERY * session, 3.0)
    of = studied(led.Files(folder))
    return list(timeline(of).bars), of.sweep.seconds, of.sweep.busy_seconds


@pytest.mark.parametrize(
    "hours",
    [
        lambda row: 3.0 * (row > 3),
        lambda row: -365 * 24.0 * (row > 3),
        lambda row: 5.0 * (row > 5),
        lambda row: -24.0 * row,
    ],
    ids=["forward 3 h", "back a year", "between sessions", "at every row"],
)
@pytest.mark.fault("a clock that is set by hours or a year", "durations and pictures stay")
def test_a_clock_that_is_set_changes_no_duration(
    tmp_path: Path, hours: Callable[[int], float]
) -> None:
    assert timed(tmp_path / "set", hours) == timed(tmp_path / "even", lambda row: row / 3600)


# Repair


def damaged_sweep(folder: Path) -> led.Files:
    """A sweep of eight rates, of which a digit flipped in the 30th of its rows."""
    files = lr_sweep(folder)
    lines = files.ledger.read_bytes().splitlines(keepends=True)
    lines[29] = lines[29].replace(b'"attempt":1', b'"attempt":3')
    files.ledger.write_bytes(b"".join(lines))
    return files


@pytest.mark.fault(
    "a damaged ledger, then a repair", "the rows before are kept, the old ledger too"
)
def test_a_repair_keeps_the_rows_before_the_damage_and_the_old_ledger(tmp_path: Path) -> None:
    files = damaged_sweep(tmp_path / "s")
    before = files.ledger.read_bytes()
    done = repair(files)
    assert done is not None and done.backup.read_bytes() == before
    *kept, last = files.ledger.read_bytes().splitlines(keepends=True)
    assert before.startswith(b"".join(kept)) and len(kept) == 29
    told = led.read(files)[-1]
    assert json.loads(last)["kind"] == told["kind"] == "repaired"
    assert told["backup"] == done.backup.name and told["lines"] == sum(told["dropped"].values())
    assert told["damage"].startswith("line 30 is damaged: ") and str(tmp_path) not in last.decode()


def test_a_repair_says_what_has_to_be_trained_again(tmp_path: Path) -> None:
    files = lr_sweep(tmp_path / "s")
    whole = led.fold(led.read(files)).trials.values()
    lines = files.ledger.read_bytes().splitlines(keepends=True)
    planned = 1 + next(n for n, line in enumerate(lines) if b'"started"' in line)
    lines[planned] = b"xx\n"
    files.ledger.write_bytes(b"".join(lines))
    done = repair(files)
    assert done is not None
    assert (done.trials, done.tokens) == (len(whole), sum(trial.tokens for trial in whole))


def test_a_repair_keeps_rows_of_a_later_version_before_the_damage(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append_all([("session", {}), ("later", {"more": 1})])
    whole = files.ledger.read_bytes()
    files.ledger.write_bytes(whole + b"xx\n")
    assert repair(files) is not None
    assert files.ledger.read_bytes().startswith(whole)


def test_a_line_whose_kind_is_damaged_is_one_that_nobody_can_read(tmp_path: Path) -> None:
    files = lr_sweep(tmp_path / "s")
    whole = files.ledger.read_bytes()
    files.ledger.write_bytes(whole.replace(b'"kind":"finished"', b'"kind":"fimished"'))
    repair(files)
    told = led.read(files)[-1]
    assert "fimished" not in told["dropped"] and led.may_have_dropped(told, ["finished"])


def test_a_repaired_ledger_goes_on(tmp_path: Path) -> None:
    files = damaged_sweep(tmp_path / "s")
    repair(files)
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 30
    assert examine(files).damage is None


def test_a_ledger_that_is_not_damaged_is_not_repaired(files: led.Files) -> None:
    three(files)
    assert repair(files) is None and [path.name for path in files.folder.iterdir()] == [
        "ledger.jsonl"
    ]


def test_a_second_repair_keeps_the_first_backup(tmp_path: Path) -> None:
    files = damaged_sweep(tmp_path / "s")
    one = repair(files)
    files.ledger.write_bytes(b"xx\n")
    two = repair(files)
    assert one is not None and two is not None
    assert (one.backup.name, two.backup.name) == ("ledger.jsonl.bak", "ledger.jsonl.bak1")


def test_a_ledger_that_a_driver_holds_is_not_repaired(tmp_path: Path) -> None:
    files = damaged_sweep(tmp_path / "s")
    before = files.ledger.read_bytes()
    with led.Ledger(files), pytest.raises(LockedError):
        repair(files)
    assert files.ledger.read_bytes() == before


@pytest.mark.parametrize(("change", "code"), [(b"", 0), (b"xx\n{}\n", 6), (b'{"se', 0)])
def test_check_exits_with_6_if_a_row_is_damaged(tmp_path: Path, change: bytes, code: int) -> None:
    files = lr_sweep(tmp_path / "s")
    with files.ledger.open("ab") as stream:
        stream.write(change)
    done = CliRunner().invoke(command.app, ["check", str(files.folder)])
    assert (done.exit_code, "sweeps ledger repair" in done.stderr) == (code, code == 6)


def test_check_prints_json(tmp_path: Path) -> None:
    files = lr_sweep(tmp_path / "s")
    done = CliRunner().invoke(command.app, ["check", str(files.folder), "--json"])
    rows = len(files.ledger.read_text().splitlines())
    assert json.loads(done.stdout) == {"ledger": str(files.ledger), "rows": rows, "rest": 0}


def test_what_repair_tells_people(tmp_path: Path) -> None:
    files = damaged_sweep(tmp_path / "s")
    done = CliRunner().invoke(command.app, ["repair", str(files.folder)])
    assert done.exit_code == 0 and "Kept 29 rows. Dropped" in done.stdout
    assert f"The ledger as it was: {files.ledger}.bak" in done.stdout
