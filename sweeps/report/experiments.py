"""What an experiment log says of sweeps, from their findings.

Of a study every settled arm is an experiment, of another sweep the sweep with its best values.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import ledger, stats
from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import SearchFindings, StudyFindings, findings
from sweeps.findings.optimism import confirming
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    ENDINGS,
    METRICS,
    UNITS,
    Results,
    results_of,
    status_of,
    tokens_per_s,
)
from sweeps.ledger import BASELINE, Trial
from sweeps.selection import Measured, at, best_record, last_record, records
from sweeps.text import count, named, portable, show, tally
from tinylm import config as cfg

TAIL = 0.1  # of a training, in which it is asked whether the loss still falls
# Paths that change no loss, or only by the draw of a seed.
NO_CHANGE = {
    "run.seed", "run.repeat", "run.device", "run.threads", "run.checkpoint_every_tokens",
    "eval.every_tokens", "eval.batch_size",
}  # fmt: skip
# What two experiments must share, beside the corpus, for their losses to be compared.
SHARED = ("budget.", "eval.tokens", "model.context_length")


@dataclass(frozen=True)
class Experiment:
    """A config with its runs, and the runs that it is compared with."""

    name: str
    why: str  # hypothesis or question
    base: dict[str, Any]  # config that the changes are from
    runs: Sequence[Trial]  # of one config; where no values came to an end, all that was tried
    against: Sequence[Trial]  # the baseline's; empty where there is none, or this is it
    is_baseline: bool
    whole: bool = True  # whether its configuration is told in full
    baseline: str = ""  # the sweep that it is compared with, where that is another one
    arm: ArmFindings | None = None  # what its study finds of it
    has_twin: bool = False  # another arm has the same changes, and other values


@dataclass(frozen=True)
class Comparison:
    """The difference of an experiment from its baseline, paired by seed."""

    metric: str
    seeds: int  # that ended in both
    runs: int
    chosen: bool  # by these losses
    difference: float
    unit: str
    percent: float  # of the baseline's mean loss
    low: float | None  # 95% interval, in percent
    high: float | None

    @property
    def words(self) -> str:
        """The comparison in percent with its 95% interval; one seed has none."""
        size = f"{self.percent:+.2f}% {self.metric}"
        size += ", at values chosen by the same losses" * self.chosen
        if self.low is None:
            return f"{size} (one seed: no interval)"
        interval = f"{self.low:+.2f}% to {self.high:+.2f}%"
        lost = f" of {self.runs}" if self.seeds < self.runs else ""
        return f"{size} (95% interval {interval}, {self.seeds}{lost} seeds)"


@dataclass(frozen=True)
class Entry:
    """All that the log says of an experiment."""

    name: str
    sweep: str
    date: str  # of the first record
    why: str
    is_baseline: bool
    baseline: str
    configuration: list[str]
    changes: dict[str, tuple[str, str]]  # path -> before and after
    runs: int
    finished: int
    train_loss: float | None  # mean over the finished runs, as are the next two
    val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    hours: float | None  # median
    tokens_per_s: float | None  # median
    comparison: Comparison | None
    no_comparison: str  # why there is none
    verdict: str
    patterns: str
    observations: list[str]
    next_steps: list[str]


def findings_under(folder: Path) -> list[SearchFindings | StudyFindings]:
    """What is found in all sweeps in a folder, by when these began; what is damaged, or of configs
    that there are no more, is left out, and the log says so."""
    found = []
    for files in ledger.sweeps(folder):
        try:
            results = results_of(files.name, ledger.read(files))
            for trial in results.trials:
                cfg.validate(trial.config, trial.label)
        except (ledger.LedgerError, ValueError):
            continue
        found.append(results)
    return [findings(results) for results in sorted(found, key=lambda results: results.begun)]


def experiments_under(folder: Path) -> list[Entry]:
    """The experiments of all sweeps in a folder."""
    return experiments(findings_under(folder))


def experiments(all_findings: Sequence[SearchFindings | StudyFindings]) -> list[Entry]:
    """The experiments of sweeps, each with all that the log says of it; of a sweep none before any is
    settled.

    What runs one config alone is compared with the first of these whose name begins with `baseline`.
    """
    searches = [found for found in all_findings if isinstance(found, SearchFindings)]
    single = [found for found in searches if not found.results.swept]
    names = [found.results.name for found in single]
    first = next((found for found in single if found.results.name.startswith(BASELINE)), None)
    entries = []
    for found in all_findings:
        if isinstance(found, StudyFindings):
            some = _of_arms(found)
        else:
            other = found.results.name in names and found is not first
            some = _of_search(found, first if other else None)
        entries += [_entry(found, one) for one in some if one.runs]
    return entries


def _of_config(found: SearchFindings) -> Sequence[Trial]:
    """The trials of the best values, ended or not; those of the whole sweep where none of them has
    finished and nothing is left to do."""
    trials = found.results.trials
    if found.winner:
        same = [trial for trial in trials if trial.values == found.winner[0].values]
        return [trial for trial in same if not trial.config["run"]["repeat"]]
    return [] if found.unfinished else trials


def _of_arms(found: StudyFindings) -> Iterator[Experiment]:
    results, arms = found.results, found.settled
    compared = {} if found.comparison is None else {arm.name: arm for arm in found.comparison.arms}
    changes = [arm.changes for arm in arms]
    base = list(arms[0].runs.values()) if arms and arms[0].is_baseline else []
    for arm in arms:
        yield Experiment(
            name=f"{results.name}/{arm.name}",
            why=results.question if arm.is_baseline else arm.hypothesis,
            base=results.base if arm.is_baseline or not base else base[0].config,
            runs=list(arm.runs.values()) or arm.grid,
            against=[] if arm.is_baseline else base,
            is_baseline=arm.is_baseline,
            whole=arm.is_baseline,
            arm=compared.get(arm.name),
            has_twin=changes.count(arm.changes) > 1,
        )


def _of_search(found: SearchFindings, baseline: SearchFindings | None) -> Iterator[Experiment]:
    """The best values of a sweep, against the base's own where these came to their end too, or
    against those of another one."""
    results, runs = found.results, _of_config(found)
    if baseline is not None:
        yield Experiment(
            results.name,
            results.question,
            baseline.results.base,
            runs,
            _of_config(baseline),
            is_baseline=False,
            whole=False,
            baseline=baseline.results.name,
        )
        return
    own = [trial for trial in results.trials if not _changes(results.base, trial.config)]
    is_base = results.name.startswith(BASELINE) if not results.swept else list(runs) == own
    runs = _confirmed(results) or runs
    against = [] if is_base else own
    yield Experiment(results.name, results.question, results.base, runs, against, is_base)


def _confirmed(results: Results) -> list[Trial]:
    """The runs of the best values on fresh seeds, once these have ended."""
    again = confirming(results)
    return again if all(status_of(trial) in ENDINGS for trial in again) else []


def _changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The paths of model, data and training that differ, with both values."""
    before, after = cfg.flatten(there), cfg.flatten(here)
    return {
        path: (before.get(path), value)
        for path, value in after.items()
        if value != before.get(path) and path not in NO_CHANGE
    }


