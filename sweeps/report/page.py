"""`analysis/report.html`: a sweep as one page that needs no network, made from its ledger.

The page contains the result of `page` as JSON, and the chart library, compressed. This is plotly.js, the only
one compared that draws parallel coordinates and adds points in place.
"""

import base64
import gzip
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweeps.exits import message_of
from sweeps.findings.arms import ArmFindings
from sweeps.findings.compute import Timeline
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.findings.experiments import Terms, experiments
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import ENDINGS, METRICS, UNITS, Results, reason_of, status_of
from sweeps.ledger import Files, ResultsFolder, Row, Trial, write_whole
from sweeps.report.answer import answer_words
from sweeps.report.entries import group_names, group_words
from sweeps.report.head import best_words, head_words
from sweeps.report.stability import stability_words
from sweeps.report.thinning import spread_points, thinned
from sweeps.selection import Measured, last_record, when
from sweeps.text import loss, named, portable

Content = dict[str, Any]  # the JSON in the page


def page(found: SearchFindings | StudyFindings, best: str = "") -> Content:
    """Everything that the page shows of a sweep; `best` says where its best checkpoint is."""
    from sweeps.report.plots import look  # loads matplotlib

    results = found.results
    counts = {status: found.count(status) for status in (*ENDINGS, "unfinished")}
    audited = results.audited(results.trials)
    stopped = {one.trial: trial.trial for trial, one in zip(results.trials, audited, strict=True)}
    sound = [trial for trial in audited if trial.curve and trial.status != "diverged"]
    curves = [[row[results.metric] for row in trial.curve] for trial in sound]
    measured = [trial for trial in audited if trial.curve]
    points = spread_points(len(measured))
    return {
        "sweep": results.name,
        "question": results.question,
        "verdict": [*verdict(found), *([best] if best else [])],
        "scale": results.scale,
        "metric": results.metric,
        "metric_name": METRICS[results.metric],
        "unit": UNITS[results.metric],
        "from": results.begun,
        "to": results.latest,
        "counts": {"planned": len(results.trials), **counts},
        "arms": _arms(found),
        "table": table(found),
        "swept": [
            {"path": s.path, "numeric": s.numeric, "log": s.log, "values": list(s.values)}
            for s in results.swept
        ],
        "trials": [_trial(results, trial, points) for trial in results.trials],
        "records": sum(len(trial.curve) for trial in measured),
        "front": [stopped[one.trial] for one in found.front]
        if isinstance(found, SearchFindings)
        else [],
        "rungs": [_fate(results, trial) for trial in results.trials],
        "compute_first": isinstance(found, SearchFindings) and results.budgets_differ,
        "gantt": gantt(found.timeline),
        "importance": found.importance if isinstance(found, SearchFindings) else {},
        "sample": _sample(results),
        "provenance": provenance(results),
        "look": look.for_page(),
        "limits": {  # of the axes of losses
            "curves": look.limits([loss for curve in curves for loss in curve]),
            "last": look.limits([curve[-1] for curve in curves]),
        },
    }


def verdict(found: SearchFindings | StudyFindings) -> list[str]:
    """The answer of the sweep in sentences, with the stability of training if rates were swept."""
    stable = found.stability if isinstance(found, SearchFindings) else None
    return [*answer_words(found), *stability_words(stable)[:1]]


def _arms(found: SearchFindings | StudyFindings) -> list[Content]:
    """The arms of a study, the baseline first; empty for a search."""
    if isinstance(found, SearchFindings) or found.comparison is None:
        return []
    return [_arm(arm) for arm in found.comparison.arms]


def _arm(arm: ArmFindings) -> Content:
    effect = arm.effect
    return {
        "arm": arm.name,
        "n": arm.n,
        "mean": arm.mean,
        "difference": effect and effect.mean,
        "low": effect and effect.low,
        "high": effect and effect.high,
        "p_holm": arm.p_holm,
        "verdict": arm.verdict.kind,
        "words": arm.verdict.words,
        "hypothesis": arm.runs.hypothesis,
        "changes": named(arm.runs.changes),
        "chosen": named(arm.runs.chosen or {}),
        "cautions": arm.caveats,
    }


