"""Arms against their baseline: what the runs of a study support.

Every comparison is at equal tokens and paired by seed; the noise is that of the sweep itself.
"""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps import verdict as vd
from sweeps.ledger import Row, Sweep, Trial
from sweeps.outcomes import outcome
from sweeps.stability import stability
from sweeps.study import (
    METRICS,
    UNITS,
    Facts,
    Point,
    Study,
    at,
    final_point,
    head,
    last_record,
    place_of,
)

BASELINE = "baseline"
SIZE_CAUTION = 0.01  # parameters or FLOPs that differ by more of the baseline's are pointed out


@dataclass(frozen=True)
class Arm:
    """An arm whose values are settled, and its runs."""

    name: str
    row: Row  # its `chosen` row
    runs: dict[int, Trial]  # by seed
    repeats: list[Trial]  # of the first seed

    def having(self, status: str) -> list[Trial]:
        """The runs that ended so."""
        return [trial for trial in self.runs.values() if trial.status == status]


def arms_of(sweep: Sweep) -> list[Arm]:
    """The arms that are settled, in the order of the plan, the baseline first."""
    rows = [row for name, row in sweep.chosen.items() if name]
    return [
        Arm(
            name=row["arm"],
            row=row,
            runs={int(seed): sweep.trials[trial] for seed, trial in row["trials"].items()},
            repeats=[sweep.trials[trial] for trial in row["repeats"]],
        )
        for row in sorted(rows, key=lambda row: row["place"])
    ]


# Arms that did not apply -------------------------------------------------------------------------


def _course(trial: Trial) -> list[float]:
    """The first training losses of a trial, then those of its records: what a switch that does
    something changes."""
    first = list(trial.curve[0].get("first_losses", ())) if trial.curve else []
    return [*first, *(row[name] for row in trial.curve for name in ("train_loss", "val_loss"))]


def _same(one: Trial, other: Trial, repeats: Sequence[Trial]) -> bool:
    """Whether two trainings took the same course, as far as both have come: bit for bit, or no
    further apart than repeats of the first one were from it up to there."""
    spread = 0.0
    pairs = list(zip(_course(one), _course(other), strict=False))
    others = [_course(repeat) for repeat in repeats]
    for place, (mine, its) in enumerate(pairs):
        again = [abs(course[place] - mine) for course in others if place < len(course)]
        spread = max(spread, *again, 0.0)
        if abs(its - mine) > spread:
            return False
    return bool(pairs)


def void_arms(sweep: Sweep) -> list[str]:
    """The arms that did not apply: whose trainings are the baseline's, at every seed that both
    have begun. A difference that comes late, as that of a decay does, still is one."""
    arms = {arm.name: arm for arm in arms_of(sweep)}
    base = arms.pop(BASELINE, None)
    if base is None:
        return []
    return [arm.name for arm in arms.values() if _is_void(base, arm)]


def _is_void(base: Arm, arm: Arm) -> bool:
    pairs = [
        (base.runs[seed], arm.runs[seed])
        for seed in base.runs.keys() & arm.runs.keys()
        if base.runs[seed].curve and arm.runs[seed].curve
    ]
    return bool(pairs) and all(_same(one, other, base.repeats) for one, other in pairs)


# Arms against the baseline -------------------------------------------------------------------------


def _loss(trial: Trial, tokens: Point | None, metric: str) -> float | None:
    row = at(trial, tokens)
    return None if row is None else row[metric]


def _losses(arm: Arm, tokens: Point | None, metric: str) -> dict[int, float]:
    """The losses of an arm's runs at so many tokens, by seed."""
    found = {seed: _loss(trial, tokens, metric) for seed, trial in arm.runs.items()}
    return {seed: loss for seed, loss in found.items() if loss is not None}


