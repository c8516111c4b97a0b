"""Search spaces: one YAML file a question, read and checked.

What trials a space plans is `sweeps.plan.trials`'s to say.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from sweeps.ledger import BASELINE, NAME
from sweeps.plan.domains import (
    Bounds,
    Depends,
    Domain,
    Grid,
    Int,
    Value,
    Values,
    distinct,
    kind,
    leaves,
    listed_values,
    not_descending,
    said,
    written,
)
from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES, AnySchedule
from tinylm import config as cfg
from tinylm.config import ConfigError, Section
from tinylm.yaml import YamlError, read_mapping

SPACES = Path("search_spaces")
SHIPPED = Path(str(files("sweeps"))) / "search_spaces"
# Of re-tune grids, so that no arm is judged by the loss it was tuned on, and the first of those that
# confirm a sweep's best. Seeds of trials lie below.
TUNING_SEED, CONFIRMING_SEED = 1000, 2000
_SPLIT = {"data.validation_fraction", "data.split_seed"}  # which tokens are held out


# How they are searched and scheduled ---------------------------------------------------------


Samples = Annotated[int, Field(ge=1, le=1_000_000)]
Again = Annotated[int, Field(le=1000)]  # trainings of one config
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


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


class Constraint(Section):
    """What a drawn model must meet; other draws are thrown away and counted."""

    params: Bounds | None = Field(default=None, description="Parameters, from and to.")
    flops_per_token: Bounds | None = Field(
        default=None, description="FLOPs of a training token, from and to."
    )

    @field_validator("params", "flops_per_token")
    @classmethod
    def _ordered(cls, bounds: list[float] | None) -> list[float] | None:
        return bounds and not_descending(bounds)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.params is None and self.flops_per_token is None:
            raise ValueError("params or flops_per_token is missing")
        return self


# Arms ------------------------------------------------------------------------------------------


class Arm(Section):
    """A named change of the baseline, and what it is expected to do."""

    hypothesis: Words
    set: Annotated[dict[str, Value], Field(min_length=1)] = Field(
        description="Dotted paths, and the values that they have in this arm."
    )
    match: Literal["params", "flops"] | None = Field(
        default=None,
        description="Solve model.d_ff for the parameters, or FLOPs per token, of the baseline.",
    )
    retune: bool = Field(
        default=True, description="false takes what the baseline's re-tune grid chose."
    )


class PowersOfTwo(Section):
    """Every power of two from the first to the second bound; `memory` is as much as fits."""

    powers_of_two: Annotated[
        list[
            Annotated[
                cfg.Count | Literal["memory"], said("a whole number above 0, or memory, is due")
            ]
        ],
        Field(min_length=2, max_length=2),
    ]

    @field_validator("powers_of_two")
    @classmethod
    def _bounds(cls, bounds: list[int | str]) -> list[int | str]:
        low, high = bounds
        if isinstance(low, str):
            raise ValueError("the lower bound is a number, got memory")
        if isinstance(high, int):
            not_descending([low, high])
        return bounds


def _kind_of_values(value: object) -> str:
    return "<list>" if isinstance(value, list) else kind(value)


class Each(Section):
    """An arm for each value of one path; the baseline's own value is the baseline."""

    path: str
    values: Annotated[
        Annotated[Values, Tag("<list>")] | Annotated[PowersOfTwo, Tag("powers_of_two")],
        Discriminator(
            _kind_of_values,
            custom_error_type="values",
            custom_error_message="a list of values, or {powers_of_two: [a, b]}, is due",
        ),
    ]
    hypothesis: Words
    scale: dict[str, Annotated[float, Field(gt=0, le=10)]] = Field(
        default_factory=dict,
        description="Paths that grow with this power of the value's ratio to the baseline's, "
        "e.g. {optim.lr: 0.5}.",
    )

    @model_validator(mode="after")
    def _probed(self) -> Self:
        if isinstance(self.values, PowersOfTwo):
            if "memory" in self.values.powers_of_two and self.path != "optim.batch_size":
                raise ValueError(f"memory bounds optim.batch_size, not {self.path}")
        else:
            distinct(self.values)
        return self


class Times(Section):
    """Multiples of what an arm has."""

    times: Annotated[list[cfg.Positive], Field(min_length=1)]
    _check = field_validator("times")(distinct)


Retune = Annotated[
    Annotated[Grid, Tag("grid")] | Annotated[Times, Tag("times")],
    Discriminator(
        kind,
        custom_error_type="retune",
        custom_error_message="one of {grid: [..]}, {times: [..]} is due",
    ),
]


