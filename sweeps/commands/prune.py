"""Delete the files of a sweep that are no longer needed.

sweeps prune NAME [--stopped] [--yes]
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits
from sweeps import ledger as led
from sweeps.commands.shared import AsJson, SweepName, aside, console, print_json

if TYPE_CHECKING:
    from sweeps.engine.prune import Pruning

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: SweepName,
    *,
    stopped: Annotated[
        bool,
        typer.Option(
            "--stopped",
            help="Also delete the checkpoints of stopped trials. What would resume from one, such as an "
            "audit, then trains from the beginning.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which files of a sweep are no longer needed, and delete them if you say so.

    The ledger, your notes and the analysis stay. Exits with 5 while the sweep runs. With --json nothing is
    asked: what is found is deleted with --yes only.
    """
    with exits.reported():
        from sweeps.engine import prune, scratch

        files = led.find_sweep(name)
        with exits.storing(files.folder), led.Ledger(files):
            sweep = led.fold(led.rows(files), str(files.ledger))
            best = best_trials(files, sweep)
            found = prune.find(files, sweep, best, scratch.PLACE, stopped=stopped)
            with aside(as_json):
                _print(files, found)
                is_deleted = bool(found.parts) and _is_wanted(yes, can_ask=not as_json)
                if is_deleted:
                    prune.delete(files, found)
                    print("Deleted.")
            if as_json:
                print_json({"sweep": str(files.folder), **found.as_json(), "deleted": is_deleted})


def _is_wanted(yes: bool, *, can_ask: bool) -> bool:
    """Whether the user wants it deleted, who is asked if there is a terminal."""
    if yes:
        return True
    if can_ask and sys.stdin.isatty():
        return typer.confirm("Delete this?")
    print("Nothing was deleted. To delete this, add --yes.")
    return False


def best_trials(files: led.Files, sweep: led.Sweep) -> set[str]:
    """The trials that `best/` and an export can use: the finished runs of the best values, of the sweep
    and of each arm; and those that still have to read the test text. They are all that finished if this
    version does not know the space of the sweep."""
    from sweeps.findings.best import best_runs, to_test
    from sweeps.findings.everything import Reader, StudyFindings
    from tinylm.config import ConfigError

    try:
        found = Reader().findings(files)
    except (ConfigError, exits.UsageError):
        return {one.trial for one in sweep.everything if one.status == "finished"}
    arms = [arm.name for arm in found.settled] if isinstance(found, StudyFindings) else []
    unread = {run.trial for run in to_test(found)} - sweep.tests.keys()
    return unread | {run.trial for arm in ("", *arms) for run in best_runs(found, arm)}


def _print(files: led.Files, found: "Pruning") -> None:
    """Print what can be deleted, and what stays and why."""
    from rich.table import Table
    from rich.text import Text

    if found.link is not None:
        print(f"{found.link}: is a link, so the checkpoints behind it are left alone")
    table = Table(box=None, pad_edge=False)
    table.add_column(str(files.folder), overflow="fold")
    for heading in ("files", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in found.parts:
        row = (f"delete: {part.what}", f"{len(part.paths):,}", f"{part.size / 1e6:,.1f}")
        table.add_row(*map(Text, row))
    for kept in found.kept:
        row = (f"keep: {kept.why}", f"{kept.checkpoints:,}", f"{kept.size / 1e6:,.1f}")
        table.add_row(*map(Text, row))
    if table.rows:
        console().print(table)
    if not found.parts:
        print(f"{files.folder}: nothing to delete")


if __name__ == "__main__":
    app()
