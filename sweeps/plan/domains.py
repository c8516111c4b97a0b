"""What a path of a search space may be: `{grid: [..]}`, `{loguniform: [a, b]}`, ...

Each kind of domain is one class, which defines how it is written, how values are drawn from it, its
Optuna distribution, its bounds and scale, and which searches may use it. To add a kind, write its
class, list it in `AnyDomain`, and give an example of it in `tests/plan/test_domains.py`. A key of the
mapping names the kind; a kind is never guessed from a shape. Bounds are the values themselves, not
exponents.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, LiteralString, Self, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tinylm import config as cfg
from tinylm import yaml
from tinylm.config import Problem, Section

if TYPE_CHECKING:
    from numpy.random import Generator as Rng

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


def key(value: Value) -> tuple[bool, Value]:
    """What equal values share: 1 and 1.0 are the same learning rate, 1 and true are not the same
    switch."""
    return type(value) is bool, value


def distinct(values: list[Value]) -> list[Value]:
    """The values, if no value is listed twice; else `ValueError`."""
    counted = Counter(map(key, values))
    several = {key(value): value for value in values if counted[key(value)] > 1}
    if several:
        are = "is" if len(several) == 1 else "are"
        raise ValueError(f"{', '.join(map(repr, several.values()))} {are} listed twice")
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


@cache
def _plain(name: str) -> str:
    """A value as written, in one way for each number or switch: 3e-5, 0.00003 and 3.0e-5 are the same."""
    try:
        value = yaml.parse(name, "")
    except yaml.YamlError:
        return name
    if isinstance(value, bool):
        return written(value)
    return repr(float(value)) if isinstance(value, int | float) else name


Values = Annotated[list[Value], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bounds = Annotated[list[Finite], Field(min_length=2, max_length=2)]
PositiveBounds = Annotated[list[cfg.Positive], Field(min_length=2, max_length=2)]


class Domain(Section):
    """The values that a path may take. Each kind is a subclass."""

    form: ClassVar[str]  # how it is written, its key first
    is_drawn: ClassVar[bool] = True  # by random and Optuna searches; a grid search takes all lists
    is_log: ClassVar[bool] = False  # whether equal ratios between its bounds are equally likely

    @classmethod
    def kind(cls) -> str:
        """The key that names the kind."""
        return cls.form[1:].partition(":")[0]

    @property
    def values(self) -> list[Value]:
        """The values that are listed; none for a range."""
        return []

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of a range, which it includes; None for a list."""
        return None

    def every(self) -> Sequence[Value] | None:
        """All its values; None for a range of floats."""
        return self.values or None

    def ends(self) -> list[Value]:
        """The values that are listed, or the lowest and the highest value of a range."""
        return self.values or list(self.bounds or ())

    def has(self, value: Value) -> bool:
        """Whether a value is one of its values."""
        if self.bounds is None:
            return key(value) in map(key, self.values)
        low, high = self.bounds
        return type(value) in {int, float} and low <= float(value) <= high

    def draw(self, rng: "Rng") -> Value:
        """A random value."""
        raise NotImplementedError

    def distribution(self) -> Any:
        """The same values as a distribution of Optuna, which `coordinate` and `at` translate."""
        raise NotImplementedError

    def coordinate(self, value: Value) -> Any:
        """What stands for a value in Optuna's distribution."""
        return value

    def at(self, coordinate: Any) -> Value:
        """The value that a number of Optuna's distribution stands for."""
        value: Value = coordinate
        return value

    def resolve(self, values: Mapping[str, Value]) -> "Domain":
        """The domain that applies, given the values of the paths above it."""
        return self

    def condition(self, values: Mapping[str, Value]) -> str:
        """The cases that apply, such as `|model.norm=pre`; empty if it depends on nothing."""
        return ""

    def leaves(self) -> Iterator["Domain"]:
        """The domains that it may resolve to."""
        yield self

    def divisor(self, above: Mapping[str, int | None]) -> int | None:
        """The greatest common divisor of its values, given those of other paths; None unless all its
        values are whole numbers."""
        whole = [value for value in self.values if type(value) is int]
        return math.gcd(*whole) if whole and len(whole) == len(self.values) else None

    def problems(self, where: str, method: str, above: Mapping[str, "Domain"]) -> Iterator[Problem]:
        """What is wrong with it in a search by a method, below other paths of the space."""
        if method == "grid" and not self.values:
            yield Problem(where, f"grid search needs {Grid.form}, got {self.kind()}")
        if method != "grid" and not self.is_drawn:
            yield Problem(where, f"{method} search draws values, got {self.kind()}; use choice")


