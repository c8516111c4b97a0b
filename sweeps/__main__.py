"""The one command: `sweeps COMMAND` is `python -m` and the command's module, with the same arguments."""

import importlib
import sys
from collections.abc import Callable, Sequence

import typer

# A command's module is imported when the command is run: `sweeps --help` answers at once.
COMMANDS = {
    "run": "Run the sweep of a search space, or resume it.",
    "analyze": "Write tables, figures and a summary of sweeps.",
    "new": "Write a search space for a question.",
    "replay": "Replay early-stopping policies over recorded curves.",
    "experiment": "Run one named config, or list, show and compare experiments.",
    "log": "Write the experiment log of all sweeps.",
    "watch": "Serve the reports of the sweeps while they run.",
    "steer": "Stop or finish a trial of a sweep, or end a running sweep early.",
    "next": "Write the search space of the next sweep after one.",
    "export": "Write the best model of a sweep for another program.",
    "ledger": "Check the ledger of a sweep, or save what can be saved of a damaged one.",
    "verify": "Train the first updates of trials again, and compare the losses.",
    "prune": "Delete files of a sweep that are no longer needed.",
}
# The others are `sweeps.COMMAND`.
_ELSEWHERE = {
    name: f"sweeps.commands.{name}"
    for name in ("new", "next", "log", "steer", "export", "ledger", "verify", "prune")
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hyperparameter sweeps for small language models.",
)


def module_of(name: str) -> str:
    """The module of a command."""
    return _ELSEWHERE.get(name, f"sweeps.{name}")


def _run(name: str, arguments: Sequence[str]) -> None:
    """Run a command with its arguments."""
    sys.argv[1:] = arguments  # as under `python -m`: a sweep records how it was started
    importlib.import_module(module_of(name)).app(prog_name=f"sweeps {name}")


def _command(name: str) -> Callable[[typer.Context], None]:
    """The command of this name, which passes on all its arguments."""

    def run(context: typer.Context) -> None:
        _run(name, context.args)

    return run


for _name, _help in COMMANDS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,  # --help is the command's own
        context_settings={
            "allow_extra_args": True,
            "allow_interspersed_args": False,
            "ignore_unknown_options": True,
        },
    )(_command(_name))


def main() -> None:
    """Run the command that the first argument names; without one, print the help."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:  # `app` would load pydantic to pass the arguments on
        _run(name, sys.argv[2:])
    else:
        app(prog_name="sweeps")


if __name__ == "__main__":
    main()