def comparison(of: Study) -> Facts | None:
    """Every arm against the baseline; None for a sweep that is no study, or has settled no arm.

    `noise` is the standard deviation of a run over seeds, pooled over arms; `arms` have, beside
    what they change, the mean difference over seeds (`difference`, with `low` and `high`, the 95%
    interval, `p` and `p_holm`), the verdict, and what to be careful about.
    """
    arms = arms_of(of.sweep)
    if not arms or arms[0].name != BASELINE:
        return None
    base, void = arms[0], set(void_arms(of.sweep))
    sound = [arm for arm in arms if arm.name not in void]
    going = [
        trial
        for arm in sound
        for trial in arm.runs.values()
        if trial.curve and trial.status not in {"diverged", "failed"}
    ]
    tokens = final_point(going)
    noise = vd.pooled_noise([list(_losses(arm, tokens, of.metric).values()) for arm in sound])
    found = [_arm(of, base, arm, tokens, void=arm.name in void) for arm in arms]
    tested = [place for place in found if place["p"] is not None]
    for place, p in zip(tested, vd.holm([place["p"] for place in tested]), strict=True):
        place["p_holm"] = p
    for place, arm in zip(found[1:], arms[1:], strict=True):
        place.update(_verdict(of, place, arm, noise))
    return {
        "tokens": tokens,
        "steps": sorted({row["step"] for t in going if (row := at(t, tokens)) is not None}),
        "noise": noise and vars(noise),
        "unit": UNITS[of.metric],
        "seeds": list(base.runs),
        "arms": found,
        "critical_batch": _critical_batch(of, found, noise),
    }


def numeric_arms(of: Study) -> dict[float, Arm]:
    """The arms by the value of the one path that they are made of; nothing for listed arms."""
    each = (of.sweep.asked or {}).get("space", {}).get("each")
    if each is None:
        return {}
    section, name = each["path"].split(".")
    found = {
        trial.config[section][name]: arm
        for arm in arms_of(of.sweep)
        for trial in list(arm.runs.values())[:1]
    }
    numbers = all(isinstance(value, int | float) for value in found)
    return dict(sorted(found.items())) if numbers else {}


def _critical_batch(of: Study, found: list[Facts], noise: vd.Noise | None) -> Facts | None:
    """The largest batch size up to which no loss is more than the noise's margin above the lowest,
    and the first beyond; None for other studies, and while the noise is not known.

    Losses at equal tokens, each at its own rate: beyond the critical size a larger batch buys less
    than it costs (arXiv:1812.06162).
    """
    sizes = numeric_arms(of)
    means = {place["arm"]: place["mean"] for place in found}
    losses = {size: means[arm.name] for size, arm in sizes.items() if means[arm.name] is not None}
    path = (of.sweep.asked or {}).get("space", {}).get("each", {}).get("path")
    if path != "optim.batch_size" or noise is None or len(losses) < 3:
        return None
    best = min(losses, key=losses.__getitem__)
    margin = vd.NOISE_MARGIN * noise.sd
    beyond = [s for s in losses if s > best and losses[s] > losses[best] + margin]
    within = [s for s in losses if s >= best and s < min(beyond, default=math.inf)]
    return {"best": best, "largest": max(within), "beyond": min(beyond, default=None)}


def _arm(of: Study, base: Arm, arm: Arm, tokens: Point | None, *, void: bool) -> Facts:
    """The facts of one arm, the verdict aside."""
    row = arm.row
    mine, its = (_losses(a, tokens, of.metric) for a in (arm, base))
    seeds = [seed for seed in its if seed in mine]
    trial = next(iter(arm.runs.values()), None)
    first = next(iter(base.runs.values()), None)
    found = vd.effect([mine[seed] - its[seed] for seed in seeds]) if seeds else None
    is_base = arm.name == BASELINE
    compared = None if void or is_base else found
    other = {
        f"difference_{metric}": _mean_difference(arm, base, tokens, metric)
        if compared is not None
        else None
        for metric in METRICS
    }
    return {
        "arm": arm.name,
        "hypothesis": row["hypothesis"],
        "changes": row["changes"],
        "chosen": row["values"],
        "tried": row["tried"],
        "void": void,
        "planned": len(arm.runs),
        "n": len(mine) if is_base else len(seeds),
        "losses": mine,
        "params": trial and trial.params,
        "flops_per_token": trial and trial.flops_per_token,
        "more_params": trial and first and trial.params / first.params - 1,
        "more_flops": trial and first and trial.flops_per_token / first.flops_per_token - 1,
        "mean": statistics.fmean(mine.values()) if mine else None,
        "sd": statistics.stdev(mine.values()) if len(mine) > 1 else None,
        "seconds": _median_seconds(arm),
        "difference": compared and compared.mean,
        **other,
        "differences": {s: mine[s] - its[s] for s in seeds} if compared is not None else {},
        "low": compared and compared.low,
        "high": compared and compared.high,
        "difference_sd": compared and compared.sd,
        "p": compared and compared.p,
        "p_holm": None,
        "verdict": "baseline" if is_base else "",
        "words": "the baseline" if is_base else "",
        "outcomes": sorted({outcome(trial) for trial in arm.runs.values() if outcome(trial)}),
        "cautions": list(_cautions(of, base, arm, trial, first)),
    }


