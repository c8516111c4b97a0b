"""Search spaces: one YAML file a question, and the trials that it plans.

The plan is a pure function of (space, base config, seed): an ordered list of trials, each with
the digest of its whole config as its id, so that the same trial asked for twice is one trial.
`search: {method: optuna}` is the exception that can't be planned: its next trial is a function
of (space, base config, seed, what was measured so far).
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from sweeps.ledger import NAME
from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES, AnySchedule
from sweeps.words import show
from tinylm import config as cfg
from tinylm.config import ConfigError, Section
from tinylm.yaml import YamlError, read_mapping

SPACES = Path("search_spaces")

Value = bool | int | float | str
Rng = np.random.Generator


# What a path may be --------------------------------------------------------------------------


def _listed(values: list[Value]) -> list[Value]:
    seen: list[Value] = []
    for value in values:
        # 1 and 1.0 are one learning rate, 1 and true are not one switch.
        if any(value == other and (type(value) is bool) == (type(other) is bool) for other in seen):
            raise ValueError(f"{value!r} stands twice")
        seen.append(value)
    return values


def _ascending(bounds: list[float]) -> list[float]:
    low, high = bounds
    if not low < high:
        raise ValueError(f"lower bound {low:g} must be below upper bound {high:g}")
    return bounds


Values = Annotated[list[Value], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bounds = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Whole = Annotated[int, Field(gt=-(2**53), lt=2**53)]


class Grid(Section):
    """Every one of the values."""

    grid: Values
    _check = field_validator("grid")(_listed)


class Choice(Section):
    """One of the values, all equally likely."""

    choice: Values
    _check = field_validator("choice")(_listed)


class Uniform(Section):
    """A number between two bounds."""

    uniform: Bounds
    _check = field_validator("uniform")(_ascending)


class LogUniform(Section):
    """A number between two positive bounds whose logarithm is uniform; bounds are the values."""

    loguniform: Annotated[list[cfg.Positive], Field(min_length=2, max_length=2)]
    _check = field_validator("loguniform")(_ascending)


class Int(Section):
    """A whole number from the first to the second bound, both included."""

    int: Annotated[list[Whole], Field(min_length=2, max_length=2)]
    _check = field_validator("int")(_ascending)


class Cases(Section):
    """What a path may be for each value of another path of the space, written above it."""

    on: str
    cases: Annotated[dict[str, "Domain"], Field(min_length=1)]


class Depends(Section):
    """A path whose domain depends on the value of another one."""

    depends: Cases


_KINDS = {"grid": Grid, "choice": Choice, "uniform": Uniform, "loguniform": LogUniform, "int": Int}


def _kind(value: object) -> str:
    """The kind of a domain is its one key; no kind is guessed from a shape."""
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return type(value).__name__.lower()


Domain = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Int, Tag("int")]
    | Annotated[Depends, Tag("depends")],
    Discriminator(
        _kind,
        custom_error_type="domain",
        custom_error_message=(
            "one of {grid: [..]}, {choice: [..]}, {uniform: [a, b]}, {loguniform: [a, b]}, "
            "{int: [a, b]}, {depends: {on: PATH, cases: {..}}} is due"
        ),
    ),
]
Cases.model_rebuild()


# How they are searched and scheduled ---------------------------------------------------------


Samples = Annotated[int, Field(ge=1, le=1_000_000)]


class GridSearch(Section):
    """Every combination of the grids."""

    method: Literal["grid"]


class RandomSearch(Section):
    """Independent draws; more samples add to the ones before."""

    method: Literal["random"]
    samples: Samples


class OptunaSearch(Section):
    """Optuna's tree-structured Parzen estimator over what was measured so far."""

    method: Literal["optuna"]
    samples: Samples


class Resources(Section):
    """What one trial takes."""

    cpus: cfg.Positive = 1
    gpus: cfg.Positive = Field(default=1, description="Taken where run.device is cuda.")


class Caps(Section):
    """Budgets of the whole sweep; where one is used up, the sweep ends at the next records."""

    tokens: cfg.Positive | None = Field(default=None, description="Training tokens.")
    flops: cfg.Positive | None = Field(default=None, description="FLOPs of those tokens.")
    hours: cfg.Positive | None = Field(default=None, description="Hours by the clock.")
    gpu_hours: cfg.Positive | None = Field(
        default=None, description="Hours in which trials hold GPUs, times those they hold."
    )
    money: cfg.Positive | None = Field(
        default=None, description="Hours by the clock times price_per_hour, in its currency."
    )
    price_per_hour: cfg.Positive | None = Field(
        default=None, description="What an hour of all machines of the sweep costs."
    )

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.money is None) != (self.price_per_hour is None):
            raise ValueError("money and price_per_hour go together; one of them is missing")
        return self


