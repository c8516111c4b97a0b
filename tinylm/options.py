"""The option `--set` of every command that takes a config. Importing it loads typer alone."""

from typing import Annotated

import typer

from tinylm.exits import reported


def _assignments(texts: list[str]) -> list[str]:
    """What `--set` was given; ends the command if something is no assignment. In `--set optim.lr 3e-3` that is known
    before 3e-3 is an argument too many."""
    if texts:
        from tinylm import config as cfg

        with reported():
            cfg.parse_assignments(texts)
    return texts


Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value of the config, e.g. budget.tokens=1_000_000.",
        callback=_assignments,
    ),
]
