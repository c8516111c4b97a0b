"""All findings of a sweep, computed once; tables, figures, pages and logs are made from them."""

from dataclasses import dataclass
from pathlib import Path

from sweeps import ledger
from sweeps.exits import CommandError, storing
from sweeps.findings.answer import Answer, answer
from sweeps.findings.arms import ArmRuns, arms_of
from sweeps.findings.audit import Audit, audit
from sweeps.findings.comparison import ArmsComparison, comparison
from sweeps.findings.compute import Compute, Timeline, compute, front, timeline
from sweeps.findings.earlier import Beside
from sweeps.findings.noise import SeedNoise, seed_noise
from sweeps.findings.optimism import Selection, selection
from sweeps.findings.ranking import (
    BestValue,
    Ended,
    Importance,
    NotSettled,
    RankedValue,
    Ranking,
    Spread,
    Stopped,
    best_values,
    ended,
    importance,
    not_settled,
    ranked,
    ranked_values,
    ranking,
    spread,
    stopped,
    withdrawn,
)
from sweeps.findings.results import ENDINGS, Results, read_results, repaired_words
from sweeps.findings.risk import Risk, risk
from sweeps.findings.stability import Stability, stability
from sweeps.findings.target import Race, race
from sweeps.findings.tested import OnTestText, SearchRuns, search_runs, tested_search, tested_study
from sweeps.findings.tuning import Tuning, Unsettled, tuning, unsettled
from sweeps.ledger import Files, Row, Trial
from sweeps.outcomes import RULES, Overfit, outcome, overfit
from sweeps.selection import at, best_group, fastest_group
from tinylm import config as cfg


@dataclass(frozen=True)
class Findings:
    """The findings of any sweep."""

    results: Results
    diverged: tuple[Ended, ...]
    failed: tuple[Ended, ...]
    unfinished: tuple[Ended, ...]
    withdrawn: tuple[Ended, ...]  # that the space no longer has
    compute: Compute
    timeline: Timeline
    outcomes: tuple[str, ...]  # problems of any trial, from `RULES` and in their order
    overfitted: tuple[Overfit, ...]  # trials that overfitted, the lowest validation loss first
    noise: SeedNoise | None
    race: Race | None  # to the target; None without one

    @property
    def notes(self) -> list[str]:
        """The notes of the last session, on what trained the runs, and on a repair of the ledger."""
        notes: list[str] = self.results.sweep.session.get("notes", [])
        programs = self.results.programs_words(self.results.trials)
        return [*notes, *filter(None, (programs, repaired_words(self.results.sweep.repairs)))]

    @property
    def is_unfinished(self) -> bool:
        """Whether something is left to train of what the sweep asks, unless its target has ended it."""
        return bool(self.unfinished) and not self.results.is_over

    def count(self, status: str) -> int:
        """The number of trials with this status in the tables."""
        return len(self.results.having(status))

    def as_json(self) -> Row:
        """The content of summary.json, the figures aside."""
        raise NotImplementedError

    def _head(self) -> Row:
        """The question, when the sweep ran, and how its trials ended."""
        results = self.results
        counts = {status: self.count(status) for status in (*ENDINGS, "unfinished")}
        return {
            "sweep": results.name,
            "question": results.question,
            "scale": results.scale,
            "metric": results.metric,
            "from": results.begun,
            "to": results.latest,
            "trials": {"planned": len(results.asked), **counts},
            "seeds": sorted({trial.seed for trial in results.trials}),
            "notes": self.notes,
            "diverged": [result.as_json() for result in self.diverged],
            "failed": [result.as_json() for result in self.failed],
            "unfinished": [result.as_json() for result in self.unfinished],
            "withdrawn": [result.as_json() for result in self.withdrawn],
            "compute": self.compute.as_json(),
        }

    def _tail(self) -> Row:
        tail: Row = {"outcomes": self.outcomes, "noise": self.noise and self.noise.as_json()}
        if self.race is not None:
            tail["target"] = self.race.as_json()
        if self.overfitted:
            tail["overfitted"] = [one.as_json() for one in self.overfitted]
        return tail


