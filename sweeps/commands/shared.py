"""What the commands share: options, the command line, the console, and for a session the readers.

Importing it loads typer alone: `--help` answers at once.
"""

import json
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps import exits
from sweeps.engine import Allowed, TrackerName
from sweeps.engine.address import AUTO, LOCAL
from sweeps.exits import masked_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweeps.engine.session import Readers
    from sweeps.findings.everything import SearchFindings, StudyFindings
    from sweeps.ledger import Files, Sweep, Trial

SweepName = Annotated[
    str,
    typer.Argument(metavar="NAME or DIR", help="Name of a sweep under results/, or its folder."),
]
Address = Annotated[
    str,
    typer.Option(
        help=f"Use a running Ray cluster ({AUTO} or HOST:PORT), or start Ray here ({LOCAL})."
    ),
]
Slots = Annotated[
    int | None,
    typer.Option(min=1, help="Trials at once, at most. Default: what CPUs, GPUs and memory allow."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The number of GPUs that trials share. Default: those that Ray finds if run.device is cuda, else "
        "none. If run.device is cpu, trials train on the CPU, but only as many at once as would fit on these GPUs.",
    ),
]
Tracker = Annotated[
    TrackerName | None, typer.Option(help="Also report the trials to this tracker.")
]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text and tables.")]
Allow = Annotated[
    Allowed | None,
    typer.Option(
        help="Go on although something differs. code: runs that have begun continue under another "
        "version of the training code, torch or numpy."
    ),
]


def command_line(module: str) -> str:
    """The command line of this process, quoted for a shell, without secrets: it is kept and shown."""
    return shlex.join(masked_words([sys.executable, "-m", module, *sys.argv[1:]]))


def console() -> "Console":
    """Where tables are printed; a file or a pipe has no width, and 80 columns would cut them."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def write_new(path: Path, content: str, advice: str) -> None:
    """Write a file that is not there yet; `UsageError`, with advice, if it is."""
    with exits.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(content)
        except FileExistsError:
            raise exits.UsageError(f"{path}: is already there; {advice}") from None


def aside(as_json: bool) -> AbstractContextManager[object]:
    """A context in which what is printed goes to stderr, if the result is printed as JSON."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def print_json(content: Any) -> None:
    """Print a result for programs; every number in it is finite."""
    print(json.dumps(content, indent=1, allow_nan=False))


def print_result_json(files: "Files") -> None:
    """Print the result of a sweep for programs, whose analysis is written."""
    from sweeps.findings.everything import Reader
    from sweeps.report import analysis
    from sweeps.report.best import kept

    found = Reader().findings(files)
    print_json(analysis.result(found, files.best if kept(files, found) else None))


def readers() -> "Readers":
    """What a session needs of the side that reads; each is imported when it is called."""
    from sweeps.engine.session import Readers

    # Both are asked at the end of a session, and nothing between them changes what they find.
    found = cache(_findings)
    return Readers(
        _publish,
        _void_arms,
        lambda files: _to_sample(found(files)),
        lambda files: _to_test(found(files)),
    )


def _publish(files: "Files", console: "Console") -> None:
    from sweeps.report import analysis

    analysis.publish(files, console)


def _void_arms(sweep: "Sweep") -> list[str]:
    from sweeps.findings.arms import void_arms

    return void_arms(sweep)


def _findings(files: "Files") -> "SearchFindings | StudyFindings":
    from sweeps.findings.everything import Reader

    return Reader().findings(files)


def _to_sample(found: "SearchFindings | StudyFindings") -> "Sequence[Sequence[Trial]]":
    from sweeps.findings.best import to_sample

    return to_sample(found)


def _to_test(found: "SearchFindings | StudyFindings") -> "Sequence[Trial]":
    from sweeps.findings.best import to_test

    return to_test(found)
