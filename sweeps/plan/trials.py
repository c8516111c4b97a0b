"""The trials of a space, in order: a pure function of (space, base config, seed, earlier draws).

The id of a trial is the digest of its config, so a trial that is asked for twice is one trial.
Four things can't be planned ahead, because they depend on what was measured: the next trial of an
Optuna search (`sweeps.plan.optuna`), the runs of an arm whose re-tune grid chooses their values
(`sweeps.plan.arms`), the seeds that are added to arms which are not settled (`sweeps.engine.looks`), and
the trials that confirm the best of a sweep (`confirmation`).
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sweeps import ledger as led
from sweeps.plan import arms, horizons
from sweeps.plan.arms import PlannedArm
from sweeps.plan.domains import Depends, Domain, Multiple, Value, key
from sweeps.plan.request import Machine, PlannedTrial, Request, label_of
from sweeps.plan.rungs import check_rungs, missed_rung
from sweeps.plan.sections import OptunaSearch, RandomSearch
from tinylm import config as cfg
from tinylm.config import ConfigError

MOST_DRAWS = 1000  # in a row that are impossible or were drawn before
MOST_TRIALS = 100_000  # of a sweep, and combinations of a grid
_NUMBER = re.compile(r"\d[\d.e+-]*")


@dataclass(frozen=True)
class Sample:
    """Values from a space, and how many draws they took; none for a start point."""

    values: dict[str, Value]
    draws: int = 1


@dataclass(frozen=True)
class Plan:
    """The part of a sweep that is known before anything is measured."""

    trials: list[PlannedTrial]
    arms: list[PlannedArm]  # of a study: the baseline and the arms
    notes: list[str]  # for the user, on how it was planned
    suggested: int = 0  # trials that Optuna suggests while the sweep runs


def trials(request: Request, samples: Iterable[Sample], seeds: Iterable[int]) -> list[PlannedTrial]:
    """The trials of each sample on each seed."""
    planned: dict[str, PlannedTrial] = {}
    several = request.seeds != [0]
    for seed, sample in itertools.product(seeds, list(samples)):
        parts = (label_of(sample.values), f"seed={seed}" if several else "")
        label = " ".join(part for part in parts if part)
        changes = {**sample.values, "run.seed": seed}
        config = request.config(changes)
        trial = PlannedTrial(config, sample.values, label, draws=sample.draws)
        planned.setdefault(trial.trial, trial)
    return list(planned.values())


def plan(request: Request, machine: Machine, earlier: Sequence[Sample] = ()) -> Plan:
    """The trials that are known before anything is measured.

    For an Optuna search they are its start points. For a study they are the re-tune grids, or all runs
    if it has no re-tune grid. Of the `earlier` draws of a random search, those that the space still
    has count as its first samples. `ConfigError` if nothing in the space is possible.
    """
    space = request.space
    check_rungs(space, request.base, request.source)
    if space.caps.gpu_hours is not None and request.base.run.device != "cuda":
        problem = (
            f"{request.source}: caps.gpu_hours: run.device is {request.base.run.device}; use hours"
        )
        raise ConfigError([problem])
    own = []
    if request.budget is None and space.schedule.shares():
        own.append(
            "trials are compared at equal shares of their budgets, which favors longer budgets; "
            "schedule: {policy: none} trains every trial to the end"
        )
    if space.is_study:
        planned_arms, notes = arms.planned_arms(request, machine)
        tuned = math.prod(len(grid.values) for grid in (space.retune or {}).values())
        what = f"{len(planned_arms)} grids of {tuned} combinations"
        _refuse_too_many(request, "retune", what, len(planned_arms) * tuned)
        runs = len(request.seeds) + space.repeats - 1
        what = f"{len(planned_arms)} arms, {runs} times each,"
        _refuse_too_many(request, "seeds", what, len(planned_arms) * runs)
        horizons.check(request, planned_arms[0])
        known = [trial for arm in planned_arms for trial in arms.tuning(request, arm)]
        if not space.retune:
            first = request.looks[0]
            known = [one for arm in planned_arms for one in arms.runs(request, arm, {}, first)]
        return Plan(known, planned_arms, notes)
    match space.search:
        case RandomSearch(samples=count):
            what = f"{count} samples on each of {len(request.seeds)} seeds"
            _refuse_too_many(request, "search.samples", what, count * len(request.seeds))
            start, skipped = start_samples(request, machine)
            samples, notes = _random_samples(request, machine, count, start, earlier)
            planned = trials(request, [*start, *samples], request.seeds)
            return Plan(planned, [], own + skipped + notes)
        case OptunaSearch(samples=count):
            _refuse_too_many(request, "search.samples", f"{count} samples", count)
            start, skipped = start_samples(request, machine)
            # A space in which nothing is possible is refused now, and one with fewer trials is found.
            possible, _, notes = _fresh_samples(request, machine, count, start)
            planned = trials(request, start, request.seeds)
            return Plan(planned, [], own + skipped + notes, len(possible))
        case _:
            cells, notes = _possible_cells(request, machine)
            runs = len(request.seeds) + space.repeats - 1
            what = f"{len(cells)} combinations, {runs} times each,"
            _refuse_too_many(request, "space", what, len(cells) * runs)
            grid = trials(request, map(Sample, cells), request.seeds)
            return Plan(grid + list(_repeats(request, grid)), [], own + notes)


def number_asked(request: Request) -> int | None:
    """How many trials are looked at to plan a grid or a search; None for a study, and for a grid whose values
    depend on one another."""
    search = request.space.search
    if request.space.is_study:
        return None
    if isinstance(search, RandomSearch | OptunaSearch):
        return search.samples * len(request.seeds)
    cells = _number_of_cells(request)
    return None if cells is None else cells * len(request.seeds)


class Discarded:
    """Combinations of values that are not trained, counted by reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._others: set[str] = set()  # kinds with more than one reason

    def add(self, *reasons: str) -> None:
        """Count one for each; reasons that differ in their numbers only are one."""
        for reason in reasons:
            kind = _NUMBER.sub("#", reason)
            self._counts[kind] += 1
            if self._examples.setdefault(kind, reason) != reason:
                self._others.add(kind)

    @property
    def total(self) -> int:
        """How many were counted."""
        return self._counts.total()

    def lines(self, what: str) -> list[str]:
        """One line for each reason, the most frequent first: `3 {what}: why`."""
        return [
            f"{count} {what}: {self._example(kind)}" for kind, count in self._counts.most_common()
        ]

    def _example(self, kind: str) -> str:
        return self._examples[kind] + (" (and others like it)" if kind in self._others else "")


