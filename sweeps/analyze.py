"""Tables, figures and summaries of sweeps: folds over their ledgers, and the command line for it.

    python -m sweeps.analyze [NAME or DIR]... [--tensorboard]

Everything lands whole in `results/<sweep>/analysis/`, and may be written while a driver runs.
This module knows neither ray nor torch.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sweeps import ledger
from sweeps.ledger import Files
from sweeps.report import analysis, notes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def find(name: str) -> Files:
    """The sweep of a name under results/, or in a folder; `ValueError` where there is none."""
    for folder in (ledger.RESULTS / name, Path(name)):
        if Files(folder).ledger.is_file():
            return Files(folder)
    names = [files.name for files in ledger.sweeps()]
    near = difflib.get_close_matches(Path(name).name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(names) or 'none'}"
    missing = "no ledger.jsonl in that folder" if Path(name).is_dir() else "no such sweep"
    raise ValueError(f"{name}: {missing} in {ledger.RESULTS}/ or by path{hint}")


def _chosen(names: Sequence[str]) -> list[Files]:
    """The sweeps that are asked for, or all; `ValueError` with every name that is none."""
    if not names:
        sweeps = ledger.sweeps()
        if not sweeps:
            raise ValueError(f"no sweeps under {ledger.RESULTS}/; make sweep SPACE=lr runs one")
        return sweeps
    chosen, wrong = [], []
    for name in names:
        try:
            chosen.append(find(name))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return chosen


def _analyze(files: Files, *, tensorboard: bool) -> int:
    """Write and print one sweep; the exit code."""
    try:
        analysis.present(analysis.write(files), Console())
        if tensorboard:
            from sweeps.report import tensorboard as events

            typer.echo(events.write(files))
    except ledger.LedgerError as error:
        typer.echo(error, err=True)
        return 6
    except ValueError as error:
        typer.echo(error, err=True)
        return 2
    except OSError as error:
        typer.echo(f"{files.analysis}: can't be written: {error}", err=True)
        return 7
    return 0


def _enter_in_log() -> int:
    """Write and print the experiment log of all sweeps under results/; the exit code."""
    try:
        analysis.print_path(analysis.enter_in_log(), Console())
    except (notes.NotesError, OSError) as error:
        typer.echo(analysis.log_problem(error), err=True)
        return 2 if isinstance(error, notes.NotesError) else 7
    return 0


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME or DIR]...", help="Sweeps; all under results/ if none."),
    ] = None,
    *,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard event files too.")
    ] = False,
) -> None:
    """Write tables, figures and a summary of sweeps into results/SWEEP/analysis/."""
    try:
        chosen = _chosen(names or [])
    except ValueError as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from error
    codes = [_analyze(files, tensorboard=tensorboard) for files in chosen]
    if any(files.folder.parent == ledger.RESULTS for files in chosen):
        codes.append(_enter_in_log())
    raise typer.Exit(max(codes))


if __name__ == "__main__":
    app()