class Listed(Domain):
    """A list of values, all equally likely where they are drawn."""

    def draw(self, rng: "Rng") -> Value:
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
    """One of the values, all equally likely; every one of them in a grid search."""

    form = "{choice: [..]}"
    choice: Values
    _check = field_validator("choice")(distinct)

    @property
    def values(self) -> list[Value]:
        """All of them, as listed."""
        return self.choice


class Range(Domain):
    """Floats between two bounds, which a draw practically never meets."""

    whole: ClassVar[str] = "int"  # the kind of a range of whole numbers that is drawn from likewise

    @property
    def whole_ends(self) -> list[int]:
        """The lowest and the highest whole number in it; empty unless it has two."""
        low, high = self.bounds or (0.0, 0.0)
        ends = [math.ceil(low), math.floor(high)]
        return ends if ends[0] < ends[1] < 2**53 else []

    @property
    def in_whole_numbers(self) -> str:
        """How the whole numbers in it are written."""
        return _range(self.whole, self.whole_ends)

    def ends(self) -> list[Value]:
        """The floats next to the bounds."""
        low, high = self.bounds or (0.0, 0.0)
        return [math.nextafter(low, high), math.nextafter(high, low)]


class Uniform(Range):
    """A number between two bounds."""

    form = "{uniform: [a, b]}"
    uniform: Bounds
    _check = field_validator("uniform")(ascending)

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        return self.uniform[0], self.uniform[1]

    def draw(self, rng: "Rng") -> Value:
        """A float."""
        return float(rng.uniform(*self.bounds))

    def distribution(self) -> Any:
        """Floats."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.bounds)


def _log_uniform(rng: "Rng", low: float, high: float) -> float:
    # The exponential of a logarithm may pass a bound by its last digit.
    return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)


class LogUniform(Range):
    """A number between two bounds above 0, where equal ratios are equally likely."""

    form = "{loguniform: [a, b]}"
    is_log = True
    whole = "logint"
    loguniform: PositiveBounds
    _check = field_validator("loguniform")(ascending)

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        return self.loguniform[0], self.loguniform[1]

    def draw(self, rng: "Rng") -> Value:
        """A float."""
        return _log_uniform(rng, *self.bounds)

    def distribution(self) -> Any:
        """Floats, on a logarithmic scale."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.bounds, log=True)


class OneMinusLogUniform(Range):
    """One minus such a number, for betas: [1e-3, 0.1] is 0.9 to 0.999."""

    form = "{one_minus_loguniform: [a, b]}"
    one_minus_loguniform: PositiveBounds

    @field_validator("one_minus_loguniform")
    @classmethod
    def _check(cls, bounds: list[float]) -> list[float]:
        if bounds[1] > 1:
            raise ValueError(f"upper bound {bounds[1]:.15g} must not be above 1")
        if 1 - bounds[0] == 1:
            raise ValueError(f"lower bound {bounds[0]:.15g} is too small: 1 minus it is 1")
        return ascending(bounds)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the values, the lower one first."""
        low, high = self.one_minus_loguniform
        return 1 - high, 1 - low

    def draw(self, rng: "Rng") -> Value:
        """A float."""
        return self.at(_log_uniform(rng, *self.one_minus_loguniform))

    def distribution(self) -> Any:
        """What is taken from 1, on a logarithmic scale."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.one_minus_loguniform, log=True)

    def coordinate(self, value: Value) -> float:
        """What is taken from 1."""
        low, high = self.one_minus_loguniform
        return min(max(1 - float(value), low), high)

    def at(self, coordinate: float) -> Value:
        """One minus a number."""
        return 1 - coordinate


Ints = Annotated[list[Whole], Field(min_length=2, max_length=2)]


