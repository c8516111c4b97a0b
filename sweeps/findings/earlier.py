"""Studies in the folders beside that had the same arms before: who starts a study over until it shows a
difference has looked more often than its verdicts allow for."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from sweeps import ledger
from sweeps.exits import CommandError
from sweeps.ledger import BASELINE, Files, ResultsFolder, Row, Sweep
from sweeps.selection import NO_CHANGE
from tinylm import config as cfg

# Rows after which a run shows a result: its last loss, or its curve until it was ended.
_RESULTS = {"finished", "diverged", "capped", "preempted", "steered"}


@dataclass(frozen=True)
class Elsewhere:
    """The sweeps beside that have studied an arm, by their names."""

    before: list[str]  # that had a result of it before
    other_base: list[str]  # others, that had one of the same changes to another base config
    copies: list[str]  # of the same sweep, which have found something else of the arm


@dataclass(frozen=True)
class _Study:
    first: str  # a digest of its first row with its time, which only a copy shares
    arms: Mapping[str, datetime]  # what was compared, by `_key`, and when it had a first result
    changes: Mapping[str, datetime]  # the same by the changes of the arms, with the scale
    found: Mapping[str, set[str]]  # of the arms, the runs that show a result, and what looks found

    def went_on(self, copied: "_Study", arm: str) -> bool:
        """Whether it has found something of an arm that a copy of it has not."""
        return not self.found.get(arm, set()) <= copied.found.get(arm, set())


class Beside:
    """The studies in results folders, in the folders in them and in the results folders above. Each folder is
    listed once."""

    def __init__(self) -> None:
        # By folder, its studies and the folders in it that are no sweeps.
        self._listed: dict[Path, tuple[dict[Path, _Study], list[Path]]] = {}
        # By results folder, with their names.
        self._found: dict[Path, list[tuple[str, _Study]]] = {}

    def _in(self, folder: Path) -> tuple[dict[Path, _Study], list[Path]]:
        if folder not in self._listed:
            every = [Files(one) for one in sorted(folder.glob("*/"))]
            begun = {files.folder: _begun(files) for files in every if files.has_begun}
            studies = {path: study for path, study in begun.items() if study is not None}
            others = [files.folder for files in every if files.folder not in begun]
            self._listed[folder] = studies, others
        return self._listed[folder]

    def _studies(self, results: Path) -> list[tuple[str, _Study]]:
        if results not in self._found:
            every: dict[Path, _Study] = {}
            for top in _and_above(results):
                for folder in (top, *self._in(top)[1]):
                    every |= self._in(folder)[0]
            self._found[results] = [
                (os.path.relpath(path, results), study) for path, study in every.items()
            ]
        return self._found[results]

    def studied(self, files: Files, sweep: Sweep) -> dict[str, Elsewhere]:
        """The sweeps in the same results folder, in the folders in it and in the results folders above that had
        results of the arms of a study before it had any, by arm.

        A copy of a sweep begins with the same row, so it is not another one, unless it has gone on.
        """
        arms = {name: row["changes"] for name, row in sweep.chosen.items() if name != BASELINE}
        here = Files(files.folder.absolute())
        own = _begun(here) if arms else None
        if own is None or sweep.request is None:
            return {}
        studies = self._studies(here.results.folder)
        keys = {arm: _key(sweep.request["base"], changes) for arm, changes in arms.items()}
        scale = sweep.request["scale"]
        return {
            arm: _of_arm(own, studies, keys[arm], _changes(scale, changes))
            for arm, changes in arms.items()
            if keys[arm] in own.arms
        }


def _of_arm(own: _Study, studies: Iterable[tuple[str, _Study]], arm: str, change: str) -> Elsewhere:
    """The others of some studies that have studied an arm of which a study has a result."""
    until = own.arms[arm]
    before, other_base, copies = [], [], []
    for name, study in studies:
        if study.first == own.first:
            if study.went_on(own, arm):
                copies.append(name)
        elif study.arms.get(arm, until) < until:
            before.append((study.arms[arm], name, study.first))
        elif study.changes.get(change, until) < until:
            other_base.append((study.changes[change], name, study.first))
    return Elsewhere(_in_order(before), _in_order(other_base), copies)


def _in_order(studies: Iterable[tuple[datetime, str, str]]) -> list[str]:
    """The names of studies by the time of their results, of copies that of the first."""
    names: dict[str, str] = {}
    for _, name, first in sorted(studies, key=itemgetter(0)):
        names.setdefault(first, name)
    return list(names.values())


def _and_above(results: Path) -> Iterator[Path]:
    """A folder of sweeps, and the results folders that it is in: those that the experiment log is written to."""
    yield results
    for folder in results.parents:
        if os.access(ResultsFolder(folder).written, os.F_OK):
            yield folder


def _begun(files: Files) -> _Study | None:
    """What the ledger of a study says of it; None for other sweeps, and for those that can't be read."""
    try:
        there, has_driver = files.ledger.stat(), ledger.has_driver(files)
        return _read(files.folder, there.st_mtime_ns, there.st_size, has_driver)
    except (CommandError, OSError):
        return None  # the analysis of that sweep says why


