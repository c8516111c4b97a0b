"""What the commands that run trials share: two options, the command line, the console, readers."""

import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console

from sweeps.engine import session
from sweeps.findings.arms import void_arms
from sweeps.ledger import Files

Address = Annotated[
    str,
    typer.Option(help="Use a running Ray cluster (auto or HOST:PORT), or start Ray here (local)."),
]
Tracker = Annotated[
    session.Tracker | None, typer.Option(help="Also report the trials to this tracker.")
]


def console() -> Console:
    """The console for tables. A file or a pipe has no width, and 80 columns would cut them off."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def command_line(module: str) -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join([sys.executable, "-m", module, *sys.argv[1:]])


def _publish(files: Files, console: Console) -> None:
    from sweeps.report import analysis

    analysis.publish(files, console)


READERS = session.Readers(_publish, void_arms)
