"""The arms of a study (the baseline and named changes of it) and the trials of each arm.

If the space has a re-tune grid, an arm first trains that grid on a separate seed, with early
stopping within the grid. Then the arm runs on its seeds to the end, at the values that were best
in the grid. The baseline is an arm like the others.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from sweeps.ledger import BASELINE, Role, pool_of
from sweeps.plan.domains import Value
from sweeps.plan.request import Machine, PlannedTrial, Request, label_of, without_multiples
from sweeps.plan.sections import BATCH, Arm, Each, PowersOfTwo, Times
from sweeps.text import short_name
from tinylm import config as cfg
from tinylm.config import ConfigError

REPEATS = 3  # runs of the baseline if equal runs may differ, to see by how much
LEAST_UPDATES = 32  # of an arm whose batch size is bounded only by memory


@dataclass(frozen=True)
class PlannedArm:
    """An arm, or the baseline, with everything that it changes."""

    name: str
    where: str  # the path in the space file, for error messages
    hypothesis: str
    changes: dict[str, Value]
    retune: bool  # whether it has its own re-tune grid
    paths: tuple[str, ...]  # of the re-tune grid
    # What changes with that: the interval of records, if an update is larger than the interval.
    fit: dict[str, Value] = field(default_factory=dict)

    @property
    def grid(self) -> str:
        """The name of its re-tune grid: an arm that is changed and keeps its name has another."""
        return cfg.digest([self.changes, self.fit, self.paths])[:6]

    @property
    def pool(self) -> str:
        """The key of its re-tune grid among the pools of the policy."""
        key = pool_of("tuning", self.name, self.grid)
        assert key is not None  # a grid competes
        return key

    def values(self, tuned: Mapping[str, Value]) -> dict[str, Value]:
        """The values of a trial of the arm, which may differ from the baseline's."""
        return {**self.changes, **tuned}


def _config(request: Request, arm: PlannedArm, more: Mapping[str, Value]) -> cfg.Config:
    """The config of an arm, with more values replaced."""
    return request.config({**arm.changes, **arm.fit, **more}, arm.where)


def planned_arms(request: Request, machine: Machine) -> tuple[list[PlannedArm], list[str]]:
    """The baseline and the arms in the order of the file, and notes for the user on their values.

    `ConfigError` for arms whose config is invalid or equals that of another arm.
    """
    space = request.space
    tuned = tuple(space.retune or ())
    planned = [PlannedArm(BASELINE, "base", "", {}, bool(tuned), tuned)]
    notes: list[str] = []
    wrong: list[str] = []
    for name, arm in (space.arms or {}).items():
        try:
            planned.append(_named_arm(request, machine, name, arm))
        except ConfigError as error:
            wrong += error.problems
    if space.each is not None:
        values, notes = _values(request, machine, space.each)
        if not values:
            own = _base_value(request, space.each.path)
            wrong.append(f"{request.source}: each.values: only the baseline's own value, {own}")
        for value in values:
            try:
                planned.append(_arm_of_value(request, space.each, value))
            except ConfigError as error:
                wrong += error.problems
    wrong += _duplicates(request, planned)
    if wrong:
        raise ConfigError(wrong)
    return planned, notes


def _duplicates(request: Request, planned: list[PlannedArm]) -> Iterator[str]:
    """A problem for each arm whose config equals that of the baseline or of an earlier arm."""
    seen: dict[tuple[str, bool], PlannedArm] = {}
    base = cfg.digest(request.base.model_dump())
    for arm in planned[1:]:
        config = cfg.digest(_config(request, arm, {}).model_dump())
        # The same changes with and without a re-tune grid of their own are two different arms.
        other = planned[0] if config == base else seen.get((config, arm.retune))
        if other is not None:
            yield f"{request.source}: {arm.where}: same config as {other.name}"
        seen[config, arm.retune] = arm


def _named_arm(request: Request, machine: Machine, name: str, arm: Arm) -> PlannedArm:
    """An arm that the space lists under `arms`."""
    where = f"arms.{name}"
    changes = without_multiples(request.base, arm.set)
    if arm.match is not None:
        changed = request.config(changes, f"{where}.set")
        changes["model.d_ff"] = _matched_width(request, machine, changed, arm.match, where)
    tuned = tuple(request.space.retune or ())
    return PlannedArm(name, where, arm.hypothesis, changes, bool(tuned) and arm.retune, tuned)


