"""Ray Tune as the engine of a sweep: it places attempts, moves checkpoints, serves the dashboard.

Import this module before ray: it makes the settings that Ray reads.

An attempt is one Ray trial: it runs from where its trial is to the next rung. The scheduler interface
answers each report (continue, or stop here). The search interface hands out the next attempt when a
slot is free: a new trial, a promotion, or a trial that a crash interrupted. So Ray holds no paused
trials, and a promotion after a restart of the driver is the same code as one before. Tune's own
snapshots are never read.
"""

import atexit
import contextlib
import ctypes
import json
import logging
import math
import os
import platform
import secrets
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sweeps.exits import ClusterError, Code, StorageError

# Read by Ray when it is imported, by its daemons and by the workers.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_DEDUP_LOGS": "0",
        # A call whose answer nobody takes; the driver hears of the attempt's failure anyway.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "RAY_ENABLE_AUTO_CONNECT": "0",  # after a cluster was lost, Tune would start a Ray of its own
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        # Ray's first workers load what an attempt needs while the driver gets ready; they are kept until
        # it asks for them.
        "RAY_idle_worker_killing_time_threshold_ms": "60000",
        "RAY_preload_python_modules": "sweeps.engine.tune,sweeps.engine.worker",
        # Without it Ray's processes listen on all interfaces, whatever address they are given.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # `_Work` counts the slots; by default Tune starts one actor after the other.
        "TUNE_MAX_PENDING_TRIALS_PG": "1000",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "10",
    }
)


def _token_file() -> Path:
    """The file of the token for the local dashboard; a new one is readable by its owner only."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                with os.fdopen(descriptor, "w") as stream:
                    stream.write(secrets.token_hex(32))
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}; Ray's token can't be kept there. Set HOME to a folder that can "
            "be written, or RAY_AUTH_TOKEN_PATH to a file in one"
        ) from error
    return path


os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file())
# ray.init sets this for a cluster of its own, but not when it joins one.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Ray's workers would train at nice 15: beside any other program on the machine, hardly at all.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray  # noqa: E402 after its settings
from ray import tune  # noqa: E402
from ray._private import state, utils, worker  # noqa: E402
from ray.air._internal import usage  # noqa: E402
from ray.autoscaler.v2.utils import is_autoscaler_v2  # noqa: E402
from ray.core.generated import gcs_pb2  # noqa: E402
from ray.train._internal.session import _TrainingResult  # noqa: E402
from ray.tune import Callback, Stopper  # noqa: E402
from ray.tune.execution import class_cache, experiment_state  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.progress_reporter import TrialProgressCallback  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from sweeps.engine import address as addresses  # noqa: E402
from sweeps.engine import reuse, store  # noqa: E402
from sweeps.engine.demand import Demand, elsewhere  # noqa: E402
from sweeps.engine.driver import Driver  # noqa: E402
from sweeps.engine.failures import (  # noqa: E402
    Failure,
    failure_in,
    failure_of,
    hung_for,
    storage_words,
    told,
)
from sweeps.engine.job import Job  # noqa: E402
from sweeps.engine.limits import kernel_kills, room_for, usable_cpus, usable_memory  # noqa: E402
from sweeps.engine.machine import record_seconds  # noqa: E402
from sweeps.engine.preflight import Event, Needs, Nodes, RayTasks  # noqa: E402
from sweeps.engine.scratch import (  # noqa: E402
    RAY,
    private_folder,
    require_a_place,
    require_token,
    shared_memory,
)
from sweeps.engine.sharing import Share, Use  # noqa: E402
from sweeps.engine.silence import Silence  # noqa: E402
from sweeps.ledger import Files  # noqa: E402
from sweeps.plan.sections import Resources  # noqa: E402
from sweeps.text import duration, joined, quantity  # noqa: E402
from tinylm import config as cfg  # noqa: E402
from tinylm.data import cache_folder  # noqa: E402
from tinylm.exits import by_signal, code_of  # noqa: E402
from tinylm.signals import ENDING, WARNING, Interrupted, held_back, interrupt, listening  # noqa: E402

if TYPE_CHECKING:
    from sweeps.engine.worker import Attempt

_ASK_SECONDS = 5  # between two questions to the head of a cluster that was running
_LEAVE_SECONDS = 60  # that trials have to save and leave after a warning; the analysis comes then
_END_SECONDS = 5  # that processes have to end after they were killed
_LISTEN_SECONDS = 0.05  # between two looks at the end of Ray, which replaces a handler of signals
_LOOK_SECONDS = 0.25  # between two looks at the cluster
WAIT_SECONDS = 600.0  # for a node that can run a trial, after the last was lost
_LOST_SECONDS = 20  # after which a cluster that does not answer is lost; one may restart its head
_AGAIN_SECONDS = 1  # after which a signal is a second one
_STOP_SECONDS = 20  # that Ray Tune has to end its trials
_USE_SECONDS = 1  # between two questions how a cluster is used
_WHERE_SECONDS = 5  # that a worker has to say where it is
_NEEDED = {"gcs_server", "raylet"}  # processes without which Ray can't go on
_HEAD = "node:__internal_head__"  # a resource that Ray gives the head alone
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
# It imports MLflow, W&B and Comet, for seconds, to count callbacks for statistics that are off.
usage.tag_callbacks = lambda callbacks: False
# Tune gives every actor an environment of its own, with the driver's AWS credentials, which Ray logs;
# such an actor can't use a worker that is already up.
class_cache._ActorClassCache.get = lambda cache, trainable: ray.remote(trainable)  # noqa: SLF001
# Tune reports that a trial failed; the ledger says why.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

reuse.install()
_keep_snapshot = experiment_state._ExperimentCheckpointManager.sync_up_experiment_state  # noqa: SLF001


def _keep_snapshot_if_there(manager: Any, *given: Any, **settings: Any) -> None:
    """Write a snapshot of Tune, which would make the sweep's folder anew if that was moved or deleted."""
    if Path(manager._storage.storage_fs_path).is_dir():  # noqa: SLF001
        _keep_snapshot(manager, *given, **settings)