def why_not(request: Request, machine: Machine, values: Mapping[str, Value]) -> str | None:
    """Why a combination of values is not trained; None if it can be."""
    try:
        config = request.config(values)
    except ConfigError as error:
        return error.problems[0].removeprefix(f"{request.source}: ")
    constraint = request.space.constraint
    if constraint is not None:
        params, flops = machine.size(config.model)
        if not constraint.allows(params, flops):
            return f"{params} parameters and {flops} FLOPs per token, not {constraint.text}"
    if request.space.excludes(values):
        return "excluded"
    return missed_rung(request.space, config) if request.budget is None else None


def is_in_space(request: Request, machine: Machine, values: Mapping[str, Value]) -> bool:
    """Whether a search can still come upon these values."""
    domains, known = request.space.space, {**request.flat, **values}
    return (
        values.keys() == domains.keys()
        and all(domain.resolve(known).has(values[path]) for path, domain in domains.items())
        and why_not(request, machine, values) is None
    )


def key_of(values: Mapping[str, Value]) -> frozenset[tuple[str, tuple[bool, Value]]]:
    """What equal combinations of values share."""
    return frozenset((path, key(value)) for path, value in values.items())


def _refuse_too_many(request: Request, where: str, what: str, trials: int) -> None:
    """Raise `ConfigError` if a sweep would have more trials than can be planned."""
    if trials > MOST_TRIALS:
        problem = f"{what} are more than {MOST_TRIALS:,} trials"
        raise ConfigError([f"{request.source}: {where}: {problem}"])


