"""The signals that end a run, and how programs listen to them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

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
