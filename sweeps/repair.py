"""Ledgers that are damaged: what is found in them, and what of them can be kept.

Kept are all whole rows before the first damage, and none after it. Each row says what followed from those
before: a record continues a curve, a decision compares the trials that had arrived, an attempt begins at
a checkpoint. Without one of them, what comes later can't be told from what never was.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweeps.ledger import Files, Ledger, LedgerError, Row, Sweep, open_ledger
from sweeps.rows import KINDS, Lines, sealed
from tinylm.files import backup_names, replacing, sync


@dataclass(frozen=True)
class Examined:
    """What a ledger is, from its first row to its first damage."""

    sweep: Sweep  # what its whole rows say
    rows: int
    state: int  # the checksum after these rows
    whole: int  # their bytes
    rest: int  # bytes after them
    damage: LedgerError | None  # None if what follows was never a whole row, or nothing follows


def examine(files: Files) -> Examined:
    """Read a whole ledger and fold its rows, up to the first damage; `LedgerError` if it is no file."""
    sweep, damage, rows, state, whole = Sweep(source=str(files.ledger)), None, 0, 0, 0
    stream = open_ledger(files)
    if stream is None:
        raise LedgerError(f"{files.ledger}: is not there")
    with stream:
        lines = Lines(stream, files.ledger)
        try:
            for row in lines:
                try:
                    sweep.observe(row)
                    if row["kind"] == "checkpointed":
                        files.checkpoint(row)
                except LedgerError as error:  # in this row
                    damage = error
                    break
                rows, state, whole = lines.number, lines.state, lines.whole
            else:
                rows, state, whole = lines.number, lines.state, lines.whole
        except LedgerError as error:  # in a line that is none
            damage, rows, state, whole = error, lines.number, lines.state, lines.whole
        size = os.fstat(stream.fileno()).st_size
    return Examined(sweep, rows, state, whole, size - whole, damage)


@dataclass(frozen=True)
class Repaired:
    """What a repair kept and dropped."""

    found: Examined
    backup: Path  # the ledger as it was
    lines: int  # that were dropped
    dropped: Mapping[str, int]  # of each kind that could be told
    trials: int  # that have to train again
    tokens: int  # that they train again, at most

    def as_json(self) -> Row:
        """The fields that `sweeps ledger repair --json` prints."""
        return {
            "damage": str(self.found.damage),
            "rows": self.found.rows,
            "lines": self.lines,
            "dropped": dict(self.dropped),
            "trials": self.trials,
            "tokens": self.tokens,
            "backup": str(self.backup),
        }


def repair(files: Files) -> Repaired | None:
    """Replace a damaged ledger by its whole rows and one that says what was dropped, and keep the old one
    beside it; None, and nothing is written, if it is not damaged. `LockedError` while a driver runs the sweep."""
    if not files.ledger.exists():
        raise LedgerError(f"{files.ledger}: is not there")
    with Ledger(files):
        found = examine(files)
        if found.damage is None:
            return None
        backup = _backup(files.ledger)
        with files.ledger.open("rb") as old, replacing(files.ledger) as new:
            for start in range(0, found.whole, _PIECE):
                new.write(old.read(min(_PIECE, found.whole - start)))
            lines, dropped, ends = _dropped(old)
            row = {
                "seq": found.rows,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "kind": "repaired",
                "damage": found.damage.what,
                "lines": lines,
                "dropped": dropped,
                "backup": backup.name,
            }
            new.write(sealed(row, found.state)[0])
    begins = {trial: _resumes(files, found.sweep, trial) for trial in ends}
    again = sum(max(0, ends[trial] - begins[trial]) for trial in ends)
    return Repaired(found, backup, lines, dropped, len(ends), again)


_PIECE = 2**20  # bytes that are copied at once


def _backup(path: Path) -> Path:
    """A second name of a file, with .bak added to its own."""
    backup = next(name for name in backup_names(path) if not os.path.lexists(name))
    try:
        backup.hardlink_to(path)
    except OSError:  # the file system has no links
        shutil.copy2(path, backup)
    sync(backup)
    return backup


_KIND = re.compile(rb'"kind": ?"([a-z]{1,20})"')


def _dropped(lines: Iterable[bytes]) -> tuple[int, dict[str, int], dict[str, int]]:
    """How many lines there are, of each kind that can be told, and the tokens that each trial had reached in those
    that can be read."""
    number, kinds, ends = 0, Counter[str](), dict[str, int]()
    for line in lines:
        number += 1
        kind = _KIND.search(line)
        if kind and (name := kind[1].decode()) in KINDS:
            kinds[name] += 1
        try:
            row = json.loads(line)
            trial, tokens = row["trial"], row["tokens"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(trial, str) and isinstance(tokens, int):
            ends[trial] = max(tokens, ends.get(trial, 0))
    return number, dict(kinds), ends


def _resumes(files: Files, sweep: Sweep, trial: str) -> int:
    """The tokens from which a trial goes on: those of its last checkpoint, if the file is still there."""
    try:
        saved = sweep.find(trial).checkpoint
    except KeyError:  # it is planned again
        return 0
    tokens: int = saved["tokens"] if saved and files.checkpoint(saved).is_file() else 0
    return tokens
