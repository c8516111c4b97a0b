"""The experiments of sweeps: each is a config with its runs, and its difference from the runs that it is
compared with.

In a study, every settled arm is an experiment. Any other sweep is one experiment, its best values.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps import stats
from sweeps.findings.arms import ArmFindings
from sweeps.findings.compute import Throughput, throughput
from sweeps.findings.doubts import Doubt, doubts
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.optimism import confirmed
from sweeps.findings.results import METRICS, UNITS, Results, tokens_per_s
from sweeps.findings.trends import CutShort, Gap, Slope, cut_short, gap, slope
from sweeps.ledger import AT_TARGET, BASELINE, Trial
from sweeps.outcomes import Overfit, outcome, overfit
from sweeps.selection import (
    NO_CHANGE,
    Measured,
    Metric,
    best_record,
    last_record,
    losses_by_seed,
    predicts,
)
from sweeps.text import percent
from tinylm import config as cfg

Term = Literal[
    "metric", "text", "tokenizer", "budget", "validation tokens", "validation blocks", "end"
]


@dataclass(frozen=True)
class Terms:
    """What two experiments must have in common so that their losses can be compared."""

    metric: Metric
    corpus: str  # digest of documents, split and vocabulary
    text: Mapping[str, Any]  # the settings of the text and its split
    vocabulary: int
    budget: Mapping[str, Any]
    validation_tokens: int
    block: int  # tokens of a block of them, which is cut into windows; see `predicts`
    is_whole: bool  # whether the run went on to the end of its budget, past any target

    def differing(self, other: "Terms") -> tuple[Term, ...]:
        """The terms that keep the losses from being compared; none if they can be.

        Bits per byte can be compared between tokenizers, nats per token can't.
        """
        differs: dict[Term, bool] = {
            "metric": self.metric != other.metric,
            "text": self.corpus != other.corpus
            and (self.text != other.text or self.vocabulary == other.vocabulary),
            "tokenizer": self.vocabulary != other.vocabulary
            and {self.metric, other.metric} != {"bits_per_byte"},
            "budget": self.budget != other.budget,
            "validation tokens": self.validation_tokens != other.validation_tokens,
            "validation blocks": self.block != other.block,
            "end": not (self.is_whole and other.is_whole),
        }
        return tuple(term for term, is_other in differs.items() if is_other)


def terms(trial: Trial, metric: Metric) -> Terms:
    """The terms on which the losses of a trial can be compared."""
    tokens, block = predicts(trial.config)
    return Terms(
        metric=metric,
        corpus=trial.corpus,
        text=trial.config["data"],
        vocabulary=trial.value("model.vocab_size"),
        budget=trial.config["budget"],
        validation_tokens=tokens,
        block=block,
        is_whole=trial.how != AT_TARGET,
    )


def comparable(all_terms: Iterable[Terms]) -> list[int]:
    """The number of each one's group, from 0: losses can be compared within a group only."""
    firsts: list[Terms] = []
    numbers = []
    for one in all_terms:
        alike = (n for n, first in enumerate(firsts) if not one.differing(first))
        numbers.append(next(alike, len(firsts)))
        firsts += [one] if numbers[-1] == len(firsts) else []
    return numbers


