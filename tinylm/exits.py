"""How commands end: the exit codes, the errors that have one, and the one place that maps them.

Only the standard library is loaded before a command ends.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from tinylm.messages import message_of
from tinylm.signals import insisting, interrupt, listening
from tinylm.streams import lose_unheard, open_closed, open_nowhere


class Code(IntEnum):
    """The exit codes of all commands. Diverged and stopped trials are results, not failures."""

    DONE = 0
    USAGE = 2  # what the user wrote is wrong
    FAILED = 3  # some trials failed, or an arm did not apply
    NONE_SUCCEEDED = 4
    LOCKED = 5
    DAMAGED = 6  # a ledger or a checkpoint; losses are not those of the ledger
    STORAGE = 7  # full, not writable, not shared
    CLUSTER = 8  # lost or unreachable
    REFUSED = 9
    CAPPED = 75  # a budget was reached


def by_signal(number: int) -> int:
    """The exit code of a command that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class CommandError(Exception):
    """A message that ends a command; each kind has its exit code."""

    code: ClassVar[Code]


class StorageError(CommandError):
    """A file or folder can't be read or written."""

    code = Code.STORAGE


class LockedError(CommandError):
    """Another process has the sweep, or the run."""

    code = Code.LOCKED


class RefusedError(CommandError):
    """The command would change what was measured."""

    code = Code.REFUSED


def code_of(error: BaseException) -> int | None:
    """The exit code of an exception that ends a command; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return by_signal(getattr(error, "number", signal.SIGINT))
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        return by_signal(signal.SIGPIPE)
    return Code.STORAGE if isinstance(error, OSError) else None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def system_error(error: BaseException) -> OSError | None:
    """The first error of the system among those that led to an error; None if there is none."""
    return next((one for one in chain(error) if isinstance(one, OSError)), None)


@contextmanager
def reported() -> Iterator[None]:
    """Print the message of an error or a signal that ends a command to stderr, and exit with its code."""
    open_closed()
    lose_unheard("stderr")
    try:
        try:
            with insisting(), listening(interrupt):
                yield
        finally:
            sys.stdout.flush()  # what can't be written ends the command here, not later
    except SystemExit as ended:  # by rich, when a pipe has no reader
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        raise SystemExit(by_signal(signal.SIGPIPE)) from ended
    except (Exception, KeyboardInterrupt) as raised:
        # An interruption may have led to another error, e.g. to a failed import.
        error = next((one for one in chain(raised) if isinstance(one, KeyboardInterrupt)), raised)
        code = code_of(error)
        if code is None:
            raise
        import typer

        try:
            sys.stdout.flush()
        except OSError:
            open_nowhere(1)
        if not isinstance(error, BrokenPipeError):
            print(message_of(error), file=sys.stderr)
        raise typer.Exit(code) from error


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Make an `OSError` a `StorageError` that names its file, or else this path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{error.filename or path}: {reason}") from error
