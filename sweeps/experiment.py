"""Run one named experiment through the same ledger as a sweep; list, show and compare experiments.

python -m sweeps.experiment --name NAME --config FILE [--set PATH=VALUE]... [--why WORDS]
python -m sweeps.experiment list | show NAME | compare NAME NAME...
"""

from typing import Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import (
    Address,
    Allow,
    AsJson,
    Gpus,
    Slots,
    Tracker,
    command_line,
    console,
    print_json,
    readers,
)
from sweeps.engine.address import LOCAL
from sweeps.ledger import RESULTS
from tinylm.options import Changes
from tinylm.signals import held_back

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="The experiment's name, which is also its folder under results/.")
    ] = "",
    config: Annotated[
        str, typer.Option(help="A shipped config's name, or a YAML or JSON file.")
    ] = "",
    changes: Changes = [],  # noqa: B006 typer copies it
    why: Annotated[
        str, typer.Option(help="The hypothesis or question, for the experiment log.")
    ] = "",
    slots: Slots = None,
    gpus: Gpus = None,
    address: Address = LOCAL,
    tracker: Tracker = None,
    allow: Allow = None,
) -> None:
    """Run a named experiment, or resume it, and add it to the experiment log."""
    if context.invoked_subcommand is not None:
        return
    with exits.reported():
        required = {"name": name, "config": config}
        missing = [f"--{key}: missing" for key, value in required.items() if not value]
        if missing:
            raise exits.UsageError("\n".join(missing))
        with held_back():  # as in `sweeps.run`
            from sweeps.engine import session
        from sweeps.plan.request import experiment_request

        request = experiment_request(name, config, changes, why)
        command = command_line("sweeps.experiment")
        exits.lose_unheard_output()
        options = session.Options(
            command, "--name", address=address, tracker=tracker, slots=slots, gpus=gpus, allow=allow
        )
        raise typer.Exit(session.run(request, RESULTS / name, options, readers(), console()))


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the experiments under results/, one per line."""
    with exits.reported():
        from sweeps.findings.everything import Reader
        from sweeps.report.entries import entries_under
        from sweeps.report.terminal import print_experiments

        reader = Reader()
        entries = entries_under(RESULTS, reader)
        if as_json:
            print_json([entry.as_json() for entry in entries])
        else:
            print_experiments(entries, console())
        left_out = reader.left_out(RESULTS)
        for name, why in left_out.items():
            typer.echo(f"left out: {name}: {exits.message_of(why)}", err=True)
        raise typer.Exit(max((why.code for why in left_out.values()), default=exits.Code.DONE))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of an experiment.")], as_json: AsJson = False
) -> None:
    """Print the log entry of one experiment."""
    with exits.reported():
        from sweeps.report.entries import find_entries
        from sweeps.report.terminal import print_experiment

        (entry,) = find_entries(RESULTS, [name])
        if as_json:
            print_json(entry.as_json())
        else:
            print_experiment(entry, console())


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Names of the experiments.")],
    as_json: AsJson = False,
) -> None:
    """Compare experiments side by side."""
    with exits.reported():
        from sweeps.report.entries import find_entries
        from sweeps.report.terminal import print_comparison

        entries = find_entries(RESULTS, names)
        if as_json:
            print_json([entry.as_json() for entry in entries])
        else:
            print_comparison(entries, console())


if __name__ == "__main__":
    app()
