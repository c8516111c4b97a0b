"""Studies in the folders beside that had the same arms before: who starts a study over until it shows a
difference has looked more often than its verdicts allow for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from sweeps import ledger
from sweeps.exits import CommandError
from sweeps.ledger import BASELINE, Files, Row, Sweep
from sweeps.selection import NO_CHANGE
from tinylm import config as cfg


@dataclass(frozen=True)
class Elsewhere:
    """The sweeps beside that have studied an arm, by their names."""

    before: list[str]  # that were begun before
    other_base: list[str]  # of these, those that compared it with another base config of the scale
    copies: list[str]  # of the same sweep, which have looked at the arm otherwise


@dataclass(frozen=True)
class _Study:
    first: str  # a digest of its first row, which a copy shares
    begun: datetime
    arms: frozenset[str]  # what was compared, by `_key`, of arms with a run that has ended
    changes: frozenset[str]  # of these arms, with the scale
    looks: frozenset[tuple[str, str]]  # an arm, and what a look found of it

    def went_on(self, other: "_Study", arm: str) -> bool:
        """Whether this is a copy of another study that has since looked at an arm otherwise."""
        is_copy = self.first == other.first and not self.looks.isdisjoint(other.looks)
        return is_copy and arm in dict(self.looks - other.looks)


class Beside:
    """The studies in results folders and in the folders in them. Each folder is listed once."""

    def __init__(self) -> None:
        # By results folder, with their names.
        self._found: dict[Path, list[tuple[str, _Study]]] = {}

    def _studies(self, top: Path) -> list[tuple[str, _Study]]:
        if top not in self._found:
            others = [(str(one.folder.relative_to(top)), _begun(one)) for one in _beside(top)]
            self._found[top] = [(name, study) for name, study in others if study is not None]
        return self._found[top]

    def studied(self, files: Files, sweep: Sweep) -> dict[str, Elsewhere]:
        """The sweeps in the same results folder, and in the folders in it, that studied the arms of a study before it
        began, by arm.

        A copy of a sweep begins with the same row, so it is not another one, unless it has gone on.
        """
        arms = {name: row["changes"] for name, row in sweep.chosen.items() if name != BASELINE}
        own = _begun(files) if arms else None
        if own is None or sweep.request is None:
            return {}
        keys = {name: _key(sweep.request["base"], changes) for name, changes in arms.items()}
        changed = {name: _changes(sweep.request, changes) for name, changes in arms.items()}
        studies = self._studies(files.results.folder)
        before = {study.begun: (name, study) for name, study in reversed(studies)}  # each copy once
        earlier = [before[begun] for begun in sorted(before) if begun < own.begun]
        return {
            arm: Elsewhere(
                [name for name, study in earlier if key in study.arms],
                [
                    name
                    for name, study in earlier
                    if key not in study.arms and changed[arm] in study.changes
                ],
                [name for name, study in studies if study.went_on(own, key)],
            )
            for arm, key in keys.items()
        }


def _beside(results: Path) -> Iterator[Files]:
    """The sweeps in a folder, and in the folders in it that are no sweeps themselves."""
    for folder in sorted(results.glob("*/")):
        if (files := Files(folder)).has_begun:
            yield files
        else:
            yield from ledger.sweeps(folder)


def _begun(files: Files) -> _Study | None:
    """What the ledger of a study says of it; None for other sweeps, and for those that can't be read."""
    try:
        there = files.ledger.stat()
        return _read(files.folder, there.st_mtime_ns, there.st_size)
    except (CommandError, OSError):
        return None  # the analysis of that sweep says why


@lru_cache(maxsize=1000)
def _read(folder: Path, changed: int, size: int) -> _Study | None:
    """The same, read once as long as the file does not change. Of a search, only its first row is read."""
    first: Row = {}
    base: Row = {}
    runs: dict[str, tuple[str, str]] = {}  # -> what is compared, and the changes
    ended: set[tuple[str, str]] = set()
    looks: set[tuple[str, str]] = set()
    for row in ledger.rows(Files(folder), {"sweep", "chosen", "look", "finished", "diverged"}):
        match row["kind"]:
            case "sweep":
                first, base = first or row, row["base"]
                if not {"arms", "each"} & row["space"].keys():
                    return None
            case "chosen":
                what = _key(base, row["changes"]), _changes(first, row["changes"])
                runs |= dict.fromkeys(row["trials"].values(), what)
            case "look":
                looks |= set(_found(base, row))
            case _:
                ended |= {runs[trial] for trial in (row["trial"],) if trial in runs}
    if not first:
        return None
    begun = datetime.fromisoformat(first["time"])
    arms, changes = (frozenset(one[part] for one in ended) for part in (0, 1))
    return _Study(cfg.digest(first), begun, arms, changes, frozenset(looks))


def _found(base: Row, look: Row) -> Iterator[tuple[str, str]]:
    """What a look found of each arm."""
    for seen in look["arms"].values():
        yield _key(base, seen["changes"]), cfg.digest([look["metric"], seen])


def _key(base: Row, changes: Row) -> str:
    """What an arm and its baseline train, as a digest: seeds and tuned values aside, and whichever of them is the
    arm."""
    plain = cfg.flatten(base)
    return cfg.digest(sorted(cfg.digest(_trained({**plain, **some})) for some in ({}, changes)))


def _changes(request: Row, changes: Row) -> str:
    """The changes of an arm of a request, and the scale that they are made to, as a digest."""
    return cfg.digest([request["scale"], _trained(changes)])


def _trained(settings: Row) -> Row:
    """Settings by sorted paths, without those that do not change the loss."""
    return {path: settings[path] for path in sorted(settings) if path not in NO_CHANGE}
