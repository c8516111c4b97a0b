"""Run one named experiment through the same ledger as a sweep; list, show and compare experiments.

python -m sweeps.experiment --name NAME --config FILE [--set PATH=VALUE]... [--why WORDS]
python -m sweeps.experiment list | show NAME | compare NAME NAME...
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sweeps import exits
from sweeps import ledger as led
from sweeps import text as words
from sweeps.commands.shared import READERS, Address, Tracker, command_line, console
from sweeps.engine import session
from sweeps.plan.request import Request
from sweeps.plan.space import Space
from sweeps.report.entries import Entry, entries_under
from tinylm import config as cfg

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_ROWS: dict[str, Callable[[Entry], str]] = {
    "date": lambda one: one.date,
    "why": lambda one: one.why,
    "changes": lambda one: "\n".join(f"{path}={now}" for path, (_, now) in one.changes.items()),
    "runs": lambda one: f"{one.finished} of {one.runs} finished",
    "training loss": lambda one: words.loss(one.train_loss),
    "validation loss": lambda one: words.loss(one.val_loss),
    "best validation loss": lambda one: words.loss(one.best_val_loss),
    "at step": lambda one: words.whole(one.best_step),
    "hours": lambda one: "" if one.hours is None else f"{one.hours:.3f}",
    "tokens/s": lambda one: words.whole(one.tokens_per_s),
    "to baseline": lambda one: one.comparison.words if one.comparison else "",
    "verdict": lambda one: one.verdict,
    "observations": lambda one: "\n".join(one.observations),
    "next": lambda one: "\n".join(one.next_steps),
}


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="The experiment's name, which is also its folder under results/.")
    ] = "",
    config: Annotated[
        str, typer.Option(help="A shipped config's name, or a YAML or JSON file.")
    ] = "",
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change a value of the config, e.g. optim.lr=3e-3."
        ),
    ] = [],  # noqa: B006 typer copies it
    why: Annotated[
        str, typer.Option(help="The hypothesis or question, for the experiment log.")
    ] = "",
    address: Address = "local",
    tracker: Tracker = None,
) -> None:
    """Run a named experiment, or resume it, and add it to the experiment log."""
    if context.invoked_subcommand is not None:
        return
    with exits.reported():
        required = {"name": name, "config": config}
        missing = [f"--{key}: missing" for key, value in required.items() if not value]
        if missing:
            raise exits.UsageError("\n".join(missing))
        request, folder = _request(name, config, changes, why), led.RESULTS / name
        options = session.Options(
            command_line("sweeps.experiment"), "--name", address=address, tracker=tracker
        )
        raise typer.Exit(session.run(request, folder, options, READERS, console()))


def _request(name: str, config: str, changes: list[str], why: str) -> Request:
    """The request of a command line; raises an error that lists everything wrong in it."""
    if not led.NAME.fullmatch(name):
        raise exits.UsageError(f"--name {name}: expected letters, digits, _, - and .")
    base = cfg.overlay(cfg.load(config), cfg.parse_assignments(changes))
    written = {
        "question": why.strip() or name,
        "search": {"method": "grid"},
        "seeds": [base.run.seed],
        "schedule": {"policy": "none"},
    }
    return Request(Space.model_validate(written), written, config, base, Path(config).stem, 0)


def _named(names: list[str]) -> list[Entry]:
    """The experiments of these names; `UsageError` with the names that don't exist."""
    found = {one.name: one for one in entries_under(led.RESULTS)}
    there = f"; there are {', '.join(found) or 'none'}"
    wrong = [
        f"{name}: no such experiment under {led.RESULTS}/{cfg.did_you_mean(name, found) or there}"
        for name in names
        if name not in found
    ]
    if wrong:
        raise exits.UsageError("\n".join(wrong))
    return [found[name] for name in names]


def _tell(names: list[str], rows: list[str]) -> None:
    """Print experiments side by side."""
    with exits.reported():
        found = _named(names)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for one in found:
        table.add_column(Text(one.name), overflow="fold")
    for row in rows:
        cells = [_ROWS[row](one) for one in found]
        if any(cells):
            table.add_row(row, *map(Text, cells))
    console().print(table)


@app.command("list")
def list_all() -> None:
    """List the experiments under results/, one per line."""
    shown = ("date", "changes", "validation loss", "hours", "to baseline", "verdict")
    with exits.reported():
        found = entries_under(led.RESULTS)
    table = Table(box=None, pad_edge=False)
    for title in ("name", *shown):
        table.add_column(title, overflow="fold")
    for one in found:
        cells = [one.name, *(_ROWS[row](one).replace("\n", " ") for row in shown)]
        table.add_row(*map(Text, cells))
    console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of an experiment.")]) -> None:
    """Print the log entry of one experiment."""
    _tell([name], list(_ROWS))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Names of the experiments.")],
) -> None:
    """Compare experiments side by side."""
    _tell(names, [row for row in _ROWS if row not in {"why", "observations", "next"}])


if __name__ == "__main__":
    app()