experiment_state._ExperimentCheckpointManager.sync_up_experiment_state = _keep_snapshot_if_there  # noqa: SLF001


class TrialActor(tune.Trainable):
    """The process of one attempt."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The CPUs and GPUs that the attempt takes, and the nodes that it may not run on."""
        if not config["without"]:
            return tune.PlacementGroupFactory([config["resources"]])
        others = [elsewhere(config["without"])]
        return tune.PlacementGroupFactory([config["resources"]], bundle_label_selector=others)

    def setup(self, config: dict[str, Any]) -> None:
        """Take the job, and listen to SIGTERM."""
        self._ends = False  # whether this process was asked to end
        self._heard = -math.inf  # when
        self._handler_of_ray = signal.signal(signal.SIGTERM, self._end)
        self._take(config)

    def _take(self, config: dict[str, Any]) -> None:
        """Take a job; its first step opens the corpus, where the driver notices if it hangs."""
        self._job = Job.from_json(config["job"])
        self._gpu = float(config["resources"].get("GPU", 0.0))
        self._attempt: Attempt | None = None
        self._events = self._train()
        print(f"{self._job.name}: attempt {self._job.attempt}", flush=True)

    def _train(self) -> Iterator[dict[str, Any]]:
        """The events of the attempt."""
        from sweeps.engine.worker import Attempt  # loads torch, which the driver does not need

        self._attempt = Attempt(self._job, self._gpu)
        yield from self._attempt.events()

    def _end(self, number: int, frame: FrameType | None) -> None:
        """End this process after the next record, so that nothing is lost; after a second signal, at once."""
        now = time.monotonic()
        if self._ends and now - self._heard > _AGAIN_SECONDS:
            signal.signal(number, self._handler_of_ray)
            signal.raise_signal(number)
        self._ends, self._heard = True, now

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another attempt in the same process; its curve is the same as in a new process."""
        del self._events, self._attempt  # the memory of the previous attempt
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next event."""
        # An actor's name is fixed when Ray creates it. The title of its process can be changed, and
        # the dashboard's Cluster page lists the workers by it.
        ray._raylet.setproctitle(f"ray::{self._job.name}")  # noqa: SLF001 no public way
        with told():
            event = next(self._events) | _worker()
        return {
            "event": json.dumps(event),
            "should_checkpoint": event["save"],
            "ends": self._ends,
        }

    def where(self) -> dict[str, str]:
        """Where this worker is: `worker`, `address`, `node` and, if Ray gave it a GPU, `device`."""
        node = ray.get_runtime_context().get_node_id()
        return {**_worker(), "address": ray.util.get_node_ip_address(), "node": node}

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save a checkpoint to the sweep's folder, or to its store; where it is."""
        with told():
            if not self._job.store:
                return super().save(checkpoint_dir)
            return self._send()

    def _send(self) -> Any:
        """Save a checkpoint to the sweep's store under the name that it would have in the folder, of which Tune
        is told: only the driver has that folder."""
        storage = self._storage
        storage._update_checkpoint_index({})  # noqa: SLF001 as Tune does
        folder = Path(storage.checkpoint_fs_path)
        name = (folder / Files.CHECKPOINT).relative_to(storage.storage_fs_path).as_posix()
        with tempfile.TemporaryDirectory() as own:
            self.save_checkpoint(own)
            store.send(self._job.store, name, Path(own) / Files.CHECKPOINT)
        return _TrainingResult(tune.Checkpoint.from_directory(folder), dict(self._last_result))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the checkpoint of the last event; Tune moves it to the sweep's storage."""
        assert self._attempt is not None  # it has reported
        self._attempt.save(Path(checkpoint_dir) / Files.CHECKPOINT)


def _worker() -> dict[str, str]:
    """The host and process of this worker, and its GPU, if Ray gave it one."""
    found = {"worker": f"{platform.node()}:{os.getpid()}"}
    if devices := ray.get_gpu_ids():
        found["device"] = ", ".join(f"GPU {number}" for number in devices)
    return found


def _where(trial: Trial) -> dict[str, str]:
    """What the worker of an attempt says of where it is; empty if it does not answer."""
    with contextlib.suppress(ray.exceptions.RayError):
        asked = trial.temporary_state.ray_actor.where.remote()
        return ray.get(asked, timeout=_WHERE_SECONDS)
    return {}


