"""The entries of an experiment log, from the findings of each sweep."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import stats
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import METRICS, UNITS, Results, tokens_per_s
from sweeps.ledger import BASELINE, Trial
from sweeps.report.experiments import Experiment, changes, confirmed, experiments, findings_under
from sweeps.report.next_steps import next_steps
from sweeps.report.observations import observations
from sweeps.selection import Metric, best_record, last_record, records
from sweeps.text import quantity, show
from tinylm import config as cfg

# Paths that must be equal in two experiments, as must the corpus, to compare their losses.
SHARED = ("budget.", "eval.tokens", "model.context_length")


@dataclass(frozen=True)
class Comparison:
    """The difference of an experiment from its baseline, paired by seed."""

    metric: str
    seeds: int  # that finished in both
    runs: int
    chosen: bool  # whether the values were chosen by these losses
    difference: float
    unit: str
    percent: float  # difference in percent of the baseline's mean loss
    low: float | None  # 95% interval, in percent
    high: float | None

    @property
    def words(self) -> str:
        """The difference in percent with its 95% interval; one seed has no interval."""
        size = f"{self.percent:+.2f}% {self.metric}"
        size += ", at values chosen by the same losses" * self.chosen
        if self.low is None:
            return f"{size} (one seed: no interval)"
        interval = f"{self.low:+.2f}% to {self.high:+.2f}%"
        lost = f" of {self.runs}" if self.seeds < self.runs else ""
        return f"{size} (95% interval {interval}, {self.seeds}{lost} seeds)"


@dataclass(frozen=True)
class Entry:
    """The content of one experiment in the log."""

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
    train_loss: float | None  # mean over the finished runs, like the next two
    val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    hours: float | None  # median
    tokens_per_s: float | None  # median
    comparison: Comparison | None
    no_comparison: str  # why there is no comparison
    verdict: str
    patterns: str
    observations: list[str]
    next_steps: list[str]


def entries_under(folder: Path) -> list[Entry]:
    """The experiments of all sweeps in a folder."""
    return entries_of(findings_under(folder))


def entries_of(all_findings: Sequence[SearchFindings | StudyFindings]) -> list[Entry]:
    """The log entries of the experiments of sweeps."""
    return [_entry(one) for one in experiments(all_findings)]


def _entry(one: Experiment) -> Entry:
    results, finished, ends = one.results, one.finished, one.ends
    first, alike = one.runs[0], one.are_alike
    best = min(
        (record for trial in finished if (record := best_record(trial)) is not None),
        key=lambda record: record.val_loss,
        default=None,
    )
    speeds = [speed for trial in finished if (speed := tokens_per_s(trial))]
    why_not = "" if one.is_baseline else _no_comparison(one)
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
            for path, (was, now) in changes(one.base, first.config).items()
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
        comparison=(None if one.is_baseline or why_not else _comparison(one)),
        no_comparison=why_not,
        verdict=one.arm.verdict.words if one.arm and not one.is_baseline else "",
        patterns=_patterns(one.runs),
        observations=[*observations(one), *_cautions(one)],
        next_steps=list(next_steps(one)),
    )


def _cautions(one: Experiment) -> Iterator[str]:
    """The caveats of an arm's comparison with its baseline."""
    for caution in one.arm.cautions if one.arm is not None else ():
        yield f"Caveat: {caution.text}."


def _value(value: Any) -> str:
    return "none" if value is None else show(value)


def configuration(trial: Trial) -> list[str]:
    """A whole config in the template's words, one line per setting."""
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
        f"Dataset: {corpus} (vocabulary of {model.vocab_size:,} tokens; digest of documents, split and "
        f"vocabulary: {trial.corpus})",
    ]


def _patterns(runs: Sequence[Trial]) -> str:
    """The problems in the curves of the runs, by kind."""
    begun = [trial for trial in runs if trial.curve or trial.status in {"diverged", "failed"}]
    kinds = Counter(kind for trial in begun if (kind := outcome(trial)))
    total = quantity(len(begun), "run")
    found = ", ".join(f"{number} of {total} {kind}" for kind, number in kinds.items())
    return found or "no run spiked, diverged or got stuck"


def _is_chosen(one: Experiment) -> bool:
    """Whether the values of the runs were chosen by these losses."""
    found = one.findings
    chosen = found.selection if isinstance(found, SearchFindings) else None
    return chosen is not None and chosen.among > 1 and list(one.runs) != confirmed(one.results)


def _begun(results: Results, runs: Sequence[Trial]) -> str:
    """The date of the first measurement of any run; without one, the date when the sweep began."""
    times = [records(trial)[0].time for trial in runs if trial.curve]
    return min(times, default=results.begun)[:10]


def _no_comparison(one: Experiment) -> str:
    """Why an experiment can't be compared with its baseline; empty if it can."""
    results, finished = one.results, one.finished
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
        there = (
            "the baseline"
            if results.is_study or not results.swept
            else "the run at the base config's values"
        )
        return f"none ({there} did not finish on the same seeds)"
    return ""


def _ended(trials: Sequence[Trial]) -> set[int]:
    """The seeds of the finished trials."""
    return {trial.seed for trial in trials if trial.status == "finished"}


def _comparison(one: Experiment) -> Comparison:
    """The difference from the baseline, paired by the seeds that finished in both."""
    metric = one.results.metric
    own, base = _final_losses(one.runs, metric), _final_losses(one.against, metric)
    seeds = [seed for seed in own if seed in base]
    effect = stats.effect([own[seed] - base[seed] for seed in seeds])
    share = 100 / statistics.fmean(base[seed] for seed in seeds)
    return Comparison(
        metric=METRICS[metric],
        seeds=len(seeds),
        runs=len(one.runs),
        chosen=_is_chosen(one),
        difference=effect.mean,
        unit=UNITS[metric],
        percent=effect.mean * share,
        low=None if effect.low is None else effect.low * share,
        high=None if effect.high is None else effect.high * share,
    )


def _final_losses(runs: Sequence[Trial], metric: Metric) -> Mapping[int, float]:
    """Final losses of the finished runs, by seed."""
    return {
        trial.seed: end.loss(metric)
        for trial in runs
        if trial.status == "finished" and (end := last_record(trial)) is not None
    }