@dataclass(frozen=True)
class Experiment:
    """A config with its runs, and the runs it is compared with."""

    findings: SearchFindings | StudyFindings  # of its sweep
    name: str
    why: str  # hypothesis or question
    base: dict[str, Any]  # config that the changes are from
    runs: Sequence[Trial]  # of one config; if no values finished, all trials
    against: Sequence[Trial]  # runs of the baseline; empty if there is none or this is the baseline
    is_baseline: bool
    whole: bool = True  # whether the log shows the full configuration
    baseline: str = ""  # the sweep it is compared with, if that is another sweep
    arm: ArmFindings | None = None  # its findings in a study
    has_twin: bool = False  # whether another arm has the same changes and other values

    @property
    def results(self) -> Results:
        """Its sweep."""
        return self.findings.results

    @property
    def terms(self) -> Terms:
        """The terms on which its losses can be compared."""
        return terms(self.runs[0], self.results.metric)

    @property
    def flops(self) -> int:
        """The training FLOPs of its longest run."""
        own = self.runs if self.are_alike else self.runs[:1]
        return max(trial.tokens for trial in own) * self.runs[0].flops_per_token

    @property
    def finished(self) -> list[Trial]:
        """The runs that finished."""
        return [trial for trial in self.runs if trial.status == "finished"]

    @property
    def ends(self) -> list[Measured]:
        """The last records of the runs that finished."""
        return [record for trial in self.finished if (record := last_record(trial)) is not None]

    @property
    def best(self) -> Measured | None:
        """The record with the lowest validation loss of any run that finished."""
        found = [record for trial in self.finished if (record := best_record(trial)) is not None]
        return min(found, key=lambda record: record.val_loss, default=None)

    @property
    def train_loss(self) -> float | None:
        """The mean final training loss of the runs that finished."""
        return statistics.fmean(end.train_loss for end in self.ends) if self.ends else None

    @property
    def val_loss(self) -> float | None:
        """The mean final validation loss of the runs that finished."""
        return statistics.fmean(end.val_loss for end in self.ends) if self.ends else None

    @property
    def bits_per_byte(self) -> float | None:
        """The mean final validation loss in bits per byte of the runs that finished."""
        return statistics.fmean(end.bits_per_byte for end in self.ends) if self.ends else None

    @property
    def seconds(self) -> float | None:
        """Median training seconds of the runs that finished."""
        return statistics.median(end.seconds for end in self.ends) if self.ends else None

    @property
    def tokens_per_s(self) -> float | None:
        """Median training tokens per second of the runs that finished."""
        speeds = [speed for trial in self.finished if (speed := tokens_per_s(trial))]
        return statistics.median(speeds) if speeds else None

    @property
    def throughput(self) -> Throughput | None:
        """The speed of the runs that finished, in FLOPs per second."""
        return throughput(self.results, self.finished)

    @property
    def spike(self) -> float | None:
        """How far the smoothed training loss of any finished run rose above its minimum, in nats; None
        if that is not known of every one of them."""
        spikes = [end.spike for end in self.ends if end.spike is not None]
        return max(spikes) if spikes and len(spikes) == len(self.finished) else None

    @property
    def slope(self) -> Slope | None:
        """The change of the validation loss over the last part of training."""
        return slope(self.finished)

    @property
    def gap(self) -> Gap | None:
        """The validation loss less the training loss; None if no run finished."""
        return gap(self.finished) if self.finished else None

    @property
    def overfitted(self) -> list[Overfit]:
        """The runs that overfitted."""
        return [one for trial in self.runs if (one := overfit(trial)) is not None]

    @property
    def cut_short(self) -> tuple[CutShort, ...]:
        """The trials of a search that were stopped while their loss fell faster than that of this, its
        best."""
        is_search = isinstance(self.findings, SearchFindings)
        return cut_short(self.results, self.runs[0]) if is_search and self.runs else ()

    @property
    def begun(self) -> list[Trial]:
        """The runs that were measured, diverged or failed."""
        ended = {"diverged", "failed"}
        return [trial for trial in self.runs if trial.curve or trial.status in ended]

    @property
    def outcomes(self) -> list[str]:
        """The problem of each run that had one."""
        return [kind for trial in self.begun if (kind := outcome(trial))]

    @property
    def date(self) -> str:
        """The date of the first record of any run; without one, the date when the sweep began."""
        times = [trial.first_measured for trial in self.runs if trial.curve]
        return min(times, default=self.results.begun)[:10]

    @property
    def is_chosen(self) -> bool:
        """Whether the values of the runs were chosen by these losses."""
        found = self.findings
        choice = found.answer.choice if isinstance(found, SearchFindings) else None
        return choice is not None and choice.among > 1 and not choice.is_confirmed

    @property
    def are_alike(self) -> bool:
        """Whether the runs differ by their seeds alone."""
        return all(trial.values == self.runs[0].values for trial in self.runs)


def experiments(all_findings: Sequence[SearchFindings | StudyFindings]) -> Iterator[Experiment]:
    """The experiments of sweeps; a sweep has none until one is settled.

    A sweep of a single config is compared with the first such sweep whose name begins with
    `baseline`.
    """
    searches = [found for found in all_findings if isinstance(found, SearchFindings)]
    single = [found for found in searches if not found.results.swept]
    names = [found.results.name for found in single]
    first = next((found for found in single if found.results.name.startswith(BASELINE)), None)
    for found in all_findings:
        if isinstance(found, StudyFindings):
            some = _of_arms(found)
        else:
            other = found.results.name in names and found is not first
            some = _of_search(found, first if other else None)
        yield from (one for one in some if one.runs)


def _of_config(found: SearchFindings) -> Sequence[Trial]:
    """The trials of the best values, ended or not. If none of these finished and nothing is left to
    run, all trials of the sweep."""
    trials = found.results.trials
    if found.winner:
        same = [trial for trial in trials if trial.values == found.winner[0].values]
        return [trial for trial in same if not trial.config["run"]["repeat"]]
    return [] if found.unfinished else trials


def _of_arms(found: StudyFindings) -> Iterator[Experiment]:
    results, arms = found.results, found.settled
    compared = {} if found.comparison is None else {arm.name: arm for arm in found.comparison.arms}
    changed = [arm.changes for arm in arms]
    base = list(arms[0].runs.values()) if arms and arms[0].is_baseline else []
    for arm in arms:
        yield Experiment(
            found,
            name=f"{results.name}/{arm.name}",
            why=results.question if arm.is_baseline else arm.hypothesis,
            base=results.base if arm.is_baseline or not base else base[0].config,
            runs=list(arm.runs.values()) or arm.grid,
            against=[] if arm.is_baseline else base,
            is_baseline=arm.is_baseline,
            whole=arm.is_baseline,
            arm=compared.get(arm.name),
            has_twin=changed.count(arm.changes) > 1,
        )


