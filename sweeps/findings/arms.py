"""Arms of a study: their runs, the findings on each, and the arms that had no effect."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Literal

from sweeps import stats
from sweeps.findings.noise import course
from sweeps.findings.results import METRICS, Results, tokens_per_s
from sweeps.findings.verdict import Verdict
from sweeps.ledger import BASELINE, Row, Sweep, Trial
from sweeps.selection import Metric, last_record
from sweeps.text import sentence
from tinylm.config import is_number

# A trial is within the spread of repeats if its distance from them is at most this many spreads.
REPEAT_MARGIN = 2.0


@dataclass(frozen=True)
class ArmRuns:
    """An arm whose values are settled, and its runs."""

    name: str
    hypothesis: str
    changes: dict[str, Any]
    chosen: dict[str, Any] | None  # by its re-tune grid; None if every trial of the grid diverged
    tried: int  # trials of that grid
    failed: int  # trials of the grid that failed
    retuned: bool
    runs: dict[int, Trial]  # by seed
    repeats: list[Trial]  # of the run with the first seed
    grid: list[Trial]  # its re-tune grid

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its trials; arms with the same changes and values share their trials."""
        return tuple(trial.trial for trial in self.runs.values()) or (self.name,)

    @property
    def is_baseline(self) -> bool:
        """Whether the other arms are compared with this one."""
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
        """FLOPs per training token."""
        return None if self.first is None else self.first.flops_per_token

    @property
    def is_finished(self) -> bool:
        """Whether every run has finished."""
        return bool(self.runs) and len(self.having("finished")) == len(self.runs)

    def having(self, status: str) -> list[Trial]:
        """The runs with this status."""
        return [trial for trial in self.runs.values() if trial.status == status]


def arms_of(sweep: Sweep) -> list[ArmRuns]:
    """The settled arms in plan order, the baseline first."""
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


def numeric_arms(results: Results, arms: Sequence[ArmRuns]) -> dict[float, ArmRuns]:
    """The arms by their value of the one path that defines them; empty for listed arms and for values
    that are not numbers."""
    each = results.space.each
    if each is None:
        return {}
    by_value = {arm.first.value(each.path): arm for arm in arms if arm.first is not None}
    numbers = all(is_number(value) for value in by_value)
    return dict(sorted(by_value.items())) if numbers else {}


def _same(one: Trial, other: Trial, repeats: Sequence[Trial]) -> bool:
    """Whether two runs have the same losses, as far as both were measured. Without repeats the losses
    must be equal bit for bit; with repeats they may differ by `REPEAT_MARGIN` times their spread."""
    courses = [course(trial) for trial in (one, *repeats)]
    spread = 0.0
    for *repeated, loss in zip(*courses, course(other), strict=False):
        spread = max(spread, max(repeated) - min(repeated))
        if abs(loss - repeated[0]) > REPEAT_MARGIN * spread:
            return False
    return bool(one.curve and other.curve)


def void_arms(sweep: Sweep) -> list[str]:
    """The arms that had no effect: at equal values and seeds, all losses of their runs equal the
    baseline's.

    A late difference counts too, for example from a decay, so no arm is void before its runs end.
    """
    arms = {arm.name: arm for arm in arms_of(sweep)}
    base = arms.pop(BASELINE, None)
    if base is None:
        return []
    return [arm.name for arm in arms.values() if _is_void(base, arm)]


def _is_void(base: ArmRuns, arm: ArmRuns) -> bool:
    repeats = [one for one in base.repeats if one.status == "finished"]
    if base.repeats and not repeats:  # how much equal runs differ is not known
        return False
    if base.repeats:  # equal runs differ here; the spread is known for the first seed
        seeds = list(base.runs)[:1]
    else:
        seeds = [seed for seed in base.runs if seed in arm.runs]
    pairs = [(base.runs[seed], arm.runs[seed]) for seed in seeds if seed in arm.runs]
    if base.chosen != arm.chosen and not base.repeats:
        # The grids of a switch without effect are equal, but the chosen values may differ.
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
    return bool(ended) and all(_same(one, other, repeats) for one, other in pairs if other.curve)


CautionKind = Literal[
    "size",  # more or fewer parameters or FLOPs than the baseline
    "context",  # another context length, evaluated on the same validation tokens
    "windows",  # another context length, evaluated on other validation tokens
    "updates",  # another context length, so updates of more or fewer tokens
    "time",  # the tokens that fit into a budget of time
    "budget",  # another budget of tokens than the baseline
    "grid edge",  # the best value may lie beyond the re-tune grid
    "grid failure",  # trials of the re-tune grid failed
    "not re-tuned",  # the arm runs at the baseline's values
    "steered",  # somebody stopped trials, or had them trained to their end
    "lost runs",  # runs of the arm or the baseline without a result
    "outcomes",  # runs that spiked or were stuck
    "far runs",  # runs that ended far from the others of the arm or the baseline
    "programs",  # trained by several versions of the code, torch or numpy
    "audit",  # an audit found a better value in the re-tune grid
    "overfitting",  # runs of the arm or the baseline overfitted
    "init",  # the arm or the baseline starts far above the loss of a uniform guess
    "grid missed",  # another arm shows that the re-tune grid missed a better value
]


