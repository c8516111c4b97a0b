"""What a person sees while a sweep runs: a live table on a terminal, lines elsewhere."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps import ledger as led
from sweeps.engine.driver import Driver
from sweeps.text import count, duration, loss, named

_REFRESH_SECONDS = 0.5
_STYLES = {
    "planned": "dim",
    "running": "bold",
    "paused": "yellow",
    "stopped": "yellow",
    "diverged": "magenta",
    "failed": "red",
    "finished": "green",
}
_FIRST = ("running", "finished", "paused", "stopped", "diverged", "failed", "planned")


def _place(trial: led.Trial, metric: str) -> tuple[int, int, float]:
    """Where a trial stands in the table: by state, then furthest and best first."""
    score = trial.curve[-1][metric] if trial.curve else math.inf
    return _FIRST.index(trial.status), -trial.tokens, score


def _chosen(row: led.Row) -> str:
    """What was settled of an arm, or of a sweep's best, in a few words."""
    if row["values"] is None:
        return f"diverged at all {row['tried']} values"
    at = f" at {named(row['values'])}, the best of {row['tried']}" if row["tried"] else ""
    return f"runs{at} on {len(row['trials'])} seeds"


class View:
    """The face of one run of a driver."""

    def __init__(self, driver: Driver, expected: int, console: Console) -> None:
        self._driver = driver
        self._expected = expected  # tokens of the whole sweep
        self._console = console
        self._begun = time.monotonic()
        self._spent_before = driver.sweep.spent_tokens
        self._drawn = 0.0
        self._told = len(driver.ledger.rows)
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the sweep for as long as the context lasts."""
        if not self._console.is_terminal:
            yield
            self.update()
            return
        with Live(self._draw(), console=self._console, auto_refresh=False) as self._live:
            yield
            self._live.update(self._draw(), refresh=True)

    def update(self) -> None:
        """Show what is new; cheap to call often."""
        if self._live is None:
            self._tell()
        elif time.monotonic() - self._drawn > _REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._draw(), refresh=True)

    # A terminal ----------------------------------------------------------------------------

    def _draw(self) -> Group:
        metric = self._driver.request.space.metric
        trials = sorted(self._driver.sweep.attempted, key=lambda trial: _place(trial, metric))
        room = max(3, self._console.size.height - 8)
        table = Table(box=None, pad_edge=False)
        # What is measured must stay whole; a long label may lose its end.
        longest = max(12, self._console.size.width - 58)
        table.add_column("trial", no_wrap=True, overflow="ellipsis", max_width=longest)
        table.add_column("state", no_wrap=True)
        for name in ("tokens", "of", "next rung", metric.replace("_", " "), "tokens/s"):
            table.add_column(name, justify="right", no_wrap=True)
        for trial in trials[:room]:
            cells = (Text(cell) for cell in self._cells(trial, metric))  # a label is no markup
            table.add_row(*cells, style=_STYLES[trial.status])
        parts: list[RenderableType] = [table]
        if len(trials) > room:
            parts.append(Text(f"and {len(trials) - room} more", style="dim"))
        return Group(*parts, Text(), self._progress())

    def _cells(self, trial: led.Trial, metric: str) -> tuple[str, ...]:
        last = trial.curve[-1] if trial.curve else None
        rungs = () if trial.pool is None else self._driver.policy.rungs
        after = [rung for rung in rungs if rung > trial.tokens]
        starting = trial.status == "running" and last is None
        return (
            trial.label,
            "starting" if starting else trial.status,
            count(trial.tokens),
            count(trial.budget),
            count(after[0]) if after and trial.status in {"planned", "running"} else "",
            loss(last[metric]) if last else "",
            f"{last['tokens_per_s']:.0f}" if last and trial.status == "running" else "",
        )

    def _progress(self) -> Table:
        sweep = self._driver.sweep
        trials = sweep.trials.values()
        spent = sweep.spent_tokens
        total = max(self._expected, spent)
        passed = time.monotonic() - self._begun
        here = spent - self._spent_before
        left = f", about {duration((total - spent) * passed / here)} left" if here else ""
        full = sum(trial.budget for trial in trials)
        lines = Table.grid()
        lines.add_row(ProgressBar(total=total or 1, completed=spent, width=40))
        lines.add_row(f"{count(spent)} of about {count(total)} tokens (full grid {count(full)})")
        lines.add_row(f"{duration(passed)}{left}")
        return lines

    # A file or a pipe ----------------------------------------------------------------------

    def _tell(self) -> None:
        rows = self._driver.ledger.rows
        for row in rows[self._told :]:
            line = self._sentence(row)
            if line:
                print(line, file=self._console.file, flush=True)
        self._told = len(rows)

    def _score(self, score: float | None) -> str:
        decayed = "decayed " if self._driver.request.space.schedule.branch else ""
        return f"{decayed}loss {'not finite' if score is None else f'{score:.4f}'}"

    def _sentence(self, row: led.Row) -> str:
        if row["kind"] in {"chosen", "confirming"}:
            return f"{row['time'][11:19]}  {row.get('arm', 'the best'):24s}  {_chosen(row)}"
        if "trial" not in row:
            return ""
        label = self._driver.sweep.find(row["trial"]).label
        match row["kind"]:
            case "started":
                what = f"goes on at step {row['step']}" if row["step"] else "starts"
            case "paused":
                what = f"pauses at {row['rung']} tokens, {self._score(row['score'])}"
            case "promoted":
                why = ", so that enough trials finish" if row["forced"] else ""
                place = f"rank {row['rank']} of {row['arrived']}"
                what = f"goes on from {row['rung']} tokens: {place}{why}"
            case "stopped" | "diverged" | "failed":
                what = f"{row['kind']}: {row['reason']}"
            case "capped":
                what = f"ends here: {row['cap']} {count(row['used'])} of {count(row['limit'])}"
            case "audited":
                what = f"is drawn from {row['stopped']} stopped trials"
            case "finished":
                last = self._driver.sweep.find(row["trial"]).curve[-1]
                what = f"finished, validation loss {last['val_loss']:.4f}"
            case _:
                return ""
        return f"{row['time'][11:19]}  {label:24s}  {what}"