class Steps(Domain):
    """Whole numbers, a step apart, from the first to the second bound, both included."""

    step: cfg.Count = Field(default=1, description="Between two of the numbers, from the first on.")

    @property
    def ints(self) -> list[int]:
        """The bounds as written."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = map(int, ascending([*self.ints]))
        if (high - low) % self.step:
            last = high - (high - low) % self.step
            raise ValueError(
                f"upper bound {high} must be a number of steps above lower bound {low}; with step "
                f"{self.step} the last one below it is {last}"
            )
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """As written."""
        low, high = self.ints
        return float(low), float(high)

    def divisor(self, above: Mapping[str, int | None]) -> int:
        """That of the lower bound and the step."""
        return math.gcd(self.ints[0], self.step)

    def every(self) -> range:
        """The whole numbers, ascending."""
        low, high = self.ints
        return range(low, high + 1, self.step)

    def ends(self) -> list[Value]:
        """The bounds."""
        return [*self.ints]

    def has(self, value: Value) -> bool:
        """Whether a value is one of the whole numbers."""
        return type(value) is not bool and value in self.every()


class Int(Steps):
    """A whole number from the first bound to the second; {int: [64, 256], step: 64} goes in steps."""

    form = "{int: [a, b]}"
    int: Ints

    @property
    def ints(self) -> list[Whole]:
        """As written."""
        return self.int

    def draw(self, rng: "Rng") -> Value:
        """An int."""
        low, high = self.int
        return low + self.step * rng.integers(0, (high - low) // self.step, endpoint=True).item()

    def distribution(self) -> Any:
        """Ints."""
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.int, step=self.step)


class LogInt(Steps):
    """A whole number between two bounds, also in steps, where equal ratios are equally likely."""

    form = "{logint: [a, b]}"
    is_log = True
    logint: Annotated[list[cfg.Count], Field(min_length=2, max_length=2)]

    @property
    def ints(self) -> list[Whole]:
        """As written."""
        return self.logint

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.step > self.logint[0]:
            raise ValueError(f"step {self.step} must not be above lower bound {self.logint[0]}")
        return self

    def draw(self, rng: "Rng") -> Value:
        """An int."""
        low, high = self.logint
        return self.at(_log_uniform(rng, low - self.step / 2, high + self.step / 2))

    def distribution(self) -> Any:
        """Ints on a logarithmic scale; `at` brings them to a step."""
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.logint, log=True)

    def at(self, coordinate: float) -> Value:
        """The nearest of the whole numbers."""
        low, high = self.logint
        nearest = low + self.step * round((coordinate - low) / self.step)
        return min(max(nearest, low), high)


_FACTOR = re.compile(r"\d{1,9}(\.\d{1,9})?(/\d{1,9})?")


def _check_factor(value: object) -> object:
    text = value if isinstance(value, str) else str(value)
    wrong = ValueError(f"expected a number above 0 such as 4, 0.1 or 8/3, got {value!r}")
    if isinstance(value, bool) or (isinstance(value, str) and not _FACTOR.fullmatch(text)):
        raise wrong
    try:
        factor = _fraction(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError, ZeroDivisionError):
        raise wrong from None
    if not 0 < factor <= 2**53:
        raise wrong
    return value


def _fraction(number: float | str) -> Fraction:
    """A number as it is written: 0.1 is a tenth."""
    above, _, below = str(number).partition("/")
    return Fraction(above) / Fraction(below or 1)


class Multiple(Domain):
    """A multiple of another path, which may be rounded: {times: 8/3, of: model.d_model, round_to: 64}."""

    form = "{times: 4, of: PATH}"
    times: Annotated[int | float | str, BeforeValidator(_check_factor)] = Field(
        description="The factor; a fraction such as 8/3 is exact."
    )
    of: str = Field(description="A path of the config; the space lists it above, if it varies it.")
    round_to: cfg.Count | None = Field(
        default=None, description="Rounds to the nearest multiple of this number above 0."
    )

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number of whatever whole number it is a multiple of."""
        return self.round_to is not None or _fraction(self.times).denominator == 1

    def value(self, values: Mapping[str, Value]) -> Value:
        """The multiple, given the other values; a whole number where it is one."""
        own = values[self.of]
        assert isinstance(own, int | float)  # `read` checks the type of the path
        exact = _fraction(self.times) * _fraction(own)
        if self.round_to is not None:
            exact = Fraction(
                max(1, math.floor(exact / self.round_to + Fraction(1, 2))) * self.round_to
            )
        return int(exact) if exact.denominator == 1 and type(own) is int else float(exact)

    def divisor(self, above: Mapping[str, int | None]) -> int | None:
        """The multiple of the other path's, unless that would be rounded."""
        own = above.get(self.of)
        exact = None if own is None else _fraction(self.times) * own
        if exact is not None and exact % (self.round_to or 1) == 0:
            return int(exact)
        return self.round_to

    def every(self) -> Sequence[Value]:
        """None before it is resolved."""
        return ()

    def resolve(self, values: Mapping[str, Value]) -> Domain:
        """The one value that it has."""
        return Grid.model_construct(grid=[self.value(values)])

    def problems(self, where: str, method: str, above: Mapping[str, Domain]) -> Iterator[Problem]:
        """None: every search can use it."""
        yield from ()


