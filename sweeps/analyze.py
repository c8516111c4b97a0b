"""Tables, figures and a summary of sweeps: folds over their ledgers, and the command line for it.

    python -m sweeps.analyze [NAME or DIR]... [--tensorboard]

Everything lands whole in `results/<sweep>/analysis/`, and may be written while a driver runs.
Losses are compared at equal training tokens only, and every comparison names its token count.
This module knows neither ray nor torch.
"""

import csv
import difflib
import html
import io
import itertools
import json
import math
import re
import statistics
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps import ledger
from sweeps.ledger import Files, Row, Sweep, Trial

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Facts = dict[str, Any]  # plain JSON types only

CURVE = ("step", "tokens", "seconds", "train_loss", "val_loss", "bits_per_byte", "lr", "grad_norm")
RESULTS = ("finished", "stopped", "diverged", "failed")  # what a trial may end as
METRICS = {"val_loss": "validation loss", "bits_per_byte": "validation bits per byte"}
UNITS = {"val_loss": "nats per token", "bits_per_byte": "bits per byte"}
ONE_SEED = "One seed: differences below the seed noise are no conclusion."
# Within this share of a sampled range from its bound, a value is on the edge.
EDGE_SHARE = 0.05


# What a ledger says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Swept:
    """A path that the trials vary, and how its values are spaced."""

    path: str
    name: str  # the last part of the path, or all of it where two end alike
    values: tuple[Any, ...]  # of the plan, each once: numbers ascending, others in plan order
    numeric: bool
    log: bool  # spaced by ratios rather than differences
    bounds: tuple[float, float] | None  # of the range that was drawn from; None for a list


@dataclass(frozen=True)
class Study:
    """A sweep, and the token counts at which its trials may be compared."""

    name: str
    sweep: Sweep
    question: str
    metric: str  # of METRICS; lower is better
    scale: str
    begun: str  # UTC, ISO 8601, of the first and the last row
    latest: str
    swept: tuple[Swept, ...]
    rungs: tuple[int, ...]  # tokens at which trials paused or were promoted, ascending
    final: int | None  # latest token count that all finished trials have measured
    common: int | None  # the same for all measured trials that neither diverged nor failed

    @property
    def trials(self) -> list[Trial]:
        """All trials, in plan order."""
        return list(self.sweep.trials.values())

    def having(self, status: str) -> list[Trial]:
        """The trials with a status of the tables, in plan order."""
        return [trial for trial in self.trials if status_of(trial) == status]


def status_of(trial: Trial) -> str:
    """One of finished, stopped, diverged, failed and unfinished."""
    return trial.status if trial.status in RESULTS else "unfinished"


def reason_of(trial: Trial) -> str:
    """Why a trial ended as it did; of one that has not ended, how far it is."""
    return trial.reason or (trial.status if status_of(trial) == "unfinished" else "")


def at(trial: Trial, tokens: int | None) -> Row | None:
    """The trial's record at exactly so many tokens."""
    return next((row for row in trial.curve if row["tokens"] == tokens), None)


def common_tokens(trials: Iterable[Trial]) -> int | None:
    """The latest token count at which every one of the trials was measured."""
    measured = [{row["tokens"] for row in trial.curve} for trial in trials]
    return max(set.intersection(*measured), default=None) if measured else None


def groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials that differ by nothing but their seed, together; in plan order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(json.dumps(trial.values), []).append(trial)
    return list(found.values())