class Space(Section):
    """A question, and the trials that answer it."""

    question: Annotated[str, Field(min_length=1)]
    metric: Literal["val_loss", "bits_per_byte"] = "val_loss"
    base: dict[str, Value] = Field(
        default_factory=dict, description="Dotted paths that replace values of the scale's config."
    )
    search: Annotated[GridSearch | RandomSearch | OptunaSearch, Field(discriminator="method")]
    space: Annotated[dict[str, Domain], Field(min_length=1)]
    seeds: Annotated[list[cfg.Seed], Field(min_length=1)] = Field(default=[0])
    schedule: AnySchedule = DEFAULT_SCHEDULE
    resources: Resources = Resources()
    caps: Caps = Caps()

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        _listed(list(seeds))
        return seeds

    @model_validator(mode="after")
    def _rules(self) -> Self:
        wrong = [*self._incomparable(), *self._wrong_kinds()]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _incomparable(self) -> Iterator[str]:
        if "run.device" in self.space:
            yield "space.run.device: every trial takes the same resources"
        if self.schedule.shares():
            for path in self.space:
                if path.startswith(("budget.", "eval.")):
                    yield f"space.{path}: rungs need the same {path} in every trial"
        if self.metric == "val_loss" and any(
            path == "model.vocab_size" or path.startswith("data.") for path in self.space
        ):
            yield "metric: losses per token of two tokenizers can't be compared; use bits_per_byte"

    def _wrong_kinds(self) -> Iterator[str]:
        above: list[str] = []
        for path, domain in self.space.items():
            yield from self._wrong_domain(f"space.{path}", domain, above)
            above.append(path)
        if self.search.method == "optuna" and len(self.seeds) > 1:
            yield f"seeds: optuna searches one seed, got {self.seeds}"

    def _wrong_domain(self, where: str, domain: "Domain", above: list[str]) -> Iterator[str]:
        if isinstance(domain, Depends):
            on = domain.depends.on
            if on not in above:
                near = cfg.did_you_mean(on, above)
                yield f"{where}.depends.on: {on} must stand above in the space{near}"
                return
            if any(isinstance(one, Int) for one in _leaves(self.space[on])):
                yield f"{where}.depends.on: {on} must list its values, got int"
                return
            values = {written(value) for value in _outcomes(self.space[on])}
            cases = set(domain.depends.cases)
            if values != cases:
                yield (
                    f"{where}.depends.cases: {on} takes {', '.join(sorted(values)) or 'no list'}, "
                    f"cases are {', '.join(sorted(cases))}"
                )
            for name, case in domain.depends.cases.items():
                yield from self._wrong_domain(f"{where}.depends.cases.{name}", case, above)
            return
        if self.search.method == "grid" and not isinstance(domain, Grid):
            yield f"{where}: grid search lists its values, got {_kind(domain.model_dump())}"
        if self.search.method != "grid" and isinstance(domain, Grid):
            yield f"{where}: {self.search.method} search draws values, got grid; write choice"


def written(value: Value) -> str:
    """A value as it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leaves(domain: "Domain") -> Iterator["Domain"]:
    """The domains that a domain may turn out to be."""
    if isinstance(domain, Depends):
        for case in domain.depends.cases.values():
            yield from _leaves(case)
    else:
        yield domain


def _outcomes(domain: "Domain") -> Iterator[Value]:
    """The values of a domain that lists them; nothing for a range."""
    for leaf in _leaves(domain):
        if isinstance(leaf, Grid):
            yield from leaf.grid
        elif isinstance(leaf, Choice):
            yield from leaf.choice


# Reading -------------------------------------------------------------------------------------


def find(name_or_path: str) -> Path:
    """The file of a space that is named, or given by its path."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        named = path.stem
    else:
        named = name_or_path
        path = SPACES / f"{name_or_path}.yaml"
    if not NAME.fullmatch(named):
        raise ConfigError(
            [
                f"{name_or_path}: a space is named by letters, digits, _, - and ., or by its .yaml file"
            ]
        )
    if not path.is_file():
        shipped = sorted(file.stem for file in SPACES.glob("*.yaml"))
        raise ConfigError(
            [
                f"{path}: no such search space; there are {', '.join(shipped) or 'none'} in {SPACES}/"
                f"{cfg.did_you_mean(named, shipped)}"
            ]
        )
    return path


