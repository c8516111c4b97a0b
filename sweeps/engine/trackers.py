"""Trials as runs of MLflow or Weights & Biases, through Ray Tune's own logger callbacks.

The callbacks know Ray's trials, which are attempts here. A `Tracker` shows them the sweep's trials
instead.
"""

import contextlib
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sweeps.engine.tune  # noqa: F401 makes the settings that Ray reads when it is imported

# isort: split
import ray
from ray import tune
from ray.tune.experiment import Trial

from sweeps.engine.job import Job
from sweeps.exits import masked
from sweeps.ledger import Files, rows
from tinylm import config as cfg


@dataclass(frozen=True)
class TrackedRun:
    """What a logger callback reads from a trial; equal keys are one run to it."""

    key: str
    trial_id: str = field(compare=False)
    name: str = field(compare=False)
    config: dict[str, Any] = field(compare=False)
    local_path: str = field(compare=False)  # a folder for what the logger writes
    experiment_dir_name: str = field(compare=False)  # the sweep

    def __str__(self) -> str:
        return self.name


class Tracker(tune.Callback):
    """Reports every trial to a Tune logger callback. A logger that fails is dropped with a message: the
    ledger has everything."""

    def __init__(self, name: str, logger: Any, run_of: Callable[[Job], TrackedRun]) -> None:
        self._name = name
        self._logger = logger
        self._run_of = run_of
        self._open: dict[str, TrackedRun] = {}  # by Ray's id of the attempt
        self._dropped = False

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles its callbacks, but no code here reads the pickle."""
        return {}

    def _tell(self, tell: Callable[[], None]) -> None:
        if self._dropped:
            return
        try:
            tell()
        except Exception as error:  # noqa: BLE001 whatever it is, the sweep continues
            self._dropped = True
            said = masked(f"{type(error).__name__}: {error}").splitlines()[0]
            print(
                f"--tracker {self._name}: dropped, and the sweep continues without it: {said}",
                file=sys.stderr,
            )
            for run in self._open.values():
                with contextlib.suppress(Exception):  # it has failed already
                    self._logger.log_trial_end(run, failed=True)
            self._open.clear()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        def start() -> None:
            run = self._run_of(Job.from_json(trial.config["job"]))
            self._open[trial.trial_id] = run
            self._logger.log_trial_start(run)

        self._tell(start)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        event = json.loads(result["event"])
        numbers = {
            name: value
            for name, value in event.items()
            if cfg.is_number(value) and math.isfinite(value)
        }
        numbers["training_iteration"] = numbers.pop("step")  # what loggers use as the step
        if event["event"] == "diverged":
            numbers["diverged"] = 1
        attempt = trial.trial_id
        self._tell(lambda: self._logger.log_trial_result(iteration, self._open[attempt], numbers))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial.trial_id, failed=False)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial.trial_id, failed=True)

    def _close(self, attempt: str, *, failed: bool) -> None:
        run = self._open.pop(attempt, None)
        if run is not None:  # else its process never started
            self._tell(lambda: self._logger.log_trial_end(run, failed=failed))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for attempt in list(self._open):  # a signal came
            self._close(attempt, failed=False)
        self._tell(lambda: self._logger.on_experiment_end(trials=[]))


def tracker(name: str, files: Files) -> Tracker:
    """A tracker of a sweep's trials by its name; `ConfigError` if it is not installed or can't be
    used."""
    try:
        return {"mlflow": _mlflow, "wandb": _wandb}[name](files)
    except ImportError as error:
        raise cfg.ConfigError(
            [
                f"--tracker {name}: {error.name} is not installed; install it with pip install 'tinylm-sweeps[{name}]'"
            ]
        ) from error
    except cfg.ConfigError:
        raise
    except Exception as error:  # server, key or folder: trackers have many classes of errors
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise cfg.ConfigError([f"--tracker {name}: {said}"]) from error


def _config(job: Job) -> dict[str, Any]:
    return {"trial": job.trial, **cfg.flatten(job.config)}


def _mlflow(files: Files) -> Tracker:
    """One run per trial, over all attempts and sessions, in an experiment with the sweep's name.

    They are stored at MLFLOW_TRACKING_URI, or else in a database in the results folder.
    """
    import mlflow
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    # Tune waits for every call: a server that hangs must not delay the trials for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    store = None  # MLflow chooses by its environment
    if "MLFLOW_TRACKING_URI" not in os.environ:
        files.results.mlflow.parent.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{files.results.mlflow.resolve()}"

    class Logger(MLflowLoggerCallback):
        """Continues the runs that an earlier session began."""

        def setup(self, *stop: Any, **info: Any) -> None:
            super().setup(*stop, **info)
            there = [self.mlflow_util.experiment_id] if files.has_begun else []
            runs = mlflow.search_runs(there, output_format="list") if there else []
            # The latest run of each name: an earlier sweep may have used the same names.
            self._known = {run.info.run_name: run.info.run_id for run in reversed(runs)}

        def log_trial_start(self, trial: TrackedRun) -> None:
            before = self._trial_runs.get(trial) or self._known.get(str(trial))
            if before is not None:
                self._trial_runs[trial] = before
                mlflow.MlflowClient().update_run(before, "RUNNING")
            super().log_trial_start(trial)

    logger = Logger(tracking_uri=store, experiment_name=files.name)
    logger.setup()

    def run_of(job: Job) -> TrackedRun:
        return TrackedRun(job.trial, job.trial, job.name, _config(job), "", files.name)

    return Tracker("mlflow", logger, run_of)


def _wandb(files: Files) -> Tracker:
    """One run per trial, in the project WANDB_PROJECT, or else one with the sweep's name.

    Each attempt is a wandb process that resumes the run; if WANDB_MODE is offline, each writes its
    own folder, and `wandb sync` joins them.
    """
    import wandb  # noqa: F401 the callback can be imported without it
    from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor
    from ray.air.util.node import _force_on_current_node

    class Process(_WandbLoggingActor):
        """Takes the key as an argument."""

        def __init__(self, *args: Any, key: str | None, **settings: Any) -> None:
            if key is not None:  # else wandb has a login
                os.environ["WANDB_API_KEY"] = key
            super().__init__(*args, **settings)

    class Logger(WandbLoggerCallback):
        """Raises the error that ended a run's wandb process. Gives the process its key as an argument: Ray
        logs the environments that it is asked for."""

        _remote_logger_class: Any

        def _start_logging_actor(
            self, trial: TrackedRun, exclude_results: list[str], **settings: Any
        ) -> None:
            if self._remote_logger_class is None:
                here = _force_on_current_node()
                again = {"max_restarts": -1, "max_task_retries": -1}
                self._remote_logger_class = ray.remote(num_cpus=0, **here, **again)(Process)
            settings["key"] = os.environ.get("WANDB_API_KEY")
            super()._start_logging_actor(trial, exclude_results, **settings)

        def log_trial_result(
            self, iteration: int, trial: TrackedRun, result: dict[str, Any]
        ) -> None:
            over, _ = ray.wait([self._trial_logging_futures[trial]], timeout=0)
            self._check(over)
            super().log_trial_result(iteration, trial, result)

        def _cleanup_logging_actors(self, timeout: int = 0, kill_on_timeout: bool = False) -> None:
            """Ends the processes that have written their runs, and at the end of a session all."""
            futures = list(self._trial_logging_futures.values())
            over, late = ray.wait(futures, num_returns=len(futures), timeout=timeout)
            super()._cleanup_logging_actors(0, kill_on_timeout)
            self._check(over)
            if late and kill_on_timeout:
                raise TimeoutError(f"{len(late)} runs were not written within {timeout} s")

        @staticmethod
        def _check(over: list[Any]) -> None:
            try:
                ray.get(over)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error

    logger = Logger(
        upload_timeout=60,
        project=os.environ.get("WANDB_PROJECT", files.name),
        group=files.name,
        resume="allow",
        mode=os.environ.get("WANDB_MODE", "online"),
    )
    try:
        logger.setup()
    except ValueError as error:
        advice = "`wandb login`, WANDB_API_KEY, or WANDB_MODE=offline"
        raise cfg.ConfigError([f"--tracker wandb: no key to log in with: {advice}"]) from error

    def run_of(job: Job) -> TrackedRun:
        attempt = f"{job.trial}-{job.attempt}"
        folder = files.wandb / attempt
        folder.mkdir(parents=True, exist_ok=True)
        # The same trial in another sweep of this name is another run.
        begun = re.sub(r"\D", "", next(rows(files))["time"])
        run_id = f"{files.name}-{begun}-{job.trial}"
        where = str(folder.resolve())
        return TrackedRun(attempt, run_id, job.name, _config(job), where, files.name)

    return Tracker("wandb", logger, run_of)
