"""The next trial of an Optuna search, on top of any policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.plan import trials as plan
from sweeps.plan.domains import Value
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.plan.space import OptunaSearch, Space


@dataclass(frozen=True)
class PastTrial:
    """What is known of an earlier trial: scores by tokens, and how it ended."""

    trial: str
    seed: int
    values: dict[str, Value]
    scores: dict[int, float]
    state: Literal["running", "finished", "stopped", "diverged", "failed"]


_DRAWS = 100  # that a sampler may repeat itself before the space counts as exhausted


def suggest(request: Request, machine: Machine, past: list[PastTrial]) -> PlannedTrial | None:
    """The next trial of an Optuna search, a function of the outcomes of all before it; None when
    it has all its samples, or when nothing but what it had, or what breaks the constraint, is
    drawn again and again.

    Early-stopped and diverged trials are told as pruned, so that their losses never pass for
    final ones; running ones are told too, so that parallel suggestions keep apart. Outcomes of
    other seeds, and those that the space of today can't draw, do not count.
    """
    import optuna

    space, seed = request.space, request.seed
    assert isinstance(space.search, OptunaSearch)
    own = [
        (outcome, drawn)
        for outcome in past
        if outcome.seed == request.seeds[0]
        and (drawn := _distributions(space, outcome.values)) is not None
    ]
    if len(own) >= space.search.samples:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + len(own), constant_liar=True)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "finished": optuna.trial.TrialState.COMPLETE,
        "stopped": optuna.trial.TrialState.PRUNED,
        "diverged": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for outcome, drawn in own:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[outcome.state],
                params={name: value for name, (value, _) in drawn.items()},
                distributions={name: distribution for name, (_, distribution) in drawn.items()},
                value=list(outcome.scores.values())[-1] if outcome.state == "finished" else None,
                intermediate_values=outcome.scores if outcome.state != "diverged" else {},
            )
        )
    known = {outcome.trial for outcome in past}
    repeated = 0
    for draws in range(1, plan.MOST_DRAWS + 1):
        trial = study.ask()
        values: dict[str, Value] = {}
        for path in space.space:
            name, distribution = _distribution(space, path, values)
            values[path] = trial._suggest(name, distribution)  # noqa: SLF001 takes any distribution
        if plan.meets(request, machine, values):
            (new,) = plan.trials(request, [plan.Sample(values, draws)], request.seeds)
            if new.trial not in known:
                return new
            repeated += 1
        if repeated == _DRAWS:
            return None
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return None


def _distributions(
    space: Space, values: Mapping[str, Value]
) -> dict[str, tuple[Value, Any]] | None:
    """Values and distributions by Optuna's names; None for values that the space can't draw."""
    if list(values) != list(space.space):
        return None
    drawn = {}
    for path, value in values.items():
        try:
            name, distribution = _distribution(space, path, values)
            if not distribution._contains(distribution.to_internal_repr(value)):  # noqa: SLF001
                return None
        except (KeyError, ValueError):  # no such case, no such choice
            return None
        drawn[name] = (value, distribution)
    return drawn


def _distribution(space: Space, path: str, values: Mapping[str, Value]) -> tuple[str, Any]:
    """Optuna's name and distribution of a path; each case of a dependent path has its own name."""
    domain = space.space[path]
    return path + domain.condition(values), domain.resolve(values).distribution()