# Stands for a domain that is wrong, and breaks no rule.
UNREAD = Multiple.model_construct(times=1, of="", round_to=None)


class Cases(Section):
    """A domain for each value of another path, which the space must list above this one."""

    on: str = Field(description="The other path.")
    cases: Annotated[dict[str, "AnyDomain"], Field(min_length=1)] = Field(
        description="A domain for each of its values."
    )


class Depends(Domain):
    """A domain for each value of a path that the space lists above this one."""

    form = "{depends: {on: PATH, cases: {..}}}"
    depends: Cases

    @property
    def values(self) -> list[Value]:
        """The listed values of all cases."""
        return list(itertools.chain.from_iterable(leaf.values for leaf in self.leaves()))

    def _case(self, values: Mapping[str, Value]) -> tuple[str, Domain]:
        name = written(values[self.depends.on])
        cases = {_plain(case): domain for case, domain in self.depends.cases.items()}
        return name, cases[_plain(name)]

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

    def divisor(self, above: Mapping[str, int | None]) -> int | None:
        """That of all cases."""
        found = [leaf.divisor(above) for leaf in self.leaves()]
        whole = [one for one in found if one is not None]
        return math.gcd(*whole) if len(whole) == len(found) else None

    def problems(self, where: str, method: str, above: Mapping[str, Domain]) -> Iterator[Problem]:
        """Its own, or those of its cases."""
        on, cases = self.depends.on, self.depends.cases
        if on not in above:
            yield Problem(
                f"{where}.depends.on", f"{on} must be listed above{cfg.did_you_mean(on, above)}"
            )
            return
        if above[on] is not UNREAD:
            yield from self._wrong_cases(where, above[on])
        for name, case in cases.items():
            yield from case.problems(f"{where}.depends.cases.{name}", method, above)

    def _wrong_cases(self, where: str, above: Domain) -> Iterator[Problem]:
        """What is wrong with its cases, which are those of another domain."""
        on, cases = self.depends.on, self.depends.cases
        unlisted = next((leaf for leaf in above.leaves() if not leaf.values), None)
        if unlisted is not None:
            yield Problem(
                f"{where}.depends.on", f"{on} must list its values, got {unlisted.kind()}"
            )
            return
        values = {written(value) for value in above.values}
        if sorted(map(_plain, values)) != sorted(map(_plain, cases)):
            yield Problem(
                f"{where}.depends.cases",
                f"{on} takes {', '.join(sorted(values))}, "
                f"but the cases are {', '.join(sorted(cases))}",
            )


def divisors(space: Mapping[str, Domain], base: Mapping[str, Value]) -> dict[str, int | None]:
    """The greatest common divisor of the values that each path may have, those of the base included
    where the space does not vary it; None unless they are whole numbers."""
    found = {path: value if type(value) is int else None for path, value in base.items()}
    for path, domain in space.items():
        found[path] = domain.divisor(found)
    return found


def kind_of(value: object) -> str:
    """The one key of a mapping, or the name of any other value's type."""
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return type(value).__name__.lower()


_Kinds = (
    Annotated[Grid, Tag("<grid>")]
    | Annotated[Choice, Tag("<choice>")]
    | Annotated[Uniform, Tag("<uniform>")]
    | Annotated[LogUniform, Tag("<loguniform>")]
    | Annotated[OneMinusLogUniform, Tag("<one_minus_loguniform>")]
    | Annotated[Int, Tag("<int>")]
    | Annotated[LogInt, Tag("<logint>")]
    | Annotated[Multiple, Tag("<times>")]
    | Annotated[Depends, Tag("<depends>")]
)