def _cells(request: Request) -> Iterator[dict[str, Value]]:
    """Every combination of values of a space without ranges of floats; the first path changes slowest."""
    base = request.flat

    def extend(
        values: dict[str, Value], rest: list[tuple[str, Domain]]
    ) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
            return
        (path, domain), *rest = rest
        for value in domain.resolve({**base, **values}).every() or ():
            yield from extend({**values, path: value}, rest)

    yield from extend({}, list(request.space.space.items()))


def _number_of_cells(request: Request) -> int | None:
    """How many combinations a space has without ranges of floats; None if a domain depends on a value."""
    domains = [one for one in request.space.space.values() if not isinstance(one, Multiple)]
    if any(isinstance(domain, Depends) for domain in domains):
        return None
    return math.prod(len(domain.every() or ()) for domain in domains)


def _possible_cells(request: Request, machine: Machine) -> tuple[list[dict[str, Value]], list[str]]:
    """The combinations of a grid that can be trained, and a note for each reason why others can't."""
    cells = list(itertools.islice(_cells(request), MOST_TRIALS + 1))
    if len(cells) > MOST_TRIALS:
        number = _number_of_cells(request)
        told = f"more than {MOST_TRIALS:,}" if number is None else f"{number:,}"
        problem = f"{told} combinations; the most are {MOST_TRIALS:,}"
        raise ConfigError([f"{request.source}: space: {problem}"])
    discarded = Discarded()
    possible = []
    for values in cells:
        why = why_not(request, machine, values)
        if why is None:
            possible.append(values)
        else:
            discarded.add(why)
    if not possible:
        raise _nothing_possible(request, discarded, f"of {len(cells)} combinations")
    return possible, discarded.lines(f"of {len(cells)} combinations skipped")


def _nothing_possible(request: Request, discarded: Discarded, what: str) -> ConfigError:
    problems = [f"{request.source}: space: nothing in it is possible"]
    return ConfigError(problems + [f"{request.source}: {line}" for line in discarded.lines(what)])


class Draws:
    """The random samples of a space: possible ones, each once. Every index has a random stream of its
    own, so more samples keep the earlier ones."""

    def __init__(self, request: Request, machine: Machine) -> None:
        self._request = request
        self._machine = machine
        self.discarded = Discarded()  # on the way to the samples that were found
        self.in_vain = Discarded()  # after the last of them

    def first(self, count: int, start: Iterable[Sample]) -> list[Sample]:
        """So many samples that are no start points; fewer once `MOST_DRAWS` draws in a row bring none."""
        samples: list[Sample] = []
        known = {key_of(sample.values) for sample in start}
        while len(samples) < count:
            new = self.another(len(samples), known)
            if new is None:
                break
            samples.append(new)
            known.add(key_of(new.values))
        return samples

    def another(self, index: int, known: set[Any]) -> Sample | None:
        """The sample of an index, which is none of the known ones (by `key_of`); None if none is found.

        Of a space without ranges of floats, none is missed.
        """
        import numpy as np

        rng, base = np.random.default_rng([self._request.seed, index]), self._request.flat
        tried: list[str] = []
        while len(tried) < MOST_DRAWS:
            values: dict[str, Value] = {}
            for path, domain in self._request.space.space.items():
                values[path] = domain.resolve({**base, **values}).draw(rng)
            why = "drawn before" if key_of(values) in known else self._why_not(values)
            if why is None:
                self.discarded.add(*tried)
                return Sample(values, len(tried) + 1)
            tried.append(why)
        left = [values for values in self.listed or () if key_of(values) not in known]
        if not left:
            self.in_vain.add(*tried)
            return None
        self.discarded.add(*tried)
        return Sample(left[int(rng.integers(len(left)))], len(tried) + 1)

    def _why_not(self, values: Mapping[str, Value]) -> str | None:
        return why_not(self._request, self._machine, values)

    @cached_property
    def listed(self) -> list[dict[str, Value]] | None:
        """Everything possible in the space; None if that can't be listed."""
        space = self._request.space
        leaves = itertools.chain(*(domain.leaves() for domain in space.space.values()))
        if any(leaf.every() is None for leaf in leaves):
            return None
        cells = list(itertools.islice(_cells(self._request), MOST_TRIALS + 1))
        if len(cells) > MOST_TRIALS:
            return None
        return [values for values in cells if self._why_not(values) is None]