@dataclass(repr=False)  # Tune formats it into messages that nobody sees, for each report
class _Conversation:
    """What the objects that Ray Tune calls share."""

    driver: Driver
    cluster: "Cluster"
    limit: int | None  # attempts at once, at most
    update: Callable[[], None]  # called when there may be something new to show
    trial_of: dict[str, str] = field(default_factory=dict)  # Ray's id of an attempt -> trial
    # Attempts that Ray has no worker for yet, with its controller.
    waiting: dict[str, tuple[Any, Trial]] = field(default_factory=dict)
    controller: Any = None  # Tune's, once it has an attempt
    error: Exception | None = None
    signal: int | None = None
    heard: float = 0.0  # when it came, by the monotonic clock
    exhausted: bool = False  # nothing was left to do when Ray last asked
    # Held while the driver is asked or told something. Whoever gives up on Ray keeps it.
    asking: threading.Lock = field(default_factory=threading.Lock)

    def interrupted(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: nothing more is started, and after one that is no warning nothing is asked or written."""
        now = time.monotonic()
        if self.signal is not None and now - self.heard > _AGAIN_SECONDS:
            interrupt(number, frame)
        if self.signal is not None:  # `timeout` signals a process, then its group
            return
        self.signal, self.heard = number, now
        what = "trials save at their next records" if self.is_leaving else "stopping"
        print(f"{what}; a second signal stops at once", file=sys.stderr)

    @property
    def is_leaving(self) -> bool:
        """Whether nothing more may be started, but attempts that run may still save and leave."""
        has_time = time.monotonic() - self.heard < _LEAVE_SECONDS
        return self.signal in WARNING and has_time and bool(self.driver.sweep.running)

    @property
    def over(self) -> bool:
        """Whether nothing more may be started, asked or written."""
        return self.error is not None or (self.signal is not None and not self.is_leaving)

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles these objects, but no code here reads the pickle."""
        return {}

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Ask or tell the driver something; keep an error for the caller of `run`: Tune would wrap it, or
        continue without it."""
        try:
            with self.asking:
                yield
        except Exception as error:  # noqa: BLE001 whatever it is, the sweep ends with it
            self.error = self.error or error


class _Work(Searcher):
    """The search interface: the next attempt for a free slot."""

    def __init__(self, conversation: _Conversation) -> None:
        super().__init__()
        self._conversation = conversation

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next attempt; None for not now, `FINISHED` when everything is done."""
        job = None
        running = len(self._conversation.driver.state.under_way)
        # Not within `guard`: a cluster that is gone never answers.
        cluster, limit = self._conversation.cluster, self._conversation.limit
        events = cluster.look()
        slots = cluster.share(limit).to_ask_for
        with self._conversation.guard():
            for event in events:
                self._conversation.driver.note(event.fields())
            if self._conversation.over:
                job = None
            elif running < slots and self._conversation.signal is None:
                job = self._conversation.driver.next_job()
        if job is None:
            # Else no attempt is running, so there is nothing to wait for.
            driver = self._conversation.driver
            for_a_slot = not slots and not driver.is_capped() and driver.has_work()
            waits = (running or for_a_slot) and not self._conversation.over
            self._conversation.exhausted = not waits and not self._conversation.over
            return None if waits else Searcher.FINISHED
        self._conversation.trial_of[trial_id] = job.trial
        return {"job": job.to_json(), "resources": cluster.takes, "without": cluster.left_out()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The scheduler knows already."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """The ledger is the state."""


class _Answers(FIFOScheduler):
    """The scheduler interface: whether an attempt that has reported continues."""

    def __init__(self, conversation: _Conversation) -> None:
        super().__init__()
        self._conversation = conversation

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Keep a hold of what waits for a worker and, with the first of it, of Tune's controller, which keeps a
        worker for each slot of a Ray of the sweep's own."""
        cluster = self._conversation.cluster
        if self._conversation.controller is None and cluster.is_own:
            slots = cluster.share(self._conversation.limit).total
            tune_controller.keep_workers(trial, slots)
        self._conversation.controller = tune_controller
        self._conversation.waiting[trial.trial_id] = (tune_controller, trial)

    def on_trial_result(
        self,
        tune_controller: Any,
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Record the event, then decide; the attempt waits for the answer."""
        if self._conversation.error is not None:
            return TrialScheduler.STOP
        with self._conversation.guard():
            trial_id = self._conversation.trial_of[trial.trial_id]
            event = json.loads(result["event"])
            if self._conversation.driver.reported(trial_id, event, ends=result["ends"]):
                return TrialScheduler.CONTINUE
        return TrialScheduler.STOP


class _Notes(Callback):
    """The callback interface: checkpoints that have arrived, and attempts that failed."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._kills = kernel_kills()
        self._silence = Silence(conversation.driver.request.space.resources.hang_after)
        self._hung: dict[str, float] = {}  # Ray's ids of attempts -> seconds that they were silent

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._conversation.waiting.pop(trial.trial_id, None)
        begun = self._conversation.driver.sweep.find(self._conversation.trial_of[trial.trial_id])
        expected = record_seconds(cfg.validate(begun.config, begun.label))
        self._silence.started(trial.trial_id, expected or 0.0)
        if self._conversation.error is None:
            where = {} if self._conversation.over else _where(trial)
            with self._conversation.guard():
                self._conversation.driver.began(begun.trial, **where)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._silence.ended(trial.trial_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        self._silence.reported(trial.trial_id)
        # Tune reads this after the scheduler has answered, and before it saves.
        result["should_checkpoint"] = self._conversation.driver.wants_checkpoint(
            self._conversation.trial_of[trial.trial_id], result["should_checkpoint"]
        )

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any
    ) -> None:
        if self._conversation.error is not None:
            return
        with self._conversation.guard():
            file = Path(checkpoint.path) / Files.CHECKPOINT
            self._conversation.driver.saved(self._conversation.trial_of[trial.trial_id], file)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._conversation.waiting.pop(trial.trial_id, None)  # its worker did not come up
        self._silence.ended(trial.trial_id)
        if self._conversation.error is not None:
            return
        with self._conversation.guard():
            text = Path(trial.error_file).read_text() if trial.error_file else ""
            silent = self._hung.get(trial.trial_id)
            failure = failure_in(text, self._killed()) if silent is None else hung_for(silent)
            self._conversation.driver.failed(
                self._conversation.trial_of[trial.trial_id],
                failure.how,
                failure.reason,
                failure.traceback,
            )
            if failure.how == "storage":  # another attempt would fail in the same way
                raise _no_storage(failure, self._conversation.driver)

    def _killed(self) -> bool:
        """Whether the kernel has killed a process for lack of memory, of which no trial was told."""
        if kernel_kills() <= self._kills:
            return False
        self._kills += 1
        return True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for attempt, (_, trial) in self._conversation.waiting.items():
            if trial.temporary_state.ray_actor is not None:
                self._silence.prepares(attempt)
        silent = self._silence.look(time.monotonic())
        for trial in [one for one in trials if one.trial_id in silent]:
            self._end(trial, silent[trial.trial_id])
        taken: list[str] = []
        under_way, most, asks = 0, 0, self._conversation.cluster.is_to_ask
        with self._conversation.guard():
            self._conversation.driver.checkpoints.check()
            if not self._conversation.over:
                if self._conversation.is_leaving:
                    self._conversation.driver.leave()
                self._conversation.driver.take_requests()
                taken = self._to_take_back()
                self._conversation.driver.take_back([self._conversation.trial_of[x] for x in taken])
                if asks:
                    under_way = len(self._conversation.driver.state.under_way)
                    most = self._conversation.driver.most_at_once()
            self._conversation.update()
        if asks:
            self._conversation.cluster.ask_for(under_way, most, self._conversation.limit)
        if under_way and most <= under_way:
            # A worker that Tune keeps for the next trial would keep its node.
            self._conversation.controller._cleanup_cached_actors(force_all=True)  # noqa: SLF001
        for attempt in taken:  # Tune may call back
            controller, trial = self._conversation.waiting.pop(attempt)
            # Without this, Tune would keep a worker for it.
            controller._tune_controller._unstage_trial_with_resources(trial)  # noqa: SLF001
            controller.stop_trial(trial)

    def _to_take_back(self) -> list[str]:
        """Ray's ids of attempts in its queue that are not to begin, or that a node could train which has joined
        since, or that could go to one which is drained."""
        cluster, unwanted = self._conversation.cluster, self._conversation.driver.no_longer_wanted()
        draining = cluster.draining()
        return [
            attempt
            for attempt, (_, trial) in self._conversation.waiting.items()
            if trial.temporary_state.ray_actor is None
            and (
                self._conversation.trial_of[attempt] in unwanted
                or any(map(cluster.has_joined, trial.config["without"]))
                or not draining.issubset(trial.config["without"])
            )
        ]

    def _end(self, trial: Trial, silent: float) -> None:
        """End the process of an attempt that is hung; Tune then calls `on_trial_error`."""
        self._hung[trial.trial_id] = silent
        self._silence.ended(trial.trial_id)
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)


class _Silent(TrialProgressCallback):
    """Takes the place of what prints that trials complete, also those that have never begun."""

    def log_result(self, trial: Trial, result: dict[str, Any], error: bool = False) -> None:
        pass

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        pass


class _Interrupt(Stopper):
    """Ends the run after a signal or an error."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._conversation.over


def _slots(
    takes: Mapping[str, float], nodes: Iterable[Mapping[str, float]], limit: int | None
) -> int:
    """How many attempts fit on nodes with these resources at once, `limit` at most."""
    found = sum(
        min(
            room_for(need, has.get(name, 0.0), by_device=name == "GPU")
            for name, need in takes.items()
        )
        for has in nodes
    )
    return found if limit is None else min(found, limit)


def _share(
    takes: Mapping[str, float],
    nodes: Mapping[str, Mapping[str, float]],
    use: Use,
    limit: int | None,
) -> Share:
    """How many attempts run at once on nodes with these resources that are used in this way."""
    left = [use.left(name, has) for name, has in nodes.items()]
    return Share(_slots(takes, left, limit), _slots(takes, nodes.values(), limit))


def _use() -> Use:
    """How the cluster that this process has joined is used."""
    job, held = bytes.fromhex(ray.get_runtime_context().get_job_id()), dict[str, Counter[str]]()
    # Ray's public table of placement groups does not say whose they are.
    for one in state.state._connect_and_get_accessor().get_placement_group_table():  # noqa: SLF001
        group = gcs_pb2.PlacementGroupTableData.FromString(one)
        if group.creator_job_id == job and group.state == group.CREATED:
            for bundle in group.bundles:
                held.setdefault(bundle.node_id.hex(), Counter()).update(bundle.unit_resources)
    return Use(state.available_resources_per_node(), held)


class _Ray(threading.Thread):
    """Starts or joins Ray, for as long as the thread lives: Ray's processes end with the thread that started
    them. What the main thread waited for in Ray's library, no signal would end."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._is_up, self._ended = threading.Event(), threading.Event()
        self.context: Any = None  # what `ray.init` answers
        self.error: BaseException | None = None  # or raises

    def run(self) -> None:
        # The main thread hears signals. Others may signal all processes of a group or of a job, and only the
        # driver ends them in order: Ray's processes are a group of their own, and inherit what is blocked
        # here, except SIGTERM, with which it ends them; they ignore SIGINT.
        signal.pthread_sigmask(signal.SIG_SETMASK, set(ENDING) - {signal.SIGINT})
        take, bind = utils.set_sigterm_handler, utils.set_kill_on_parent_death_linux

        def set_apart() -> None:  # a new process of Ray
            os.setpgid(0, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            bind()

        utils.set_sigterm_handler = lambda handler: None  # Ray's ends the driver without a word
        utils.set_kill_on_parent_death_linux = set_apart
        try:
            self.context = ray.init(**self._settings)
        except BaseException as error:  # noqa: BLE001 raised where it is waited for
            self.error = error
        finally:
            utils.set_sigterm_handler, utils.set_kill_on_parent_death_linux = take, bind
            self._is_up.set()
        self._ended.wait()

    def wait(self) -> None:
        """Wait until Ray is up, or until a signal ends that. SIGTERM is held back meanwhile: Ray's library
        installs a handler that aborts the process, until ours is installed again."""
        with held_back():
            self.start()
            try:
                while not self._is_up.wait(_LISTEN_SECONDS):
                    if signal.SIGTERM in signal.sigpending():
                        break
            finally:
                _listen_again()

    def end(self) -> None:
        """End the thread, after Ray."""
        self._ended.set()


class Cluster:
    """A Ray cluster that the driver uses: its own, or one that was running."""

    def __init__(self, *, own: bool) -> None:
        self.dashboard = ""  # its URL
        self.takes: dict[str, float] = {}  # of it, each trial
        self.is_own = own
        self._nodes: dict[str, Mapping[str, float]] = {}  # when it was started or joined
        self._checked: Nodes | None = None  # of a cluster that was running
        self._demand: Demand | None = None  # if it has an autoscaler
        self._address = ""  # HOST:PORT of the head of one that was running
        self._answered = self._asked = time.monotonic()
        self._without: float | None = None  # since when it has no node for a trial
        self._use, self._used_at = Use({}, {}), -math.inf  # how it is used, and when that was asked
        self._asked_for_at = -math.inf  # when slots were last asked for
        self._given_up = False
        self._ray: _Ray | None = None
        if own and sys.platform == "linux":
            # Processes whose parent has died stay children of the driver, and end with it.
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    def connect(self, address: str, settings: dict[str, Any]) -> None:
        """Start or join Ray; `ClusterError` if that fails."""
        where = address if address == addresses.LOCAL else addresses.joined(address)
        self._ray = _Ray({"address": where, **settings})
        self._ray.wait()
        if self._ray.error is not None:  # of many kinds
            raise addresses.not_up(address, self._ray.error) from self._ray.error
        context = self._ray.context
        self.dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        self._address = context.address_info["gcs_address"]
        self._nodes = {node["NodeID"]: node["Resources"] for node in RayTasks().nodes()}
        if not self.is_own and is_autoscaler_v2(fetch_from_server=True):
            self._demand = Demand()
        self._answered = self._asked = time.monotonic()

    def check(self, folder: Path, needs: Needs) -> list[Event]:
        """Look at the nodes of a cluster that was running, before they train trials of the sweep in a folder, and
        wait for one if its autoscaler has to start it; which of them may, and which are left out."""
        if self.is_own:
            return []
        self._checked = Nodes(folder, needs, lambda has: _slots(self.takes, [has], None))
        return self._checked.first_look() + self._first_node()

    def _first_node(self) -> list[Event]:
        """What happens to the nodes until a trial can run, if an autoscaler can see to that."""
        events: list[Event] = []
        if self._demand is None or self.nodes() or self._refused_slots():
            return events
        print(
            "no node can run a trial yet; waiting for the cluster's autoscaler to start one, for up to "
            f"{duration(WAIT_SECONDS)}",
            flush=True,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not self.nodes() and not self._refused_slots():
            self.ask_for(0, 1, None)
            time.sleep(_LOOK_SECONDS)
            events += self.look()
        return events

    def ask_for(self, under_way: int, most: int, limit: int | None) -> None:
        """Ask its autoscaler, if it has one, for the slots that a sweep lacks: it could train `most` trials at
        once, `limit` at most, and so many are under way."""
        if self._demand is None or not self.is_to_ask:
            return
        self._asked_for_at = time.monotonic()
        # A trial that waits for what others hold asks by itself.
        has = max(self.share(None).free, under_way)
        wanted = most if limit is None else min(most, limit)
        refused = self._checked.refused() if self._checked else {}
        # One that lacks something is not replaced before the autoscaler has ended it.
        lacking = wanted - has - self._refused_slots()
        self._demand.look(lacking, self.takes, sorted({*refused, *self.nodes()}))

    def _refused_slots(self) -> int:
        """How many trials the nodes could run that lack something, without the head, which no autoscaler ends."""
        refused = self._checked.refused() if self._checked else {}
        workers = [has for has in refused.values() if _HEAD not in has]
        return _slots(self.takes, workers, None)

    @property
    def scales(self) -> bool:
        """Whether it has an autoscaler, which starts nodes for what is asked."""
        return self._demand is not None

    @property
    def is_to_ask(self) -> bool:
        """Whether its autoscaler is to be asked for slots now: once a second is enough."""
        return self.scales and time.monotonic() - self._asked_for_at >= _USE_SECONDS

    def look(self) -> list[Event]:
        """What has happened to the nodes of a cluster that was running since they were last looked at."""
        events = self._checked.look() if self._checked else []
        joined = sum(one.slots for one in events)
        if self._demand is not None and joined:
            self._demand.joined(joined)
        return events

    def nodes(self) -> dict[str, Mapping[str, float]]:
        """The resources of each node that may train, by Ray's id."""
        return self._checked.resources() if self._checked else self._nodes

    def usable(self) -> list[Mapping[str, float]]:
        """The resources of each node that was not left out, also of those that have no room for a trial."""
        left_out = self.left_out()
        alive = RayTasks().nodes()
        return [node["Resources"] for node in alive if node["NodeID"] not in left_out]

    def share(self, limit: int | None) -> Share:
        """How many trials may run on it at once, `limit` at most, by what was free within the last second."""
        nodes = self.nodes()
        if self.is_own:
            return _share(self.takes, nodes, Use(nodes, {}), limit)
        now = time.monotonic()
        if now - self._used_at >= _USE_SECONDS and not self._given_up:  # then it never answers
            self._use, self._used_at = _use(), now
        return _share(self.takes, nodes, self._use, limit)

    def left_out(self) -> list[str]:
        """Ray's ids of the nodes that may not train, or not yet."""
        return self._checked.left_out() if self._checked else []

    def draining(self) -> set[str]:
        """Ray's ids of the nodes that are about to end."""
        return self._checked.draining() if self._checked else set()

    def has_joined(self, node: str) -> bool:
        """Whether a node may train, by Ray's id."""
        return self._checked is not None and self._checked.has_joined(node)

    def lost(self) -> str:
        """Why the cluster can't be used any longer; empty while it can."""
        if self.is_own:
            dead = {kind for kind, _ in worker.global_worker.node.dead_processes()} & _NEEDED
            return f"the cluster was lost: Ray's {min(dead)} has died" if dead else ""
        now = time.monotonic()
        if now - self._asked < _ASK_SECONDS:
            return ""
        try:
            head = addresses.again(self._address)
        except ClusterError as error:
            return f"the cluster was lost: {error}" if now - self._answered > _LOST_SECONDS else ""
        self._asked = self._answered = time.monotonic()
        joined = self._checked.has_joined if self._checked else bool
        return self._missed([has for name, has in head.alive.items() if joined(name)])

    def _missed(self, nodes: Iterable[Mapping[str, float]]) -> str:
        """Why the cluster's nodes, which have these resources, are not waited for any longer; empty while they
        can run trials or are waited for, which is said."""
        if _slots(self.takes, nodes, None):
            if self._without is not None:
                print("a node has joined; going on", file=sys.stderr, flush=True)
            self._without = None
            return ""
        if self._without is None:
            self._without = time.monotonic()
            print(
                "the cluster has lost all nodes that can run a trial; waiting for one to join, for up to "
                f"{duration(WAIT_SECONDS)}",
                file=sys.stderr,
                flush=True,
            )
        if time.monotonic() - self._without < WAIT_SECONDS:
            return ""
        return f"the cluster has had no node that can run a trial for {duration(WAIT_SECONDS)}"

    def give_up(self, code: int) -> None:
        """End Ray's processes at once, and this one with an exit code when its command has ended: Ray
        would wait for a minute for what is gone, and end it with 1."""
        self._given_up = True
        self._kill()
        # Else Ray ends this process within the minute; this takes seconds, or never returns.
        threading.Thread(target=_disconnect, daemon=True).start()
        atexit.register(_leave, code)
        # Runs before that: what the start of Ray, going on, has started since.
        atexit.register(self._kill)

    def close(self) -> None:
        """Leave the cluster; end the processes of an own one."""
        if self._checked:
            self._checked.close()
        if not self._given_up:
            try:
                _shut_down()
            except Interrupted as error:
                atexit.register(
                    _leave, by_signal(error.number)
                )  # Ray would end what is being ended
                raise
            finally:
                self._kill()
            if self._ray is not None:
                self._ray.end()

    def _kill(self) -> None:
        """End what still runs of an own cluster, also of one that is half started."""
        if not self.is_own:
            return
        import psutil  # type: ignore[import-untyped]  # Ray's

        home, left = str(Path(ray.__file__).parent), []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                words = " ".join(child.cmdline())
                # By its program, or by the title that Ray gives it: not a tracker's process.
                if home in words or words.startswith(("ray::", "ray-")):
                    left += [child, *child.children(recursive=True)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_END_SECONDS)
        for process in left:  # those whose parents were among them are ours now
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _shut_down() -> None:
    """Leave or end Ray, and handle signals meanwhile: its library takes the handler of SIGTERM away."""
    thread = threading.Thread(target=_disconnect, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LISTEN_SECONDS)
        _listen_again()


def _listen_again() -> None:
    """Install the handlers of signals again: Ray's library has set that of SIGTERM to the system's."""
    for number in ENDING:
        handler = signal.getsignal(number)
        if handler is not None:
            signal.signal(number, handler)


def _disconnect() -> None:
    """Leave a cluster that is gone."""
    with contextlib.suppress(Exception):
        ray.shutdown()


def _leave(code: int) -> None:
    """End the process without what is registered to be done at its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def cluster(
    address: str, resources: Resources, limit: int | None, gpus: int | None
) -> Iterator[Cluster]:
    """A Ray cluster while the context lasts: a new one (`local`) with room for so many trials, or the one at
    an address. Trials use so many GPUs of it: 0 for none, None for those that it has.

    Raises `ClusterError` if the cluster can't be started or reached.
    """
    require_token(os.environ)
    if address == addresses.LOCAL:
        require_a_place()
        # Of each worker; by default, torch compiles with as many processes as there are cores.
        threads = max(1, min(32, int(usable_cpus()) // (limit or 1)))
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    # Ray makes its folders readable by everyone; a private parent folder protects them.
    with private_folder() as parent:
        used = Cluster(own=address == addresses.LOCAL)
        try:
            used.connect(address, _settings(address, parent, resources, limit, gpus))
            used.takes = _takes(resources, gpus, used.nodes().values(), scales=used.scales)
            yield used
        except Interrupted as error:
            used.give_up(by_signal(error.number))
            raise
        finally:
            used.close()


def _settings(
    address: str, parent: Path, resources: Resources, limit: int | None, gpus: int | None
) -> dict[str, Any]:
    """How Ray is started or joined."""
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    environment: dict[str, Any] = {}
    if address == addresses.LOCAL:
        settings |= {"_temp_dir": str(parent / RAY), "include_dashboard": True}
        settings |= {"_node_ip_address": "127.0.0.1", "dashboard_host": "127.0.0.1"}
        settings |= {"_memory": usable_memory(), **shared_memory()}
        settings |= {"num_cpus": math.ceil((limit or 1) * resources.cpus), "num_gpus": gpus}
    else:
        # The workers of a running cluster don't have this process's environment.
        needed = {
            "RAY_CHDIR_TO_TRIAL_DIR": os.environ["RAY_CHDIR_TO_TRIAL_DIR"],
            "TINYLM_CACHE": str(cache_folder().resolve()),
        }
        environment = {"env_vars": needed}
    quoted = shlex.quote(sys.executable)
    if quoted != sys.executable:
        # Ray starts workers through a shell and does not quote the path of the interpreter.
        environment["py_executable"] = quoted
    if environment:
        settings |= {"runtime_env": environment}
    return settings


def require_cluster(address: str) -> None:
    """Raise `ClusterError` if the cluster at an address does not answer, or this machine is no node of it."""
    addresses.joined(address)


def share(cluster: Cluster, limit: int | None) -> Share:
    """How many trials the cluster runs at once, `limit` at most; `ClusterError` if it can't run any."""
    return _some(cluster.share(limit), cluster.takes, cluster.usable())


def share_of(address: str, resources: Resources, limit: int | None, gpus: int | None) -> Share:
    """How many trials the cluster at an address would run at once, `limit` at most, without joining it;
    `ClusterError` if it does not answer, or can't run any."""
    head = addresses.ask(address)
    has_autoscaler, nodes = addresses.scales(head), head.alive.values()
    takes = _takes(resources, gpus, nodes, scales=has_autoscaler)
    found = _share(takes, head.alive, Use(addresses.free(head), {}), limit)
    if found.total == 0 and has_autoscaler:
        return Share(0, limit or 1, is_awaited=True)
    return _some(found, takes, nodes)


def _some(found: Share, takes: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> Share:
    """What was found of a cluster with these nodes; `ClusterError` if it can't run a trial, which takes so much."""
    if found.total == 0:
        alike = Counter(_amounts({name: has.get(name, 0.0) for name in takes}) for has in nodes)
        there = [f"{quantity(number, 'node')} with {has}" for has, number in alike.items()]
        listed = f" (the cluster has {joined(there)})" if there else ""
        raise ClusterError(
            f"no node has the {_amounts(takes)} that a trial needs{listed}; add one that has, with "
            "`ray start --address=HOST:PORT` there, or ask for less under `resources` of the space"
        )
    return found


def _amounts(resources: Mapping[str, float]) -> str:
    """Resources as people read them."""
    return joined(
        [
            f"{amount / 1e9:.3g} GB of memory" if name == "memory" else f"{amount:g} {name}"
            for name, amount in resources.items()
        ]
    )


def _takes(
    resources: Resources, gpus: int | None, nodes: Iterable[Mapping[str, float]], *, scales: bool
) -> dict[str, float]:
    """What a trial takes of the nodes: no GPU if trials use 0 of them, or if there is none, unless an autoscaler
    could start a node that has one."""
    takes = {"CPU": float(resources.cpus)}
    if gpus != 0 and (scales or any(has.get("GPU") for has in nodes)):
        takes["GPU"] = float(resources.gpus)
    if resources.memory is not None:
        takes["memory"] = float(resources.memory)
    return takes


def run(
    driver: Driver,
    cluster: Cluster,
    update: Callable[[], None],
    limit: int | None,
    more: Sequence[Callback] = (),
) -> int | None:
    """Run a sweep, `limit` attempts at once at most, until nothing is left to do; the signal that ended
    it early, if one did.

    `more` are further Tune callbacks. `ClusterError` if the cluster is lost, or if Ray ends while work is
    left. Errors of the ledger and its disk are raised as they are.
    """
    conversation = _Conversation(driver, cluster, limit, update)

    tuner = tune.Tuner(
        TrialActor,
        tune_config=tune.TuneConfig(
            search_alg=_Work(conversation),
            scheduler=_Answers(conversation),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=driver.ledger.files.checkpoints.name,
            storage_path=str(driver.ledger.files.folder.resolve()),
            callbacks=[_Notes(conversation), _Silent(), *more],
            stop=_Interrupt(conversation),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    ended = _Ending(conversation, cluster)
    with listening(conversation.interrupted):
        ended.fit(tuner)
    if ended.error is not None and conversation.signal is None:  # errors of many kinds
        raise conversation.error or _ended(ended.error, driver) from ended.error
    if conversation.error is not None:
        raise conversation.error
    if conversation.signal is None and not conversation.exhausted:
        raise ClusterError("Ray Tune ended while work was left")
    return conversation.signal


@dataclass
class _Ending:
    """Waits for the end of Ray Tune, which runs in a thread of its own: a call to a cluster that is gone
    does not return, and the driver has to end all the same."""

    conversation: _Conversation
    cluster: Cluster
    error: BaseException | None = None  # with which Tune ended

    def fit(self, tuner: tune.Tuner) -> None:
        """Run Ray Tune until it ends, or until the cluster is lost."""
        thread = threading.Thread(target=self._fit, args=[tuner], daemon=True)
        thread.start()
        try:
            gone = self._wait(thread)
        except Interrupted as second:
            self._give_up(by_signal(second.number))
            raise
        if gone and self.conversation.signal is not None:
            self._give_up(by_signal(self.conversation.signal))
        elif gone:
            error = self.conversation.error or ClusterError(gone)
            self._give_up(code_of(error) or Code.CLUSTER)
            self.conversation.error = error

    def _fit(self, tuner: tune.Tuner) -> None:
        try:
            tuner.fit()
        except BaseException as error:  # noqa: BLE001 also what Ray raises at the end of a process
            self.error = error

    def _wait(self, thread: threading.Thread) -> str:
        """Wait until Ray Tune has ended; why it can't, if it can't."""
        deadline = math.inf
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if self.conversation.over:
                deadline = min(deadline, time.monotonic() + _STOP_SECONDS)
            if time.monotonic() > deadline:
                return "Ray Tune does not end its trials"
            if lost := self.cluster.lost():
                return lost
        return self.cluster.lost()

    def _give_up(self, code: int) -> None:
        """Leave Ray Tune as it is; from now on it can't reach the driver."""
        self.conversation.asking.acquire(timeout=_LOOK_SECONDS)
        self.cluster.give_up(code)


_CHECKPOINT_BYTES = 12  # of a parameter: its weight and two moments


def _no_storage(failure: Failure, driver: Driver) -> StorageError:
    """The error that ends a sweep whose files can't be written or read."""
    params = max(trial.params for trial in driver.sweep.everything)
    return StorageError(
        storage_words(failure, driver.ledger.files.folder, _CHECKPOINT_BYTES * params)
    )


def _ended(error: BaseException, driver: Driver) -> Exception:
    """The error that ends the sweep of a driver, when Tune ends with an error."""
    failure = failure_of(error)
    if failure.how == "storage":
        return _no_storage(failure, driver)
    last = (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, ray.exceptions.RayError | tune.TuneError) and last:
        return ClusterError(f"the cluster was lost: {last}")
    return ClusterError(f"Ray Tune failed: {failure.reason}")


def _name(trial: Trial) -> str:
    """A short name for an attempt and its folder: trial and number."""
    job = Job.from_json(trial.config["job"])
    return f"{job.trial}-{job.attempt}"
