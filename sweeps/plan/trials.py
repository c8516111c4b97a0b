"""The trials of a space, in order: a pure function of (space, base config, seed).

The id of a trial is the digest of its config, so a trial that is asked for twice is one trial.
Three things can't be planned ahead, because they depend on what was measured: the next trial of an
Optuna search (`sweeps.plan.optuna`), the runs of an arm whose re-tune grid chooses their values
(`sweeps.plan.arms`), and the trials that confirm the best of a sweep (`confirmation`).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeps.plan import arms
from sweeps.plan.arms import PlannedArm
from sweeps.plan.domains import Domain, Value
from sweeps.plan.request import Machine, PlannedTrial, Request, label_of
from sweeps.plan.space import CONFIRMING_SEED, OptunaSearch, RandomSearch, Space, rung_tokens
from tinylm import config as cfg
from tinylm.config import ConfigError

MOST_DRAWS = 1000  # for one sample within a constraint
_PROBED = 100  # random samples by which an Optuna search is checked before it runs


@dataclass(frozen=True)
class Sample:
    """Values from a space, and how many draws they took."""

    values: dict[str, Value]
    draws: int = 1


@dataclass(frozen=True)
class Plan:
    """The part of a sweep that is known before anything is measured."""

    trials: list[PlannedTrial]
    arms: list[PlannedArm]  # of a study: the baseline and the arms
    notes: list[str]  # for the user, on how it was planned


def trials(request: Request, samples: Iterable[Sample], seeds: Iterable[int]) -> list[PlannedTrial]:
    """The trials of each sample on each seed, without duplicates.

    `ConfigError` with every problem of every trial.
    """
    planned: dict[str, PlannedTrial] = {}
    wrong: dict[str, None] = {}
    several = request.seeds != [0]
    for seed, sample in itertools.product(seeds, list(samples)):
        parts = (label_of(sample.values), f"seed={seed}" if several else "")
        label = " ".join(part for part in parts if part) or "config"
        changes = {**sample.values, "run.seed": seed}
        try:
            config = cfg.overlay(request.base, changes, f"{request.source}: {label}")
            trial = PlannedTrial(config, sample.values, label, draws=sample.draws)
            planned.setdefault(trial.trial, trial)
        except ConfigError as error:
            wrong.update(dict.fromkeys(error.problems))
    if wrong:
        raise ConfigError(wrong)
    return list(planned.values())


def plan(request: Request, machine: Machine) -> Plan:
    """The trials that are known before anything is measured.

    For an Optuna search there are none. For a study they are the re-tune grids, or all runs if it
    has no re-tune grid. `ConfigError` with every problem of every trial.
    """
    space = request.space
    rung_tokens(space, request.base, request.source)
    if space.caps.gpu_hours is not None and request.base.run.device != "cuda":
        problem = (
            f"{request.source}: caps.gpu_hours: run.device is {request.base.run.device}; use hours"
        )
        raise ConfigError([problem])
    if space.is_study:
        planned_arms, notes = arms.planned_arms(request, machine)
        known = [trial for arm in planned_arms for trial in arms.tuning(request, arm)]
        if not space.retune:
            known = [trial for arm in planned_arms for trial in arms.runs(request, arm, {})]
        return Plan(known, planned_arms, notes)
    match space.search:
        case RandomSearch(samples=count):
            samples = [draw(request, machine, index) for index in range(count)]
            return Plan(trials(request, samples, request.seeds), [], _draw_notes(space, samples))
        case OptunaSearch():
            # A rule that random samples break, the trials to come may break: it is an error now.
            samples = [draw(request, machine, index) for index in range(_PROBED)]
            trials(request, samples, request.seeds)
            return Plan([], [], [])
        case _:
            grid = trials(request, map(Sample, _grid_points(space)), request.seeds)
            return Plan(grid + list(_repeats(request, grid)), [], [])


def _repeats(request: Request, planned: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
    """More runs of the trials of the first seed, as many as the space asks for."""
    for number, one in itertools.product(range(1, request.space.repeats), planned):
        if one.config.run.seed == request.seeds[0]:
            config = cfg.overlay(one.config, {"run.repeat": number})
            values = {**one.values, "run.repeat": number}
            label = f"{one.label} repeat={number}"
            yield replace(one, config=config, values=values, label=label, role="repeat")


def unwanted(request: Request, machine: Machine, planned: Plan, sweep: Sweep) -> list[str]:
    """The trials of a sweep that its space no longer has, in the order in which they were planned."""
    wanted = {one.trial for one in planned.trials}
    if isinstance(request.space.search, OptunaSearch):
        wanted |= set(_still_drawn(request, machine, request.space.search.samples, sweep))
    for arm in planned.arms:
        choice = sweep.chosen.get(arm.name)
        if choice is None:  # not settled again: it may choose as before
            wanted |= {trial.trial for trial in sweep.trials.values() if trial.arm == arm.name}
        elif choice["values"] is not None:
            wanted |= {one.trial for one in arms.runs(request, arm, choice["values"])}
    if request.space.confirm:
        again = sweep.confirming
        wanted |= (
            {trial.trial for trial in sweep.trials.values() if trial.role == "confirm"}
            if again is None
            else set(again["trials"].values())
        )
    return [trial for trial in sweep.trials if trial not in wanted]


def _still_drawn(request: Request, machine: Machine, samples: int, sweep: Sweep) -> list[str]:
    """The first so many trials of an Optuna search that its space can still draw."""
    drawn = [
        trial.trial
        for trial in sweep.trials.values()
        if trial.role == "search"
        and trial.seed == request.seeds[0]
        and is_in_space(request, machine, trial.values)
    ]
    return drawn[:samples]


def confirmation(request: Request, values: Mapping[str, Value]) -> list[PlannedTrial]:
    """The trials that run the best values of a sweep again, on seeds that did not choose them."""
    first = CONFIRMING_SEED + request.seed
    found = trials(request, [Sample(dict(values))], range(first, first + request.space.confirm))
    labels = [label_of(values), "seed={}", "(confirm)"]
    return [
        replace(one, label=" ".join(labels).format(one.config.run.seed).strip(), role="confirm")
        for one in found
    ]


@dataclass(frozen=True)
class Load:
    """The configs of all trials of a sweep; those that can't be planned have the base's values."""

    pools: list[list[cfg.Config]]  # of trials that compete and may be stopped early
    free: list[cfg.Config]  # of trials that run to the end

    @property
    def configs(self) -> list[cfg.Config]:
        """All configs, the pools first."""
        return [*itertools.chain(*self.pools), *self.free]

    @property
    def tokens(self) -> int:
        """The training tokens of all trials, without early stopping."""
        return sum(config.budget.tokens for config in self.configs)


def load(request: Request, planned: Plan) -> Load:
    """The work of a sweep, as far as it is known before it runs."""
    space = request.space
    pools: dict[str, list[cfg.Config]] = {}
    free = [request.base] * space.confirm
    for one in planned.trials:
        (free if one.pool is None else pools.setdefault(one.pool, [])).append(one.config)
    if isinstance(space.search, OptunaSearch):
        pools[""] = [request.base] * space.search.samples
    if space.retune:
        free += [one.config for arm in planned.arms for one in arms.runs(request, arm, {})]
    return Load(list(pools.values()), free)


def _grid_points(space: Space) -> Iterator[dict[str, Value]]:
    """Every combination of the listed values; the first path changes slowest."""

    def extend(
        values: dict[str, Value], rest: list[tuple[str, Domain]]
    ) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
            return
        (path, domain), *rest = rest
        for value in domain.resolve(values).values:
            yield from extend({**values, path: value}, rest)

    yield from extend({}, list(space.space.items()))


def draw(request: Request, machine: Machine, index: int) -> Sample:
    """The sample of an index. It has its own random stream, so more samples keep the earlier ones.

    `ConfigError` if none of `MOST_DRAWS` draws is within the constraint.
    """
    rng = np.random.default_rng([request.seed, index])
    for count in range(1, MOST_DRAWS + 1):
        values: dict[str, Value] = {}
        for path, domain in request.space.space.items():
            values[path] = domain.resolve(values).draw(rng)
        if is_within_constraint(request, machine, values):
            return Sample(values, count)
    raise ConfigError([_no_draw_within_constraint(request, machine, values)])


def is_within_constraint(request: Request, machine: Machine, values: Mapping[str, Value]) -> bool:
    """Whether the model with these values is within the constraint, if the space has one."""
    constraint = request.space.constraint
    if constraint is None:
        return True
    return constraint.allows(*_size(request, machine, values))


def _size(request: Request, machine: Machine, values: Mapping[str, Value]) -> tuple[int, int]:
    """Parameters and FLOPs per training token of the model with these values."""
    return machine.size(cfg.overlay(request.base, values, request.source).model)


def _no_draw_within_constraint(
    request: Request, machine: Machine, last: Mapping[str, Value]
) -> str:
    """The error that no draw was within the constraint, with the size of the last one."""
    constraint = request.space.constraint
    assert constraint is not None
    params, flops = _size(request, machine, last)
    return (
        f"{request.source}: constraint: none of {MOST_DRAWS} draws has {constraint.text}; "
        f"the last has {params} parameters and {flops} FLOPs per token"
    )


def _draw_notes(space: Space, samples: Iterable[Sample]) -> list[str]:
    """A note on how many draws the constraint took; none without a constraint."""
    if space.constraint is None:
        return []
    draws = [sample.draws for sample in samples]
    return [f"{len(draws)} of {sum(draws)} draws have {space.constraint.text}"]
