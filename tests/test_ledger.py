"""The ledger: one writer, whole rows, nothing lost by a crash."""

import errno
import fcntl
import io
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import driver, grid, request
from hypothesis import given
from hypothesis import strategies as st

from sweeps import ledger as led
from sweeps.exits import StorageError


@pytest.fixture
def files(tmp_path: Path) -> led.Files:
    return led.Files(tmp_path / "sweep")


def test_rows_come_back_as_written(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        row = ledger.append("session", cpus=2)
    assert led.read(files) == [row]


def test_rows_are_numbered_across_sessions(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    with led.Ledger(files) as ledger:
        assert ledger.append("session")["seq"] == 1


def test_a_sweep_without_a_ledger_has_no_rows(files: led.Files) -> None:
    assert led.read(files) == []


def test_a_row_is_in_the_file_when_append_returns(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        assert files.ledger.read_bytes().endswith(b"}\n")


def test_a_last_line_that_a_crash_cut_is_no_row(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        row = ledger.append("session")
    with files.ledger.open("ab") as stream:
        stream.write(b'{"seq":1,"kind":"meas')
    assert led.read(files) == [row]


def test_a_writer_replaces_the_line_that_a_crash_cut(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    with files.ledger.open("ab") as stream:
        stream.write(b'{"seq":1,"kind":"meas')
    with led.Ledger(files) as ledger:
        ledger.append("session")
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
def test_a_damaged_line_is_an_error_with_its_number(files: led.Files, damage: bytes) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
    with files.ledger.open("ab") as stream:
        stream.write(damage)
    with pytest.raises(led.LedgerError, match="line 2 is damaged"):
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
        rows = ledger.append_all([("started", {"trial": "a"}), ("started", {"trial": "b"})])
        ledger.append("session")
    assert [(row["seq"], row["trial"]) for row in rows] == [(1, "a"), (2, "b")]
    assert led.read(files) == ledger.rows and len(ledger.rows) == 4


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
    with pytest.raises(led.LedgerError):
        led.Ledger(files)
    assert files.ledger.read_bytes() == b"xx\n"


def test_a_choice_that_lacks_its_grid_is_an_error(files: led.Files) -> None:
    row = {"seq": 0, "time": "2026-01-01T00:00:00+00:00", "kind": "chosen", "arm": "x"}
    with pytest.raises(led.LedgerError, match=r"row 0 is damaged: KeyError.*'grid'"):
        led.fold([row | {"values": {}, "trials": {}, "repeats": []}])


def test_what_json_has_no_word_for_is_not_written(files: led.Files) -> None:
    with led.Ledger(files) as ledger, pytest.raises(ValueError, match="JSON compliant"):
        ledger.append("measured", val_loss=float("nan"))


def test_a_second_writer_is_locked_out(files: led.Files) -> None:
    with led.Ledger(files), pytest.raises(led.LockedError):
        led.Ledger(files)


def test_a_second_writer_is_told_who_the_first_is(files: led.Files) -> None:
    first = rf"\(process {os.getpid()} on {platform.node()}, since \d{{4}}-.* UTC\)$"
    with led.Ledger(files), pytest.raises(led.LockedError, match=first):
        led.Ledger(files)


def test_a_second_writer_is_locked_out_by_one_that_left_no_name(files: led.Files) -> None:
    with led.Ledger(files):
        files.driver.unlink()
        with pytest.raises(led.LockedError, match=r"another driver runs this sweep$"):
            led.Ledger(files)


def test_a_writer_that_wrote_nothing_leaves_nothing(files: led.Files) -> None:
    with led.Ledger(files):
        pass
    assert not files.folder.exists()


def test_a_writer_that_wrote_nothing_leaves_the_rows_of_others(files: led.Files) -> None:
    with led.Ledger(files):
        files.ledger.unlink()
        files.ledger.write_text("theirs")
    assert files.ledger.read_text() == "theirs"


def test_a_file_system_without_locks_is_refused_with_what_to_do(
    files: led.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(stream: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"no locks \(Function not implemented\).* Put the sweep on another file system"
    with pytest.raises(StorageError, match=message):
        led.Ledger(files)


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
        with pytest.raises(led.LockedError):
            led.Ledger(files)
        os.kill(other.pid, signal.SIGKILL)
    with led.Ledger(files) as ledger:
        assert ledger.rows == []


def test_reading_needs_no_lock(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        assert len(led.read(files)) == 1


def test_a_full_disk_leaves_a_readable_ledger(files: led.Files) -> None:
    """A file-size limit is how a full disk looks to a process: the write is cut short."""
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    while True: ledger.append('session', filler='x' * 100)\n"
    )
    command = [sys.executable, "-c", program, str(files.folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert b"OSError" in done.stderr
    assert files.ledger.read_bytes().endswith(b"}\n")
    assert len(led.read(files)) > 3


def test_a_line_that_found_no_room_leaves_the_ledger_writable(files: led.Files) -> None:
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    ledger.append('session')\n"
        "    try: ledger.append('session', filler='x' * 2000)\n"
        "    except OSError: resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, 10**9))\n"
        "    ledger.append('session')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder)], check=True)
    assert [row["seq"] for row in led.read(files)] == [0, 1]


def test_rows_that_find_no_room_together_leave_none_of_them(files: led.Files) -> None:
    program = (
        "import resource, signal, sys, pathlib; from sweeps import ledger as led\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))\n"
        "with led.Ledger(led.Files(pathlib.Path(sys.argv[1]))) as ledger:\n"
        "    ledger.append('session')\n"
        "    try: ledger.append_all([('planned', {'filler': 'x' * 400})] * 5)\n"
        "    except OSError: assert len(ledger.rows) == 1\n"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder)], check=True)
    assert [row["kind"] for row in led.read(files)] == ["session"]


def test_a_row_of_a_trial_that_was_never_planned_is_damage(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("started", trial="nobody", attempt=1, step=0)
    with pytest.raises(led.LedgerError, match="row 0 is damaged"):
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
    return "measured", {"attempt": attempt, "step": step, "tokens": step * 10, "val_loss": loss}


def begin(attempt: int, step: int) -> tuple[str, dict[str, object]]:
    return "started", {"attempt": attempt, "step": step, "checkpoint": None}


def test_an_attempt_that_goes_on_replaces_what_came_after_its_step(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), point(1, 2, 4.0), begin(2, 1), point(2, 2, 4.5)]
    trial = trial_after(files, rows)
    assert [(row["step"], row["val_loss"]) for row in trial.curve] == [(1, 5.0), (2, 4.5)]


def test_what_an_older_attempt_still_says_is_passed_over(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), begin(2, 1), point(1, 2, 9.0), point(2, 2, 4.0)]
    assert trial_after(files, rows).curve[-1]["val_loss"] == 4.0


def test_repeated_work_is_spent_again(files: led.Files) -> None:
    rows = [begin(1, 0), point(1, 1, 5.0), point(1, 2, 4.0), begin(2, 1), point(2, 2, 4.0)]
    trial_after(files, rows)
    assert led.fold(led.read(files)).spent_tokens == 30


def test_rows_are_one_json_object_a_line(files: led.Files) -> None:
    trial_after(files, [begin(1, 0)])
    lines = files.ledger.read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))


def test_a_command_line_that_is_no_text_is_read(files: led.Files) -> None:
    """Half a surrogate pair stands for a byte of a file name that is not UTF-8."""
    with led.Ledger(files) as ledger:
        ledger.append("session", command="run caf\udce9")
    assert led.read(files)[0]["command"] == "run caf\udce9"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_they_were_written(number: float) -> None:
    line = json.dumps({"seq": 0, "kind": "x", "number": number}).encode() + b"\n"
    (row,) = led._rows(io.BytesIO(line), Path("ledger.jsonl"))
    assert row["number"] == number


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
        driver(ledger, request(grid([1e-3]))).begin({})
    rows = led.read(files)
    with pytest.raises(led.LedgerError, match="is not an id"):
        led.fold([{**row, "trial": name} if row["kind"] == "planned" else row for row in rows])


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other/checkpoints/a-1/0/checkpoint.pt",
        "checkpoints/../../x/y/checkpoint.pt",
        "checkpoints/checkpoint.pt",
        "checkpoints/link/a/checkpoint.pt",
        "notes.md",
    ],
)
def test_a_checkpoint_elsewhere_is_damage(files: led.Files, path: str) -> None:
    """What a row names is deleted once the next checkpoint is there."""
    files.checkpoints.mkdir(parents=True)
    (files.checkpoints / "link").symlink_to("/tmp")
    with pytest.raises(led.LedgerError, match=r"line 8 is damaged: path .* is not a checkpoint"):
        files.checkpoint({"seq": 7, "path": path})


def test_a_checkpoint_of_a_sweep_is_where_its_row_says(files: led.Files) -> None:
    path = "checkpoints/a-1/checkpoint_000000/checkpoint.pt"
    assert files.checkpoint({"seq": 7, "path": path}) == files.folder / path


def test_a_ledger_that_was_replaced_is_not_written_to(files: led.Files) -> None:
    """As an editor or a sync tool saves it."""
    with led.Ledger(files) as ledger:
        ledger.append("session")
        copy = files.folder / "copy"
        copy.write_bytes(files.ledger.read_bytes())
        copy.replace(files.ledger)
        with pytest.raises(led.LedgerError, match="was replaced by another file while"):
            ledger.append("session")
    assert len(led.read(files)) == 1


def test_a_ledger_that_was_deleted_is_not_written_to(files: led.Files) -> None:
    with led.Ledger(files) as ledger:
        ledger.append("session")
        files.ledger.unlink()
        with pytest.raises(led.LedgerError, match="was deleted or moved while"):
            ledger.append("session")
