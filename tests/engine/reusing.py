"""Attempts that are passed from worker to worker by Ray Tune, each when the ones before it have come as far as the
situation needs. Run as a program with a folder: it prints who trained what, as JSON."""

import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.engine import tune  # its settings come before those of Ray

# isort: split
from ray.tune import RunConfig, Trainable, TuneConfig, Tuner, grid_search
from ray.tune.schedulers import FIFOScheduler

from sweeps.plan.sections import Resources

SLOTS = 2


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something has happened; after two minutes it never will."""
    for _ in range(2400):
        if happened():
            return
        time.sleep(0.05)
    raise TimeoutError


def claim(folder: Path, name: str, text: object) -> int:
    """Write a text to the next file of a name; its number."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError), (folder / f"{name} {number}").open("x") as file:
            file.write(str(text))
            return number
    raise AssertionError


class Attempt(Trainable):  # type: ignore[misc]  # Ray has no types
    """An attempt, in a folder of its situation: `worker N` has the process of the worker that was started as the Nth,
    `attempt N` the worker of the attempt that began as the Nth."""

    def setup(self, config: dict[str, Any]) -> None:
        """Come up: the first worker at once, the others when they may."""
        self.folder = Path(config["folder"])
        self.worker = claim(self.folder, "worker", os.getpid())
        if self.worker:
            wait_for((self.folder / "may come up").exists)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        number = claim(self.folder, "attempt", self.worker)
        if number == 0:
            wait_for((self.folder / "worker 1").exists)
        if number == 1:
            getattr(self, self.folder.name)(int((self.folder / "worker 1").read_text()))
        return {"done": True}

    def late(self, second: int) -> None:
        """The second worker comes up now, and the next attempt begins."""
        (self.folder / "may come up").touch()
        wait_for((self.folder / "attempt 2").exists)

    def dead(self, second: int) -> None:
        """The same, where the second worker dies before it has come up."""
        os.kill(second, signal.SIGKILL)
        self.late(second)

    def spare(self, second: int) -> None:
        """The second worker comes up now, for no attempt, and ends."""
        (self.folder / "may come up").touch()
        wait_for(lambda: not Path(f"/proc/{second}").exists())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass


class Keeping(FIFOScheduler):  # type: ignore[misc]
    """Has the controller keep a worker for each slot."""

    keeps = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if not self.keeps:
            tune_controller.keep_workers(trial, SLOTS)
        self.keeps = True


def run(folder: Path, attempts: int, scheduler: FIFOScheduler) -> dict[str, Any]:
    """Train so many attempts, two at once; who trained which, and how many workers were started."""
    folder.mkdir()
    space = {"folder": str(folder), "attempt": grid_search(list(range(attempts)))}
    asked = TuneConfig(scheduler=scheduler, max_concurrent_trials=SLOTS, reuse_actors=True)
    where = RunConfig(name="tune", storage_path=str(folder), verbose=0)
    done = Tuner(Attempt, param_space=space, tune_config=asked, run_config=where).fit()
    by = [(folder / f"attempt {number}") for number in range(attempts)]
    return {
        "errors": [str(error) for error in done.errors],
        "workers": [int(file.read_text()) for file in by if file.exists()],
        "started": len(list(folder.glob("worker *"))),
    }


if __name__ == "__main__":
    top = Path(sys.argv[1])
    with tune.cluster("local", Resources(), SLOTS, 0):
        found = {
            "late": run(top / "late", 3, Keeping()),
            "dead": run(top / "dead", 3, Keeping()),
            "spare": run(top / "spare", 2, FIFOScheduler()),
        }
    print(json.dumps(found))
