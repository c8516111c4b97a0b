"""`analysis/report.html`: a sweep as one page that needs no network, made from its ledger.

The page contains the result of `page` as JSON, and the chart library, compressed. This is plotly.js, the only
one compared that draws parallel coordinates and adds points in place.
"""

import base64
import gzip
import json
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sweeps.findings.arms import ArmFindings
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.compute import Timeline
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.optimism import confirmed
from sweeps.findings.results import ENDINGS, METRICS, UNITS, Results, reason_of, status_of
from sweeps.findings.stability import LR
from sweeps.ledger import BY_HAND, Row, Trial, value_of
from sweeps.outcomes import outcome
from sweeps.report.answer import answer_words
from sweeps.report.next_steps import steps_of
from sweeps.report.speedup import speedup_words, ticks
from sweeps.report.stability import stability_words
from sweeps.report.thinning import spread_points, thinned
from sweeps.selection import Measured, Point, at, groups, last_record, losses_by_seed, when
from sweeps.stats import NOISE_MARGIN
from sweeps.text import loss, named, node_words, portable
from tinylm import config as cfg

Content = dict[str, Any]  # the JSON in the page
_PLAIN = re.compile(r"[\w./~-]+")  # texts that YAML may read as they are


def page(found: SearchFindings | StudyFindings, best: str = "") -> Content:
    """Everything that the page shows of a sweep; `best` says where its best checkpoint is."""
    from sweeps.report.plots import look  # loads matplotlib

    results = found.results
    again = [trial for trial in results.sweep.trials.values() if trial.role == "confirm"]
    trials = [*results.trials, *again, *(result.trial for result in found.withdrawn)]
    measured = [trial for trial in results.audited(trials) if trial.curve]
    flat = [cfg.flatten(trial.config) for trial in trials]
    return {
        "sweep": results.name,
        "question": results.question,
        "verdict": [*verdict(found), *([best] if best else [])],
        "next": [step.words for step in steps_of(found)],
        "scale": results.scale,
        "metric": results.metric,
        "metric_name": METRICS[results.metric],
        "unit": UNITS[results.metric],
        "from": results.begun,
        "to": results.latest,
        "counts": {
            "planned": len(results.asked),
            **{status: found.count(status) for status in (*ENDINGS, "unfinished")},
            "confirming": len(again),
            "confirmed": sum(status_of(trial) in ENDINGS for trial in again),
        },
        "main": _main(found),
        "is_study": results.is_study,
        "budgets_differ": results.budgets_differ,
        "noise": _noise(found),
        "arms": _arms(found),
        "speedups": _speedups(found),
        "swept": _swept(results),
        "levels": _levels(results),
        "rate": _rate(found),
        "trials": _trials(found, trials, flat),
        "config": flat[0] if flat else {},
        "series": _series(found, trials),
        "colored_by": _colored_by(found),
        "records": sum(len(trial.curve) for trial in measured),
        "front": [trial.trial.removesuffix("-audit") for trial in found.front]
        if isinstance(found, SearchFindings)
        else [],
        "gantt": gantt(found.timeline),
        "importance": _importance(found),
        "samples": _samples(results),
        "refused": results.sweep.refused,
        "provenance": provenance(results),
        "look": look.for_page(),
    }


def verdict(found: SearchFindings | StudyFindings) -> list[str]:
    """The answer of the sweep in sentences, with the stability of training if rates were swept."""
    stable = found.stability if isinstance(found, SearchFindings) else None
    return [*answer_words(found), *stability_words(stable)[:1]]


def _main(found: SearchFindings | StudyFindings) -> str:
    """The picture that answers the question: the page shows it first."""
    if isinstance(found, StudyFindings):
        return "arms"
    if found.results.budgets_differ:
        return "compute"
    return "values" if _value_paths(found.results) else "curves"


def _noise(found: SearchFindings | StudyFindings) -> float | None:
    """How far from zero the noise reaches in the forest plot; None if it is not known."""
    compared = found.comparison if isinstance(found, StudyFindings) else None
    noise = compared and compared.noise
    return NOISE_MARGIN * noise.sd if noise else None


