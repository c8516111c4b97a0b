"""What a path of a search space may be: `{grid: [..]}`, `{loguniform: [a, b]}`, ...

No kind is guessed from a shape, and bounds are the values themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, LiteralString

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

Whole = Annotated[int, Field(gt=-(2**53), lt=2**53)]  # which a number of JSON holds exactly


def said(rule: LiteralString) -> WrapValidator:
    """What a union says of a value that is none of its members: one rule, for all of them."""

    def check(value: object, inner: ValidatorFunctionWrapHandler) -> object:
        try:
            return inner(value)
        except ValidationError as error:
            raise PydanticCustomError("rule", rule) from error

    return WrapValidator(check)


def _exact(value: object) -> object:
    if type(value) is int and abs(value) >= 2**53:  # which would become a float near it
        raise ValueError(value)
    return value


Value = Annotated[
    bool | int | float | str,
    BeforeValidator(_exact),
    said("a text, a number below 2**53, true or false is due"),
]


def distinct(values: list[Value]) -> list[Value]:
    """The values, where none stands twice; else `ValueError`."""
    seen: list[Value] = []
    for value in values:
        # 1 and 1.0 are one learning rate, 1 and true are not one switch.
        if any(value == other and (type(value) is bool) == (type(other) is bool) for other in seen):
            raise ValueError(f"{value!r} stands twice")
        seen.append(value)
    return values


def ascending(bounds: list[float]) -> list[float]:
    """Two bounds, the lower one first; else `ValueError`."""
    low, high = bounds
    if not low < high:
        raise ValueError(f"lower bound {low:.15g} must be below upper bound {high:.15g}")
    return bounds


def not_descending(bounds: list[float]) -> list[float]:
    """Two bounds, the second not below the first; else `ValueError`."""
    low, high = bounds
    if low > high:
        raise ValueError(f"lower bound {low:.15g} must not be above upper bound {high:.15g}")
    return bounds


Values = Annotated[list[Value], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bounds = Annotated[list[Finite], Field(min_length=2, max_length=2)]


class Grid(Section):
    """Every one of the values."""

    grid: Values
    _check = field_validator("grid")(distinct)


class Choice(Section):
    """One of the values, all equally likely."""

    choice: Values
    _check = field_validator("choice")(distinct)


class Uniform(Section):
    """A number between two bounds."""

    uniform: Bounds
    _check = field_validator("uniform")(ascending)


class LogUniform(Section):
    """A number between two positive bounds whose logarithm is uniform; bounds are the values."""

    loguniform: Annotated[list[cfg.Positive], Field(min_length=2, max_length=2)]
    _check = field_validator("loguniform")(ascending)


class Int(Section):
    """A whole number from the first to the second bound, both included."""

    int: Annotated[list[Whole], Field(min_length=2, max_length=2)]
    _check = field_validator("int")(ascending)


class Cases(Section):
    """What a path may be for each value of another path of the space, written above it."""

    on: str
    cases: Annotated[dict[str, "Domain"], Field(min_length=1)]


class Depends(Section):
    """A path whose domain depends on the value of another one."""

    depends: Cases


def kind(value: object) -> str:
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
        kind,
        custom_error_type="domain",
        custom_error_message=(
            "one of {grid: [..]}, {choice: [..]}, {uniform: [a, b]}, {loguniform: [a, b]}, "
            "{int: [a, b]}, {depends: {on: PATH, cases: {..}}} is due"
        ),
    ),
]
Cases.model_rebuild()


def written(value: Value) -> str:
    """A value as it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def leaves(domain: "Domain") -> Iterator["Domain"]:
    """The domains that a domain may turn out to be."""
    if isinstance(domain, Depends):
        for case in domain.depends.cases.values():
            yield from leaves(case)
    else:
        yield domain


def listed_values(domain: "Domain") -> Iterator[Value]:
    """The values of a domain that lists them; nothing for a range."""
    for leaf in leaves(domain):
        if isinstance(leaf, Grid):
            yield from leaf.grid
        elif isinstance(leaf, Choice):
            yield from leaf.choice
