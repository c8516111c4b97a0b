"""Evaluate early stopping on recorded curves: the figures and tables of docs/early_stopping.md.

    python benchmarks/early_stopping/study.py [--repeats 200]

Reads curves/*.csv (see record.py) and writes docs/early_stopping/: results.json, tables.md and the
figures. Nothing is trained. It takes a few minutes on one core.
"""

import csv
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import hartmann
import matplotlib as mpl
import remedies
import typer
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from remedies import Chosen, RayAsha
from scipy import stats

from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES, Policy
from sweeps.policies.base import BRANCH
from sweeps.simulate.curves import SCORE, Curve, arrivals, read_curves
from sweeps.simulate.judge import judge, rounded_rungs
from sweeps.simulate.machine import replay
from sweeps.simulate.settings import fitting, settings
from tinylm import config as cfg
from tinylm import optim

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "early_stopping"
WORKERS = 2
SAFE = 0.95  # share of repeats that must find the best trial, or one within a sigma of it
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
MARKS = "oDvphs^<>*XPd"


@dataclass(frozen=True)
class Pool:
    """The trials of one recorded sweep."""

    name: str
    curves: list[Curve]
    rate: dict[str, float]
    alike: dict[str, tuple[str, ...]]  # the trial's other values
    schedule: str

    @property
    def budget(self) -> int:
        """Tokens of a full run."""
        return max(curve.tokens[-1] for curve in self.curves)

    @cached_property
    def by_trial(self) -> dict[str, Curve]:
        """The curves by trial."""
        return {curve.trial: curve for curve in self.curves}

    @cached_property
    def areas(self) -> dict[str, remedies.Areas]:
        """The areas of each trial's learning-rate schedule."""
        base = cfg.overlay(cfg.load("cpu"), {"optim.schedule": self.schedule})
        found = {}
        for trial, rate in self.rate.items():
            config = cfg.overlay(base, {"optim.lr": rate})
            rates = [
                optim.learning_rate(optim.Progress(step + 1, config.steps), config.optim)
                for step in range(config.steps)
            ]
            found[trial] = remedies.areas(rates, config.tokens_per_step)
        return found

    def score(self, trial: str, tokens: int) -> float:
        """The last score at or before a token count; infinite once the trial has diverged."""
        curve = self.by_trial[trial]
        last = max(i for i, t in enumerate(curve.tokens) if t <= tokens)
        score = curve.scores[last]
        return score if math.isfinite(score) else math.inf

    def decayed_score(self, trial: str, tokens: int) -> float:
        """The score at the end of the decay branch from a rung."""
        return self.by_trial[trial].decayed.get(tokens, math.inf)

    @property
    def branched(self) -> list[int]:
        """The tokens at which decay branches were recorded."""
        return sorted({tokens for curve in self.curves for tokens in curve.decayed})


