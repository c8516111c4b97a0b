"""Writing and printing the analysis of a sweep: every file of `results/SWEEP/analysis/`, and `best/`."""

import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sweeps import ledger
from sweeps.exits import StorageError, message_of
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.ledger import Files, Row
from sweeps.report import best, index, log, notes, page
from sweeps.report.answer import answer_words
from sweeps.report.head import best_words
from sweeps.report.next_steps import steps_of
from sweeps.report.summary import markdown
from sweeps.report.tables import arms_table, curves_csv, trials_table
from sweeps.report.terminal import print_result
from sweeps.report.written import Written
from tinylm.files import read_file


@dataclass(frozen=True)
class Analysis:
    """The findings of one analysis and the files it wrote."""

    findings: SearchFindings | StudyFindings
    paths: tuple[Path, ...]
    first: tuple[Path, ...]  # of these, the ones to open first
    model: Path | None  # the folder of the best model
    best: str  # the sentence that says where the best checkpoint is; empty if it is not kept

    def as_json(self) -> Row:
        """The result, and the paths that were written."""
        return {
            **result(self.findings, self.model),
            "paths": [str(path) for path in self.paths],
        }


def result(found: SearchFindings | StudyFindings, model: Path | None) -> Row:
    """The findings, the answer and the next steps in sentences, and the folder of the best model."""
    return {
        **found.as_json(),
        "answer": answer_words(found),
        "next": [step.words for step in steps_of(found)],
        "model": None if model is None else str(model),
    }


def write(files: Files, found: SearchFindings | StudyFindings) -> Analysis:
    """Write the tables, figures and summary of a sweep. Readers never see a partly written file.

    Raises `OSError` if the folder can't be written.
    """
    from sweeps.report import plots

    model = best.write(files, found)  # which the texts name
    figures, figures_before = plots.draw(found), set(_figures(files))
    own = Written(files.written, earlier=bool(figures_before), folder=files.analysis)
    names = list(figures)
    paths = []
    contents = list(_contents(files, found, figures))
    own.adopt([*(path for path, _ in contents), *figures_before])
    for path, content in contents:
        own.write(path, content)
        paths.append(path)
    for stale in figures_before.difference(paths):  # of a path that is no longer swept
        if own.is_own(stale):
            stale.unlink(missing_ok=True)
    pictures = [files.figure(name, "png") for name in plots.to_open_first(names)]
    return Analysis(
        found,
        tuple(paths),
        (files.report, files.summary, *pictures),
        model,
        best_words(files, found),
    )


def _figures(files: Files) -> Iterator[Path]:
    """The figures of the last analysis, by its summary; other pictures beside them are people's own."""
    try:
        names = json.loads(read_file(files.findings, 10**9))["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and ledger.NAME.fullmatch(name):
            yield from (files.figure(name, kind) for kind in ("svg", "png"))


def _contents(
    files: Files, found: SearchFindings | StudyFindings, figures: dict[str, dict[str, bytes]]
) -> Iterator[tuple[Path, bytes]]:
    """The files of an analysis, one by one: those of a large sweep take much memory."""
    for name, kinds in figures.items():
        for kind, content in kinds.items():
            yield files.figure(name, kind), content
    yield files.trials_table, trials_table(found.results).csv()
    yield files.curves_table, curves_csv(found.results)
    facts = {**found.as_json(), "figures": list(figures)}
    yield files.findings, json.dumps(facts, indent=1, allow_nan=False).encode() + b"\n"
    yield files.summary, markdown(found, list(figures), best_words(files, found)).encode()
    yield files.report, page.html(page.page(found, best_words(files, found))).encode()
    if isinstance(found, StudyFindings) and found.comparison is not None:
        yield files.arms_table, arms_table(found.comparison).csv()


def print_path(path: Path, console: Console) -> None:
    """Print a path on a line of its own, as a link."""
    link = Style(link=path.resolve().as_uri())
    console.print(Text(str(path), style=link), soft_wrap=True)


def present(analysis: Analysis, console: Console) -> None:
    """Print the ranking, the answer and what to do next, and the files to open first, each as a link on
    its own line."""
    print_result(analysis.findings, console, analysis.best)
    for path in analysis.first:
        print_path(path, console)


def enter_in_log(reader: Reader, found: log.Content | None = None) -> Path:
    """Write the index and the experiment log of all sweeps under results/; returns the log's path.
    Sweeps that the reader knows are not read again, and what the log says is not found again if it is given.

    Raises `NotesError`, with the log as it is, if a note in it has no end, and `StorageError` if it
    can't be written.
    """
    path = ledger.ResultsFolder().log
    try:
        index.write_index(ledger.RESULTS, reader)
        return log.write(ledger.RESULTS, reader, found)
    except notes.NotesError as error:
        raise notes.NotesError(f"{path} is left as it is: {error}") from error
    except OSError as error:
        raise StorageError(f"{path}: can't be written: {error}") from error


def tell_left_out(reader: Reader, asked: Collection[str]) -> None:
    """Say which sweeps under results/ the index and the log leave out, aside from those asked for."""
    for name, reason in reader.left_out(ledger.RESULTS).items():
        if name not in asked:
            print(f"left out of index and log: {name}: {message_of(reason)}", file=sys.stderr)


def publish(files: Files, console: Console) -> None:
    """Write and print the analysis of a sweep; add it to the experiment log if it is under results/."""
    reader = Reader()
    present(write(files, reader.findings(files)), console)
    if files.folder.parent != ledger.RESULTS:
        return
    try:
        print_path(enter_in_log(reader), console)
        tell_left_out(reader, {files.name})
    except (notes.NotesError, StorageError) as error:
        print(error, file=sys.stderr)