# Entries ----------------------------------------------------------------------------------------


def _ends(finished: Sequence[Trial]) -> list[Measured]:
    """The last records of trials that finished."""
    return [record for trial in finished if (record := last_record(trial)) is not None]


def _entry(found: SearchFindings | StudyFindings, one: Experiment) -> Entry:
    results = found.results
    finished = [trial for trial in one.runs if trial.status == "finished"]
    first = one.runs[0]
    alike = _are_alike(one.runs)
    ends = _ends(finished)
    best = min(
        (record for trial in finished if (record := best_record(trial)) is not None),
        key=lambda record: record.val_loss,
        default=None,
    )
    speeds = [speed for trial in finished if (speed := tokens_per_s(trial))]
    why_not = "" if one.is_baseline else _no_comparison(results, one, finished)
    told = one.arm.runs.changes if one.arm is not None else {}
    return Entry(
        name=one.name,
        sweep=results.name,
        date=_begun(results, one.runs),
        why=one.why,
        is_baseline=one.is_baseline,
        baseline=one.baseline,
        configuration=configuration(first) if one.whole and alike else [],
        changes={
            path: (_value(was), _value(now))
            for path, (was, now) in _changes(one.base, first.config).items()
            if alike or path in told
        },
        runs=len(one.runs),
        finished=len(finished),
        train_loss=statistics.fmean(end.train_loss for end in ends) if ends else None,
        val_loss=statistics.fmean(end.val_loss for end in ends) if ends else None,
        best_val_loss=best and best.val_loss,
        best_step=best and best.step,
        hours=statistics.median(end.seconds for end in ends) / 3600 if ends else None,
        tokens_per_s=statistics.median(speeds) if speeds else None,
        comparison=(
            None
            if one.is_baseline or why_not
            else _comparison(results, finished, one, chosen=_is_chosen(found, one.runs))
        ),
        no_comparison=why_not,
        verdict=one.arm.verdict.words if one.arm and not one.is_baseline else "",
        patterns=_patterns(one.runs),
        observations=[*_observations(found, one, finished), *_cautions(one)],
        next_steps=list(_next_steps(found, one)),
    )


