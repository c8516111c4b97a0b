"""Write tables, figures and summaries of sweeps from their ledgers.

    python -m sweeps.analyze [NAME or DIR]... [--tensorboard]

Everything is written to `results/<sweep>/analysis/`, also while a driver runs. This module imports
neither ray nor torch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from sweeps import exits, ledger
from sweeps.ledger import Files
from sweeps.report import analysis

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _chosen(names: Sequence[str]) -> list[Files]:
    """The named sweeps, or all; `UsageError` with every name that does not exist."""
    if not names:
        sweeps = ledger.sweeps()
        if not sweeps:
            raise exits.UsageError(
                f"no sweeps under {ledger.RESULTS}/; make sweep SPACE=lr runs one"
            )
        return sweeps
    chosen, wrong = [], []
    for name in names:
        try:
            chosen.append(ledger.find_sweep(name))
        except exits.UsageError as error:
            wrong.append(str(error))
    if wrong:
        raise exits.UsageError("\n".join(wrong))
    return chosen


def _analyze(files: Files, *, tensorboard: bool) -> None:
    """Write and print one sweep; `StorageError` if it can't be written."""
    try:
        analysis.present(analysis.write(files), Console())
        if tensorboard:
            from sweeps.report import tensorboard as events

            typer.echo(events.write(files))
    except OSError as error:
        raise exits.StorageError(f"{files.analysis}: can't be written: {error}") from error


def _code(step: Callable[[], None]) -> int:
    """Run one of several steps; print its error, if it has one, and return its exit code."""
    try:
        step()
    except Exception as error:
        code = exits.code_of(error)
        if code is None:
            raise
        typer.echo(exits.message_of(error), err=True)
        return code
    return exits.Code.DONE


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME or DIR]...", help="Sweeps to analyze. Default: all under results/."
        ),
    ] = None,
    *,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
) -> None:
    """Write tables, figures and a summary of sweeps into results/SWEEP/analysis/."""
    with exits.reported():
        chosen = _chosen(names or [])
        codes = [_code(partial(_analyze, files, tensorboard=tensorboard)) for files in chosen]
        if any(files.folder.parent == ledger.RESULTS for files in chosen):
            codes.append(_code(lambda: analysis.print_path(analysis.enter_in_log(), Console())))
        raise typer.Exit(max(codes))


if __name__ == "__main__":
    app()
