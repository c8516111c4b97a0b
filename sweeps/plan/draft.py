"""A first search space for a question: which values of some paths are worth trying, around the config they have."""

from collections.abc import Sequence
from typing import Any

from sweeps.plan.domains import Value
from tinylm import config as cfg
from tinylm.yaml import YamlError, parse

_FACTORS = (1 / 4, 1 / 2, 1, 2, 4)  # of a number, or of what it lacks to 1
_SIZES = (1 / 2, 1, 2)  # of a size of the model, a batch or a budget
_FROM_ZERO = (0, 0.1, 0.2)  # of a share that is 0
_LISTS = {"grid", "choice"}  # domains that a grid search can have
_SAMPLES = 16  # of a search of several paths


def space_of(question: str, vary: Sequence[str], base: cfg.Config) -> dict[str, Any]:
    """A space as its file has it: a grid of one path, or a random search of several.

    `vary` are paths, or PATH=VALUES with a list or a domain in YAML. `ConfigError` if the question is blank,
    and with every path that is unknown, or of which it is not known what to try.
    """
    several = len(vary) > 1
    space: dict[str, Any] = {}
    wrong: list[str] = []
    if not question.strip():
        wrong.append(f"--question: expected text that is not blank, got {question!r}")
    for one in vary:
        path, equals, text = one.partition("=")
        try:
            if path in space:
                raise cfg.ConfigError([f"--vary {path}: is listed twice"])
            space[path] = _given(path, text) if equals else _domain(path, base, drawn=several)
        except cfg.ConfigError as error:
            wrong += error.problems
    if wrong:
        raise cfg.ConfigError(wrong)
    ranges = [one for one in space.values() if isinstance(one, dict) and not _LISTS & one.keys()]
    drawn = several or bool(ranges)
    search = {"method": "random", "samples": _SAMPLES} if drawn else {"method": "grid"}
    return {"question": question, "search": search, "space": space}


def _given(path: str, text: str) -> Any:
    """The domain that was written for a path; a list is all that is tried, or what is drawn from."""
    try:
        found = parse(text, f"--vary {path}")
    except YamlError as error:
        raise cfg.ConfigError(str(error).splitlines()) from error
    return {"choice": found} if isinstance(found, list) else found


def _domain(path: str, base: cfg.Config, *, drawn: bool) -> dict[str, Any]:
    """What to try of a path around its own value: a range where numbers are drawn, else a list."""
    if path not in cfg.PATHS:
        raise cfg.ConfigError([f"--vary {path}: {cfg.no_path(path)}"])
    now = cfg.flatten(base.model_dump())[path]
    if isinstance(now, float) and now > 0:
        from_one = _is_near_one(path, now)
        values = [_times(now, factor, from_one=from_one) for factor in _FACTORS]
        fit = [value for value in values if _fits(path, value, base)]
        if drawn and len(fit) > 1:
            ends = [1 - value if from_one else value for value in fit]
            kind = "one_minus_loguniform" if from_one else "loguniform"
            return {kind: sorted(map(_rounded, (ends[0], ends[-1])))}
    elif isinstance(now, int) and not isinstance(now, bool) and now > 0:
        values = [round(now * factor) for factor in _SIZES]
    elif cfg.is_number(now):
        values = list(_FROM_ZERO)
    else:
        values = [value for value in cfg.choices(path) if value != cfg.FASTEST]
    fit = [value for value in dict.fromkeys(values) if _fits(path, value, base)]
    if len(fit) < 2:
        raise cfg.ConfigError([f"--vary {path}: say what to try, e.g. --vary '{path}=[A, B]'"])
    return {"choice" if drawn else "grid": fit}


def _is_near_one(path: str, now: float) -> bool:
    """Whether a number is a share whose distance from 1 counts, such as a beta."""
    return now >= 1 / 2 and bool(cfg.value_problems(path, [1.0]))


def _times(now: float, factor: float, *, from_one: bool) -> float:
    """A number, or its distance from 1, times a factor; they ascend with the factors."""
    return _rounded(1 - (1 - now) / factor) if from_one else _rounded(now * factor)


def _rounded(number: float) -> float:
    """A number of three digits."""
    return float(f"{number:.3g}")


def _fits(path: str, value: Value, base: cfg.Config) -> bool:
    """Whether the base config can have the value."""
    try:
        cfg.overlay(base, {path: value})
    except cfg.ConfigError:
        return False
    return True
