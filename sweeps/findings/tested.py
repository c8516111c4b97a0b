"""The loss on the test text, which a sweep reads once, when it has ended, and by how much the validation text
flatters what was chosen by it.

No two texts are equally hard. So the rise of a loss from validation text to test text is compared with that
of the baseline, or in a search with that of the base config: what is left is what the choice has gained on
the validation text alone.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sweeps import stats
from sweeps.findings.arms import ArmFindings
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.optimism import confirmed
from sweeps.findings.results import Results
from sweeps.ledger import Row, Trial, may_have_dropped
from sweeps.selection import Metric, last_record
from tinylm import config as cfg


@dataclass(frozen=True)
class Losses:
    """The mean losses of runs on both texts."""

    runs: int
    validation: float
    test: float


@dataclass(frozen=True)
class ArmOnTestText:
    """The mean difference of an arm from the baseline on both texts, over the same seeds.

    The looks at the validation text decided how many seeds there are. So the intervals are wider than t
    intervals by as much as that of the verdict.
    """

    arm: str
    validation: float
    test: stats.Effect
    flattery: stats.Effect
    level: int  # of the intervals, in percent, as that of the verdict


@dataclass(frozen=True)
class OnTestText:
    """What is known of the test text. Flattery is by how much the validation text flatters a choice."""

    tokens: int  # that were read
    went_on: bool  # whether the sweep went on after it was read, or now chooses other runs
    read_once: bool  # whether this sweep read it at its end alone, as far as a ledger says that was repaired
    unread: int  # runs that have not read it
    chosen: Losses | None = None  # of a search: the values that it chose
    base: Losses | None = None  # of a search: its base config, if it was trained and not chosen
    flattery: stats.Effect | None = None  # of a search
    arms: tuple[ArmOnTestText, ...] = ()  # of a study
    other_text: bool = False  # of a search: whether the base config read another text

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


@dataclass(frozen=True)
class SearchRuns:
    """The finished runs of a search that read the test text."""

    chosen: tuple[Trial, ...]  # of the best values, from the search
    fresh: tuple[Trial, ...]  # of the same on fresh seeds, if these are what the search quotes
    base: tuple[Trial, ...]  # at the values of the base config, if these are others
    is_base: bool  # whether the chosen values are those of the base config

    @property
    def every(self) -> tuple[Trial, ...]:
        """All of them."""
        return (*self.chosen, *self.fresh, *self.base)


def search_runs(results: Results, best: Sequence[Trial]) -> SearchRuns:
    """The runs of a search that read its test text, with the runs of its best values."""
    chosen = _with_test_text(best)
    fresh = _with_test_text(confirmed(results)) if any(t.role == "search" for t in chosen) else ()
    base = cfg.flatten(results.base)

    def is_base(trial: Trial) -> bool:
        return all(value == base[path] for path, value in trial.values.items())

    if any(map(is_base, chosen)):
        return SearchRuns(chosen, fresh, (), is_base=True)
    others = [trial for trial in results.audited(results.trials) if is_base(trial)]
    return SearchRuns(chosen, fresh, _with_test_text(others) if chosen else (), is_base=False)


def study_runs(compared: ArmsComparison | None) -> tuple[Trial, ...]:
    """The runs of a study that read its test text: those whose losses are compared."""
    if compared is None:
        return ()
    base, *arms = compared.arms
    seeds = {seed for arm in arms for seed in arm.paired}
    every = [run for seed, run in base.runs.runs.items() if seed in seeds]
    every += [arm.runs.runs[seed] for arm in arms for seed in arm.paired]
    return tuple({run.trial: run for run in _with_test_text(every)}.values())


def _with_test_text(runs: Sequence[Trial]) -> tuple[Trial, ...]:
    """The finished ones of runs, without those whose corpus has no test text."""
    return tuple(
        run for run in runs if run.status == "finished" and run.value("data.test_fraction")
    )


def tested_search(results: Results, runs: SearchRuns) -> OnTestText | None:
    """What is known of the test text of a search; None if none of its runs has read it."""
    found = _begun(results, runs.every)
    if found is None:
        return None
    other_text = len({run.corpus for run in runs.every}) > 1
    return replace(
        found,
        chosen=_losses(results, runs.fresh or runs.chosen),
        base=_losses(results, runs.base),
        flattery=None
        if other_text
        else _flattery(_both(results, runs.chosen), _both(results, runs.base)),
        other_text=other_text,
    )


def tested_study(results: Results, compared: ArmsComparison | None) -> OnTestText | None:
    """What is known of the test text of a study; None if none of its runs has read it."""
    found = _begun(results, study_runs(compared))
    if found is None or compared is None:
        return None
    base, *arms = compared.arms
    each = (_arm(results, arm, base) for arm in arms)
    return replace(found, arms=tuple(one for one in each if one is not None))


def _arm(results: Results, arm: ArmFindings, base: ArmFindings) -> ArmOnTestText | None:
    """The differences of an arm on both texts; None if no seed of it is known on the test text."""
    own, other = (
        _both(results, [one.runs.runs[seed] for seed in arm.paired]) for one in (arm, base)
    )
    flattery = _flattery(own, other)
    if flattery is None:
        return None
    seeds = [seed for seed in own if seed in other]
    validation = statistics.fmean(own[seed].validation - other[seed].validation for seed in seeds)
    test = stats.effect([own[seed].test - other[seed].test for seed in seeds])
    if results.sweep.is_looked_at and arm.effect is not None:
        test, flattery = (stats.widened(one, arm.effect) for one in (test, flattery))
    return ArmOnTestText(arm.name, validation, test, flattery, arm.level)


@dataclass(frozen=True)
class _Both:
    """The losses of a run on both texts."""

    validation: float
    test: float

    @property
    def rise(self) -> float:
        return self.test - self.validation


def _both(results: Results, runs: Sequence[Trial]) -> dict[int, _Both]:
    """The losses of runs on both texts, by seed, without those that are not known on both, or not finite."""
    field, found = _FIELDS[results.metric], {}
    for run in runs:
        end, row = last_record(run), results.sweep.tests.get(run.trial)
        if end is not None and row is not None and row[field] is not None:
            found[run.seed] = _Both(end.loss(results.metric), row[field])
    return found


_FIELDS: Mapping[Metric, str] = {"val_loss": "loss", "bits_per_byte": "bits_per_byte"}


def _losses(results: Results, runs: Sequence[Trial]) -> Losses | None:
    """The mean losses of runs; None if none is known."""
    both = _both(results, runs).values()
    if not both:
        return None
    mean = statistics.fmean
    return Losses(len(both), mean(one.validation for one in both), mean(one.test for one in both))


def _flattery(own: Mapping[int, _Both], base: Mapping[int, _Both]) -> stats.Effect | None:
    """By how much more the losses of one rise from validation text to test text than those of the other,
    over the seeds that both have; None without any."""
    more = [own[seed].rise - base[seed].rise for seed in own if seed in base]
    return stats.effect(more) if more else None


def _begun(results: Results, runs: Sequence[Trial]) -> OnTestText | None:
    """What is known of the test text without the losses; None if none of the runs has read it."""
    tests = results.sweep.tests
    read = [tests[run.trial]["tokens"] for run in runs if run.trial in tests]
    if not read:
        return None
    now = {run.trial for run in runs}
    went_on = results.sweep.went_on or any(set(row["runs"]) != now for row in results.sweep.tested)
    lost = any(may_have_dropped(row, ["tested"]) for row in results.sweep.repairs)
    return OnTestText(max(read), went_on, not went_on and not lost, len(runs) - len(read))