def _arms(found: SearchFindings | StudyFindings) -> list[Content]:
    """The arms of a study, the baseline first; empty for a search."""
    if isinstance(found, SearchFindings) or found.comparison is None:
        return []
    return [_arm(arm, found.comparison) for arm in found.comparison.arms]


def _speedups(found: SearchFindings | StudyFindings) -> list[Content]:
    """Where speedups stand on the axis of the differences; empty if they are not known."""
    compared = found.comparison if isinstance(found, StudyFindings) else None
    if compared is None:
        return []
    ends = [one for arm in compared.arms for one in arm.paired.values()]
    ends += [
        one
        for arm in compared.arms
        if (e := arm.effect)
        for one in (e.low, e.high)
        if one is not None
    ]
    room = 0.05 * (max(ends, default=0.0) - min(ends, default=0.0))
    low, high = min(ends, default=0.0) - room, max(ends, default=0.0) + room
    return [{"at": at, "name": name} for at, name in ticks(compared, min(low, 0.0), max(high, 0.0))]


def _arm(arm: ArmFindings, compared: ArmsComparison) -> Content:
    effect = arm.effect
    return {
        "arm": arm.name,
        "n": arm.n,
        "mean": arm.mean,
        "difference": effect and effect.mean,
        "low": effect and effect.low,
        "high": effect and effect.high,
        "seeds": list(arm.paired.values()),
        "p_holm": arm.p_holm,
        "verdict": arm.verdict.kind,
        "words": arm.verdict.words,
        "speedup": speedup_words(arm, compared),
        "hypothesis": arm.runs.hypothesis,
        "changes": named(arm.runs.changes),
        "chosen": named(arm.runs.chosen or {}),
        "cautions": arm.caveats,
    }


def _value_paths(results: Results) -> list[str]:
    """The paths that the loss is drawn against: of a study, those of its re-tune grids."""
    tuned = results.space.retune or {}
    return [
        swept.path
        for swept in results.swept
        if len(swept.values) > 1 and (not results.is_study or swept.path in tuned)
    ]


def _swept(results: Results) -> list[Content]:
    drawn = _value_paths(results)
    return [
        {
            "path": swept.path,
            "name": swept.name,
            "numeric": swept.numeric,
            "log": swept.log,
            "sampled": swept.bounds is not None,
            "values": list(swept.values),
            "drawn": swept.path in drawn,
        }
        for swept in results.swept
    ]


def _levels(results: Results) -> list[Content]:
    """The points at which trials are compared, as the figures draw them; `common` is the latest that all
    share, and at the last point trials have finished."""
    from sweeps.report.plots.trials import levels_of  # loads matplotlib

    return [
        {
            "words": when(level.point),
            "strength": level.strength,
            "last": level.last,
            "common": level.point == results.common,
        }
        for level in levels_of(results)
    ]


def _rate(found: SearchFindings | StudyFindings) -> Content | None:
    """What is known of the learning rate; None if nothing is."""
    stable = found.stability if isinstance(found, SearchFindings) else None
    if stable is None:
        return None
    fit = stable.fit
    return {
        "path": LR,
        "lines": [
            {"words": words, "rate": rate}
            for words, rate in stable.edges.items()
            if rate is not None
        ],
        "fit": fit and {"rate": fit.rate, "low": fit.low, "high": fit.high},
    }


def _importance(found: SearchFindings | StudyFindings) -> Content | None:
    known = found.importance if isinstance(found, SearchFindings) else None
    if known is None:
        return None
    return {
        "shares": known.shares,
        "words": (
            f"How much of the ranking of {known.trials} trials {when(known.point)} each path explains by itself: "
            f"the adjusted R² of a parabola through the ranks, or of the mean rank of each value. "
            f"{'' if known.point == found.results.final else 'Early losses may depend on other paths than final ones.'}"
        ).strip(),
    }


def _colored_by(found: SearchFindings | StudyFindings) -> Content | None:
    """The path that the colors of curves show, if too many curves have colors for a legend."""
    from sweeps.report.plots.trials import colored_path  # loads matplotlib

    swept = None if isinstance(found, StudyFindings) else colored_path(found.results)
    if swept is None:
        return None
    return {"path": swept.path, "log": swept.log, "low": swept.values[0], "high": swept.values[-1]}


