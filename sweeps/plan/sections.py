"""The sections of a search space, each with the rules that hold within it."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ByteSize,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from sweeps.plan.domains import (
    Bounds,
    Grid,
    Multiple,
    Value,
    Values,
    distinct,
    kind_of,
    not_descending,
    with_rule,
)
from tinylm import config as cfg
from tinylm.config import Problem, RuleError, Section

# Paths on which the trials of a sweep depend as a whole.
BUDGET, CONTEXT, BATCH = "budget.tokens", "model.context_length", "optim.batch_size"

Samples = cfg.Count
Again = Annotated[int, Field(le=1000)]  # runs of one config
# The numbers of seeds after which a study is looked at, unless it says others.
LOOKS = (3, 5, 8, 12)
MOST_TIMES = 100  # the tokens of the baseline, to say what an arm is worth
MOST_LOOKS = 20  # the boundary of each is found by simulation, given those before
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class GridSearch(Section):
    """Every combination of the grids."""

    method: Literal["grid"]


class RandomSearch(Section):
    """Random draws, each once; more samples keep the earlier ones."""

    method: Literal["random"]
    samples: Samples = Field(description="The number of trials of one seed, start points aside.")


class OptunaSearch(Section):
    """Optuna's tree-structured Parzen estimator on the results so far."""

    method: Literal["optuna"]
    samples: Samples = Field(description="The number of trials of one seed, start points aside.")


class Constraint(Section):
    """Bounds on a drawn model; draws outside them are discarded and counted."""

    params: Bounds | None = Field(
        default=None, description="The lowest and the highest number of parameters."
    )
    flops_per_token: Bounds | None = Field(
        default=None, description="The lowest and the highest number of FLOPs per training token."
    )

    @field_validator("params", "flops_per_token")
    @classmethod
    def _ordered(cls, bounds: list[float] | None) -> list[float] | None:
        return bounds and not_descending(bounds)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.params is None and self.flops_per_token is None:
            raise ValueError("expected params or flops_per_token")
        return self

    def allows(self, params: int, flops_per_token: int) -> bool:
        """Whether a model of this size is within all bounds."""
        sizes = ((params, self.params), (flops_per_token, self.flops_per_token))
        return all(bounds is None or bounds[0] <= size <= bounds[1] for size, bounds in sizes)

    @property
    def text(self) -> str:
        """The bounds in words: `12000 to 15000 parameters`."""
        names = {"parameters": self.params, "FLOPs per token": self.flops_per_token}
        return " and ".join(f"{b[0]:g} to {b[1]:g} {name}" for name, b in names.items() if b)


def _kind_of_setting(value: object) -> str:
    is_multiple = isinstance(value, Multiple) or (isinstance(value, Mapping) and "times" in value)
    return "<multiple>" if is_multiple else "<value>"


# A value, or a multiple of the value of another path.
Setting = Annotated[
    Annotated[Value, Tag("<value>")] | Annotated[Multiple, Tag("<multiple>")],
    Discriminator(_kind_of_setting),
]


