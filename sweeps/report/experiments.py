"""The experiments of sweeps: each is a config with its runs and the runs it is compared with.

In a study, every settled arm is an experiment. Any other sweep is one experiment, its best values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import ledger
from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import SearchFindings, StudyFindings, findings
from sweeps.findings.optimism import confirming
from sweeps.findings.results import ENDINGS, Results, results_of, status_of
from sweeps.ledger import BASELINE, Trial
from sweeps.selection import Measured, last_record
from tinylm import config as cfg

# Paths that don't change the loss, or only as a new seed would.
NO_CHANGE = {
    "run.seed", "run.repeat", "run.device", "run.threads", "run.checkpoint_every_tokens",
    "eval.every_tokens", "eval.batch_size",
}  # fmt: skip


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
    def finished(self) -> list[Trial]:
        """The runs that finished."""
        return [trial for trial in self.runs if trial.status == "finished"]

    @property
    def ends(self) -> list[Measured]:
        """The last records of the runs that finished."""
        return [record for trial in self.finished if (record := last_record(trial)) is not None]

    @property
    def are_alike(self) -> bool:
        """Whether the runs differ by their seeds alone."""
        return all(trial.values == self.runs[0].values for trial in self.runs)


def findings_under(folder: Path) -> list[SearchFindings | StudyFindings]:
    """The findings of all sweeps in a folder, in order of their start. Damaged ledgers and ledgers
    whose configs no longer exist are left out and logged."""
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
    own = [trial for trial in results.trials if not changes(results.base, trial.config)]
    is_base = results.name.startswith(BASELINE) if not results.swept else list(runs) == own
    runs = confirmed(results) or runs
    against = [] if is_base else own
    yield Experiment(found, results.name, results.question, results.base, runs, against, is_base)


def confirmed(results: Results) -> list[Trial]:
    """The runs of the best values on fresh seeds, once they have ended."""
    again = confirming(results)
    return again if all(status_of(trial) in ENDINGS for trial in again) else []


def changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differing paths of model, data and training, with both values."""
    before, after = cfg.flatten(there), cfg.flatten(here)
    return {
        path: (before.get(path), value)
        for path, value in after.items()
        if value != before.get(path) and path not in NO_CHANGE
    }
