"""The noise of a run: how much losses of one config differ, over seeds and over repeats."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sweeps import stats
from sweeps.findings.results import Results
from sweeps.ledger import Row, Trial, value_of
from sweeps.selection import Point, losses_at, records


def course(trial: Trial) -> list[float]:
    """The first training losses of a trial, then the losses of its records. Any switch with an effect
    changes them."""
    measured = records(trial)
    first = measured[0].first_losses if measured else []
    return [*first, *(loss for one in measured for loss in (one.train_loss, one.val_loss))]


@dataclass(frozen=True)
class SeedNoise:
    """The spread of final losses over the seeds of a search."""

    noise: stats.Noise | None  # pooled over choices of values; None if none has two seeds
    point: Point | None
    groups: tuple[int, ...]  # number of seeds of each choice with several
    repeats: tuple[int, ...]  # number of runs of each config and seed with several
    repeats_apart: float | None  # largest difference between any of their recorded losses

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            **(asdict(self.noise) if self.noise is not None else {"sd": None}),
            "tokens": self.point,
            "groups": self.groups,
            "repeats": self.repeats,
            "repeats_apart": self.repeats_apart,
        }


def seed_noise(results: Results) -> SeedNoise | None:
    """The spread of final losses over seeds, and the largest difference between repeats of a run.

    The spread is pooled over the choices of values whose seeds all finished. None if no choice has
    two seeds or repeats. The noise of a study is in its comparison.
    """
    again = "run.repeat"
    over_seeds: dict[str, list[Trial]] = {}
    repeated: dict[tuple[str, int], list[Trial]] = {}
    for trial in results.sweep.trials.values():
        value = value_of({path: one for path, one in trial.values.items() if path != again})
        if trial.role == "search":
            over_seeds.setdefault(value, []).append(trial)
        if trial.role != "tuning" and trial.status == "finished":
            repeated.setdefault((value, trial.seed), []).append(trial)
    # Seeds that survived early stopping have a smaller spread than all seeds.
    whole = [each for each in over_seeds.values() if all(t.status == "finished" for t in each)]
    losses = [losses_at(each, results.final, results.metric) for each in whole]
    several = [group for group in repeated.values() if len(group) > 1]
    noise = stats.pooled_noise(losses)
    if noise is None and not several:
        return None
    return SeedNoise(
        noise=noise,
        point=results.final,
        groups=tuple(sorted(len(group) for group in losses if len(group) > 1)),
        repeats=tuple(len(group) for group in several),
        repeats_apart=max(map(_apart, several), default=None),
    )


def _apart(group: Sequence[Trial]) -> float:
    """The largest difference between a repeat and the first run."""
    first = course(group[0])
    return max(
        abs(a - b) for repeat in group[1:] for a, b in zip(first, course(repeat), strict=False)
    )