def load(path: Path) -> Pool:
    """Read a recorded sweep from its file."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = {row["trial"]: row for row in reversed(rows)}
    other = [name for name in rows[0] if name.startswith("model.")]
    curves = read_curves(path)
    labels = {
        trial: " ".join(
            f"{name.rpartition('.')[2]}={row[name]}" for name in (*other, "optim.lr") if row[name]
        )
        for trial, row in first.items()
    }
    ordered = sorted(curves, key=lambda curve: float(first[curve.trial]["optim.lr"]))
    return Pool(
        name=path.stem,
        curves=[replace(curve, label=labels[curve.trial]) for curve in ordered],
        rate={trial: float(row["optim.lr"]) for trial, row in first.items()},
        alike={trial: tuple(row[name] for name in other) for trial, row in first.items()},
        schedule="wsd" if "wsd" in path.stem else "cosine",
    )


def noise(pools: Mapping[str, Pool]) -> dict[str, Any]:
    """The standard deviation of the final score over the seeds of one config, pooled over rates."""
    seeds = [pool for name, pool in pools.items() if name.startswith("lr_cosine")]
    by_rate: dict[float, list[float]] = {}
    for pool in seeds:
        for curve in pool.curves:
            by_rate.setdefault(pool.rate[curve.trial], []).append(curve.final)
    spreads = {rate: statistics.stdev(ends) for rate, ends in by_rate.items() if len(ends) > 1}
    best = min(by_rate, key=lambda rate: statistics.fmean(by_rate[rate]))
    near = {rate: spreads[rate] for rate in spreads if best / 2.1 < rate < best * 2.1}
    return {
        "seeds": len(seeds),
        "by_rate": spreads,
        "sigma": math.sqrt(statistics.fmean(s * s for s in near.values())) if near else None,
        "of": sorted(near),
    }


def order(pool: Pool, tokens: int, score: Callable[[str, int], float]) -> dict[str, float]:
    """How the order of trials at a token count agrees with their final order, over all pairs."""
    trials = [curve.trial for curve in pool.curves if not curve.diverged]
    pairs = wrong = higher = 0
    for a, b in itertools.combinations(trials, 2):
        final = pool.by_trial[a].final - pool.by_trial[b].final
        now = score(a, tokens) - score(b, tokens)
        pairs += 1
        if final * now < 0:
            wrong += 1
            favored = a if now < 0 else b
            other = b if now < 0 else a
            higher += (pool.rate[favored] > pool.rate[other]) - (
                pool.rate[favored] < pool.rate[other]
            )
    early = [score(trial, tokens) for trial in trials]
    final_scores = [pool.by_trial[trial].final for trial in trials]
    return {
        "progress": tokens / pool.budget,
        "pairs": pairs,
        "misordered": wrong / pairs,
        "signed": higher / pairs,
        "tau": float(stats.kendalltau(early, final_scores).statistic),
    }


def misordering(pool: Pool) -> dict[str, list[dict[str, float]]]:
    """`order` at every record by the raw scores, and at the rungs by the decayed ones."""
    records = max(pool.curves, key=lambda curve: len(curve.tokens)).tokens
    return {
        "raw": [order(pool, tokens, pool.score) for tokens in records],
        "decayed": [order(pool, tokens, pool.decayed_score) for tokens in pool.branched],
    }


@dataclass(frozen=True)
class Method:
    """A policy to replay, and the length of its decay branches."""

    name: str
    new: Callable[[tuple[int, ...]], Policy]
    branch: float = 0.0  # decay branches at the rungs, as a share of the updates so far


def methods(
    pool: Pool, eta: int, finish: int, sigma: float, law: tuple[float, float]
) -> list[Method]:
    """The remedies that are compared, for one pool."""
    rate, alike = pool.rate, pool.alike

    def chosen(**how: Any) -> Callable[[tuple[int, ...]], Policy]:
        return lambda rungs: Chosen(rungs, eta, finish, **how)

    return [
        Method("none", chosen()),
        *([Method("decayed score", chosen(), float(BRANCH))] if pool.branched else []),
        Method("next lower rate", chosen(choice=remedies.next_lower(rate, alike))),
        Method("octaves", chosen(choice=remedies.octaves(rate))),
        Method("strata", chosen(choice=remedies.strata(rate, eta))),
        Method("zone of 1 sigma", chosen(choice=remedies.zone(sigma))),
        Method("zone of 3 sigma", chosen(choice=remedies.zone(3 * sigma))),
        Method("power law", chosen(rescore=remedies.power_law(pool.by_trial, pool.budget))),
        Method("two-term law", chosen(rescore=remedies.two_term(pool.by_trial, pool.areas, *law))),
    ]


def ladder(eta: int, grace: Fraction, budget: int) -> tuple[int, ...]:
    """The rungs, from the grace up, each eta times the previous one."""
    return rounded_rungs(settings("asha", {"eta": eta, "grace": str(grace)}), budget)


def policies(
    eta: int, grace: Fraction, finish: int, budget: int, *, branches: bool = False
) -> list[Method]:
    """All policies of the project, variants of ASHA, and Ray's own ASHA."""
    given = {"eta": eta, "grace": str(grace), "finish": finish}

    def ours(name: str, label: str = "", **more: Any) -> Method:
        schedule = fitting(name, given | more)
        rungs = rounded_rungs(schedule, budget)
        return Method(
            label or name, lambda _: schedule.policy_at(rungs, SCORE), float(schedule.branch)
        )

    found = [ours(name) for name in SCHEDULES]
    found.insert(2, ours("asha", "asha, promotions first", first="promote"))
    if branches:
        found.insert(
            1, ours("asha", "asha, decayed scores (the default)", score="decayed", finish=1)
        )
    return [*found, Method("Ray's own ASHA", lambda rungs: RayAsha(rungs, eta, budget))]


