"""What a policy is, and what several of them share.

A policy is a plain fold over the ledger's rows, without Ray: it is told every row (`observe`) and
answers what becomes of a trial that has just been measured (`decide`), which paused trial goes
on (`promotion`), and why one that still waits at the end goes no further (`standing`). Its state
is what the rows say, so the policy of a sweep that is resumed is the one that was interrupted,
and replay is the same policy fed with recorded curves. Scores are losses: lower is better. A
training that diverged has an infinite score at every rung it did not reach.
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from sortedcontainers import SortedList

from sweeps.ledger import Row
from tinylm.config import Count, Section


@dataclass(frozen=True)
class Promotion:
    """A trial that goes on from a rung, and the numbers of the decision."""

    trial: str
    rung: int  # tokens at which it stands
    to: int | None  # tokens of the next rung; None is the end of its training
    score: float
    rank: int  # 1 is best, of all that arrived
    arrived: int  # trials that reached the rung or diverged on the way to it
    forced: bool = False  # so that enough trials finish, not by rank
    cutoff: float | None = None  # what the score was held against, where the rule has such a bar

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `promoted` row."""
        return asdict(self)


@dataclass(frozen=True)
class Stop:
    """Why a trial goes no further than a rung, and the numbers of the decision."""

    reason: str
    rung: int
    score: float | None  # None is a score that is not finite
    rank: int
    arrived: int
    cutoff: float | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `stopped` row beside the trial."""
        return asdict(self)


# Of a trial just measured: on, since this is no rung; wait; on, and why; or no further, and why.
Decision = Literal["continue", "pause"] | Promotion | Stop


class Policy(Protocol):
    """What the driver and the replay ask of a policy."""

    rungs: tuple[int, ...]  # tokens at which trials may wait, stop or be promoted, lowest first

    def observe(self, row: Row) -> None:
        """Fold one row of the ledger in; kinds that decide nothing are passed over."""

    def decide(self, trial: str, tokens: int) -> Decision:
        """What becomes of a trial whose row at so many tokens has been observed."""

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The paused trial that goes on next; idle is a free slot with nothing left to start."""

    def holds(self, trial: str) -> bool:
        """Whether the trial waits for a promotion."""

    def standing(self, trial: str) -> Stop:
        """Why a trial that waits goes no further."""


# Settings ----------------------------------------------------------------------------------------


_LEAST = 1e-6  # more rungs than this makes nobody needs


def _share(value: object) -> object:
    if not isinstance(value, str | int | float):
        return value
    top, slash, bottom = str(value).partition("/")
    try:
        size = float(top) / float(bottom if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"a share such as 1/8 or 0.125 is due, got {value!r}") from error
    if isinstance(value, bool) or not _LEAST <= size < 1:
        raise ValueError(f"a share of the budget between {_LEAST:g} and 1 is due, got {value}")
    # The decimal that was written, not the nearest binary fraction.
    return Fraction(str(value))


Share = Annotated[
    Fraction,
    BeforeValidator(_share),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^\\d+/\\d+$"}]}),
]
Eta = Annotated[
    int, Field(ge=2, description="One in eta trials of a rung goes on to the next.", default=3)
]
Grace = Annotated[
    Share, Field(description="The first rung, as a share of budget.tokens, e.g. 1/8.")
]
Finish = Annotated[Count, Field(description="Trials that finish at least.", default=1)]


Score = Annotated[
    Literal["raw", "decayed"],
    Field(
        description="A rung's score: the loss there, or at the end of a short branch in which the "
        "learning rate decays, which is thrown away after.",
        default="raw",
    ),
]
# A decay branch takes this share of the updates made so far; see docs/early_stopping.md.
BRANCH = Fraction(1, 5)


class Schedule(Section):
    """The settings of a policy, as a space writes them under `schedule`."""

    score: Score

    def shares(self) -> tuple[Fraction, ...]:
        """The rungs as shares of the budget, lowest first."""
        raise NotImplementedError

    @property
    def branch(self) -> Fraction:
        """The share of the updates so far that a trial spends on a branch at each rung."""
        return BRANCH if self.score == "decayed" else Fraction(0)

    def field(self, metric: str) -> str:
        """The field of a `measured` row at a rung that holds its score."""
        return f"decayed_{metric}" if self.branch else metric

    def policy_at(self, rungs: tuple[int, ...], field: str) -> Policy:
        """The policy before any row, with rungs at so many tokens and scores in a field of their
        rows."""
        raise NotImplementedError


class GeometricSchedule(Schedule):
    """Rungs from the grace on, each eta times the one before."""

    eta: Eta
    grace: Grace

    def shares(self) -> tuple[Fraction, ...]:
        """The shares below 1."""
        shares = [self.grace]
        while shares[-1] * self.eta < 1:
            shares.append(shares[-1] * self.eta)
        return tuple(shares)


# Rungs ------------------------------------------------------------------------------------------


class Arrivals:
    """Scores of the trials that arrived at a rung, best first; equal scores rank by arrival."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[float, int]] = {}
        self._sorted: SortedList = SortedList()
        self.finite = 0  # arrivals with a finite score

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, trial: str) -> bool:
        return trial in self._keys

    def add(self, trial: str, score: float) -> None:
        """Let a trial arrive; the first score of one that arrives again stands."""
        if trial not in self._keys:
            # A score that is no number is no better than infinite.
            number = score if math.isfinite(score) else math.inf
            self.finite += math.isfinite(score)
            self._keys[trial] = (number, len(self._keys))
            self._sorted.add(self._keys[trial])

    def key(self, trial: str) -> tuple[float, int]:
        """What the trial is ranked by."""
        return self._keys[trial]

    def score(self, trial: str) -> float:
        """The trial's score; infinite for one that diverged."""
        return self._keys[trial][0]

    def rank(self, trial: str) -> int:
        """The trial's place, from 1."""
        return int(self._sorted.bisect_left(self._keys[trial])) + 1

    def at(self, place: int) -> float:
        """The score at a place from 0, the best first; an infinite one as the worst finite one."""
        return float(self._sorted[min(place, self.finite - 1)][0])

    def median(self) -> float:
        """The middle score, or the mean of the two in the middle."""
        middle = len(self) // 2
        return float(self._sorted[middle][0] + self._sorted[~middle][0]) / 2


def score_in(row: Row, field: str) -> float:
    """The score in a field of a row; infinite where a decay branch diverged."""
    score: float | None = row[field]
    return math.inf if score is None else score


def finite(score: float) -> float | None:
    """The score, or None for one that JSON has no word for."""
    return score if math.isfinite(score) else None
