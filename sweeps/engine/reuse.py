"""The reuse of workers: how Ray Tune's controller passes warm ones from one attempt to the next.

Tune gives a worker that has become free to any attempt that waits, and drops the worker that was starting for it.
Where trials are shorter than the start of a worker, none ever came up, and its slot stayed empty. Here it comes up,
and then takes the next attempt.
"""

from functools import partial
from typing import Any

from ray._private import state
from ray.tune import tune as runs
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


def install() -> None:
    """Have Ray Tune run sweeps with this controller."""
    runs.TuneController = Controller


class Controller(TuneController):  # type: ignore[misc]  # Ray has no types
    """Ray Tune's controller with workers that come up, and that stay on a Ray of the sweep's own.

    Tune has no public way for any of this, so it overrides methods that a new version of Ray may change.
    """

    _slots = 0  # so many workers stay, also those that have nothing to do; 0 if others need their resources

    def keep_workers(self, trial: Trial, slots: int) -> None:
        """Keep a worker for each slot while it has nothing to do, as at the end of a round of trials; by itself,
        Tune keeps one. They have the resources of this trial."""
        self._slots = slots
        self._actor_cache.increase_max(trial.placement_group_factory, slots)

    @property
    def _has_one_too_many(self) -> bool:
        """Whether there are more workers than slots, where their number is known."""
        return 0 < self._slots < self._actor_manager.num_live_actors

    def _maybe_cache_trial_actor(self, trial: Trial) -> bool:
        """Keep the worker of an attempt that has ended for another one, unless it was asked to end."""
        if trial.last_result.get("ends") or self._has_one_too_many:
            return False
        return bool(super()._maybe_cache_trial_actor(trial))

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Give an attempt a free worker, if there is one; a worker that is starting for it becomes free then."""
        needs, own = trial.placement_group_factory, self._trial_to_actor.get(trial)
        self._drop_dead(needs)
        if self._is_starting(own) and self._actor_cache.has_cached_object(needs):
            del self._trial_to_actor[trial], self._actor_to_trial[own]
            own.set_on_start(partial(self._came_up, needs))
            own.set_on_error(None)  # no attempt waits for it
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _drop_dead(self, needs: Any) -> None:
        """Drop free workers that have died, for which no attempt is to fail, before the first that lives. Nothing
        tells of their death before they are asked for something."""
        free = self._actor_cache._cached_objects[needs]  # noqa: SLF001
        while free and self._is_dead(free[0]):
            worker = self._actor_cache.pop_cached_object(needs)
            worker.set_on_error(None)
            self._remove_actor(worker)

    def _is_dead(self, worker: Any) -> bool:
        """Whether a worker that came up has died, by the cluster's head."""
        actor, _ = self._actor_manager._live_actors_to_ray_actors_resources[worker]  # noqa: SLF001
        return bool(state.actors(actor._actor_id.hex()).get("State") == "DEAD")  # noqa: SLF001

    def _is_starting(self, worker: Any) -> bool:
        """Whether a worker, if it is one, has its slot and has not come up yet."""
        has_slot = worker is not None and self._actor_manager.is_actor_started(worker)
        return has_slot and worker not in self._started_actors

    def _came_up(self, needs: Any, worker: Any) -> None:
        """Keep a worker for the next attempt, if one waits or will come."""
        worker.set_on_error(self._actor_failed)
        self._started_actors.add(worker)
        is_due = self._staged_trials or (self._slots and not self._search_alg.is_finished())
        keeps = is_due and not self._has_one_too_many
        if not keeps or not self._actor_cache.cache_object(needs, worker):
            self._remove_actor(worker)
