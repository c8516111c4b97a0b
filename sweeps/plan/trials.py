"""What a space runs, in order: a pure function of (space, base config, seed).

Every trial has the digest of its whole config as its id, so that the same trial asked for twice is
one trial. Three things can't be planned ahead and are functions of what was measured so far: the
next trial of an Optuna search (`sweeps.plan.optuna`), the runs of an arm whose re-tune grid chooses
their values (`sweeps.plan.arms`), and the trials that confirm a sweep's best (`confirmation`).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeps.plan import arms
from sweeps.plan.arms import PlannedArm
from sweeps.plan.domains import (
    Choice,
    Depends,
    Domain,
    Grid,
    Int,
    LogUniform,
    Uniform,
    Value,
    written,
)
from sweeps.plan.request import Machine, PlannedTrial, Request, label_of
from sweeps.plan.space import CONFIRMING_SEED, OptunaSearch, RandomSearch, Space, rung_tokens
from tinylm import config as cfg
from tinylm.config import ConfigError

MOST_DRAWS = 1000  # for one sample under a constraint
_PROBED = 100  # random points that stand for those of an Optuna search
Rng = np.random.Generator


@dataclass(frozen=True)
class Sample:
    """Values that a space chose, and how many draws it took."""

    values: dict[str, Value]
    draws: int = 1


@dataclass(frozen=True)
class Plan:
    """What is known before anything is measured."""

    trials: list[PlannedTrial]
    arms: list[PlannedArm]  # of a study: the baseline and the arms
    notes: list[str]  # what was found out on the way


def trials(request: Request, points: Iterable[Sample], seeds: Iterable[int]) -> list[PlannedTrial]:
    """The trials of each point on each seed; `ConfigError` with what is wrong in any of them.

    Equal ones are one.
    """
    planned: dict[str, PlannedTrial] = {}
    wrong: dict[str, None] = {}
    several = request.seeds != [0]
    for seed, point in itertools.product(seeds, list(points)):
        parts = (label_of(point.values), f"seed={seed}" if several else "")
        label = " ".join(part for part in parts if part) or "config"
        changes = {**point.values, "run.seed": seed}
        try:
            config = cfg.overlay(request.base, changes, f"{request.source}: {label}")
            trial = PlannedTrial(config, point.values, label, draws=point.draws)
            planned.setdefault(trial.trial, trial)
        except ConfigError as error:
            wrong.update(dict.fromkeys(error.problems))
    if wrong:
        raise ConfigError(wrong)
    return list(planned.values())


def plan(request: Request, machine: Machine) -> Plan:
    """The trials that are known before anything is measured; for optuna none.

    For a study these are the re-tune grids, and all runs of arms without one. `ConfigError` with
    every problem of every trial.
    """
    space = request.space
    rung_tokens(space, request.base, request.source)
    if space.caps.gpu_hours is not None and request.base.run.device != "cuda":
        problem = (
            f"{request.source}: caps.gpu_hours: run.device is {request.base.run.device}; cap hours"
        )
        raise ConfigError([problem])
    if space.is_study:
        planned_arms, notes = arms.planned_arms(request, machine)
        found = [trial for arm in planned_arms for trial in arms.tuning(request, arm)]
        if not space.retune:
            found = [trial for arm in planned_arms for trial in arms.runs(request, arm, {})]
        return Plan(found, planned_arms, notes)
    match space.search:
        case RandomSearch(samples=samples):
            points = [draw(request, machine, index) for index in range(samples)]
            return Plan(trials(request, points, request.seeds), [], _met(space, points))
        case OptunaSearch():
            # Random points stand for those to come: what they break is broken now.
            points = [draw(request, machine, index) for index in range(_PROBED)]
            trials(request, points, request.seeds)
            return Plan([], [], [])
        case _:
            grid = trials(request, map(Sample, _grid_points(space)), request.seeds)
            return Plan(grid + list(_repeats(request, grid)), [], [])


def _repeats(request: Request, planned: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
    """The trials of the first seed once more, as often as the space says."""
    for number, one in itertools.product(range(1, request.space.repeats), planned):
        if one.config.run.seed == request.seeds[0]:
            config = cfg.overlay(one.config, {"run.repeat": number})
            values = {**one.values, "run.repeat": number}
            label = f"{one.label} repeat={number}"
            yield replace(one, config=config, values=values, label=label, role="repeat")


def confirmation(request: Request, values: Mapping[str, Value]) -> list[PlannedTrial]:
    """The trials that run the best values of a sweep again, on seeds that had no part in choosing
    them."""
    first = CONFIRMING_SEED + request.seed
    found = trials(request, [Sample(dict(values))], range(first, first + request.space.confirm))
    labels = [label_of(values), "seed={}", "(confirm)"]
    return [
        replace(one, label=" ".join(labels).format(one.config.run.seed).strip(), role="confirm")
        for one in found
    ]


@dataclass(frozen=True)
class Load:
    """The configs of all that a sweep trains. What can't be planned has the base's values."""

    pools: list[list[cfg.Config]]  # each stopped early within itself
    free: list[cfg.Config]  # trained to their ends

    @property
    def configs(self) -> list[cfg.Config]:
        """All of them, the pools first."""
        return [*itertools.chain(*self.pools), *self.free]

    @property
    def tokens(self) -> int:
        """Training tokens of them all, nothing stopped."""
        return sum(config.budget.tokens for config in self.configs)


def load(request: Request, planned: Plan) -> Load:
    """What a sweep has to train, as far as can be told before."""
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


# Points ----------------------------------------------------------------------------------------------


def _grid_points(space: Space) -> Iterator[dict[str, Value]]:
    def extend(values: dict[str, Value], rest: list[tuple[str, Any]]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
            return
        (path, domain), *rest = rest
        for value in _grid(domain, values):
            yield from extend({**values, path: value}, rest)

    yield from extend({}, list(space.space.items()))


def _grid(domain: Domain, values: Mapping[str, Value]) -> list[Value]:
    domain = resolve(domain, values)
    assert isinstance(domain, Grid)
    return domain.grid


def resolve(domain: Domain, values: Mapping[str, Value]) -> Domain:
    """The domain that holds, given the values of the paths above."""
    while isinstance(domain, Depends):
        domain = domain.depends.cases[written(values[domain.depends.on])]
    return domain


def _draw(domain: Domain, rng: Rng) -> Value:
    match domain:
        case Choice(choice=values):
            return values[int(rng.integers(len(values)))]
        case Uniform(uniform=[low, high]):
            return float(rng.uniform(low, high))
        case LogUniform(loguniform=[low, high]):
            # The exponential of a logarithm may pass a bound by its last digit.
            return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
        case Int(int=[low, high]):
            return int(rng.integers(low, high, endpoint=True))
    raise AssertionError(domain)


def draw(request: Request, machine: Machine, index: int) -> Sample:
    """The sample of one index: a stream of its own, so that more samples change none before.

    `ConfigError` where `MOST_DRAWS` of it do not meet the constraint.
    """
    rng = np.random.default_rng([request.seed, index])
    for count in range(1, MOST_DRAWS + 1):
        values: dict[str, Value] = {}
        for path, domain in request.space.space.items():
            values[path] = _draw(resolve(domain, values), rng)
        if meets(request, machine, values):
            return Sample(values, count)
    raise ConfigError([f"{request.source}: constraint: {unmet(request, machine, values)}"])


def meets(request: Request, machine: Machine, values: Mapping[str, Value]) -> bool:
    """Whether the model that values make is within the constraint, where there is one."""
    constraint = request.space.constraint
    if constraint is None:
        return True
    model = cfg.overlay(request.base, values, request.source).model
    bounds = (constraint.params, constraint.flops_per_token)
    return all(
        bound is None or bound[0] <= found <= bound[1]
        for found, bound in zip(machine.size(model), bounds, strict=True)
    )


def unmet(request: Request, machine: Machine, values: Mapping[str, Value]) -> str:
    """That no draw met the constraint, with the size of the last one."""
    constraint = request.space.constraint
    assert constraint is not None
    params, flops = machine.size(cfg.overlay(request.base, values, request.source).model)
    return (
        f"none of {MOST_DRAWS} draws has {_said(constraint)}; the last has {params} parameters and "
        f"{flops} FLOPs per token"
    )


def _said(constraint: Any) -> str:
    parts = {
        "parameters": constraint.params,
        "FLOPs per token": constraint.flops_per_token,
    }
    return " and ".join(f"{b[0]:g} to {b[1]:g} {name}" for name, b in parts.items() if b)


def _met(space: Space, points: Iterable[Sample]) -> list[str]:
    """How many draws it took to meet the constraint, in words; nothing where there is none."""
    if space.constraint is None:
        return []
    counts = [point.draws for point in points]
    return [f"{len(counts)} of {sum(counts)} draws have {_said(space.constraint)}"]
