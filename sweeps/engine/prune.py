"""What of a sweep's files is no longer needed: checkpoints that nothing resumes from, and what is left over.

Only files that this program and Ray Tune write, by their names and places, are ever deleted; a link is
neither followed nor removed. The ledger, notes and the analysis stay.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps import ledger as led
from sweeps.engine import scratch

# What Ray Tune writes in `checkpoints` for a restart of its own, and in the folder of a failed attempt.
_SNAPSHOTS = ("experiment_state-*.json", "search_gen_state-*.json", "tuner.pkl")
_ERRORS = ("error.pkl", "error.txt")

ENDED = "checkpoints of trials that have ended"
STOPPED = "checkpoints of trials that were stopped"
UNNAMED = "files of earlier attempts that no row names"
SNAPSHOTS = "snapshots of Ray Tune, which nothing reads"
TEMPORARY = "temporary folders of drivers that died, of any sweep"


@dataclass(frozen=True)
class Part:
    """Files that can be deleted, or folders whose drivers died."""

    what: str
    paths: tuple[Path, ...]
    size: int  # bytes that are freed: a file that has another name, as one in best/ has, frees none


@dataclass(frozen=True)
class Kept:
    """Checkpoints that stay."""

    why: str
    checkpoints: int
    size: int  # bytes


@dataclass(frozen=True)
class Pruning:
    """What can be deleted of a sweep, and what stays."""

    parts: tuple[Part, ...]
    kept: tuple[Kept, ...]
    link: Path | None = None  # the folder of the checkpoints, if it is a link: it is left alone

    def as_json(self) -> led.Row:
        """The fields that `sweeps prune --json` prints."""
        return {
            "parts": [
                {"what": one.what, "files": len(one.paths), "bytes": one.size} for one in self.parts
            ],
            "kept": [
                {"why": one.why, "checkpoints": one.checkpoints, "bytes": one.size}
                for one in self.kept
            ],
            "link": None if self.link is None else str(self.link),
        }


def find(
    files: led.Files, sweep: led.Sweep, best: set[str], temporary: Path, *, stopped: bool = False
) -> Pruning:
    """What can be deleted of a sweep that no driver runs, and of the folders of drivers in `temporary`; with
    `stopped` also what an audit, or a change of the space, would resume from. The trials in `best`, and
    those whose texts were sampled, keep their checkpoints. Deletes nothing.

    `LedgerError` if a row names a checkpoint outside of the sweep.
    """
    free: dict[str, list[Path]] = {}
    keep: dict[str, list[Path]] = {}
    link = files.checkpoints if files.checkpoints.is_symlink() else None
    if link is None:
        owner = {
            files.checkpoint(saved).resolve(): trial
            for trial in sweep.everything
            for saved in trial.checkpoints
            if saved["trial"] == trial.trial  # an audit begins from that of another trial
        }
        if sweep.sampled is not None:
            best = best | {text["trial"] for text in sweep.sampled["texts"]}
        for file in _checkpoints(files, sweep):
            trial = owner.get(file.resolve())
            why = "" if trial is None else _why(trial, best, stopped=stopped)
            if why:
                keep.setdefault(why, []).append(file)
            elif trial is None:
                free.setdefault(UNNAMED, []).append(file)
            else:
                free.setdefault(STOPPED if trial.status == "stopped" else ENDED, []).append(file)
        free.setdefault(UNNAMED, []).extend(_errors(files, sweep))
        free[SNAPSHOTS] = [file for name in _SNAPSHOTS for file in files.checkpoints.glob(name)]
    parts = [_part(what, filter(_is_file, paths)) for what, paths in free.items()]
    parts.append(_part(TEMPORARY, scratch.left_by_the_dead(temporary)))
    kept = [Kept(why, len(paths), sum(map(_size, paths))) for why, paths in keep.items()]
    return Pruning(tuple(part for part in parts if part.paths), tuple(kept), link)


def _checkpoints(files: led.Files, sweep: led.Sweep) -> Iterator[Path]:
    """The checkpoints in the folders of attempts, none of them by a link."""
    for attempt in files.attempts(one.trial for one in sweep.everything):
        for folder in files.saved(attempt):
            file = folder / files.CHECKPOINT
            if _is_file(file):
                yield file


def _errors(files: led.Files, sweep: led.Sweep) -> list[Path]:
    """What Ray Tune wrote of attempts that failed."""
    attempts = files.attempts(one.trial for one in sweep.everything)
    return [attempt / name for attempt in attempts for name in _ERRORS]


def _why(trial: led.Trial, best: set[str], *, stopped: bool) -> str:
    """Why the checkpoints of a trial stay; empty if nothing needs them. `stopped` is whether those of stopped
    trials may go."""
    if trial.status not in led.SETTLED:
        return "a trial resumes from there"
    if trial.trial in best:
        return "runs of the best values, of the sweep and of each arm: best/ and an export use them"
    if trial.how == led.AT_TARGET and not trial.is_whole:
        return "a trial that ended at its target resumes from there if the target changes"
    if trial.status == "stopped" and not stopped:
        return (
            "an audit, or a change of the space, resumes a stopped trial from there (--stopped deletes "
            "it too)"
        )
    return ""


def _is_file(path: Path) -> bool:
    """Whether a path is a file, and no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file."""
    return path.lstat().st_size


def _freed(path: Path) -> int:
    """Bytes that are free once a file, or all files in a folder, are deleted."""
    inside = [Path(top) / name for top, _, names in os.walk(path) for name in names]
    found = [one.lstat() for one in (path, *inside) if _is_file(one)]
    return sum(one.st_size for one in found if one.st_nlink == 1)


def _part(what: str, paths: Iterable[Path]) -> Part:
    found = tuple(paths)
    return Part(what, found, sum(map(_freed, found)))


def delete(files: led.Files, found: Pruning) -> None:
    """Delete what was found, and the folders of checkpoints and attempts that are empty without it."""
    for part in found.parts:
        for path in part.paths:
            if part.what == TEMPORARY:
                scratch.remove_if_dead(path)
            else:
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, files.checkpoints)


def _remove_empty(folder: Path, end: Path) -> None:
    """Remove a folder, and those above it below `end`, as far as they are empty."""
    with contextlib.suppress(OSError):
        while folder != end:
            folder.rmdir()
            folder = folder.parent