def judged(
    pool: Sequence[Curve],
    method: Method,
    rungs: tuple[int, ...],
    orders: Sequence[Sequence[Curve]],
    sigma: float,
) -> dict[str, Any]:
    """`judge`, and how often the chosen trial is within one sigma of the best."""
    results = [replay(order, method.new(rungs), WORKERS, method.branch) for order in orders]
    found = judge(pool, results, 1).as_json()
    finals = {curve.trial: curve.final for curve in pool}
    best = min(final for final in finals.values() if math.isfinite(final))
    ends = [min(finals[trial] for trial in result.finished) for result in results]
    found["within_sigma"] = statistics.fmean(end <= best + sigma for end in ends)
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the first column left-aligned and the others right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def outcome(found: Mapping[str, Any]) -> list[str]:
    """The table cells of one method."""
    regret = found["regret"]
    half = 0.0 if regret["low"] is None else regret["mean"] - regret["low"]
    return [
        f"{found['cost']:.1%}",
        f"{regret['mean']:.4f}" + (f" ± {half:.4f}" if half else ""),
        f"{found['best_kept']:.0%}",
        *([f"{found['within_sigma']:.0%}"] if "within_sigma" in found else []),
        f"{found['false_kills']:.1%}",
    ]


def digest(found: Mapping[str, Mapping[str, Mapping[str, Any]]], what: str) -> str:
    """A Markdown table with one row per method, over all pools it was replayed on."""
    lines = []
    names = dict.fromkeys(name for results in found.values() for name in results)
    for name in names:
        each = [results[name] for results in found.values() if name in results]
        costs = [one["cost"] for one in each]
        regrets = [one["regret"]["mean"] for one in each]
        safe = sum(one["within_sigma"] >= SAFE for one in each)
        lines.append(
            [
                name,
                f"{statistics.fmean(costs):.1%}",
                f"{min(costs):.1%} to {max(costs):.1%}",
                f"{statistics.fmean(regrets):.4f}",
                f"{max(regrets):.4f}",
                f"{statistics.fmean(one['best_kept'] for one in each):.0%}",
                f"{statistics.fmean(one['false_kills'] for one in each):.1%}",
                f"{safe} of {len(each)}",
                f"{statistics.fmean(one['utilization'] for one in each):.0%}",
            ]
        )
    head = ("mean cost", "cost", "mean regret", "worst regret", "best kept", "false kills", "found")
    return table((what, *head, "busy"), lines)


