"""The next trial of an Optuna search, with any policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.plan import trials as plan
from sweeps.plan.domains import Value
from sweeps.plan.request import Machine, PlannedTrial, Request
from sweeps.plan.sections import OptunaSearch

_MOST_ASKED = (
    100  # suggestions in a row that are impossible or known, before one is drawn at random
)

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

    None if the search has all its samples, or if the space has no further trial. Trials of other
    seeds, and those that the space no longer has, do not count.
    """
    space = request.space
    assert isinstance(space.search, OptunaSearch)
    counted = [
        (trial, drawn)
        for trial in past
        if trial.seed == request.seeds[0]
        and (drawn := _drawn_from(request, machine, trial.values)) is not None
    ]
    start = {plan.key_of(sample.values) for sample in plan.start_samples(request, machine)[0]}
    sampled = [trial for trial, _ in counted if plan.key_of(trial.values) not in start]
    if len(sampled) >= space.search.samples:
        return None
    study = _study(request.seed, counted)
    known = {trial.trial for trial in past}
    return _new_trial(request, machine, study, known) or _random_trial(
        request, machine, [trial for trial, _ in counted], known
    )


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
    sampler = optuna.samplers.TPESampler(
        seed=(seed * 1_000_003 + len(counted)) % 2**32, constant_liar=True
    )
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
    """The first suggestion that is possible and not known; None if there is none among the first."""
    import optuna

    for draws in range(1, _MOST_ASKED + 1):
        suggestion = study.ask()
        values = _values(request, suggestion)
        if plan.why_not(request, machine, values) is None:
            (new,) = plan.trials(request, [plan.Sample(values, draws)], request.seeds)
            if new.trial not in known:
                return new
            study.tell(suggestion, state=optuna.trial.TrialState.FAIL)
        else:
            suggestion.set_constraint("possible", 1.0)  # above 0 is infeasible
            study.tell(suggestion, state=optuna.trial.TrialState.PRUNED)
    return None


def _random_trial(
    request: Request, machine: Machine, counted: list[PastTrial], known: set[str]
) -> PlannedTrial | None:
    """A random trial that is possible and not known; None if there is none."""
    before = {plan.key_of(trial.values) for trial in counted}
    sample = plan.Draws(request, machine).another(len(counted), before)
    if sample is None:
        return None
    (new,) = plan.trials(request, [sample], request.seeds)
    return None if new.trial in known else new


def _values(request: Request, suggestion: Any) -> dict[str, Value]:
    """The values that Optuna suggests, by path."""
    values: dict[str, Value] = {}
    for path, domain in request.space.space.items():
        known = {**request.flat, **values}
        here = domain.resolve(known)
        if len(here.values) == 1:  # nothing to suggest
            values[path] = here.values[0]
        else:
            name = path + domain.condition(known)
            drawn = suggestion._suggest(name, here.distribution())  # noqa: SLF001 takes any
            values[path] = here.at(drawn)
    return values


def _drawn_from(request: Request, machine: Machine, values: Mapping[str, Value]) -> Drawn | None:
    """Values as Optuna knows them, with the distributions they came from; None for values that the
    space does not have."""
    if not plan.is_in_space(request, machine, values):
        return None
    drawn, known = {}, {**request.flat, **values}
    for path, domain in request.space.space.items():
        here = domain.resolve(known)
        if len(here.values) != 1:
            name = path + domain.condition(known)
            drawn[name] = (here.coordinate(values[path]), here.distribution())
    return drawn
