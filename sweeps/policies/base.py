"""The interface of a policy, and what several policies share.

A policy is a plain fold over the ledger's rows, without Ray. It observes every row (`observe`). It
says what to do with a trial that was just measured (`decide`), which paused trial continues
(`promotion`), and why a trial that still waits at the end was stopped (`standing`). Its state
follows from the rows alone, so a resumed sweep has the policy that was interrupted, and a replay
feeds the same policy with recorded curves. Scores are losses: lower is better. A trial that
diverged has an infinite score at every rung it did not reach.
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from sortedcontainers import SortedList

from sweeps.ledger import Row
from tinylm.config import Count, Section


@dataclass(frozen=True)
class Promotion:
    """A trial that continues from a rung, and the numbers behind the decision."""

    trial: str
    rung: int  # its tokens
    to: int | None  # tokens of the next rung; None is the end of the run
    score: float
    rank: int  # 1 is best, of all that arrived
    arrived: int  # trials that reached the rung, or diverged on the way to it
    forced: bool = False  # not by rank, but so that enough trials finish
    cutoff: float | None = None  # the worst score that continues, if the policy has one

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `promoted` row."""
        return asdict(self)


@dataclass(frozen=True)
class Stop:
    """Why a trial stops at a rung, and the numbers behind the decision."""

    reason: str  # `{rung}` in it stands for where the rung is, which `Pools` knows
    rung: int
    score: float | None  # None if it is not finite
    rank: int
    arrived: int
    cutoff: float | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of the ledger's `stopped` row, except the trial."""
        return asdict(self)


NOT_FINITE = "score is not finite"  # a reason

# What to do with a trial that was just measured: continue (not a rung), pause, promote or stop.
Decision = Literal["continue", "pause"] | Promotion | Stop


