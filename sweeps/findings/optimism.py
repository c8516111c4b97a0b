"""The best of several is a selection: what its loss may owe to luck, and what fresh seeds say."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.findings.results import ENDINGS, Results, status_of
from sweeps.ledger import Row, Trial
from sweeps.selection import at, final_point, groups, last_record, losses_at


@dataclass(frozen=True)
class Selection:
    """The choice of the best values."""

    values: dict[str, Any]
    among: int  # choices of values that have a result
    seeds: int
    mean: float  # loss over the seeds
    optimism: float | None  # how much higher new seeds may be expected to end; None of one seed
    confirmed: tuple[float, ...]  # losses of the same values on fresh seeds

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def confirming(results: Results) -> list[Trial]:
    """The trials that run the best of a search again on fresh seeds; none where that is not asked."""
    row = results.sweep.confirming
    return [results.sweep.trials[name] for name in row["trials"].values()] if row else []


def selection(results: Results, winner: Sequence[Trial]) -> Selection | None:
    """What choosing the winner may have flattered it by; None where nothing was chosen.

    The optimism is the mean, over the seeds, of the loss at a seed of the values that the other seeds
    choose, less the lowest mean over all seeds: what choosing by these seeds gains over new ones.
    """
    finished = [trial for trial in results.trials if trial.status == "finished"]
    point = final_point(finished)
    if not winner or point is None:
        return None
    losses = [
        {
            trial.seed: record.loss(results.metric)
            for trial in group
            if (record := at(trial, point)) is not None
        }
        for group in groups(finished)
        if len(group) == len(winner)
    ]
    seeds = sorted(set.intersection(*(set(each) for each in losses)))
    mean = statistics.fmean(losses_at(winner, point, results.metric))
    ends = [last_record(trial) for trial in confirming(results) if trial.status == "finished"]
    return Selection(
        values=winner[0].values,
        among=len(groups(trial for trial in results.trials if status_of(trial) in ENDINGS)),
        seeds=len(winner),
        mean=mean,
        optimism=_optimism(losses, seeds, mean) if len(seeds) > 1 < len(losses) else None,
        confirmed=tuple(record.loss(results.metric) for record in ends if record is not None),
    )


def _optimism(losses: Sequence[Mapping[int, float]], seeds: Sequence[int], mean: float) -> float:
    left_out = []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        chosen = min(losses, key=lambda each: statistics.fmean(each[s] for s in others))
        left_out.append(chosen[seed])
    return statistics.fmean(left_out) - mean