def start_samples(request: Request, machine: Machine) -> tuple[list[Sample], list[str]]:
    """The start points of a search, and a note for each that is impossible."""
    found: dict[Any, Sample] = {}
    notes: dict[Any, str] = {}
    for point in request.space.start:
        given = {} if point == "base" else {**point}
        known = {**request.flat, **given}
        for path, domain in request.space.space.items():
            if isinstance(domain, Multiple) and path not in given and point != "base":
                known[path] = domain.value(known)
        values = {path: known[path] for path in request.space.space}
        why = why_not(request, machine, values)
        if why is None:
            found.setdefault(key_of(values), Sample(values, 0))
        else:
            notes[key_of(values)] = f"start point {label_of(values)} skipped: {why}"
    return list(found.values()), list(notes.values())


def _fresh_samples(
    request: Request, machine: Machine, count: int, start: Sequence[Sample]
) -> tuple[list[Sample], Discarded, list[str]]:
    """The samples of an empty ledger, what was discarded, and a note if they are fewer than asked."""
    draws = Draws(request, machine)
    samples = draws.first(count, start)
    if not samples and not start:
        raise _nothing_possible(request, draws.in_vain, f"of {MOST_DRAWS} draws")
    too_few = [] if len(samples) == count else [_too_few(draws, len(samples))]
    return samples, draws.discarded, too_few


def _random_samples(
    request: Request,
    machine: Machine,
    count: int,
    start: Sequence[Sample],
    earlier: Sequence[Sample],
) -> tuple[list[Sample], list[str]]:
    """The samples of a random search, first those of earlier that its space still has; notes on them."""
    fresh, discarded, too_few = _fresh_samples(request, machine, count, start)
    first = {key_of(sample.values) for sample in start}
    kept = [one for one in earlier if is_in_space(request, machine, one.values)]
    samples: dict[Any, Sample] = {}
    for sample in [*kept, *fresh]:
        if key_of(sample.values) not in first:
            samples.setdefault(key_of(sample.values), sample)
    notes = discarded.lines(f"of {len(fresh) + discarded.total} draws discarded")
    return list(samples.values())[:count], notes + too_few


def _too_few(draws: Draws, found: int) -> str:
    """The note that a space has fewer different trials than samples are asked for."""
    if draws.listed is not None:
        return f"only {found} different draws are possible, fewer than search.samples"
    return f"{MOST_DRAWS} draws in a row brought no further trial after the first {found}"


def earlier_draws(rows: Iterable[led.Row], seed: int) -> list[Sample]:
    """The draws of a random search that a ledger has, made with a `--seed`, in their order."""
    found: dict[Any, Sample] = {}
    asked: int | None = None
    for row in rows:
        if row["kind"] == "sweep":
            asked = row["seed"]
        elif row["kind"] == "planned" and row["role"] == "search" and asked == seed:
            sample = Sample(row["values"], row.get("draws", 1))
            found.setdefault(key_of(sample.values), sample)
    return [sample for sample in found.values() if sample.draws]