# Classes by the key that names them.
DOMAINS: dict[str, type[Domain]] = {
    domain.kind(): domain for domain in (get_args(kind)[0] for kind in get_args(_Kinds))
}


def _tag(value: object) -> str:
    if isinstance(value, Domain):  # it is written
        return f"<{value.kind()}>"
    named = [key for key in value if key in DOMAINS] if isinstance(value, Mapping) else []
    return f"<{named[0] if len(named) == 1 else ''}>"


# What Weights & Biases, Optuna, Ray Tune, Hydra and Ax call a kind of domain.
_CALLED = {
    "values": "grid", "grid_search": "grid", "categorical": "choice", "suggest_categorical": "choice",
    "choices": "choice", "uniform": "uniform", "float": "uniform", "interval": "uniform",
    "suggest_float": "uniform", "suggest_uniform": "uniform", "suggest_discrete_uniform": "uniform",
    "quniform": "uniform", "q_uniform": "uniform",
    "log_uniform_values": "loguniform", "loguniform": "loguniform", "reciprocal": "loguniform",
    "suggest_loguniform": "loguniform", "log_uniform": "loguniform", "inv_log_uniform_values": "loguniform",
    "int_uniform": "int", "randint": "int", "suggest_int": "int", "range": "int", "integer": "int",
    "qrandint": "int", "lograndint": "logint", "qlograndint": "logint",
    "q_log_uniform_values": "logint", "qloguniform": "logint", "choice": "choice", "grid": "grid",
    "int": "int", "logint": "logint",
}  # fmt: skip
_UNBOUNDED = {"normal", "randn", "qnormal", "q_normal", "log_normal", "lognormal", "inv_log_normal"}
_SPACED = {"linspace", "logspace", "geomspace", "arange"}
_EXCLUSIVE = {"randint", "lograndint", "range"}  # whole numbers below the second bound
_ON_LOG = {"uniform": "loguniform", "int": "logint"}
_ENDS = (("min", "max"), ("low", "high"), ("lower", "upper"), ("start", "stop"), ("from", "to"))
_NAMING = ("distribution", "type", "name")  # keys whose value names the kind
_CALL = re.compile(r"(?:\w+\.)*(\w+)\((.*)\)", re.DOTALL)
_TAGGED_LOG = re.compile(r"tag\(\s*log\s*,(.*)\)", re.DOTALL)  # of Hydra
_A_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?![\w.])")


def _listing(values: str) -> str:
    """The two ways to write a list of values."""
    return f"{{grid: [{values}]}}, or {{choice: [{values}]}} where values are drawn"


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(written(value) for value in values) or ".."


def _items(text: str) -> str:
    """What a text lists: what is between its brackets, if it has some."""
    listed = re.search(r"\[(.*)\]", text, re.DOTALL)
    return " ".join((listed[1] if listed else text).split()) or ".."


def lacks_brackets(value: object) -> bool:
    """Whether a value is `{grid: 32, 64}`, which is to YAML one value and a key without a value."""
    if not isinstance(value, Mapping) or len(value) < 2:
        return False
    (kind, first), *rest = value.items()
    settings = DOMAINS[kind].model_fields if kind in DOMAINS else {}
    is_list = all(empty is None and name not in settings for name, empty in rest)
    return kind in _CALLED and is_list and isinstance(first, bool | int | float | str)


def _no_kind(name: str) -> str | None:
    """What to write for a distribution that is not here; None if it is not known."""
    if name in _UNBOUNDED:
        return f"{Uniform.form} or {LogUniform.form}; every domain has bounds"
    return f"{_listing('..')}, with the values themselves" if name in _SPACED else None


def _range(kind: str, bounds: Iterable[Any], step: object = None) -> str:
    """A range of a kind as it is written here, with its bounds if they are two."""
    numbers = [str(bound) for bound in bounds]
    if len(numbers) != 2:
        return DOMAINS[kind].form
    steps = f", step: {step}" if step is not None and issubclass(DOMAINS[kind], Steps) else ""
    return f"{{{kind}: [{', '.join(numbers)}]{steps}}}"