def _mean_difference(arm: Arm, base: Arm, tokens: Point | None, metric: str) -> float | None:
    mine, its = (_losses(a, tokens, metric) for a in (arm, base))
    shared = [mine[seed] - its[seed] for seed in its if seed in mine]
    return statistics.fmean(shared) if shared else None


def _median_seconds(arm: Arm) -> float | None:
    """Seconds of training of a whole run."""
    ends = [trial.curve[-1]["seconds"] for trial in arm.having("finished")]
    return statistics.median(ends) if ends else None


def _cautions(
    of: Study, base: Arm, arm: Arm, trial: Trial | None, first: Trial | None
) -> Iterator[str]:
    """What a reader of the verdict has to know."""
    if trial is not None and first is not None and arm.name != BASELINE:
        for what, mine, its in (
            ("parameters", trial.params, first.params),
            ("FLOPs per token", trial.flops_per_token, first.flops_per_token),
        ):
            if abs(mine / its - 1) > SIZE_CAUTION:
                yield f"{mine / its - 1:+.1%} {what}"
    for path, value in (arm.row["values"] or {}).items():
        side = _edge(of, arm, path, value)
        if side:
            name = path.rpartition(".")[2]
            yield f"its {name} is the {side} of its re-tune grid: the optimum may lie beyond"
    if arm.name != BASELINE and of.has_retune and not arm.row["retuned"]:
        yield "at the baseline's re-tuned values"
    for status, words in (("diverged", "diverged"), ("failed", "failed")):
        lost = arm.having(status)
        if lost:
            yield f"{len(lost)} of {len(arm.runs)} runs {words}"
    if arm.having("finished") and len(arm.having("finished")) < len(arm.runs):
        rest = len(arm.runs) - sum(len(arm.having(s)) for s in ("finished", "diverged", "failed"))
        if rest:
            yield f"{rest} of {len(arm.runs)} runs are not at their ends"


def _edge(of: Study, arm: Arm, path: str, value: Any) -> str | None:
    """`lowest` or `highest` where a chosen number has no tried neighbour on that side."""
    pool = [trial for trial in of.sweep.trials.values() if trial.pool == arm.row["pool"]]
    tried = sorted({trial.values[path] for trial in pool if path in trial.values})
    if len(tried) < 2 or not isinstance(value, int | float):
        return None
    return "lowest" if value == tried[0] else "highest" if value == tried[-1] else None


def _verdict(of: Study, place: Facts, arm: Arm, noise: vd.Noise | None) -> Facts:
    """The verdict on an arm, and its words."""
    lost = arm.having("diverged")
    if place["void"]:
        words = "void: its training is the baseline's, so the change did not apply"
        return {"verdict": "void", "words": words}
    if arm.row["values"] is None:
        return {"verdict": "worse", "words": "worse: it diverged at every value it was tried with"}
    if lost and len(lost) == len(arm.runs):
        return {"verdict": "worse", "words": "worse: it diverged on every seed"}
    if place["difference"] is None:
        return {"verdict": "no conclusion", "words": "no conclusion yet: nothing to compare so far"}
    found = vd.Effect(
        place["n"], place["difference"], place["difference_sd"],
        place["low"], place["high"], place["p"],
    )  # fmt: skip
    judged = vd.judge(found, place["p_holm"], noise, UNITS[of.metric])
    if lost and judged.kind != "worse":
        # What is left after the worst have dropped out is no fair sample.
        words = f"no conclusion yet: it diverged on {len(lost)} of {len(arm.runs)} seeds"
        return {"verdict": "no conclusion", "words": words}
    return {"verdict": judged.kind, "words": judged.words}


