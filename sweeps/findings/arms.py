"""Arms against their baseline: what the runs of a study support.

Every comparison is at equal tokens and paired by seed; the noise is that of the sweep itself.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sweeps import stats
from sweeps.findings.noise import course
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    METRICS,
    UNITS,
    Place,
    Results,
    status_of,
    tokens_per_s,
)
from sweeps.findings.stability import LR, Stability, stability
from sweeps.findings.verdict import NOISE_MARGIN, Verdict, judge, undecided
from sweeps.ledger import BASELINE, Row, Sweep, Trial
from sweeps.selection import END, Metric, Point, at, final_point, last_record
from sweeps.text import named, show

# A trial lies within the spread of repeats where it is at most this many times that from them.
REPEAT_MARGIN = 2.0
SIZE_CAUTION = 0.01  # a larger relative difference in parameters or FLOPs is pointed out


@dataclass(frozen=True)
class ArmRuns:
    """An arm whose values are settled, and its runs."""

    name: str
    hypothesis: str
    changes: dict[str, Any]
    chosen: dict[str, Any] | None  # by its re-tune grid; None where every trial of that diverged
    tried: int  # trials of the grid that chose
    failed: int  # of these
    retuned: bool
    runs: dict[int, Trial]  # by seed
    repeats: list[Trial]  # of the first seed
    grid: list[Trial]  # its re-tune grid

    @property
    def ids(self) -> tuple[str, ...]:
        """Its trials; arms that chose the same values of the same changes run the same ones."""
        return tuple(trial.trial for trial in self.runs.values()) or (self.name,)

    @property
    def is_baseline(self) -> bool:
        """Whether the others are compared with it."""
        return self.name == BASELINE

    @property
    def first(self) -> Trial | None:
        """The run of the first seed."""
        return next(iter(self.runs.values()), None)

    @property
    def params(self) -> int | None:
        """Parameters of the model."""
        return None if self.first is None else self.first.params

    @property
    def flops_per_token(self) -> int | None:
        """FLOPs of a training token."""
        return None if self.first is None else self.first.flops_per_token

    @property
    def is_finished(self) -> bool:
        """Whether every run has finished."""
        return bool(self.runs) and len(self.having("finished")) == len(self.runs)

    def having(self, status: str) -> list[Trial]:
        """The runs that ended so."""
        return [trial for trial in self.runs.values() if trial.status == status]


def arms_of(sweep: Sweep) -> list[ArmRuns]:
    """The arms that are settled, in the order of the plan, the baseline first."""
    return [
        ArmRuns(
            name=row["arm"],
            hypothesis=row["hypothesis"],
            changes=row["changes"],
            chosen=row["values"],
            tried=row["tried"],
            failed=row["failed"],
            retuned=row["retuned"],
            runs={int(seed): sweep.trials[trial] for seed, trial in row["trials"].items()},
            repeats=[sweep.trials[trial] for trial in row["repeats"]],
            grid=[sweep.trials[trial] for trial in row["grid"]],
        )
        for row in sorted(sweep.chosen.values(), key=lambda row: row["place"])
    ]


# Arms that did not apply ------------------------------------------------------------------------


def _same(one: Trial, other: Trial, repeats: Sequence[Trial]) -> bool:
    """Whether two runs took the same course, as far as both have come: bit for bit or, where the
    first was repeated, no further apart than `REPEAT_MARGIN` times the spread of its repeats."""
    courses = [course(trial) for trial in (one, *repeats)]
    spread = 0.0
    for *repeated, loss in zip(*courses, course(other), strict=False):
        spread = max(spread, max(repeated) - min(repeated))
        if abs(loss - repeated[0]) > REPEAT_MARGIN * spread:
            return False
    return bool(one.curve and other.curve)


def void_arms(sweep: Sweep) -> list[str]:
    """The arms that did not apply: whose runs, at equal values and seeds, are the baseline's from the
    first losses to the ends of both.

    A difference that comes late, as that of a decay does, is one; so nothing is void before it has
    ended.
    """
    arms = {arm.name: arm for arm in arms_of(sweep)}
    base = arms.pop(BASELINE, None)
    if base is None:
        return []
    return [arm.name for arm in arms.values() if _is_void(base, arm)]


def _is_void(base: ArmRuns, arm: ArmRuns) -> bool:
    if base.repeats:  # equal runs differ here, and by how much is known of the first seed
        seeds = list(base.runs)[:1]
    else:
        seeds = [seed for seed in base.runs if seed in arm.runs]
    pairs = [(base.runs[seed], arm.runs[seed]) for seed in seeds if seed in arm.runs]
    if base.chosen != arm.chosen and not base.repeats:
        # Of a dead switch the grids are the same, though the one or the other may be chosen.
        pairs = [
            (one, other)
            for one in base.grid
            for other in arm.grid
            if all(one.value(path) == other.value(path) for path in base.chosen or {})
        ]
    ended = [
        (one, other)
        for one, other in pairs
        if one.status == other.status and one.status in {"finished", "diverged"}
    ]
    return bool(ended) and all(
        _same(one, other, base.repeats) for one, other in pairs if other.curve
    )


# What is found of an arm ------------------------------------------------------------------------

CautionKind = Literal[
    "size",  # more or fewer parameters or FLOPs than the baseline
    "windows",  # validation windows of another length
    "time",  # a timed budget was enough for these tokens
    "grid edge",  # the best value may lie beyond the re-tune grid
    "grid failure",  # trials of the re-tune grid failed
    "not re-tuned",  # it runs at the baseline's values
    "lost runs",  # of the arm or the baseline
    "outcomes",  # runs that spiked or were stuck
    "grid missed",  # another arm shows that the re-tune grid missed a better value
]


@dataclass(frozen=True)
class Caution:
    """What a reader of a verdict has to know."""

    kind: CautionKind
    text: str


@dataclass(frozen=True)
class ArmFindings:
    """An arm, its losses, and what they say of its difference from the baseline."""

    runs: ArmRuns
    is_void: bool
    losses: dict[int, float]  # by seed, where the arms are compared
    paired: dict[int, float]  # differences from the baseline, by seed; empty if not compared
    effect: stats.Effect | None  # of these
    differences: dict[Metric, float | None]  # the same, mean, in each metric
    more_params: float | None  # than the baseline's, as a share of these
    more_flops: float | None
    n: int  # runs with a loss; of an arm those that the baseline has one for, too
    p_holm: float | None
    verdict: Verdict
    outcomes: tuple[str, ...]
    cautions: tuple[Caution, ...]

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.runs.name

    @property
    def mean(self) -> float | None:
        """The mean loss over the seeds."""
        return statistics.fmean(self.losses.values()) if self.losses else None

    @property
    def seconds(self) -> float | None:
        """Median seconds of training of a whole run."""
        ends = [last_record(trial) for trial in self.runs.having("finished")]
        seconds = [record.seconds for record in ends if record is not None]
        return statistics.median(seconds) if seconds else None

    @property
    def tokens_per_s(self) -> float | None:
        """Median training tokens per second of a whole run."""
        speeds = [speed for t in self.runs.having("finished") if (speed := tokens_per_s(t))]
        return statistics.median(speeds) if speeds else None

    @property
    def caution_texts(self) -> list[str]:
        """What to be careful about."""
        return [caution.text for caution in self.cautions]

    def as_json(self) -> Row:
        """The fields of summary.json."""
        effect = self.effect
        return {
            "arm": self.name,
            "hypothesis": self.runs.hypothesis,
            "changes": self.runs.changes,
            "chosen": self.runs.chosen,
            "tried": self.runs.tried,
            "retuned": self.runs.retuned,
            "void": self.is_void,
            "planned": len(self.runs.runs),
            "n": self.n,
            "losses": self.losses,
            "params": self.runs.params,
            "flops_per_token": self.runs.flops_per_token,
            "more_params": self.more_params,
            "more_flops": self.more_flops,
            "mean": self.mean,
            "sd": statistics.stdev(self.losses.values()) if len(self.losses) > 1 else None,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s,
            "difference": effect and effect.mean,
            **{f"difference_{metric}": self.differences[metric] for metric in METRICS},
            "differences": self.paired,
            "low": effect and effect.low,
            "high": effect and effect.high,
            "difference_sd": effect and effect.sd,
            "p": effect and effect.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict.kind,
            "words": self.verdict.words,
            "further": self.verdict.seeds,
            "outcomes": self.outcomes,
            "cautions": self.caution_texts,
        }


@dataclass(frozen=True)
class CriticalBatch:
    """The largest batch size whose loss is not above the lowest by more than the noise."""

    best: int  # the batch size with the lowest loss
    largest: int
    beyond: int | None  # the next larger that was tried
    smallest: bool  # whether the best is the smallest that was tried
    retuned: bool  # whether the learning rate was


@dataclass(frozen=True)
class ArmsComparison:
    """Every settled arm against the baseline."""

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


# Arms against the baseline ----------------------------------------------------------------------


def _losses(arm: ArmRuns, point: Point | None, metric: Metric) -> dict[int, float]:
    """The losses of an arm's runs where they were measured, by seed."""
    return {
        seed: record.loss(metric)
        for seed, trial in arm.runs.items()
        if (record := at(trial, point)) is not None
    }