def across(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A Markdown table of mean regrets, with one row per method and one column per pool."""
    names = dict.fromkeys(name for results in found.values() for name in results)
    lines = [
        [
            name,
            f"{statistics.fmean(results[name]['cost'] for results in found.values()):.0%}",
            *(f"{results[name]['regret']['mean']:.2f}" for results in found.values()),
        ]
        for name in names
    ]
    return table(("policy", "cost", *found), lines)


HEAD = ("cost", "regret", "best kept", "within 1 sigma", "false kills")
MADE = tuple(name for name in HEAD if name != "within 1 sigma")  # no noise at full fidelity


def figure(panels: int, height: float) -> tuple[Figure, list[Any]]:
    """An empty figure with panels that share the y axis, at most four in a row."""
    columns = min(panels, 4)
    rows = math.ceil(panels / columns)
    width = max(9.0, 2.7 * columns + 0.6)
    drawn = Figure(figsize=(width, height * rows + 0.8), layout="constrained")
    axes = list(drawn.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    for panel in axes[:panels]:
        panel.grid(color="0.9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return drawn, axes[:panels]


def save(drawn: Figure, name: str) -> None:
    """Write a figure."""
    drawn.savefig(DOCS / f"{name}.svg", metadata={"Date": None})


def draw_misordering(found: Mapping[str, Mapping[str, list[dict[str, float]]]]) -> None:
    """Draw the share of misordered pairs against progress, and its sign, with a line per recording."""
    drawn, (left, right) = figure(2, 3.4)
    for (name, parts), color, mark in zip(found.items(), COLORS, MARKS, strict=False):
        for panel, key in ((left, "misordered"), (right, "signed")):
            raw, decayed = parts["raw"], parts["decayed"]
            panel.plot(
                [100 * p["progress"] for p in raw], [100 * p[key] for p in raw], color=color,
                marker=mark, markersize=3, linewidth=1, label=name if panel is left else None,
            )  # fmt: skip
            panel.plot(
                [100 * p["progress"] for p in decayed], [100 * p[key] for p in decayed], mark,
                color=color, markerfacecolor="white", markersize=7,
            )  # fmt: skip
    left.set_ylabel("misordered pairs (% of all pairs)")
    right.set_title("higher rate favored, less lower rate favored", fontsize=9)
    left.set_title("all misordered pairs; open marks: decayed scores", fontsize=9)
    right.axhline(0, color="0.4", linewidth=0.8)
    for panel in (left, right):
        panel.set_xlabel("training tokens (% of the budget)")
    drawn.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save(drawn, "misordering")


def draw_trade(found: Mapping[str, Mapping[str, Mapping[str, Any]]], name: str) -> None:
    """Draw regret against cost, with a panel per pool and a mark per method."""
    drawn, panels = figure(len(found), 3.2)
    labels = list(dict.fromkeys(label for results in found.values() for label in results))
    for panel, (pool, results) in zip(panels, found.items(), strict=True):
        for label, color, mark in zip(labels, itertools.cycle(COLORS), MARKS, strict=False):
            result = results.get(label)
            if result is None:
                continue
            panel.plot(
                [100 * result["cost"]], [result["regret"]["mean"]], mark, color=color, markersize=6,
                label=label, clip_on=False, alpha=0.85,
            )  # fmt: skip
        panel.set_title(pool, fontsize=9)
        panel.set_xlabel("cost (% of full grid)")
        panel.set_xlim(left=0)
    highest = max(one["regret"]["mean"] for results in found.values() for one in results.values())
    panels[0].set_ylim(0, 1.08 * highest or 1)
    for panel in panels[::4]:
        panel.set_ylabel("mean regret (nats per token)")
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    drawn.legend(
        handles.values(),
        list(handles),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    save(drawn, name)


def sections(pools: Mapping[str, Pool], repeats: int) -> Iterator[tuple[str, str, Any]]:
    """The title, the Markdown and the results of each section."""
    sigma_found = noise(pools)
    sigma = sigma_found["sigma"] or 0.0
    rows = [[f"{rate:g}", f"{s:.4f}"] for rate, s in sorted(sigma_found["by_rate"].items())]
    yield "noise", table(("rate", "std over seeds"), rows), sigma_found

    wrong = {name: misordering(pool) for name, pool in pools.items()}
    rows = []
    for name, parts in wrong.items():
        at = {round(16 * p["progress"]): p for p in parts["raw"]}
        after = {round(16 * p["progress"]): p for p in parts["decayed"]}
        for sixteenth in (1, 2, 4, 6, 8, 12):
            raw, branch = at[sixteenth], after.get(sixteenth)
            rows.append(
                [
                    name,
                    str(Fraction(sixteenth, 16)),
                    *(f"{raw[key]:{spec}}" for key, spec in _ORDER),
                    *((f"{branch[key]:{spec}}" if branch else "") for key, spec in _ORDER),
                ]
            )
    names = [
        f"{kind} {what}" for kind in ("raw", "decayed") for what in ("misordered", "signed", "tau")
    ]
    yield "misordering", table(("curves", "progress", *names), rows), wrong
    draw_misordering(wrong)

    law = remedies.fit_two_term(pools["lr_cosine"].by_trial, pools["lr_cosine"].areas)
    for eta, grace in ((3, Fraction(1, 8)), (4, Fraction(1, 16))):
        tried: dict[str, Any] = {}
        for name, pool in pools.items():
            rungs = ladder(eta, grace, pool.budget)
            orders = arrivals(pool.curves, repeats, 0)
            tried[name] = {
                method.name: judged(pool.curves, method, rungs, orders, sigma)
                for method in methods(pool, eta, 2, sigma, law)
            }
        rows = [
            [name, method, *outcome(found)]
            for name, results in tried.items()
            for method, found in results.items()
        ]
        title = f"remedies, eta {eta}, grace {grace}"
        text = digest(tried, "remedy") + "\n" + table(("curves", "remedy", *HEAD), rows)
        yield title, text, {"law": law, "pools": tried}
        draw_trade(tried, f"remedies_eta{eta}")

    laid = {name: layouts(pool, repeats, sigma) for name, pool in pools.items()}
    rows = [
        [name, layout, *outcome(found)]
        for name, results in laid.items()
        for layout, found in results.items()
    ]
    text = digest(laid, "asha with") + "\n" + table(("curves", "asha with", *HEAD), rows)
    yield "layouts", text, laid

    apart = {
        f"{name}: {' '.join(kind)}, finish {finish}": judged_apart(
            pool, kind, repeats, sigma, finish
        )
        for name, pool in pools.items()
        for kind in dict.fromkeys(pool.alike.values())
        for finish in (1, 2)
        if len(set(pool.alike.values())) > 1
    }
    rows = [
        [name, str(found["trials"]), *outcome(found), f"{found['utilization']:.0%}"]
        for name, found in apart.items()
    ]
    yield "arms apart", table(("arm", "trials", *HEAD, "busy"), rows), apart

    for how in ("random", "ascending", "descending"):
        own: dict[str, Any] = {}
        for name, pool in pools.items():
            rungs = ladder(3, Fraction(1, 8), pool.budget)
            orders = {
                "random": arrivals(pool.curves, repeats, 0),
                "ascending": [pool.curves],
                "descending": [pool.curves[::-1]],
            }[how]
            own[name] = {
                method.name: judged(pool.curves, method, rungs, orders, sigma)
                for method in policies(
                    3, Fraction(1, 8), 2, pool.budget, branches=bool(pool.branched)
                )
            }
        rows = [
            [name, method, *outcome(found), f"{found['utilization']:.0%}"]
            for name, results in own.items()
            for method, found in results.items()
        ]
        text = digest(own, "policy") + "\n" + table(("curves", "policy", *HEAD, "busy"), rows)
        yield f"policies, {how} order", text, own
        if how == "random":
            draw_trade(own, "policies")

    for how in ("random", "ascending"):
        made = dict(hartmanns(repeats, shuffled=how == "random"))
        rows = [
            [name, method, *outcome(found), f"{found['utilization']:.0%}"]
            for name, results in made.items()
            for method, found in results.items()
        ]
        text = across(made) + "\n" + table(("function", "policy", *MADE, "busy"), rows)
        yield f"Hartmann, {how} order", text, made


_ORDER = (("misordered", ".0%"), ("signed", "+.0%"), ("tau", ".2f"))


def layouts(pool: Pool, repeats: int, sigma: float) -> dict[str, dict[str, Any]]:
    """ASHA with each combination of rungs, `finish` and score that was considered as the default."""
    orders = arrivals(pool.curves, repeats, 0)
    found = {}
    for (eta, grace), finish, score in itertools.product(
        ((3, Fraction(1, 8)), (4, Fraction(1, 16))), (1, 2, 3), ("raw", "decayed")
    ):
        if score == "decayed" and not pool.branched:
            continue
        given = {"eta": eta, "grace": str(grace), "finish": finish, "score": score}
        schedule = settings("asha", given)
        rungs = rounded_rungs(schedule, pool.budget)
        method = Method(
            f"eta {eta}, grace {grace}, finish {finish}, {score}",
            partial(schedule.policy_at, field=SCORE),
            float(schedule.branch),
        )
        found[method.name] = judged(pool.curves, method, rungs, orders, sigma)
    return found


def judged_apart(
    pool: Pool, kind: tuple[str, ...], repeats: int, sigma: float, finish: int
) -> dict[str, Any]:
    """The default policy with this `finish`, on the trials of one arm alone, as in a re-tune grid."""
    curves = [curve for curve in pool.curves if pool.alike[curve.trial] == kind]
    schedule = DEFAULT_SCHEDULE.model_copy(update={"finish": finish})
    rungs = rounded_rungs(schedule, pool.budget)
    method = Method("", lambda _: schedule.policy_at(rungs, SCORE), float(schedule.branch))
    orders = arrivals(curves, repeats, 0)
    return judged(curves, method, rungs, orders, sigma) | {"trials": len(curves)}


def hartmanns(repeats: int, *, shuffled: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """All policies on the Hartmann functions, with 27 new trials in each repeat."""
    grace, eta = Fraction(1, 9), 3
    fidelities = tuple(sorted({3, 6, 11, 17, 22, 33, 44, 56, 67, 78, 89, 100}))
    for dims, level in itertools.product((3, 6), hartmann.LEVELS):
        results: dict[str, Any] = {}
        for method in policies(eta, grace, 1, hartmann.BUDGET):
            each = []
            for number in range(repeats):
                pool = hartmann.curves(dims, level, 27, number, fidelities)
                rungs = ladder(eta, grace, hartmann.BUDGET)
                orders = arrivals(pool, 1, number) if shuffled else [pool]
                each.append(judged(pool, method, rungs, orders, 0.0))
            regrets = [one["regret"]["mean"] for one in each]
            half = stats.t.ppf(0.975, repeats - 1) * statistics.stdev(regrets) / math.sqrt(repeats)
            mean = statistics.fmean(regrets)
            results[method.name] = {
                key: statistics.fmean(one[key] for one in each)
                for key in ("best_kept", "cost", "false_kills", "utilization")
            } | {"regret": {"mean": mean, "low": mean - half, "high": mean + half}}
        yield f"Hartmann {dims}, {level}", results


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Replays of each policy.")] = 200,
) -> None:
    """Write docs/early_stopping/."""
    mpl.rcParams.update({"svg.hashsalt": "sweeps", "font.size": 9})
    DOCS.mkdir(parents=True, exist_ok=True)
    pools = {path.stem: load(path) for path in sorted((HERE / "curves").glob("*.csv"))}
    results, parts = {}, []
    for title, text, found in sections(pools, repeats):
        print(f"## {title}\n\n{text}", flush=True)
        parts.append(f"## {title}\n\n{text}\n")
        results[title] = found
    (DOCS / "tables.md").write_text("\n".join(parts))
    (DOCS / "results.json").write_text(json.dumps({"repeats": repeats, **results}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
