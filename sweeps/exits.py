"""How commands end: one tree of exceptions, the exit code of each, and the one place that maps them.

    SweepError              a message that ends a command
    |-- UsageError      2   what the user wrote is wrong
    |   `-- NotesError      a note in a generated file lost one of its markers   (report.notes)
    |-- LockedError     5   another driver runs the sweep                        (ledger)
    |-- LedgerError     6   the ledger is damaged                                (ledger)
    |-- StorageError    7   a file or folder can't be read or written
    |-- ClusterError    8   the cluster can't be reached, or was lost            (engine.tune)
    `-- RefusedError    9   the command would change what was measured           (engine.driver)

Exceptions from elsewhere that end a command in the same way:

    tinylm.config.ConfigError           2
    tinylm.yaml.YamlError               2
    tinylm.checkpoint.CheckpointError   6
    OSError                             7
    KeyboardInterrupt                 130

Everything else is a bug and keeps its traceback. This module is at the ground: the ledger imports it,
so it loads nothing but the standard library before a command ends.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class Code(IntEnum):
    """The exit codes of the commands. Diverged and stopped trials are results, not failures."""

    DONE = 0
    USAGE = 2  # what the user wrote is wrong
    FAILED = 3  # some trials failed, or an arm did not apply
    NONE_SUCCEEDED = 4
    LOCKED = 5
    DAMAGED = 6  # a ledger or a checkpoint
    STORAGE = 7  # full, not writable, not shared
    CLUSTER = 8  # lost or unreachable
    REFUSED = 9
    CAPPED = 75  # a budget was reached


def by_signal(number: int) -> int:
    """The exit code of a command that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class SweepError(Exception):
    """A message that ends a command; each kind has its exit code."""

    code: ClassVar[Code]


class UsageError(SweepError, ValueError):
    """What the user wrote is wrong."""

    code = Code.USAGE


class StorageError(SweepError):
    """A file or folder can't be read or written."""

    code = Code.STORAGE


# By their full names: importing a class to name it here would load torch and pydantic.
FOREIGN = {
    "tinylm.config.ConfigError": Code.USAGE,
    "tinylm.yaml.YamlError": Code.USAGE,
    "tinylm.checkpoint.CheckpointError": Code.DAMAGED,
    "builtins.OSError": Code.STORAGE,
}


def code_of(error: BaseException) -> int | None:
    """The exit code of an exception that ends a command; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return by_signal(signal.SIGINT)
    if isinstance(error, SweepError):
        return error.code
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((FOREIGN[name] for name in names if name in FOREIGN), None)


def message_of(error: BaseException) -> str:
    """What people read about an exception that ends a command."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    return getattr(error, "shown", str(error))  # a ConfigError shows its first problems


@contextmanager
def reported() -> Iterator[None]:
    """Print the message of an error that ends a command to stderr, and exit with its code."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        code = code_of(error)
        if code is None:
            raise
        import typer

        print(message_of(error), file=sys.stderr)
        raise typer.Exit(code) from error


@contextmanager
def storing(place: Path) -> Iterator[None]:
    """Make an `OSError` a `StorageError` that names its file, or else this place."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{error.filename or place}: {reason}") from error
