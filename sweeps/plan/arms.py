"""The arms of a study: a baseline, named changes of it, and what each of them runs.

Where the space has a re-tune grid, an arm first trains it, on a seed of its own and with early
stopping within the grid; then it runs at the values that were best there, on every seed, to the
end. The baseline is an arm like the others.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sweeps.ledger import BASELINE, Role, pool_of
from sweeps.plan.domains import Value
from sweeps.plan.request import Machine, PlannedTrial, Request, label_of
from sweeps.plan.space import TUNING_SEED, Arm, Each, PowersOfTwo, Times, rung_tokens
from tinylm import config as cfg
from tinylm.config import ConfigError

REPEATS = 3  # of the baseline where equal trainings may differ, to see by how much
LEAST_UPDATES = 32  # of an arm whose batch size is bounded by memory alone


@dataclass(frozen=True)
class PlannedArm:
    """One arm, or the baseline, with all that it changes."""

    name: str
    where: str  # it stands in the space file
    hypothesis: str
    changes: dict[str, Value]
    retune: bool  # whether it has a re-tune grid of its own
    paths: tuple[str, ...]  # that re-tune grids vary
    # What has to change with that: how often records come, where the updates are too large.
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
        """What a trial of the arm has that the baseline's config need not have."""
        return {**self.changes, **tuned}


def _config(request: Request, arm: PlannedArm, more: Mapping[str, Value]) -> cfg.Config:
    changes = {**arm.changes, **arm.fit, **more}
    return cfg.overlay(request.base, changes, f"{request.source}: {arm.where}")


def planned_arms(request: Request, machine: Machine) -> tuple[list[PlannedArm], list[str]]:
    """The baseline and the arms, in the order of the file, and what was found out on the way.

    `ConfigError` for arms that are no config, or the same as another one.
    """
    space = request.space
    tuned = tuple(space.retune or ())
    found = [PlannedArm(BASELINE, "base", "", {}, bool(tuned), tuned)]
    notes: list[str] = []
    wrong: list[str] = []
    for name, arm in (space.arms or {}).items():
        try:
            found.append(_arm(request, machine, name, arm))
        except ConfigError as error:
            wrong += error.problems
    if space.each is not None:
        values, notes = _values(request, machine, space.each)
        if not values:
            own = _base_value(request, space.each.path)
            wrong.append(f"{request.source}: each.values: no value but the baseline's own, {own}")
        for value in values:
            try:
                found.append(_of_value(request, space.each, value))
            except ConfigError as error:
                wrong += error.problems
    wrong += _equal(request, found)
    if wrong:
        raise ConfigError(wrong)
    return found, notes


def _equal(request: Request, found: list[PlannedArm]) -> Iterator[str]:
    """What is wrong with arms whose config is another's."""
    seen: dict[tuple[str, bool], PlannedArm] = {}
    base = cfg.digest(request.base.model_dump())
    for arm in found[1:]:
        config = cfg.digest(_config(request, arm, {}).model_dump())
        # An arm that takes the baseline's re-tuned values is another one than that with its own.
        other = found[0] if config == base else seen.get((config, arm.retune))
        if other is not None:
            yield f"{request.source}: {arm.where}: its config is that of {other.name}"
        seen[config, arm.retune] = arm


def _arm(request: Request, machine: Machine, name: str, arm: Arm) -> PlannedArm:
    where = f"arms.{name}"
    changes = dict(arm.set)
    if arm.match is not None:
        changed = cfg.overlay(request.base, changes, f"{request.source}: {where}.set")
        changes["model.d_ff"] = _matched(request, machine, changed, arm.match, where)
    tuned = tuple(request.space.retune or ())
    return PlannedArm(name, where, arm.hypothesis, changes, bool(tuned) and arm.retune, tuned)


def _matched(request: Request, machine: Machine, arm: cfg.Config, what: str, where: str) -> int:
    """The hidden width at which an arm has as many parameters (`params`), or FLOPs per token
    (`flops`), as the baseline; the nearest one."""
    place = ("params", "flops").index(what)

    def cost(width: int) -> int:
        return machine.size(cfg.overlay(arm, {"model.d_ff": width}).model)[place]

    due = machine.size(request.base.model)[place]
    if cost(1) > due:
        raise ConfigError(
            [
                f"{request.source}: {where}.match: {what} of the baseline are {due}, the arm has "
                f"{cost(1)} with model.d_ff 1"
            ]
        )
    low, high = 1, 2
    while cost(high) < due:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= due else (low, middle)
    return min((low, high), key=lambda width: abs(cost(width) - due))


# An arm for each value -------------------------------------------------------------------------------


def _base_value(request: Request, path: str) -> Any:
    return cfg.flatten(request.base.model_dump())[path]


