"""Run one named experiment through the same ledger as a sweep; list, show and compare experiments.

python -m sweeps.experiment --name NAME --config FILE [--set PATH=VALUE]... [--why WORDS]
python -m sweeps.experiment list | show NAME | compare NAME NAME...
"""

from typing import Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import READERS, Address, Tracker, command_line
from sweeps.engine import session
from sweeps.ledger import RESULTS
from sweeps.plan.request import experiment_request
from sweeps.report.entries import entries_under, find_entries
from sweeps.report.terminal import console, print_comparison, print_experiment, print_experiments

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="The experiment's name, and its folder under results/.")
    ] = "",
    config: Annotated[str, typer.Option(help="A shipped config's name, or a file.")] = "",
    changes: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Replace a value.")
    ] = [],  # noqa: B006 typer copies it
    why: Annotated[str, typer.Option(help="The hypothesis, for the log.")] = "",
    address: Address = "local",
    tracker: Tracker = None,
) -> None:
    """Run a named experiment, or resume it, and enter it in the experiment log."""
    if context.invoked_subcommand is not None:
        return
    with exits.reported():
        required = {"name": name, "config": config}
        missing = [f"--{key}: missing" for key, value in required.items() if not value]
        if missing:
            raise exits.UsageError("\n".join(missing))
        request = experiment_request(name, config, changes, why)
        command = command_line("sweeps.experiment")
        options = session.Options(command, "--name", address=address, tracker=tracker)
        raise typer.Exit(session.run(request, RESULTS / name, options, READERS, console()))


@app.command("list")
def list_all() -> None:
    """Print one line for each experiment under results/."""
    with exits.reported():
        print_experiments(entries_under(RESULTS), console())


@app.command()
def show(name: str) -> None:
    """Print everything that the log says about one experiment."""
    with exits.reported():
        (found,) = find_entries(RESULTS, [name])
        print_experiment(found, console())


@app.command()
def compare(names: list[str]) -> None:
    """Print experiments side by side."""
    with exits.reported():
        print_comparison(find_entries(RESULTS, names), console())


if __name__ == "__main__":
    app()
