"""Arms compared with their baseline: what the runs of a study support.

Every comparison is at equal tokens and paired by seed. The noise is measured in the sweep itself.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from sweeps import stats
from sweeps.findings.arms import ArmFindings, ArmRuns, numeric_arms, void_arms
from sweeps.findings.cautions import better_elsewhere, cautions
from sweeps.findings.outcomes import doubts, outcome
from sweeps.findings.results import METRICS, UNITS, Results
from sweeps.findings.stability import LR
from sweeps.findings.tuning import Unsettled
from sweeps.findings.verdict import Verdict, further, judge, settled, undecided
from sweeps.ledger import BASELINE, Row
from sweeps.plan.space import BATCH
from sweeps.selection import Metric, Point, at, final_point
from sweeps.stats import NOISE_MARGIN


@dataclass(frozen=True)
class CriticalBatch:
    """The largest batch size whose loss exceeds the lowest by no more than the noise."""

    best: int  # the batch size with the lowest loss
    largest: int
    beyond: int | None  # the next larger batch size that was tried
    smallest: bool  # whether `best` is the smallest that was tried
    retuned: bool  # whether the learning rate was re-tuned


@dataclass(frozen=True)
class ArmsComparison:
    """The comparison of every settled arm with the baseline."""

    point: Point | None
    steps: tuple[int, ...]
    noise: stats.Noise | None  # standard deviation of a run
    noise_of: str | None  # `seeds`, or `repeats` of the baseline
    unit: str
    arms: tuple[ArmFindings, ...]  # the baseline first
    critical_batch: CriticalBatch | None

    @property
    def seeds(self) -> list[int]:
        """The seeds of the baseline."""
        return list(self.arms[0].runs.runs)

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "tokens": self.point,
            "steps": self.steps,
            "noise": self.noise and asdict(self.noise),
            "noise_of": self.noise_of,
            "unit": self.unit,
            "seeds": self.seeds,
            "arms": [arm.as_json() for arm in self.arms],
            "critical_batch": self.critical_batch and asdict(self.critical_batch),
        }


def _losses(arm: ArmRuns, point: Point | None, metric: Metric) -> dict[int, float]:
    """The measured losses of an arm's runs at a point, by seed."""
    return {
        seed: record.loss(metric)
        for seed, trial in arm.runs.items()
        if (record := at(trial, point)) is not None
    }


def comparison(
    results: Results, arms: Sequence[ArmRuns], unsettled: Sequence[Unsettled]
) -> ArmsComparison | None:
    """The comparison of every settled arm with the baseline; None if the baseline is not settled.

    The noise is the standard deviation of a run. It is taken over seeds, pooled over the baseline and
    the arms whose spread is no larger; or over repeats of the baseline if their spread is clearly
    larger.
    """
    if not arms or not arms[0].is_baseline:
        return None
    base, void = arms[0], set(void_arms(results.sweep))
    sound = [arm for arm in arms if arm.name not in void]
    alive = [
        trial
        for arm in sound
        for trial in arm.runs.values()
        if trial.curve and trial.status not in {"diverged", "failed"}
    ]
    # An arm that has just begun must not move the comparison back to early losses.
    compared = [trial for trial in alive if trial.status == "finished"] or alive
    point = final_point(compared)
    noise, noise_of = _noise(sound, point, results.metric)
    if (seen_noise := _noise_of_look(results, arms)) is not None:
        noise_of = seen_noise["of"]
        noise = stats.Noise(**{name: seen_noise[name] for name in seen_noise if name != "of"})
    measured = [_arm(results, base, arm, point, is_void=arm.name in void) for arm in arms]
    adjusted, tested = _adjusted(measured[1:], unsettled)
    judged = [measured[0]]
    for arm, p_holm in zip(measured[1:], adjusted, strict=True):
        if results.sweep.is_looked_at:
            judged.append(looked_at(results, base, arm))
            continue
        tests = _Tests(p_holm, noise, tested, UNITS[results.metric])
        judged.append(replace(arm, p_holm=p_holm, verdict=_verdict(arm, base, tests)))
    cautioned = [
        replace(arm, cautions=(*arm.cautions, *better_elsewhere(arm, judged, noise)))
        for arm in judged[1:]
    ]
    records = [record for trial in compared if (record := at(trial, point)) is not None]
    return ArmsComparison(
        point=point,
        steps=tuple(sorted({record.step for record in records})),
        noise=noise,
        noise_of=noise_of,
        unit=UNITS[results.metric],
        arms=(judged[0], *cautioned),
        critical_batch=_critical_batch(results, judged, noise),
    )


