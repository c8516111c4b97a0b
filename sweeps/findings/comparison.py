"""Arms compared with their baseline: what the runs of a study support.

Every comparison is at equal tokens and paired by seed. The noise is measured in the sweep itself.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sweeps import stats
from sweeps.findings.arms import ArmFindings, ArmRuns, numeric_arms, void_arms
from sweeps.findings.cautions import better_elsewhere, cautions
from sweeps.findings.doubts import doubts
from sweeps.findings.results import METRICS, UNITS, Results, repaired_words
from sweeps.findings.speedup import Speedups, speedup, speedups
from sweeps.findings.stability import LR
from sweeps.findings.target import to_target
from sweeps.findings.tuning import Unsettled
from sweeps.findings.verdict import Verdict, further, judge, settled, undecided
from sweeps.ledger import BASELINE, Row, Trial, Version, may_have_dropped
from sweeps.outcomes import outcome
from sweeps.plan.sections import BATCH
from sweeps.selection import NO_CHANGE, Metric, Point, at, final_point, last_record
from sweeps.stats import NOISE_MARGIN, Fate, possible
from sweeps.text import duration, quantity
from tinylm import config as cfg

_BEHIND_VERDICTS = {
    "finished",
    "diverged",
    "look",
}  # rows without which a verdict may claim too much
_NAMED = 2  # sweeps that studied an arm, too; of more, there is only the number


@dataclass(frozen=True)
class CriticalBatch:
    """The largest batch size whose loss exceeds the lowest by no more than the noise."""

    best: int  # the batch size with the lowest loss
    largest: int
    beyond: int | None  # the next larger batch size that was tried
    smallest: bool  # whether `best` is the smallest that was tried
    retuned: bool  # whether the learning rate was re-tuned


@dataclass(frozen=True)
class Dropped:
    """What the last look found of an arm that the study has no more, or has changed since."""

    arm: str
    changes: Row
    metric: Metric
    seeds: int
    verdict: Verdict

    def as_json(self) -> Row:
        """The fields of summary.json."""
        kind, words = self.verdict.kind, self.verdict.words
        return {**vars(self), "verdict": kind, "words": words}


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
    dropped: tuple[Dropped, ...]
    speedups: Speedups | None = None  # None where the study asks for none

    @property
    def seeds(self) -> list[int]:
        """The seeds of the baseline."""
        return list(self.arms[0].runs.runs)

    @property
    def seeds_differ(self) -> bool:
        """Whether the loss of an arm or of the baseline is over other seeds than their difference."""
        base, *arms = self.arms
        return any(
            arm.effect is not None
            and (arm.losses.keys() != base.losses.keys() or arm.effect.n != len(base.losses))
            for arm in arms
        )

    @property
    def scaling(self) -> stats.Scaling | None:
        """How the baseline's loss depends on its tokens, if the study asks for it and it is known."""
        return None if self.speedups is None else self.speedups.scaling

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
            **({"dropped": [one.as_json() for one in self.dropped]} if self.dropped else {}),
            **({} if self.speedups is None else {"speedups": self.speedups.as_json()}),
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
    losses = [_losses(arm, point, results.metric) for arm in arms]
    beside = [losses[1:], *[losses[:1] for _ in arms[1:]]]
    measured = [
        _arm(results, base, arm, point, others, is_void=arm.name in void)
        for arm, others in zip(arms, beside, strict=True)
    ]
    adjusted, tested = _adjusted(measured[1:], unsettled)
    judged = [measured[0]]
    for arm, p_holm in zip(measured[1:], adjusted, strict=True):
        if results.sweep.is_looked_at:
            judged.append(_with_others(results, looked_at(results, base, arm, point)))
            continue
        tests = _Tests(p_holm, noise, tested, UNITS[results.metric])
        one = replace(arm, p_holm=p_holm, verdict=_verdict(arm, base, tests))
        judged.append(_with_others(results, one))
    cautioned = [
        replace(arm, cautions=(*arm.cautions, *better_elsewhere(arm, judged, noise)))
        for arm in judged[1:]
    ]
    records = [record for trial in compared if (record := at(trial, point)) is not None]
    worth = speedups(results)
    every = [_worth(results, judged[0], arm, worth) for arm in (judged[0], *cautioned)]
    return ArmsComparison(
        point=point,
        steps=tuple(sorted({record.step for record in records})),
        noise=noise,
        noise_of=noise_of,
        unit=UNITS[results.metric],
        arms=tuple(every),
        critical_batch=_critical_batch(results, judged, noise),
        dropped=tuple(_dropped(results)),
        speedups=worth,
    )


