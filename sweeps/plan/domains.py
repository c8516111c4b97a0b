"""What a path of a search space may be: `{grid: [..]}`, `{loguniform: [a, b]}`, ...

Each kind of domain is one class, which defines how it is written, how values are drawn from it, its
Optuna distribution, its bounds and scale, and which searches may use it. To add a kind, write its class, list it in `AnyDomain`,
and give an example of it in `tests/plan/test_domains.py`. The one key of the mapping names the
kind; a kind is never guessed from a shape. Bounds are the values themselves, not exponents.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, LiteralString, get_args

import numpy as np
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from tinylm import config as cfg
from tinylm.config import Section

Rng = np.random.Generator
Whole = Annotated[int, Field(gt=-(2**53), lt=2**53)]  # a JSON number holds these exactly


def with_rule(rule: LiteralString) -> WrapValidator:
    """A validator that reports one rule for a value that fits no member of a union."""

    def check(value: object, inner: ValidatorFunctionWrapHandler) -> object:
        try:
            return inner(value)
        except ValidationError as error:
            raise PydanticCustomError("rule", rule) from error

    return WrapValidator(check)


def _exact(value: object) -> object:
    if type(value) is int and abs(value) >= 2**53:  # would become the nearest float
        raise ValueError(value)
    return value


Value = Annotated[
    bool | int | float | str,
    BeforeValidator(_exact),
    with_rule("expected text, a number below 2**53, true or false"),
]


def distinct(values: list[Value]) -> list[Value]:
    """The values, if no value is listed twice; else `ValueError`."""
    seen: list[Value] = []
    for value in values:
        # 1 and 1.0 are the same learning rate, but 1 and true are not the same switch.
        if any(value == other and (type(value) is bool) == (type(other) is bool) for other in seen):
            raise ValueError(f"{value!r} is listed twice")
        seen.append(value)
    return values


def ascending(bounds: list[float]) -> list[float]:
    """Two bounds, if the first is below the second; else `ValueError`."""
    low, high = bounds
    if not low < high:
        raise ValueError(f"lower bound {low:.15g} must be below upper bound {high:.15g}")
    return bounds


def not_descending(bounds: list[float]) -> list[float]:
    """Two bounds, if the first is not above the second; else `ValueError`."""
    low, high = bounds
    if low > high:
        raise ValueError(f"lower bound {low:.15g} must not be above upper bound {high:.15g}")
    return bounds


def written(value: Value) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


Values = Annotated[list[Value], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bounds = Annotated[list[Finite], Field(min_length=2, max_length=2)]


class Domain(Section):
    """The values that a path may take. Each kind is a subclass whose one field is its key."""

    form: ClassVar[str]  # how it is written, for error messages
    is_drawn: ClassVar[bool] = True  # by random and Optuna searches; a grid search uses the others
    is_log: ClassVar[bool] = False  # whether equal ratios between its bounds are equally likely

    @classmethod
    def kind(cls) -> str:
        """The key that names the kind."""
        (name,) = cls.model_fields
        return name

    @property
    def values(self) -> list[Value]:
        """The values that are listed; none for a range."""
        return []

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of a range, which it includes; None for a list."""
        return None

    def draw(self, rng: Rng) -> Value:
        """A random value."""
        raise NotImplementedError

    def distribution(self) -> Any:
        """The same values as a distribution of Optuna."""
        raise NotImplementedError

    def resolve(self, values: Mapping[str, Value]) -> "Domain":
        """The domain that applies, given the values of the paths above it."""
        return self

    def condition(self, values: Mapping[str, Value]) -> str:
        """The cases that apply, such as `|model.norm=pre`; empty if it depends on nothing."""
        return ""

    def leaves(self) -> Iterator["Domain"]:
        """The domains that it may resolve to."""
        yield self

    def problems(self, where: str, method: str, above: Mapping[str, "Domain"]) -> Iterator[str]:
        """What is wrong with it in a search by a method, below other paths of the space."""
        if method == "grid" and self.is_drawn:
            yield f"{where}: grid search needs {Grid.form}, got {self.kind()}"
        if method != "grid" and not self.is_drawn:
            yield f"{where}: {method} search draws values, got {self.kind()}; use choice"