def _noise(
    sound: Sequence[ArmRuns], point: Point | None, metric: Metric
) -> tuple[stats.Noise | None, str | None]:
    """The noise of a run, and its source: `seeds`, or `repeats` of one seed."""
    base = sound[0]
    quiet = {
        arm.ids: list(_losses(arm, point, metric).values())
        for arm in sound[1:]
        if not any(outcome(trial) for trial in arm.runs.values())
    }
    own = list(_losses(base, point, metric).values())
    same = [*list(base.runs.values())[:1], *base.repeats]
    again = [record.loss(metric) for t in same if (record := at(t, point)) is not None]
    return stats.noise_of_runs(own, list(quiet.values()), again)


def _arm(
    results: Results, base: ArmRuns, arm: ArmRuns, point: Point | None, *, is_void: bool
) -> ArmFindings:
    """The findings on an arm, before its verdict."""
    own, other = (_losses(each, point, results.metric) for each in (arm, base))
    seeds = [seed for seed in other if seed in own]
    compared = bool(seeds) and not is_void and not arm.is_baseline
    paired = {seed: own[seed] - other[seed] for seed in seeds} if compared else {}
    trial, first = arm.first, base.first
    return ArmFindings(
        runs=arm,
        is_void=is_void,
        losses=own,
        paired=paired,
        effect=stats.effect(list(paired.values())) if compared else None,
        differences={
            metric: _mean_difference(arm, base, point, metric) if compared else None
            for metric in METRICS
        },
        more_params=trial.params / first.params - 1 if trial and first else None,
        more_flops=trial.flops_per_token / first.flops_per_token - 1 if trial and first else None,
        n=len(own) if arm.is_baseline else len(seeds),
        p_holm=None,
        verdict=Verdict("baseline", "the baseline"),
        outcomes=tuple(sorted({kind for t in arm.runs.values() if (kind := outcome(t))})),
        cautions=tuple(cautions(results, base, arm)),
    )


def _mean_difference(
    arm: ArmRuns, base: ArmRuns, point: Point | None, metric: Metric
) -> float | None:
    own, other = (_losses(each, point, metric) for each in (arm, base))
    shared = [own[seed] - other[seed] for seed in other if seed in own]
    return statistics.fmean(shared) if shared else None


def _adjusted(
    arms: Sequence[ArmFindings], unsettled: Sequence[Unsettled]
) -> tuple[list[float | None], int]:
    """The p-values of the arms, adjusted for all tests, and the number of tests.

    All planned tests count, with or without losses, so that a finished arm keeps its p-value when
    more results arrive. Arms that share their trials are one test. Void arms are not tested.
    """
    p_values = [None if arm.effect is None else arm.effect.p for arm in arms]
    tests = {
        arm.runs.ids: 1.0 if p is None else p
        for arm, p in zip(arms, p_values, strict=True)
        if not arm.is_void
    }
    waiting = [one.arm for one in unsettled if one.arm != BASELINE]
    every = tests | {(name,): 1.0 for name in waiting}
    adjusted = dict(zip(every, stats.holm(list(every.values())), strict=True))
    return [
        None if p is None else adjusted[arm.runs.ids] for arm, p in zip(arms, p_values, strict=True)
    ], len(every)


@dataclass(frozen=True)
class _Tests:
    """The numbers that an arm's effect is judged by."""

    p_holm: float | None
    noise: stats.Noise | None
    tested: int
    unit: str


def _verdict(arm: ArmFindings, base: ArmRuns, tests: _Tests) -> Verdict:
    """The verdict on an arm."""
    early = _without_losses(arm, base)
    if early is not None:
        return early
    if arm.effect is None:
        return undecided("nothing to compare")
    judged = judge(arm.effect, tests.p_holm, tests.noise, tests.unit, tests.tested)
    return _doubted(_lost(arm, base, judged.kind) or judged, arm, base)