def _worth(
    results: Results, base: ArmFindings, arm: ArmFindings, known: Speedups | None
) -> ArmFindings:
    """An arm with what it is worth in tokens of the baseline, and what it took to the target."""
    target = results.space.target
    return replace(
        arm,
        speedup=None if known is None or arm.runs.is_baseline else speedup(arm, base, known),
        to_target=None if target is None else to_target(arm.runs, base.runs, target),
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
    results: Results,
    base: ArmRuns,
    arm: ArmRuns,
    point: Point | None,
    beside: Sequence[Mapping[int, float]],
    *,
    is_void: bool,
) -> ArmFindings:
    """The findings on an arm, before its verdict; `beside` are the losses that its own are compared with."""
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
            metric: _mean_difference(arm, base, point, metric, paired) if compared else None
            for metric in METRICS
        },
        more_params=trial.params / first.params - 1 if trial and first else None,
        more_flops=trial.flops_per_token / first.flops_per_token - 1 if trial and first else None,
        n=len(own) if arm.is_baseline else len(seeds),
        p_holm=None,
        verdict=Verdict("baseline", "the baseline"),
        outcomes=tuple(sorted({kind for t in arm.runs.values() if (kind := outcome(t))})),
        cautions=tuple(cautions(results, base, arm, own, beside)),
    )


def _mean_difference(
    arm: ArmRuns, base: ArmRuns, point: Point | None, metric: Metric, seeds: Iterable[int]
) -> float | None:
    own, other = (_losses(each, point, metric) for each in (arm, base))
    shared = [own[seed] - other[seed] for seed in seeds if seed in own and seed in other]
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


def _with_others(results: Results, arm: ArmFindings) -> ArmFindings:
    """An arm whose verdict says which sweeps beside have studied it, too."""
    found, elsewhere = arm.verdict, results.elsewhere.get(arm.name)
    if elsewhere is None or found.kind in {"void", "no conclusion"}:
        return arm
    told = [found.detail] if found.detail else []
    if elsewhere.before:
        told.append(f"the same comparison was made before in {_few(elsewhere.before)}")
    if elsewhere.other_base:
        told.append(
            f"the same change was studied before on another base config, in {_few(elsewhere.other_base)}"
        )
    if elsewhere.copies:
        told.append(f"a copy of the study went on otherwise: {_few(elsewhere.copies)}")
    return replace(arm, verdict=replace(found, detail="; ".join(told)))


