"""A search space from its file or from a ledger, with everything that is wrong in it at once.

Names of other programs are known, and told with what they are here.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.ledger import BASELINE, LONGEST_NAME, is_name
from sweeps.plan.domains import DOMAINS, UNREAD, Domain, Multiple, Range, lacks_brackets, written
from sweeps.plan.sections import (
    Arm,
    Caps,
    Constraint,
    Each,
    GridSearch,
    Looks,
    OptunaSearch,
    PowersOfTwo,
    RandomSearch,
    Resources,
    Speedup,
    Target,
)
from sweeps.plan.space import TUNING_SEED, Found, Space
from sweeps.policies import SCHEDULES
from tinylm import config as cfg
from tinylm.config import ConfigError, Problem, Section
from tinylm.yaml import YamlError, read_mapping

SPACES = Path("search_spaces")
SHIPPED = Path(str(files("sweeps"))) / "search_spaces"


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
        broken = Found()
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