@dataclass(frozen=True)
class Caution:
    """A caveat that a reader of a verdict needs."""

    kind: CautionKind
    text: str


@dataclass(frozen=True)
class ArmSpeedup:
    """What an arm is worth in tokens of the baseline, and at the speeds of both in time."""

    tokens: stats.Speedup
    pace: float | None  # the arm's tokens per second, as a share of the baseline's
    paces: tuple[float, float] | None  # the lowest and the highest such share of two runs

    @property
    def speeds_overlap(self) -> bool:
        """Whether the speeds of the runs overlap with those of the baseline's, so that the machine may be all that
        they differ by."""
        return self.paces is not None and self.paces[0] <= 1 <= self.paces[1]

    @property
    def time(self) -> stats.Speedup | None:
        """How many times its training time the baseline needs for the arm's loss; the speeds are taken as
        measured, without an interval. None if they are not known, or overlap."""
        if self.pace is None or self.speeds_overlap:
            return None
        return stats.Speedup(*(self.pace * one for one in astuple(self.tokens)))

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "tokens": asdict(self.tokens),
            "pace": self.pace,
            "paces": self.paces,
            "time": self.time and asdict(self.time),
        }


@dataclass(frozen=True)
class ToTarget:
    """What the runs of an arm took to the target: means over those that reached it, each at its first record
    at or below it."""

    reached: int
    runs: int  # that have a record
    steps: float | None  # None if no run reached it
    tokens: float | None
    seconds: float | None
    shared: int  # seeds on which the baseline reached it, too
    # The baseline's tokens and seconds as multiples of the arm's, on the shared seeds.
    times_tokens: float | None
    times_seconds: float | None

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


@dataclass(frozen=True)
class ArmFindings:
    """An arm, its losses, and its difference from the baseline."""

    runs: ArmRuns
    is_void: bool
    losses: dict[int, float]  # by seed, at the token count of the comparison
    paired: dict[int, float]  # differences from the baseline, by seed; empty if not compared
    effect: stats.Effect | None  # of the paired differences
    differences: dict[Metric, float | None]  # mean difference in each metric
    more_params: float | None  # difference from the baseline, as a share of its parameters
    more_flops: float | None
    n: int  # runs with a loss; for an arm, only seeds where the baseline has one too, or those of its look
    p_holm: float | None
    verdict: Verdict
    outcomes: tuple[str, ...]
    cautions: tuple[Caution, ...]
    level: int = 5  # of its verdict, in percent; its interval covers the truth in the rest
    speedup: ArmSpeedup | None = None  # None where the study asks for none or it is not known
    to_target: ToTarget | None = None  # None where the study has no target

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.runs.name

    @property
    def mean(self) -> float | None:
        """The mean loss over the seeds."""
        return statistics.fmean(self.losses.values()) if self.losses else None

    @property
    def pairing(self) -> stats.Pairing | None:
        """What it buys that its runs are compared at equal seeds; None if that is not known."""
        own = [self.losses[seed] for seed in self.paired]
        return stats.pairing(own, [self.losses[seed] - by for seed, by in self.paired.items()])

    @property
    def interval_words(self) -> str:
        """The kind of interval that it has: 95% interval."""
        return f"{100 - self.level}% interval"

    @property
    def seconds(self) -> float | None:
        """Median training seconds of a finished run."""
        ends = [last_record(trial) for trial in self.runs.having("finished")]
        seconds = [record.seconds for record in ends if record is not None]
        return statistics.median(seconds) if seconds else None

    @property
    def speeds(self) -> list[float]:
        """Training tokens per second of each finished run."""
        return [speed for t in self.runs.having("finished") if (speed := tokens_per_s(t))]

    @property
    def tokens_per_s(self) -> float | None:
        """Median training tokens per second of a finished run."""
        return statistics.median(self.speeds) if self.speeds else None

    @property
    def caveats(self) -> str:
        """Its cautions as sentences; text between backquotes is code."""
        return " ".join(sentence(caution.text) for caution in self.cautions)

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
            "cautions": [caution.text for caution in self.cautions],
            **({"level": self.level} if self.level != 5 else {}),
            **({} if self.pairing is None else {"correlation": self.pairing.correlation}),
            **({} if self.speedup is None else {"speedup": self.speedup.as_json()}),
            **({} if self.to_target is None else {"to_target": self.to_target.as_json()}),
        }
