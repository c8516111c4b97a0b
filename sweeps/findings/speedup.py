"""What an arm is worth in tokens: how many times its tokens the baseline needs for the arm's loss.

The baseline is trained at a lower and a higher number of tokens, each with its own whole schedule and at its own
best of three learning rates. Its loss by its tokens then says where it has the loss of an arm.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeps import stats
from sweeps.findings.arms import ArmFindings, ArmSpeedup
from sweeps.findings.results import ENDINGS, Results, status_of
from sweeps.findings.stability import LR
from sweeps.ledger import BASELINE, BY_HAND, Row, Trial
from sweeps.selection import losses_by_seed


@dataclass(frozen=True)
class Horizon:
    """The runs of the baseline at a number of tokens."""

    share: float  # of the tokens of all arms
    tokens: int
    values: dict[str, Any] | None  # None until the learning rates have ended, and if none finished
    rates: tuple[Trial, ...]  # none at the baseline's own tokens, whose rate its re-tune grid chose
    failed: int  # how many of these failed
    edge: Literal["lowest", "highest"] | None  # whether the best rate is at an end of those tried
    losses: dict[int, float]  # of the finished runs, by seed
    runs: tuple[Trial, ...]  # at the values of the best rate

    @property
    def rate(self) -> float | None:
        """The learning rate of its runs; None before there are any."""
        return float(self.runs[0].value(LR)) if self.runs else None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train."""
        ended = all(status_of(one) in ENDINGS for one in (*self.rates, *self.runs))
        is_chosen = bool(self.runs) or all(one.status != "finished" for one in self.rates)
        return ended and is_chosen

    @property
    def tried(self) -> list[Trial]:
        """The rates without those that somebody stopped."""
        return [one for one in self.rates if not one.is_stopped_by_hand]

    @property
    def lost(self) -> list[Trial]:
        """The runs that did not finish, where nothing is left to train; all rates if none of them finished. Runs
        that somebody stopped are left out if others finished."""
        runs = self.runs or self.rates
        has_finished = any(one.status == "finished" for one in runs)
        lost = [one for one in runs if one.status != "finished"]
        return [one for one in lost if not (has_finished and one.is_stopped_by_hand)]

    def as_json(self) -> Row:
        """The fields of summary.json."""
        names = ("share", "tokens", "values", "edge", "failed", "losses")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Speedups:
    """How the loss of the baseline depends on its tokens, and how well that is known."""

    horizons: tuple[Horizon, ...]  # by rising tokens, the baseline's own in the middle
    scaling: stats.Scaling | None
    straight: stats.Straight | None
    why_not: str  # why there is no scaling; empty if there is
    is_flat: bool  # whether that is because the loss does not fall with the tokens
    is_tuned: bool  # whether the learning rate was tuned at the baseline's own tokens, too
    is_unfinished: bool  # whether something is left to train at other numbers of tokens

    @property
    def may_need_tuning(self) -> bool:
        """Whether the loss does not fall with the tokens, but the learning rate was tuned at the other numbers of
        them alone, and is another one there."""
        rates = {one.rate for one in self.horizons}
        return self.is_flat and not self.is_tuned and len(rates) > 1

    def as_json(self) -> Row:
        """The fields of summary.json."""
        law = self.scaling and self.scaling.law
        return {
            "horizons": [one.as_json() for one in self.horizons],
            "law": law and {**asdict(law), "exponent": law.exponent},
            "spread": self.scaling and self.scaling.spread,
            "straight": self.straight and {**asdict(self.straight), "fits": self.straight.fits},
            "why_not": self.why_not,
            "tuned": self.is_tuned,
        }


