"""The pool of warm workers: a change to how Ray Tune passes workers from one attempt to the next.

Tune gives a worker that has got free to any attempt that waits, and drops the worker that was starting for it. Where
trials are shorter than the start of a worker, none ever came up, and its slot stayed empty. Here it comes up, and
then is free for the next attempt.
"""

from functools import partial
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_keep = TuneController._maybe_cache_trial_actor  # noqa: SLF001 Tune has no public way for any of this
_take = TuneController._maybe_reuse_cached_actor  # noqa: SLF001


def install() -> None:
    """Have Ray Tune pass on workers in this way."""
    TuneController._maybe_cache_trial_actor = _keep_one_that_stays  # noqa: SLF001
    TuneController._maybe_reuse_cached_actor = _take_and_let_start  # noqa: SLF001


def keep_all(controller: Any, trial: Trial, slots: int) -> None:
    """Keep the workers of all slots while they have nothing to do, as at the end of a round of trials; by itself,
    Tune keeps one. They need the resources of this trial."""
    controller._actor_cache.increase_max(trial.placement_group_factory, slots)  # noqa: SLF001


def _keep_one_that_stays(controller: Any, trial: Trial) -> bool:
    """Keep the worker of an attempt that has ended for another one, unless it was asked to end."""
    return not trial.last_result.get("ends") and _keep(controller, trial)


def _take_and_let_start(controller: Any, trial: Trial) -> bool:
    """Give an attempt a free worker, if there is one; a worker that is starting for it becomes free then."""
    needs, own = trial.placement_group_factory, controller._trial_to_actor.get(trial)  # noqa: SLF001
    if _is_starting(controller, own) and controller._actor_cache.has_cached_object(needs):  # noqa: SLF001
        del controller._trial_to_actor[trial], controller._actor_to_trial[own]  # noqa: SLF001
        own.set_on_start(partial(_is_free, controller, needs))
        own.set_on_error(partial(_failed, controller))
    return _take(controller, trial)


def _is_starting(controller: Any, actor: Any) -> bool:
    """Whether a worker, if it is one, has its slot and has not come up yet."""
    has_slot = actor is not None and controller._actor_manager.is_actor_started(actor)  # noqa: SLF001
    return has_slot and actor not in controller._started_actors  # noqa: SLF001


def _is_free(controller: Any, needs: Any, actor: Any) -> None:
    """Put a worker that has come up into the pool."""
    controller._started_actors.add(actor)  # noqa: SLF001
    has_ended = controller._search_alg.is_finished()  # noqa: SLF001
    if has_ended or not controller._actor_cache.cache_object(needs, actor):  # noqa: SLF001
        controller._remove_actor(actor)  # noqa: SLF001


def _failed(controller: Any, actor: Any, error: Exception) -> None:
    """Give up a worker that has not come up; no attempt waits for it."""
    controller._actor_manager.remove_actor(actor, kill=False)  # noqa: SLF001
    controller._actor_stopped(actor)  # noqa: SLF001
