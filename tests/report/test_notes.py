"""Notes in a generated file: kept byte for byte, whoever saves when."""

import errno
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.report import notes
from tinylm.files import exchange


def generated(*keys: str, text: str = "generated") -> bytes:
    """A log with a place for the note of each key."""
    blocks = "\n".join(f"## {key}: {text}\n\n{notes.block(key)}\n" for key in keys)
    return f"# Log\n\n{blocks}".encode() + notes.LAST


def with_note(content: bytes, key: str, note: bytes) -> bytes:
    return notes.filled(content, {key.encode(): note})


@given(st.binary().filter(lambda note: b"<!-- end of notes: a -->" not in note))
def test_a_note_of_any_bytes_is_kept_byte_for_byte(note: bytes) -> None:
    content = with_note(generated("a", "b"), "a", note + b"\n")
    assert notes.notes(content)[b"a"] == note + b"\n"


def test_a_note_is_in_its_place_in_the_new_text(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(with_note(generated("a", "b"), "b", b"mine\n"))
    notes.write(path, generated("b", "a", text="anew"))
    assert path.read_bytes() == with_note(generated("b", "a", text="anew"), "b", b"mine\n")


def test_a_note_whose_place_is_gone_is_kept_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(with_note(generated("a", "b"), "b", b"mine\n"))
    notes.write(path, generated("a"))
    notes.write(path, generated("a"))
    assert notes.notes(path.read_bytes()) == {b"a": b"", b"b": b"mine\n"}
    assert path.read_bytes().endswith(notes.LAST)


def test_a_note_without_its_last_line_stops_the_rewrite(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    broken = with_note(generated("a"), "a", b"mine\n").replace(b"<!-- end of notes: a -->\n", b"")
    path.write_bytes(broken)
    with pytest.raises(notes.NotesError, match="the notes of a have no last line"):
        notes.write(path, generated("a", text="anew"))
    assert path.read_bytes() == broken


@pytest.mark.parametrize(
    ("was", "is_now", "said"),
    [
        (b"<!-- notes: a -->\n", b"", "have no first line <!-- notes: a -->"),
        (b"<!-- notes: a -->\n", b"  <!-- notes: a -->\n", "have no last line"),
        (b"<!-- end of", b" <!-- end of", "have no last line"),
    ],
)
def test_a_marker_that_was_removed_or_indented_stops_the_rewrite(
    was: bytes, is_now: bytes, said: str
) -> None:
    content = with_note(generated("a"), "a", b"mine\n")
    with pytest.raises(notes.NotesError, match=said):
        notes.notes(content.replace(was, is_now))


def test_a_key_with_spaces_has_its_note(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    notes.write(path, generated("lr cpu (old)"))
    empty = path.read_bytes()
    path.write_bytes(empty.replace(b"<!-- end of notes", b"mine\n<!-- end of notes"))
    notes.write(path, generated("lr cpu (old)", text="anew"))
    assert list(notes.notes(path.read_bytes()).values()) == [b"mine\n"]


def test_the_notes_of_a_place_that_stands_twice_do_not_multiply(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(with_note(generated("a"), "a", b"mine\n"))
    notes.write(path, generated("a", "a"))
    notes.write(path, generated("a", "a"))
    assert notes.notes(path.read_bytes()) == {b"a": b"mine\n"}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_where_files_cannot_change_places_the_new_one_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def exchange(one: Path, other: Path) -> None:
        raise OSError(code, os.strerror(code), str(other))

    monkeypatch.setattr(notes, "exchange", exchange)
    path = tmp_path / "log.md"
    path.write_bytes(with_note(generated("a"), "a", b"mine\n"))
    notes.write(path, generated("a", text="anew"))
    assert path.read_bytes() == with_note(generated("a", text="anew"), "a", b"mine\n")
    assert {*tmp_path.iterdir()} == {path, tmp_path / ".written"}


def test_an_editor_that_takes_the_file_away_and_brings_another_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do that keep a backup: for a moment there is no file."""
    path = tmp_path / "log.md"
    path.write_bytes(generated("a"))
    path.rename(tmp_path / "log.md~")
    link, brought = os.link, with_note(generated("a"), "a", b"mine\n")

    def late(ours: Path, there: Path) -> None:
        if not there.exists():
            there.write_bytes(brought)
        link(ours, there)

    monkeypatch.setattr(os, "link", late)
    notes.write(path, generated("a", text="anew"))
    assert path.read_bytes() == with_note(generated("a", text="anew"), "a", b"mine\n")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({b"k": b"1"}, {b"k": b"0\n"}, b"1"),
        ({b"k": b"0\n"}, {b"k": b"2"}, b"2"),
        ({b"k": b"0\n1\n"}, {b"k": b"0\n2\n"}, b"0\n2\n1\n"),
        ({b"k": b"1"}, {b"k": b"1"}, b"1"),
        ({}, {b"k": b"2"}, b"2"),
    ],
)
def test_two_changes_of_a_note_are_both_kept(
    one: notes.Notes, other: notes.Notes, both: bytes
) -> None:
    assert notes.merged({b"k": b"0\n"}, one, other) == {b"k": both}


def test_what_is_saved_between_reading_and_writing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor saves in the moment before the new file takes its place."""
    path = tmp_path / "log.md"
    path.write_bytes(generated("a"))
    saved = [with_note(generated("a"), "a", b"just saved\n")]

    def late(ours: Path, path: Path) -> None:
        if saved:
            path.write_bytes(saved.pop())
        exchange(ours, path)

    monkeypatch.setattr(notes, "exchange", late)
    notes.write(path, generated("a", text="anew"))
    assert path.read_bytes() == with_note(generated("a", text="anew"), "a", b"just saved\n")
    assert {*tmp_path.iterdir()} == {path, tmp_path / ".written"}


def test_what_is_saved_over_a_version_that_is_taken_back_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two editors save, the one just before the exchange and the other just after it."""
    path = tmp_path / "log.md"
    path.write_bytes(generated("a", "b"))
    calls = []

    def busy(ours: Path, path: Path) -> None:
        calls.append(ours)
        if len(calls) <= 2:
            key = "ab"[len(calls) - 1]
            path.write_bytes(with_note(path.read_bytes(), key, b"saved\n"))
        exchange(ours, path)

    monkeypatch.setattr(notes, "exchange", busy)
    notes.write(path, generated("a", "b", text="anew"))
    assert notes.notes(path.read_bytes()) == {b"a": b"saved\n", b"b": b"saved\n"}


def saving(path: Path, seconds: float) -> Callable[[], float]:
    """A clock that ticks every half second, by which an editor saves a note after so many seconds."""
    path.write_bytes(generated("a")[:-1])
    ticks = itertools.count(0.0, 0.5)

    def clock() -> float:
        now = next(ticks)
        if now == seconds:
            path.write_bytes(with_note(generated("a"), "a", b"mine\n"))
        return now

    return clock


def test_a_file_that_is_being_saved_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    notes.write(path, generated("a", text="anew"), saving(path, 1.5))
    assert path.read_bytes() == with_note(generated("a", text="anew"), "a", b"mine\n")


def test_a_file_that_is_not_whole_after_two_seconds_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    notes.write(path, generated("a", text="anew"), saving(path, math.inf))
    assert path.read_bytes() == generated("a", text="anew")


def late() -> Callable[[], float]:
    """A clock by which nobody is still saving."""
    return itertools.count(0.0, 10.0).__next__


@pytest.mark.fault("a log that somebody wrote by hand", "it is copied before it is replaced")
def test_a_file_that_others_wrote_is_copied_first(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(b"# My log\n\nlr 0.01 looked best\n")
    copy = notes.write(path, generated("a"), late())
    assert copy == tmp_path / "log.md.bak"
    assert copy.read_bytes() == b"# My log\n\nlr 0.01 looked best\n"
    assert notes.write(path, generated("a"), late()) is None


@pytest.mark.fault("a log that was cut off in somebody's words", "the words are in the copy")
def test_words_outside_the_notes_of_a_file_that_was_cut_off_are_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    notes.write(path, generated("a"), late())
    path.write_bytes(path.read_bytes().removesuffix(notes.LAST) + b"my words\n")
    copy = notes.write(path, generated("a"), late())
    assert copy is not None and copy.read_bytes().endswith(b"my words\n")


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir])
def test_a_log_that_is_no_file_is_an_error_at_once(
    tmp_path: Path, plant: Callable[[Path], object]
) -> None:
    plant(tmp_path / "log.md")
    with pytest.raises(OSError, match=r"not a file|Is a directory"):
        notes.write(tmp_path / "log.md", generated("a"), late())


def test_a_second_copy_does_not_replace_the_first(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(b"mine")
    notes.write(path, generated("a"), late())
    path.write_bytes(b"mine, too")
    assert notes.write(path, generated("a"), late()) == tmp_path / "log.md.bak1"
    assert (tmp_path / "log.md.bak").read_bytes() == b"mine"


EDITOR = """
import os, sys
from pathlib import Path
from sweeps.report import notes
from tinylm.files import exchange

path = Path(sys.argv[1])
for number in range(200):
    content = path.read_bytes()
    kept = notes.notes(content)
    edited = notes.filled(content, {**kept, b"a": kept[b"a"] + b"edit %d\\n" % number})
    if number % 2:  # as some editors save, and as others do
        path.write_bytes(edited)
    else:
        path.with_suffix(".new").write_bytes(edited)
        path.with_suffix(".new").replace(path)
    print(number, flush=True)
"""


@pytest.mark.fault("an editor that saves while the log is rewritten", "no word is lost")
def test_an_editor_that_saves_while_the_file_is_rewritten_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    path.write_bytes(generated("a", "b"))
    with subprocess.Popen(
        [sys.executable, "-c", EDITOR, str(path)], stdout=subprocess.PIPE, text=True
    ) as editor:
        rewrites = 0
        while rewrites < 200 or editor.poll() is None:
            notes.write(path, generated("a", "b", text=str(rewrites)))
            rewrites += 1
    edits = notes.notes(path.read_bytes())[b"a"].decode().splitlines()
    assert editor.returncode == 0
    assert sorted(edits) == sorted(f"edit {number}" for number in range(200))