# The whole file ------------------------------------------------------------------------------------


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

    question: Words
    metric: Literal["val_loss", "bits_per_byte"] = "val_loss"
    base: dict[str, Value] = Field(
        default_factory=dict, description="Dotted paths that replace values of the scale's config."
    )
    search: (
        Annotated[GridSearch | RandomSearch | OptunaSearch, Field(discriminator="method")] | None
    ) = None
    space: dict[str, Domain] = Field(default_factory=dict)
    constraint: Constraint | None = None
    confirm: Annotated[Again, Field(ge=0)] = Field(
        default=0, description="Fresh seeds on which the best of the sweep is run again."
    )
    arms: Annotated[dict[str, Arm], Field(min_length=1)] | None = Field(
        default=None, description="Changes of the baseline, each held against it."
    )
    each: Each | None = None
    retune: Annotated[dict[str, Retune], Field(min_length=1)] | None = Field(
        default=None, description="A small grid for every arm, e.g. of optim.lr."
    )
    seeds: Annotated[list[cfg.Seed], Field(min_length=1)] = Field(default=[0])
    repeats: Annotated[Again, Field(ge=1)] = Field(
        default=1, description="Times that the first seed is run."
    )
    schedule: AnySchedule = DEFAULT_SCHEDULE
    resources: Resources = Resources()
    caps: Caps = Caps()

    @property
    def is_study(self) -> bool:
        """Whether the space holds arms against a baseline."""
        return self.arms is not None or self.each is not None

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        distinct(list(seeds))
        return seeds

    @model_validator(mode="after")
    def _rules(self) -> Self:
        study = self._wrong_study() if self.is_study else self._wrong_search()
        wrong = [*self._incomparable(), *study]
        if max(self.seeds) >= TUNING_SEED and (self.retune or self.confirm):
            wrong.append(
                f"seeds: those from {TUNING_SEED} on are for re-tuning and confirming, got "
                f"{max(self.seeds)}"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _wrong_study(self) -> Iterator[str]:
        if self.arms is not None and self.each is not None:
            yield "each: arms are listed or made of values, not both"
        for name in ("search", "space", "constraint", "confirm"):
            if getattr(self, name):
                yield f"{name}: not with arms, which are all run, on all seeds"
        if len(self.seeds) < 2:
            yield f"seeds: verdicts need two or more, got {self.seeds}"
        for name, arm in (self.arms or {}).items():
            yield from self._wrong_arm(f"arms.{name}", name, arm)
        for path, domain in (self.retune or {}).items():
            if self.each is not None and path == self.each.path:
                yield f"retune.{path}: each sets this path"
            if self.each is not None and path in self.each.scale and isinstance(domain, Grid):
                yield f"retune.{path}: each.scale sets this path; times multiplies what it sets"
        if self.each is not None and self.each.path in self.each.scale:
            yield f"each.scale.{self.each.path}: each sets this path"

    def _wrong_arm(self, where: str, name: str, arm: Arm) -> Iterator[str]:
        if name.casefold() == BASELINE:
            yield f"{where}: the baseline is the base config, and no arm"
        if not NAME.fullmatch(name):
            yield f"{where}: an arm is named by letters, digits, _, - and ."
        for path in (self.retune or {}).keys() & arm.set.keys():
            yield f"{where}.set.{path}: retune sets this path in every arm"
        if arm.match and "model.d_ff" in (self.retune or {}):
            yield f"retune.model.d_ff: {where}.match solves for it"
        if arm.match and "model.d_ff" in arm.set:
            yield f"{where}.set.model.d_ff: match solves for it"

    def _wrong_search(self) -> Iterator[str]:
        if self.search is None:
            yield "search: missing; one of {method: grid}, {method: random, samples: N} is due"
            return
        if self.retune:
            yield "retune: for arms; list the values under space"
        if self.constraint and self.search.method == "grid":
            yield "constraint: a grid has no draws to throw away; use random or optuna"
        if self.repeats > 1 and self.search.method != "grid":
            yield f"repeats: for grids; {self.search.method} search draws other values each time"
        if not self.space and self.search.method != "grid":
            yield f"space: {self.search.method} search needs paths to draw"
        yield from self._wrong_kinds(self.search.method)

    def _incomparable(self) -> Iterator[str]:
        varied = dict(self.varied())
        for where, path in varied.items():
            if path == "run.device":
                yield f"{where}: every trial takes the same resources"
            elif path.startswith("eval.") or path in _SPLIT:
                yield f"{where}: every trial is evaluated on the same windows"
            elif path == "model.context_length" and where.startswith("retune"):
                yield f"{where}: the grid would choose between losses on different windows"
            elif path == "budget.seconds":
                yield f"{where}: trials are compared at equal tokens, or at the end of one time"
            elif path.startswith("budget.") and self.is_study:
                yield f"{where}: arms are compared at equal tokens"
            elif path.startswith("budget.") and self.schedule.shares():
                yield f"{where}: rungs need the same {path} in every trial"
        if self.metric == "val_loss" and any(
            path == "model.vocab_size" or path.startswith("data.") for path in varied.values()
        ):
            yield "metric: losses per token of two tokenizers can't be compared; use bits_per_byte"

    def varied(self) -> Iterator[tuple[str, str]]:
        """Every dotted path that trials differ in, behind where it stands in the file."""
        for path in self.space:
            yield f"space.{path}", path
        for name, arm in (self.arms or {}).items():
            for path in arm.set:
                yield f"arms.{name}.set.{path}", path
        for path in self.retune or {}:
            yield f"retune.{path}", path
        if self.each is not None:
            yield "each.path", self.each.path
            for path in self.each.scale:
                yield f"each.scale.{path}", path

    def _wrong_kinds(self, method: str) -> Iterator[str]:
        above: list[str] = []
        for path, domain in self.space.items():
            yield from self._wrong_domain(method, f"space.{path}", domain, above)
            above.append(path)
        if method == "optuna" and len(self.seeds) > 1:
            yield f"seeds: optuna searches one seed, got {self.seeds}"

    def _wrong_domain(
        self, method: str, where: str, domain: Domain, above: list[str]
    ) -> Iterator[str]:
        if isinstance(domain, Depends):
            on = domain.depends.on
            if on not in above:
                near = cfg.did_you_mean(on, above)
                yield f"{where}.depends.on: {on} must stand above in the space{near}"
                return
            if any(isinstance(one, Int) for one in leaves(self.space[on])):
                yield f"{where}.depends.on: {on} must list its values, got int"
                return
            values = {written(value) for value in listed_values(self.space[on])}
            cases = set(domain.depends.cases)
            if values != cases:
                yield (
                    f"{where}.depends.cases: {on} takes {', '.join(sorted(values)) or 'no list'}, "
                    f"cases are {', '.join(sorted(cases))}"
                )
            for name, case in domain.depends.cases.items():
                yield from self._wrong_domain(method, f"{where}.depends.cases.{name}", case, above)
            return
        if method == "grid" and not isinstance(domain, Grid):
            yield f"{where}: grid search lists its values, got {kind(domain.model_dump())}"
        if method != "grid" and isinstance(domain, Grid):
            yield f"{where}: {method} search draws values, got grid; write choice"


# Reading -------------------------------------------------------------------------------------


def find(name_or_path: str) -> Path:
    """The file of a space: by its path, or by its name in search_spaces/ here or as installed."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        named = path.stem
    else:
        named = name_or_path
        places = [folder / f"{name_or_path}.yaml" for folder in (SPACES, SHIPPED)]
        path = next((place for place in places if place.is_file()), places[0])
    if not NAME.fullmatch(named):
        raise ConfigError(
            [
                f"{name_or_path}: a space is named by letters, digits, _, - and ., or by its .yaml file"
            ]
        )
    if not path.is_file():
        shipped = sorted({file.stem for one in (SPACES, SHIPPED) for file in one.glob("*.yaml")})
        raise ConfigError(
            [
                f"{path}: no such search space; there are {', '.join(shipped) or 'none'} in {SPACES}/"
                f"{cfg.did_you_mean(named, shipped)}"
            ]
        )
    return path


def _written_paths(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every dotted path of a tree that may not be a valid space, behind where it stands."""

    def keys(where: str, part: object) -> Iterator[tuple[str, str]]:
        for path in part if isinstance(part, dict) else ():
            yield f"{where}.{path}", path

    for part in ("base", "space", "retune"):
        yield from keys(part, tree.get(part))
    arms, each = tree.get("arms"), tree.get("each")
    for name, arm in arms.items() if isinstance(arms, dict) else ():
        yield from keys(f"arms.{name}.set", arm.get("set") if isinstance(arm, dict) else None)
    if isinstance(each, dict):
        if isinstance(each.get("path"), str):
            yield "each.path", each["path"]
        yield from keys("each.scale", each.get("scale"))


def _wrong_paths(tree: Mapping[str, Any], source: str) -> Iterator[str]:
    for where, path in _written_paths(tree):
        if path == "run.seed":
            yield f"{source}: {where}: seeds are listed under `seeds`"
        elif path == "run.repeat":
            yield f"{source}: {where}: how often the first seed is run stands under `repeats`"
        elif path not in cfg.PATHS:
            near = cfg.did_you_mean(path, cfg.PATHS)
            # Where the path is a value and not a key, it is not in sight yet.
            value = f" {path}" if not where.endswith(path) else ""
            yield f"{source}: {where}:{value} unknown path{near}"


# Keys whose mapping says by one name what it is, with the names that there are.
_TAGGED = {"schedule": tuple(SCHEDULES), "search": ("grid", "random", "optuna")}


def _empty(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every dotted path that stands in the file without a value."""
    for key, value in tree.items():
        if value is None:
            yield f"{above}{key}"
        elif isinstance(value, dict):
            yield from _empty(value, f"{above}{key}.")


def _without_empty(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {key: _without_empty(value) for key, value in tree.items() if value is not None}


def _names(tree: Mapping[str, Any]) -> list[str]:
    """Every key that may stand in a space file with this policy, by its dotted path."""
    scheduled = tree.get("schedule")
    policy = scheduled.get("policy") if isinstance(scheduled, dict) else None
    schedule = SCHEDULES.get(str(policy))
    parts: dict[str, type[Section] | None] = {
        "resources": Resources,
        "caps": Caps,
        "schedule": schedule,
        "constraint": Constraint,
        "each": Each,
    }
    arms = tree.get("arms")
    parts |= {f"arms.{name}": Arm for name in (arms if isinstance(arms, dict) else ())}
    inner = [f"{at}.{name}" for at, of in parts.items() if of for name in of.model_fields]
    return [*Space.model_fields, *inner]


def read(path: Path) -> tuple[Space, dict[str, Any]]:
    """The space of a YAML file, and the file's mapping as it is written."""
    try:
        tree = read_mapping(path)
    except YamlError as error:
        raise ConfigError([str(error)]) from error
    empty = list(_empty(tree))
    wrong = [f"{path}: {key}: empty" for key in empty]
    wrong += _wrong_paths(tree, str(path))
    try:
        space = Space.model_validate(_without_empty(tree))
    except ValidationError as error:
        said = {f"{path}: {key}: missing" for key in empty}
        if {"arms", "each"} & set(empty):  # it was to be a study
            said.add(f"{path}: search: missing")
        for problem in cfg.problems(error, str(path), _names(tree), _TAGGED):
            lines = problem.replace("\n", f"\n{path}: ").split("\n")
            wrong += [line for line in lines if line.partition(";")[0] not in said]
    if wrong:
        raise ConfigError(wrong)
    return space, tree


def _not_null(tree: Any) -> Any:
    """A schema in which a key that may be left out may not be left empty."""
    if isinstance(tree, list):
        return [_not_null(part) for part in tree if part != {"type": "null"}]
    if not isinstance(tree, dict):
        return tree
    return {
        key: _not_null(value)
        for key, value in tree.items()
        if not (key == "default" and value is None)
    }


def schema() -> dict[str, Any]:
    """The JSON Schema of a space file, for editors; its paths are those of the config tree."""
    tree = _not_null(Space.model_json_schema())
    paths = {"enum": list(cfg.PATHS)}
    for part in (tree["properties"][name] for name in ("base", "space", "retune")):
        part["propertyNames"] = paths
    tree["$defs"]["Arm"]["properties"]["set"]["propertyNames"] = paths
    tree["$defs"]["Each"]["properties"]["path"] |= paths
    tree["$defs"]["Each"]["properties"]["scale"]["propertyNames"] = paths
    return tree


def rung_tokens(space: Space, config: cfg.Config, source: str) -> tuple[int, ...]:
    """The tokens of the schedule's rungs, lowest first; `ConfigError` where a record misses one."""
    if config.budget.seconds is not None and space.schedule.shares():
        raise ConfigError(
            [
                f"{source}: schedule.policy: {space.schedule.policy} has rungs at tokens, and "
                f"budget.seconds is {config.budget.seconds:g}; use {{policy: none}}"
            ]
        )
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


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=1))