def _of_call(text: str) -> str | None:
    """How a call such as `tune.loguniform(1e-4, 0.1)` is written here; None if it is not known."""
    tagged = _TAGGED_LOG.fullmatch(text.strip())
    call = _CALL.fullmatch((tagged[1] if tagged else text).strip())
    if call is None:
        return None
    name, arguments = call[1], call[2]
    kind = _CALLED.get(name)
    if kind is None:
        return _no_kind(name)
    if issubclass(DOMAINS[kind], Listed):
        return f"{{{kind}: [{_items(arguments)}]}}"
    if tagged or "log=True" in arguments.replace(" ", ""):
        kind = _ON_LOG.get(kind, kind)
    low, high, step = [*_A_NUMBER.findall(arguments), "", "", ""][:3]
    if name in _EXCLUSIVE and high.isdigit():
        high = str(int(high) - 1)
    return _range(kind, [low, high] if high else [], step or None)


def _of_mapping(value: Mapping[Any, Any]) -> str | None:
    """How a mapping of another program is written here; None if it is not known, and for a domain."""
    name = next((str(value[key]) for key in _NAMING if key in value), "")
    pair = next((pair for pair in _ENDS if set(pair) <= value.keys()), None)
    bounds = [value[end] for end in pair] if pair else value.get("bounds")
    log = {"log", "log_scale"} & {key for key, is_set in value.items() if is_set is True}
    is_log = bool(log) or "log" in (value.get("scale"), value.get("sampling"))
    if not isinstance(bounds, list):
        kinds = [str(key) for key in value if key in _CALLED]
        if not kinds:
            return next(filter(None, map(_no_kind, (name, *map(str, value)))), None)
        name = kinds[0]
        if name in DOMAINS and not is_log and value.keys().isdisjoint(_NAMING):
            return None
        bounds = value[name] if isinstance(value[name], list) else []
    whole = all(type(bound) is int for bound in bounds)
    kind = _CALLED.get(name, "int" if whole else "uniform")
    if name == "values" or (name == "categorical" and "values" in value):
        return _listing(_joined(bounds if name == "values" else value["values"]))
    if issubclass(DOMAINS[kind], Listed):
        return f"{{{kind}: [{_joined(bounds)}]}}"
    if name == "log_uniform":  # of Weights & Biases
        return f"{LogUniform.form} with the values themselves; its bounds are exponents"
    if kind == "int" and not whole:
        kind = "uniform"
    step = value.get("step", value.get("q"))
    return _range(_ON_LOG.get(kind, kind) if is_log else kind, bounds, step)


def _instead(value: object) -> str | None:
    """What to write instead of something that is no domain; None if that is not known."""
    if isinstance(value, Domain):
        return None
    if isinstance(value, Mapping) and lacks_brackets(value):
        (kind, first), *rest = value.items()
        listed = _joined([first, *(name for name, _ in rest)])
        return f"the brackets of the list are missing; write {{{_CALLED[kind]}: [{listed}]}}"
    if isinstance(value, Mapping) and "value" not in value:
        if words := _of_mapping(value):
            return f"here it is {words}"
        near = cfg.nearest(str(next(iter(value), "")), DOMAINS)
        if near is None or not value.keys().isdisjoint(DOMAINS):
            return None
        return f"unknown kind; the nearest is {DOMAINS[near].form}"
    if isinstance(value, list):
        flat = not any(isinstance(item, list | Mapping) for item in value)
        return f"write {_listing(_joined(value) if flat else '..')}"
    if isinstance(value, str) and (words := _of_call(value)):
        return f"here it is {words}"
    if isinstance(value, str) and ("," in value or "(" in value):
        return f"write {_listing(_items(value))}" if "(" not in value else None
    return "a value that every trial has belongs under base"


def _refuse_foreign(value: object) -> object:
    words = _instead(value)
    if words is not None:
        raise PydanticCustomError("foreign", "{words}", {"words": words})
    return value


AnyDomain = Annotated[
    _Kinds,
    Discriminator(
        _tag,
        custom_error_type="domain",
        custom_error_message="expected one of " + ", ".join(d.form for d in DOMAINS.values()),
    ),
    BeforeValidator(_refuse_foreign),
]
Cases.model_rebuild()
