"""The one command: `sweeps COMMAND` is `python -m sweeps.COMMAND`, with the same arguments."""

import importlib
import sys
from collections.abc import Callable

import typer

# A command's module is imported when the command is run: `sweeps --help` answers at once.
COMMANDS = {
    "run": "Run the sweep of a search space, or resume it.",
    "analyze": "Write tables, figures and a summary of sweeps.",
    "replay": "Replay early-stopping policies over recorded curves.",
    "experiment": "Run one named config, or list, show and compare experiments.",
    "watch": "Serve the report of a running sweep.",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hyperparameter sweeps for small language models.",
)


def _command(name: str) -> Callable[[typer.Context], None]:
    """The command of this name, which passes on all its arguments."""

    def run(context: typer.Context) -> None:
        sys.argv[1:] = context.args  # as under `python -m`: a sweep records how it was started
        importlib.import_module(f"sweeps.{name}").app(prog_name=context.command_path)

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


if __name__ == "__main__":
    app(prog_name="sweeps")
