"""How the commands end."""

import sys

import typer


def fail(message: object, code: int = 2) -> typer.Exit:
    """Print what is wrong; the exit to raise."""
    print(message, file=sys.stderr)
    return typer.Exit(code)