# Noise -------------------------------------------------------------------------------------------


def seed_noise(of: Study) -> Facts | None:
    """The spread of final losses over seeds, pooled over choices of values, and that over repeats of
    one training with one seed; None where no choice of values has two seeds or repeats."""
    again = "run.repeat"
    ends = [
        (trial, row[of.metric])
        for trial in of.sweep.trials.values()
        if trial.status == "finished" and (row := at(trial, of.final)) is not None
    ]
    over_seeds: dict[str, list[float]] = {}
    repeated: dict[str, list[Trial]] = {}
    for trial, loss in ends:
        values = {path: value for path, value in trial.values.items() if path != again}
        if again not in trial.values and trial.pool in {"", None}:
            over_seeds.setdefault(json.dumps([trial.pool, values]), []).append(loss)
        repeated.setdefault(json.dumps([trial.pool, values, trial.seed]), []).append(trial)
    several = [group for group in repeated.values() if len(group) > 1]
    noise = vd.pooled_noise(list(over_seeds.values()))
    if noise is None and not several:
        return None
    apart = [
        max(abs(mine - its) for mine, its in zip(_course(group[0]), _course(other), strict=False))
        for group in several
        for other in group[1:]
    ]
    return {
        **(vars(noise) if noise is not None else {"sd": None}),
        "tokens": of.final,
        "groups": sorted(len(group) for group in over_seeds.values() if len(group) > 1),
        "repeats": sum(len(group) for group in several),
        "repeats_apart": max(apart, default=None),
    }


# Re-tune grids -------------------------------------------------------------------------------------


def tuning(of: Study) -> list[Facts]:
    """What each re-tune grid found, by its arm: every value that was tried, and what became of it;
    `stability` where it is a grid of learning rates."""
    paths = list((of.sweep.asked or {}).get("space", {}).get("retune", {}))
    chosen = {arm.row["pool"]: arm.row["values"] for arm in arms_of(of.sweep)}
    return [
        {
            "arm": name,
            "chosen": chosen.get(name),
            "trials": [
                {
                    **place_of(trial, last_record(trial)),
                    "tuned": {path: trial.values[path] for path in paths},
                    "outcome": outcome(trial),
                }
                for trial in pool
            ],
            "stability": stability(of.audited(pool), of.metric),
        }
        for name, pool in tuned_pools(of).items()
    ]


def study_facts(of: Study) -> Facts:
    """What summary.json holds of a study, the figures aside."""
    return {**head(of), "arms": comparison(of), "tuning": tuning(of), "noise": seed_noise(of)}


# Tables ------------------------------------------------------------------------------------------


ARMS_COLUMNS = (
    "arm", "hypothesis", "changes", "chosen", "n", "params", "more_params", "flops_per_token",
    "more_flops", "loss", "difference", "low", "high", "p", "p_holm", "verdict", "words", "cautions",
)  # fmt: skip


def arms_table(found: Facts, named: Callable[[Mapping[str, Any]], str]) -> list[Row]:
    """A row an arm for arms.csv; `named` says values in words."""
    return [
        {
            **{name: place.get(name) for name in ARMS_COLUMNS},
            "changes": named(place["changes"]),
            "chosen": named(place["chosen"] or {}),
            "loss": place["mean"],
            "cautions": "; ".join(place["cautions"]),
        }
        for place in found["arms"]
    ]


def tuned_pools(of: Study) -> dict[str, list[Trial]]:
    """The trials of each re-tune grid, by its arm."""
    trials = sorted(
        (trial for trial in of.sweep.trials.values() if trial.pool),
        key=lambda trial: str(trial.pool),
    )
    pools = {
        str(name): list(group)
        for name, group in itertools.groupby(trials, key=lambda trial: trial.pool)
    }
    order = {arm.name: place for place, arm in enumerate(arms_of(of.sweep))}
    return dict(sorted(pools.items(), key=lambda item: order.get(item[0], len(order))))