def _series(found: SearchFindings | StudyFindings, trials: Sequence[Trial]) -> list[Content]:
    """What the learning curves show: trials that differ only by their seeds, with a name, colors and
    dashes; for a study its arms, and the trials of their re-tune grids."""
    if isinstance(found, StudyFindings):
        return list(_series_of_study(found, trials))
    return list(_series_of_search(found.results, trials))


def _series_of_search(results: Results, trials: Sequence[Trial]) -> Iterator[Content]:
    from sweeps.report.plots import look  # loads matplotlib
    from sweeps.report.plots.trials import looks_of

    looks = looks_of(results)
    searched = groups(trial for trial in trials if trial.role != "confirm")
    like = {value_of(group[0].values): number for number, group in enumerate(searched)}
    for group in [*searched, *groups(trial for trial in trials if trial.role == "confirm")]:
        name, of = named(group[0].values) or results.name, None
        if group[0].role == "confirm":
            name, of = f"confirmation of {name}", like.get(value_of(group[0].values))
        first = (group if of is None else searched[of])[0].trial
        yield {
            "name": name,
            "trials": [trial.trial for trial in group],
            "kind": "run",
            "confirms": of,
            "colors": look.page_colors(looks.colors.get(first, "0.5"), looks.shares.get(first)),
            "dash": look.page_dash(looks.dashes.get(first, "-")) if of is None else "dot",
            "symbol": look.page_symbol(looks.marks.get(first, look.mark_of(0))),
        }


def _series_of_study(found: StudyFindings, trials: Sequence[Trial]) -> Iterator[Content]:
    from sweeps.report.plots import arms, look  # loads matplotlib

    looks = arms.looks(found)
    runs = {trial.trial for arm in found.settled for trial in arm.runs.values()}
    plain = arms.look_of(0)  # of an arm that the space no longer has
    for arm in found.settled:
        color, dash, mark = looks[arm.name]
        yield {
            "name": arm.name,
            "trials": [trial.trial for trial in arm.runs.values()],
            "kind": "run",
            "colors": look.page_colors(color, None),
            "dash": look.page_dash(dash),
            "symbol": look.page_symbol({"marker": mark}),
        }
    for trial in trials:
        if trial.trial not in runs:
            color, _, mark = looks.get(trial.arm, plain)
            yield {
                "name": trial.label,
                "trials": [trial.trial],
                "kind": "re-tuning" if trial.role == "tuning" else "other",
                "colors": look.page_colors(color, None),
                "dash": "dot",
                "symbol": look.page_symbol({"marker": mark}),
            }


def _first_at(curve: Sequence[Measured], tokens: int) -> int | None:
    """The number of the first record with so many tokens; None if an attempt ended before."""
    return next((number for number, one in enumerate(curve) if one.tokens >= tokens), None)


def _trials(
    found: SearchFindings | StudyFindings, trials: Sequence[Trial], flat: Sequence[Content]
) -> list[Content]:
    """The trials, the best first: those that finished by loss, then the others by how far they got."""
    from sweeps.report.plots.trials import levels_of  # loads matplotlib

    results = found.results
    levels = [level.point for level in levels_of(results)]
    points = spread_points(sum(bool(trial.curve) for trial in trials))
    ranked = found.ranking.trial_results if isinstance(found, SearchFindings) else ()
    ranks = {result.trial.trial: result.rank for result in ranked}
    values = found.values if isinstance(found, SearchFindings) else ()
    ranks |= {trial.trial: value.rank for value in values for trial in value.trials}
    over_seeds = {t.trial: _over_seeds(value.losses) for value in values for t in value.trials}
    fresh = confirmed(results)
    ends = losses_by_seed(fresh, results.metric).values()
    over_seeds |= {trial.trial: _over_seeds([*ends]) for trial in fresh if ends}
    labels = _labels(trials)
    try:
        shipped = cfg.flatten(cfg.load(results.scale).model_dump())
    except cfg.ConfigError:  # the file of this scale is gone
        shipped = None
    content = [
        {
            **_curve(results, trial, points),
            **_facts(results, trial),
            "label": labels[trial.trial],
            "rank": ranks.get(trial.trial),
            "over_seeds": over_seeds.get(trial.trial),
            "at": [shown_loss(loss) for loss in _losses(results, trial, levels)],
            "set": {path: v for path, v in config.items() if v != flat[0].get(path)},
            "command": _command(results.scale, trial.trial, shipped, config),
            "marks": _marks(results, trial),
        }
        for trial, config in zip(trials, flat, strict=True)
    ]
    if results.is_study:
        return content
    return sorted(content, key=_place)


