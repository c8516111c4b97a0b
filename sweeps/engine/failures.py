"""Why a run failed: its kind, and a reason that people can read."""

import errno
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sweeps.exits import StorageError, masked
from sweeps.ledger import OUT_OF_MEMORY, says_out_of_memory
from sweeps.text import duration
from tinylm.exits import chain

How = Literal["out of memory", "storage", "checkpoint", "died", "hung", "node", "error"]

_TRACEBACK = 8000  # characters at the end of one that are kept
# What another attempt would fail with as well: no room, no right to write, a limit, a broken disk.
_STORAGE = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO}
_MEMORY_TYPES = {"MemoryError", "OutOfMemoryError"}
# Tells what an attempt's process raised from all that Ray writes around it.
_MARK = "AttemptError: "
# What Ray says of an actor whose node is gone, or can't be reached.
_NODE_IS_GONE = re.compile(r"The actor \S+ is unavailable: |its node has died")
_MARKED = re.compile(rf"{_MARK}(\{{.*\}})$", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """What made an attempt at a trial fail."""

    how: How
    reason: str
    traceback: str = ""
    number: int = 0  # of the system's error, if `how` is storage; 0 of a store
    file: str = ""  # that could not be read or written then; empty if that is not known


class AttemptError(Exception):
    """A failure as JSON, on its way from the process of an attempt to the driver."""


@contextmanager
def told() -> Iterator[None]:
    """Raise an `AttemptError` for any error: Ray sends it on as text."""
    try:
        yield
    except Exception as error:
        raise AttemptError(json.dumps(asdict(failure_of(error)))) from error


def root_of(error: BaseException) -> BaseException:
    """The error that caused an error, by `raise ... from`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def failure_of(error: BaseException) -> Failure:
    """What an exception means."""
    errors = list(chain(error))
    text = masked("".join(traceback.format_exception(error)))[-_TRACEBACK:]
    for one in errors:
        names = {kind.__name__ for kind in type(one).__mro__}
        if names & _MEMORY_TYPES or says_out_of_memory(str(one)):
            return Failure(OUT_OF_MEMORY, _line(one), text)
    for one in errors:
        if isinstance(one, StorageError):  # of a store
            return Failure("storage", masked(str(one)), text)
    for one in errors:
        if isinstance(one, OSError) and one.errno in _STORAGE:
            file = str(one.filename or "")
            return Failure("storage", os.strerror(one.errno), text, one.errno, file)
    for one in errors:
        # By its name: its module loads torch. A subclass tells of files that may be whole.
        if type(one).__name__ == "CheckpointError":
            return Failure("checkpoint", masked(str(one)), text)
    root = root_of(error)
    return Failure("error", _line(root) + _advice(errors), text)


def storage_words(failure: Failure, folder: Path, checkpoint: int) -> str:
    """What people read of a failure of storage in a sweep with this folder, whose checkpoints have at most
    so many bytes: the file, the room that is left there, and what is needed; or what was said of a store."""
    if not failure.number:
        return failure.reason
    file = Path(failure.file or folder)
    needed = f"a checkpoint takes up to {checkpoint / 1e6:,.1f} MB"
    return f"{file}: {failure.reason}; {_room(file)}, and {needed} there"


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Make an `OSError` a `StorageError` that names its file, or else this folder, and the room there if that
    may be the reason."""
    try:
        yield
    except OSError as error:
        file = Path(error.filename or folder)
        room = f"; {_room(file)}" if error.errno in _STORAGE else ""
        raise StorageError(f"{file}: {error.strerror or error}{room}") from error


def _room(file: Path) -> str:
    """What is free on the disk of a file, which may be gone."""
    place = next(one for one in (file, *file.parents) if one.is_dir())
    return f"{place} has {shutil.disk_usage(place).free / 1e6:,.1f} MB free"


def _line(error: BaseException) -> str:
    """The type of an error and its first line that says something."""
    name = type(error).__name__
    lines = [line.strip() for line in masked(str(error)).splitlines() if line.strip()]
    return f"{name}: {lines[0]}" if lines else name


def _advice(chain: list[BaseException]) -> str:
    """What explains an error of torch.compile's compiler here; empty if nothing does."""
    compiling = any("CppCompileError" in f"{type(one).__name__}: {one}" for one in chain)
    if compiling and " " in sys.prefix:
        return (
            f"; torch.compile can't link in an environment whose path has a space: {sys.prefix} "
            "(move it, or set run.compile: false)"
        )
    return ""


def failure_in(text: str, killed: bool) -> Failure:
    """What Ray's text about a failed attempt means; `killed` is whether the kernel has just killed a
    process for lack of memory."""
    marked = _MARKED.findall(text)
    if marked:
        return Failure(**json.loads(marked[-1]))
    if killed:
        return Failure(
            OUT_OF_MEMORY, "the kernel killed the worker process: out of memory", text[-_TRACEBACK:]
        )
    if _NODE_IS_GONE.search(text):
        reason = "the node that trained it was lost, or can't be reached"
        return Failure("node", reason, text[-_TRACEBACK:])
    reason = (
        "the worker process was killed or crashed (with SIGKILL often for lack of memory; the "
        "kernel's log would say)"
    )
    return Failure("died", reason, text[-_TRACEBACK:])


def hung_for(seconds: float) -> Failure:
    """The failure of an attempt that reported nothing for so long that it was ended."""
    reason = (
        f"no report for {duration(seconds)}: the worker process was ended (resources.hang_after sets "
        "after how many seconds)"
    )
    return Failure("hung", reason)