class Policy(Protocol):
    """The interface that the driver and the replay use."""

    rungs: tuple[int, ...]  # tokens at which trials pause, stop or are promoted, lowest first

    def rungs_of(self, trial: str) -> tuple[int, ...]:
        """Those of the rungs at which a planned trial is decided on."""

    def observe(self, row: Row) -> None:
        """Update the state by one row of the ledger; kinds that do not matter change nothing."""

    def decide(self, trial: str, tokens: int) -> Decision:
        """What to do with a trial whose record at a given token count was just observed."""

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The paused trial to continue next; `idle` is a free slot with no trial left to start."""

    def holds(self, trial: str) -> bool:
        """Whether the trial is paused or stopped."""

    def standing(self, trial: str) -> Stop:
        """Why a trial that still waits at the end of the sweep is stopped."""


_LEAST_SHARE = 1e-6  # a lower grace would make more rungs than anyone needs


def _share(value: object) -> object:
    if not isinstance(value, str | int | float):
        return value
    top, slash, bottom = str(value).partition("/")
    try:
        size = float(top) / float(bottom if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"expected a share such as 1/8 or 0.125, got {value!r}") from error
    if isinstance(value, bool) or not _LEAST_SHARE <= size < 1:
        raise ValueError(
            f"expected a share of the budget between {_LEAST_SHARE:g} and 1, got {value}"
        )
    # The decimal as written, not the nearest binary fraction.
    return Fraction(str(value))


Share = Annotated[
    Fraction,
    BeforeValidator(_share),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^\\d+/\\d+$"}]}),
]
Eta = Annotated[
    int, Field(ge=2, description="One in eta trials of a rung continues to the next.", default=3)
]
Grace = Annotated[
    Share, Field(description="The first rung, as a share of budget.tokens, e.g. 1/8.")
]
FINISH = 1
Finish = Annotated[
    Count, Field(description="The least number of values that finish.", default=FINISH)
]


Score = Annotated[
    Literal["raw", "decayed"],
    Field(
        description="The score at a rung: raw is the loss there; decayed is the loss at the end of "
        "a short branch in which the learning rate decays, and which is then thrown away.",
        default="raw",
    ),
]
# The length of a decay branch, as a share of the updates so far: that of every recording in
# docs/early_stopping.md, on which the default policy was chosen.
BRANCH = Fraction(1, 5)


class Schedule(Section):
    """The settings of a policy, which a space writes under `schedule`."""

    # Whether the policy decides on a trial once, by those that arrived before, and no trial waits.
    decides_on_arrival: ClassVar[bool] = False
    # Whether the policy reads the scores between the rungs as well.
    scores_all: ClassVar[bool] = False

    score: Score

    def shares(self) -> tuple[Fraction, ...]:
        """The rungs, as shares of the budget, lowest first."""
        raise NotImplementedError

    def rungs(self, budget: int) -> tuple[int, ...]:
        """The rungs in tokens, lowest first, of a budget of which they are whole numbers."""
        return tuple(int(share * budget) for share in self.shares())

    @property
    def least_budget(self) -> int:
        """The least budget of which all rungs are whole numbers."""
        return math.lcm(*(share.denominator for share in self.shares()))

    @property
    def finishers(self) -> int:
        """The least number of values that finish; policies with the setting `finish` return it."""
        return FINISH

    @property
    def branch(self) -> Fraction:
        """The length of the branch at each rung, as a share of the updates so far; 0 for none."""
        return BRANCH if self.score == "decayed" else Fraction(0)

    def field(self, metric: str) -> str:
        """The field that holds the score in a `measured` row at a rung."""
        return f"decayed_{metric}" if self.branch else metric

    def policy_at(self, rungs: tuple[int, ...], field: str) -> Policy:
        """The policy before any row, for rungs in tokens and the field that holds the scores."""
        raise NotImplementedError


class GeometricSchedule(Schedule):
    """Rungs from the grace up, each eta times the one before."""

    eta: Eta
    grace: Grace

    def shares(self) -> tuple[Fraction, ...]:
        """The shares below 1."""
        shares = [self.grace]
        while shares[-1] * self.eta < 1:
            shares.append(shares[-1] * self.eta)
        return tuple(shares)


class Arrivals:
    """The scores of the trials that arrived at a rung, best first; ties rank by arrival."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[float, int]] = {}
        self._sorted: SortedList = SortedList()
        self.finite = 0  # arrivals with a finite score

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, trial: str) -> bool:
        return trial in self._keys

    def add(self, trial: str, score: float) -> None:
        """Add a trial; if it arrives again, its first score is kept."""
        if trial not in self._keys:
            # NaN ranks as infinite.
            number = score if math.isfinite(score) else math.inf
            self.finite += math.isfinite(score)
            self._keys[trial] = (number, len(self._keys))
            self._sorted.add(self._keys[trial])

    def key(self, trial: str) -> tuple[float, int]:
        """The key by which the trial is ranked."""
        return self._keys[trial]

    def score(self, trial: str) -> float:
        """The score of the trial; infinite if it diverged."""
        return self._keys[trial][0]

    def rank(self, trial: str) -> int:
        """The rank of the trial; 1 is best."""
        return self.rank_of(self._keys[trial])

    def rank_of(self, key: tuple[float, int]) -> int:
        """The rank of the trial with this key."""
        return int(self._sorted.bisect_left(key)) + 1

    def at(self, position: int) -> float:
        """The score at a position, 0 for the best; the worst finite one instead of an infinite one."""
        return float(self._sorted[min(position, self.finite - 1)][0])

    def median(self) -> float:
        """The middle score, or the mean of the two in the middle."""
        middle = len(self) // 2
        return float(self._sorted[middle][0] + self._sorted[~middle][0]) / 2


def score_in(row: Row, field: str) -> float:
    """The score in a field of a row; infinite if the decay branch diverged."""
    score: float | None = row[field]
    return math.inf if score is None else score


def finite(score: float) -> float | None:
    """The score; None for one that JSON cannot hold."""
    return score if math.isfinite(score) else None