def speedups(results: Results) -> Speedups | None:
    """How the loss of the baseline depends on its tokens; None if the study does not ask for it."""
    asked, chosen = results.space.speedup, results.sweep.chosen.get(BASELINE)
    if asked is None or chosen is None:
        return None
    trials, budget = results.sweep.trials, int(results.base["budget"]["tokens"])
    middle = {**chosen, "tokens": budget, "rates": [], "failed": 0}
    own = _horizon(results, middle, budget)
    rows = sorted(results.sweep.horizons.values(), key=lambda row: int(row["tokens"]))
    # Those of other values that the baseline had before are withdrawn.
    rows = [row for row in rows if trials.keys() >= set(row["rates"])]
    others = [_horizon(results, row, budget) for row in rows]
    every = tuple(sorted((*others, own), key=lambda one: one.tokens))
    is_tuned = LR in (results.space.retune or {})
    waits = _waits(others, len(asked.horizons)) if own.values is not None else ""

    def without(why_not: str, *, is_flat: bool = False) -> Speedups:
        return Speedups(every, None, None, why_not, is_flat, is_tuned, is_unfinished=bool(waits))

    if why_not := waits or _lost(own, others):
        return without(why_not)
    low, high = others
    seeds = [seed for seed in own.losses if seed in low.losses and seed in high.losses]
    found = stats.scaling(
        low.share,
        high.share,
        [low.losses[seed] - own.losses[seed] for seed in seeds],
        [own.losses[seed] - high.losses[seed] for seed in seeds],
    )
    if found is None:
        if len(seeds) > 1:
            return without("the baseline's loss does not fall with its tokens", is_flat=True)
        return without("the baseline has not finished at all of them on two seeds")
    loss = sum(own.losses[seed] for seed in seeds) / len(seeds)
    straight = found.straight(loss)
    return Speedups(
        every, found, straight, "", is_flat=False, is_tuned=is_tuned, is_unfinished=False
    )


def _waits(others: list[Horizon], asked: int) -> str:
    """What is left to train at so many other numbers of tokens; empty if nothing is."""
    for one in others:
        if not one.has_ended:
            return f"the baseline has not finished at {one.share:g} times the tokens yet"
    few = "the baseline has not been trained at other numbers of tokens yet"
    return few if len(others) < asked else ""


def _lost(own: Horizon, others: list[Horizon]) -> str:
    """Why runs that have ended say nothing; empty if they do."""
    if own.values is None:
        return "the baseline diverged at every value of its re-tune grid"
    lost = [(run, one.share) for one in others for run in one.lost]
    if not lost:
        return ""
    run, share = lost[0]
    how = f"was {BY_HAND}" if run.is_stopped_by_hand else run.status
    return f"the baseline {how} at {share:g} times the tokens"


def _horizon(results: Results, row: Row, budget: int) -> Horizon:
    """The horizon of a row."""
    values, trials = row["values"], results.sweep.trials
    rates, runs = ([trials[one] for one in of] for of in (row["rates"], row["trials"].values()))
    tried = sorted(one.value(LR) for one in rates if not one.is_stopped_by_hand)
    ends: dict[Any, Literal["lowest", "highest"]] = {}
    if tried and values is not None:
        ends = {tried[0]: "lowest", tried[-1]: "highest"}
    return Horizon(
        share=row["tokens"] / budget,
        tokens=row["tokens"],
        values=values,
        rates=tuple(rates),
        failed=row["failed"],
        edge=ends.get((values or {}).get(LR)),
        losses=losses_by_seed(runs, results.metric) if values is not None else {},
        runs=tuple(runs),
    )


def speedup(arm: ArmFindings, base: ArmFindings, known: Speedups) -> ArmSpeedup | None:
    """What an arm is worth; None for one that is void or has no interval, and where runs of it or of the baseline
    diverged: those that are left are no fair sample."""
    lost = [*arm.runs.having("diverged"), *base.runs.having("diverged")]
    if known.scaling is None or arm.effect is None or arm.is_void or lost:
        return None
    found = known.scaling.speedup(arm.effect, arm.level / 100)
    if arm.tokens_per_s is None or base.tokens_per_s is None:
        return found and ArmSpeedup(found, None, None)
    paces = min(arm.speeds) / max(base.speeds), max(arm.speeds) / min(base.speeds)
    return found and ArmSpeedup(found, arm.tokens_per_s / base.tokens_per_s, paces)