def _lost(arm: ArmFindings, base: ArmRuns, kind: str) -> Verdict | None:
    """The verdict if some runs diverged and what is left would be called this: once the worst runs are
    lost, the remaining ones are not a fair sample."""
    for who, name, fair in ((arm.runs, "it", "worse"), (base, "the baseline", "better")):
        lost = who.having("diverged")
        if lost and kind != fair:
            return undecided(f"{name} diverged on {len(lost)} of {len(who.runs)} seeds")
    return None


def _doubted(judged: Verdict, arm: ArmFindings, base: ArmRuns) -> Verdict:
    """A verdict with what casts doubt on the losses that it rests on."""
    doubted = doubts(list(arm.runs.runs.values()), list(base.runs.values()))
    if doubted and judged.seeds is not None:  # what more seeds would settle is not the question
        judged = undecided("the difference is within the scatter over seeds")
    return replace(judged, doubts=doubted)


def _seen(results: Results, name: str) -> Row | None:
    """What the last look found of an arm as it is now; None before its first look."""
    own, other = (results.sweep.chosen[who] for who in (name, BASELINE))
    trial, against = (who["trials"].get(str(other["seeds"][0])) for who in (own, other))
    return results.sweep.seen(name, trial, against, own["changes"], other["seeds"])


def _noise_of_look(results: Results, arms: Sequence[ArmRuns]) -> Row | None:
    """The noise that the last look found, if the study still has the runs that it was found of."""
    if not results.sweep.looks:
        return None
    last = results.sweep.looks[-1]
    names = {arm.name for arm in arms if not arm.is_baseline}
    is_current = last["arms"].keys() == names and all(
        _seen(results, name) == last["arms"][name] for name in names
    )
    noise: Row | None = last["noise"] if is_current else None
    return noise


def looked_at(results: Results, base: ArmRuns, arm: ArmFindings) -> ArmFindings:
    """The findings on an arm with its verdict at the last look; between looks, with its numbers so far."""
    seen, now = _seen(results, arm.name), arm.effect
    if now is not None and (seen is None or seen["n"] != now.n):
        arm = replace(arm, effect=stats.Effect(now.n, now.mean, now.sd, None, None, None))
    elif now is not None and seen is not None:
        arm = replace(arm, effect=stats.Effect.of(seen), p_holm=seen["p_holm"])
    if seen is not None:  # what is spent beyond 5% is that of seeds that were added
        parts = math.ceil(round(seen["spent"] / stats.ALPHA, 6))
        arm = replace(arm, level=round(100 * stats.ALPHA * max(1, parts)))
    return replace(arm, verdict=_verdict_of(results, base, arm, seen))


def _verdict_of(results: Results, base: ArmRuns, arm: ArmFindings, seen: Row | None) -> Verdict:
    """The verdict on an arm at its last look."""
    early, looks = _without_losses(arm, base), results.space.looks
    if arm.is_void and early is not None:
        return early
    if seen is None:  # until then, only why there is no verdict
        if early is not None and early.kind == "no conclusion":
            return early
        return undecided(f"the first look is after {looks[0]} seeds")
    decision: stats.Decision = seen["decision"]
    if early is not None and (early.kind == decision != "no conclusion" or _gone(base)):
        return early  # it or the baseline is gone
    effect = stats.Effect.of(seen)
    if decision != "no conclusion":
        judged = settled(decision, effect, UNITS[results.metric], arm.interval_words)
        told = "; ".join(_told(results, arm, seen))
        return _doubted(replace(judged, detail=told), arm, base)
    if (lost := _lost(arm, base, decision)) is not None:
        return lost
    after = next((number for number in looks if number > len(seen["seeds"])), None)
    if after is not None:
        last = f", and the last after {looks[-1]}" * (after != looks[-1])
        return undecided(f"the next look is after {after} seeds{last}")
    if effect.sd is None:
        return undecided("one seed has no interval" if effect.n else "nothing to compare")
    last_look = results.sweep.looks[-1]
    tested, margin = len(last_look["registered"]), last_look.get("margin")
    return _doubted(undecided(*further(effect, tested, margin)), arm, base)


