"""The next trial of an Optuna search, with any policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.plan import trials as plan
from sweeps.plan.domains import Value
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.plan.space import OptunaSearch, Space

_MOST_REPEATS = 100  # of earlier trials that are drawn before the space counts as exhausted

Drawn = dict[str, tuple[Value, Any]]  # value and distribution by Optuna's name of the path


@dataclass(frozen=True)
class PastTrial:
    """An earlier trial: its scores by tokens, and how it ended."""

    trial: str
    seed: int
    values: dict[str, Value]
    scores: dict[int, float]
    state: Literal["running", "finished", "stopped", "diverged", "failed"]


def suggest(request: Request, machine: Machine, past: list[PastTrial]) -> PlannedTrial | None:
    """The next trial of an Optuna search: a function of the request and of all earlier trials.

    None if the search has all its samples, or if it draws only earlier trials and ones outside the
    constraint, again and again. Trials of other seeds, and those that the space can no longer draw,
    do not count.
    """
    space = request.space
    assert isinstance(space.search, OptunaSearch)
    counted = [
        (trial, drawn)
        for trial in past
        if trial.seed == request.seeds[0]
        and (drawn := _drawn_from(space, trial.values)) is not None
    ]
    if len(counted) >= space.search.samples:
        return None
    study = _study(request.seed, counted)
    return _new_trial(request, machine, study, known={trial.trial for trial in past})


def _study(seed: int, counted: list[tuple[PastTrial, Drawn]]) -> Any:
    """An Optuna study that knows the earlier trials.

    Early-stopped and diverged trials count as pruned, so that their losses are never taken for
    final ones. Running trials count too, so that parallel suggestions differ.
    """
    import optuna

    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "finished": optuna.trial.TrialState.COMPLETE,
        "stopped": optuna.trial.TrialState.PRUNED,
        "diverged": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + len(counted), constant_liar=True)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for trial, drawn in counted:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.state],
                params={name: value for name, (value, _) in drawn.items()},
                distributions={name: distribution for name, (_, distribution) in drawn.items()},
                value=list(trial.scores.values())[-1] if trial.state == "finished" else None,
                intermediate_values=trial.scores if trial.state != "diverged" else {},
            )
        )
    return study


def _new_trial(
    request: Request, machine: Machine, study: Any, known: set[str]
) -> PlannedTrial | None:
    """The first suggestion that is within the constraint and not known; None if there is none."""
    import optuna

    repeats = 0
    for draws in range(1, plan.MOST_DRAWS + 1):
        suggestion = study.ask()
        values = _values(request.space, suggestion)
        if plan.is_within_constraint(request, machine, values):
            (new,) = plan.trials(request, [plan.Sample(values, draws)], request.seeds)
            if new.trial not in known:
                return new
            repeats += 1
        if repeats == _MOST_REPEATS:
            return None
        study.tell(suggestion, state=optuna.trial.TrialState.FAIL)
    return None


def _values(space: Space, suggestion: Any) -> dict[str, Value]:
    """The values that Optuna suggests, by path."""
    values: dict[str, Value] = {}
    for path in space.space:
        name, distribution = _distribution(space, path, values)
        values[path] = suggestion._suggest(name, distribution)  # noqa: SLF001 takes any distribution
    return values


def _drawn_from(space: Space, values: Mapping[str, Value]) -> Drawn | None:
    """Values with the distributions they came from; None for values that the space can't draw."""
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