def _over_seeds(losses: Sequence[float]) -> str:
    """The mean of losses over seeds, with their standard deviation and number."""
    spread = f" ± {loss(statistics.stdev(losses))}" if len(losses) > 1 else ""
    return f"{loss(statistics.fmean(losses))}{spread} (n = {len(losses)})"


def _place(trial: Content) -> tuple[Any, ...]:
    """Where a trial of a search is listed."""
    if trial["rank"] is not None:
        return 0, trial["rank"]
    lost = trial["status"] in {"diverged", "failed", "withdrawn"}
    loss = trial["loss"][-1] if trial["loss"] else math.inf
    return 2 if lost else 1, -trial["ended"], loss


def _labels(trials: Sequence[Trial]) -> dict[str, str]:
    """The labels of the trials, each different: those that are alike, in ledgers of earlier versions, have the
    id added."""
    number = Counter(trial.label for trial in trials)
    return {t.trial: f"{t.label} ({t.trial})" if number[t.label] > 1 else t.label for t in trials}


def _losses(results: Results, trial: Trial, levels: Sequence[Point]) -> Iterator[float | None]:
    """The loss at each level, with that of a finished audit; None if there is none, or the trial diverged,
    or confirms a choice and so is not compared with the trials that led to it."""
    audit = results.ended_audit(trial)
    whole = audit if audit is not None and audit.status == "finished" else trial
    for level in levels:
        is_apart = whole.status == "diverged" or trial.role == "confirm"
        record = None if is_apart else at(whole, level)
        yield record and record.loss(results.metric)


def _command(scale: str, name: str, shipped: Content | None, config: Content) -> str:
    """The command that trains a config outside the sweep; empty if its scale is not known."""
    if shipped is None:
        return ""
    sets = [
        f"--set {shlex.quote(f'{path}={_yaml(value)}')}"
        for path, value in config.items()
        if value != shipped.get(path)
    ]
    words = ["python -m tinylm train --config", shlex.quote(scale), "--out", f"runs/{name}", *sets]
    return " ".join(words)


def _yaml(value: Any) -> str:
    """A value of a config as `--set` reads it."""
    return value if isinstance(value, str) and _is_plain(value) else json.dumps(value)


@cache
def _is_plain(text: str) -> bool:
    """Whether YAML reads a text as it is."""
    known = _PLAIN.fullmatch(text) is not None
    return known and cfg.parse_assignments([f"it={text}"]) == {"it": text}


def _facts(results: Results, trial: Trial) -> Content:
    """What the table and the panel of a trial say of it."""
    whole = results.ended_audit(trial) or trial
    last = last_record(whole)
    return {
        "id": trial.trial,
        "status": _status(whole),
        "outcome": outcome(whole),
        "seed": trial.seed,
        "arm": trial.arm,
        "role": trial.role,
        "values": trial.values,
        "params": trial.params,
        "flops_per_token": trial.flops_per_token,
        "bits": last and shown_loss(last.bits_per_byte),
        "ended": whole.tokens,
        "reason": reason_of(whole),
        "by_hand": BY_HAND if whole.is_stopped_by_hand else "",
        "checkpoint": whole.checkpoint and whole.checkpoint["path"],
    }


def _curve(results: Results, trial: Trial, points: int) -> Content:
    """The curve of a trial, thinned, one list per column; that of an audit begins with its trial's."""
    audit = results.ended_audit(trial)
    whole = audit or trial
    end = trial.curve[-1]["tokens"] if trial.curve else 0
    drawn = thinned(whole, points, {*results.rungs_of(whole), end})
    curve = [Measured(whole.curve[number]) for number in drawn]
    return {
        "stopped_at": None if audit is None else _first_at(curve, end),
        "step": [record.step for record in curve],
        "tokens": [record.tokens for record in curve],
        "seconds": [round(record.seconds, 2) for record in curve],
        "loss": [shown_loss(record.loss(results.metric)) for record in curve],
        "train_loss": [shown_loss(record.train_loss) for record in curve],
    }


