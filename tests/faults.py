"""The table of faults that tests inject: each with what is expected, what was seen, and the rows lost.

A test of a fault is marked `fault(what is injected, what is expected)`. It may record more with
`record_property`: `seen`, in words, and `rows lost`, a number.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SEEN, LOST = "seen", "rows lost"
_WIDTH = 150


@dataclass
class Fault:
    """What the tests of one fault have seen."""

    expected: str
    seen: dict[str, int] = field(default_factory=dict)  # in words -> how often
    lost: int | None = None  # rows, where they were counted


def told(reports: Iterable[Any]) -> dict[str, Fault]:
    """The faults that the tests of these reports injected."""
    found: dict[str, Fault] = {}
    for report in reports:
        said = dict(report.user_properties)
        if "fault" not in said or (report.passed and report.when != "call"):
            continue
        fault = found.setdefault(said["fault"], Fault(said["expected"]))
        words = said.get(SEEN, "as expected") if report.passed else _not_passed(report)
        fault.seen[words] = fault.seen.get(words, 0) + 1
        if LOST in said:
            fault.lost = (fault.lost or 0) + said[LOST]
    return found


def _not_passed(report: Any) -> str:
    """Why a test did not pass."""
    if report.failed:
        return f"FAILED: {report.nodeid.rpartition('::')[2]}"
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return why[:1].lower() + why[1:]


def table(faults: dict[str, Fault]) -> str:
    """The table as text."""
    shown = Table(box=None, pad_edge=False, title_justify="left")
    for heading in ("fault", "expected", "seen"):
        shown.add_column(heading, overflow="fold")
    shown.add_column("rows lost", justify="right")
    for name, fault in sorted(faults.items()):
        seen = "; ".join(
            f"{words}, {n} times" if n > 1 else words for words, n in fault.seen.items()
        )
        lost = "" if fault.lost is None else str(fault.lost)
        shown.add_row(*map(Text, (name, fault.expected, seen, lost)))
    written = io.StringIO()
    Console(file=written, width=_WIDTH).print(shown)
    total = sum(fault.lost or 0 for fault in faults.values())
    return f"{written.getvalue()}{len(faults)} faults; rows lost: {total}"


def rows_lost(before: bytes, ledger: Path) -> int:
    """How many whole rows of an earlier ledger are no longer where they were."""
    whole = [line for line in before.splitlines(keepends=True) if line.endswith(b"\n")]
    now = ledger.read_bytes().splitlines(keepends=True)
    return sum(now[n : n + 1] != [line] for n, line in enumerate(whole))
