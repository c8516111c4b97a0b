"""A sweep read from its ledger, and the token counts that its trials share.

Losses are compared at equal training tokens, or at the ends of budgets that differ, and every comparison
says which.
"""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from sweeps import ledger
from sweeps.exits import UsageError
from sweeps.findings.earlier import Beside, Elsewhere
from sweeps.ledger import AT_TARGET, BY_HAND, Files, Row, Sweep, Trial, ends_attempt
from sweeps.plan.reading import parse
from sweeps.plan.space import Space
from sweeps.selection import (
    END,
    ContextLengths,
    Measured,
    Metric,
    Point,
    budgets,
    common_tokens,
    context_lengths,
    final_point,
    last_record,
)
from sweeps.text import named, quantity, short_name
from tinylm.config import is_number

ENDINGS = ("finished", "stopped", "diverged", "failed")  # ways a trial can end
# The names of the statuses in tables.
STATUSES = {status: status for status in (*ENDINGS, "unfinished", "withdrawn")}
STATUSES |= {"stopped": "stopped early", BY_HAND: BY_HAND}
METRICS: dict[Metric, str] = {
    "val_loss": "validation loss",
    "bits_per_byte": "validation bits per byte",
}
UNITS: dict[Metric, str] = {"val_loss": "nats per token", "bits_per_byte": "bits per byte"}


@dataclass(frozen=True)
class SweptPath:
    """A path that the trials vary, and how its values are spaced."""

    path: str
    name: str  # the last part of the path
    values: tuple[Any, ...]  # distinct planned values: numbers ascending, others in plan order
    numeric: bool
    log: bool  # spaced by ratios, not by differences
    bounds: tuple[float, float] | None  # of the sampled range; None for a list


@dataclass
class Attempt:
    """An attempt at a trial."""

    trial: str
    begun: float  # when its first and last row were written, as `Sweep.seconds`
    ended: float
    measured: float | None = None  # when its first record was; until then it may have waited
    host: str = ""  # that trained it, if it is known
    device: str = ""  # the same, if Ray gave it one
    is_over: bool = False


class _Attempts:
    """The attempts of a sweep, from its rows."""

    def __init__(self) -> None:
        self.found: list[Attempt] = []
        self._running: dict[str, Attempt] = {}  # by trial

    def observe(self, row: Row, now: float) -> None:
        """Fold one row in, which was written after so many seconds of the sweep."""
        kind, trial = row["kind"], row.get("trial")
        if kind == "session":  # earlier attempts died with their driver
            for each in self._running.values():
                each.is_over = True
            self._running.clear()
        elif kind == "started":
            self._running[row["trial"]] = _placed(Attempt(row["trial"], now, now), row)
            self.found.append(self._running[row["trial"]])
        elif trial in self._running:
            attempt = _placed(self._running[trial], row)
            attempt.ended = now
            if kind == "measured" and attempt.measured is None:
                attempt.measured = now
            if ends_attempt(row):
                self._running.pop(trial).is_over = True


def _placed(attempt: Attempt, row: Row) -> Attempt:
    """An attempt with its host and device, if a row of it has them."""
    if not attempt.host and "worker" in row:
        attempt.host = row["worker"].rpartition(":")[0]
    attempt.device = row.get("device", attempt.device)
    return attempt


