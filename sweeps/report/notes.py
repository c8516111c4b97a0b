"""Notes that people write in a generated file: kept byte for byte when the file is rewritten.

A note is between two marker lines, `<!-- notes: KEY -->` and `<!-- end of notes: KEY -->`. It may
contain anything except its own end marker, and may be saved while the file is rewritten.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from sweeps.exits import UsageError
from sweeps.ledger import ResultsFolder, write_whole
from sweeps.report.written import Written, digest_of
from tinylm.files import backup_names, exchange, read_file

Notes = dict[bytes, bytes]

LAST = b"<!-- end of the experiment log -->\n"  # a file without it is still being saved
_NOTE = re.compile(
    rb"^<!-- notes: (?P<key>\S+) -->\r?\n(?P<note>.*?)^<!-- end of notes: (?P=key) -->",
    re.MULTILINE | re.DOTALL,
)
# A marker without its partner, or one that is not at the beginning of a line.
_STRAY = re.compile(rb"^[ \t]*<!-- (end of )?notes: (\S*)", re.MULTILINE)
LARGEST = 10**9  # bytes of a file
_SAVING_SECONDS = 2.0  # time that an editor may take to write a file
_EDITING_SECONDS = 0.5  # time that a program may take to read a file, change it and write it


class NotesError(UsageError):
    """A marker was removed or moved, so that a note has no beginning or no end."""


def block(key: str) -> str:
    """The two marker lines of a note; every key in a log is unique."""
    key = quote(key)
    return f"<!-- notes: {key} -->\n<!-- end of notes: {key} -->"


def note(found: Notes, key: str) -> str:
    """The note of a key as text; empty if there is none."""
    return found.get(quote(key).encode(), b"").decode(errors="replace")


def written(there: ResultsFolder) -> Written:
    """What this program wrote into a results folder. Versions that kept no digests ended the log so."""
    try:
        log = read_file(there.log, LARGEST)
    except OSError:
        log = b""
    return Written(there.written, earlier=log.endswith(LAST))


def notes(content: bytes) -> Notes:
    """The notes of a file by key; notes with the same key are joined.

    Raises `NotesError` if a note has no beginning or no end.
    """
    found: Notes = {}
    for match in _NOTE.finditer(content):
        found[match["key"]] = found.get(match["key"], b"") + match["note"]
    stray = _STRAY.search(_NOTE.sub(b"", content))
    if stray is not None:
        key = stray[2].decode(errors="replace")
        which, marker = ("last", "end of notes") if stray[1] is None else ("first", "notes")
        raise NotesError(f"the notes of {key} have no {which} line <!-- {marker}: {key} -->")
    return found


def filled(generated: bytes, kept: Mapping[bytes, bytes]) -> bytes:
    """A generated file with the notes in their places; notes without a place are put at the end."""
    left = dict(kept)

    def fill(match: re.Match[bytes]) -> bytes:
        key = match["key"]
        note = left.pop(key, b"")
        return b"<!-- notes: %b -->\n%b<!-- end of notes: %b -->" % (key, note, key)

    text = _NOTE.sub(fill, generated)
    more = [
        b"<!-- notes: %b -->\n%b<!-- end of notes: %b -->\n" % (key, note, key)
        for key, note in left.items()
        if note.strip()
    ]
    if not more:
        return text
    head = b"## Notes on what is no longer under results/\n\n"
    return text.removesuffix(LAST) + head + b"\n".join(more) + b"\n" + LAST


def merged(before: Notes, one: Notes, other: Notes) -> Notes:
    """The changes in `one` and `other` merged; if both changed a note, keep `other` and append the
    lines `one` added."""
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


def _settled(path: Path, clock: Callable[[], float]) -> bytes | None:
    """The content of a file, once no editor is writing it; None if there is no file."""
    until = clock() + _SAVING_SECONDS
    while True:
        try:
            content = read_file(path, LARGEST)
        except FileNotFoundError:
            return None
        if content.endswith(LAST) or clock() > until:
            return content
        time.sleep(0.01)


def _whole_notes(content: bytes) -> Notes:
    """The notes of a file; none if the file is still being written, as it is read again later."""
    return notes(content) if content.endswith(LAST) else {}


def _exchanged(ours: Path, path: Path) -> bool:
    """Exchange the two files; False if the system can't, and `ours` has replaced the other."""
    try:
        exchange(ours, path)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:
            raise
        ours.replace(path)
        return False
    return True


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_file(path, LARGEST) == content
    except OSError:  # something else
        return False


def _frame(content: bytes) -> str:
    """The digest of a file without its notes, and without what editors do to the ends of lines."""
    empty = _NOTE.sub(rb"<!-- notes: \g<key> -->\n<!-- end of notes: \g<key> -->", content)
    return digest_of(b"\n".join(line.rstrip() for line in empty.splitlines()))


def _copied(path: Path, content: bytes) -> Path:
    """A file beside a file, with its content."""
    copy = next(one for one in backup_names(path) if not one.exists() or _holds(one, content))
    write_whole(copy, content)
    return copy


def write(path: Path, generated: bytes, clock: Callable[[], float] = time.monotonic) -> Path | None:
    """Write a generated file; keep the notes of its earlier version and those saved meanwhile.

    An earlier file is copied first, and the copy's path comes back, if it does not end as a generated one
    does, or has other words outside of its notes than were generated. Raises `NotesError` and leaves the
    file unchanged if a note has no beginning or no end.
    """
    copy, own = None, written(ResultsFolder(path.parent))
    is_known = own.is_known(path)  # else an older version may have written it
    ours = path.with_name(f".{path.name}.{os.getpid()}.new")
    # Just before what we had written and took back, or over it; each with what it was made from.
    saved: list[tuple[Notes, Notes]] = []
    while True:
        seen = _settled(path, clock)
        kept = notes(seen or b"")
        is_own = (seen or b"").endswith(LAST) and (
            not is_known or own.is_content(path, _frame(seen or b""))
        )
        if seen and not is_own:
            copy = _copied(path, seen)
        for before, after in saved:
            kept = merged(before, after, kept)
        content = filled(generated, kept)
        own.add(path, _frame(content))
        write_whole(ours, content)
        try:
            if seen is None:
                os.link(ours, path)
                return copy
            if path.read_bytes() != seen:  # saved while ours was written; no editor has read ours
                continue
            if not _exchanged(ours, path):
                return copy
            displaced = ours.read_bytes()
            if displaced == seen:
                return copy
            # Somebody saved between: that comes back as it is, and is read again. Who read ours in
            # that moment, and saves on it, knows nothing of what was saved: give it time to save.
            exchange(ours, path)
            time.sleep(_EDITING_SECONDS)
            saved.append((notes(seen), _whole_notes(displaced)))
            saved.append((notes(content), notes(_settled(ours, clock) or b"")))
        except (FileExistsError, FileNotFoundError):  # an editor puts it back, or takes it away
            continue
        finally:
            ours.unlink(missing_ok=True)