@dataclass(frozen=True)
class SearchFindings(Findings):
    """The findings of a search: the ranking and what it is based on."""

    answer: Answer
    ranking: Ranking  # of the finished trials
    values: tuple[RankedValue, ...]  # of which these are seeds; none if no value has several
    winner: tuple[Trial, ...]  # the finished trials of the best values, one per seed
    stopped: tuple[Stopped, ...]
    audit: Audit | None
    common: Ranking  # of all trials at the latest token count that they share
    missing: tuple[Trial, ...]  # trials without a record at that token count
    best: tuple[BestValue, ...]  # of the lowest known loss, audits included
    not_settled: tuple[NotSettled, ...]  # of them, those that the runs do not settle
    selection: Selection | None
    spread: tuple[Spread, ...]  # at the common token count
    stability: Stability | None
    risk: Risk | None  # of the best values
    front: tuple[Trial, ...]  # the best for their compute of those that finished, audits included
    importance: Importance | None  # of each path; None if it is not known
    to_test: SearchRuns  # the runs that read the test text
    tested: OnTestText | None  # None before they did

    def as_json(self) -> Row:
        """The content of summary.json, the figures aside."""
        return {
            **self._head(),
            "ranking": self.ranking.as_json(of_finished=True),
            "stopped": [result.as_json() for result in self.stopped],
            "audit": self.audit and self.audit.as_json(),
            "comparison": {
                **self.common.as_json(of_finished=False),
                "missing": [trial.label for trial in self.missing],
            },
            "best": [best.as_json() for best in self.best],
            "selection": self.selection and self.selection.as_json(),
            "spread": {
                "tokens": self.common.point,
                "groups": [each.as_json() for each in self.spread],
            },
            **self._tail(),
            "stability": self.stability and self.stability.as_json(),
            **({"risk": self.risk.as_json()} if self.risk and self.risk.matters else {}),
            **_tested_json(self.tested),
        }


@dataclass(frozen=True)
class StudyFindings(Findings):
    """The findings of a study: its arms compared with their baseline."""

    settled: tuple[ArmRuns, ...]  # the baseline first
    comparison: ArmsComparison | None  # None if the baseline is not settled
    unsettled: tuple[Unsettled, ...]
    tuning: tuple[Tuning, ...]
    tested: OnTestText | None  # None before the test text was read

    @property
    def is_unfinished(self) -> bool:
        """Whether something is left to train, which may be trials at other horizons that are not planned yet."""
        worth = None if self.comparison is None else self.comparison.speedups
        waits = worth is not None and worth.is_unfinished and not self.results.is_over
        return super().is_unfinished or waits

    def as_json(self) -> Row:
        """The content of summary.json, the figures aside."""
        return {
            **self._head(),
            "arms": self.comparison and self.comparison.as_json(),
            "unsettled": [one.as_json() for one in self.unsettled],
            "tuning": [one.as_json() for one in self.tuning],
            **self._tail(),
            **_tested_json(self.tested),
        }


def _tested_json(tested: OnTestText | None) -> Row:
    return {} if tested is None else {"tested": tested.as_json()}


def findings(results: Results) -> SearchFindings | StudyFindings:
    """The findings of a sweep."""
    return study_findings(results) if results.is_study else search_findings(results)


def any_findings(results: Results) -> Findings:
    """The findings that a search and a study share."""
    return Findings(
        results=results,
        diverged=ended(results, "diverged"),
        failed=ended(results, "failed"),
        unfinished=ended(results, "unfinished"),
        compute=compute(results),
        withdrawn=withdrawn(results),
        timeline=timeline(results),
        outcomes=_outcomes(results),
        overfitted=_overfitted(results),
        noise=None if results.to_target else seed_noise(results),
        race=race(results),
    )


def _outcomes(results: Results) -> tuple[str, ...]:
    met = {outcome(trial) for trial in results.sweep.trials.values()}
    return tuple(kind for kind in RULES if kind in met)


def _overfitted(results: Results) -> tuple[Overfit, ...]:
    found = [one for trial in results.trials if (one := overfit(trial)) is not None]
    return tuple(sorted(found, key=lambda one: one.best.val_loss))


