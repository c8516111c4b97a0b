"""Text and tables as Markdown, and the columns that tables of trials have in common."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sweeps.findings.results import TrialResult, status_words
from sweeps.outcomes import outcome
from sweeps.selection import Metric
from sweeps.text import between, count, loss, whole


def escaped(text: str) -> str:
    """Text escaped so that Markdown shows it unchanged, on one line or in a table cell."""
    return _escape(" ".join(text.split()))


def with_code(text: str) -> str:
    """Like `escaped`, but text between two backquotes is code."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(part if index % 2 else _escape(part) for index, part in enumerate(parts))


def _escape(text: str) -> str:
    flat = html.escape(text, quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", flat)


def paragraph(text: str) -> str:
    """Like `with_code`, as a paragraph: its first character never starts a heading, a rule or a
    list."""
    shown = re.sub(r"^(\d+)(?=[.)])", r"\1\\", escaped(text))
    return re.sub(r"^([-+#=])", r"\\\1", shown)


def anchor(heading: str) -> str:
    """What a link to a heading names: its words as GitHub and this project's pages write them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


_HEADING = re.compile(r"#{1,6}(?= |$)")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_DEEPEST = 6


def nested(text: str, below: int = 2) -> str:
    """Markdown with all headings below a level, as deep below one another as before."""
    lines, fence = text.splitlines(keepends=True), ""
    found: dict[int, int] = {}  # number of a line -> level of its heading
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if mark is not None and fence in {"", mark[1]}:
            fence = "" if fence else mark[1]
        elif not fence and (heading := _HEADING.match(line)):
            found[number] = len(heading[0])
    more = max(0, below + 1 - min(found.values(), default=_DEEPEST))
    for number, level in found.items():
        lines[number] = "#" * min(_DEEPEST, level + more) + lines[number][level:]
    return "".join(lines)


def listed(sentences: Sequence[str]) -> list[str]:
    """A Markdown list of sentences; empty if there are none."""
    return [*(f"- {sentence}" for sentence in sentences), ""] if sentences else []


Line = TypeVar("Line", contravariant=True)


@dataclass(frozen=True)
class Column(Generic[Line]):
    """A column of a Markdown table: its header, and the cell of a line."""

    header: str
    cell: Callable[[Line], str]
    is_text: bool = False  # text is left-aligned, numbers right-aligned


def table(lines: Sequence[Line], *columns: Column[Line]) -> list[str]:
    """A Markdown table."""
    rows = [[column.header for column in columns]]
    rows += [[column.cell(line) for column in columns] for line in lines]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "|".join(" --- " if column.is_text else " ---: " for column in columns) + "|"
    return [head, rule, *body, ""]


TRIAL = Column[TrialResult]("trial", lambda p: escaped(p.trial.label), is_text=True)
STATUS = Column[TrialResult]("status", lambda p: status_words(p.trial), is_text=True)
REASON = Column[TrialResult]("reason", lambda p: escaped(p.reason), is_text=True)
PROBLEM = Column[TrialResult]("problem", lambda p: outcome(p.trial), is_text=True)
ID = Column[TrialResult]("id", lambda p: f"`{p.trial.trial}`", is_text=True)
VAL_LOSS = Column[TrialResult]("validation loss", lambda p: loss(p.loss("val_loss")))
BITS = Column[TrialResult]("validation bits per byte", lambda p: loss(p.loss("bits_per_byte")))
TRAIN_LOSS = Column[TrialResult]("training loss", lambda p: loss(p.record and p.record.train_loss))
TOKENS = Column[TrialResult]("tokens", lambda p: whole(p.record and p.record.tokens))
COMPUTE = Column[TrialResult]("FLOPs", lambda p: "" if p.flops is None else count(p.flops))
SIZES = (
    Column[TrialResult]("parameters", lambda p: whole(p.trial.params)),
    Column[TrialResult]("FLOPs/token", lambda p: whole(p.trial.flops_per_token)),
)
LOSS: dict[Metric, Column[TrialResult]] = {"val_loss": VAL_LOSS, "bits_per_byte": BITS}


def sizes(trial_results: Sequence[TrialResult]) -> tuple[Column[TrialResult], ...]:
    """Columns of the models' sizes, if these differ."""
    return SIZES if len({result.trial.params for result in trial_results}) > 1 else ()


def problems(trial_results: Sequence[TrialResult]) -> tuple[Column[TrialResult], ...]:
    """A column of the trials' problems, if any has one."""
    return (PROBLEM,) if any(outcome(result.trial) for result in trial_results) else ()


def models(trial_results: Sequence[TrialResult]) -> str:
    """A sentence on the parameters and the FLOPs per token of the models."""
    params = between(result.trial.params for result in trial_results)
    flops = between(result.trial.flops_per_token for result in trial_results)
    many = "s" * (len({result.trial.params for result in trial_results}) > 1)
    return f"Model{many}: {params} parameters, {flops} FLOPs per token."


def steps(trial_results: Sequence[TrialResult]) -> str:
    """The step of their records, or the range of steps."""
    return between(result.record.step for result in trial_results if result.record is not None)
