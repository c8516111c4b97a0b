"""Search spaces: a YAML file for each question, read and checked.

The trials of a space are planned in `sweeps.plan.trials`.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sweeps.ledger import BASELINE, LONGEST_NAME, is_name
from sweeps.plan.domains import (
    DOMAINS,
    UNREAD,
    AnyDomain,
    Bounds,
    Domain,
    Grid,
    Multiple,
    Range,
    Value,
    Values,
    distinct,
    divisors,
    key,
    kind_of,
    lacks_brackets,
    not_descending,
    with_rule,
    written,
)
from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES, AnySchedule
from tinylm import config as cfg
from tinylm.config import ConfigError, Problem, RuleError, Section
from tinylm.yaml import YamlError, read_mapping

SPACES = Path("search_spaces")
SHIPPED = Path(str(files("sweeps"))) / "search_spaces"
# Re-tune grids have a seed of their own, so that no arm is judged by the loss it was tuned on. The
# runs that confirm the best of a sweep have seeds from the second on. Other seeds are lower.
TUNING_SEED, CONFIRMING_SEED = 1000, 2000
# Paths on which the trials of a sweep depend as a whole.
BUDGET, CONTEXT, BATCH = "budget.tokens", "model.context_length", "optim.batch_size"
# The tokens that are held out.
_SPLIT = {"data.validation_fraction", "data.split_seed", "data.validation_path"}


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


def _listed(value: Value | list[Value]) -> list[Value]:
    return value if isinstance(value, list) else [value]


# What other programs call a metric.
_METRICS = {
    **dict.fromkeys(
        ("loss", "eval_loss", "valid_loss", "validation_loss", "test_loss"), "val_loss"
    ),
    **dict.fromkeys(("bpb", "bits_per_character", "bpc"), "bits_per_byte"),
}


def _known_metric(value: object) -> object:
    """A metric; what is written for another program is refused with what it is here."""
    name = value.get("name", "val_loss") if isinstance(value, Mapping) else value
    plain = str(name).replace("/", "_").lower()
    meant = _METRICS.get(plain, plain)
    if meant != value and meant in {"val_loss", "bits_per_byte"}:
        words = f"expected {meant}, of which lower is better"
        raise PydanticCustomError("foreign", "{words}", {"words": words})
    return name if isinstance(name, str) else value


_NO_SEEDS = (
    f"missing; a study needs two or more, e.g. seeds: [0, 1, 2], or seeds: {{looks: {list(LOOKS)}}} to add "
    "seeds to the arms that are not settled"
)


class _Found(list[Problem]):
    """The problems found so far, where they are to be told together with others."""


class Space(Section):
    """A question, and the trials that answer it."""

    question: Words = Field(description="What the sweep is to answer, as people read it.")
    metric: Annotated[Literal["val_loss", "bits_per_byte"], BeforeValidator(_known_metric)] = Field(
        default="val_loss",
        description="What is compared: nats per token, or bits per byte, which vocabularies and "
        "texts share. Lower is better.",
    )
    base: dict[str, Setting] = Field(
        default_factory=dict,
        description="Dotted paths that replace values of the scale's config; {times: 4, of: PATH} is "
        "a multiple.",
    )
    search: (
        Annotated[GridSearch | RandomSearch | OptunaSearch, Field(discriminator="method")] | None
    ) = Field(
        default=None,
        description="How the values of space are chosen: {method: grid}, or random or optuna with a "
        "number of samples.",
    )
    space: dict[str, AnyDomain] = Field(
        default_factory=dict, description="Dotted paths that vary, each with its domain."
    )
    start: list[
        Annotated[
            Literal["base"] | dict[str, Value],
            with_rule("expected base, or a mapping of paths to values"),
        ]
    ] = Field(
        default_factory=list,
        description="Points that are tried first, beside the samples: base, or a mapping of paths to "
        "values (paths that it leaves out have the base config's).",
    )
    exclude: list[
        Annotated[
            dict[str, Value | Values],
            Field(min_length=1),
            with_rule("expected a mapping of paths to values or lists of values"),
        ]
    ] = Field(
        default_factory=list,
        description="Combinations that are left out: all the paths of a mapping have the value, or one "
        "of the values, given there.",
    )
    constraint: Constraint | None = Field(
        default=None, description="Bounds on the size of the models that are drawn."
    )
    match: (
        Annotated[
            Literal["tokens_per_update"],
            with_rule("expected tokens_per_update; params and flops are for the match of an arm"),
        ]
        | None
    ) = Field(
        default=None,
        description="Set optim.batch_size so that an update has as many tokens at every context length "
        "as in the base config.",
    )
    confirm: Annotated[Again, Field(ge=0)] = Field(
        default=0,
        description="The number of new seeds on which the best values of the sweep are run again.",
    )
    arms: Annotated[dict[str, Arm], Field(min_length=1)] | None = Field(
        default=None, description="Changes of the baseline, each compared with it."
    )
    each: Each | None = Field(
        default=None, description="An arm for every value of one path, in place of arms."
    )
    retune: Annotated[dict[str, Retune], Field(min_length=1)] | None = Field(
        default=None, description="A small grid for every arm, e.g. of optim.lr."
    )
    seeds: Seeds = Field(
        default=[0],
        description="A list of seeds. In a search they are repeats of each value, which continues or stops as a "
        "whole; in a study there are also {looks: [3, 5, 8, 12], until: settled}: seeds are added to the arms "
        "that are not settled.",
    )
    matters: cfg.Positive | None = Field(
        default=None,
        description="The smallest difference of interest, in the units of the metric: an arm whose "
        "interval is within it makes no difference. Default: two standard deviations of the noise.",
    )
    variance: Literal["own", "pooled"] = Field(
        default="own",
        description="The variance of an arm's paired differences in its test. pooled adds what the other arms say of "
        "it, which finds large differences with fewer seeds in studies of several arms, and small ones with more; it "
        "holds if no run has more than four times the variance of another arm's.",
    )
    repeats: Annotated[Again, Field(ge=1)] = Field(
        default=1, description="How many times the first seed is run."
    )
    schedule: AnySchedule = Field(
        default=DEFAULT_SCHEDULE,
        description="Early stopping: a policy and its settings. In a study it works within the grid of "
        "each arm.",
    )
    resources: Resources = Field(default=Resources(), description="What one trial takes.")
    caps: Caps = Field(default=Caps(), description="Limits of the whole sweep.")
    target: Target | None = Field(
        default=None,
        description="A loss to reach, e.g. {val_loss: 1.45}: the tokens and the time that each trial "
        "takes to it are reported.",
    )
    speedup: Speedup | None = Field(
        default=None,
        description="What each arm is worth in tokens of the baseline: it is also trained at fewer and at more "
        "tokens, e.g. {horizons: [0.5, 2], seeds: 2}. Default: not.",
    )

    @property
    def is_study(self) -> bool:
        """Whether the space compares arms with a baseline."""
        return self.arms is not None or self.each is not None

    @property
    def every_seed(self) -> list[int]:
        """All seeds that trials may have, in the order in which they are used."""
        return list(range(self.looks[-1])) if isinstance(self.seeds, Looks) else self.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds after which a study is looked at; a list of seeds has one look."""
        return self.seeds.numbers if isinstance(self.seeds, Looks) else (len(self.seeds),)

    def excludes(self, values: Mapping[str, Value]) -> bool:
        """Whether `exclude` leaves a combination of values out."""
        return any(
            all(key(values[path]) in map(key, _listed(out)) for path, out in case.items())
            for case in self.exclude
        )

    @model_validator(mode="after")
    def _rules(self, info: ValidationInfo) -> Self:
        wrong = self._broken_rules()
        if isinstance(info.context, _Found):
            info.context.extend(wrong)
        elif wrong:
            raise RuleError(wrong)
        return self

    def _broken_rules(self) -> list[Problem]:
        """The rules between its parts that it breaks."""
        study = self._wrong_study() if self.is_study else self._wrong_search()
        rest = (self._incomparable(), self._wrong_multiples(), self._wrong_match())
        wrong = [*itertools.chain(*rest), *study]
        if max(self.every_seed) >= TUNING_SEED and (self.retune or self.confirm):
            text = f"{TUNING_SEED} and above are reserved for re-tuning and confirming, got "
            wrong.append(Problem("seeds", f"{text}{max(self.every_seed)}"))
        return wrong

    def _wrong_study(self) -> Iterator[Problem]:
        if self.arms is not None and self.each is not None:
            yield Problem("each", "a study has arms or each, not both")
        for name in ("search", "space", "start", "exclude", "constraint", "confirm"):
            if getattr(self, name):
                yield Problem(name, "not allowed in a study, which runs all arms on all seeds")
        yield from self._wrong_seeds()
        if self.target and self.target.ends != "nothing":
            yield Problem(
                "target.ends", "a study compares whole runs; add ends: nothing to report the target"
            )
        for name, arm in (self.arms or {}).items():
            yield from self._wrong_arm(f"arms.{name}", name, arm)
        for path, domain in (self.retune or {}).items():
            if self.each is not None and path == self.each.path:
                yield Problem(f"retune.{path}", "each sets this path")
            if self.each is not None and path in self.each.scale and isinstance(domain, Grid):
                yield Problem(
                    f"retune.{path}", "each.scale sets this path; use times to multiply its value"
                )
        if self.each is not None and self.each.path in self.each.scale:
            yield Problem(f"each.scale.{self.each.path}", "each sets this path")

    def _wrong_seeds(self) -> Iterator[Problem]:
        """What is wrong with the seeds of a study."""
        if "seeds" not in self.model_fields_set:
            yield Problem("seeds", _NO_SEEDS)
        elif len(self.every_seed) < 2:
            yield Problem("seeds", f"a study needs two or more, got {self.seeds}")
        elif self.speedup is not None and self.speedup.seeds > len(self.every_seed):
            text = f"the study has {len(self.every_seed)}, got {self.speedup.seeds}"
            yield Problem("speedup.seeds", text)

    def _wrong_arm(self, where: str, name: str, arm: Arm) -> Iterator[Problem]:
        if not is_name(name):
            rule = f"letters, digits, _, - and ., at most {LONGEST_NAME} characters"
            yield Problem(where, f"expected a name of {rule}")
        for path in (self.retune or {}).keys() & arm.set.keys():
            yield Problem(f"{where}.set.{path}", "retune sets this path in every arm")
        if arm.match and "model.d_ff" in (self.retune or {}):
            yield Problem("retune.model.d_ff", f"{where}.match sets this path")
        if arm.match and "model.d_ff" in arm.set:
            yield Problem(f"{where}.set.model.d_ff", "match sets this path")

    def _wrong_search(self) -> Iterator[Problem]:
        if isinstance(self.seeds, Looks):
            yield Problem("seeds", "only a study has looks; list the seeds, e.g. [0, 1]")
        for name in ("matters", "variance", "speedup"):
            if name in self.model_fields_set:
                yield Problem(name, "only for studies, which compare arms with a baseline")
        if self.search is None:
            yield Problem(
                "search", "missing; expected {method: grid} or {method: random, samples: N}"
            )
            yield from self._wrong_points()
            return
        if self.retune:
            yield Problem("retune", "only for studies; list the values under space")
        if self.target and self.target.ends != "nothing" and self.confirm:
            yield Problem("confirm", f"runs to the end, but target.ends is {self.target.ends}")
        if self.target and self.target.ends == "trial" and self.search.method == "optuna":
            yield Problem(
                "target.ends", "optuna compares whole runs; use sweep or nothing, got trial"
            )
        if self.constraint and self.search.method == "grid":
            yield Problem("constraint", "a grid has no draws to discard; use random or optuna")
        if self.repeats > 1 and self.search.method != "grid":
            yield Problem(
                "repeats", f"only for grids; {self.search.method} search draws new values each time"
            )
        if not self.space and self.search.method != "grid":
            yield Problem("space", f"{self.search.method} search needs paths to draw")
        if self.start and self.search.method == "grid":
            yield Problem("start", "a grid tries all its points; use random or optuna")
        yield from self._wrong_domains(self.search.method)
        yield from self._wrong_points()

    def _wrong_multiples(self) -> Iterator[Problem]:
        """Multiples of a value that changes where the multiple would not."""
        varied = {path: where for where, path in self.varied()}
        for path, setting in self.base.items():
            if isinstance(setting, Multiple) and setting.of in varied:
                text = f"{varied[setting.of]} varies {setting.of}; write the multiple beside it"
                yield Problem(f"base.{path}", text)

    def _wrong_points(self) -> Iterator[Problem]:
        """Start points and exclusions that name what the space does not have."""
        excluded = [(f"exclude.{number}", case) for number, case in enumerate(self.exclude)]
        points = [(f"start.{n}", [*one]) for n, one in enumerate(self.start) if one != "base"]
        for where, paths in (*points, *((where, [*case]) for where, case in excluded)):
            for path in paths:
                if path not in self.space:
                    near = "" if path in cfg.PATHS else cfg.did_you_mean(path, self.space)
                    yield Problem(f"{where}.{path}", f"not under space{near}")
        for where, case in excluded:
            for path in case.keys() & self.space.keys():
                leaves = list(self.space[path].leaves())
                for value in _listed(case[path]):
                    if not any(isinstance(one, Multiple) or one.has(value) for one in leaves):
                        text = f"the space never has {written(value)} here"
                        yield Problem(f"{where}.{path}", text)

    def _incomparable(self) -> Iterator[Problem]:
        varied = dict(self.varied())
        for where, path in varied.items():
            if path == "run.device":
                yield Problem(where, "every trial must use the same resources")
            elif path.startswith("eval.") or path in _SPLIT:
                yield Problem(where, "every trial must be evaluated on the same windows")
            elif path == CONTEXT and where.startswith("retune") and self.match is None:
                text = "the grid would compare updates of different sizes; add "
                yield Problem(where, f"{text}match: tokens_per_update")
            elif path == "budget.seconds":
                yield Problem(where, "every trial must have the same time; set it under base")
            elif path == BUDGET and self.is_study:
                yield Problem(where, "every arm must have the same token budget")
        if any(path == "model.vocab_size" or path.startswith("data.") for path in varied.values()):
            text = "losses per token of two tokenizers can't be compared; use bits_per_byte"
            if self.metric == "val_loss":
                yield Problem("metric", text)
            if self.target and self.target.metric == "val_loss":
                yield Problem("target.val_loss", text)

    def _wrong_match(self) -> Iterator[Problem]:
        """What goes against a batch size that follows from the context length."""
        varied = {path: where for where, path in self.varied()}
        if self.match is None:
            return
        if CONTEXT not in varied:
            yield Problem("match", f"nothing here varies {CONTEXT}")
        if BATCH in varied:
            yield Problem(varied[BATCH], "match sets this path")
        found: list[tuple[str, object]] = [
            (f"space.{path}", leaf) for path, one in self.space.items() for leaf in one.leaves()
        ]
        for name, arm in (self.arms or {}).items():
            found += [(f"arms.{name}.set.{path}", value) for path, value in arm.set.items()]
        for where, multiple in found:
            if isinstance(multiple, Multiple) and multiple.of == BATCH:
                yield Problem(f"{where}.of", f"match sets {BATCH} afterwards")

    def varied(self) -> Iterator[tuple[str, str]]:
        """Every dotted path in which trials differ, after its place in the file."""
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

    def _wrong_domains(self, method: str) -> Iterator[Problem]:
        above: dict[str, Domain] = {}
        for path, domain in self.space.items():
            yield from domain.problems(f"space.{path}", method, above)
            for leaf in domain.leaves():
                if isinstance(leaf, Multiple) and leaf.of in self.space and leaf.of not in above:
                    yield Problem(f"space.{path}.of", f"{leaf.of} must be listed above")
            above[path] = domain
        if method == "optuna" and isinstance(self.seeds, list) and len(self.seeds) > 1:
            yield Problem("seeds", f"optuna searches one seed, got {self.seeds}")


