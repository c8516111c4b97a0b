"""Selection bias: how far the best of several may be due to luck, and its loss on fresh seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.findings.results import ENDINGS, Results, status_of
from sweeps.ledger import Row, Trial
from sweeps.selection import groups, losses_at, losses_by_seed, losses_by_seed_at

# A smaller optimism is 0.0000 in the four digits that losses are shown with.
NO_OPTIMISM = 5e-5


@dataclass(frozen=True)
class Selection:
    """The choice of the best values."""

    values: dict[str, Any]
    among: int  # choices of values with a result
    seeds: int
    mean: float  # loss over the seeds
    optimism: float | None  # expected increase on new seeds; None for one seed
    confirmed: tuple[float, ...]  # losses of the same values on fresh seeds, once all ended

    @property
    def is_stable(self) -> bool:
        """Whether the choice gains nothing that is shown on the seeds that it rests on."""
        return self.optimism is not None and self.optimism < NO_OPTIMISM

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def confirming(results: Results) -> list[Trial]:
    """The trials that rerun the best values of a search on fresh seeds; empty if not requested."""
    row = results.sweep.confirming
    return [results.sweep.trials[name] for name in row["trials"].values()] if row else []


def confirmed(results: Results) -> list[Trial]:
    """The runs of the best values on fresh seeds, once all of them have ended."""
    again = confirming(results)
    return again if all(status_of(trial) in ENDINGS for trial in again) else []


def selection(results: Results, winner: Sequence[Trial]) -> Selection | None:
    """The choice of the winner and its selection bias; None if there was no choice.

    For each seed, the values with the lowest loss over the other seeds are chosen, and their loss at
    this seed is taken. The optimism is the mean of these losses less the lowest mean over all seeds.
    """
    finished = [trial for trial in results.trials if trial.status == "finished"]
    point = results.point_of(finished)
    if not winner or point is None:
        return None
    losses = [
        losses_by_seed_at(group, point, results.metric)
        for group in groups(finished)
        if len(group) == len(winner)
    ]
    seeds = sorted(set.intersection(*(set(each) for each in losses)))
    mean = statistics.fmean(losses_at(winner, point, results.metric))
    ended = [t for t in results.trials if status_of(t) in ENDINGS and not t.is_untried]
    return Selection(
        values=winner[0].values,
        among=len(groups(ended)),
        seeds=len(winner),
        mean=mean,
        optimism=optimism_of(losses, seeds, mean) if len(seeds) > 1 < len(losses) else None,
        confirmed=tuple(losses_by_seed(confirmed(results), results.metric).values()),
    )


def optimism_of(losses: Sequence[Mapping[int, float]], seeds: Sequence[int], mean: float) -> float:
    """By how much the losses of values at seeds that were left out of the choice are higher than the lowest mean."""
    left_out = []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        chosen = min(losses, key=lambda each: statistics.fmean(each[s] for s in others))
        left_out.append(chosen[seed])
    return statistics.fmean(left_out) - mean