def shown_loss(loss: float | None) -> float | None:
    """A loss with more digits than the page shows of it."""
    return None if loss is None else round(loss, 6)


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


def _marks(results: Results, trial: Trial) -> list[Content]:
    """The decision on a trial at each rung, and how it ended."""
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
    if status in {"finished", "diverged", "failed"} or trial.is_stopped_by_hand:
        kind = status if status in {"finished", "stopped"} else outcome(trial)
        marks.append({"kind": kind, "tokens": trial.tokens, "words": reason_of(trial)})
    audit = results.ended_audit(trial)
    if audit is not None:
        kind = outcome(audit) or "audited"
        words = audit.reason or f"loss {loss(_audited_loss(results, trial))}"
        marks.append({"kind": kind, "tokens": audit.tokens, "words": words})
    return marks


def _audited_loss(results: Results, trial: Trial) -> float | None:
    """The loss at the end of a trial's audit; None if it has none."""
    audit = results.ended_audit(trial)
    end = last_record(audit) if audit is not None and audit.status == "finished" else None
    return end and end.loss(results.metric)


def gantt(timeline: Timeline) -> Content:
    """When each attempt ran, on which slot of the machine, how busy the slots were, and what happened to the
    nodes of a cluster."""
    bars = [
        {
            "trial": one.label,
            "slot": one.slot,
            "from": round(one.begin, 3),
            "to": round(one.end, 3),
        }
        for one in timeline.bars
    ]
    nodes = [
        {"at": round(max(0.0, at), 3), "words": f"{row['host']}: {node_words(row)}"}
        for at, row in timeline.nodes
    ]
    use = timeline.utilization
    return {"bars": bars, "slots": timeline.slots, "utilization": use, "nodes": nodes}


def _samples(results: Results) -> Content | None:
    """The texts sampled from the best checkpoint and from the baseline's, by how they were sampled; None if
    there are none."""
    if results.sweep.sampled is None:
        return None
    texts = results.sweep.sampled["texts"]
    settings = {(text["temperature"], text["top_p"]): list[Content]() for text in texts}
    for text in texts:
        trial = results.sweep.find(text["trial"])
        end = last_record(trial)
        assert end is not None  # it has a checkpoint
        where = f"{METRICS[results.metric]} {end.loss(results.metric):.4f}"
        words = f"{trial.label}, {text['step']:,} updates, {where}"
        settings[text["temperature"], text["top_p"]].append({"of": words, "text": text["text"]})
    return {
        "words": (
            f"Each is the beginning of a new document: {max(text['tokens'] for text in texts)} tokens, "
            "or fewer if the model ended it."
        ),
        "settings": [
            {"words": f"temperature {temperature:g}, top-p {top_p:g}", "texts": one}
            for (temperature, top_p), one in settings.items()
        ],
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


def page_palette() -> list[list[str]]:
    """The colors of the figures, each on a light and on a dark page."""
    from sweeps.report.plots import look  # loads matplotlib

    return [look.page_colors(color, None) for color in look.OKABE_ITO]


@cache
def plotly() -> str:
    """The chart library, compressed to two fifths, as text; the page unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def _code(words: str) -> Markup:
    """A sentence, in which text between backquotes is code."""
    parts = enumerate(words.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in parts)


def render(name: str, **content: Any) -> str:
    """A template of the reports, filled in."""
    environment = Environment(
        loader=PackageLoader("sweeps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["code"] = _code
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment.get_template(f"{name}.j2").render(**content)


def html(content: Content, feed: str = "", nonce: str = "", steer: str = "") -> str:
    """The complete page; `feed` is the address that a live page gets its content from, `nonce` the word by
    which its browser knows the page's own scripts, and `steer` the address that requests to steer go to."""
    return render("report.html", page=content, feed=feed, nonce=nonce, plotly=plotly(), steer=steer)
