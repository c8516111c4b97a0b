"""What is left of a sweep that has begun, before anything of it is trained."""

from collections import Counter
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Self

from sweeps import ledger as led
from sweeps.engine import choices
from sweeps.engine.state import State
from sweeps.plan import trials as pl
from sweeps.plan.request import PlannedTrial


@dataclass(frozen=True)
class Left:
    """What a sweep that has begun still has to do, and what it already has of its plan."""

    # Of the planned trials: a status, `unfinished`, `new`, `restored`, or `not needed` for a further seed of a
    # value that is ruled out.
    states: dict[str, str]
    withdrawn: list[str]  # labels of the trials that the space no longer has
    trained: int  # tokens, in trials of the plan
    tokens: int  # at most, from here
    cap: dict[str, Any] | None  # that is reached and keeps all of them from being trained

    @classmethod
    def of(cls, state: State) -> Self:
        """What is left to do where a sweep stands."""
        known = {trial.trial: trial for trial in state.sweep.everything}
        trials = _wanted(state)
        # Trials of another --seed are no part of the plan, but go on if they have not ended.
        own = [
            one
            for one in trials
            if one.seed in state.request.seeds or one.role in {"tuning", "confirm", "horizon"}
        ]
        full = sum(one.config["budget"]["tokens"] for one in own)
        study, _ = choices.study_of(state)
        most = study.most_seeds() if study.arms else {}
        needless = {one.trial: one.config.budget.tokens for one in _needless(state)}
        unplanned = pl.load(state.request, state.plan, most).tokens - full - sum(needless.values())
        chosen = [
            new for choice in choices.due(state) for new in choice.runs if new.trial not in known
        ]
        begun = _to_train(state, trials)
        return cls(
            states={
                one.trial: "not needed" if one.trial in needless else _status(state, one.trial)
                for one in state.plan.trials
            },
            withdrawn=[known[trial].label for trial in state.sweep.trials if trial in state.gone],
            trained=sum(one.tokens for one in own),
            tokens=max(0, unplanned, sum(new.config.budget.tokens for new in chosen))
            + sum(one.budget - one.tokens for one in begun),
            cap=state.reached_cap(),
        )

    @property
    def new(self) -> int:
        """The number of planned trials that the sweep does not have."""
        return Counter(self.states.values())["new"]

    @property
    def kept(self) -> int:
        """The number of planned trials that the sweep has."""
        return sum(state not in {"new", "not needed"} for state in self.states.values())


def to_resume(state: State) -> list[led.Trial]:
    """The trials that have a checkpoint and may be trained further."""
    return [one for one in _to_train(state, _wanted(state)) if one.checkpoint]


def _wanted(state: State) -> list[led.Trial]:
    """The trials in the ledger that the space has, also those that were withdrawn and come back."""
    back = [state.sweep.withdrawn.get(one.trial) for one in state.plan.trials]
    there = [one for one in state.sweep.trials.values() if one.trial not in state.gone]
    return there + [one for one in back if one is not None]


def _to_train(state: State, trials: Collection[led.Trial]) -> list[led.Trial]:
    """Those of the trials that may be trained further, and all that may be audited."""
    going = {pool for pool in {one.pool for one in trials} if _is_going(state, pool)}
    further = [one for one in trials if _may_train(state, one, going)]
    audits = [one for one in state.sweep.audits.values() if one.status == "planned"]
    return [*further, *audits, *choices.to_audit(state)]


def _may_train(state: State, trial: led.Trial, going: AbstractSet[str | None]) -> bool:
    """Whether a trial may be trained further, where some pools are going."""
    if trial.status == "diverged" or trial.is_stopped_by_hand or state.is_over(trial):
        return False
    if trial.is_withdrawn or trial.status not in {"paused", "stopped"}:
        return True
    return not state.policy.holds(trial.trial) or trial.pool in going


def _needless(state: State) -> Iterator[PlannedTrial]:
    """The further seeds of values that are ruled out, in pools where nothing else can be promoted."""
    pools = {one.pool for one in state.plan.trials}
    going = {pool for pool in pools if _is_going(state, pool)}
    for one in state.plan.trials:
        if one.pool is None or one.pool in going or one.trial in state.sweep.trials:
            continue
        if not state.policy.wants_seed(one.pool, one.values):
            yield one


def _is_going(state: State, pool: str | None) -> bool:
    """Whether a trial of a pool may still be promoted."""
    if pool is None:
        return False
    ids = [one.trial for one in state.plan.trials if one.pool == pool]
    rivals = [state.sweep.trials[trial] for trial in ids if trial in state.sweep.trials]
    known = [one.values for one in rivals]
    has_new = any(one.values not in known for one in state.to_plan(pool))
    return has_new or choices.suggestion(state) is not None or state.is_racing(rivals, pool)


def _status(state: State, trial: str) -> str:
    """What has become of a planned trial, where nothing is trained now."""
    if trial in state.sweep.trials:
        status = state.sweep.trials[trial].status
        return "unfinished" if status == "running" else status
    return "restored" if trial in state.sweep.withdrawn else "new"