def table(found: SearchFindings | StudyFindings) -> Content:
    """The trials as a table: finished trials by rank, then the others; a study has no ranks."""
    trial_results = found.ranking.trial_results if isinstance(found, SearchFindings) else ()
    ranks = {result.trial.trial: result.rank for result in trial_results}
    gone = [result.trial for result in found.withdrawn]
    rows = [_table_row(one, ranks.get(one.trial)) for one in (*found.results.trials, *gone)]
    rows.sort(key=lambda row: (row[0] is None, row[0] or 0, row[4] is None, row[4] or 0.0))
    columns = [
        "rank", "trial", "status", "problem", "validation loss", "bits per byte",
        "training loss", "tokens", "seconds", "parameters", "why it ended",
    ]  # fmt: skip
    first = 0 if isinstance(found, SearchFindings) else 1
    if isinstance(found, SearchFindings) and found.audit is not None:
        audited = {t.label: _audited_loss(found.results, t) for t in found.results.trials}
        columns.append("loss after its audit")
        rows = [[*row, audited.get(row[1])] for row in rows]
    return {"columns": columns[first:], "rows": [row[first:] for row in rows]}


def _table_row(trial: Trial, rank: int | None) -> list[Any]:
    last = last_record(trial)
    return [
        rank,
        trial.label,
        status_of(trial),
        outcome(trial),
        last and last.val_loss,
        last and last.bits_per_byte,
        last and last.train_loss,
        last and last.tokens,
        last and round(last.seconds),
        trial.params,
        reason_of(trial),
    ]


def _first_at(curve: Sequence[Measured], tokens: int) -> int | None:
    """The number of the first record with so many tokens; None if an attempt ended before."""
    return next((number for number, one in enumerate(curve) if one.tokens >= tokens), None)


def _trial(results: Results, trial: Trial, points: int) -> Content:
    """A trial with its curve, thinned, one list per column; that of an audit begins with its trial's."""
    audit = results.ended_audit(trial)
    whole = audit or trial
    end = trial.curve[-1]["tokens"] if trial.curve else 0
    drawn = thinned(whole, points, {*results.rungs_of(whole), end})
    curve = [Measured(whole.curve[number]) for number in drawn]
    return {
        "id": trial.trial,
        "label": trial.label,
        "status": _status(whole),
        "outcome": outcome(whole),
        "stopped_at": None if audit is None else _first_at(curve, end),
        "seed": trial.seed,
        "values": trial.values,
        "flops_per_token": trial.flops_per_token,
        "step": [record.step for record in curve],
        "tokens": [record.tokens for record in curve],
        "seconds": [round(record.seconds, 2) for record in curve],
        "loss": [_shown(record.loss(results.metric)) for record in curve],
        "train_loss": [_shown(record.train_loss) for record in curve],
    }


def _shown(loss: float) -> float:
    """A loss with more digits than the page shows of it."""
    return round(loss, 6)


def _status(trial: Trial) -> str:
    """The status of a trial, as the charts mark it."""
    is_audited = trial.role == "audit" and trial.status == "finished"
    return "audited" if is_audited else status_of(trial)


def _standing(results: Results, row: Row, trial: Trial) -> str:
    """The score of a decision, the rank if it has one, and its rung where this is a share of budgets
    that differ."""
    rank = f", rank {row['rank']}" if row.get("rank") is not None else ""
    share = f" {when(Fraction(row['rung'], trial.budget))}" if results.budgets_differ else ""
    return f"score {loss(row.get('score'))}{rank}{share}"


def _fate(results: Results, trial: Trial) -> Content:
    """How far a trial got, the decision at each rung, and how it ended."""
    decisions = results.decisions.get(trial.trial, [])
    marks = [
        {
            "kind": row["kind"],
            "tokens": row["rung"],
            "words": row.get("reason") or _standing(results, row, trial),
        }
        for row in decisions
    ]
    status = status_of(trial)
    if status in {"finished", "diverged", "failed"}:
        kind = status if status == "finished" else outcome(trial)
        marks.append({"kind": kind, "tokens": trial.tokens, "words": reason_of(trial)})
    audit = results.ended_audit(trial)
    if audit is not None:
        kind = outcome(audit) or "audited"
        words = audit.reason or f"loss {loss(_audited_loss(results, trial))}"
        marks.append({"kind": kind, "tokens": audit.tokens, "words": words})
    tokens = (audit or trial).tokens
    return {"label": trial.label, "status": status, "tokens": tokens, "marks": marks}