def _told(results: Results, arm: ArmFindings, seen: Row) -> Iterator[str]:
    """What has been changed about a study since its first result, as far as it bears on a verdict."""
    sweep = results.sweep
    look = next(row for row in sweep.looks if row["arms"].get(arm.name) == seen)  # that settled it
    registered = sweep.registered or {}
    if arm.level > 5:
        yield f"at level {arm.level}%, because seeds were added after the last look"
    planned = registered.get("arms", {}).get(arm.name)
    is_other_metric = registered.get("metric", results.metric) != results.metric
    if arm.name not in look["registered"] and not (planned and is_other_metric):
        yield f"{'added' if planned is None else 'changed'} after results were seen"
    elif planned and planned["hypothesis"] != arm.runs.hypothesis:
        yield "with a hypothesis that was written after results were seen"
    if is_other_metric:
        yield "in a metric that was chosen after results were seen"
    if seen["decision"] == "no difference" and look["matters"] != registered.get("matters"):
        yield "within a bound that was chosen after results were seen"


def _without_losses(arm: ArmFindings, base: ArmRuns) -> Verdict | None:
    """The verdict if it does not depend on losses, else None."""
    if arm.is_void:
        why = "its runs equal the baseline's, so the change had no effect"
        return Verdict("void", "void", why)
    gone, base_gone = _gone(arm.runs), _gone(base)
    if gone and base_gone:
        why = f"it {gone}, and the baseline {base_gone}"
        return Verdict("no conclusion", "no conclusion", why)
    if gone:
        return Verdict("worse", "worse", f"it {gone}")
    if base_gone and arm.runs.is_finished:
        return Verdict("better", "better", f"the baseline {base_gone}")
    for who, name in ((base, "the baseline's"), (arm.runs, "its")):
        if who.chosen is None:
            why = f"nothing of {name} re-tune grid has finished"
            return Verdict("no conclusion", "no conclusion", why)
    for who, name in ((arm.runs, "its"), (base, "the baseline's")):
        ended = {"finished", "diverged", "failed"}
        going = [trial for trial in who.runs.values() if trial.status not in ended]
        if going:
            least = min(trial.tokens for trial in going)
            return undecided(f"{name} runs are at {least:,} of {going[0].budget:,} tokens")
    return None


def _gone(arm: ArmRuns) -> str:
    """A sentence part for an arm whose runs all diverged; else empty."""
    if arm.chosen is None and arm.retuned:
        diverged = all(trial.status == "diverged" for trial in arm.grid)
        return "diverged at every value tried" if diverged else ""
    return "diverged on every seed" if 0 < len(arm.runs) == len(arm.having("diverged")) else ""


def _mean_on_all_seeds(arm: ArmFindings, base: ArmFindings) -> float | None:
    """The mean loss of an arm, as if it had all seeds of the baseline: the baseline's mean, and the mean
    difference on the seeds that both have; None without any."""
    shared = arm.losses.keys() & base.losses.keys()
    if not shared or base.mean is None:
        return None
    return base.mean + statistics.fmean(arm.losses[one] - base.losses[one] for one in shared)


def _critical_batch(
    results: Results, arms: Sequence[ArmFindings], noise: stats.Noise | None
) -> CriticalBatch | None:
    """The critical batch size; None for other studies, and until the noise is known.

    Losses are compared at equal tokens, each at its own learning rate. Beyond the critical size a
    larger batch gains less than it costs (arXiv:1812.06162).
    """
    each = results.space.each
    is_early = results.sweep.is_looked_at and not results.sweep.looks
    if each is None or each.path != BATCH or noise is None or is_early:
        return None
    means = {arm.name: _mean_on_all_seeds(arm, arms[0]) for arm in arms}
    sizes = numeric_arms(results, [arm.runs for arm in arms])
    losses = {int(n): mean for n, arm in sizes.items() if (mean := means[arm.name]) is not None}
    if len(losses) < 3:
        return None
    best = min(losses, key=losses.__getitem__)
    margin = NOISE_MARGIN * noise.sd
    beyond = [size for size in losses if size > best and losses[size] > losses[best] + margin]
    within = [s for s in losses if s >= best and s < min(beyond, default=math.inf)]
    return CriticalBatch(
        best=best,
        largest=max(within),
        beyond=min(beyond, default=None),
        smallest=best == min(sizes),
        retuned=LR in (results.space.retune or {}),
    )