def _are_alike(runs: Sequence[Trial]) -> bool:
    """Whether runs differ by their seeds alone."""
    return all(trial.values == runs[0].values for trial in runs)


def _cautions(one: Experiment) -> Iterator[str]:
    """What to be careful about when an arm is compared with its baseline."""
    for caution in one.arm.cautions if one.arm is not None else ():
        yield f"Caveat: {caution.text}."


def _value(value: Any) -> str:
    return "nothing" if value is None else show(value)


def configuration(trial: Trial) -> list[str]:
    """A whole config in the template's words, a line each."""
    config = cfg.validate(trial.config, trial.label)
    model, optim, budget = config.model, config.optim, config.budget
    end = (
        f"{budget.seconds:g} seconds"
        if budget.seconds is not None
        else f"{config.steps:,} iterations"
    )
    decay = f"{optim.schedule} decay"
    if optim.schedule == "wsd":
        decay = f"warm-up-stable-decay with a decay over the last {optim.decay_fraction:.0%}"
    warmup = (
        f"a warm-up over {optim.warmup_fraction:.0%} of the time"
        if budget.seconds is not None
        else f"{round(config.steps * optim.warmup_fraction)}-step warm-up"
    )
    corpus = f"{config.data.corpus} {config.data.path}" if config.data.path else config.data.corpus
    lowest = optim.lr * optim.lr_final_fraction
    clip = "none" if optim.clip_norm == "none" else f"gradient clipping at {optim.clip_norm:g}"
    return [
        f"Model: {model.n_layers} layers, {model.d_model} hidden dim, {model.n_heads} heads, "
        f"{model.d_ff} FFN dim ({trial.params:,} parameters); norm {model.norm}, position "
        f"{model.position}, FFN {model.ffn}",
        f"Training: {end}, batch size {optim.batch_size}, context length {model.context_length}",
        f"Learning rate: {optim.lr:g} (peak), {lowest:g} (min), {warmup}, {decay}",
        f"Optimizer: AdamW (β1={optim.beta1:g}, β2={optim.beta2:g}, weight "
        f"decay={optim.weight_decay:g})",
        f"Regularization: {clip}",
        f"Dataset: {corpus} ({model.vocab_size:,} tokens in the vocabulary; documents, "
        f"split and vocabulary: {trial.corpus})",
    ]


def _patterns(runs: Sequence[Trial]) -> str:
    """What went wrong in the curves of the runs, by its class."""
    begun = [trial for trial in runs if trial.curve or trial.status in {"diverged", "failed"}]
    kinds = Counter(kind for trial in begun if (kind := outcome(trial)))
    found = ", ".join(f"{number} of {len(begun)} {kind}" for kind, number in kinds.items())
    return found or "no run spiked, diverged or got stuck"


