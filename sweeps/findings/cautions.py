"""Caveats of a verdict: differences other than the change, lost runs, poor grids."""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sweeps import stats
from sweeps.findings.answer import better
from sweeps.findings.arms import ArmFindings, ArmRuns, Caution
from sweeps.findings.doubts import high_init
from sweeps.findings.ranking import HIGHEST
from sweeps.findings.results import Results, back_words, steered_words
from sweeps.findings.stability import LR
from sweeps.ledger import Trial
from sweeps.outcomes import outcome, overfit
from sweeps.plan.sections import CONTEXT
from sweeps.selection import END, ContextLengths, best_record, context_lengths
from sweeps.stats import NOISE_MARGIN
from sweeps.text import init_words, joined, loss, named, quantity, short_name, show

SIZE_CAUTION = 0.01  # a larger relative difference in parameters or FLOPs is pointed out
# A run is far from the others of its arm if it ends this many standard deviations from their median, and by this share
# of it. The standard deviation is 1.4826 times the median of the distances, with those of the baseline's runs, as for a
# normal distribution (https://en.wikipedia.org/wiki/Median_absolute_deviation). Distances of 0,
# those of the medians themselves, are left out: with three runs they would be a third of all. Of studies of normal runs
# with equal spread, fewer than 1% have such a run.
FAR_SDS, FAR_SHARE = 10, 0.02


def cautions(
    results: Results,
    base: ArmRuns,
    arm: ArmRuns,
    losses: Mapping[int, float],
    beside: Sequence[Mapping[int, float]],
) -> Iterator[Caution]:
    """The cautions on an arm from its runs and the baseline's, with its losses by seed, and those that they are
    compared with: the baseline's, or each arm's if it is the baseline."""
    yield from _unequal(results, base, arm)
    for path, value in (arm.chosen or {}).items():
        edge = edge_of(arm, path, value)
        if edge is not None:
            side, further = edge
            told = f" (try {show(further)})" if further <= HIGHEST.get(path, math.inf) else ""
            yield Caution(
                "grid edge",
                f"its {short_name(path)} is the {side} of its re-tune grid, so the optimum may lie "
                f"beyond it{told}",
            )
    yield from _better_in_audit(results, arm)
    if arm.failed:
        text = f"{arm.failed} of {quantity(arm.tried, 'trial')} of its re-tune grid failed"
        yield Caution("grid failure", text)
    if not arm.is_baseline and results.space.retune and not arm.retuned:
        yield Caution("not re-tuned", "it runs at the baseline's re-tuned values")
    both = ((arm, ""), *(() if arm.is_baseline else ((base, " of the baseline"),)))
    for who, whose in both:
        for status in ("diverged", "failed"):
            lost = who.having(status)
            if lost:
                runs = f"{quantity(len(who.runs), 'run')}{whose}"
                yield Caution("lost runs", f"{len(lost)} of {runs} {status}")
    yield from _steered(results, base, arm)
    for kind, problem in (("spiked", "spiked"), ("stuck", "got stuck")):
        count = sum(outcome(trial) == kind for trial in arm.runs.values())
        if count:
            runs = quantity(len(arm.runs), "run")
            yield Caution("outcomes", f"{count} of {runs} {problem}")
    counted = [seed for seed, trial in arm.runs.items() if outcome(trial)]
    yield from far_runs(losses, beside, counted)
    if not arm.is_baseline:
        yield from far_runs(beside[0], [losses], whose="the baseline's")
    programs = results.programs_words([*arm.runs.values(), *base.runs.values()])
    if programs:
        yield Caution("programs", programs)
    yield from _overfitted(base, arm)
    yield from _high_init(base, arm)


def far_runs(
    losses: Mapping[int, float],
    beside: Sequence[Mapping[int, float]],
    told: Collection[int] = (),
    whose: str = "its",
) -> Iterator[Caution]:
    """The caution that runs ended far from their others, by the scatter of these and of any of those beside, from
    the losses by seed; not where other cautions have told of all of them."""
    if len(losses) < 3:
        return
    sd, middle = min(_scatter(losses, each) for each in beside or [{}]), _middle(losses)
    least = max(FAR_SDS * sd, FAR_SHARE * middle)
    far = {seed: end for seed, end in losses.items() if abs(end - middle) > least}
    if far.keys() <= set(told):
        return
    rest = [end for seed, end in losses.items() if seed not in far]
    which = joined([f"{loss(end)} on seed {seed}" for seed, end in far.items()])
    yield Caution(
        "far runs",
        f"{len(far)} of {whose} {len(losses)} runs ended far from the others ({which}; the others "
        f"{loss(min(rest))} to {loss(max(rest))}), so the mean depends on how often that happens",
    )


def _scatter(losses: Mapping[int, float], beside: Mapping[int, float]) -> float:
    """The standard deviation of runs, and of those beside if there are several."""
    groups = [group for group in (losses, beside) if len(group) > 1]
    distances = [abs(end - _middle(group)) for group in groups for end in group.values()]
    return 1.4826 * statistics.median([each for each in distances if each] or [0.0])


def _middle(losses: Mapping[int, float]) -> float:
    return statistics.median_low(losses.values())


