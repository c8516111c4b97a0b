"""What an arm is worth in tokens: how many times its tokens the baseline needs for the arm's loss.

The baseline is trained at a lower and a higher number of tokens, each with its own whole schedule and at its own
best of three learning rates. Its loss by its tokens then says where it has the loss of an arm.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeps import stats
from sweeps.findings.arms import ArmFindings, ArmSpeedup
from sweeps.findings.results import Results
from sweeps.findings.stability import LR
from sweeps.ledger import BASELINE, Row, Trial
from sweeps.selection import losses_by_seed


@dataclass(frozen=True)
class Horizon:
    """The runs of the baseline at a number of tokens."""

    share: float  # of the tokens of all arms
    tokens: int
    values: dict[str, Any] | None  # None until the learning rates have ended, and if none finished
    tried: int  # learning rates; 0 for the baseline's own tokens, whose rate its re-tune grid chose
    edge: Literal["lowest", "highest"] | None  # whether the best rate is at an end of those tried
    losses: dict[int, float]  # of the finished runs, by seed
    runs: tuple[Trial, ...]

    @property
    def has_ended(self) -> bool:
        """Whether no run is left to train."""
        return bool(self.runs) and all(
            one.status in {"finished", "diverged", "failed"} for one in self.runs
        )

    def as_json(self) -> Row:
        """The fields of summary.json."""
        parts = (self.share, self.tokens, self.values, self.edge, self.losses)
        return dict(zip(("share", "tokens", "values", "edge", "losses"), parts, strict=True))


@dataclass(frozen=True)
class Speedups:
    """How the loss of the baseline depends on its tokens, and how well that is known."""

    horizons: tuple[Horizon, ...]  # by rising tokens, the baseline's own in the middle
    scaling: stats.Scaling | None
    straight: stats.Straight | None
    why_not: str  # why there is no scaling; empty if there is
    is_tuned: bool  # whether the learning rate was tuned at the baseline's own tokens, too

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
    runs = [results.sweep.trials[one] for one in chosen["trials"].values()]
    budget: int = results.base["budget"]["tokens"]
    own = _horizon(results, 1.0, budget, chosen["values"], runs)
    rows = sorted(results.sweep.horizons.values(), key=lambda row: int(row["tokens"]))
    # Those of other values that the baseline had before are withdrawn.
    rows = [row for row in rows if results.sweep.trials.keys() >= set(row["rates"])]
    others = [_of_row(results, row, budget) for row in rows]
    every = tuple(sorted((*others, own), key=lambda one: one.tokens))
    why_not = _why_not(others)
    is_tuned = LR in (results.space.retune or {})
    if why_not:
        return Speedups(every, None, None, why_not, is_tuned)
    low, high = others
    seeds = [seed for seed in own.losses if seed in low.losses and seed in high.losses]
    found = stats.scaling(
        low.share,
        high.share,
        [low.losses[seed] - own.losses[seed] for seed in seeds],
        [own.losses[seed] - high.losses[seed] for seed in seeds],
    )
    if found is None:
        flat = "the baseline's loss does not fall with its tokens"
        few = "the baseline has not finished at all of them on two seeds"
        return Speedups(every, None, None, flat if len(seeds) > 1 else few, is_tuned)
    middle = sum(own.losses[seed] for seed in seeds) / len(seeds)
    return Speedups(every, found, found.straight(middle), "", is_tuned)


def _why_not(others: list[Horizon]) -> str:
    """Why runs at the lower and the higher number of tokens say nothing yet; empty if they do."""
    if len(others) < 2:
        return "the baseline has not been trained at other numbers of tokens yet"
    for one in others:
        if not one.has_ended:
            return f"the baseline has not finished at {one.share:g} times the tokens yet"
        lost = [run.status for run in one.runs if run.status != "finished"]
        if lost:
            return f"the baseline {lost[0]} at {one.share:g} times the tokens"
    return ""


def _of_row(results: Results, row: Row, budget: int) -> Horizon:
    """The horizon of a row."""
    trials = results.sweep.trials
    runs = [trials[one] for one in row["trials"].values()] or [trials[one] for one in row["rates"]]
    return _horizon(
        results, row["tokens"] / budget, row["tokens"], row["values"], runs, tuple(row["rates"])
    )


def _horizon(
    results: Results,
    share: float,
    tokens: int,
    values: dict[str, Any] | None,
    runs: list[Trial],
    rates: tuple[str, ...] = (),
) -> Horizon:
    tried = sorted(results.sweep.trials[one].value(LR) for one in rates)
    ends: dict[Any, Literal["lowest", "highest"]] = {}
    if tried and values is not None:
        ends = {tried[0]: "lowest", tried[-1]: "highest"}
    return Horizon(
        share=share,
        tokens=tokens,
        values=values,
        tried=len(tried),
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
    speeds = arm.tokens_per_s, base.tokens_per_s
    pace = speeds[0] / speeds[1] if speeds[0] and speeds[1] else None
    return found and ArmSpeedup(found, pace)