@lru_cache(maxsize=1000)
def _read(folder: Path, changed: int, size: int, has_driver: bool) -> _Study | None:
    """The same, read again only if the file has changed, or its driver has begun or ended. Of a search, only its
    first row is read."""
    first: Row = {}
    request: Row = {}
    runs: dict[str, tuple[str, str]] = {}  # -> what is compared, and the changes
    results: list[tuple[str, str]] = []  # when a run showed one, by ISO 8601, and the run
    found: defaultdict[str, set[str]] = defaultdict(set)
    begun: set[str] = set()  # in this session, runs without a result
    left: set[str] = set()  # the same of the sessions before
    kinds = {"sweep", "chosen", "session", "started", "look", *_RESULTS}
    for row in ledger.rows(Files(folder), kinds):
        match row["kind"]:
            case "sweep":
                first, request = first or row, row
                if not {"arms", "each"} & row["space"].keys():
                    return None
            case "chosen":
                arm = row["changes"]
                what = _key(request["base"], arm), _changes(request["scale"], arm)
                runs |= dict.fromkeys(row["trials"].values(), what)
            case "look":
                for seen in row["arms"].values():
                    key = _key(request["base"], seen["changes"])
                    found[key].add(cfg.digest([row["metric"], seen]))
            case "session":
                left |= begun
                begun.clear()
            case "started":
                begun |= {row["trial"]} & runs.keys()
            case "steered" if row["action"] != "stop" or not row.get("tokens"):
                pass
            case _ if row["trial"] in runs:
                begun.discard(row["trial"])
                results.append((row["time"], row["trial"]))
    results += _last_records(folder, left if has_driver else left | begun)
    arms: dict[str, datetime] = {}
    changes: dict[str, datetime] = {}
    for time, run in sorted(results):
        key, change = runs[run]
        arms.setdefault(key, datetime.fromisoformat(time))
        changes.setdefault(change, datetime.fromisoformat(time))
        found[key].add(run)
    return _Study(cfg.digest(first), arms, changes, found) if first else None


def _last_records(folder: Path, runs: Collection[str]) -> list[tuple[str, str]]:
    """When each of some runs was last measured in a session, and the run: one that failed, or whose driver was killed,
    has a curve that somebody may have seen."""
    last: dict[tuple[int, str], str] = {}  # by session and run
    session = 0
    for row in ledger.rows(Files(folder), {"session", "measured"}) if runs else ():
        if row["kind"] == "session":
            session += 1
        elif row["trial"] in runs:
            last[session, row["trial"]] = row["time"]
    return [(time, run) for (_, run), time in last.items()]


def _key(base: Row, changes: Row) -> str:
    """What an arm and its baseline train, as a digest: seeds and tuned values aside, and whichever of them is the
    arm."""
    plain = cfg.flatten(base)
    return cfg.digest(sorted(cfg.digest(_trained({**plain, **some})) for some in ({}, changes)))


def _changes(scale: str, changes: Row) -> str:
    """The changes of an arm, and the scale that they are made to, as a digest. A scale may be asked for by its
    name or by its file."""
    return cfg.digest([Path(scale).stem, _trained(changes)])


def _trained(settings: Row) -> Row:
    """Settings by sorted paths, without those that do not change the loss."""
    return {path: settings[path] for path in sorted(settings) if path not in NO_CHANGE}