def _steered(results: Results, base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """The cautions that somebody stopped runs of an arm or its baseline, or had them trained to their end; how
    to train one after all."""
    of_arm = [("run", "", [*arm.runs.values()]), ("trial", " of its re-tune grid", arm.grid)]
    of_base = [("run", " of the baseline", [*base.runs.values()])]
    repeats = [("repeat", " of the baseline's first run", base.repeats)]
    every = [*of_arm, *([] if arm.is_baseline else of_base), *repeats]
    is_told = False
    for noun, of, trials in every:
        if words := steered_words(trials, noun, of):
            back = "" if is_told else back_words(results, trials)
            is_told = is_told or bool(back)
            yield Caution("steered", "; ".join(filter(None, (words, back))))


def _overfitted(base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """The caution that a final loss says how much a run overfitted, with the lowest losses."""
    compared = [arm] if arm.is_baseline else [arm, base]
    counts = [sum(overfit(trial) is not None for trial in who.runs.values()) for who in compared]
    if not any(counts):
        return
    whose = ("", " of the baseline")
    parts = [
        f"{count} of {quantity(len(who.runs), 'run')}{of}"
        for who, count, of in zip(compared, counts, whose, strict=False)
        if count
    ]
    lowest = [
        f"{loss(statistics.fmean(losses))}{of}"
        for who, of in zip(compared, whose, strict=False)
        if (losses := [b.val_loss for t in who.runs.values() if (b := best_record(t)) is not None])
    ]
    yield Caution(
        "overfitting",
        f"{' and '.join(parts)} overfitted, so the final losses mainly show which runs overfitted less; "
        f"the mean of the lowest validation losses is {', '.join(lowest)}",
    )


def _high_init(base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """The caution that a model starts far above the loss of a uniform guess."""
    for who, whose in ((arm, "its"), (base, "the baseline's"))[: 1 if arm.is_baseline else 2]:
        found = high_init(who.runs.values())
        if found is not None:
            words = init_words(found.loss, found.uniform, found.setting)
            yield Caution("init", f"{whose} {words}")


def _better_in_audit(results: Results, arm: ArmRuns) -> Iterator[Caution]:
    """The caution that a stopped trial of the re-tune grid ended below the chosen one when audited."""
    values = arm.chosen or {}
    chosen = [trial for trial in arm.grid if all(trial.value(p) == v for p, v in values.items())]
    found = better(results, [trial for trial in chosen if trial.status == "finished"], arm.grid)
    if found is not None and found.chosen is not None:
        other = named({path: found.runs[0].value(path) for path in values})
        yield Caution(
            "audit",
            f"a stopped trial of its re-tune grid was better: {other} ended at {found.loss:.4f}, the "
            f"chosen {named(values)} at {found.chosen:.4f}",
        )


def _unequal(results: Results, base: ArmRuns, arm: ArmRuns) -> Iterator[Caution]:
    """Differences from the baseline other than the change: sizes, validation windows, tokens."""
    trial, first = arm.first, base.first
    if trial and first:
        for what, own, other in (
            ("parameters", trial.params, first.params),
            ("FLOPs per token", trial.flops_per_token, first.flops_per_token),
        ):
            if abs(own / other - 1) > SIZE_CAUTION:
                more = "more" if own > other else "fewer"
                yield Caution("size", f"it uses {abs(own / other - 1):.1%} {more} {what}")
        contexts = context_lengths([trial.config, first.config])
        if contexts is not None:
            yield from _of_contexts(contexts, trial, first)
    lengths = [run.tokens for run in arm.having("finished")]
    if results.final == END and lengths and trial:
        if trial.config["budget"]["seconds"] is not None:
            text = (
                f"its runs trained {min(lengths):,} to {max(lengths):,} tokens in the time budget"
            )
            yield Caution("time", text)
        elif first and trial.budget != first.budget:
            text = f"it was trained for {trial.budget:,} tokens, the baseline for {first.budget:,}"
            yield Caution("budget", text)


def _of_contexts(contexts: ContextLengths, trial: Trial, first: Trial) -> Iterator[Caution]:
    """What the comparison of a context length with the baseline's is, and what else differs."""
    own, base = trial.value(CONTEXT), first.value(CONTEXT)
    if contexts.are_same:
        text = (
            f"it predicts the same validation tokens in windows of {own} tokens instead of {base}"
        )
        yield Caution("context", text)
    else:
        text = "its validation windows differ in length from the baseline's"
        yield Caution("windows", text)
    if contexts.updates_differ:
        (size,), (other,) = contexts.per_update[own], contexts.per_update[base]
        text = f"its updates have {size:,} tokens, the baseline's {other:,}"
        if contexts.updates[own]:
            (updates,), (others,) = contexts.updates[own], contexts.updates[base]
            text += f", so it made {updates:,} and the baseline {others:,}"
        yield Caution("updates", text)


def edge_of(arm: ArmRuns, path: str, value: Any) -> tuple[str, float] | None:
    """The side, lowest or highest, on which a chosen number has no tried neighbor, and a value to try
    there: at the same distance as the neighbor on the other side. No shorter context is one to try."""
    tried = sorted({trial.value(path) for trial in arm.grid if not trial.is_untried})
    if len(tried) < 2 or type(value) not in {int, float}:
        return None
    if path == LR and any(overfit(trial) for trial in arm.grid):
        return None  # the rate that ends best is the one that learned least
    for side, end, inner in (("lowest", tried[0], tried[1]), ("highest", tried[-1], tried[-2])):
        if value == end and (path != CONTEXT or side == "highest"):
            return side, end * end / inner if inner else 2 * end - inner
    return None


def better_elsewhere(
    arm: ArmFindings, arms: Sequence[ArmFindings], noise: stats.Noise | None
) -> Iterator[Caution]:
    """The caution that another arm with the same changes, run at other values, has a loss lower by
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
                f"`{other.name}` has the same changes and a lower loss, {other.mean:.4f}, at "
                f"{named(other.runs.chosen or {})}, so the re-tune grid did not choose the best value",
            )
