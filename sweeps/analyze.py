"""Tables, figures and summaries of sweeps: folds over their ledgers, and the command line for it.

    python -m sweeps.analyze [NAME or DIR]... [--tensorboard]

Everything lands whole in `results/<sweep>/analysis/`, and may be written while a driver runs.
This module knows neither ray nor torch.
"""

import csv
import difflib
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.style import Style
from rich.text import Text

from sweeps import ledger
from sweeps.findings.arms import arms_table
from sweeps.findings.everything import findings
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    Facts,
    Results,
    best_record,
    reason_of,
    results_of,
    status_of,
    tokens_per_s,
)
from sweeps.ledger import Files, Row, Trial
from sweeps.report.experiments import results_under
from sweeps.report.summary import markdown, print_result
from sweeps.text import named

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

CURVE = ("step", "tokens", "seconds", "train_loss", "val_loss", "bits_per_byte", "lr", "grad_norm")
MEASURED = (
    "steps",
    "tokens",
    "train_loss_final",
    "val_loss_final",
    "val_loss_best",
    "step_best",
    "bits_per_byte_final",
    "seconds",
    "tokens_per_s",
)
# To be looked at, beside the loss against each path.
FIRST = ("report.html", "summary.md", "arms.png", "loss_by_tokens.png")


# Tables -----------------------------------------------------------------------------------------


def trials_table(results: Results) -> tuple[tuple[str, ...], list[Row]]:
    """The columns, and one row a trial in plan order. What was not measured is None.

    `*_final` is the last that was measured: for a stopped trial, where it stopped; what an audit of
    it measured last is `val_loss_audited`. Steps and tokens of a diverged trial are where it
    diverged, past its last record.
    """
    paths = [swept.path for swept in results.swept]
    head = ("trial", "label", "status", "outcome", "reason", "seed")
    columns = (*head, *paths, "params", *MEASURED, "val_loss_audited")
    trials = results.sweep.trials.values()
    return columns, [_trial_row(trial, results.sweep.audit(trial.trial), paths) for trial in trials]


def _trial_row(trial: Trial, audit: Trial | None, paths: Sequence[str]) -> Row:
    audited = audit is not None and audit.status == "finished"
    last = trial.curve[-1] if trial.curve else None
    best = best_record(trial)
    reached = last is not None or trial.status == "diverged"
    return {
        "trial": trial.trial,
        "label": trial.label,
        "status": status_of(trial),
        "outcome": outcome(trial),
        "reason": reason_of(trial),
        "seed": trial.seed,
        **{path: trial.values.get(path) for path in paths},
        "params": trial.params,
        "steps": trial.step if reached else None,
        "tokens": trial.tokens if reached else None,
        "train_loss_final": last and last["train_loss"],
        "val_loss_final": last and last["val_loss"],
        "val_loss_best": best and best["val_loss"],
        "step_best": best and best["step"],
        "bits_per_byte_final": last and last["bits_per_byte"],
        "seconds": last and last["seconds"],
        "tokens_per_s": tokens_per_s(trial),
        "val_loss_audited": audit.curve[-1]["val_loss"] if audit and audited else None,
    }


def curves_table(results: Results) -> tuple[tuple[str, ...], list[Row]]:
    """The columns, and one row a record, by trial and step; `score` is the sweep's metric, and
    `decayed` the same after a decay branch.

    What an audit added to a stopped trial is marked. A trial that diverged ends with a row whose
    score is nan, so that `sweeps.replay` reads the file.
    """
    paths = [swept.path for swept in results.swept]
    columns = ("trial", *CURVE, "score", "decayed", *paths, "seed", "audited")
    return columns, [
        row
        for trial in results.trials
        for row in _curve_rows(trial, results.sweep.audit(trial.trial), results.metric, paths)
    ]


def _curve_rows(
    trial: Trial, audit: Trial | None, metric: str, paths: Sequence[str]
) -> Iterator[Row]:
    """The records of a trial, and those that an audit of it added."""
    values = {path: trial.values.get(path) for path in paths}
    who = {"trial": trial.trial, **values, "seed": trial.seed}
    ended = audit or trial  # an audit's curve begins with its trial's
    for number, row in enumerate(ended.curve):
        audited = {"audited": True if number >= len(trial.curve) else None}
        scores = {"score": row[metric], "decayed": row.get(f"decayed_{metric}")}
        yield {**who, **{name: row[name] for name in CURVE}, **scores, **audited}
    if ended.status == "diverged":
        where = dict.fromkeys(CURVE) | {"step": ended.step, "tokens": ended.tokens}
        audited = {"audited": True if audit is not None else None}
        yield {**who, **where, "score": "nan", "decayed": None, **audited}