def _is_chosen(found: SearchFindings | StudyFindings, runs: Sequence[Trial]) -> bool:
    """Whether the losses of these runs are those that their values were chosen by."""
    chosen = found.selection if isinstance(found, SearchFindings) else None
    return chosen is not None and chosen.among > 1 and list(runs) != _confirmed(found.results)


def _begun(results: Results, runs: Sequence[Trial]) -> str:
    """The day on which the first of the runs was first measured; else that of the sweep's beginning."""
    times = [records(trial)[0].time for trial in runs if trial.curve]
    return min(times, default=results.begun)[:10]


def _no_comparison(results: Results, one: Experiment, finished: Sequence[Trial]) -> str:
    """Why an experiment can't be compared with its baseline; empty where it can."""
    if one.arm is not None and one.arm.is_void:
        return "none (the change had no effect)"
    if not one.against:
        return (
            f"none (no experiment has a name that begins with {BASELINE})"
            if not results.is_study and not results.swept
            else "none (the baseline has not been run)"
        )
    if not finished:
        return "none (no run finished)"
    own, base = (cfg.flatten(trial.config) for trial in (finished[0], one.against[0]))
    other = [path for path in own if path.startswith(SHARED) and own[path] != base[path]]
    if finished[0].corpus != one.against[0].corpus:
        other.append("the corpus")
    if other:
        differ = "differs" if len(other) == 1 else "differ"
        return f"none ({' and '.join(other)} {differ}, so the losses are not comparable)"
    if not {trial.seed for trial in finished} & _ended(one.against):
        there = "the baseline" if results.is_study or not results.swept else "the base's own values"
        return f"none ({there} did not finish on the same seeds)"
    return ""


def _ended(trials: Sequence[Trial]) -> set[int]:
    """The seeds of those that came to their ends."""
    return {trial.seed for trial in trials if trial.status == "finished"}


def _comparison(
    results: Results, finished: Sequence[Trial], one: Experiment, *, chosen: bool
) -> Comparison:
    """The difference from the baseline, paired by those seeds that came to an end in both."""
    base = _final_losses(results, [t for t in one.against if t.status == "finished"])
    own = _final_losses(results, finished)
    seeds = [seed for seed in own if seed in base]
    effect = stats.effect([own[seed] - base[seed] for seed in seeds])
    share = 100 / statistics.fmean(base[seed] for seed in seeds)
    return Comparison(
        metric=METRICS[results.metric],
        seeds=len(seeds),
        runs=len(one.runs),
        chosen=chosen,
        difference=effect.mean,
        unit=UNITS[results.metric],
        percent=effect.mean * share,
        low=None if effect.low is None else effect.low * share,
        high=None if effect.high is None else effect.high * share,
    )


def _final_losses(results: Results, finished: Sequence[Trial]) -> Mapping[int, float]:
    """Final losses by seed."""
    return {
        trial.seed: end.loss(results.metric)
        for trial, end in zip(finished, _ends(finished), strict=True)
    }


# Observations -------------------------------------------------------------------------------------


def _observations(
    found: SearchFindings | StudyFindings, one: Experiment, finished: Sequence[Trial]
) -> Iterator[str]:
    """Sentences of fact on smoothness, overfitting, the gap, and what went wrong."""
    if not _are_alike(one.runs):
        ends = tally(outcome(trial) or status_of(trial) for trial in one.runs)
        yield f"None of the {len(one.runs)} trials finished: {ends}."
        return
    for trial in one.runs:
        kind = outcome(trial)
        if kind:
            yield f"Seed {trial.seed}: {kind}" + (f" ({trial.reason})." if trial.reason else ".")
    going = len([trial for trial in one.runs if trial.status not in {"finished", "diverged"}])
    if going:
        yield f"{going} of {len(one.runs)} runs have not finished."
    if not finished:
        return
    yield _count_of_seeds(finished)
    if isinstance(found, SearchFindings):
        yield from _chosen(found)
    spikes = [spike for end in _ends(finished) if (spike := end.spike) is not None]
    if len(spikes) == len(finished):
        yield (
            "After warm-up, the smoothed training loss never rose more than "
            f"{max(0.01, *spikes):.2f} nats above its minimum."
        )
    yield from _slope(finished)
    yield from _gap(finished)
    yield from _throughput(found.results, finished)
    if isinstance(found, SearchFindings) and found.stopped:
        yield (
            f"{len(found.stopped)} of {len(found.results.trials)} trials were stopped early; "
            f"{_known_ends(found)}."
        )


