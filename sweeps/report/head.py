"""The head of every text on a sweep: its answer with the caveats, the best checkpoint, and what to do next."""

from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.ledger import Files
from sweeps.report.answer import answer_words
from sweeps.report.best import kept
from sweeps.report.next_steps import next_words


def head_words(found: SearchFindings | StudyFindings, best: str = "") -> list[str]:
    """The answer of a sweep with its caveats, where the best checkpoint is, and the next steps, one sentence
    or more each."""
    return [*answer_and_best(found, best), *next_words(found)]


def answer_and_best(found: SearchFindings | StudyFindings, best: str) -> list[str]:
    """The answer of a sweep with its caveats, and where the best checkpoint is, if `best` says so."""
    return [*answer_words(found), *([best] if best else [])]


def best_words(files: Files, found: SearchFindings | StudyFindings) -> str:
    """Where the best checkpoint of a sweep is, and of which run; empty if it is not kept."""
    run = kept(files, found)
    if run is None:
        return ""
    of = f", of {run.label}" * (len(found.results.trials) > 1)
    return f"Best checkpoint: `{files.best}`{of}."
