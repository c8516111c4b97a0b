"""Which trials are compared, and where: at equal training tokens, or at the end of a timed budget."""

import json
import statistics
from collections.abc import Iterable

from sweeps.ledger import Row, Trial

END = "end"
Point = int | str  # where trials are compared: at this many tokens or, under a timed budget, at END


def when(point: Point | None) -> str:
    """Where trials are compared, in words: at 786,432 tokens, or at the end of their time."""
    if point is None:
        return "so far"
    return "at the end of their time" if point == END else f"at {point:,} tokens"


def at(trial: Trial, point: Point | None) -> Row | None:
    """The trial's record at exactly so many tokens, or at the end of a finished one."""
    if point == END:
        return trial.curve[-1] if trial.status == "finished" else None
    return next((row for row in trial.curve if row["tokens"] == point), None)


def common_tokens(trials: Iterable[Trial]) -> int | None:
    """The latest token count at which every one of the trials was measured."""
    measured = [{row["tokens"] for row in trial.curve} for trial in trials]
    return max(set.intersection(*measured), default=None) if measured else None


def final_point(trials: Iterable[Trial]) -> Point | None:
    """Where finished trials are compared: the latest token count that all have measured, or their
    ends where the budget is one of time."""
    finished = list(trials)
    timed = any(trial.config["budget"]["seconds"] for trial in finished)
    return END if timed else common_tokens(finished)


def groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials that differ by nothing but their seed, together; in plan order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(json.dumps(trial.values), []).append(trial)
    return list(found.values())


def best_group(trials: Iterable[Trial], metric: str) -> list[Trial]:
    """The finished trials of the values with the lowest mean final loss, among those with the most
    finished seeds; none where none has finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    tokens = final_point(finished)
    found = groups(finished)
    most = max(map(len, found), default=0)

    def mean(group: list[Trial]) -> float:
        rows = [at(trial, tokens) for trial in group]
        return statistics.fmean(row[metric] for row in rows if row is not None)

    full = [group for group in found if len(group) == most]
    return min(full, key=mean, default=[]) if tokens is not None else []
