"""Arms against their baseline: what the runs of a study support.

Every comparison is at equal tokens and paired by seed; the noise is that of the sweep itself.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps import stats
from sweeps.findings import verdict as vd
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    METRICS,
    UNITS,
    Facts,
    Results,
    head,
    last_record,
    place_of,
    status_of,
    tokens_per_s,
)
from sweeps.findings.stability import LR, stability
from sweeps.ledger import BASELINE, Row, Sweep, Trial
from sweeps.selection import END, Point, at, final_point
from sweeps.text import named, show

# A trial lies within the spread of repeats where it is no further from them than so many times that.
REPEAT_MARGIN = 2.0
SIZE_CAUTION = 0.01  # parameters or FLOPs that differ by more of the baseline's are pointed out


@dataclass(frozen=True)
class ArmRuns:
    """An arm whose values are settled, and its runs."""

    name: str
    row: Row  # its `chosen` row
    runs: dict[int, Trial]  # by seed
    repeats: list[Trial]  # of the first seed
    grid: list[Trial]  # its re-tune grid

    @property
    def ids(self) -> tuple[str, ...]:
        """Its trials; arms that chose the same values of the same changes run the same ones."""
        return tuple(trial.trial for trial in self.runs.values()) or (self.name,)

    def having(self, status: str) -> list[Trial]:
        """The runs that ended so."""
        return [trial for trial in self.runs.values() if trial.status == status]


def arms_of(sweep: Sweep) -> list[ArmRuns]:
    """The arms that are settled, in the order of the plan, the baseline first."""
    return [
        ArmRuns(
            name=row["arm"],
            row=row,
            runs={int(seed): sweep.trials[trial] for seed, trial in row["trials"].items()},
            repeats=[sweep.trials[trial] for trial in row["repeats"]],
            grid=[sweep.trials[trial] for trial in row["grid"]],
        )
        for row in sorted(sweep.chosen.values(), key=lambda row: row["place"])
    ]


# Arms that did not apply -------------------------------------------------------------------------


def _course(trial: Trial) -> list[float]:
    """The first training losses of a trial, then those of its records: what a switch that does
    something changes."""
    first = list(trial.curve[0].get("first_losses", ())) if trial.curve else []
    return [*first, *(row[name] for row in trial.curve for name in ("train_loss", "val_loss"))]


def _same(one: Trial, other: Trial, repeats: Sequence[Trial]) -> bool:
    """Whether two trainings took the same course, as far as both have come: bit for bit or, where
    the first was repeated, no further apart than `REPEAT_MARGIN` times the spread of its repeats."""
    courses = [_course(trial) for trial in (one, *repeats)]
    spread = 0.0
    places = zip(*courses, _course(other), strict=False)
    for *mine, its in places:
        spread = max(spread, max(mine) - min(mine))
        if abs(its - mine[0]) > REPEAT_MARGIN * spread:
            return False
    return bool(one.curve and other.curve)


def void_arms(sweep: Sweep) -> list[str]:
    """The arms that did not apply: whose trainings, at equal values and seeds, are the baseline's
    from the first losses to the ends of both.

    A difference that comes late, as that of a decay does, is one; so nothing is void before it has
    ended.
    """
    arms = {arm.name: arm for arm in arms_of(sweep)}
    base = arms.pop(BASELINE, None)
    if base is None:
        return []
    return [arm.name for arm in arms.values() if _is_void(base, arm)]


def _is_void(base: ArmRuns, arm: ArmRuns) -> bool:
    if base.repeats:  # equal trainings differ here, and by how much is known of the first seed
        seeds = list(base.runs)[:1]
    else:
        seeds = [seed for seed in base.runs if seed in arm.runs]
    pairs = [(base.runs[seed], arm.runs[seed]) for seed in seeds if seed in arm.runs]
    if base.row["values"] != arm.row["values"] and not base.repeats:
        # Of a dead switch the grids are the same, though the one or the other may be chosen.
        pairs = [
            (mine, its)
            for mine in base.grid
            for its in arm.grid
            if all(mine.value(path) == its.value(path) for path in base.row["values"] or {})
        ]
    ended = [
        (one, other)
        for one, other in pairs
        if one.status == other.status and one.status in {"finished", "diverged"}
    ]
    return bool(ended) and all(
        _same(one, other, base.repeats) for one, other in pairs if other.curve
    )


# Arms against the baseline -------------------------------------------------------------------------


def _loss(trial: Trial, tokens: Point | None, metric: str) -> float | None:
    row = at(trial, tokens)
    return None if row is None else row[metric]


def _losses(arm: ArmRuns, tokens: Point | None, metric: str) -> dict[int, float]:
    """The losses of an arm's runs at so many tokens, by seed."""
    found = {seed: _loss(trial, tokens, metric) for seed, trial in arm.runs.items()}
    return {seed: loss for seed, loss in found.items() if loss is not None}