def _matched_width(
    request: Request, machine: Machine, arm: cfg.Config, measure: str, where: str
) -> int:
    """The `model.d_ff` that brings an arm nearest to the baseline's parameters (`params`) or FLOPs
    per token (`flops`)."""
    index = ("params", "flops").index(measure)

    def size(width: int) -> int:
        return machine.size(cfg.overlay(arm, {"model.d_ff": width}).model)[index]

    target = machine.size(request.base.model)[index]
    if size(1) > target:
        raise ConfigError(
            [
                f"{request.source}: {where}.match: the baseline has {target} {measure}, but the "
                f"arm has {size(1)} even with model.d_ff 1"
            ]
        )
    low, high = 1, 2
    while size(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - target))


def _base_value(request: Request, path: str) -> Any:
    return cfg.flatten(request.base.model_dump())[path]


def _arm_of_value(request: Request, each: Each, value: Value) -> PlannedArm:
    """The arm of one value under `each`."""
    name = f"{short_name(each.path)}={value}"
    scaled = {path: _scaled(request, each, value, path) for path in each.scale}
    changes: dict[str, Value] = {each.path: value, **scaled}
    is_batch = each.path == BATCH and type(value) is int and value > 0
    fit = _record_interval(request, int(value)) if is_batch else {}
    tuned = tuple(request.space.retune or ())
    return PlannedArm(name, "each", each.hypothesis, changes, bool(tuned), tuned, fit)


def _scaled(request: Request, each: Each, value: Value, path: str) -> float:
    """The value of a path under `each.scale`: the baseline's, times a power of the values' ratio."""
    where = f"{request.source}: each.scale.{path}"
    own, base, power = _base_value(request, each.path), _base_value(request, path), each.scale[path]
    are_numbers = all(cfg.is_number(number) for number in (value, own, base))
    if not are_numbers or min(float(value), float(own)) <= 0:
        problem = (
            f"expected numbers above 0, got {value!r} for {each.path} "
            f"(the baseline has {own!r}) and {base!r} for {path}"
        )
        raise ConfigError([f"{where}: {problem}"])
    try:
        return float(base * (float(value) / float(own)) ** power)
    except OverflowError as error:
        problem = f"the power {power:g} is too large for {value!r}"
        raise ConfigError([f"{where}: {problem}"]) from error


