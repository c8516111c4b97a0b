"""The signals that end a run, and how programs listen to them."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

# All that people, terminals and batch systems end a process with and that can be caught. Slurm sends the
# signal of `--signal`, often SIGUSR1; others send SIGUSR2, or SIGXCPU when the CPU time is used up.
ENDING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGXCPU,
)
# Those by which a batch system warns before it ends a job.
WARNING = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

_AGAIN_SECONDS = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal ends a command."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise `Interrupted`: a handler."""
    raise Interrupted(number)


@contextmanager
def insisting() -> Iterator[None]:
    """Deliver a signal again whose `Interrupted` was lost while the context lasts: Python ignores what is
    raised inside a destructor."""
    before = sys.unraisablehook

    def insist(lost: Any) -> None:
        if isinstance(lost.exc_value, Interrupted):
            number = lost.exc_value.number
            threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main, [number]).start()
        else:
            before(lost)

    sys.unraisablehook = insist
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def held_back() -> Iterator[None]:
    """Hold SIGTERM back while the context lasts; threads that are started in it never receive it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def listening(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Handle the signals that end a run while the context lasts; yields the earlier handlers. Ignored
    signals (SIGHUP under nohup) stay ignored."""
    heard = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in heard}
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