def comparison(
    results: Results, arms: Sequence[ArmRuns], unsettled: Sequence["Unsettled"]
) -> ArmsComparison | None:
    """Every settled arm against the baseline; None where the baseline is not settled.

    The noise is the standard deviation of a run: over seeds and pooled over the baseline and the arms
    that scatter no more than it, or over repeats of the baseline where these clearly scatter more.
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
    # One that has just begun must not take those that have ended back to their early losses.
    compared = [trial for trial in alive if trial.status == "finished"] or alive
    point = final_point(compared)
    noise, noise_of = _noise(sound, point, results.metric)
    measured = [_arm(results, base, arm, point, is_void=arm.name in void) for arm in arms]
    adjusted, tested = _adjusted(measured[1:], unsettled)
    judged = [measured[0]]
    for arm, p_holm in zip(measured[1:], adjusted, strict=True):
        tests = _Tests(p_holm, noise, tested, UNITS[results.metric])
        judged.append(replace(arm, p_holm=p_holm, verdict=_verdict(arm, base, tests)))
    cautioned = [
        replace(arm, cautions=(*arm.cautions, *_better_elsewhere(arm, judged, noise)))
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
    """The noise of a run, and whether it is that of `seeds` or of `repeats` of one of them."""
    base = sound[0]
    quiet = {
        arm.ids: list(_losses(arm, point, metric).values())
        for arm in sound[1:]
        if not any(outcome(trial) for trial in arm.runs.values())
    }
    own = list(_losses(base, point, metric).values())
    over_seeds = stats.pooled_noise(stats.alike(own, list(quiet.values())))
    same = [*list(base.runs.values())[:1], *base.repeats]
    again = [record.loss(metric) for t in same if (record := at(t, point)) is not None]
    repeated = stats.pooled_noise([again])
    if repeated is None or repeated.sd == 0:  # a run that repeats exactly has no noise of its own
        return over_seeds, None if over_seeds is None else "seeds"
    if over_seeds is None or stats.scatters_more(repeated, over_seeds):
        return repeated, "repeats"
    return over_seeds, "seeds"


def _arm(
    results: Results, base: ArmRuns, arm: ArmRuns, point: Point | None, *, is_void: bool
) -> ArmFindings:
    """The losses of an arm; the verdict is still to come."""
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
        cautions=tuple(_cautions(results, base, arm)),
    )


def _mean_difference(
    arm: ArmRuns, base: ArmRuns, point: Point | None, metric: Metric
) -> float | None:
    own, other = (_losses(each, point, metric) for each in (arm, base))
    shared = [own[seed] - other[seed] for seed in other if seed in own]
    return statistics.fmean(shared) if shared else None


def _adjusted(
    arms: Sequence[ArmFindings], unsettled: Sequence["Unsettled"]
) -> tuple[list[float | None], int]:
    """The p-values of the arms adjusted for all tests, and the number of these.

    The tests are all that the study plans, whether their losses are there or not: what has ended
    keeps its p-value when more arrives. Arms of the same trials are one test; void ones are none.
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


