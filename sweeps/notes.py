"""What people write into a generated file: kept byte for byte, whatever is written around it.

A note stands between two lines of its own, `<!-- notes: KEY -->` and `<!-- end of notes: KEY -->`.
It may hold anything but its own last line, and may be saved while the file is rewritten.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from sweeps.ledger import write_whole
from tinylm.files import exchange

Notes = dict[bytes, bytes]

LAST = b"<!-- end of the experiment log -->\n"  # a file without it is still being saved
_NOTE = re.compile(
    rb"^<!-- notes: (?P<key>\S+) -->\r?\n(?P<note>.*?)^<!-- end of notes: (?P=key) -->",
    re.MULTILINE | re.DOTALL,
)
_OPENED = re.compile(rb"^<!-- notes: (\S+) -->", re.MULTILINE)
_SAVING_SECONDS = 2.0  # that an editor may take to write a file


class NotesError(ValueError):
    """A marker was removed, so that a note has no end."""


def place(key: str) -> str:
    """The two lines that a note goes between."""
    return f"<!-- notes: {key} -->\n<!-- end of notes: {key} -->"


def notes(content: bytes) -> Notes:
    """The notes of a file by their keys; those of one key, that stands twice, together.

    `NotesError` where a note has no end.
    """
    found: Notes = {}
    for match in _NOTE.finditer(content):
        found[match["key"]] = found.get(match["key"], b"") + match["note"]
    rest = _NOTE.sub(b"", content)
    open_ended = [key.decode(errors="replace") for key in _OPENED.findall(rest)]
    if open_ended:
        raise NotesError(
            f"the notes of {open_ended[0]} have no last line <!-- end of notes: {open_ended[0]} -->"
        )
    return found


def filled(generated: bytes, kept: Mapping[bytes, bytes]) -> bytes:
    """A generated file with the notes in their places; those without one come before its end."""
    left = {key: note for key, note in kept.items() if note.strip()}

    def fill(match: re.Match[bytes]) -> bytes:
        key = match["key"]
        left.pop(key, None)
        note = kept.get(key, b"")
        return b"<!-- notes: %b -->\n%b<!-- end of notes: %b -->" % (key, note, key)

    text = _NOTE.sub(fill, generated)
    if not left:
        return text
    more = [
        b"<!-- notes: %b -->\n%b<!-- end of notes: %b -->\n" % (key, note, key)
        for key, note in left.items()
    ]
    head = b"## Notes on what is no longer under results/\n\n"
    return text.removesuffix(LAST) + head + b"\n".join(more) + b"\n" + LAST


def merged(before: Notes, one: Notes, other: Notes) -> Notes:
    """Two changes of the same notes in one; of a note that both changed, the other's, and behind it
    the lines that the one added."""
    found: Notes = {}
    for key in {**before, **one, **other}:
        was = before.get(key, b"")
        mine, its = one.get(key, was), other.get(key, was)
        if its in (was, mine):
            found[key] = mine
        elif mine == was:
            found[key] = its
        else:
            known = {*was.splitlines(), *its.splitlines()}
            added = [line for line in mine.splitlines() if line not in known]
            found[key] = its + b"".join(line + b"\n" for line in added)
    return found


def _settled(path: Path) -> bytes:
    """The content of a file; where an editor is writing it, once it has."""
    until = time.monotonic() + _SAVING_SECONDS
    while not (content := path.read_bytes()).endswith(LAST) and time.monotonic() < until:
        time.sleep(0.01)
    return content


def _whole_notes(content: bytes) -> Notes:
    """The notes of a file; none of one that is still being written, which is read again later."""
    return notes(content) if content.endswith(LAST) else {}


def write(path: Path, generated: bytes) -> None:
    """Write a generated file, and keep the notes that its earlier version holds, and all that are
    saved meanwhile.

    `NotesError`, with the file as it is, where a note has no end.
    """
    if not path.exists():
        write_whole(path, generated)
        return
    ours = path.with_name(f".{path.name}.{os.getpid()}.new")
    # Just before what we had written and took back, or over it; each with what it was made from.
    saved: list[tuple[Notes, Notes]] = []
    while True:
        seen = _settled(path)
        kept = notes(seen)
        for before, after in saved:
            kept = merged(before, after, kept)
        content = filled(generated, kept)
        write_whole(ours, content)
        try:
            if path.read_bytes() != seen:  # saved while ours was written, which nobody has seen
                continue
            exchange(ours, path)
            displaced = ours.read_bytes()
            if displaced == seen:
                return
            # Somebody saved between: that comes back as it is, and is read again. Who read ours in
            # that moment, and saves on it, knows nothing of what was saved.
            exchange(ours, path)
            saved.append((notes(seen), _whole_notes(displaced)))
            saved.append((notes(content), notes(_settled(ours))))
        finally:
            ours.unlink()