def find(name_or_path: str) -> Path:
    """The file of a space: by its path, or by its name in search_spaces/ here or as installed."""
    path = Path(name_or_path)
    is_file = path.suffix in {".yaml", ".yml"}
    named = path.stem if is_file else name_or_path
    if not is_name(named.replace(" ", "_")):
        raise ConfigError(
            [
                f"{name_or_path}: expected a space's name (letters, digits, _, - and ., at most "
                f"{LONGEST_NAME} characters) or .yaml file"
            ]
        )
    if not is_file:
        candidates = [folder / f"{name_or_path}.yaml" for folder in (SPACES, SHIPPED)]
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    if not path.is_file():
        shipped = sorted({file.stem for one in (SPACES, SHIPPED) for file in one.glob("*.yaml")})
        raise ConfigError(
            [
                f"{path}: no such search space; known spaces: {', '.join(shipped) or 'none'}"
                f"{cfg.did_you_mean(named, shipped)}"
            ]
        )
    return path


def _written_paths(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every dotted path in a tree that may not be a valid space: its place in the file, the path, and
    what is written for it."""

    def keys(where: str, part: object) -> Iterator[tuple[str, str, Any]]:
        for path, value in part.items() if isinstance(part, dict) else ():
            yield f"{where}.{path}", path, value

    for part in ("base", "space", "retune"):
        yield from keys(part, tree.get(part))
    arms, each = tree.get("arms"), tree.get("each")
    for name, arm in arms.items() if isinstance(arms, dict) else ():
        yield from keys(f"arms.{name}.set", arm.get("set") if isinstance(arm, dict) else None)
    if isinstance(each, dict):
        if isinstance(each.get("path"), str):
            yield "each.path", each["path"], None
        yield from keys("each.scale", each.get("scale"))


def _wrong_paths(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the paths of a tree."""
    unknown = 0
    for where, path, value in _written_paths(tree):
        if path in {"run.seed", "seed"}:
            yield Problem(where, "list seeds under `seeds`")
        elif path == "run.repeat":
            yield Problem(where, "set the runs of the first seed under `repeats`")
        elif path in Space.model_fields:
            yield Problem(where, f"move {path} to the top level of the file")
        elif path not in cfg.PATHS:
            # A path that is a value, not a key, is not in `where` yet.
            named = f"{path}: " if not where.endswith(path) else ""
            unknown += 1
            # To look for the nearest path takes longer than all else; no more problems are shown.
            text = cfg.no_path(path, value) if unknown <= cfg.PROBLEMS_SHOWN else "unknown path"
            yield Problem(where, f"{named}{text}")


def _leaves(space: Space) -> Iterator[tuple[str, str, Domain]]:
    """Every domain that a path may have, after its place in the file and the path."""
    for part, domains in (("space", space.space), ("retune", space.retune or {})):
        for path, domain in domains.items():
            for leaf in domain.leaves() if isinstance(domain, Domain) else ():
                yield f"{part}.{path}", path, leaf


def _several_gpus(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """More than one device a trial, which ledgers of earlier versions may have."""
    resources = tree.get("resources")
    gpus = resources.get("gpus") if isinstance(resources, Mapping) else None
    if isinstance(gpus, int | float) and gpus > 1:
        text = f"expected at most 1, got {gpus:g}: a trial trains on one device"
        yield Problem("resources.gpus", text)


def _wrong_range(path: str, domain: Domain) -> Iterator[str]:
    """What is wrong with a range for the values of a path; its bounds are told as they are written."""
    faults = cfg.value_problems(path, domain.ends())
    if not faults:
        return
    if not cfg.has_numbers(path):
        values = [written(value) for value in cfg.choices(path) if value != cfg.FASTEST]
        listed = f"{{choice: [{', '.join(values) or '..'}]}}"
        yield f"no number is a value of this path, got {domain.kind()}; write {listed}"
    elif not isinstance(domain, Range):
        yield from faults
    elif cfg.is_whole(path):
        yield f"expected whole numbers, got {domain.kind()}; write {domain.in_whole_numbers}"
        yield from cfg.value_problems(path, domain.whole_ends)
    else:
        yield from cfg.value_problems(path, domain.bounds or ())


def _wrong_values(space: Space) -> Iterator[Problem]:
    """Values that a path can't have, whatever the others are: one line for each place."""
    listed = []
    for where, path, leaf in _leaves(space):
        if leaf.bounds is None:
            listed.append((where, path, leaf.ends()))
        elif path in cfg.PATHS:
            yield from (Problem(where, fault) for fault in _wrong_range(path, leaf))
    for number, point in enumerate(space.start):
        if point != "base":
            listed += [(f"start.{number}.{path}", path, [value]) for path, value in point.items()]
    sets = [(f"arms.{name}.set", arm.set) for name, arm in (space.arms or {}).items()]
    for part, changes in (("base", space.base), *sets):
        plain = {path: one for path, one in changes.items() if not isinstance(one, Multiple)}
        listed += [(f"{part}.{path}", path, [one]) for path, one in plain.items()]
    if space.each is not None and not isinstance(space.each.values, PowersOfTwo):
        listed.append((f"each.values: {space.each.path}", space.each.path, space.each.values))
    for where, path, values in listed:
        if where != f"base.{path}" and any(_means_fastest(path, value) for value in values):
            yield Problem(where, f"{cfg.FASTEST} is for the base: it is the same for all trials")
        elif path in cfg.PATHS:
            yield from (Problem(where, fault) for fault in cfg.value_problems(path, values))


def _means_fastest(path: str, value: object) -> bool:
    """Whether a value of a path is `fastest`, or is spelled much like it."""
    is_choice = path in cfg.PATHS and cfg.FASTEST in cfg.choices(path)
    return is_choice and isinstance(value, str) and cfg.nearest(value, [cfg.FASTEST]) is not None


def _wrong_multiples(space: Space) -> Iterator[Problem]:
    """Multiples of what is no number, and multiples that are no whole numbers where these are due."""
    found = [(where, path, leaf) for where, path, leaf in _leaves(space)]
    sets = [(f"arms.{name}.set", arm.set) for name, arm in (space.arms or {}).items()]
    for part, changes in (("base", space.base), *sets):
        found += [(f"{part}.{p}", p, m) for p, m in changes.items() if isinstance(m, Multiple)]
    for where, path, multiple in found:
        if not isinstance(multiple, Multiple) or multiple is UNREAD:
            continue
        if multiple.of not in cfg.PATHS:
            yield Problem(f"{where}.of", f"{multiple.of}: {cfg.no_path(multiple.of)}")
        elif not cfg.is_numeric(multiple.of):
            yield Problem(f"{where}.of", f"{multiple.of} is not a number")
        elif path in cfg.PATHS and cfg.is_whole(path) and not multiple.is_whole:
            yield Problem(where, "expected a whole number; add round_to, e.g. round_to: 1")


# Keys whose mapping is one of several kinds, with the key that names the kind and all its names.
_SEARCHES: dict[str, type[Section]] = {
    "grid": GridSearch,
    "random": RandomSearch,
    "optuna": OptunaSearch,
}
_TAGGED = {
    "schedule": ("policy", tuple(SCHEDULES)),
    "search": ("method", tuple(_SEARCHES)),
}


# What other programs call a key of a space file, or one of its values, with what it is here.
_CALLED = {
    **dict.fromkeys(("parameters", "params", "param_space", "search_space", "hyperparameters"), "space"),
    **dict.fromkeys(("method", "algorithm", "sampler", "search_alg", "hydra"),
                    "search: {method: random, ..}"),
    "method.grid": "search: {method: grid}",
    "method.random": "search: {method: random, samples: N}",
    "method.bayes": "search: {method: optuna, samples: N}",
    **dict.fromkeys(("search.method.bayes", "search.method.bayesian", "search.method.tpe",
                     "search.method.bohb"), "optuna"),
    **dict.fromkeys(("samples", "n_trials", "num_samples", "num_trials", "run_cap", "count"),
                    "search: {samples: N, ..}"),
    **dict.fromkeys(("early_terminate", "early_stopping", "scheduler", "pruner"),
                    "schedule: {policy: asha, grace: 1/8}"),
    **dict.fromkeys(("grace_period", "reduction_factor", "max_t", "min_iter", "min_resource"),
                    "schedule: {policy: asha, grace: 1/8, eta: 3}"),
    **dict.fromkeys(("schedule.grace_period", "schedule.min_t", "schedule.min_iter",
                     "schedule.min_resource", "schedule.min_early_stopping_rate", "schedule.warmup"),
                    "schedule.grace: 1/8, a share of budget.tokens"),
    **dict.fromkeys(("schedule.reduction_factor", "schedule.factor"), "schedule.eta"),
    **dict.fromkeys(("schedule.max_t", "schedule.max_iter", "schedule.max_resource",
                     "schedule.max_epochs"), "base: {budget.tokens: N}"),
    **dict.fromkeys(("schedule.type", "schedule.name", "schedule.method", "schedule.scheduler"),
                    "schedule.policy"),
    **dict.fromkeys(("schedule.policy.successive_halving", "schedule.policy.successivehalving"), "sha"),
    **dict.fromkeys(("schedule.policy.ASHAScheduler", "schedule.policy.async_hyperband"), "asha"),
    **dict.fromkeys(("name", "description", "project", "title"), "question"),
    **dict.fromkeys(("config", "defaults", "fixed", "baseline"), "base"),
    **dict.fromkeys(("ablations", "variants", "experiments"), "arms"),
    **dict.fromkeys(("objective", "goal", "mode", "direction", "directions"),
                    "metric: val_loss, of which lower is better"),
    **dict.fromkeys(("stop", "stopping_criterion", "target_metric"), "target: {val_loss: X}"),
    **{path: f"space: {{{path}: ..}}, or base for one value" for path in cfg.PATHS},
    **{name: f"base: {{{name}.NAME: ..}}, with whole paths" for name in cfg.Config.model_fields},
    "seed": "seeds: [..]",
    **dict.fromkeys(("search.n_trials", "search.num_samples", "search.num_trials", "search.run_cap",
                     "search.count", "search.trials"), "search.samples"),
    **dict.fromkeys(("search.algorithm", "search.sampler", "search.type", "search.name"),
                    "search.method"),
}  # fmt: skip


def _empty(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every dotted path that is written without a value."""
    for name, value in tree.items():
        if value is None:
            yield f"{above}{name}"
        elif isinstance(value, dict) and not lacks_brackets(value):
            yield from _empty(value, f"{above}{name}.")


def _without_empty(tree: Any) -> Any:
    if not isinstance(tree, dict) or lacks_brackets(tree):
        return tree
    return {key: _without_empty(value) for key, value in tree.items() if value is not None}


def _names(tree: Mapping[str, Any]) -> list[str]:
    """The dotted path of every key that a space file with this policy may have."""
    schedule = tree.get("schedule")
    policy = schedule.get("policy") if isinstance(schedule, dict) else None
    sections: dict[str, type[Section] | None] = {
        "resources": Resources,
        "caps": Caps,
        "target": Target,
        "speedup": Speedup,
        "seeds": Looks if isinstance(tree.get("seeds"), dict) else None,
        "schedule": SCHEDULES.get(str(policy)),
        "constraint": Constraint,
        "each": Each,
    }
    search = tree.get("search")
    method = search.get("method") if isinstance(search, dict) else None
    sections["search"] = _SEARCHES.get(str(method))
    arms = tree.get("arms")
    sections |= {f"arms.{name}": Arm for name in (arms if isinstance(arms, dict) else ())}
    domains = tree.get("space")
    for path, value in domains.items() if isinstance(domains, dict) else ():
        kinds = [kind for kind in DOMAINS if isinstance(value, dict) and kind in value]
        sections |= {f"space.{path}": DOMAINS[kind] for kind in kinds}
    inner = [
        f"{key}.{name}"
        for key, section in sections.items()
        if section
        for name in section.model_fields
    ]
    return [*Space.model_fields, *inner]


def parse(written: Mapping[str, Any], source: str) -> Space:
    """The space that a mapping describes, also one from a ledger; a key without a value is missing.

    `ConfigError` with everything that is wrong. Dotted paths are not looked up in the config tree.
    """
    space, wrong = _parsed(written)
    if wrong or space is None:
        raise ConfigError(problem.line(source) for problem in wrong)
    return space


def _parsed(written: Mapping[str, Any]) -> tuple[Space | None, list[Problem]]:
    """The space that a mapping describes, and everything that is wrong with it.

    What is wrong is left out of the space, so that the rest of it can be judged; what would be wrong
    without it only is no problem. None if nothing is left.
    """
    tree, found = _without_empty(written), list(_listed_baseline(written))
    tree = _without_members(tree, found)
    names, called = _names(tree), {**_CALLED, **_in_arms(tree)}
    while True:
        broken = _Found()
        try:
            space = Space.model_validate(tree, context=broken)
        except ValidationError as error:
            wrong = cfg.problems(error, names, _TAGGED, called)
        else:
            return space, [*found, *_independent(broken, found, written, called)]
        new = _independent(wrong, found, written, called)
        rest = _without_members(tree, new) if new else _without_sections(tree, wrong)
        found += new
        if rest == tree:
            return None, found
        tree = rest


def _listed_baseline(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """That the baseline stands among the arms."""
    arms = tree.get("arms")
    for name in arms if isinstance(arms, dict) else ():
        if str(name).casefold() == BASELINE:
            text = "the baseline is the base config itself, and is not listed among the arms"
            yield Problem(f"arms.{name}", text)


def _in_arms(tree: Mapping[str, Any]) -> dict[str, str]:
    """What stands in an arm itself and not below its `set`, with where it belongs."""
    arms = tree.get("arms")
    found = {}
    for name, arm in (arms if isinstance(arms, dict) else {}).items():
        for path, value in (arm if isinstance(arm, dict) else {}).items():
            inner = f"{path}.{next(iter(value), '')}" if isinstance(value, dict) else path
            if inner in cfg.PATHS:
                found[f"arms.{name}.{path}"] = f"arms.{name}.set: {{{inner}: ..}}"
    return found


def _independent(
    problems: Sequence[Problem],
    found: Sequence[Problem],
    tree: Mapping[str, Any],
    called: Mapping[str, str] = _CALLED,
) -> list[Problem]:
    """The problems that are neither in nor around what was found to be wrong before, and no lack of
    what stands in the wrong place, or under the name that another program gives it."""
    before = {one.path for one in found}
    around = {above for path in before for above in _prefixes(path)}
    said = set()
    for path in (one.path for one in (*found, *problems)):
        inner = path.partition(".")[2]
        said |= {called[path].partition(":")[0]} if path in called else set()
        said |= {inner} if inner in Space.model_fields else set()

    def is_new(problem: Problem) -> bool:
        near = problem.path in around or not before.isdisjoint(_prefixes(problem.path))
        return not near and (problem.path not in said or _has(tree, problem.path))

    return [problem for problem in problems if is_new(problem)]


def _has(tree: Mapping[str, Any], place: str) -> bool:
    """Whether a tree has a key, or a section with a key."""
    name = _key_of(place, tree)
    part, member = tree.get(name), place.removeprefix(name).removeprefix(".")
    return name in tree and (not member or (isinstance(part, dict) and _has(part, member)))


# Stand for parts that are wrong, as `UNREAD` does, and break no rule.
_AN_ARM = Arm.model_construct(hypothesis="", set={}, match=None, retune=True)
_AN_EACH = Each.model_construct(path="", values=[], hypothesis="", scale={})


def _key_of(place: str, members: Mapping[str, Any]) -> str:
    """The key of a mapping in or at which a place is; the first part of the place if there is none."""
    return next((key for key in _prefixes(place) if key in members), place.partition(".")[0])


def _prefixes(place: str) -> list[str]:
    """The parts of a place from its beginning, and itself: `a`, `a.b`, `a.b.c`."""
    return list(itertools.accumulate(place.split("."), "{}.{}".format))


def _without_members(tree: Mapping[str, Any], wrong: Iterable[Problem]) -> dict[str, Any]:
    """A tree without the members of its sections that are wrong; without what is wrong and no member."""
    rest = {name: dict(part) if isinstance(part, dict) else part for name, part in tree.items()}
    for problem in wrong:
        name = _key_of(problem.path, rest)
        part = rest.get(name)
        members = part if isinstance(part, dict) else {}
        member = _key_of(problem.path.removeprefix(f"{name}."), members)
        if name == "arms":
            rest[name] = {**members, member: _AN_ARM}
        elif name == "space" and member in members:
            members[member] = UNREAD
        elif member in members and len(members) > 1:
            del members[member]
        else:
            _leave_out(rest, problem)
    return rest


def _without_sections(tree: Mapping[str, Any], wrong: Iterable[Problem]) -> dict[str, Any]:
    """A tree without the sections that are wrong, or with what stands for them."""
    rest = dict(tree)
    for problem in wrong:
        _leave_out(rest, problem)
    return rest


def _leave_out(tree: dict[str, Any], problem: Problem) -> None:
    """Remove the section of a tree that is wrong, or put there what stands for it."""
    name = _key_of(problem.path, tree)
    search = tree.pop(name, None) if name == "search" else None
    if name == "question":
        tree[name] = "?"
    elif name == "each":
        tree[name] = _AN_EACH
    elif name == "seeds" and {"arms", "each"} & tree.keys():
        tree[name] = list(range(TUNING_SEED))
    elif isinstance(search, dict) and search.get("method") in ("random", "optuna"):
        tree[name] = {"method": search["method"], "samples": 1}
    else:
        tree.pop(name, None)


def read(path: Path) -> tuple[Space, dict[str, Any]]:
    """The space of a YAML file, and the file's mapping as it is written."""
    try:
        tree = read_mapping(path)
    except YamlError as error:
        raise ConfigError([str(error)]) from error
    found = [
        *(Problem(name, "empty") for name in _empty(tree)),
        *_wrong_paths(tree),
        *_several_gpus(tree),
    ]
    # Empty arms were meant to be a study, which has no search.
    around = [Problem("search", "")] if {"arms", "each"} & {one.path for one in found} else []
    space, wrong = _parsed(tree)
    if space is not None:
        wrong += _independent([*_wrong_values(space), *_wrong_multiples(space)], wrong, tree)
    # What is written for a wrong path may be right for the one that was meant, or not.
    found += _independent(wrong, [*found, *around], tree)
    if found or space is None:
        raise ConfigError(problem.line(str(path)) for problem in found)
    return space, tree


def _not_null(tree: Any) -> Any:
    """A schema in which a key may be left out but not left empty."""
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
    """The JSON Schema of a space file, for editors, with the paths of the config tree."""
    tree = _not_null(Space.model_json_schema())
    paths = {"enum": list(cfg.PATHS)}
    for part in (tree["properties"][name] for name in ("base", "space", "retune")):
        part["propertyNames"] = paths
    tree["$defs"]["Arm"]["properties"]["set"]["propertyNames"] = paths
    tree["$defs"]["Each"]["properties"]["path"] |= paths
    tree["$defs"]["Each"]["properties"]["scale"]["propertyNames"] = paths
    return tree


def missed_rung(space: Space, config: cfg.Config) -> str | None:
    """The first rung of a config on which no record falls, and why; None if there is none."""
    budget, every = config.budget.tokens, config.eval.every_tokens
    for share in space.schedule.shares():
        if share * budget % every:
            return (
                f"no record falls on the rung at {float(share * budget):g} tokens ({share} of {budget}): "
                f"eval.every_tokens is {every}"
            )
    return None


def _nearest_grace(space: Space, budget: int, every: int) -> Fraction | None:
    """The share nearest to the first rung whose multiples all have records; None if there is none."""
    last = (budget - 1) // every
    nearest = min(max(1, round(space.schedule.shares()[0] * budget / every)), last)
    return Fraction(nearest * every, budget) if nearest else None


def check_rungs(space: Space, base: cfg.Config, source: str) -> None:
    """Raise `ConfigError` if a trial may have a rung on which no record falls, whatever is drawn."""
    shares = space.schedule.shares()
    if not shares:
        return
    if base.budget.seconds is not None:
        raise ConfigError(
            [
                f"{source}: schedule.policy: {space.schedule.policy} needs a budget of tokens, but "
                f"budget.seconds is {base.budget.seconds:g}; use {{policy: none}}"
            ]
        )
    every = base.eval.every_tokens
    if BUDGET not in space.space:
        missed = missed_rung(space, base)
        nearest = _nearest_grace(space, base.budget.tokens, every)
        if missed is not None:
            advice = f"; the nearest grace with a record is {nearest}" if nearest else ""
            raise ConfigError([f"{source}: schedule.grace: {missed}{advice}"])
        return
    common = divisors(space.space, cfg.flatten(base.model_dump()))[BUDGET]
    needed = math.lcm(*((share / every).denominator for share in shares))
    if common is not None and common % needed:
        raise ConfigError(
            [f"{source}: space.{BUDGET}: {_off_the_rungs(space, base, common, needed)}"]
        )


def _common_update(space: Space, base: cfg.Config) -> int | None:
    """The fewest tokens that are whole updates in every trial; None if that is not known."""
    sizes: list[list[Any]] = []
    for path, own in (
        (BATCH, base.optim.batch_size),
        (CONTEXT, base.model.context_length),
    ):
        domain = space.space.get(path)
        sizes.append([own] if domain is None else domain.values)
    batches, lengths = sizes
    whole = all(type(size) is int for size in (*batches, *lengths)) and batches and lengths
    return math.lcm(*(batch * length for batch in batches for length in lengths)) if whole else None


def _off_the_rungs(space: Space, base: cfg.Config, common: int, needed: int) -> str:
    """Why budgets that have this divisor in common do not all have records at their rungs, and what
    would help."""
    shares, every = space.schedule.shares(), base.eval.every_tokens
    advice = [f"budgets like that (round_to: {needed})"]
    # The longest interval between records that falls on all rungs and checkpoints.
    finer = math.gcd(*(int(share * common) for share in shares), base.run.checkpoint_every_tokens)
    on_them = all((share * common).denominator == 1 for share in shares)
    update = _common_update(space, base)
    if on_them and update is not None and finer % update == 0:
        advice.append(f"base: {{eval.every_tokens: {finer}}}")
    grace = _nearest_grace(space, common, every)
    if grace is not None and (update is None or common % update == 0):
        advice.append(f"grace: {grace}")
    return (
        f"a record must fall on each rung of every trial ({', '.join(map(str, shares))} of its budget). "
        f"With eval.every_tokens {every}, every budget must be a multiple of {needed}, and these are "
        f"multiples of {common}. Use {', or '.join(advice)}"
    )


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=1))