def _wrong_paths(tree: Mapping[str, Any], source: str) -> Iterator[str]:
    for part in ("base", "space"):
        for path in tree[part] if isinstance(tree.get(part), dict) else ():
            if path == "run.seed":
                yield f"{source}: {part}.{path}: seeds are listed under `seeds`"
            elif path not in cfg.PATHS:
                near = cfg.did_you_mean(path, cfg.PATHS)
                yield f"{source}: {part}.{path}: unknown path{near}"


def _policy_of(tree: Mapping[str, Any]) -> str:
    """The name of the policy that a space schedules, or nothing where it names none."""
    schedule = tree.get("schedule")
    return str(schedule.get("policy", "")) if isinstance(schedule, dict) else ""


def _wrong_policy(tree: Mapping[str, Any], source: str) -> Iterator[str]:
    schedule = tree.get("schedule")
    if isinstance(schedule, dict) and "policy" not in schedule:
        yield f"{source}: schedule.policy: missing; one of {', '.join(SCHEDULES)} is due"
    elif isinstance(schedule, dict) and _policy_of(tree) not in SCHEDULES:
        name = _policy_of(tree)
        near_name = cfg.did_you_mean(name, SCHEDULES)
        yield (
            f"{source}: schedule.policy: no such policy {name!r}; there are "
            f"{', '.join(SCHEDULES)}{near_name}"
        )


def _names(tree: Mapping[str, Any]) -> list[str]:
    """Every key that may stand in a space file with this policy, by its dotted path."""
    schedule = SCHEDULES.get(_policy_of(tree))
    parts = {"resources": Resources, "caps": Caps, "schedule": schedule}
    inner = [f"{at}.{name}" for at, of in parts.items() if of for name in of.model_fields]
    return [*Space.model_fields, *inner]


def read(path: Path) -> tuple[Space, dict[str, Any]]:
    """The space of a YAML file, and the file's mapping as it is written."""
    try:
        tree = read_mapping(path)
    except YamlError as error:
        raise ConfigError([str(error)]) from error
    wrong = [*_wrong_paths(tree, str(path)), *_wrong_policy(tree, str(path))]
    try:
        space = Space.model_validate(tree)
    except ValidationError as error:
        # What is wrong with the policy's name has been said.
        for problem in cfg.problems(error, str(path), _names(tree), _policy_of(tree)):
            if not re.match(r"schedule: .*(tag|discriminator)", problem.removeprefix(f"{path}: ")):
                wrong += problem.replace("\n", f"\n{path}: ").split("\n")
    if wrong:
        raise ConfigError(wrong)
    return space, tree


def schema() -> dict[str, Any]:
    """The JSON Schema of a space file, for editors; its paths are those of the config tree."""
    tree = Space.model_json_schema()
    for part in ("base", "space"):
        tree["properties"][part]["propertyNames"] = {"enum": list(cfg.PATHS)}
    return tree


# Planning ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """One trial: its whole config, and which values of it the space chose."""

    config: cfg.Config
    values: dict[str, Value]
    label: str

    @property
    def trial(self) -> str:
        """The id: the digest of the config."""
        return cfg.digest(self.config.model_dump())


def _label(values: Mapping[str, Value], seed: int, with_seed: bool) -> str:
    names = [path.rsplit(".", 1)[1] for path in values]
    parts = [
        f"{path if names.count(name) > 1 else name}={show(value)}"
        for name, (path, value) in zip(names, values.items(), strict=True)
    ]
    return " ".join([*parts, f"seed={seed}"] if with_seed else parts)


def _trials(
    space: Space, base: cfg.Config, seed: int, points: Iterable[dict[str, Value]], source: str
) -> list[Planned]:
    points = list(points)
    seeds = [number + seed for number in space.seeds]
    planned: dict[str, Planned] = {}
    wrong: dict[str, None] = {}
    for number, values in itertools.product(seeds, points):
        changes = {**values, "run.seed": number}
        label = _label(values, number, seeds != [0])
        try:
            trial = Planned(cfg.overlay(base, changes, f"{source}: {label}"), values, label)
            planned.setdefault(trial.trial, trial)
        except ConfigError as error:
            wrong.update(dict.fromkeys(error.problems))
    if wrong:
        raise ConfigError(wrong)
    return list(planned.values())