def _few(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    others = len(names) - _NAMED
    more = [quantity(others, "other sweep")] if others > 0 else []
    return " and ".join([*names[:_NAMED], *more])


def _lost(arm: ArmFindings, base: ArmRuns, kind: str) -> Verdict | None:
    """The verdict if some runs diverged, and their losses are no evidence for what they would be called."""
    if kind != "no conclusion" and kind in possible(_fate(arm.runs), _fate(base)):
        return None
    for who, name, against in ((arm.runs, "it", "worse"), (base, "the baseline", "better")):
        lost = who.having("diverged")
        if lost and kind != against:
            return undecided(f"{name} diverged on {len(lost)} of {len(who.runs)} seeds")
    return None


def _doubted(judged: Verdict, arm: ArmFindings, base: ArmRuns) -> Verdict:
    """A verdict with what casts doubt on the losses that it rests on."""
    doubted = doubts(list(arm.runs.runs.values()), list(base.runs.values()))
    if doubted and judged.seeds is not None:  # what more seeds would settle is not the question
        judged = undecided("the difference is within the scatter over seeds")
    return replace(judged, doubts=doubted)


def _version(results: Results, name: str) -> Version:
    """The version of an arm that is compared now."""
    own, other = (results.sweep.chosen[who] for who in (name, BASELINE))
    trial, against = (who["trials"].get(str(other["seeds"][0])) for who in (own, other))
    return Version(
        results.metric, trial, against, own["changes"], other["seeds"], results.space.variance
    )


def _seen(results: Results, name: str) -> Row | None:
    """What the last look found of an arm as it is now; None before its first look."""
    return results.sweep.seen(name, _version(results, name))


def _dropped(results: Results) -> Iterator[Dropped]:
    """What looks found of arms as the study has them no more."""
    known = [_version(results, name) for name in results.sweep.chosen if name != BASELINE]
    for row in reversed(results.sweep.looks):
        metric: Metric = row["metric"]
        for name, seen in row["arms"].items():
            version = Version.of(seen, row)
            if any(version.agrees(one) for one in known):
                continue
            known.append(version)
            found = Verdict("no conclusion", "no conclusion")
            if seen["decision"] != "no conclusion":
                words = f"{100 - _level(seen)}% interval"
                effect, margin = stats.Effect.of(seen), row["margin"]
                found = settled(seen["decision"], effect, UNITS[metric], words, margin=margin)
            yield Dropped(name, seen["changes"], metric, len(seen["seeds"]), found)


def _level(seen: Row) -> int:
    """The level of what a look found, in percent: what is spent beyond 5% is that of added seeds."""
    parts = math.ceil(round(seen["spent"] / stats.ALPHA, 6))
    return round(100 * stats.ALPHA * max(1, parts))


def _noise_of_look(results: Results, arms: Sequence[ArmRuns]) -> Row | None:
    """The noise that the last look found, if the study still has the runs that it was found of."""
    if not results.sweep.looks:
        return None
    last = results.sweep.looks[-1]
    every = [_seen(results, arm.name) for arm in arms if not arm.is_baseline]
    found = [seen for seen in every if seen in last["arms"].values()]
    asked = results.space.looks[-1]
    is_current = len(found) == len(every) == len(last["arms"]) and all(
        len(seen["seeds"]) <= asked for seen in last["arms"].values()
    )
    noise: Row | None = last["noise"] if is_current else None
    return noise


def looked_at(
    results: Results, base: ArmRuns, arm: ArmFindings, point: Point | None
) -> ArmFindings:
    """The findings on an arm with its verdict at the last look; between looks, with its numbers so far."""
    seen, now = _seen(results, arm.name), arm.effect
    is_settled = (
        seen is not None and seen["decision"] != "no conclusion" and seen["low"] is not None
    )
    if now is not None and seen is not None and (is_settled or seen["n"] >= now.n):
        effect = stats.Effect.of(seen)
        paired = {seed: by for seed, by in arm.paired.items() if seed in seen["seeds"]}
        others = {
            metric: _mean_difference(arm.runs, base, point, metric, paired) for metric in METRICS
        }
        arm = replace(
            arm,
            n=effect.n,
            effect=effect,
            paired=paired,
            differences={**others, results.metric: effect.mean},
            p_holm=seen["p_holm"],
        )
    elif now is not None:  # more seeds than the look saw, by which no verdict is formed
        arm = replace(arm, effect=stats.Effect(now.n, now.mean, now.sd, None, None, None))
    if seen is not None:
        arm = replace(arm, level=_level(seen))
    found = _verdict_of(results, base, arm, seen)
    if found.kind == "no conclusion":
        seeds = base.runs if seen is None else seen["seeds"]
        lacking = _without(results, base, arm.runs, seeds)
        found = replace(found, detail="; ".join(filter(None, [found.detail, *lacking])))
    return replace(arm, verdict=found)


def _verdict_of(results: Results, base: ArmRuns, arm: ArmFindings, seen: Row | None) -> Verdict:
    """The verdict on an arm at its last look; one without a conclusion does not yet say what the look lacks."""
    early, looks = _without_losses(arm, base), results.space.looks
    if arm.is_void and early is not None:
        return early
    if seen is None:  # until then, only why there is no verdict
        if early is not None and early.kind == "no conclusion":
            return early
        if arm.n >= looks[0]:
            return undecided(f"the look after {looks[0]} seeds is due: run the sweep again")
        return undecided(f"the first look is after {looks[0]} seeds")
    decision: stats.Decision = seen["decision"]
    told = list(_told(results, base, arm, seen))
    if early is not None and (early.kind == decision != "no conclusion" or _gone(base)):
        is_open = early.kind == "no conclusion"  # else it or the baseline is gone
        return early if is_open else replace(early, detail="; ".join([early.detail, *told]))
    if decision == "no conclusion":
        return _lost(arm, base, decision) or _open(results, base, arm, seen)
    margin = _look_of(results, arm, seen)[0].get("margin")
    effect, unit = stats.Effect.of(seen), UNITS[results.metric]
    judged = settled(decision, effect, unit, arm.interval_words, margin=margin)
    if seen["low"] is None:
        whose = "the baseline's" if decision == "better" else "its"
        told = [f"{whose} runs up to seed {seen['seeds'][-1]} diverged", *told]
    return _doubted(replace(judged, detail="; ".join(told)), arm, base)


def _open(results: Results, base: ArmRuns, arm: ArmFindings, seen: Row) -> Verdict:
    """The verdict on an arm that no look has settled."""
    effect, looks = stats.Effect.of(seen), results.space.looks
    after = next((number for number in looks if number > len(seen["seeds"])), None)
    if (fewer := _fewer(results, seen)) is not None:
        found = undecided(fewer)
    elif after is not None:
        last = f", and the last after {looks[-1]}" * (after != looks[-1])
        ahead = _ahead(results, base, arm, seen)
        found = undecided(f"the next look is after {after} seeds{last}{ahead}")
    elif effect.sd is None:
        found = undecided("one seed has no interval" if effect.n else "nothing to compare")
    else:
        tested = len(results.sweep.looks[-1]["registered"])
        margin, rest = results.sweep.looks[-1].get("margin"), [0, *seen.get("rests", ())][-1]
        detail, seeds = further(_as_tested(effect, seen), tested, margin, rest)
        took = "" if seeds is None else _time_words(results, base, arm, seeds)
        detail += took and f", in about {took}"
        found = _doubted(undecided(detail, seeds), arm, base)
    if seen["matters"] != (results.sweep.registered or {}).get("matters"):
        late = "the bound for no difference was chosen after results were seen"
        found = replace(found, detail=f"{found.detail}; {late}")
    return found


def _as_tested(effect: stats.Effect, seen: Row) -> stats.Effect:
    """An effect with the standard deviation of its test, which may be pooled."""
    if not any(seen.get("rests", ())) or effect.low is None or effect.high is None:
        return effect
    half = (effect.high - effect.low) / 2
    return replace(effect, sd=half / seen["boundary"] * math.sqrt(effect.n))


def _ahead(results: Results, base: ArmRuns, arm: ArmFindings, seen: Row) -> str:
    """What the looks that are left are likely to bring, from the last one; empty if that is not known."""
    look = results.sweep.looks[-1]
    others = [look["arms"].get(name, {}).get("decision") for name in look["registered"]]
    open_ = sum(one not in {"better", "worse"} for one in others)
    left = [number for number in results.space.looks if number > len(seen["seeds"])]
    effect, level = stats.Effect.of(seen), stats.ALPHA / max(1, open_)
    if doubts(list(arm.runs.runs.values()), list(base.runs.values())) or not seen["looks"]:
        return ""  # more seeds are not the question
    ends = results.sweep.ends or left[-1:]
    found = stats.outlook(
        effect, seen["looks"], left, ends, level, look["margin"], seen.get("rests", ())
    )
    if found is None:
        return ""
    if found.most is None:
        settle = "it settles" if len(left) == 1 else "they settle"
        chance = "less than 1%" if found.chance < 0.01 else f"about {found.chance:.0%}"
        return f"; the chance that {settle} the question is {chance}"
    least, most = (max(1, number - arm.n) for number in (found.fewest, found.most))
    number = quantity(most, "more seed") if least == most else f"{least} to {most} more seeds"
    verb = "is" if least == most == 1 else "are"
    took = _time_words(results, base, arm, most)
    return f"; {number} {verb} likely to settle it{took and f', within about {took}'}"


def _time_words(results: Results, base: ArmRuns, arm: ArmFindings, seeds: int) -> str:
    """How long so many more seeds of an arm take, and those that the baseline then lacks; empty if that
    is not known."""
    ends = [last_record(trial) for trial in base.having("finished")]
    of_base = [record.seconds for record in ends if record is not None]
    if arm.seconds is None or not of_base:
        return ""
    lacking = max(0, len(arm.runs.runs) + seeds - len(base.runs))
    slots = next((one["slots"] for one in reversed(results.sweep.sessions) if one.get("slots")), 1)
    seconds = (seeds * arm.seconds + lacking * statistics.median(of_base)) / slots
    return f"{duration(seconds)} of training"


def _look_of(results: Results, arm: ArmFindings, seen: Row) -> tuple[Row, str]:
    """The look that found this of an arm, and its name then."""
    for row in results.sweep.looks:
        names = [name for name, one in row["arms"].items() if one == seen]
        if names:
            return row, arm.name if arm.name in names else names[0]
    raise AssertionError  # what is seen of an arm is of a look


def _told(results: Results, base: ArmRuns, arm: ArmFindings, seen: Row) -> Iterator[str]:
    """What has been changed about a study since its first result, as far as it bears on a verdict."""
    sweep = results.sweep
    look, then = _look_of(results, arm, seen)
    registered = sweep.registered or {}
    if (fewer := _fewer(results, seen)) is not None:
        yield fewer
    yield from _settled_before(results, look, seen)
    yield from _without(results, base, arm.runs, seen["seeds"])
    before = [one for one in sweep.repairs if one["seq"] < look["seq"]]
    if words := repaired_words([one for one in before if may_have_dropped(one, _BEHIND_VERDICTS)]):
        yield f"after {words}"
    if arm.level > 5:
        yield f"at level {arm.level}%, because seeds were added after the last look"
    arms = registered.get("arms", {})
    planned = arms.get(then)
    hypotheses = [one["hypothesis"] for one in (arms.values() if planned is None else [planned])]
    is_other_metric = registered.get("metric", results.metric) != results.metric
    if then not in look["registered"] and not (planned and is_other_metric):
        yield _changed_words(planned, registered, arm, seen)
    elif hypotheses and arm.runs.hypothesis not in hypotheses:
        yield "with a hypothesis that was written after results were seen"
    if is_other_metric:
        yield "in a metric that was chosen after results were seen"
    variance = look.get("variance", "own")
    is_late = registered.get("variance", "own") != variance
    if any(seen.get("rests", ())):
        late = ", which was chosen after results were seen" if is_late else ""
        yield f"with a variance pooled over the arms{late}"
    elif is_late and variance == "own":
        yield "without the pooled variance that was registered"
    margin = stats.margin_of(registered.get("matters"), look["noise"])
    if seen["decision"] == "no difference" and not stats.is_within(stats.Effect.of(seen), margin):
        yield "within a bound that was chosen after results were seen"


def _changed_words(planned: Row | None, registered: Row, arm: ArmFindings, seen: Row) -> str:
    """That an arm is not the one that was planned before the first result."""
    if planned is None:
        return "added after results were seen"
    pairs = zip(registered.get("seeds", ()), seen["seeds"], strict=False)
    if any(one != other for one, other in pairs):
        return "on seeds that were changed after results were seen"
    if planned["changes"] != arm.runs.changes:
        return "with settings that were changed after results were seen"
    return "changed after results were seen"


def _settled_before(results: Results, look: Row, seen: Row) -> Iterator[str]:
    """That an earlier look had settled an arm otherwise, which a bound that was changed later reopened."""
    version = Version.of(seen, look)
    for row in results.sweep.looks:
        for one in row["arms"].values():
            if row["seq"] < look["seq"] and version.agrees(Version.of(one, row)):
                decided = one["decision"]
                if decided not in {"no conclusion", seen["decision"]}:
                    yield f"settled before as {decided}, and again after what matters was changed"
                    return


def _without(results: Results, base: ArmRuns, arm: ArmRuns, asked: Iterable[int]) -> Iterator[str]:
    """What is said of runs on the seeds that a look asked for which it lacks, because somebody stopped them, also if the
    space no longer has them, or because they failed; and of trials of re-tune grids that somebody stopped, or dropped
    from the space: what they would have shown may be why."""
    seeds = [seed for seed in asked if seed in arm.runs or seed in base.runs]
    runs = [[who.runs[seed] for seed in seeds if seed in who.runs] for who in (arm, base)]
    withdrawn = [_withdrawn(results, who) for who in (arm, base)]
    own, others = ([one for one in gone if one.role == "run"] for gone in withdrawn)
    every = (
        ("its {}", "run", runs[0]),
        ("its {} that the space no longer has", "run", own),
        ("the baseline's {}", "run", runs[1]),
        ("the baseline's {} that the space no longer has", "run", others),
        ("the {} of its re-tune grid", "trial", arm.grid),
        ("the {} of the baseline's re-tune grid", "trial", base.grid),
    )
    for whose, noun, trials in every:
        of = whose.format(quantity(len(trials), noun))
        if by_hand := sum(trial.is_stopped_by_hand for trial in trials):
            yield f"{by_hand} of {of} {'was' if by_hand == 1 else 'were'} stopped by hand"
        failed = sum(trial.status == "failed" for trial in trials)
        if failed and noun == "run":
            yield f"{failed} of {of} failed"
    for whose, gone in zip(("its", "the baseline's"), withdrawn, strict=True):
        if number := sum(one.role == "tuning" and bool(one.curve) for one in gone):
            dropped = f"{quantity(number, 'trial')} of {whose} re-tune grid"
            yield f"{dropped} {'was' if number == 1 else 'were'} dropped after results were seen"


def _withdrawn(results: Results, arm: ArmRuns) -> list[Trial]:
    """The trials that the space no longer has of an arm, whatever its name was: those that trained the same changes,
    seeds and tuned values aside."""
    plain = cfg.flatten(results.sweep.request["base"]) if results.sweep.request else {}
    # The baseline changes nothing, so what its trials vary is all that was ever tuned.
    baseline = (one for one in results.sweep.everything if one.arm == BASELINE)
    tuned = {path for one in baseline for path in one.values}
    aside = NO_CHANGE | (tuned if arm.retuned else tuned - arm.changes.keys())

    def changed(values: Row) -> Row:
        return {
            path: one
            for path, one in values.items()
            if path not in aside and plain.get(path) != one
        }

    return [
        trial
        for trial in results.sweep.withdrawn.values()
        if (trial.arm == BASELINE) == arm.is_baseline
        and changed(trial.values) == changed(arm.changes)
    ]


def _fewer(results: Results, seen: Row) -> str | None:
    """What is said of an arm that was looked at with more seeds than are asked for now."""
    number, asked = len(seen["seeds"]), results.space.looks[-1]
    if asked >= number:
        return None
    compared = "" if seen["n"] == number else f"{seen['n']} were compared and "
    return f"after {number} seeds, of which {compared}the space has {asked} now"


def _without_losses(arm: ArmFindings, base: ArmRuns) -> Verdict | None:
    """The verdict if it does not depend on losses, else None."""
    if arm.is_void:
        why = "its runs equal the baseline's, so the change had no effect"
        return Verdict("void", "void", why)
    gone, base_gone = _gone(arm.runs), _gone(base)
    if gone and base_gone:
        why = f"it {gone}, and the baseline {base_gone}"
        return Verdict("no conclusion", "no conclusion", why)
    certain = possible(_fate(arm.runs), _fate(base))
    if certain in {("worse",), ("better",)}:
        why = f"it {gone}" if gone else f"the baseline {base_gone}"
        return Verdict(certain[0], certain[0], why)
    for who, name in ((base, "the baseline's"), (arm.runs, "its")):
        if who.chosen is None:
            why = f"nothing of {name} re-tune grid has finished"
            return Verdict("no conclusion", "no conclusion", why)
    for who, name in ((arm.runs, "its"), (base, "the baseline's")):
        ended = {"finished", "diverged", "failed"}
        going = [
            trial
            for trial in who.runs.values()
            if trial.status not in ended and not trial.is_stopped_by_hand
        ]
        if going:
            least = min(trial.tokens for trial in going)
            return undecided(f"{name} runs are at {least:,} of {going[0].budget:,} tokens")
    return None


def _fate(arm: ArmRuns) -> Fate:
    """What has become of the runs of an arm."""
    grid = arm.grid if arm.retuned else []
    runs = grid if arm.chosen is None else list(arm.runs.values())
    return Fate.of([trial.status for trial in runs])


def _gone(arm: ArmRuns) -> str:
    """A sentence part for an arm whose runs all diverged; else empty."""
    if not _fate(arm).is_gone:
        return ""
    return "diverged at every value tried" if arm.chosen is None else "diverged on every seed"


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