def _count_of_seeds(finished: Sequence[Trial]) -> str:
    if len(finished) == 1:
        return f"One seed ({finished[0].seed}): a difference smaller than the seed noise means nothing."
    losses = [end.val_loss for end in _ends(finished)]
    return (
        f"{len(finished)} seeds: final validation losses from {min(losses):.4f} to "
        f"{max(losses):.4f}."
    )


def _chosen(found: SearchFindings) -> Iterator[str]:
    """That the losses of a search's best are those it was chosen by, or that they are not."""
    chosen = found.selection
    if chosen is None or chosen.among < 2:
        return
    if chosen.confirmed:
        yield f"It is the best of {chosen.among}; these losses are from fresh seeds."
    elif chosen.optimism is not None and chosen.optimism < 5e-5:
        yield (
            f"It is the best of {chosen.among}, chosen by these losses. Leaving out any one seed gives the "
            "same choice."
        )
    elif chosen.optimism is not None:
        yield (
            f"It is the best of {chosen.among}, chosen by these losses. Expect new seeds to end "
            f"{chosen.optimism:.4f} higher."
        )
    else:
        yield (
            f"It is the best of {chosen.among}, chosen by this loss, so it won partly by luck; one seed "
            "cannot say how much."
        )


def _slope(finished: Sequence[Trial]) -> Iterator[str]:
    """How the validation loss moved over the last tenth, or from the last record before that, as the
    mean over the seeds."""
    falls, spans = [], []
    for trial in finished:
        *_, end = curve = records(trial)
        before = [record for record in curve if record.tokens <= (1 - TAIL) * end.tokens]
        if before:
            falls.append(end.val_loss - before[-1].val_loss)
            spans.append(1 - before[-1].tokens / end.tokens)
    if falls:
        mean = statistics.fmean(falls)
        how = "fell" if mean < 0 else "rose"
        yield (
            f"Over the last {max(spans):.0%} of training, the validation loss {how} by {abs(mean):.4f} "
            "nats."
        )


def _gap(finished: Sequence[Trial]) -> Iterator[str]:
    """Validation less training loss at the end and halfway."""
    gaps = [(_gap_at(trial, 0.5), _gap_at(trial, 1.0)) for trial in finished]
    half = [gap for gap, _ in gaps if gap is not None]
    end = statistics.fmean(gap for _, gap in gaps if gap is not None)
    text = (
        f"At the end, the validation loss is {_above(end)} the training loss (its mean since the "
        "previous record)."
    )
    if half:
        mean = statistics.fmean(half)
        text += f" Halfway it was {_above(mean)} it."
        widens = end > 0 and end - mean > 0
        text += f" The gap {'widens' if widens else 'does not widen'}."
    yield text


def _throughput(results: Results, finished: Sequence[Trial]) -> Iterator[str]:
    """The FLOPs a second of the trainings, and their share of what a matrix product reaches."""
    rates = [speed * trial.flops_per_token for trial in finished if (speed := tokens_per_s(trial))]
    if not rates:
        return
    rate = statistics.median(rates)
    machines = [session.get("machine") or {} for session in results.sweep.sessions]
    peaks = [peak for session in results.sweep.sessions if (peak := session.get("product_flops"))]
    peak = max(peaks) if peaks and all(one == machines[0] for one in machines) else None
    slots = max((int(session.get("slots") or 0) for session in results.sweep.sessions), default=0)
    # More than all of it was measured while something else ran.
    share = (
        f", {rate / peak:.0%} of this machine's matmul peak ({_flops_per_s(peak)})"
        if peak is not None and peak >= rate
        else ""
    )
    beside = f" Up to {slots} trials ran at once." if slots > 1 else ""
    yield f"Each trial ran at {_flops_per_s(rate)}{share}.{beside}"