def comparison(results: Results) -> Facts | None:
    """Every arm against the baseline; None for a sweep that is no study, or has settled no arm.

    `noise` is the standard deviation of a run, over seeds and pooled over the baseline and the arms
    that scatter no more than it, or over repeats of the baseline (`noise_of`) where these clearly
    scatter more; `arms` have, beside what they change, the mean difference over seeds (`difference`, with
    `low` and `high`, the 95% interval, `p` and `p_holm`), the verdict, and what to be careful about.
    """
    arms = arms_of(results.sweep)
    if not arms or arms[0].name != BASELINE:
        return None
    base, void = arms[0], set(void_arms(results.sweep))
    sound = [arm for arm in arms if arm.name not in void]
    alive = [
        trial
        for arm in sound
        for trial in arm.runs.values()
        if trial.curve and trial.status not in {"diverged", "failed"}
    ]
    # One that has just begun must not take those that have ended back to their early losses.
    going = [trial for trial in alive if trial.status == "finished"] or alive
    tokens = final_point(going)
    noise, noise_of = _noise(sound, tokens, results.metric)
    found = [_arm(results, base, arm, tokens, void=arm.name in void) for arm in arms]
    tested = _adjust(results, arms[1:], found[1:])
    for place, arm in zip(found[1:], arms[1:], strict=True):
        place.update(_verdict(results, place, (base, arm), noise, tested))
        place["cautions"] += _better_elsewhere(arm, arms, place, found, noise)
    return {
        "tokens": tokens,
        "steps": sorted({row["step"] for t in going if (row := at(t, tokens)) is not None}),
        "noise": noise and vars(noise),
        "noise_of": noise_of,
        "unit": UNITS[results.metric],
        "seeds": list(base.runs),
        "arms": found,
        "critical_batch": _critical_batch(results, found, noise),
    }


def _noise(
    sound: Sequence[ArmRuns], tokens: Point | None, metric: str
) -> tuple[stats.Noise | None, str | None]:
    """The noise of a run, and whether it is that of `seeds` or of `repeats` of one of them."""
    base = sound[0]
    quiet = {
        arm.ids: list(_losses(arm, tokens, metric).values())
        for arm in sound[1:]
        if not any(outcome(trial) for trial in arm.runs.values())
    }
    over_seeds = stats.pooled_noise(
        stats.alike(list(_losses(base, tokens, metric).values()), list(quiet.values()))
    )
    same = [*list(base.runs.values())[:1], *base.repeats]
    again = [loss for trial in same if (loss := _loss(trial, tokens, metric)) is not None]
    repeated = stats.pooled_noise([again])
    if (
        repeated is None or repeated.sd == 0
    ):  # a training that repeats exactly has no noise of its own
        return over_seeds, None if over_seeds is None else "seeds"
    if over_seeds is None or stats.scatters_more(repeated, over_seeds):
        return repeated, "repeats"
    return over_seeds, "seeds"


def _adjust(results: Results, arms: Sequence[ArmRuns], found: Sequence[Facts]) -> int:
    """Set `p_holm` of the arms; how many tests it is adjusted for.

    These are all that the study plans, whether their losses are there or not: what has ended keeps
    its p-value when more arrives. Arms of the same trials are one test; void ones are none.
    """
    tests = {
        arm.ids: 1.0 if place["p"] is None else place["p"]
        for arm, place in zip(arms, found, strict=True)
        if not place["void"]
    }
    waiting = {(place["arm"],): 1.0 for place in unsettled(results) if place["arm"] != BASELINE}
    every = {**tests, **waiting}
    adjusted = dict(zip(every, stats.holm(list(every.values())), strict=True))
    for arm, place in zip(arms, found, strict=True):
        place["p_holm"] = None if place["p"] is None else adjusted[arm.ids]
    return len(every)


def _better_elsewhere(
    arm: ArmRuns,
    arms: Sequence[ArmRuns],
    place: Facts,
    found: Sequence[Facts],
    noise: stats.Noise | None,
) -> Iterator[str]:
    """That another arm with the same changes, which runs at other values, has a loss that is lower by
    more than the noise."""
    if not arm.row["retuned"] or place["mean"] is None or noise is None:
        return
    for other, its in zip(arms, found, strict=True):
        whole = bool(other.runs) and len(other.having("finished")) == len(other.runs)
        if (
            whole
            and its["changes"] == place["changes"]
            and its["losses"].keys() == place["losses"].keys()
            and its["mean"] < place["mean"] - vd.NOISE_MARGIN * noise.sd
        ):
            yield (
                f"{other.name} has the same changes and a lower loss, {its['mean']:.4f}, at "
                f"{named(its['chosen'])}: the re-tune grid did not choose the best value"
            )


