"""How much training the trials took to the target of their sweep."""

from dataclasses import dataclass

from sweeps.findings.results import Results, TrialResult
from sweeps.ledger import Row
from sweeps.plan.space import Target
from sweeps.selection import first_at_most


@dataclass(frozen=True)
class Race:
    """The trials at their first records at or below the target, the one of the fewest tokens first."""

    target: Target
    reached: tuple[TrialResult, ...]
    trained: int  # trials that have a record

    def as_json(self) -> Row:
        """The fields of summary.json."""
        seconds = (one.record and one.record.seconds for one in self.reached)
        return {
            "metric": self.target.metric,
            "limit": self.target.limit,
            "ends": self.target.ends,
            "trained": self.trained,
            "reached": [
                {**one.as_json(), "seconds": each}
                for one, each in zip(self.reached, seconds, strict=True)
            ],
        }


def race(results: Results) -> Race | None:
    """The trials that reached the target; None if the space has no target."""
    target = results.space.target
    if target is None:
        return None
    trials = [trial for trial in results.trials if trial.curve]
    found = [(trial, first_at_most(trial, target.metric, target.limit)) for trial in trials]
    reached = [(trial, record) for trial, record in found if record is not None]
    reached.sort(key=lambda pair: (pair[1].tokens, pair[1].loss(target.metric)))
    return Race(target, tuple(TrialResult(*pair) for pair in reached), len(trials))