def _grid_points(space: Space) -> Iterator[dict[str, Value]]:
    def extend(values: dict[str, Value], rest: list[tuple[str, Any]]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
            return
        (path, domain), *rest = rest
        for value in _grid(domain, values):
            yield from extend({**values, path: value}, rest)

    yield from extend({}, list(space.space.items()))


def _grid(domain: "Domain", values: Mapping[str, Value]) -> list[Value]:
    domain = _resolve(domain, values)
    assert isinstance(domain, Grid)
    return domain.grid


def _resolve(domain: "Domain", values: Mapping[str, Value]) -> "Domain":
    """The domain that holds, given the values of the paths above."""
    while isinstance(domain, Depends):
        domain = domain.depends.cases[written(values[domain.depends.on])]
    return domain


def _draw(domain: "Domain", rng: Rng) -> Value:
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


def _random_point(space: Space, seed: int, index: int) -> dict[str, Value]:
    """The sample of one index: a stream of its own, so that more samples change none before."""
    rng = np.random.default_rng([seed, index])
    values: dict[str, Value] = {}
    for path, domain in space.space.items():
        values[path] = _draw(_resolve(domain, values), rng)
    return values


def rungs(space: Space, config: cfg.Config, source: str) -> tuple[int, ...]:
    """The tokens of the schedule's rungs, lowest first; `ConfigError` where a record misses one."""
    budget, every = config.budget.tokens, config.eval.every_tokens
    found = [share * budget for share in space.schedule.shares()]
    missed = next((tokens for tokens in found if tokens % every), None)
    if missed is not None:
        last = (budget - 1) // every
        nearest = Fraction(min(max(1, round(found[0] / every)), last) * every, budget)
        raise ConfigError(
            [
                f"{source}: schedule.grace: the rung at {float(missed):g} tokens "
                f"({missed / budget} of {budget}) is hit by no record: eval.every_tokens is "
                f"{every}; the nearest grace that is hit is {nearest}"
            ]
        )
    return tuple(int(tokens) for tokens in found)


def plan(space: Space, base: cfg.Config, seed: int, source: str) -> list[Planned]:
    """The trials of a space, in order; for optuna, whose trials can't be known, none.

    `ConfigError` with every problem of every trial. Equal trials are one.
    """
    rungs(space, base, source)
    if space.caps.gpu_hours is not None and base.run.device != "cuda":
        raise ConfigError([f"{source}: caps.gpu_hours: run.device is {base.run.device}; cap hours"])
    match space.search:
        case GridSearch():
            return _trials(space, base, seed, _grid_points(space), source)
        case RandomSearch(samples=samples):
            points = (_random_point(space, seed, index) for index in range(samples))
            return _trials(space, base, seed, points, source)
        case OptunaSearch():
            # Random points stand for those to come: what they break is broken now.
            probe = (_random_point(space, seed, index) for index in range(100))
            _trials(space, base, seed, probe, source)
            return []


# Optuna --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What is known of an earlier trial: scores by tokens, and how it ended."""

    trial: str
    seed: int
    values: dict[str, Value]
    scores: dict[int, float]
    state: Literal["running", "finished", "stopped", "diverged", "failed"]


_DRAWS = 100  # that a sampler may repeat itself before the space counts as exhausted


def suggest(
    space: Space, base: cfg.Config, seed: int, outcomes: list[Outcome], source: str
) -> Planned | None:
    """The next trial of an Optuna search, a function of the outcomes of all before it; None when
    it has all its samples, or when nothing but what it had is drawn again and again.

    Early-stopped and diverged trials are told as pruned, so that their losses never pass for
    final ones; running ones are told too, so that parallel suggestions keep apart. Outcomes of
    other seeds, and those that the space of today can't draw, do not count.
    """
    import optuna

    assert isinstance(space.search, OptunaSearch)
    own = [
        (outcome, drawn)
        for outcome in outcomes
        if outcome.seed == space.seeds[0] + seed
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
    known = {outcome.trial for outcome in outcomes}
    for _ in range(_DRAWS):
        trial = study.ask()
        values: dict[str, Value] = {}
        for path in space.space:
            name, distribution = _distribution(space, path, values)
            values[path] = trial._suggest(name, distribution)  # noqa: SLF001 takes any distribution
        (new,) = _trials(space, base, seed, [values], source)
        if new.trial not in known:
            return new
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
    from optuna import distributions

    domain, name = space.space[path], path
    while isinstance(domain, Depends):
        case = written(values[domain.depends.on])
        name = f"{name}|{domain.depends.on}={case}"
        domain = domain.depends.cases[case]
    match domain:
        case Choice(choice=listed):
            return name, distributions.CategoricalDistribution(listed)
        case Uniform(uniform=[low, high]):
            return name, distributions.FloatDistribution(low, high)
        case LogUniform(loguniform=[low, high]):
            return name, distributions.FloatDistribution(low, high, log=True)
        case Int(int=[low, high]):
            return name, distributions.IntDistribution(low, high)
    raise AssertionError(domain)


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=1))
