"""What a ledger says of a sweep, and the comparisons that it supports.

Losses are compared at equal training tokens only, and every comparison names its token count.
"""

import itertools
import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps import ledger
from sweeps.ledger import Row, Sweep, Trial
from sweeps.plan import domains
from sweeps.selection import Point, at, best_group, common_tokens, final_point, groups

Facts = dict[str, Any]  # plain JSON types only

ENDINGS = ("finished", "stopped", "diverged", "failed")  # what a trial may end as
METRICS = {"val_loss": "validation loss", "bits_per_byte": "validation bits per byte"}
UNITS = {"val_loss": "nats per token", "bits_per_byte": "bits per byte"}
# Within this share of a sampled range from its bound, a value is on the edge.
EDGE_SHARE = 0.05


# What a ledger says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SweptPath:
    """A path that the trials vary, and how its values are spaced."""

    path: str
    name: str  # the last part of the path, or all of it where two end alike
    values: tuple[Any, ...]  # of the plan, each once: numbers ascending, others in plan order
    numeric: bool
    log: bool  # spaced by ratios rather than differences
    bounds: tuple[float, float] | None  # of the range that was drawn from; None for a list


@dataclass(frozen=True)
class Results:
    """A sweep, and the token counts at which its trials may be compared."""

    name: str
    sweep: Sweep
    question: str
    metric: str  # of METRICS; lower is better
    scale: str
    begun: str  # UTC, ISO 8601, of the first and the last row
    latest: str
    swept: tuple[SweptPath, ...]
    rungs: tuple[int, ...]  # tokens at which trials paused or were promoted, ascending
    final: Point | None  # where all finished trials are compared; see `final_point`
    common: int | None  # the same for all measured trials that neither diverged nor failed

    @property
    def trials(self) -> list[Trial]:
        """The trials that answer the question, in plan order: of a study all, of another sweep not
        those that run something again."""
        return _answering(self.sweep)

    @property
    def is_study(self) -> bool:
        """Whether arms are held against a baseline."""
        return _has_arms(self.sweep)

    @property
    def has_retune(self) -> bool:
        """Whether the arms of a study have re-tune grids."""
        return self.sweep.request is not None and "retune" in self.sweep.request["space"]

    def audited(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials, and in place of each stopped one its audit where that has come to its end."""
        found = []
        for trial in trials:
            audit = self.sweep.audit(trial.trial)
            ended = audit is not None and audit.status in {"finished", "diverged"}
            found.append(audit if audit is not None and ended else trial)
        return found

    def having(self, status: str) -> list[Trial]:
        """The trials with a status of the tables, in plan order."""
        return [trial for trial in self.trials if status_of(trial) == status]


def _has_arms(sweep: Sweep) -> bool:
    return sweep.request is not None and bool({"arms", "each"} & sweep.request["space"].keys())


def _answering(sweep: Sweep) -> list[Trial]:
    trials = sweep.trials.values()
    return [trial for trial in trials if _has_arms(sweep) or trial.role == "search"]


def status_of(trial: Trial) -> str:
    """One of finished, stopped, diverged, failed and unfinished."""
    return trial.status if trial.status in ENDINGS else "unfinished"


def reason_of(trial: Trial) -> str:
    """Why a trial ended as it did; of one that has not ended, how far it is."""
    return trial.reason or (trial.status if status_of(trial) == "unfinished" else "")


def last_record(trial: Trial) -> Row | None:
    """The trial's last record."""
    return trial.curve[-1] if trial.curve else None


def best_record(trial: Trial) -> Row | None:
    """The record with the lowest validation loss, the first of equals."""
    return min(trial.curve, key=lambda row: row["val_loss"], default=None)


def tokens_per_s(trial: Trial) -> float | None:
    """Training tokens a second over all that was measured."""
    last = last_record(trial)
    return last["tokens"] / last["seconds"] if last and last["seconds"] > 0 else None


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


def _swept(trials: Sequence[Trial], space: Mapping[str, Any]) -> Iterator[SweptPath]:
    paths = list(dict.fromkeys(path for trial in trials for path in trial.values))
    ends = [path.rpartition(".")[2] for path in paths]
    for path, end in zip(paths, ends, strict=True):
        values = dict.fromkeys(trial.values[path] for trial in trials if path in trial.values)
        numeric = all(_is_number(value) for value in values)
        ordered = sorted(values) if numeric else list(values)
        domain = domains.parse(space[path]) if path in space else None
        bounds = domain.bounds if domain else None
        log = domain.is_log if domain and bounds else numeric and _spaced_by_ratio(ordered)
        name = end if ends.count(end) == 1 else path.replace(".", "_")
        yield SweptPath(path, name, tuple(ordered), numeric, log, bounds)


def results_of(name: str, rows: list[Row]) -> Results:
    """What the rows of a ledger say; `ValueError` where nothing has been asked yet."""
    sweep = ledger.fold(rows)
    if sweep.request is None:
        raise ValueError(f"{name}: the ledger asks nothing yet")
    space = sweep.request["space"]
    trials = _answering(sweep)
    going = [t for t in trials if t.curve and t.status not in {"diverged", "failed"}]
    return Results(
        name=name,
        sweep=sweep,
        question=space["question"],
        metric=space.get("metric", "val_loss"),  # the space as written: val_loss goes unsaid
        scale=str(sweep.request["scale"]),
        begun=rows[0]["time"],
        latest=rows[-1]["time"],
        swept=tuple(_swept(trials, space.get("space", {}))),
        rungs=tuple(sorted({row["rung"] for row in sweep.decisions if row["kind"] != "stopped"})),
        final=final_point(t for t in trials if t.status == "finished"),
        common=common_tokens(going),
    )


# Comparisons ------------------------------------------------------------------------------------


def place_of(trial: Trial, row: Row | None) -> Facts:
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


def _ranked(results: Results, trials: Iterable[Trial], tokens: Point | None) -> list[Facts]:
    """The trials measured there, best first, with rank (equals share it) and distance
    from the best."""
    found = [(trial, at(trial, tokens)) for trial in trials]
    places = [place_of(trial, row) for trial, row in found if row is not None]
    places.sort(key=lambda place: place[results.metric])
    losses = [place[results.metric] for place in places]
    return [
        {"rank": 1 + bisect_left(losses, loss), "behind": loss - losses[0], **place}
        for place, loss in zip(places, losses, strict=True)
    ]


def ranking(results: Results) -> list[Facts]:
    """The finished trials where they are compared, best first.

    Where they share none, they come in plan order and without ranks.
    """
    finished = results.having("finished")
    if results.final is None:
        return [{"rank": None, "behind": None, **place_of(t, last_record(t))} for t in finished]
    trials = results.sweep.trials
    return [
        {
            **place,
            "val_loss_best": (best_record(trials[place["trial"]]) or place)["val_loss"],
            "step_best": (best_record(trials[place["trial"]]) or place)["step"],
            "tokens_per_s": tokens_per_s(trials[place["trial"]]),
        }
        for place in _ranked(results, finished, results.final)
    ]


def stopped(results: Results, leader: Trial | None) -> list[Facts]:
    """The trials stopped early, each where it stopped and beside the leader at the same tokens;
    those that came furthest first."""
    places = []
    for trial in results.having("stopped"):
        place = place_of(trial, last_record(trial))
        there = at(leader, place["tokens"]) if leader is not None else None
        decayed = (
            f"decayed_{results.metric}"  # what the policy went by, where there were decay branches
        )
        places.append(
            {
                **place,
                "leader": there and there[results.metric],
                "decayed": (last_record(trial) or {}).get(decayed),
                "leader_decayed": (there or {}).get(decayed),
            }
        )
    return sorted(places, key=lambda place: (-(place["tokens"] or 0), place[results.metric] or 0))


def ended(results: Results, status: str) -> list[Facts]:
    """The trials of a status at their last records, and how far they are known to have come."""
    return [
        {
            **place_of(trial, last_record(trial)),
            "reached_step": trial.step or None,
            "reached_tokens": trial.tokens or None,
        }
        for trial in results.having(status)
    ]


def _unmeasured_at_common(results: Results) -> list[str]:
    return [trial.label for trial in results.trials if at(trial, results.common) is None]


def spread(results: Results) -> list[Facts]:
    """Over the seeds of each choice of values: n, mean, standard deviation, min and max at the
    common token count, and the mean of those that finished. One seed has no deviation."""
    table = []
    for group in groups(results.trials):
        rows = [row for trial in group if (row := at(trial, results.common)) is not None]
        losses = [row[results.metric] for row in rows]
        ends = [row[results.metric] for row in _finals(results, group)]
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


def _finals(results: Results, trials: Iterable[Trial]) -> list[Row]:
    """The records at the final token count of those trials that finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    return [row for trial in finished if (row := at(trial, results.final)) is not None]


def _whole(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) for value in values)


def _beyond(results: SweptPath, tried: Sequence[float], side: str) -> list[float]:
    """Two values past an edge, spaced as those tried; none that would cross zero."""
    if results.bounds is not None:
        low, high = results.bounds
        start = low if side == "low" else high
        ratio = (high / low) ** 0.25 if results.log else 1.0
        step = (high - low) / 4
    else:
        near, inner = (tried[0], tried[1]) if side == "low" else (tried[-1], tried[-2])
        start = near
        ratio = max(near, inner) / min(near, inner) if results.log else 1.0
        step = abs(near - inner)
    sign = -1 if side == "low" else 1
    new = [start * ratio ** (sign * n) if results.log else start + sign * n * step for n in (1, 2)]
    rounded = [round(x) if _whole(tried) else float(f"{x:.4g}") for x in new]
    kept = [x for x in dict.fromkeys(rounded) if x not in tried]
    return [x for x in kept if x > 0] if tried[0] >= 0 else kept


def edge(results: SweptPath, tried: Sequence[float], best: float) -> str | None:
    """`low` or `high` where nothing that was tried brackets the best value on that side."""
    if len(tried) < 2:
        return None
    low, high = tried[0], tried[-1]
    if results.bounds is not None:
        scale = math.log if results.log else float
        width = scale(results.bounds[1]) - scale(results.bounds[0])
        if scale(best) - scale(results.bounds[0]) < EDGE_SHARE * width:
            return "low"
        if scale(results.bounds[1]) - scale(best) < EDGE_SHARE * width:
            return "high"
    return "low" if best == low else "high" if best == high else None


def _beside(results: Results, swept: SweptPath, tried: Sequence[float], best: float) -> list[Facts]:
    """The next lower and next higher value of a list, and what became of their trials."""
    place = tried.index(best)
    near = [*tried[max(place - 1, 0) : place], *tried[place + 1 : place + 2]]
    return [
        {
            "value": value,
            "statuses": sorted(
                {status_of(t) for t in results.trials if t.values.get(swept.path) == value}
            ),
            "audited": all(
                t.trial in results.sweep.audit_of
                for t in results.trials
                if t.values.get(swept.path) == value and t.status == "stopped"
            ),
        }
        for value in near
    ]


def best_values(results: Results) -> list[Facts]:
    """For each numeric path the value of the winner, whether it lies on the edge, and what to try.

    The edge is that of all values planned whose trials did not all fail: a value that diverged or
    was stopped early does bracket the best one, a failed one says nothing.
    """
    best_trials = best_group(results.trials, results.metric)
    if not best_trials:
        return []
    winner = best_trials[0].values
    found = []
    for swept in results.swept:
        if not swept.numeric or swept.path not in winner:
            continue
        alive: set[Any] = {t.values.get(swept.path) for t in results.trials if t.status != "failed"}
        tried = [value for value in swept.values if value in alive]
        best = winner[swept.path]
        side = edge(swept, tried, best)
        found.append(
            {
                "path": swept.path,
                "name": swept.name,
                "best": best,
                "tried": len(tried),
                "lowest": tried[0],
                "highest": tried[-1],
                "edge": side,
                "next": _beyond(swept, tried, side) if side else [],
                "beside": _beside(results, swept, tried, best) if swept.bounds is None else [],
            }
        )
    return found


def audit(results: Results) -> Facts | None:
    """What audited trials came to, which were stopped and trained on apart; None without an audit.

    A false kill is one whose final loss is among the best `top` of all that ended, `top` being the
    trials that the schedule finishes at least. `low` and `high` are the exact 95% interval
    (Clopper and Pearson, 1934) of the rate of false kills among all stopped trials, a single number
    where all of them were audited; `regret` is how far the best audited trial ends below the best
    of the ranking, at least 0: what the sweep lost, as far as the sample shows.
    """
    ended = {
        name: audit
        for name, stopped in results.sweep.trials.items()
        if stopped.status == "stopped"
        and (audit := results.sweep.audit(name)) is not None
        and audit.status in {"finished", "diverged"}
    }
    ranked = [row[results.metric] for row in _finals(results, results.trials)]
    if not ended or not ranked or results.sweep.request is None:
        return None
    top = results.sweep.request["space"].get("schedule", {}).get("finish", 1)
    places = [
        {
            **place_of(trial, at(trial, results.final)),
            "rung": (last_record(results.sweep.trials[name]) or {})["tokens"],
        }
        for name, trial in ended.items()
    ]
    losses = [place[results.metric] for place in places if place[results.metric] is not None]
    bar = sorted([*ranked, *losses])[:top][-1]
    false = sum(loss <= bar for loss in losses)
    count = len(results.having("stopped"))
    low = high = false / len(ended)
    if len(ended) < count:
        from scipy import stats  # takes a second

        interval = stats.binomtest(false, len(ended)).proportion_ci(0.95, method="exact")
        low, high = float(interval.low), float(interval.high)
    return {
        "stopped": count,
        "audited": len(ended),
        "top": top,
        "false_kills": false,
        "rate": false / len(ended),
        "low": low,
        "high": high,
        "regret": max(0.0, min(ranked) - min(losses, default=math.inf)),
        "tokens": results.final,
        "trials": sorted(places, key=lambda place: place[results.metric] or math.inf),
    }


def compute(results: Results) -> Facts:
    """Tokens, FLOPs and seconds spent, against all trials trained to their ends and the forecast.

    `seconds` is training, summed over trials; `wall_clock` the sweep's sessions by the clock.
    """
    trials = list(results.sweep.trials.values())
    reached = sum(trial.tokens for trial in trials)
    branches = sum(trial.branch_tokens for trial in trials)
    audits = results.sweep.audits.values()
    forecast = results.sweep.forecast
    return {
        "tokens_audit": sum(trial.spent_tokens for trial in audits),
        "wall_clock": results.sweep.seconds,
        "forecast": forecast
        and {name: forecast[name] for name in ("tokens", "low", "high", "seconds", "basis")},
        "tokens": results.sweep.spent_tokens,
        "tokens_full": sum(trial.budget for trial in trials),
        "tokens_branches": branches,
        "tokens_repeated": sum(trial.spent_tokens for trial in trials) - reached - branches,
        "flops": results.sweep.spent_flops,
        "flops_full": sum(trial.budget * trial.flops_per_token for trial in trials),
        "seconds": math.fsum(
            last["seconds"] for trial in trials if (last := last_record(trial)) is not None
        ),
    }


def confirming(results: Results) -> list[Trial]:
    """The trials that run the best of a search again on fresh seeds; none where that is not asked."""
    names = (results.sweep.confirming or {"trials": {}})["trials"].values()
    return [results.sweep.trials[name] for name in names]


def selection(results: Results) -> Facts | None:
    """What choosing the best of several may have flattered it by; None where nothing was chosen.

    `among` counts the values that have a result. `optimism` is the mean, over the seeds, of the loss
    at a seed of the values that the others choose, less the best mean over all: what choosing by
    these seeds gains over new ones. Of one seed it is not known. `confirmed` are the losses of the
    same values on fresh seeds.
    """
    best = best_group(results.trials, results.metric)
    finished = [trial for trial in results.trials if trial.status == "finished"]
    tokens = final_point(finished)
    if not best or tokens is None:
        return None
    whole = [group for group in groups(finished) if len(group) == len(best)]
    losses = [
        {
            trial.seed: row[results.metric]
            for trial in group
            if (row := at(trial, tokens)) is not None
        }
        for group in whole
    ]
    seeds = sorted(set.intersection(*(set(each) for each in losses)))
    ends = [row for trial in best if (row := at(trial, tokens)) is not None]
    mean = statistics.fmean(row[results.metric] for row in ends)
    confirmed = [
        trial.curve[-1][results.metric]
        for trial in confirming(results)
        if trial.status == "finished"
    ]
    return {
        "values": best[0].values,
        "among": len(groups(trial for trial in results.trials if status_of(trial) in ENDINGS)),
        "seeds": len(best),
        "mean": mean,
        "optimism": _optimism(losses, seeds, mean) if len(seeds) > 1 < len(losses) else None,
        "confirmed": confirmed,
    }


def _optimism(losses: Sequence[Mapping[int, float]], seeds: Sequence[int], mean: float) -> float:
    left_out = []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        chosen = min(losses, key=lambda each: statistics.fmean(each[s] for s in others))
        left_out.append(chosen[seed])
    return statistics.fmean(left_out) - mean


def head(results: Results) -> Facts:
    """What is asked, when it was run, and how the trials ended."""
    count = {status: len(results.having(status)) for status in (*ENDINGS, "unfinished")}
    return {
        "sweep": results.name,
        "question": results.question,
        "scale": results.scale,
        "metric": results.metric,
        "from": results.begun,
        "to": results.latest,
        "trials": {"planned": len(results.trials), **count},
        "seeds": sorted({trial.seed for trial in results.trials}),
        "notes": results.sweep.session.get("notes", []),
        **{status: ended(results, status) for status in ("diverged", "failed", "unfinished")},
        "compute": compute(results),
    }


def sweep_facts(results: Results) -> Facts:
    """What a sweep's trials say: every comparison with its token count."""
    ranked = ranking(results)
    leader = (
        results.sweep.trials[ranked[0]["trial"]] if ranked and results.final is not None else None
    )
    return {
        **head(results),
        "ranking": {"tokens": results.final, "trials": ranked},
        "stopped": stopped(results, leader),
        "audit": audit(results),
        "comparison": {
            "tokens": results.common,
            "trials": _ranked(results, results.trials, results.common),
            "missing": _unmeasured_at_common(results),
        },
        "best": best_values(results),
        "selection": selection(results),
        "spread": {"tokens": results.common, "groups": spread(results)},
    }
