"""A search space: its sections together, and the rules between them."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from sweeps.ledger import LONGEST_NAME, is_name
from sweeps.plan.domains import (
    AnyDomain,
    Domain,
    Grid,
    Multiple,
    Value,
    Values,
    key,
    with_rule,
    written,
)
from sweeps.plan.sections import (
    BATCH,
    BUDGET,
    CONTEXT,
    LOOKS,
    Again,
    Arm,
    Caps,
    Constraint,
    Each,
    GridSearch,
    Looks,
    OptunaSearch,
    RandomSearch,
    Resources,
    Retune,
    Seeds,
    Setting,
    Speedup,
    Target,
    Words,
)
from sweeps.policies import DEFAULT_SCHEDULE, AnySchedule
from tinylm import config as cfg
from tinylm.config import Problem, RuleError, Section

# Re-tune grids have a seed of their own, so that no arm is judged by the loss it was tuned on. The
# runs that confirm the best of a sweep have seeds from the second on. Other seeds are lower.
TUNING_SEED, CONFIRMING_SEED = 1000, 2000
# The tokens that are held out.
_SPLIT = {"data.validation_fraction", "data.split_seed", "data.validation_path"}


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


class Found(list[Problem]):
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
        if isinstance(info.context, Found):
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


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=1))