def _record_interval(request: Request, batch_size: int) -> dict[str, Value]:
    """The changes that let records fall on the updates of a batch size.

    None if the baseline's interval does. Else the next longer interval that falls on the rungs and
    on the end; none if there is no such interval.
    """
    base = request.base
    update = batch_size * base.model.context_length
    if base.eval.every_tokens % update == 0:
        return {}
    rungs = request.space.schedule.rungs(base.budget.tokens) if request.space.retune else ()
    common = math.gcd(base.budget.tokens, *rungs)
    shortest = min(base.eval.every_tokens, common)
    fitting = [n * update for n in range(1, common // update + 1) if common % (n * update) == 0]
    every = next((tokens for tokens in fitting if tokens >= shortest), None)
    if every is None:
        return {}
    times = max(1, round(base.run.checkpoint_every_tokens / every))
    return {"eval.every_tokens": every, "run.checkpoint_every_tokens": times * every}


def _values(request: Request, machine: Machine, each: Each) -> tuple[list[Value], list[str]]:
    """The values under `each` without the baseline's own, and notes for the user on their bound."""
    notes = []
    if isinstance(each.values, PowersOfTwo):
        low, high = each.values.powers_of_two
        assert isinstance(low, int)
        first = 1 << (low - 1).bit_length()
        values: list[Value]
        if isinstance(high, int):
            values = list(_doubling(first, high))
        else:
            values, note = _batch_sizes_that_fit(request, machine, each, first)
            notes.append(note)
    else:
        values = list(each.values)
    own = _base_value(request, each.path)
    # True == 1, but 1 for a switch is an error that has to be reported.
    return [v for v in values if v != own or isinstance(v, bool) != isinstance(own, bool)], notes


def _doubling(first: int, last: float = math.inf) -> Iterator[int]:
    """The first number and its doubles, up to the last."""
    while first <= last:
        yield first
        first *= 2


def _batch_sizes_that_fit(
    request: Request, machine: Machine, each: Each, first: int
) -> tuple[list[Value], str]:
    """Batch sizes, each twice the one before, that leave enough updates, fall on the rungs and fit
    in memory; and a note on why they end."""
    values: list[Value] = []
    why = ""
    for size in _doubling(first):
        try:
            # The note begins with the size, as a problem begins with its source.
            named = replace(request, source=f"{size} is not possible")
            config = _config(named, _arm_of_value(named, each, size), {})
        except ConfigError as error:
            why = error.problems[0]
            break
        if config.steps < LEAST_UPDATES:
            why = f"{size} leaves {config.steps} updates, fewer than {LEAST_UPDATES}"
            break
        values.append(size)
    while values and not machine.fits(
        _config(request, _arm_of_value(request, each, values[-1]), {})
    ):
        why = f"{values.pop()} does not fit in memory"
    if not values:
        raise ConfigError([f"{request.source}: each.values: not even {first} is possible: {why}"])
    return values, f"batch sizes up to {values[-1]}: {why}"


def tuning(request: Request, arm: PlannedArm) -> list[PlannedTrial]:
    """The trials of an arm's re-tune grid; none if it has no grid of its own."""
    if not arm.retune:
        return []
    grids: list[list[Value]] = []
    wrong: list[str] = []
    for path, domain in (request.space.retune or {}).items():
        try:
            grids.append(
                _multiples(request, arm, path, domain.times)
                if isinstance(domain, Times)
                else domain.grid
            )
        except ConfigError as error:
            wrong += error.problems
    if wrong:
        raise ConfigError(wrong)
    found = []
    for chosen in itertools.product(*grids):
        tuned = dict(zip(request.space.retune or {}, chosen, strict=True))
        config = _config(request, arm, {**tuned, "run.seed": request.tuning_seed})
        label = f"{arm.name} {label_of(tuned)} (re-tune)"
        found.append(PlannedTrial(config, arm.values(tuned), label, "tuning", arm.name, arm.grid))
    return found


def _multiples(request: Request, arm: PlannedArm, path: str, factors: list[float]) -> list[Value]:
    """Multiples of the value that an arm has; multiples of an int must be ints."""
    own = cfg.flatten(_config(request, arm, {}).model_dump())[path]
    where = f"{request.source}: retune.{path}.times"
    if type(own) not in {int, float}:
        raise ConfigError([f"{where}: expected a number in {arm.name}, got {own!r}"])
    if type(own) is float:
        return [float(own * factor) for factor in factors]
    # Factors as written: 100 times 1.1 is 110, but not with binary fractions.
    exact = {factor: own * Fraction(str(factor)) for factor in factors}
    broken = [factor for factor, value in exact.items() if value.denominator > 1]
    if broken:
        problem = f"{own} in {arm.name} times {broken[0]:g} is not a whole number"
        raise ConfigError([f"{where}: {problem}"])
    return [int(value) for value in exact.values()]


def runs(
    request: Request, arm: PlannedArm, tuned: Mapping[str, Value], seeds: int
) -> list[PlannedTrial]:
    """The trials of an arm on so many seeds, at its tuned values; the baseline's repeats come last."""
    least = 1 if request.base.is_repeatable else REPEATS
    repeats = max(request.space.repeats, least) if arm.name == BASELINE else 1
    found = []
    for seed, repeat in [
        *((s, 0) for s in request.seeds[:seeds]),
        *((request.seeds[0], n) for n in range(1, repeats)),
    ]:
        config = _config(request, arm, {**tuned, "run.seed": seed, "run.repeat": repeat})
        values = arm.values(tuned) | ({"run.repeat": repeat} if repeat else {})
        label = " ".join(
            part
            for part in (
                arm.name,
                label_of(tuned),
                f"seed={seed}",
                f"repeat={repeat}" * bool(repeat),
            )
            if part
        )
        role: Role = "repeat" if repeat else "run"
        found.append(PlannedTrial(config, values, label, role, arm.name))
    return found