class Arm(Section):
    """A named change of the baseline, and its expected effect."""

    hypothesis: Words = Field(description="What is expected, before anything is measured.")
    set: Annotated[dict[str, Setting], Field(min_length=1)] = Field(
        description="Dotted paths and their values in this arm; {times: 4, of: PATH} is a multiple."
    )
    match: (
        Annotated[
            Literal["params", "flops"],
            with_rule(
                "expected params or flops; match: tokens_per_update belongs at the top level of the file"
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Set model.d_ff so that the arm has as many parameters, or FLOPs per token, "
        "as the baseline.",
    )
    retune: bool = Field(
        default=True, description="false uses the values that the baseline's re-tune grid chose."
    )


class PowersOfTwo(Section):
    """Every power of two from the first to the second bound; `memory` is the largest that fits."""

    powers_of_two: Annotated[
        list[
            Annotated[
                cfg.Count | Literal["memory"],
                with_rule("expected a whole number above 0, or memory"),
            ]
        ],
        Field(min_length=2, max_length=2),
    ]

    @field_validator("powers_of_two")
    @classmethod
    def _bounds(cls, bounds: list[int | str]) -> list[int | str]:
        low, high = bounds
        if isinstance(low, str):
            raise ValueError("the lower bound must be a number, got memory")
        if isinstance(high, int):
            not_descending([low, high])
        return bounds


def _kind_of_values(value: object) -> str:
    return "<list>" if isinstance(value, list) else kind_of(value)


class Each(Section):
    """An arm for each value of one path; the baseline's own value is the baseline."""

    path: str = Field(description="The path that the arms set.")
    values: Annotated[
        Annotated[Values, Tag("<list>")] | Annotated[PowersOfTwo, Tag("powers_of_two")],
        Discriminator(
            _kind_of_values,
            custom_error_type="values",
            custom_error_message="expected a list of values, or {powers_of_two: [a, b]}",
        ),
    ] = Field(description="A list of values, or {powers_of_two: [a, b]}.")
    hypothesis: Words = Field(description="What is expected of all of them.")
    scale: dict[str, Annotated[float, Field(gt=0, le=10)]] = Field(
        default_factory=dict,
        description="Paths that scale with a power of the value's ratio to the baseline's, "
        "e.g. {optim.lr: 0.5}.",
    )

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if isinstance(self.values, PowersOfTwo):
            if "memory" in self.values.powers_of_two and self.path != BATCH:
                raise ValueError(f"memory can bound {BATCH} only, not {self.path}")
        else:
            distinct(self.values)
        return self


class Times(Section):
    """Multiples of the value that an arm has."""

    times: Annotated[list[cfg.Positive], Field(min_length=1)]
    _check = field_validator("times")(distinct)

    @property
    def values(self) -> list[float]:
        """The factors."""
        return self.times


Retune = Annotated[
    Annotated[Grid, Tag("grid")] | Annotated[Times, Tag("times")],
    Discriminator(
        kind_of,
        custom_error_type="retune",
        custom_error_message="expected one of {grid: [..]}, {times: [..]}",
    ),
]


class Looks(Section):
    """Looks at a study: at each, an arm is settled or gets more seeds, up to the last look."""

    looks: (
        Annotated[list[Annotated[Again, Field(ge=2)]], Field(min_length=1, max_length=MOST_LOOKS)]
        | None
    ) = Field(
        default=None,
        description=f"The numbers of seeds at the looks, ascending. Default: {list(LOOKS)}.",
    )
    first: Annotated[Again, Field(ge=2)] | None = Field(
        default=None, description="The number of seeds at the first look, in place of looks."
    )
    at_most: Annotated[Again, Field(ge=2)] | None = Field(
        default=None, description="The number of seeds at the last look, in place of looks."
    )
    until: Literal["settled"] = Field(
        default="settled", description="An arm that is settled gets no further seeds."
    )

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.looks is not None and (self.first is not None or self.at_most is not None):
            name = "first" if self.first is not None else "at_most"
            text = "only without looks, which name the first and the last"
            raise RuleError([Problem(name, text)])
        if self.looks is not None:
            pairs = itertools.pairwise(self.looks)
            if wrong := next(((a, b) for a, b in pairs if b <= a), None):
                text = f"must ascend, got {wrong[1]} after {wrong[0]}"
                raise RuleError([Problem("looks", text)])
        elif self.numbers[0] > self.numbers[-1]:
            text = f"must not be below first, {self.numbers[0]}, got {self.numbers[-1]}"
            raise RuleError([Problem("at_most", text)])
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of seeds at the looks."""
        if self.looks is not None:
            return tuple(self.looks)
        first = min(LOOKS[0], self.at_most or LOOKS[0]) if self.first is None else self.first
        last = max(LOOKS[-1], first) if self.at_most is None else self.at_most
        between = [number for number in LOOKS if first < number < last]
        return (first, *between, last) if first != last else (first,)


def _distinct_seeds(seeds: list[int]) -> list[int]:
    distinct(list(seeds))
    return seeds


def _kind_of_seeds(value: object) -> str | None:
    if isinstance(value, Mapping | Looks):
        return "<looks>"
    return "<list>" if isinstance(value, list) else None


Seeds = Annotated[
    Annotated[
        Annotated[list[cfg.Seed], Field(min_length=1), AfterValidator(_distinct_seeds)],
        Tag("<list>"),
    ]
    | Annotated[Looks, Tag("<looks>")],
    Discriminator(
        _kind_of_seeds,
        custom_error_type="seeds",
        custom_error_message="expected a list of the seeds themselves, e.g. [0, 1, 2] for three",
    ),
]


Bytes = Annotated[
    Annotated[ByteSize, Field(gt=0)],
    with_rule("expected a number of bytes above 0, or one with its unit, e.g. 2GB"),
]


class Resources(Section):
    """The resources of one trial."""

    cpus: cfg.Positive = Field(default=1, description="CPU cores.")
    gpus: cfg.Positive = Field(
        default=1,
        description="A share of one GPU, at most 1: a trial trains on one device. Counts only if run.device "
        "is cuda, or with --gpus.",
    )
    memory: Bytes | None = Field(
        default=None,
        description="Memory of a trial in bytes, or as 2GB; by default it is estimated.",
    )
    hang_after: cfg.Positive | None = Field(
        default=None,
        description="Seconds without a report after which a worker is ended, and its trial tried again. "
        "Default: 50 times the longest time between two reports, and at least 10 minutes.",
    )
    mtbf_hours: cfg.Positive | None = Field(
        default=None,
        description="Mean hours until a worker fails. A trial then saves every sqrt(2 * cost * MTBF) seconds (Young's "
        "formula, with the measured cost of saving), in place of run.checkpoint_every_tokens.",
    )


class Caps(Section):
    """Limits of the whole sweep; when one is reached, the sweep ends at the next records."""

    tokens: cfg.Positive | None = Field(default=None, description="Training tokens.")
    flops: cfg.Positive | None = Field(default=None, description="FLOPs of training.")
    hours: cfg.Positive | None = Field(
        default=None, description="Hours in which a trial trains, however many do at once."
    )
    gpu_hours: cfg.Positive | None = Field(
        default=None,
        description="Hours in which trials hold GPUs, times the number of GPUs they hold.",
    )
    money: cfg.Positive | None = Field(
        default=None, description="These hours times price_per_hour, in its currency."
    )
    price_per_hour: cfg.Positive | None = Field(
        default=None, description="The price of an hour of all machines of the sweep."
    )

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.money is None) != (self.price_per_hour is None):
            there = "price_per_hour" if self.money is None else "money"
            text = "money and price_per_hour must be set together; one is missing"
            raise RuleError([Problem(there, text)])
        return self


class Target(Section):
    """A loss to reach: val_loss or bits_per_byte."""

    val_loss: cfg.Positive | None = Field(default=None, description="Nats per token.")
    bits_per_byte: cfg.Positive | None = Field(default=None, description="Bits per byte of text.")
    ends: Literal["sweep", "trial", "nothing"] = Field(
        default="sweep",
        description="What ends at the first record at or below the target: the sweep, each trial that "
        "reaches it, or nothing.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.val_loss is None) == (self.bits_per_byte is None):
            raise ValueError("expected val_loss or bits_per_byte, one of them")
        return self

    @property
    def metric(self) -> Literal["val_loss", "bits_per_byte"]:
        """The metric that is to reach the limit."""
        return "val_loss" if self.val_loss is not None else "bits_per_byte"

    @property
    def limit(self) -> float:
        """The loss to reach."""
        limit = self.val_loss if self.val_loss is not None else self.bits_per_byte
        assert limit is not None  # one of them is set
        return limit


class Speedup(Section):
    """How many tokens an arm is worth: the baseline is also trained at a lower and a higher number of tokens, each
    with its whole schedule, at the best of three learning rates."""

    horizons: Annotated[
        list[Annotated[float, Field(gt=0, le=MOST_TIMES)]],
        Field(min_length=2, max_length=2),
        with_rule(
            "expected two shares of budget.tokens, one below 1 and then one above it, e.g. [0.5, 2]"
        ),
    ] = Field(
        default=[0.5, 2],
        description="The lower and the higher number of tokens, as shares of budget.tokens; a larger speedup "
        "than the second is only bounded by it.",
    )
    seeds: Annotated[Again, Field(ge=2)] = Field(
        default=2,
        description="The number of the study's seeds on which the baseline is trained at each.",
    )

    @model_validator(mode="after")
    def _around(self) -> Self:
        low, high = self.horizons
        if not low < 1 < high:
            text = f"expected one below 1 and then one above it, got [{low:g}, {high:g}]"
            raise RuleError([Problem("horizons", text)])
        return self
