"""Sentences on how runs begin and what they read: the loss at init, passes over the training text, and
overfitting."""

from collections.abc import Sequence

from sweeps.findings.doubts import high_init
from sweeps.findings.everything import Findings
from sweeps.ledger import Trial
from sweeps.outcomes import Overfit
from sweeps.report.markdown import Column, escaped, table
from sweeps.text import (
    init_words,
    inits_words,
    loss,
    passes_words,
    quantity,
    sentence,
    signed,
    whole,
)

COLUMNS = (
    Column[Overfit]("trial", lambda o: escaped(o.trial.label), is_text=True),
    Column[Overfit]("lowest validation loss", lambda o: loss(o.best.val_loss)),
    Column[Overfit]("at tokens", lambda o: whole(o.best.tokens)),
    Column[Overfit]("gap there", lambda o: signed(o.best.gap)),
    Column[Overfit]("last validation loss", lambda o: loss(o.end.val_loss)),
    Column[Overfit]("at its tokens", lambda o: whole(o.end.tokens)),
    Column[Overfit]("gap at the end", lambda o: signed(o.end.gap)),
)


def passes_of(trials: Sequence[Trial]) -> str:
    """A sentence on how often each of the trials reads its training text; empty if that is not known."""
    known = [
        (trial.passes, trial.train_tokens)
        for trial in trials
        if trial.passes is not None and trial.train_tokens is not None
    ]
    return sentence(passes_words(known)) if known else ""


def overfit_words(found: Findings) -> list[str]:
    """Which trials overfitted, and where their validation losses were lowest; empty if none did."""
    if not found.overfitted:
        return []
    first, *others = found.overfitted
    number = quantity(len(found.results.trials), "trial")
    lowest = "its lowest validation loss" if not others else "the lowest validation loss of these"
    return [
        f"{len(found.overfitted)} of {number} overfitted: the validation loss rose while the training loss "
        "still fell. Trials are compared by their final losses.",
        f"{lowest.capitalize()} was {loss(first.best.val_loss)}, at {first.best.tokens:,} tokens"
        f"{f' ({first.trial.label})' if others else ''}; {'it' if not others else 'that trial'} ended at "
        f"{loss(first.end.val_loss)}.",
    ]


def overfit_section(found: Findings) -> list[str]:
    """The part of the summary on the trials that overfitted."""
    if not found.overfitted:
        return []
    note = "The gap is the validation loss less the training loss, in nats."
    return ["## Overfitting", "", note, "", *table(found.overfitted, *COLUMNS)]


def init_of(trials: Sequence[Trial]) -> str:
    """A sentence on the trials that start far above the loss of a uniform guess; empty if none does."""
    high = [found for trial in trials if (found := high_init([trial])) is not None]
    if not high:
        return ""
    worst = max(high, key=lambda found: found.loss)
    words = init_words(worst.loss, worst.uniform, worst.setting)
    return inits_words(len(high), len(trials), words)
