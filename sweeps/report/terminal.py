"""The result of a sweep for the terminal: a table that fits in 80 columns."""

import textwrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps import text as words
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.results import STATUSES, Place
from sweeps.report.search_summary import budgets_words


def print_result(found: SearchFindings | StudyFindings, console: Console) -> None:
    """Print the result of a sweep as a table that fits in 80 columns."""
    console.print(Text(found.results.question), style="bold")
    if isinstance(found, StudyFindings):
        _print_arms(found, console)
    else:
        _print_ranking(found, console)


def _print_arms(found: StudyFindings, console: Console) -> None:
    """Print the verdict on each arm."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=24)
    for name in ("seeds", "loss", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=20)
    for arm in found.comparison.arms if found.comparison is not None else ():
        loss, difference = words.loss(arm.mean), words.signed(arm.effect and arm.effect.mean)
        table.add_row(*map(Text, (arm.name, str(arm.n), loss, difference, arm.verdict.words)))
    console.print(table)


_PRINTED = 24


def _print_ranking(found: SearchFindings, console: Console) -> None:
    """Print the trials: the finished ones by rank, then the others."""
    unequal = found.results.budgets_differ
    ended = (*found.stopped, *found.unfinished, *found.diverged, *found.failed)
    rest = (*ended, *found.withdrawn)
    places: list[tuple[Place, int | None]] = [(one, one.rank) for one in found.ranking.places]
    rows = [
        _printed(place, rank, unequal) for place, rank in [*places, *((one, None) for one in rest)]
    ]
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("trial", overflow="fold")
    for name in ("val loss", "FLOPs" if unequal else "bits/byte", "at tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for row in rows[:_PRINTED]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > _PRINTED:
        console.print(f"and {len(rows) - _PRINTED} more", highlight=False)
    if unequal:
        console.print(Text(budgets_words(found.results)))


def _ending(place: Place) -> str:
    """How a trial ended, in a few words; the summary has the full reason."""
    match place.status:
        case "diverged":
            return f"diverged at step {place.trial.step or None}"
        case "unfinished":
            return textwrap.shorten(place.reason, 24, placeholder="…")
        case status:
            return STATUSES[status]


def _printed(place: Place, rank: int | None, unequal: bool) -> tuple[str, ...]:
    compute = "" if place.flops is None else words.count(place.flops)
    return (
        words.whole(rank),
        place.trial.label,
        words.loss(place.loss("val_loss")),
        compute if unequal else words.loss(place.loss("bits_per_byte")),
        words.whole(place.record and place.record.tokens),
        _ending(place),
    )
