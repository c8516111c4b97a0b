"""One named experiment at a time, through the same ledger, and tables of those there are.

python -m sweeps.experiment --name NAME --config FILE [--set PATH=VALUE]... [--why WORDS]
python -m sweeps.experiment list | show NAME | compare NAME NAME...
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sweeps import ledger as led
from sweeps import text as words
from sweeps.report.experiments import Entry, experiments_under
from sweeps.run import Address, Call, Tracker, console, execute
from tinylm import config as cfg
from tinylm.__main__ import assignments, fail

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
    name: Annotated[str, typer.Option(help="Its folder under results/.")] = "",
    config: Annotated[str, typer.Option(help="A shipped config's name, or a file.")] = "",
    changes: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Replace a value.")
    ] = [],  # noqa: B006 typer copies it
    why: Annotated[str, typer.Option(help="The hypothesis, for the log.")] = "",
    address: Address = "local",
    tracker: Tracker = None,
) -> None:
    """Run a named experiment, or go on with it, and enter it in the experiment log."""
    if context.invoked_subcommand is not None:
        return
    missing = [
        f"--{key}: missing" for key, value in (("name", name), ("config", config)) if not value
    ]
    if missing:
        raise fail("\n".join(missing))
    execute(
        lambda: _wanted(name, config, changes, why),
        Call("sweeps.experiment", address, tracker, "--name"),
    )


def _wanted(name: str, config: str, changes: list[str], why: str) -> Any:
    """What is asked for, and its folder; `ConfigError` with what is wrong in it."""
    from sweeps.plan.request import Request
    from sweeps.plan.space import Space

    if not led.NAME.fullmatch(name):
        raise cfg.ConfigError([f"--name {name}: letters, digits, _, - and . are due"])
    base = cfg.overlay(cfg.load(config), assignments(changes))
    written = {
        "question": why.strip() or name,
        "search": {"method": "grid"},
        "seeds": [base.run.seed],
        "schedule": {"policy": "none"},
    }
    space = Space.model_validate(written)
    return Request(space, written, config, base, Path(config).stem, 0), led.RESULTS / name


def _named(names: list[str]) -> list[Entry]:
    """The experiments of these names; `ConfigError` with those that are none."""
    found = {one.name: one for one in experiments_under(led.RESULTS)}
    there = f"; there are {', '.join(found) or 'none'}"
    wrong = [
        f"{name}: no such experiment under {led.RESULTS}/{cfg.did_you_mean(name, found) or there}"
        for name in names
        if name not in found
    ]
    if wrong:
        raise cfg.ConfigError(wrong)
    return [found[name] for name in names]


def _tell(names: list[str], rows: list[str]) -> None:
    """Print experiments side by side."""
    try:
        found = _named(names)
    except cfg.ConfigError as error:
        raise fail(error) from error
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
    """Print a line for each experiment under results/."""
    shown = ("date", "changes", "validation loss", "hours", "to baseline", "verdict")
    table = Table(box=None, pad_edge=False)
    for title in ("name", *shown):
        table.add_column(title, overflow="fold")
    for one in experiments_under(led.RESULTS):
        cells = [one.name, *(_ROWS[row](one).replace("\n", " ") for row in shown)]
        table.add_row(*map(Text, cells))
    console().print(table)


@app.command()
def show(name: str) -> None:
    """Print all that the log says of one experiment."""
    _tell([name], list(_ROWS))


@app.command()
def compare(names: list[str]) -> None:
    """Print experiments side by side."""
    _tell(names, [row for row in _ROWS if row not in {"why", "observations", "next"}])


if __name__ == "__main__":
    app()