def _cell(value: Any) -> Any:
    """A value as a CSV cell: missing is empty, and text never becomes a spreadsheet's formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value is None or not math.isfinite(value) else value


def _csv(columns: Iterable[str], rows: Iterable[Row]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(columns)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return stream.getvalue().encode()


# Writing and the command line ---------------------------------------------------------------------


@dataclass(frozen=True)
class Analysis:
    """What one analysis found and wrote."""

    facts: Facts  # the content of summary.json
    paths: tuple[Path, ...]


def write(files: Files) -> Analysis:
    """Write the tables, figures and summary of a sweep; each file whole, so readers see no half.

    Raises `LedgerError` where the ledger is damaged, `ValueError` where it asks nothing yet and
    `OSError` where the folder can't be written.
    """
    from sweeps.report import page as report
    from sweeps.report import plots

    rows = ledger.read(files)
    results = results_of(files.name, rows)
    figures = plots.draw(results)
    names = list(dict.fromkeys(Path(name).stem for name in figures))
    found = {**findings(results), "figures": names}
    contents = {
        **figures,
        "trials.csv": _csv(*trials_table(results)),
        "curves.csv": _csv(*curves_table(results)),
        "summary.json": json.dumps(found, indent=1, allow_nan=False).encode() + b"\n",
        "summary.md": markdown(found).encode(),
        report.NAME: report.html(report.page(results, found, rows)).encode(),
    }
    if results.is_study and found["arms"] is not None:
        places = arms_table(found["arms"], named)
        contents["arms.csv"] = _csv(places[0], places)
    for name, content in contents.items():
        ledger.write_whole(files.analysis / name, content)
    for stale in (*files.analysis.glob("*.svg"), *files.analysis.glob("*.png")):
        if stale.name not in contents:  # of a path that is no longer swept
            stale.unlink(missing_ok=True)
    return Analysis(found, tuple(files.analysis / name for name in contents))


def present(analysis: Analysis, console: Console) -> None:
    """Print the ranking, and the files to open first, each on its own line to be clicked on."""
    print_result(analysis.facts, console)
    for path in sorted(analysis.paths, key=lambda path: path.suffix):  # .md before .png
        if path.name in FIRST or path.match("loss_vs_*.png"):
            link = Style(link=path.resolve().as_uri())
            console.print(Text(str(path), style=link), soft_wrap=True)


def publish(files: Files, console: Console) -> None:
    """Write and print one sweep, and enter it in the experiment log where it is under results/."""
    present(write(files), console)
    if files.folder.parent == ledger.RESULTS:
        enter_in_log()


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
        found = ledger.sweeps()
        if not found:
            raise ValueError(f"no sweeps under {ledger.RESULTS}/; make sweep SPACE=lr runs one")
        return found
    found, wrong = [], []
    for name in names:
        try:
            found.append(find(name))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def _analyze(files: Files, *, tensorboard: bool) -> int:
    """Write and print one sweep; the exit code."""
    try:
        present(write(files), Console())
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


def enter_in_log() -> int:
    """Write the experiment log of all sweeps under results/; the exit code."""
    from sweeps.report import log, notes
    from sweeps.report import page as report

    try:
        all_results = results_under(ledger.RESULTS)
        report.write_index(ledger.RESULTS, all_results)
        path = log.write(ledger.RESULTS, all_results)
    except notes.NotesError as error:
        typer.echo(f"{ledger.RESULTS / log.NAME} is left as it is: {error}", err=True)
        return 2
    except OSError as error:
        typer.echo(f"{ledger.RESULTS / log.NAME}: can't be written: {error}", err=True)
        return 7
    Console().print(Text(str(path), style=Style(link=path.resolve().as_uri())), soft_wrap=True)
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
        codes.append(enter_in_log())
    raise typer.Exit(max(codes))


if __name__ == "__main__":
    app()