@dataclass(frozen=True)
class Results:
    """A sweep, and where its trials can be compared."""

    name: str
    sweep: Sweep
    attempts: Sequence[Attempt]  # in order of their starts
    space: Space
    scale: str
    begun: str  # times of the first and the last row, UTC, ISO 8601
    latest: str
    swept: tuple[SweptPath, ...]
    # Where trials paused or were promoted, ascending: token counts, or shares of budgets that differ.
    rungs: tuple[int, ...] | tuple[Fraction, ...]
    final: Point | None  # where finished trials are compared; see `final_point`
    common: int | None  # latest shared by all measured trials that neither diverged nor failed
    # Sweeps in the same results folder that studied an arm, too, by arm.
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    is_running: bool = False  # whether a driver in another process ran it when it was read

    @property
    def question(self) -> str:
        """The question that the sweep asks."""
        return self.space.question

    @property
    def metric(self) -> Metric:
        """The metric that trials are compared by; lower is better."""
        return self.space.metric

    @property
    def is_named(self) -> bool:
        """Whether it is a named experiment, which has one config and no search space."""
        return self.sweep.session.get("folder_option") == "--name"

    def called(self, values: Mapping[str, Any]) -> str:
        """Values in words; of a sweep that varies nothing, its name."""
        return named(values) or self.name

    @property
    def is_study(self) -> bool:
        """Whether arms are compared with a baseline."""
        return self.space.is_study

    @cached_property
    def budgets_differ(self) -> bool:
        """Whether the trials were given different amounts of training."""
        return len(budgets(self.trials)) > 1

    @property
    def to_target(self) -> bool:
        """Whether the target has ended trials, so that the tokens they took to it are compared, not their
        losses."""
        return any(trial.how == AT_TARGET for trial in self.trials)

    @property
    def is_over(self) -> bool:
        """Whether a trial has reached the target that ends the sweep."""
        target = self.space.target
        return target is not None and target.ends == "sweep" and self.to_target

    def point_of(self, trials: Sequence[Trial]) -> Point | None:
        """Where finished trials are compared; at END if budgets differ, even where these have one: others
        are at its tokens in mid-schedule."""
        return _point_of(trials, differ=self.budgets_differ)

    @property
    def context_lengths(self) -> ContextLengths | None:
        """How the trials of different context lengths are compared; None if they have one length."""
        return context_lengths(trial.config for trial in self.trials)

    @property
    def base(self) -> dict[str, Any]:
        """The config that the trials change."""
        assert self.sweep.request is not None  # `results_of` rejects a ledger without one
        base: dict[str, Any] = self.sweep.request["base"]
        return base

    @cached_property
    def trials(self) -> list[Trial]:
        """The trials that answer the question, in plan order: those of a study but for other horizons; those of
        a search that do not repeat a run."""
        return _answering(self.sweep, self.space)

    @cached_property
    def asked(self) -> list[Trial]:
        """The trials that answer the question, and those of a study at other horizons; in plan order."""
        return list(self.sweep.trials.values()) if self.is_study else self.trials

    def programs_words(self, trials: Iterable[Trial]) -> str:
        """What is said of trials that more than one program trained; empty if one did."""
        by_trial = [self.sweep.programs(trial) for trial in trials]
        differing = {
            name
            for one, other in itertools.combinations(set(itertools.chain(*by_trial)), 2)
            for name in one.differing(other)
        }
        if not differing:
            return ""
        what = " and ".join(_PROGRAM_WORDS[name] for name in sorted(differing))
        midway = sum(
            any(one.differing(other) for one, other in itertools.pairwise(programs))
            for programs in by_trial
        )
        within = f", and {quantity(midway, 'run')} changed versions midway" if midway else ""
        return (
            f"the runs were trained by different versions of {what}{within}; differences between "
            "them may come from that"
        )

    def rungs_of(self, trial: Trial) -> list[float]:
        """The rungs of a trial, in its own tokens."""
        return [
            float(rung * trial.budget) if isinstance(rung, Fraction) else rung
            for rung in self.rungs
        ]

    @cached_property
    def decisions(self) -> dict[str, list[Row]]:
        """The decisions at rungs, by trial."""
        found: dict[str, list[Row]] = {}
        for row in self.sweep.decisions:
            found.setdefault(row["trial"], []).append(row)
        return found

    def audited(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials, with each stopped one replaced by its audit if the audit has ended."""
        return [self.ended_audit(trial) or trial for trial in trials]

    def ended_audit(self, trial: Trial) -> Trial | None:
        """The audit of a stopped trial, once it has ended."""
        audit = self.sweep.audit(trial.trial)
        ended = audit is not None and audit.status in {"finished", "diverged"}
        return audit if ended and trial.status == "stopped" else None

    def having(self, status: str) -> list[Trial]:
        """The trials with this status in the tables, in plan order; of a study also those at other horizons."""
        return [trial for trial in self.asked if status_of(trial) == status]


# Kinds of rows without which a claim may be false, in words.
_RESULTS = {
    "finished": "finished trial",
    "diverged": "diverged trial",
    "look": "look",
    "tested": "test-text evaluation",
    "repaired": "earlier repair",
}


def repaired_words(repairs: Sequence[Row]) -> str:
    """What repairs dropped of the ledger; empty for none."""
    if not repairs:
        return ""
    every = sum(row["lines"] for row in repairs)
    dropped = sum((Counter(row["dropped"]) for row in repairs), Counter[str]())
    unread = sum(map(ledger.unread_lines, repairs))
    among = [quantity(dropped[kind], noun) for kind, noun in _RESULTS.items() if dropped[kind]]
    among += [quantity(unread, "unreadable line")] if unread else []
    who = "a ledger repair" if len(repairs) == 1 else f"{len(repairs)} ledger repairs"
    return f"{who} dropped {quantity(every, 'line')}" + bool(among) * f" ({', '.join(among)})"


_PROGRAM_WORDS = {"code": "the training code", "torch": "torch", "numpy": "numpy"}


def _answering(sweep: Sweep, space: Space) -> list[Trial]:
    is_one = space.is_study
    return [
        trial
        for trial in sweep.trials.values()
        if (trial.role != "horizon" if is_one else trial.role == "search")
    ]


def status_of(trial: Trial) -> str:
    """One of finished, stopped, diverged, failed, unfinished and withdrawn."""
    if trial.is_withdrawn:
        return "withdrawn"
    return trial.status if trial.status in ENDINGS else "unfinished"


def status_words(trial: Trial) -> str:
    """The status of a trial as tables name it."""
    return BY_HAND if trial.is_stopped_by_hand else STATUSES[status_of(trial)]


def steered_words(trials: Sequence[Trial], noun: str, of: str = "") -> str:
    """How many of some trials somebody stopped, or had trained to their end; empty if none."""
    parts = list[str]()
    stopped = sum(trial.is_stopped_by_hand for trial in trials)
    finished = sum(one.is_finished_by_hand and one.status == "finished" for one in trials)
    for count, words in ((stopped, BY_HAND), (finished, "trained to the end by hand")):
        if count:
            among = "" if parts else f" of {quantity(len(trials), noun)}{of}"
            parts.append(f"{count}{among} {'was' if count == 1 else 'were'} {words}")
    return " and ".join(parts)


def back_words(results: Results, trials: Sequence[Trial]) -> str:
    """How to train one after all of the trials that somebody stopped; empty if nobody stopped any."""
    if not any(trial.is_stopped_by_hand for trial in trials):
        return ""
    return f"to train one after all: `sweeps steer {results.name} finish TRIAL`"


def reason_of(trial: Trial) -> str:
    """The reason why a trial ended; its state if it has not ended. A ledger does not say whether the
    driver of a trial that has begun still runs."""
    state = "not finished" if trial.status == "running" else trial.status
    by_hand = "trained to its end by hand" if trial.is_finished_by_hand else ""
    return trial.reason or (state if status_of(trial) == "unfinished" else by_hand)


def tokens_per_s(trial: Trial) -> float | None:
    """Training tokens per second over the whole measured run."""
    last = last_record(trial)
    return last.tokens / last.seconds if last and last.seconds > 0 else None


def varied(trial: Trial, path: str) -> Any:
    """The trial's value of a swept path; None if the path is not varied in this trial."""
    return trial.value(path) if path in trial.values else None


@dataclass(frozen=True)
class TrialResult:
    """A trial at one of its records."""

    trial: Trial
    record: Measured | None  # None if it has no record there

    @property
    def status(self) -> str:
        """The trial's status in the tables."""
        return status_of(self.trial)

    @property
    def reason(self) -> str:
        """The reason why the trial ended."""
        return reason_of(self.trial)

    @property
    def flops(self) -> int | None:
        """FLOPs of training up to this record."""
        return self.record and self.record.tokens * self.trial.flops_per_token

    def loss(self, metric: Metric) -> float | None:
        """The validation loss at this record."""
        return self.record and self.record.loss(metric)

    def as_json(self) -> Row:
        """The fields of summary.json."""
        trial, record = self.trial, self.record
        return {
            "trial": trial.trial,
            "label": trial.label,
            "values": trial.values,
            "seed": trial.seed,
            "status": self.status,
            "reason": self.reason,
            "params": trial.params,
            "flops_per_token": trial.flops_per_token,
            "step": record and record.step,
            "tokens": record and record.tokens,
            "train_loss": record and record.train_loss,
            "val_loss": record and record.val_loss,
            "bits_per_byte": record and record.bits_per_byte,
        }


def _spaced_by_ratio(values: Sequence[float]) -> bool:
    """Whether ascending numbers lie as evenly on a logarithmic as on a linear axis. Two numbers do, which
    says nothing unless one is at least twice the other."""
    if len(values) < 2 or values[0] <= 0 or values[-1] < 2 * values[0]:
        return False

    def unevenness(points: Sequence[float]) -> float:
        gaps = [high - low for low, high in itertools.pairwise(points)]
        return statistics.pstdev(gaps) / statistics.fmean(gaps)

    return unevenness([math.log(value) for value in values]) <= unevenness(values)


def _swept(trials: Sequence[Trial], space: Space) -> Iterator[SweptPath]:
    paths = list(dict.fromkeys(path for trial in trials for path in trial.values))
    for path in paths:
        values = dict.fromkeys(trial.values[path] for trial in trials if path in trial.values)
        numeric = all(is_number(value) for value in values)
        ordered = sorted(values) if numeric else list(values)
        domain = space.space.get(path)
        bounds = domain.bounds if domain else None
        log = domain.is_log if domain and bounds else numeric and _spaced_by_ratio(ordered)
        yield SweptPath(path, short_name(path), tuple(ordered), numeric, log, bounds)


def _point_of(trials: Sequence[Trial], *, differ: bool) -> Point | None:
    return END if trials and differ else final_point(trials)


def _rungs(sweep: Sweep, *, differ: bool) -> tuple[int, ...] | tuple[Fraction, ...]:
    rows = [row for row in sweep.decisions if row["kind"] != "stopped"]
    if differ:
        shares = {Fraction(row["rung"], sweep.find(row["trial"]).budget) for row in rows}
        return tuple(sorted(shares))
    return tuple(sorted({row["rung"] for row in rows}))


def read_results(files: Files, beside: Beside) -> Results:
    """What the ledger of a sweep says, and which sweeps beside it studied the same before; errors as of
    `results_of`, and `LedgerError` if it is damaged."""
    found = results_of(files.name, ledger.rows(files))
    elsewhere = beside.studied(files, found.sweep)
    return replace(found, elsewhere=elsewhere, is_running=ledger.has_other_driver(files))


def results_of(name: str, rows: Iterable[Row]) -> Results:
    """What the rows of a ledger say, which are read once and not kept; `UsageError` if nothing has been
    asked yet."""
    sweep, attempts = Sweep(source=f"{name}/{Files.LEDGER}"), _Attempts()
    begun = latest = ""
    for row in rows:
        sweep.observe(row)
        attempts.observe(row, sweep.seconds)
        latest = row["time"]
        begun = begun or latest
    if sweep.request is None:
        raise UsageError(f"{name}: the ledger asks nothing yet")
    space = parse(sweep.request["space"], f"{name}: the space in its ledger")
    trials = _answering(sweep, space)
    alive = [t for t in trials if t.curve and t.status not in {"diverged", "failed"}]
    finished = [t for t in trials if t.status == "finished"]
    differ = len(budgets(trials)) > 1
    return Results(
        name=name,
        sweep=sweep,
        attempts=attempts.found,
        space=space,
        scale=str(sweep.request["scale"]),
        begun=begun,
        latest=latest,
        swept=tuple(_swept(trials, space)),
        rungs=_rungs(sweep, differ=differ),
        final=_point_of(finished, differ=differ),
        common=common_tokens(alive),
    )