def numeric_arms(results: Results) -> dict[float, ArmRuns]:
    """The arms by the value of the one path that they are made of; nothing for listed arms."""
    each = (results.sweep.request or {}).get("space", {}).get("each")
    if each is None:
        return {}
    found = {
        trial.value(each["path"]): arm
        for arm in arms_of(results.sweep)
        for trial in list(arm.runs.values())[:1]
    }
    numbers = all(isinstance(value, int | float) for value in found)
    return dict(sorted(found.items())) if numbers else {}


def _critical_batch(
    results: Results, found: list[Facts], noise: stats.Noise | None
) -> Facts | None:
    """The largest batch size up to which no loss is more than the noise's margin above the lowest,
    and the first beyond; None for other studies, and while the noise is not known.

    Losses at equal tokens, each at its own rate: beyond the critical size a larger batch buys less
    than it costs (arXiv:1812.06162).
    """
    sizes = numeric_arms(results)
    means = {place["arm"]: place["mean"] for place in found}
    losses = {size: means[arm.name] for size, arm in sizes.items() if means[arm.name] is not None}
    path = (results.sweep.request or {}).get("space", {}).get("each", {}).get("path")
    if path != "optim.batch_size" or noise is None or len(losses) < 3:
        return None
    best = min(losses, key=losses.__getitem__)
    margin = vd.NOISE_MARGIN * noise.sd
    beyond = [s for s in losses if s > best and losses[s] > losses[best] + margin]
    within = [s for s in losses if s >= best and s < min(beyond, default=math.inf)]
    return {
        "best": best,
        "largest": max(within),
        "beyond": min(beyond, default=None),
        "smallest": best == min(sizes),
        "retuned": LR in (results.sweep.request or {})["space"].get("retune", {}),
    }


def _arm(
    results: Results, base: ArmRuns, arm: ArmRuns, tokens: Point | None, *, void: bool
) -> Facts:
    """The facts of one arm, the verdict aside."""
    row = arm.row
    mine, its = (_losses(a, tokens, results.metric) for a in (arm, base))
    seeds = [seed for seed in its if seed in mine]
    trial = next(iter(arm.runs.values()), None)
    first = next(iter(base.runs.values()), None)
    found = stats.effect([mine[seed] - its[seed] for seed in seeds]) if seeds else None
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
        "retuned": row["retuned"],
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
        "tokens_per_s": _median_speed(arm),
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
        "further": None,
        "outcomes": sorted({outcome(trial) for trial in arm.runs.values() if outcome(trial)}),
        "cautions": list(_cautions(results, base, arm, trial, first)),
    }


def _mean_difference(
    arm: ArmRuns, base: ArmRuns, tokens: Point | None, metric: str
) -> float | None:
    mine, its = (_losses(a, tokens, metric) for a in (arm, base))
    shared = [mine[seed] - its[seed] for seed in its if seed in mine]
    return statistics.fmean(shared) if shared else None


def _median_seconds(arm: ArmRuns) -> float | None:
    """Seconds of training of a whole run."""
    ends = [trial.curve[-1]["seconds"] for trial in arm.having("finished")]
    return statistics.median(ends) if ends else None


def _median_speed(arm: ArmRuns) -> float | None:
    """Training tokens a second of a whole run."""
    speeds = [tokens_per_s(trial) for trial in arm.having("finished")]
    return statistics.median(speed for speed in speeds if speed) if any(speeds) else None


def _unequal(
    results: Results, arm: ArmRuns, trial: Trial | None, first: Trial | None
) -> Iterator[str]:
    """What differs from the baseline beside the change: sizes, validation windows, tokens."""
    for what, name in (("parameters", "params"), ("FLOPs per token", "flops_per_token")):
        more = getattr(trial, name) / getattr(first, name) - 1 if trial and first else 0.0
        if abs(more) > SIZE_CAUTION:
            yield f"{more:+.1%} {what}"
    window = "model.context_length"
    if trial and first and trial.value(window) != first.value(window):
        yield "its validation windows have another length than the baseline's"
    lengths = [run.tokens for run in arm.having("finished")]
    if results.final == END and lengths:
        yield f"its time was enough for {min(lengths):,} to {max(lengths):,} tokens"


