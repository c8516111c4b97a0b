"""The runs whose checkpoints are the best that a sweep has, those that write its sample texts, and those that
read its test text."""

import math
from collections.abc import Sequence

from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.tested import study_runs
from sweeps.ledger import BASELINE, Trial
from sweeps.selection import last_record


def best_runs(found: SearchFindings | StudyFindings, arm: str = "") -> list[Trial]:
    """The finished runs of the best values, one per seed, the lowest final loss first; empty if none
    has finished.

    Of a search, these are the values that an audit found to be better, else those that it chose. Of a
    study, those of the arm with this name; without a name, of the arm with the lowest paired difference
    among those that are better than the baseline, else of the baseline.
    """
    runs = _of_study(found, arm) if isinstance(found, StudyFindings) else _of_search(found)
    metric = found.results.metric
    ends = {
        run.trial: end.loss(metric)
        for run in runs
        if run.status == "finished" and (end := last_record(run)) is not None
    }
    return sorted((run for run in runs if run.trial in ends), key=lambda run: ends[run.trial])


def to_sample(found: SearchFindings | StudyFindings) -> Sequence[Sequence[Trial]]:
    """The runs of which one writes sample texts: the best, and those of the baseline; of a search, those at
    the values of the base config."""
    if isinstance(found, SearchFindings):
        return best_runs(found), found.to_test.base
    if found.comparison is None:  # no baseline
        return [best_runs(found)]
    return best_runs(found), best_runs(found, BASELINE)


def to_test(found: SearchFindings | StudyFindings) -> Sequence[Trial]:
    """The runs that read the test text when the sweep has ended: those of the chosen values and of the
    baseline; of a study, those that its arms are compared by."""
    if isinstance(found, SearchFindings):
        return found.to_test.every
    return study_runs(found.comparison)


def _of_search(found: SearchFindings) -> Sequence[Trial]:
    better = found.answer.better
    return found.winner if better is None else better.runs


def _of_study(found: StudyFindings, name: str) -> Sequence[Trial]:
    if not name:
        if found.comparison is None:
            return []
        baseline, *others = found.comparison.arms
        better = [one for one in others if one.verdict.kind == "better"]
        name = min(better, key=_gain, default=baseline).name
    arms = {arm.name: arm for arm in found.settled}
    return list(arms[name].runs.values())


def _gain(arm: ArmFindings) -> tuple[float, float]:
    """What better arms are ordered by: the difference over the seeds that an arm shares with the
    baseline, and the mean where a baseline that diverged leaves no difference."""
    return (
        math.inf if arm.effect is None else arm.effect.mean,
        math.inf if arm.mean is None else arm.mean,
    )
