"""Write tables, figures and summaries of sweeps from their ledgers.

    python -m sweeps.analyze [NAME or DIR]... [--tensorboard] [--paper] [--json]

Everything is written to `results/<sweep>/analysis/`, also while a driver runs. This module imports
neither ray nor torch.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits, ledger
from sweeps.commands.shared import AsJson, print_json
from sweeps.ledger import Files, Row

if TYPE_CHECKING:
    from sweeps.findings.everything import Reader

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _analyze(
    files: Files, reader: "Reader", found: list[Row] | None, *, tensorboard: bool, paper: bool
) -> None:
    """Write one sweep, and print it or add it to what was found; `StorageError` if it can't be written."""
    from rich.console import Console

    from sweeps.report import analysis

    try:
        findings = reader.findings(files)
        written = analysis.write(files, findings)
        if found is None:
            analysis.present(written, Console())
        else:
            found.append(written.as_json())
        if tensorboard:
            from sweeps.report import tensorboard as events

            typer.echo(events.write(files, findings), err=found is not None)
        if paper:
            from sweeps.report import paper as papers

            typer.echo(papers.write(files, findings), err=found is not None)
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
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Also write PDF figures of a column's width and tables for LaTeX."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write tables, figures and a summary of sweeps into results/SWEEP/analysis/."""
    with exits.reported():
        exits.lose_unheard_output()
        chosen = ledger.find_sweeps(names or [])
        from rich.console import Console

        from sweeps.findings.everything import Reader
        from sweeps.report import analysis

        reader, found = Reader(), list[Row]() if as_json else None
        also = {"tensorboard": tensorboard, "paper": paper}
        steps = [partial(_analyze, files, reader, found, **also) for files in chosen]
        codes = [_code(step) for step in steps]
        if any(files.folder.parent == ledger.RESULTS for files in chosen):
            shown = Console(quiet=as_json)
            codes.append(_code(lambda: analysis.print_path(analysis.enter_in_log(reader), shown)))
            analysis.tell_left_out(reader, {files.name for files in chosen})
        if found is not None:
            print_json(found)
        raise typer.Exit(max(codes))


if __name__ == "__main__":
    app()