def _repeats(request: Request, planned: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
    """More runs of the trials of the first seed, as many as the space asks for."""
    for number, one in itertools.product(range(1, request.space.repeats), planned):
        if one.config.run.seed == request.seeds[0]:
            config = cfg.overlay(one.config, {"run.repeat": number})
            values = {**one.values, "run.repeat": number}
            label = f"{one.label} repeat={number}".lstrip()
            yield replace(one, config=config, values=values, label=label, role="repeat")


def unwanted(request: Request, machine: Machine, planned: Plan, sweep: led.Sweep) -> list[str]:
    """The trials of a sweep that its space no longer has, in the order in which they were planned."""
    wanted = {one.trial for one in planned.trials}
    wanted |= set(_of_other_seeds(request, machine, sweep))
    if isinstance(request.space.search, OptunaSearch):
        drawn = _still_drawn(request, machine, sweep)
        # The start points, which are wanted already, are no samples.
        samples = [trial for trial in drawn if trial not in wanted]
        wanted |= set(samples[: request.space.search.samples])
    for arm in planned.arms:
        choice = sweep.chosen.get(arm.name)
        if choice is None:  # not settled again: it may choose as before
            runs = (one for one in sweep.trials.values() if one.role != "tuning")
            wanted |= {one.trial for one in runs if one.arm == arm.name}
        elif choice["values"] is not None:
            every = arms.runs(request, arm, choice["values"], request.looks[-1])
            wanted |= {one.trial for one in every}
        if arm.name == led.BASELINE:
            wanted |= set(horizons.wanted(request, arm, sweep))
    if request.space.confirm:
        again = sweep.confirming
        wanted |= (
            {trial.trial for trial in sweep.trials.values() if trial.role == "confirm"}
            if again is None
            else set(again["trials"].values())
        )
    return [trial for trial in sweep.trials if trial not in wanted]


def _of_other_seeds(request: Request, machine: Machine, sweep: led.Sweep) -> Iterator[str]:
    """The trials of a search that the same space asked for with another --seed."""
    seeds = {number + asked for number in request.space.every_seed for asked in sweep.asked_seeds}
    for trial in sweep.trials.values():
        if trial.arm or trial.seed in request.seeds or trial.seed not in seeds:
            continue
        values = {path: value for path, value in trial.values.items() if path != "run.repeat"}
        if trial.role == "confirm" or is_in_space(request, machine, values):
            yield trial.trial


def _still_drawn(request: Request, machine: Machine, sweep: led.Sweep) -> list[str]:
    """The trials of an Optuna search that its space can still draw, in order."""
    return [
        trial.trial
        for trial in sweep.trials.values()
        if trial.role == "search"
        and trial.seed == request.seeds[0]
        and is_in_space(request, machine, trial.values)
    ]


def confirmation(request: Request, values: Mapping[str, Value]) -> list[PlannedTrial]:
    """The trials that run the best values of a sweep again, on seeds that did not choose them."""
    found = trials(request, [Sample(dict(values))], request.fresh_seeds)
    labels = [label_of(values), "seed={}", "(confirm)"]
    return [
        replace(one, label=" ".join(labels).format(one.config.run.seed).strip(), role="confirm")
        for one in found
    ]


@dataclass(frozen=True)
class Load:
    """The configs of all trials of a sweep; those that can't be planned have the base's values."""

    pools: list[list[cfg.Config]]  # of trials that compete and may be stopped early
    free: list[cfg.Config]  # of trials that run to the end
    further: list[cfg.Config]  # of these, on seeds that only arms that are not settled get

    @property
    def configs(self) -> list[cfg.Config]:
        """All configs, the pools first."""
        return [*itertools.chain(*self.pools), *self.free, *self.further]

    @property
    def tokens(self) -> int:
        """The training tokens of all trials, without early stopping."""
        return sum(config.budget.tokens for config in self.configs)


def load(request: Request, planned: Plan, most: Mapping[str, int] | None = None) -> Load:
    """The work of a sweep, as far as it is known before it runs; or where its arms get this many seeds at
    most."""
    space = request.space
    pools: dict[str, list[cfg.Config]] = {}
    free = [request.base] * space.confirm
    for one in planned.trials:
        (free if one.pool is None else pools.setdefault(one.pool, [])).append(one.config)
    if planned.suggested:
        pools.setdefault("", []).extend([request.base] * planned.suggested)
    further = []
    for arm in planned.arms:
        first = arms.runs(request, arm, {}, request.looks[0])
        free += [one.config for one in first] if space.retune else []
        early = {one.trial for one in first}
        every = arms.runs(request, arm, {}, (most or {}).get(arm.name, request.looks[-1]))
        further += [one.config for one in every if one.trial not in early]
    free += [one.config for arm in planned.arms[:1] for one in horizons.likely(request, arm)]
    return Load(list(pools.values()), free, further)