def _audited_loss(results: Results, trial: Trial) -> float | None:
    """The loss at the end of a trial's audit; None if it has none."""
    audit = results.ended_audit(trial)
    end = last_record(audit) if audit is not None and audit.status == "finished" else None
    return end and end.loss(results.metric)


def gantt(timeline: Timeline) -> Content:
    """When each attempt ran, on which slot of the machine, and how busy the slots were."""
    bars = [
        {
            "trial": one.label,
            "slot": one.slot,
            "from": round(one.begin, 3),
            "to": round(one.end, 3),
        }
        for one in timeline.bars
    ]
    return {"bars": bars, "utilization": timeline.utilization}


def _sample(results: Results) -> Content | None:
    """Text sampled from the best checkpoint, and how it was sampled; None if there is none."""
    row = results.sweep.sampled
    if row is None:
        return None
    trial = results.sweep.find(row["trial"])
    end = last_record(trial)
    assert end is not None  # it has a checkpoint
    return {
        "text": row["text"],
        "words": (
            f"{trial.label} after {row['step']:,} updates, {METRICS[results.metric]} "
            f"{end.loss(results.metric):.4f} {UNITS[results.metric]}: the first {row['tokens']:,} tokens of a new "
            f"document, at temperature {row['temperature']:g} and top-p {row['top_p']:g} (seed "
            f"{row['seed']})."
        ),
    }


def provenance(results: Results) -> list[list[str]]:
    """How and where the last session ran, and the commits of all sessions, as names and values."""
    session = results.sweep.session
    machine, versions = session.get("machine", {}), session.get("versions", {})
    lines = [
        ["command", portable(session.get("command", ""))],
        ["processor", machine.get("processor")],
        ["CPUs", machine.get("cpus")],
        ["memory", f"{machine['memory'] / 1e9:.0f} GB" if machine.get("memory") else None],
        ["system", machine.get("system")],
        ["versions", ", ".join(f"{name} {number}" for name, number in versions.items())],
        ["GPU", machine.get("gpu")],
        ["commit", ", ".join(dict.fromkeys(
            f"{one['commit']}{' with changes' * bool(one.get('changed'))}"
            for one in results.sweep.sessions if one.get("commit")
        ))],
        ["constraints.txt", session.get("constraints")],
    ]  # fmt: skip
    return [[name, str(value)] for name, value in lines if value]


@cache
def _plotly() -> str:
    """The chart library, compressed to two fifths, as text; the page unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def _render(name: str, **content: Any) -> str:
    environment = Environment(
        loader=PackageLoader("sweeps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment.get_template(f"{name}.j2").render(**content)


def html(content: Content, feed: str = "", nonce: str = "") -> str:
    """The complete page; `feed` is the address that a live page gets its content from, and `nonce` the
    word by which its browser knows the page's own scripts."""
    return _render("report.html", page=content, feed=feed, nonce=nonce, plotly=_plotly())


def write_index(folder: Path, reader: Reader) -> Path:
    """Write `index.html`, which lists the sweeps in a folder; returns its path."""
    all_findings = reader.under(folder)
    sweeps = []
    terms: dict[str, Terms] = {}  # of the first experiment of each sweep
    for one in experiments(all_findings):
        terms.setdefault(one.results.name, one.terms)
    groups = dict(zip(terms, group_names(list(terms.values())), strict=True))
    for found in all_findings:
        results = found.results
        group = groups.get(results.name)
        sweeps.append(
            {
                "name": results.name,
                "question": results.question,
                "scale": results.scale,
                "to": results.latest[:16].replace("T", " "),
                "planned": len(results.trials),
                "unfinished": found.count("unfinished"),
                "verdict": head_words(found, best_words(Files(folder / results.name), found)),
                "group": f"group {group}, " if group else "",
                "link": quote(str(Files(folder / results.name).report.relative_to(folder))),
            }
        )
    path = ResultsFolder(folder).index
    content = _render(
        "index.html",
        sweeps=sweeps,
        groups=group_words(list(terms.values())),
        left_out={name: message_of(why) for name, why in reader.left_out(folder).items()},
    )
    write_whole(path, content.encode())
    return path
