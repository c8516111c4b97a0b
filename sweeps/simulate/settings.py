"""The settings of a policy by its name, for replays; what is not given has the default of a space."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES, Schedule
from sweeps.simulate.curves import Curve
from sweeps.simulate.judge import has_decayed
from tinylm.config import ConfigError, did_you_mean, problems


def settings(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy; `ConfigError` for an unknown policy or settings it does not have."""
    if name not in SCHEDULES:
        near = did_you_mean(name, SCHEDULES)
        raise ConfigError(
            [f"--policy {name}: no such policy; there are {', '.join(SCHEDULES)}{near}"]
        )
    schedule = SCHEDULES[name]
    first = {"grace": DEFAULT_SCHEDULE.grace} if "grace" in schedule.model_fields else {}
    try:
        return schedule.model_validate({"policy": name, **first, **given})
    except ValidationError as error:
        found = problems(error, schedule.model_fields)
        raise ConfigError(problem.line(f"--policy {name}") for problem in found) from error


def shipped(given: Mapping[str, Any], curves: Sequence[Curve]) -> Schedule:
    """The settings of a space that names no policy, with those that are given; by decayed scores, without a given
    score, where the curves have them."""
    name = DEFAULT_SCHEDULE.policy
    whole = settings(name, {"score": DEFAULT_SCHEDULE.score, **given})
    return whole if has_decayed(curves, whole) or "score" in given else settings(name, given)


def every(given: Mapping[str, Any], curves: Sequence[Curve]) -> dict[str, Schedule]:
    """The settings of every policy by its name; without a given score, one that can be judged by raw and by
    decayed scores of the curves has both."""
    found = {}
    for name in SCHEDULES:
        decayed = None if "score" in given else fitting(name, {**given, "score": "decayed"})
        if decayed is not None and decayed.branch and has_decayed(curves, decayed):
            found[f"{name} (raw)"] = fitting(name, given)
            found[f"{name} (decayed)"] = decayed
        else:
            found[name] = fitting(name, given)
    return found


def fitting(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy, from those of the given ones that it has."""
    schedule = SCHEDULES[name]
    raw = get_args(schedule.model_fields["score"].annotation) == ("raw",)
    names = set(schedule.model_fields) - ({"score"} if raw else set())
    return settings(name, {key: value for key, value in given.items() if key in names})
