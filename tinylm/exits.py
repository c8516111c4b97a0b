"""How commands end: the exit codes, the errors that have one, and the one place that maps them.

Only the standard library is loaded before a command ends.
"""

import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

from tinylm.signals import insisting, interrupt, listening


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


# A user and password in a URL; a value under a secret's name, also in a URL's query; known forms of keys.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), "***@"),
    (
        re.compile(
            r"((?:^|[\W_])(?:token|secret|password|passwd|pwd|api[_-]?key|access[_-]?key|signature|sig|"
            r"credential)=)[^\s&'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"(\bBearer\s+)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:hf_|ghp_|github_pat_|glpat-)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"), "***"),
)


def masked(text: str) -> str:
    """A text without the passwords, tokens and keys in it."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def message_of(error: BaseException) -> str:
    """What people read about an exception that ends a command: secrets are masked, what a terminal would
    act on is escaped, and long lines are cut."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    text = getattr(error, "shown", str(error))  # a ConfigError shows its first problems
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        text = f"{error.filename}: {reason}" if error.filename else reason
    return "\n".join(map(_line, masked(text).splitlines()))


_LONGEST_LINE = 2000  # characters


def _line(text: str) -> str:
    """A line as people read it."""
    shown = "".join(one if one.isprintable() or one == "\t" else ascii(one)[1:-1] for one in text)
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def system_error(error: BaseException) -> OSError | None:
    """The first error of the system among those that led to an error; None if there is none."""
    return next((one for one in chain(error) if isinstance(one, OSError)), None)


class _Unheard(io.FileIO):
    """A file for output that loses what can't be written, from then on."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            _open_nowhere(self.fileno())
            written = None
        return memoryview(data).nbytes if written is None else written


def _open_nowhere(descriptor: int) -> None:
    """Make a descriptor one of /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _open_streams() -> None:
    """Open /dev/null for the standard streams that are closed: the next file that is opened would take
    the place of one, and get what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nowhere(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 as long as the process


def lose_unheard_output() -> None:
    """Let a command that does more than print go on when nobody reads what it prints: the reader of a
    pipe has ended, or the disk of a log is full."""
    _lose_unheard("stdout", 1)


def _lose_unheard(name: str, descriptor: int) -> None:
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):  # a test's
        return
    stream.flush()
    raw = io.BufferedWriter(_Unheard(descriptor, "w", closefd=False))
    new = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)
    setattr(sys, name, new)


@contextmanager
def reported() -> Iterator[None]:
    """Print the message of an error or a signal that ends a command to stderr, and exit with its code."""
    _open_streams()
    _lose_unheard("stderr", 2)
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
            _open_nowhere(1)
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