def _spaced_by_ratio(values: Sequence[float]) -> bool:
    """Whether ascending numbers lie more evenly on a logarithmic than on a linear axis."""
    if len(values) < 2 or values[0] <= 0 or values[-1] < 4 * values[0]:
        return False

    def unevenness(points: Sequence[float]) -> float:
        gaps = [high - low for low, high in itertools.pairwise(points)]
        return statistics.pstdev(gaps) / statistics.fmean(gaps)

    return unevenness([math.log(value) for value in values]) <= unevenness(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _swept(trials: Sequence[Trial], space: Mapping[str, Any]) -> Iterator[Swept]:
    paths = list(dict.fromkeys(path for trial in trials for path in trial.values))
    ends = [path.rpartition(".")[2] for path in paths]
    for path, end in zip(paths, ends, strict=True):
        values = dict.fromkeys(trial.values[path] for trial in trials if path in trial.values)
        numeric = all(_is_number(value) for value in values)
        ordered = sorted(values) if numeric else list(values)
        bounds: tuple[float, float] | None
        match space.get(path):
            case {"loguniform": [low, high]}:
                log, bounds = True, (float(low), float(high))
            case {"uniform": [low, high]} | {"int": [low, high]}:
                log, bounds = False, (float(low), float(high))
            case _:
                log, bounds = numeric and _spaced_by_ratio(ordered), None
        name = end if ends.count(end) == 1 else path.replace(".", "_")
        yield Swept(path, name, tuple(ordered), numeric, log, bounds)


def study(name: str, rows: list[Row]) -> Study:
    """What the rows of a ledger say; `ValueError` where nothing has been asked yet."""
    sweep = ledger.fold(rows)
    if sweep.asked is None:
        raise ValueError(f"{name}: the ledger asks nothing yet")
    space = sweep.asked["space"]
    trials = list(sweep.trials.values())
    going = [t for t in trials if t.curve and t.status not in {"diverged", "failed"}]
    return Study(
        name=name,
        sweep=sweep,
        question=space["question"],
        metric=space.get("metric", "val_loss"),  # the space as written: val_loss goes unsaid
        scale=str(sweep.asked["scale"]),
        begun=rows[0]["time"],
        latest=rows[-1]["time"],
        swept=tuple(_swept(trials, space["space"])),
        rungs=tuple(sorted({row["rung"] for row in sweep.decisions if row["kind"] != "stopped"})),
        final=common_tokens(t for t in trials if t.status == "finished"),
        common=common_tokens(going),
    )


# Tables -----------------------------------------------------------------------------------------


def _best(trial: Trial) -> Row | None:
    """The record with the lowest validation loss, the first of equals."""
    return min(trial.curve, key=lambda row: row["val_loss"], default=None)


def _speed(trial: Trial) -> float | None:
    """Training tokens a second over all that was measured."""
    last = trial.curve[-1] if trial.curve else None
    return last["tokens"] / last["seconds"] if last and last["seconds"] > 0 else None


def trials_table(of: Study) -> tuple[tuple[str, ...], list[Row]]:
    """The columns, and one row a trial in plan order. What was not measured is None.

    `*_final` is the last that was measured: for a stopped trial, where it stopped. Steps and
    tokens of a diverged trial are where it diverged, past its last record.
    """
    paths = [swept.path for swept in of.swept]
    columns = ("trial", "status", "reason", "seed", *paths, "params", *_MEASURED)
    return columns, [_trial_row(trial, paths) for trial in of.trials]


_MEASURED = (
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


def _trial_row(trial: Trial, paths: Sequence[str]) -> Row:
    last = trial.curve[-1] if trial.curve else None
    best = _best(trial)
    reached = last is not None or trial.status == "diverged"
    return {
        "trial": trial.trial,
        "status": status_of(trial),
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
        "tokens_per_s": _speed(trial),
    }


def curves_table(of: Study) -> list[Row]:
    """One row a record, by trial and step."""
    return [
        {"trial": trial.trial, **{name: row[name] for name in CURVE}}
        for trial in of.trials
        for row in trial.curve
    ]


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


# Comparisons ------------------------------------------------------------------------------------


def _place(trial: Trial, row: Row | None) -> Facts:
    """Who a trial is, and its losses at one of its records."""
    return {
        "trial": trial.trial,
        "label": trial.label,
        "values": trial.values,
        "seed": trial.seed,
        "status": status_of(trial),
        "reason": reason_of(trial),
        "params": trial.params,
        "flops_per_token": trial.flops_per_token,
        **{name: row and row[name] for name in ("step", "tokens", "train_loss")},
        **{name: row and row[name] for name in METRICS},
    }


def _ranked(of: Study, trials: Iterable[Trial], tokens: int | None) -> list[Facts]:
    """The trials measured at so many tokens, best first, with rank (equals share it) and distance
    from the best."""
    found = [(trial, at(trial, tokens)) for trial in trials]
    places = [_place(trial, row) for trial, row in found if row is not None]
    places.sort(key=lambda place: place[of.metric])
    losses = [place[of.metric] for place in places]
    return [
        {"rank": 1 + bisect_left(losses, loss), "behind": loss - losses[0], **place}
        for place, loss in zip(places, losses, strict=True)
    ]


def ranking(of: Study) -> list[Facts]:
    """The finished trials at the latest token count that all of them have measured, best first.

    Where they share none, they come in plan order and without ranks.
    """
    finished = of.having("finished")
    if of.final is None:
        return [
            {"rank": None, "behind": None, **_place(t, t.curve[-1] if t.curve else None)}
            for t in finished
        ]
    trials = of.sweep.trials
    return [
        {
            **place,
            "val_loss_best": (_best(trials[place["trial"]]) or place)["val_loss"],
            "step_best": (_best(trials[place["trial"]]) or place)["step"],
            "tokens_per_s": _speed(trials[place["trial"]]),
        }
        for place in _ranked(of, finished, of.final)
    ]


def _stopped(of: Study, leader: Trial | None) -> list[Facts]:
    """The trials stopped early, each where it stopped and beside the leader at the same tokens;
    those that came furthest first."""
    places = []
    for trial in of.having("stopped"):
        place = _place(trial, trial.curve[-1] if trial.curve else None)
        there = at(leader, place["tokens"]) if leader is not None else None
        places.append({**place, "leader": there and there[of.metric]})
    return sorted(places, key=lambda place: (-(place["tokens"] or 0), place[of.metric] or 0))


def _ended(of: Study, status: str) -> list[Facts]:
    """The trials of a status at their last records, and how far they are known to have come."""
    return [
        {
            **_place(trial, trial.curve[-1] if trial.curve else None),
            "reached_step": trial.step or None,
            "reached_tokens": trial.tokens or None,
        }
        for trial in of.having(status)
    ]


def _unmeasured_at_common(of: Study) -> list[str]:
    return [trial.label for trial in of.trials if at(trial, of.common) is None]


def spread(of: Study) -> list[Facts]:
    """Over the seeds of each choice of values: n, mean, standard deviation, min and max at the
    common token count, and the mean of those that finished. One seed has no deviation."""
    table = []
    for group in groups(of.trials):
        rows = [row for trial in group if (row := at(trial, of.common)) is not None]
        losses = [row[of.metric] for row in rows]
        ends = [row[of.metric] for row in _finals(of, group)]
        table.append(
            {
                "values": group[0].values,
                "planned": len(group),
                "n": len(losses),
                "mean": statistics.fmean(losses) if losses else None,
                "std": statistics.stdev(losses) if len(losses) > 1 else None,
                "min": min(losses, default=None),
                "max": max(losses, default=None),
                "finished": len(ends),
                "finished_mean": statistics.fmean(ends) if ends else None,
            }
        )
    return table


def _finals(of: Study, trials: Iterable[Trial]) -> list[Row]:
    """The records at the final token count of those trials that finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    return [row for trial in finished if (row := at(trial, of.final)) is not None]


def _winner(of: Study) -> dict[str, Any] | None:
    """The values with the lowest mean final loss, among those with the most finished seeds."""
    table = [row for row in spread(of) if row["finished"]]
    most = max((row["finished"] for row in table), default=0)
    full = [row for row in table if row["finished"] == most]
    best = min(full, key=lambda row: row["finished_mean"], default=None)
    return best and best["values"]


def _whole(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) for value in values)


def _beyond(of: Swept, tried: Sequence[float], edge: str) -> list[float]:
    """Two values past an edge, spaced as those tried; none that would cross zero."""
    if of.bounds is not None:
        low, high = of.bounds
        start = low if edge == "low" else high
        ratio = (high / low) ** 0.25 if of.log else 1.0
        step = (high - low) / 4
    else:
        near, inner = (tried[0], tried[1]) if edge == "low" else (tried[-1], tried[-2])
        start = near
        ratio = max(near, inner) / min(near, inner) if of.log else 1.0
        step = abs(near - inner)
    sign = -1 if edge == "low" else 1
    new = [start * ratio ** (sign * n) if of.log else start + sign * n * step for n in (1, 2)]
    rounded = [round(x) if _whole(tried) else float(f"{x:.4g}") for x in new]
    kept = [x for x in dict.fromkeys(rounded) if x not in tried]
    return [x for x in kept if x > 0] if tried[0] >= 0 else kept


def _edge(of: Swept, tried: Sequence[float], best: float) -> str | None:
    """`low` or `high` where nothing that was tried brackets the best value on that side."""
    if len(tried) < 2:
        return None
    low, high = tried[0], tried[-1]
    if of.bounds is not None:
        scale = math.log if of.log else float
        width = scale(of.bounds[1]) - scale(of.bounds[0])
        if scale(best) - scale(of.bounds[0]) < EDGE_SHARE * width:
            return "low"
        if scale(of.bounds[1]) - scale(best) < EDGE_SHARE * width:
            return "high"
    return "low" if best == low else "high" if best == high else None


def _beside(of: Study, swept: Swept, tried: Sequence[float], best: float) -> list[Facts]:
    """The next lower and next higher value of a list, and what became of their trials."""
    place = tried.index(best)
    near = [*tried[max(place - 1, 0) : place], *tried[place + 1 : place + 2]]
    return [
        {
            "value": value,
            "statuses": sorted(
                {status_of(t) for t in of.trials if t.values.get(swept.path) == value}
            ),
        }
        for value in near
    ]


def best_values(of: Study) -> list[Facts]:
    """For each numeric path the value of the winner, whether it lies on the edge, and what to try.

    The edge is that of all values planned whose trials did not all fail: a value that diverged or
    was stopped early does bracket the best one, a failed one says nothing.
    """
    winner = _winner(of)
    if winner is None:
        return []
    found = []
    for swept in of.swept:
        if not swept.numeric or swept.path not in winner:
            continue
        alive: set[Any] = {t.values.get(swept.path) for t in of.trials if t.status != "failed"}
        tried = [value for value in swept.values if value in alive]
        best = winner[swept.path]
        edge = _edge(swept, tried, best)
        found.append(
            {
                "path": swept.path,
                "name": swept.name,
                "best": best,
                "tried": len(tried),
                "lowest": tried[0],
                "highest": tried[-1],
                "edge": edge,
                "next": _beyond(swept, tried, edge) if edge else [],
                "beside": _beside(of, swept, tried, best) if swept.bounds is None else [],
            }
        )
    return found


def compute(of: Study) -> Facts:
    """Tokens, FLOPs and seconds spent, against all trials trained to their ends."""
    reached = sum(trial.tokens for trial in of.trials)
    return {
        "tokens": of.sweep.spent_tokens,
        "tokens_full": sum(trial.budget for trial in of.trials),
        "tokens_repeated": of.sweep.spent_tokens - reached,
        "flops": sum(trial.tokens * trial.flops_per_token for trial in of.trials),
        "flops_full": sum(trial.budget * trial.flops_per_token for trial in of.trials),
        "seconds": math.fsum(trial.curve[-1]["seconds"] for trial in of.trials if trial.curve),
    }


def facts(of: Study) -> Facts:
    """What summary.json holds but for the figures: every comparison with its token count."""
    ranked = ranking(of)
    leader = of.sweep.trials[ranked[0]["trial"]] if ranked and of.final is not None else None
    count = {status: len(of.having(status)) for status in (*RESULTS, "unfinished")}
    return {
        "sweep": of.name,
        "question": of.question,
        "scale": of.scale,
        "metric": of.metric,
        "from": of.begun,
        "to": of.latest,
        "trials": {"planned": len(of.trials), **count},
        "seeds": sorted({trial.seed for trial in of.trials}),
        "ranking": {"tokens": of.final, "trials": ranked},
        "stopped": _stopped(of, leader),
        **{status: _ended(of, status) for status in ("diverged", "failed", "unfinished")},
        "comparison": {
            "tokens": of.common,
            "trials": _ranked(of, of.trials, of.common),
            "missing": _unmeasured_at_common(of),
        },
        "best": best_values(of),
        "spread": {"tokens": of.common, "groups": spread(of)},
        "compute": compute(of),
    }


# The summary in words ---------------------------------------------------------------------------


def show(value: Any) -> str:
    """A swept value in few characters; a missing one is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line and in a table's cell."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~$])", r"\\\1", flat)


def _named(values: Mapping[str, Any]) -> str:
    shown = [f"{path.rpartition('.')[2]}={show(value)}" for path, value in values.items()]
    return _escaped(" ".join(shown)) or "nothing varied"


# What the tables of the summary may show: header -> cell. Text leans left, numbers right.
_TEXT: dict[str, Callable[[Facts], str]] = {
    "trial": lambda p: _escaped(p["label"]),
    "status": lambda p: "stopped early" if p["status"] == "stopped" else p["status"],
    "values": lambda p: _named(p["values"]),
    "reason": lambda p: _escaped(p["reason"]),
    "id": lambda p: f"`{p['trial']}`",
}
_COLUMNS: dict[str, Callable[[Facts], str]] = _TEXT | {
    "rank": lambda p: _count(p["rank"]),
    "validation loss": lambda p: _loss(p["val_loss"]),
    "validation bits per byte": lambda p: _loss(p["bits_per_byte"]),
    "training loss": lambda p: _loss(p["train_loss"]),
    "behind": lambda p: _loss(p["behind"]),
    "leader there": lambda p: _loss(p["leader"]),
    "best (step)": lambda p: f"{_loss(p['val_loss_best'])} ({_count(p['step_best'])})",
    "tokens/s": lambda p: _count(p["tokens_per_s"]),
    "tokens": lambda p: _count(p["tokens"]),
    "reached step": lambda p: _count(p["reached_step"]),
    "reached tokens": lambda p: _count(p["reached_tokens"]),
    "last validation loss (step)": lambda p: (
        "" if p["step"] is None else f"{_loss(p['val_loss'])} ({_count(p['step'])})"
    ),
    "parameters": lambda p: _count(p["params"]),
    "FLOPs/token": lambda p: _count(p["flops_per_token"]),
    "n": lambda p: f"{p['n']} of {p['planned']}",
    "mean": lambda p: _loss(p["mean"]),
    "std": lambda p: _loss(p["std"]),
    "min": lambda p: _loss(p["min"]),
    "max": lambda p: _loss(p["max"]),
    "finished": lambda p: _count(p["finished"]),
    "their mean at the end": lambda p: _loss(p["finished_mean"]),
}


def _table(places: Sequence[Facts], *headers: str) -> list[str]:
    """A Markdown table of some of the columns; the models' sizes are added where these differ."""
    if len({place["params"] for place in places if "params" in place}) > 1:
        headers = (*headers, "parameters", "FLOPs/token")
    lines = [
        "| " + " | ".join(headers) + " |",
        "|" + "|".join(" --- " if name in _TEXT else " ---: " for name in headers) + "|",
    ]
    lines += [
        "| " + " | ".join(_COLUMNS[name](place) for name in headers) + " |" for place in places
    ]
    return [*lines, ""]


def _between(numbers: Iterable[int]) -> str:
    """One number, or the range of several."""
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _models(places: Sequence[Facts]) -> str:
    """Parameters and FLOPs per token in words."""
    params = _between(place["params"] for place in places)
    flops = _between(place["flops_per_token"] for place in places)
    return f"{params} parameters, {flops} FLOPs per token"


def _head(found: Facts) -> list[str]:
    count = found["trials"]
    results = count["planned"] - count["unfinished"]
    parts = [f"{count[status]} {status}" for status in RESULTS if count[status]]
    state = "all" if not count["unfinished"] else "**unfinished:**"
    lines = [
        f"# {_escaped(found['question'])}",
        "",
        f"`{found['sweep']}` at scale `{found['scale']}`, "
        f"{found['from'][:16].replace('T', ' ')} to {found['to'][:16].replace('T', ' ')} UTC; "
        f"{state} {results} of {count['planned']} trials have a result"
        f"{': ' + ', '.join(parts) if parts else ''}.",
        "",
    ]
    places = found["ranking"]["trials"]
    if places and found["ranking"]["tokens"] is not None:
        best = places[0]
        first = " and ".join(f"**{_escaped(p['label'])}**" for p in places if p["rank"] == 1)
        lines += [
            f"Lowest of the finished: {first}, {METRICS[found['metric']]} "
            f"**{best[found['metric']]:.4f}** {UNITS[found['metric']]} at "
            f"{best['tokens']:,} tokens.",
            "",
        ]
    one_seed = max((group["planned"] for group in found["spread"]["groups"]), default=0) == 1
    return [*lines, ONE_SEED, ""] if one_seed else lines


def _ranking_words(found: Facts) -> list[str]:
    places, tokens = found["ranking"]["trials"], found["ranking"]["tokens"]
    title = ["## Finished trials", ""]
    if not places:
        return [*title, "No trial has finished.", ""]
    losses = ("validation loss", "validation bits per byte", "training loss")
    if tokens is None:
        words = "They share no token count, so they are not ranked."
        return [*title, words, "", *_table(places, "trial", "tokens", *losses, "id")]
    return [
        *title,
        f"By {METRICS[found['metric']]}, all at {tokens:,} tokens "
        f"(step {_between(place['step'] for place in places)}); {_models(places)}.",
        "",
        *_table(places, "rank", "trial", *losses, "behind", "best (step)", "tokens/s", "id"),
    ]


def _stopped_words(found: Facts) -> list[str]:
    places = found["stopped"]
    if not places:
        return []
    metric = METRICS[found["metric"]]
    return [
        "## Stopped early",
        "",
        "Not ranked. Each stands beside the leader of the ranking at the tokens where it stopped, "
        f"by {metric}; {_models(places)}.",
        "",
        *_table(places, "trial", "tokens", metric, "leader there", "reason", "id"),
    ]


def _ended_words(found: Facts) -> list[str]:
    lines = []
    titles = {"diverged": "Diverged", "failed": "Failed", "unfinished": "Unfinished"}
    for status, title in titles.items():
        places = found[status]
        if places:
            reached = ("reached step", "reached tokens", "last validation loss (step)")
            lines += [f"## {title}", "", f"Not ranked; {_models(places)}.", ""]
            lines += _table(places, "trial", *reached, "reason", "id")
    return lines


def _comparison_words(found: Facts) -> list[str]:
    places, tokens = found["comparison"]["trials"], found["comparison"]["tokens"]
    title = ["## All trials at the latest common token count", ""]
    if tokens is None:
        return [*title, "No token count has been reached by all of the trials.", ""]
    absent = ", ".join(_escaped(label) for label in found["comparison"]["missing"])
    words = (
        f"At {tokens:,} tokens (step {_between(place['step'] for place in places)}), which all "
        "measured trials have reached but those that diverged or failed."
    )
    if tokens != found["ranking"]["tokens"]:
        words += " Early losses need not order as final ones do."
    if absent:
        words += f" Without a record there: {absent}."
    if len(places) == len(found["ranking"]["trials"]) and tokens == found["ranking"]["tokens"]:
        return [*title, words, "That is the ranking above.", ""]
    metric = METRICS[found["metric"]]
    return [*title, words, "", *_table(places, "rank", "trial", "status", metric, "behind")]


def _best_words(found: Facts) -> list[str]:
    if not found["best"]:
        return []
    tokens = found["ranking"]["tokens"]
    lines = [
        "## Best values",
        "",
        f"Of the finished trials, by their mean over seeds at {tokens:,} tokens:",
        "",
    ]
    for best in found["best"]:
        beside = ", ".join(
            f"{show(b['value'])} ({'/'.join(b['statuses'])})" for b in best["beside"]
        )
        line = (
            f"- `{best['path']}`: **{show(best['best'])}** of {best['tried']} values from "
            f"{show(best['lowest'])} to {show(best['highest'])}"
        )
        line += f"; beside it {beside}." if beside else "."
        if best["edge"]:
            more = ", ".join(show(value) for value in best["next"])
            line += (
                f" **On the {best['edge']} edge of what was tried: this need not be the optimum.**"
                f"{f' Try next: {more}.' if more else ''}"
            )
        lines.append(line)
    return [*lines, ""]


def _spread_words(found: Facts) -> list[str]:
    table, tokens = found["spread"]["groups"], found["spread"]["tokens"]
    if tokens is None or max((group["planned"] for group in table), default=0) <= 1:
        return []
    return [
        "## Over seeds",
        "",
        f"{METRICS[found['metric']].capitalize()} at {tokens:,} tokens (std is the sample standard "
        "deviation), and the mean of those that finished at "
        f"{_count(found['ranking']['tokens']) or 'their last'} tokens.",
        "",
        *_table(
            table, "values", "n", "mean", "std", "min", "max", "finished", "their mean at the end"
        ),
    ]


def _compute_words(found: Facts) -> list[str]:
    spent = found["compute"]
    again = spent["tokens_repeated"]
    share = f"{spent['tokens'] / spent['tokens_full']:.0%}" if spent["tokens_full"] else "none"
    return [
        "## Compute",
        "",
        f"{spent['tokens']:,} tokens trained, {share} of the {spent['tokens_full']:,} that all "
        f"trials to their ends would take{f' ({again:,} of them repeated)' if again else ''}; "
        f"{spent['flops']:.3g} of {spent['flops_full']:.3g} FLOPs; {spent['seconds']:,.0f} s of "
        "training, evaluation excluded, summed over trials.",
        "",
    ]


def _markdown(found: Facts) -> str:
    """summary.md: a fold over what summary.json holds."""
    sections = (_head, _ranking_words, _best_words, _stopped_words, _ended_words, _comparison_words)
    lines = [line for words in (*sections, _spread_words, _compute_words) for line in words(found)]
    figures = [f"![{name.replace('_', ' ')}]({name}.svg)\n" for name in found["figures"]]
    return "\n".join([*lines, "## Figures", "", *figures])


# Writing and the command line ---------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """What one analysis found and wrote."""

    facts: Facts  # the content of summary.json
    paths: tuple[Path, ...]


def write(files: Files) -> Summary:
    """Write the tables, figures and summary of a sweep; each file whole, so readers see no half.

    Raises `LedgerError` where the ledger is damaged, `ValueError` where it asks nothing yet and
    `OSError` where the folder can't be written.
    """
    from sweeps import plots  # matplotlib takes a second, which errors and --help need not wait

    of = study(files.name, ledger.read(files))
    figures = plots.draw(of)
    names = list(dict.fromkeys(Path(name).stem for name in figures))
    found = {**facts(of), "figures": names}
    contents = {
        **figures,
        "trials.csv": _csv(*trials_table(of)),
        "curves.csv": _csv(("trial", *CURVE), curves_table(of)),
        "summary.json": json.dumps(found, indent=1, allow_nan=False).encode() + b"\n",
        "summary.md": _markdown(found).encode(),
    }
    for name, content in contents.items():
        ledger.write_whole(files.analysis / name, content)
    for stale in files.analysis.glob("loss_vs_*"):  # of a path that is no longer swept
        if stale.name not in contents:
            stale.unlink(missing_ok=True)
    return Summary(found, tuple(files.analysis / name for name in contents))


def print_ranking(summary: Summary, console: Console) -> None:
    """Print the trials, the finished ones by rank and first, and what was written."""
    found = summary.facts
    places = [*found["ranking"]["trials"], *(p for status in _REST for p in found[status])]
    table = Table(title=Text(found["question"]), title_justify="left")
    for name in ("rank", "trial", "status", "val loss", "bits/byte", "tokens", "reason"):
        words = name in {"trial", "reason"}
        justify: Literal["left", "right"] = "left" if name in _TEXT else "right"
        table.add_column(name, justify=justify, no_wrap=not words, overflow="fold")
    for place in places[:_PRINTED]:
        table.add_row(*map(Text, _printed(place)))
    console.print(table)
    if len(places) > _PRINTED:
        console.print(f"and {len(places) - _PRINTED} more, all in trials.csv", highlight=False)
    names = " ".join(path.name for path in summary.paths if path.suffix != ".png")
    console.print(Text(f"{summary.paths[0].parent}/: {names}"), soft_wrap=True)


_REST = ("stopped", "unfinished", "diverged", "failed")
_PRINTED = 24


def _printed(place: Facts) -> tuple[str, ...]:
    return (
        _count(place.get("rank")),
        place["label"],
        place["status"],
        _loss(place["val_loss"]),
        _loss(place["bits_per_byte"]),
        _count(place["tokens"]),
        textwrap.shorten(place["reason"], 60, placeholder="…"),
    )


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
        summary = write(files)
        print_ranking(summary, Console())
        if tensorboard:
            from sweeps import events  # tensorboardX takes seconds where torch is installed

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
    raise typer.Exit(max(codes))


if __name__ == "__main__":
    app()