def _of_search(found: SearchFindings, baseline: SearchFindings | None) -> Iterator[Experiment]:
    """The best values of a sweep, compared with the base config's values if those finished too, or
    with another sweep."""
    results, runs = found.results, _of_config(found)
    if baseline is not None:
        yield Experiment(
            found,
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
    own = {t.trial: t for t in results.trials if not changes(results.base, t.config)}
    are_own = all(trial.trial in own for trial in runs)
    is_base = are_own and (bool(results.swept) or results.name.startswith(BASELINE))
    against = [] if are_own else list(own.values())
    runs = confirmed(results) or runs
    yield Experiment(found, results.name, results.question, results.base, runs, against, is_base)


def changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differing paths of model, data and training, with both values."""
    before, after = cfg.flatten(there), cfg.flatten(here)
    return {
        path: (before.get(path), value)
        for path, value in after.items()
        if value != before.get(path) and path not in NO_CHANGE
    }


@dataclass(frozen=True)
class Comparison:
    """The difference of an experiment from its baseline, paired by seed."""

    metric: str
    seeds: int  # that finished in both
    runs: int
    chosen: bool  # whether the values were chosen by these losses
    doubts: tuple[Doubt, ...]  # about the losses
    difference: float
    unit: str
    percent: float  # difference in percent of the baseline's mean loss
    low: float | None  # its interval, in percent; None for one seed, and between looks
    high: float | None
    interval_words: str  # the kind of interval

    @property
    def words(self) -> str:
        """The difference in percent with its interval, if it has one, and the doubts."""
        return self._words(self.doubts)

    @property
    def measured(self) -> str:
        """The same without the doubts."""
        return self._words(())

    def _words(self, doubts: Sequence[Doubt]) -> str:
        size = f"{percent(self.percent)} {self.metric}"
        size += ", at values chosen by the same losses" * self.chosen
        size += "".join(f", and {doubt.words}" for doubt in doubts)
        lost = f" of {self.runs}" if self.seeds < self.runs else ""
        if self.low is None:
            return f"{size} ({'one seed' if self.seeds == 1 else f'{self.seeds}{lost} seeds so far'}: no interval)"
        interval = f"{percent(self.low)} to {percent(self.high)}"
        return f"{size} ({self.interval_words} {interval}, {self.seeds}{lost} seeds)"


@dataclass(frozen=True)
class Incomparable:
    """Why an experiment can't be compared with its baseline."""

    kind: Literal[
        "void",  # the change had no effect
        "no baseline",  # no run of a baseline
        "no run finished",
        "other terms",  # the losses are of another text, budget, ...
        "other seeds",  # no seed finished in both
    ]
    terms: tuple[Terms, Terms] | None = None  # its own and the baseline's, if they differ


def compared(one: Experiment) -> Comparison | Incomparable | None:
    """The difference from the baseline, paired by the seeds that finished in both; None for a baseline."""
    if one.is_baseline:
        return None
    why_not = _incomparable(one)
    if why_not is not None:
        return why_not
    metric = one.results.metric
    own, base = losses_by_seed(one.runs, metric), losses_by_seed(one.against, metric)
    seeds = [seed for seed in own if seed in base]
    effect, sweep = stats.effect([own[seed] - base[seed] for seed in seeds]), one.results.sweep
    if sweep.is_looked_at and one.arm is not None and one.arm.effect is not None:
        effect = one.arm.effect
    share = 100 / statistics.fmean(base[seed] for seed in seeds)
    return Comparison(
        metric=METRICS[metric],
        seeds=len(seeds),
        runs=len(one.runs),
        chosen=one.is_chosen,
        doubts=doubts(one.runs, one.against),
        difference=effect.mean,
        unit=UNITS[metric],
        percent=effect.mean * share,
        low=None if effect.low is None else effect.low * share,
        high=None if effect.high is None else effect.high * share,
        interval_words="95% interval" if one.arm is None else one.arm.interval_words,
    )


def _incomparable(one: Experiment) -> Incomparable | None:
    if one.arm is not None and one.arm.is_void:
        return Incomparable("void")
    if not one.against:
        return Incomparable("no baseline")
    if not one.finished:
        return Incomparable("no run finished")
    metric = one.results.metric
    own, base = (terms(trial, metric) for trial in (one.finished[0], one.against[0]))
    if own.differing(base):
        return Incomparable("other terms", (own, base))
    if not losses_by_seed(one.runs, metric).keys() & losses_by_seed(one.against, metric).keys():
        return Incomparable("other seeds")
    return None