def study_findings(results: Results) -> StudyFindings:
    """The findings of a study."""
    settled = arms_of(results.sweep)
    grids = tuning(results, settled)
    waiting = unsettled(results, settled, grids)
    compared = comparison(results, settled, waiting)
    return StudyFindings(
        **vars(any_findings(results)),
        settled=tuple(settled),
        comparison=compared,
        unsettled=waiting,
        tuning=grids,
        tested=tested_study(results, compared),
    )


def search_findings(results: Results) -> SearchFindings:
    """The findings of a search."""
    winner = best_group(results.trials, results.metric)
    target = results.space.target
    if target is not None and results.to_target:  # they all end near the target's loss
        winner = fastest_group(results.trials, target.metric, target.limit) or winner
    finished = ranking(results)
    chosen = None if results.to_target else selection(results, winner)
    shared = any_findings(results)
    found = answer(results, winner, chosen, shared.noise)
    best = found.better.runs if found.better else winner
    absent = [trial for trial in results.trials if at(trial, results.common) is None]
    testing = search_runs(results, best)
    trials = results.audited(results.trials)
    stable = None if results.to_target else stability(trials, results.metric)
    return SearchFindings(
        **vars(shared),
        answer=found,
        ranking=finished,
        values=ranked_values(results),
        winner=tuple(winner),
        stopped=stopped(results, finished.leader),
        audit=audit(results),
        common=ranked(results, results.trials, results.common),
        missing=tuple(absent),
        best=best_values(results, best),
        not_settled=() if results.to_target else not_settled(results, best),
        selection=chosen,
        spread=spread(results),
        stability=stable,
        risk=risk(results, best, stable),
        front=front(results),
        importance=None if results.to_target else importance(results),
        to_test=testing,
        tested=tested_search(results, testing),
    )


class Reader:
    """Reads ledgers, each once, so that all that a command writes of a sweep says the same."""

    def __init__(self) -> None:
        # The findings of the sweep in each folder, or why there are none.
        self._read: dict[Path, SearchFindings | StudyFindings | CommandError] = {}
        # The same, where this version also knows its configs.
        self._known: dict[Path, SearchFindings | StudyFindings | CommandError] = {}
        self._beside = Beside()

    def findings(self, files: Files) -> SearchFindings | StudyFindings:
        """The findings of a sweep.

        Raises `LedgerError` if its ledger is damaged, `StorageError` if it can't be read, `UsageError` if
        it asks nothing yet and `ConfigError` if this version does not know the space in it.
        """
        folder = files.folder.resolve()
        if folder not in self._read:
            self._read[folder] = self._first(files)
        found = self._read[folder]
        if isinstance(found, CommandError):
            raise found
        return found

    def _first(self, files: Files) -> SearchFindings | StudyFindings | CommandError:
        try:
            with storing(files.ledger):
                return findings(read_results(files, self._beside))
        except CommandError as error:
            return error

    def under(self, folder: Path) -> list[SearchFindings | StudyFindings]:
        """The findings of all sweeps in a folder, in order of their start, without the sweeps that can't
        be read or have configs that this version does not know; see `left_out`."""
        every = [self._of_this_version(files) for files in ledger.sweeps(folder)]
        found = [one for one in every if not isinstance(one, CommandError)]
        return sorted(found, key=lambda one: one.results.begun)

    def left_out(self, folder: Path) -> dict[str, CommandError]:
        """Why each sweep in a folder is left out that can't be read."""
        every = {files.name: self._of_this_version(files) for files in ledger.sweeps(folder)}
        return {name: one for name, one in every.items() if isinstance(one, CommandError)}

    def _of_this_version(self, files: Files) -> SearchFindings | StudyFindings | CommandError:
        """The findings of a sweep whose configs this version knows, or why there are none."""
        folder = files.folder.resolve()
        if folder not in self._known:
            try:
                self._known[folder] = one = self.findings(files)
                for trial in one.results.trials:
                    cfg.validate(trial.config, trial.label)
            except CommandError as error:
                self._known[folder] = error
        return self._known[folder]