def _of_value(request: Request, each: Each, value: Value) -> PlannedArm:
    name = f"{each.path.rpartition('.')[2]}={value}"
    changes: dict[str, Value] = {each.path: value}
    here = _base_value(request, each.path)
    for path, power in each.scale.items():
        base = _base_value(request, path)
        numbers = all(isinstance(x, int | float) for x in (value, here, base))
        if not numbers or min(float(value), float(here)) <= 0:
            raise ConfigError(
                [
                    f"{request.source}: each.scale.{path}: numbers above 0 are due, got {value!r} of "
                    f"{here!r} at {each.path} and {base!r}"
                ]
            )
        try:
            changes[path] = float(base * (float(value) / float(here)) ** power)
        except OverflowError as error:
            problem = f"{request.source}: each.scale.{path}: {power:g} is too much for {value!r}"
            raise ConfigError([problem]) from error
    counts = each.path == "optim.batch_size" and type(value) is int and value > 0
    fit = _interval(request, int(value)) if counts else {}
    tuned = tuple(request.space.retune or ())
    return PlannedArm(name, "each", each.hypothesis, changes, bool(tuned), tuned, fit)


def _interval(request: Request, batch_size: int) -> dict[str, Value]:
    """How often records come for a batch size: as in the baseline, or where an update is too large,
    the next longer interval that meets the rungs and the end; nothing where none does."""
    base = request.base
    update = batch_size * base.model.context_length
    if base.eval.every_tokens % update == 0:
        return {}
    places = rung_tokens(request.space, base, request.source) if request.space.retune else ()
    common = math.gcd(base.budget.tokens, *places)
    shortest = min(base.eval.every_tokens, common)
    fitting = [n * update for n in range(1, common // update + 1) if common % (n * update) == 0]
    every = next((tokens for tokens in fitting if tokens >= shortest), None)
    if every is None:
        return {}
    times = max(1, round(base.run.checkpoint_every_tokens / every))
    return {"eval.every_tokens": every, "run.checkpoint_every_tokens": times * every}


def _values(request: Request, machine: Machine, each: Each) -> tuple[list[Value], list[str]]:
    """The values of a path but the baseline's own, and what was found out about their bounds."""
    notes = []
    if isinstance(each.values, PowersOfTwo):
        low, high = each.values.powers_of_two
        assert isinstance(low, int)
        first = 1 << (low - 1).bit_length()
        values: list[Value]
        if isinstance(high, int):
            values = list(_doubling(first, high))
        else:
            values, note = _until_memory(request, machine, each, first)
            notes.append(note)
    else:
        values = list(each.values)
    own = _base_value(request, each.path)
    # True is no 1, which has to be refused where a switch is due.
    return [v for v in values if v != own or isinstance(v, bool) != isinstance(own, bool)], notes


def _doubling(first: int, last: float = math.inf) -> Iterator[int]:
    while first <= last:
        yield first
        first *= 2


def _until_memory(
    request: Request, machine: Machine, each: Each, first: int
) -> tuple[list[Value], str]:
    """The batch sizes, doubling, that leave enough updates, meet the rungs and fit in memory."""
    values: list[Value] = []
    why = ""
    for size in _doubling(first):
        try:
            config = _config(request, _of_value(request, each, size), {})
        except ConfigError as error:
            why = f"{size} is not to be had: {error.problems[0].partition(': ')[2]}"
            break
        if config.steps < LEAST_UPDATES:
            why = f"{size} leaves {config.steps} updates, fewer than {LEAST_UPDATES}"
            break
        values.append(size)
    while values and not machine.fits(_config(request, _of_value(request, each, values[-1]), {})):
        why = f"{values.pop()} does not fit in memory"
    if not values:
        raise ConfigError([f"{request.source}: each.values: not even {first}: {why}"])
    return values, f"batch sizes up to {values[-1]}: {why}"


# Trials ----------------------------------------------------------------------------------------------


def tuning(request: Request, arm: PlannedArm) -> list[PlannedTrial]:
    """The trials of an arm's re-tune grid; none for one that has none."""
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
        config = _config(request, arm, {**tuned, "run.seed": TUNING_SEED + request.seed})
        label = f"{arm.name} {label_of(tuned)} (re-tune)"
        found.append(PlannedTrial(config, arm.values(tuned), label, "tuning", arm.name, arm.grid))
    return found


def _multiples(request: Request, arm: PlannedArm, path: str, factors: list[float]) -> list[Value]:
    """Multiples of the value that an arm has; of a whole number whole ones."""
    here = cfg.flatten(_config(request, arm, {}).model_dump())[path]
    where = f"{request.source}: retune.{path}.times"
    if type(here) not in {int, float}:
        raise ConfigError([f"{where}: a number is due in {arm.name}, got {here!r}"])
    if type(here) is float:
        return [float(here * factor) for factor in factors]
    # As written: 100 times 1.1 is 110, which it is not in binary.
    exact = {factor: here * Fraction(str(factor)) for factor in factors}
    broken = [factor for factor, value in exact.items() if value.denominator > 1]
    if broken:
        raise ConfigError([f"{where}: {here} in {arm.name} times {broken[0]:g} is no whole number"])
    return [int(value) for value in exact.values()]


def runs(request: Request, arm: PlannedArm, tuned: Mapping[str, Value]) -> list[PlannedTrial]:
    """The trials of an arm on every seed, at the values that were chosen for it; the baseline's
    repeats behind them."""
    exact = request.base.run.device == "cpu" and request.base.budget.seconds is None
    least = 1 if exact else REPEATS  # equal trainings may differ
    again = max(request.space.repeats, least) if arm.name == BASELINE else 1
    found = []
    for seed, repeat in [
        *((s, 0) for s in request.seeds),
        *((request.seeds[0], n) for n in range(1, again)),
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