class Listed(Domain):
    """A list of values, all equally likely where they are drawn."""

    def draw(self, rng: Rng) -> Value:
        """One of the values."""
        return self.values[int(rng.integers(len(self.values)))]

    def distribution(self) -> Any:
        """The values as categories."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


class Grid(Listed):
    """Every one of the values."""

    form = "{grid: [..]}"
    is_drawn = False
    grid: Values
    _check = field_validator("grid")(distinct)

    @property
    def values(self) -> list[Value]:
        """All of them, as listed."""
        return self.grid


class Choice(Listed):
    """One of the values, all equally likely."""

    form = "{choice: [..]}"
    choice: Values
    _check = field_validator("choice")(distinct)

    @property
    def values(self) -> list[Value]:
        """All of them, as listed."""
        return self.choice


class Uniform(Domain):
    """A number between two bounds."""

    form = "{uniform: [a, b]}"
    uniform: Bounds
    _check = field_validator("uniform")(ascending)

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        return self.uniform[0], self.uniform[1]

    def draw(self, rng: Rng) -> Value:
        """A float."""
        return float(rng.uniform(*self.bounds))

    def distribution(self) -> Any:
        """Floats."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.bounds)


class LogUniform(Domain):
    """A number between two positive bounds whose logarithm is uniform; bounds are the values."""

    form = "{loguniform: [a, b]}"
    is_log = True
    loguniform: Annotated[list[cfg.Positive], Field(min_length=2, max_length=2)]
    _check = field_validator("loguniform")(ascending)

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        return self.loguniform[0], self.loguniform[1]

    def draw(self, rng: Rng) -> Value:
        """A float."""
        low, high = self.bounds
        # The exponential of a logarithm may pass a bound by its last digit.
        return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)

    def distribution(self) -> Any:
        """Floats, on a logarithmic scale."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.bounds, log=True)


class Int(Domain):
    """A whole number from the first to the second bound, both included."""

    form = "{int: [a, b]}"
    int: Annotated[list[Whole], Field(min_length=2, max_length=2)]
    _check = field_validator("int")(ascending)

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        return float(self.int[0]), float(self.int[1])

    def draw(self, rng: Rng) -> Value:
        """An int."""
        low, high = self.int
        return int(rng.integers(low, high, endpoint=True))

    def distribution(self) -> Any:
        """Ints."""
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.int)


class Cases(Section):
    """A domain for each value of another path, which the space must list above this one."""

    on: str
    cases: Annotated[dict[str, "AnyDomain"], Field(min_length=1)]


class Depends(Domain):
    """A domain that depends on the value of another path."""

    form = "{depends: {on: PATH, cases: {..}}}"
    depends: Cases

    @property
    def values(self) -> list[Value]:
        """The listed values of all cases."""
        return list(itertools.chain.from_iterable(leaf.values for leaf in self.leaves()))

    def _case(self, values: Mapping[str, Value]) -> tuple[str, Domain]:
        name = written(values[self.depends.on])
        return name, self.depends.cases[name]

    def resolve(self, values: Mapping[str, Value]) -> Domain:
        """That of the case that applies."""
        return self._case(values)[1].resolve(values)

    def condition(self, values: Mapping[str, Value]) -> str:
        """The case that applies, and those within it."""
        name, case = self._case(values)
        return f"|{self.depends.on}={name}{case.condition(values)}"

    def leaves(self) -> Iterator[Domain]:
        """Those of all cases."""
        for case in self.depends.cases.values():
            yield from case.leaves()

    def problems(self, where: str, method: str, above: Mapping[str, Domain]) -> Iterator[str]:
        """Its own, or those of its cases."""
        on, cases = self.depends.on, self.depends.cases
        if on not in above:
            yield f"{where}.depends.on: {on} must be listed above{cfg.did_you_mean(on, above)}"
            return
        unlisted = next((leaf for leaf in above[on].leaves() if not leaf.values), None)
        if unlisted is not None:
            yield f"{where}.depends.on: {on} must list its values, got {unlisted.kind()}"
            return
        values = {written(value) for value in above[on].values}
        if values != set(cases):
            yield (
                f"{where}.depends.cases: {on} takes {', '.join(sorted(values))}, "
                f"but the cases are {', '.join(sorted(cases))}"
            )
        for name, case in cases.items():
            yield from case.problems(f"{where}.depends.cases.{name}", method, above)


def kind_of(value: object) -> str:
    """The one key of a mapping, or the name of any other value's type."""
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return type(value).__name__.lower()


_Kinds = (
    Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Int, Tag("int")]
    | Annotated[Depends, Tag("depends")]
)

# Classes by the key that names them.
DOMAINS: dict[str, type[Domain]] = {
    domain.kind(): domain for domain in (get_args(kind)[0] for kind in get_args(_Kinds))
}

AnyDomain = Annotated[
    _Kinds,
    Discriminator(
        kind_of,
        custom_error_type="domain",
        custom_error_message="expected one of " + ", ".join(d.form for d in DOMAINS.values()),
    ),
]
Cases.model_rebuild()