# Cautions ---------------------------------------------------------------------------------------


def _unequal(results: Results, base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """What differs from the baseline beside the change: sizes, validation windows, tokens."""
    trial, first = arm.first, base.first
    if trial and first:
        for what, own, other in (
            ("parameters", trial.params, first.params),
            ("FLOPs per token", trial.flops_per_token, first.flops_per_token),
        ):
            if abs(own / other - 1) > SIZE_CAUTION:
                yield Caution("size", f"{own / other - 1:+.1%} {what}")
        window = "model.context_length"
        if trial.value(window) != first.value(window):
            text = "its validation windows differ in length from the baseline's"
            yield Caution("windows", text)
    lengths = [run.tokens for run in arm.having("finished")]
    if results.final == END and lengths:
        text = f"its runs trained {min(lengths):,} to {max(lengths):,} tokens in the time budget"
        yield Caution("time", text)


def _cautions(results: Results, base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """What a reader of the verdict has to know."""
    yield from _unequal(results, base, arm)
    for path, value in (arm.chosen or {}).items():
        edge = _edge(arm, path, value)
        if edge is not None:
            side, further = edge
            yield Caution(
                "grid edge",
                f"its {path.rpartition('.')[2]} is the {side} of its re-tune grid: the optimum may lie "
                f"beyond; try {show(further)}",
            )
    if arm.failed:
        text = f"{arm.failed} of the {arm.tried} trials of its re-tune grid failed"
        yield Caution("grid failure", text)
    if not arm.is_baseline and results.space.retune and not arm.retuned:
        yield Caution("not re-tuned", "at the baseline's re-tuned values")
    for who, words in ((arm, "runs"), (base, "runs of the baseline")):
        for status in ("diverged", "failed") if who is arm or not arm.is_baseline else ():
            lost = who.having(status)
            if lost:
                yield Caution("lost runs", f"{len(lost)} of {len(who.runs)} {words} {status}")
    for kind in ("spiked", "stuck"):
        count = sum(outcome(trial) == kind for trial in arm.runs.values())
        if count:
            are = "is" if count == 1 else "are"
            yield Caution("outcomes", f"{count} of {len(arm.runs)} runs {are} {kind}")


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


def _better_elsewhere(
    arm: ArmFindings, arms: Sequence[ArmFindings], noise: stats.Noise | None
) -> Iterator[Caution]:
    """That another arm with the same changes, which runs at other values, has a loss that is lower by
    more than the noise."""
    if not arm.runs.retuned or arm.mean is None or noise is None:
        return
    for other in arms:
        if (
            other.runs.is_finished
            and other.runs.changes == arm.runs.changes
            and other.losses.keys() == arm.losses.keys()
            and other.mean is not None
            and other.mean < arm.mean - NOISE_MARGIN * noise.sd
        ):
            yield Caution(
                "grid missed",
                f"{other.name} has the same changes and a lower loss, {other.mean:.4f}, at "
                f"{named(other.runs.chosen or {})}: the re-tune grid did not choose the best value",
            )


# Verdicts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tests:
    """What an arm's effect is judged by."""

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
    # What is left after the worst have dropped out is no fair sample.
    for who, name, fair in ((arm.runs, "it", "worse"), (base, "the baseline", "better")):
        lost = who.having("diverged")
        if lost and judged.kind != fair:
            return undecided(f"{name} diverged on {len(lost)} of {len(who.runs)} seeds")
    return judged


def _without_losses(arm: ArmFindings, base: ArmRuns) -> Verdict | None:
    """The verdict where it does not rest on losses."""
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
    going = [
        trial
        for who in (arm.runs, base)
        for trial in who.runs.values()
        if trial.status not in {"finished", "diverged", "failed"}
    ]
    if going:
        least = min(trial.tokens for trial in going)
        return undecided(f"its runs are at {least:,} of {going[0].budget:,} tokens")
    return None


def _gone(arm: ArmRuns) -> str:
    """In words that an arm diverged wherever it was trained; nothing where it did not."""
    if arm.chosen is None and arm.retuned:
        diverged = all(trial.status == "diverged" for trial in arm.grid)
        return "diverged at every value it was tried with" if diverged else ""
    return "diverged on every seed" if 0 < len(arm.runs) == len(arm.having("diverged")) else ""


# Arms that are the values of a path --------------------------------------------------------------


def numeric_arms(results: Results, arms: Sequence[ArmRuns]) -> dict[float, ArmRuns]:
    """The arms by the value of the one path that they are made of; nothing for listed arms, or for
    values that are no numbers."""
    each = results.space.each
    if each is None:
        return {}
    by_value = {arm.first.value(each.path): arm for arm in arms if arm.first is not None}
    numbers = all(isinstance(value, int | float) for value in by_value)
    return dict(sorted(by_value.items())) if numbers else {}


def _critical_batch(
    results: Results, arms: Sequence[ArmFindings], noise: stats.Noise | None
) -> CriticalBatch | None:
    """The critical batch size; None for other studies, and while the noise is not known.

    Losses are at equal tokens, each at its own rate: beyond the critical size a larger batch buys
    less than it costs (arXiv:1812.06162).
    """
    each = results.space.each
    means = {arm.name: arm.mean for arm in arms}
    sizes = numeric_arms(results, [arm.runs for arm in arms])
    losses = {int(n): mean for n, arm in sizes.items() if (mean := means[arm.name]) is not None}
    if each is None or each.path != "optim.batch_size" or noise is None or len(losses) < 3:
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


# Re-tune grids ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned(Place):
    """A trial of a re-tune grid at its last record."""

    tuned: dict[str, Any]  # path -> value that it was tried with

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {**super().as_json(), "tuned": self.tuned, "outcome": outcome(self.trial)}


@dataclass(frozen=True)
class Tuning:
    """What the re-tune grid of an arm found."""

    arm: str
    chosen: dict[str, Any] | None
    places: tuple[Tuned, ...]
    stability: Stability | None  # where it is a grid of learning rates

    @property
    def trials(self) -> list[Trial]:
        """The trials of the grid."""
        return [place.trial for place in self.places]

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "arm": self.arm,
            "chosen": self.chosen,
            "trials": [place.as_json() for place in self.places],
            "stability": self.stability and self.stability.as_json(),
        }


def tuning(results: Results, arms: Sequence[ArmRuns]) -> tuple[Tuning, ...]:
    """What each re-tune grid found: first those that have chosen, in the order of the plan, then
    those that are under way."""
    paths = list(results.space.retune or {})
    chosen = {arm.name: arm.chosen for arm in arms}
    return tuple(
        Tuning(
            arm=name,
            chosen=chosen.get(name),
            places=tuple(
                Tuned(trial, last_record(trial), {path: trial.value(path) for path in paths})
                for trial in pool
            ),
            stability=stability(results.audited(pool), results.metric),
        )
        for name, pool in _tuned_pools(results, arms).items()
    )


def _tuned_pools(results: Results, arms: Sequence[ArmRuns]) -> Mapping[str, list[Trial]]:
    """The trials of each re-tune grid, by its arm."""
    settled = {arm.name: arm.grid for arm in arms if arm.retuned}
    pools: dict[str, list[Trial]] = dict(settled)
    for trial in results.sweep.trials.values():
        if trial.role == "tuning" and trial.arm not in settled:
            pools.setdefault(trial.arm, []).append(trial)
    return pools


@dataclass(frozen=True)
class Unsettled:
    """An arm whose values are not settled, so that it has no runs."""

    arm: str
    tried: int  # trials of its re-tune grid; 0 where it waits for the baseline's
    ended: int  # of these


def unsettled(
    results: Results, arms: Sequence[ArmRuns], tunings: Sequence[Tuning]
) -> tuple[Unsettled, ...]:
    """The arms whose values are not settled yet."""
    settled = {arm.name for arm in arms}
    grids = {tuning.arm: tuning.trials for tuning in tunings}
    names = dict.fromkeys([*grids, *(results.space.arms or {})])
    return tuple(
        Unsettled(name, len(grid), sum(status_of(trial) != "unfinished" for trial in grid))
        for name in names
        if name not in settled
        for grid in (grids.get(name, []),)
    )
