"""What the commands that run trials share: three options, the command line, the console, the readers."""

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
Slots = Annotated[
    int | None,
    typer.Option(min=1, help="Trials at once, at most. Default: what CPUs, GPUs and memory allow."),
]
Tracker = Annotated[
    session.Tracker | None, typer.Option(help="Also report the trials to this tracker.")
]


def command_line(module: str) -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join([sys.executable, "-m", module, *sys.argv[1:]])


def _publish(files: Files, console: Console) -> None:
    from sweeps.report import analysis

    analysis.publish(files, console)


READERS = session.Readers(_publish, void_arms)
