"""What a sweep goes on with, by the results that it has: the values of arms, looks at a study, horizons, the best to
confirm, audits, and the next trial of an Optuna search.

Everything follows from where the sweep stands. The driver asks, and writes the rows.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sweeps import ledger as led
from sweeps.engine.looks import Study
from sweeps.engine.state import State, is_free
from sweeps.plan import arms, horizons
from sweeps.plan import optuna as suggest
from sweeps.plan import trials as pl
from sweeps.plan.request import PlannedTrial
from sweeps.plan.sections import OptunaSearch
from sweeps.selection import best_group
from tinylm import config as cfg

_OPTUNA_STATES: dict[str, Literal["running", "finished", "stopped", "diverged", "failed"]] = {
    "planned": "running",
    "running": "running",
    "paused": "stopped",
    "stopped": "stopped",
    "finished": "finished",
    "diverged": "diverged",
    "failed": "failed",
}


@dataclass(frozen=True)
class Choice:
    """A choice that is settled now: its row, and the trials that follow from it."""

    kind: Literal["chosen", "confirming", "look", "horizon"]
    fields: dict[str, Any]
    runs: list[PlannedTrial]


def due(state: State) -> Iterator[Choice]:
    """The choices that are settled and not written down yet."""
    settled = True
    study, all_tuned = study_of(state)
    seeds = study.seeds() if all_tuned else {}
    for position, arm in enumerate(state.plan.arms):
        tuned = all_tuned.get(arm.name)
        if tuned is None:
            continue
        values = tuned["values"]
        fields = {
            **tuned,
            "arm": arm.name,
            "place": position,
            "hypothesis": arm.hypothesis,
            "changes": arm.changes,
            "retuned": arm.retune,
            "seeds": state.request.seeds[: seeds[arm.name]],
        }
        if _differs(fields, state.sweep.chosen.get(arm.name)):
            settled = False
            number = seeds[arm.name]
            runs = [] if values is None else arms.runs(state.request, arm, values, number)
            repeats = [one.trial for one in runs if one.role == "repeat"]
            fields |= {"trials": _by_seed(runs), "repeats": repeats}
            yield Choice("chosen", fields, runs)
    if settled and _is_idle(state):
        if (found := study.look()) is not None:
            yield Choice("look", found, [])
        else:
            yield from _horizons(state)
    if state.request.space.confirm:
        yield from _confirmation(state)


def study_of(state: State) -> tuple[Study, dict[str, dict[str, Any]]]:
    """The arms whose values are settled, and what settled them."""
    own = (
        (arm, _tuned(state, arm if arm.retune else state.plan.arms[0])) for arm in state.plan.arms
    )
    tuned = {arm.name: (arm, found) for arm, found in own if found is not None}
    values = {name: found["values"] for name, (_, found) in tuned.items()}
    planned = {name: arm for name, (arm, _) in tuned.items()}
    study = Study(state.request, state.sweep, planned, values)
    return study, {name: found for name, (_, found) in tuned.items()}


def _tuned(state: State, arm: arms.PlannedArm) -> dict[str, Any] | None:
    """What the re-tune grid of an arm chooses, as fields of a `chosen` row; None until it is settled."""
    space = state.request.space
    if not space.retune:
        return {"values": {}, "score": None, "tried": 0, "failed": 0, "grid": []}
    ids = [one.trial for one in state.plan.trials if one.pool == arm.pool]
    grid = [state.sweep.trials[trial] for trial in ids if trial in state.sweep.trials]
    if not state.is_settled(grid, arm.pool):
        return None
    finished = [trial for trial in grid if trial.status == "finished"]
    failed = sum(trial.status == "failed" for trial in grid)
    if not finished and (failed or any(trial.is_stopped_by_hand for trial in grid)):
        return None
    score = {trial.trial: trial.curve[-1][space.metric] for trial in finished}
    best = min(finished, key=lambda trial: score[trial.trial], default=None)
    return {
        "values": best and {path: best.value(path) for path in space.retune},
        "score": best and score[best.trial],
        "tried": len(grid),
        "failed": failed,
        "grid": ids,
    }


def _is_idle(state: State) -> bool:
    """Whether nothing of a study is going, so that it can be looked at."""
    trials = state.sweep.trials
    return (
        bool(state.plan.arms)
        and state.sweep.is_looked_at
        and not state.ready
        and not any(one.trial in trials for one in state.under_way)
        and all(new.trial in trials for new in state.plan.trials)
        and state.policy.promotion(idle=True) is None
    )


def _horizons(state: State) -> Iterator[Choice]:
    """What the baseline is to be trained on at other numbers of tokens, once there is no more to look at."""
    chosen = state.sweep.chosen.get(led.BASELINE)
    if chosen is None:
        return
    for one in horizons.found(state.request, state.plan.arms[0], chosen, state.sweep):
        if _differs(one.fields, state.sweep.horizons.get(one.fields["tokens"])):
            yield Choice("horizon", one.fields, one.runs)


def _confirmation(state: State) -> Iterator[Choice]:
    """The best of a search, to be run again on fresh seeds, once nothing else is left to do."""
    metric = state.request.space.metric
    tried = [trial for trial in state.sweep.trials.values() if trial.role == "search"]
    if not state.is_settled(tried, "") or suggestion(state) is not None:
        return
    best = best_group(tried, metric)
    if not best:
        return
    planned = pl.confirmation(state.request, best[0].values)
    fields: dict[str, Any] = {
        "values": best[0].values,
        "score": math.fsum(trial.curve[-1][metric] for trial in best) / len(best),
        "tried": len({led.value_of(trial.values) for trial in tried}),
        "seeds": [one.config.run.seed for one in planned],
    }
    if _differs(fields, state.sweep.confirming):
        yield Choice("confirming", fields | {"trials": _by_seed(planned)}, planned)


def _by_seed(runs: Iterable[PlannedTrial]) -> dict[str, str]:
    """The trial of each seed, without repeats."""
    return {str(one.config.run.seed): one.trial for one in runs if one.role != "repeat"}


def _differs(fields: dict[str, Any], row: led.Row | None) -> bool:
    """Whether the fields differ from those of a row, or there is no row."""
    return row is None or any(row.get(name) != value for name, value in fields.items())


def to_audit(state: State) -> list[led.Trial]:
    """The stopped trials that the audit still has to draw.

    They are those whose ids, hashed with the seed, come first: a random sample which a larger
    share, or more stopped trials, add to.
    """
    if not state.audit:
        return []
    stopped = [
        trial
        for trial in state.sweep.trials.values()
        if trial.status in {"stopped", "paused"} and not trial.is_stopped_by_hand
    ]
    fresh = [trial for trial in stopped if trial.trial not in state.sweep.audit_of]
    drawn = len(stopped) - len(fresh)
    left = math.ceil(state.audit * len(stopped)) - drawn
    if left <= 0:
        return []
    return sorted(fresh, key=lambda one: cfg.digest([state.request.seed, one.trial]))[:left]


def suggestion(state: State) -> PlannedTrial | None:
    """The next trial of an Optuna search; None for other searches and when it has all its samples."""
    request = state.request
    if not isinstance(request.space.search, OptunaSearch):
        return None
    past = [
        suggest.PastTrial(
            trial=trial.trial,
            seed=trial.seed,
            values=trial.values,
            # At equal shares of budgets that differ, to be compared with those of other trials.
            scores={
                row["tokens"] * request.base.budget.tokens // trial.budget: row[
                    request.space.metric
                ]
                for row in trial.curve
            },
            state=_OPTUNA_STATES[trial.status],
        )
        for trial in state.sweep.trials.values()
        if not is_free(trial)
    ]
    return suggest.suggest(request, state.machine, past)


def samples_left(state: State) -> int:
    """How many samples of an Optuna search are not drawn yet; 0 for other searches."""
    search = state.request.space.search
    if not isinstance(search, OptunaSearch):
        return 0
    drawn = sum(trial.role == "search" for trial in state.sweep.trials.values())
    return max(0, search.samples - drawn)
