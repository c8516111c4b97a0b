"""Studies in the folders beside that had the same arms before: who starts a study over until it shows a
difference has looked more often than its verdicts allow for."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeps import ledger
from sweeps.exits import CommandError
from sweeps.ledger import BASELINE, Files, Row, Sweep
from sweeps.selection import NO_CHANGE
from tinylm import config as cfg

_Begun = tuple[
    datetime, frozenset[str]
]  # when a study began, and its arms with a run that has ended


def studied_before(files: Files, sweep: Sweep, begun: str) -> dict[str, list[str]]:
    """The sweeps in the same results folder that studied the arms of a study before it began, by arm.

    A copy of a sweep begins with the same row, so it is not another one.
    """
    if sweep.request is None:
        return {}
    own = {
        name: _key(sweep.request["base"], row["changes"])
        for name, row in sweep.chosen.items()
        if name != BASELINE
    }
    found: dict[datetime, tuple[str, frozenset[str]]] = {}
    for beside in ledger.sweeps(files.results.folder) if own else ():
        study = _begun(beside)
        if study is not None and study[0] < datetime.fromisoformat(begun):
            found.setdefault(study[0], (beside.name, study[1]))
    return {
        arm: names
        for arm, key in own.items()
        if (names := [name for name, arms in found.values() if key in arms])
    }


def _begun(files: Files) -> _Begun | None:
    """When a study began, and its arms; None for other sweeps, and for those that can't be read."""
    try:
        there = files.ledger.stat()
        return _read(files.folder, there.st_mtime_ns, there.st_size)
    except (CommandError, OSError):
        return None  # the analysis of that sweep says why


@lru_cache(maxsize=1000)
def _read(folder: Path, changed: int, size: int) -> _Begun | None:
    """The same, read once as long as the file does not change. Of a search, only its first row is read."""
    first: Row | None = None
    base: Mapping[str, Any] = {}
    arms: dict[str, str] = {}  # run -> arm
    seen: set[str] = set()
    for row in _rows(Files(folder)):
        if row["kind"] == "sweep":
            first, base = first or row, row["base"]
            if not {"arms", "each"} & row["space"].keys():
                return None
        elif row["kind"] == "chosen":
            arms |= dict.fromkeys(row["trials"].values(), _key(base, row["changes"]))
        elif row["trial"] in arms:
            seen.add(arms[row["trial"]])
    return None if first is None else (datetime.fromisoformat(first["time"]), frozenset(seen))


def _rows(files: Files) -> Iterator[Row]:
    return ledger.rows(files, {"sweep", "chosen", "finished", "diverged"})


def _key(base: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """What an arm and its baseline train, as a digest: seeds and tuned values aside."""
    plain = cfg.flatten(base)
    both = [{**plain, **some} for some in ({}, changes)]
    return cfg.digest(
        [{path: one[path] for path in sorted(one) if path not in NO_CHANGE} for one in both]
    )
