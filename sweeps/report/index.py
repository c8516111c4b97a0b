"""`results/index.html`, which lists the sweeps in a folder, and `results/compare.html`, which compares
their experiments."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sweeps import stats
from sweeps.exits import message_of
from sweeps.findings.best import best_runs
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.findings.experiments import Experiment, experiments
from sweeps.findings.results import METRICS, UNITS, Results
from sweeps.ledger import Files, ResultsFolder, Trial
from sweeps.report.entries import group_names, group_terms, group_words
from sweeps.report.head import best_words, head_words
from sweeps.report.notes import written
from sweeps.report.page import Content, page_palette, plotly, render, shown_loss
from sweeps.report.thinning import thinned
from sweeps.selection import NO_CHANGE, Measured, last_record, losses_by_seed, when
from sweeps.text import count, duration, loss, named, tally
from tinylm import config as cfg

POINTS = 60  # of a curve that is compared with others


def write_index(folder: Path, reader: Reader) -> Path:
    """Write `index.html`, which lists the sweeps in a folder, and `compare.html`, which compares them; returns
    the path of the index."""
    there = ResultsFolder(folder)
    own = written(there)
    own.write(there.compare, compare_html(compared(folder, reader)).encode())
    own.write(there.index, index_html(folder, reader).encode())
    return there.index


def index_html(folder: Path, reader: Reader, nonce: str = "") -> str:
    """The page that lists the sweeps in a folder, the last one first."""
    all_findings = reader.under(folder)
    every = list(experiments(all_findings))
    terms = [one.terms for one in every]
    groups: dict[str, str] = {}  # of the first experiment of each sweep
    for one, group in zip(every, group_names(terms), strict=True):
        groups.setdefault(one.results.name, group)
    return render(
        "index.html",
        sweeps=[
            _listed(found, folder, groups.get(found.results.name, ""))
            for found in reversed(all_findings)
        ],
        groups=group_words(terms),
        left_out={name: message_of(why) for name, why in reader.left_out(folder).items()},
        nonce=nonce,
    )


def _listed(found: SearchFindings | StudyFindings, folder: Path, group: str) -> Content:
    """What the index says of a sweep."""
    results = found.results
    files = Files(folder / results.name)
    what, best, where = _best(found)

    def link(path: Path) -> str:
        return quote(str(path.relative_to(folder)))

    picture = next((path for path in _pictures(results, files) if path.is_file()), None)
    return {
        "name": results.name,
        "question": results.question,
        "verdict": head_words(found, best_words(files, found)),
        "what": what,
        "loss": best,
        "best": loss(best),
        "where": f"{UNITS[results.metric]} {where}" if best is not None else "",
        "text": ", ".join(dict.fromkeys(map(_text, results.trials))),
        "group": group,
        "scale": results.scale,
        "tokens": found.compute.tokens,
        "cost": [
            f"{count(found.compute.tokens)} tokens",
            f"{count(found.compute.flops)} FLOPs",
            duration(found.compute.wall_clock),
        ],
        "state": _state(found),
        "to": results.latest[:16].replace("T", " "),
        "picture": None if picture is None else link(picture),
        "link": link(files.report),
        "summary": link(files.summary),
    }


def _best(found: SearchFindings | StudyFindings) -> tuple[str, float | None, str]:
    """What the best checkpoint is of, its loss, and where that was measured."""
    if isinstance(found, StudyFindings):
        runs = best_runs(found)
        arms = [] if found.comparison is None else found.comparison.arms
        best = next((arm for arm in arms if runs and arm.name == runs[0].arm), None)
        if best is None or best.mean is None:
            return "", None, ""
        return best.name, best.mean, when(found.results.point_of(runs))
    answer = found.answer
    if answer.better is not None:
        return named(answer.better.values), answer.better.loss, f"{when(answer.point)}, in an audit"
    if answer.choice is not None:
        return named(answer.choice.values), answer.choice.loss, when(answer.point)
    return "", None, ""


def _text(trial: Trial) -> str:
    """The name of the text that a trial was trained on."""
    data = trial.config["data"]
    return Path(data["path"]).name if data["path"] else str(data["corpus"])


def _state(found: SearchFindings | StudyFindings) -> str:
    planned, unfinished = len(found.results.asked), found.count("unfinished")
    if found.is_unfinished or unfinished:
        return f"results for {planned - unfinished} of {planned}"
    lost = tally(["diverged"] * found.count("diverged") + ["failed"] * found.count("failed"))
    return f"complete ({lost})" if lost else "complete"


def _pictures(results: Results, files: Files) -> Iterator[Path]:
    """The figures that may stand for a sweep, the best first."""
    values = [f"loss_vs_{swept.name}" for swept in results.swept if len(swept.values) > 1]
    for name in ("arms", "loss_vs_compute", *values, "loss_by_tokens"):
        yield files.figure(name, "png")


def compared(folder: Path, reader: Reader) -> Content:
    """What the page holds that compares the experiments of the sweeps in a folder."""
    every = list(experiments(reader.under(folder)))
    terms = [one.terms for one in every]
    lettered = zip(every, group_names(terms), strict=True)
    most = max((len(one.runs) for one in every if one.begun), default=1)
    return {
        "experiments": [_compared(one, group) for one, group in lettered if one.begun],
        "groups": group_terms(terms),
        "colors": page_palette(),
        # How many standard errors an interval reaches, by the number of seeds.
        "reach": [None, None, *(stats.t_quantile(n - 1) for n in range(2, most + 1))],
    }


def _compared(one: Experiment, group: str) -> Content:
    results, first = one.results, one.runs[0]
    own = one.runs if one.are_alike else [first]
    losses = losses_by_seed(own, results.metric)
    effect = one.arm.effect if one.arm is not None and not one.is_baseline else None
    return {
        "name": one.name,
        "sweep": results.name,
        "report": quote(f"{results.name}/analysis/report.html"),
        "question": results.question,
        "group": group,
        "metric": results.metric,
        "metric_name": METRICS[results.metric],
        "unit": UNITS[results.metric],
        "values": named(first.values),
        "params": first.params,
        "losses": [[seed, end] for seed, end in losses.items()],
        "where": when(results.point_of(one.finished)) if one.finished else "",
        "chosen": one.is_chosen,
        "seconds": one.seconds,
        "flops": one.flops,
        # The interval that its study gives it, against the baseline there.
        "effect": effect
        and {
            "baseline": f"{results.name}/{one.against[0].arm}" if one.against else "",
            "n": effect.n,
            "mean": effect.mean,
            "low": effect.low,
            "high": effect.high,
        },
        "config": {p: v for p, v in cfg.flatten(first.config).items() if p not in NO_CHANGE},
        "curve": _mean_curve(own, results),
    }


def _mean_curve(trials: Sequence[Trial], results: Results) -> dict[str, list[Any]]:
    """The mean over the seeds that did not diverge or fail, where all were measured, and its band."""
    alive = [t for t in trials if t.curve and t.status not in {"diverged", "failed"}]
    alive = alive or [trial for trial in trials if trial.curve][:1]
    rows = [_by_tokens(trial) for trial in alive]
    shared = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    drawn = set(_spread(alive, shared))
    kept = [[row[tokens] for row in rows] for tokens in shared if tokens in drawn]
    losses = [[record.loss(results.metric) for record in each] for each in kept]
    return {
        "tokens": [each[0].tokens for each in kept],
        "flops": [each[0].tokens * alive[0].flops_per_token for each in kept],
        "seconds": [round(statistics.fmean(r.seconds for r in each), 2) for each in kept],
        "mean": [shown_loss(statistics.fmean(each)) for each in losses],
        "low": [shown_loss(min(each)) for each in losses],
        "high": [shown_loss(max(each)) for each in losses],
    }


def _by_tokens(trial: Trial) -> dict[int, Measured]:
    return {row["tokens"]: Measured(row) for row in trial.curve}


def _spread(alive: Sequence[Trial], shared: Sequence[int]) -> Iterable[int]:
    """The token counts of the records that are drawn."""
    end = [last.tokens for trial in alive if (last := last_record(trial)) is not None]
    numbers = (thinned(trial, POINTS, {*shared[-1:], *end}) for trial in alive[:1])
    return (alive[0].curve[number]["tokens"] for number in itertools.chain(*numbers))


def compare_html(content: Content, nonce: str = "") -> str:
    """The page that compares experiments."""
    return render("compare.html", page=content, nonce=nonce, plotly=plotly())