def _cautions(
    results: Results, base: ArmRuns, arm: ArmRuns, trial: Trial | None, first: Trial | None
) -> Iterator[str]:
    """What a reader of the verdict has to know."""
    yield from _unequal(results, arm, trial, first)
    for path, value in (arm.row["values"] or {}).items():
        edge = _edge(arm, path, value)
        if edge is not None:
            side, further = edge
            name = path.rpartition(".")[2]
            yield (
                f"its {name} is the {side} of its re-tune grid: the optimum may lie beyond; try "
                f"{show(further)}"
            )
    if arm.row["failed"]:
        yield f"{arm.row['failed']} of the {arm.row['tried']} trials of its re-tune grid failed"
    if arm.name != BASELINE and results.has_retune and not arm.row["retuned"]:
        yield "at the baseline's re-tuned values"
    for who, words in ((arm, "runs"), (base, "runs of the baseline")):
        for status in ("diverged", "failed") if who is arm or arm.name != BASELINE else ():
            lost = who.having(status)
            if lost:
                yield f"{len(lost)} of {len(who.runs)} {words} {status}"
    for kind in ("spiked", "stuck"):
        found = sum(outcome(trial) == kind for trial in arm.runs.values())
        if found:
            yield f"{found} of {len(arm.runs)} runs {'is' if found == 1 else 'are'} {kind}"


def _edge(arm: ArmRuns, path: str, value: Any) -> tuple[str, float] | None:
    """The side, lowest or highest, on which a chosen number has no tried neighbour, and what to try
    there: as far again as its neighbour on the other side."""
    tried = sorted({trial.value(path) for trial in arm.grid})
    if len(tried) < 2 or type(value) not in {int, float}:
        return None
    for side, end, inner in (("lowest", tried[0], tried[1]), ("highest", tried[-1], tried[-2])):
        if value == end:
            return side, end * end / inner if inner else 2 * end - inner
    return None


def _verdict(
    results: Results,
    place: Facts,
    arms: tuple[ArmRuns, ArmRuns],
    noise: stats.Noise | None,
    tested: int,
) -> Facts:
    """The verdict on an arm, its words, and how many further seeds would settle it (`further`, None
    where that is not the question)."""
    base, arm = arms
    early = _without_losses(results, place, base, arm)
    if early is not None:
        return dict(zip(("verdict", "words", "further"), (*early, None), strict=True))
    found = stats.Effect(
        place["n"], place["difference"], place["difference_sd"],
        place["low"], place["high"], place["p"],
    )  # fmt: skip
    judged = vd.judge(found, place["p_holm"], noise, UNITS[results.metric], tested)
    # What is left after the worst have dropped out is no fair sample.
    for who, name, fair in ((arm, "it", "worse"), (base, "the baseline", "better")):
        lost = who.having("diverged")
        if lost and judged.kind != fair:
            words = f"no conclusion yet: {name} diverged on {len(lost)} of {len(who.runs)} seeds"
            return {"verdict": "no conclusion", "words": words, "further": None}
    return {"verdict": judged.kind, "words": judged.words, "further": judged.seeds}


def _without_losses(
    results: Results, place: Facts, base: ArmRuns, arm: ArmRuns
) -> tuple[str, str] | None:
    """The verdict where it does not rest on losses, and its words."""
    if place["void"]:
        return "void", "void: its training is the baseline's, so the change did not apply"
    gone = [_gone(each) for each in (arm, base)]
    if gone[0] and gone[1]:
        return "no conclusion", f"no conclusion: it {gone[0]}, and the baseline {gone[1]}"
    if gone[0]:
        return "worse", f"worse: it {gone[0]}"
    if gone[1] and arm.runs and len(arm.having("finished")) == len(arm.runs):
        return "better", f"better: the baseline {gone[1]}"
    for who, name in ((base, "the baseline's"), (arm, "its")):
        if who.row["values"] is None:
            return (
                "no conclusion",
                f"no conclusion: nothing of {name} re-tune grid has finished",
            )
    going = [
        trial
        for each in (arm, base)
        for trial in each.runs.values()
        if trial.status not in {"finished", "diverged", "failed"}
    ]
    if going:
        least = min(trial.tokens for trial in going)
        words = f"no conclusion yet: its runs are at {least:,} of {going[0].budget:,} tokens"
        return "no conclusion", words
    if place["difference"] is None:
        return "no conclusion", "no conclusion yet: nothing to compare"
    return None


