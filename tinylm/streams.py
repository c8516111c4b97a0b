"""Standard output and errors that are closed, full, or that nobody reads: they never end a command that
works."""

import io
import os
import sys
from pathlib import Path
from typing import Any, Literal

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class _Unheard(io.FileIO):
    """A file for output that loses what can't be written, from then on."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            open_nowhere(self.fileno())
            written = None
        return memoryview(data).nbytes if written is None else written


def open_nowhere(descriptor: int) -> None:
    """Make a descriptor one of /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def open_closed() -> None:
    """Open /dev/null for the standard streams that are closed: the next file that is opened would take
    the place of one, and get what is printed."""
    for descriptor in (0, *_DESCRIPTORS.values()):
        try:
            os.fstat(descriptor)
        except OSError:
            open_nowhere(descriptor)
    for name in _DESCRIPTORS:
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 as long as the process


def lose_unheard_output() -> None:
    """Let a command that does more than print go on when nobody reads what it prints: the reader of a
    pipe has ended, or the disk of a log is full."""
    lose_unheard("stdout")


def lose_unheard(name: Literal["stdout", "stderr"]) -> None:
    """Let a command go on when nobody reads one of its streams."""
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):  # a test's
        return
    stream.flush()
    raw = io.BufferedWriter(_Unheard(_DESCRIPTORS[name], "w", closefd=False))
    new = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)
    setattr(sys, name, new)