def _flops_per_s(rate: float) -> str:
    """FLOPs per second with a unit: 30.5 GFLOP/s."""
    short = count(rate)
    digits = short.rstrip("kMGTPE")
    return f"{digits} {short[len(digits) :]}FLOP/s"


def _known_ends(found: SearchFindings) -> str:
    """What is known of the final losses of stopped trials."""
    if found.audit is None:
        return "their final losses are not known"
    return f"an audit trained {found.audit.audited} of them to the end"


def _above(gap: float) -> str:
    return f"{abs(gap):.4f} nats {'above' if gap >= 0 else 'below'}"


def _gap_at(trial: Trial, share: float) -> float | None:
    curve = records(trial)
    until = [record for record in curve if record.tokens <= share * curve[-1].tokens]
    return until[-1].val_loss - until[-1].train_loss if until else None


# Next steps -------------------------------------------------------------------------------------


def _next_steps(found: SearchFindings | StudyFindings, one: Experiment) -> Iterator[str]:
    """What to try next, by the rules of docs/experiment_log.md."""
    if isinstance(found, SearchFindings):
        yield from _next_of_search(found, one)
    elif one.arm is not None:
        yield from _next_of_arm(one, one.arm)


def _next_of_search(found: SearchFindings, one: Experiment) -> Iterator[str]:
    if found.unfinished:
        planned = len(found.results.trials)
        step = f"Resume: {len(found.unfinished)} of {planned} trials have no result yet."
        command = portable(found.results.sweep.session.get("command", ""))
        yield f"{step} Run {command}." if command else step
    for best in found.best:
        if best.edge:
            more = " and ".join(show(value) for value in best.next)
            step = f"{best.path}: the best value, {show(best.best)}, is at the {best.edge} edge of what was tried."
            yield (
                f"{step} Add {more} under space.{best.path} and run the sweep again."
                if more
                else step
            )
    yield from _cut_short(found.results, one.runs)
    if len(one.runs) == 1:
        values = named(one.runs[0].values)
        yield (
            f"More seeds: {values} was run with one seed. List more under seeds and run the sweep again."
            if values
            else "More seeds: it was run with one seed. Run it under another name with --set run.seed=1."
        )


def _next_of_arm(one: Experiment, arm: ArmFindings) -> Iterator[str]:
    for caution in arm.cautions:
        if caution.kind in {"grid edge", "grid missed"}:
            yield f"Re-tune: {caution.text}."
    if not arm.runs.retuned and not one.has_twin and not one.is_baseline:
        yield (
            "Re-tune: it ran at the baseline's values, which may not be its best. Add retune to the space "
            "and run the sweep again."
        )
    if arm.verdict.seeds is not None:
        yield f"More seeds: {arm.verdict.detail}. List more under seeds and run the sweep again."


def _cut_short(results: Results, best: Sequence[Trial]) -> Iterator[str]:
    """The stopped trials whose loss fell faster than that of the best, where they were stopped."""
    early = []
    for trial in results.having("stopped") if best else []:
        if len(trial.curve) < 2 or results.sweep.audit(trial.trial) is not None:
            continue
        before, last = records(trial)[-2:]
        best_before, best_last = (at(best[0], record.tokens) for record in (before, last))
        if best_before is None or best_last is None:
            continue
        metric = results.metric
        fall = before.loss(metric) - last.loss(metric)
        best_fall = best_before.loss(metric) - best_last.loss(metric)
        if fall > best_fall:
            early.append(
                f"{trial.label} (at {last.tokens:,} tokens {fall:.4f} against {best_fall:.4f})"
            )
    if early:
        trials = "1 trial was" if len(early) == 1 else f"{len(early)} trials were"
        yield (
            f"Audit: {trials} stopped while improving faster than the best trial, since the previous "
            f"record: {', '.join(early)}. Run the sweep again with --audit 1."
        )