def _gone(arm: ArmRuns) -> str:
    """In words that an arm diverged wherever it was trained; nothing where it did not."""
    if arm.row["values"] is None and arm.row["retuned"]:
        diverged = all(trial.status == "diverged" for trial in arm.grid)
        return "diverged at every value it was tried with" if diverged else ""
    return "diverged on every seed" if 0 < len(arm.runs) == len(arm.having("diverged")) else ""


# Noise -------------------------------------------------------------------------------------------


def seed_noise(results: Results) -> Facts | None:
    """The spread of final losses over seeds, pooled over the choices of values that were trained to
    their ends on all of them, and how far repeats of one training are apart.

    None where no choice has two seeds or repeats. The noise of a study is that of its `comparison`.
    """
    again = "run.repeat"
    over_seeds: dict[str, list[Trial]] = {}
    repeated: dict[str, list[Trial]] = {}
    for trial in results.sweep.trials.values():
        values = {path: value for path, value in trial.values.items() if path != again}
        if trial.role == "search":
            over_seeds.setdefault(json.dumps(values), []).append(trial)
        if trial.role != "tuning" and trial.status == "finished":
            repeated.setdefault(json.dumps([values, trial.seed]), []).append(trial)
    # Seeds that survived early stopping scatter less than seeds do.
    whole = [each for each in over_seeds.values() if all(t.status == "finished" for t in each)]
    losses = [
        [row[results.metric] for t in each if (row := at(t, results.final)) is not None]
        for each in whole
    ]
    several = [group for group in repeated.values() if len(group) > 1]
    noise = stats.pooled_noise(losses)
    if noise is None and not several:
        return None
    apart = [
        max(abs(mine - its) for mine, its in zip(_course(group[0]), _course(other), strict=False))
        for group in several
        for other in group[1:]
    ]
    return {
        **(vars(noise) if noise is not None else {"sd": None}),
        "tokens": results.final,
        "groups": sorted(len(group) for group in losses if len(group) > 1),
        "repeats": [len(group) for group in several],
        "repeats_apart": max(apart, default=None),
    }


# Re-tune grids -------------------------------------------------------------------------------------


def tuning(results: Results) -> list[Facts]:
    """What each re-tune grid found, by its arm: every value that was tried, and what became of it;
    `stability` where it is a grid of learning rates."""
    paths = list((results.sweep.request or {}).get("space", {}).get("retune", {}))
    chosen = {arm.name: arm.row["values"] for arm in arms_of(results.sweep)}
    return [
        {
            "arm": name,
            "chosen": chosen.get(name),
            "trials": [
                {
                    **place_of(trial, last_record(trial)),
                    "tuned": {path: trial.value(path) for path in paths},
                    "outcome": outcome(trial),
                }
                for trial in pool
            ],
            "stability": stability(results.audited(pool), results.metric),
        }
        for name, pool in tuned_pools(results).items()
    ]


def unsettled(results: Results) -> list[Facts]:
    """The arms whose values are not settled yet, and how many trials of their re-tune grids ended;
    one without a grid waits for the baseline's."""
    settled = {arm.name for arm in arms_of(results.sweep)}
    listed = (results.sweep.request or {}).get("space", {}).get("arms", {})
    pools = {
        **tuned_pools(results),
        **{name: [] for name in listed if name not in tuned_pools(results)},
    }
    return [
        {
            "arm": name,
            "tried": len(pool),
            "ended": sum(status_of(trial) != "unfinished" for trial in pool),
        }
        for name, pool in pools.items()
        if name not in settled
    ]


def study_facts(results: Results) -> Facts:
    """What summary.json holds of a study, the figures aside."""
    return {
        **head(results),
        "arms": comparison(results),
        "unsettled": unsettled(results),
        "tuning": tuning(results),
    }


# Tables ------------------------------------------------------------------------------------------


ARMS_COLUMNS = (
    "arm", "hypothesis", "changes", "chosen", "n", "params", "more_params", "flops_per_token",
    "more_flops", "seconds", "tokens_per_s", "loss", "difference", "low", "high",
    "difference_val_loss", "difference_bits_per_byte", "p", "p_holm", "verdict", "words", "cautions",
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


def tuned_pools(results: Results) -> dict[str, list[Trial]]:
    """The trials of each re-tune grid, by its arm: first those that have chosen, in the order of the
    plan, then those that are under way."""
    arms = [arm for arm in arms_of(results.sweep) if arm.row["retuned"]]
    found = {arm.name: arm.grid for arm in arms}
    for trial in results.sweep.trials.values():
        if trial.role == "tuning" and trial.arm not in {arm.name for arm in arms}:
            found.setdefault(trial.arm, []).append(trial)
    return found
