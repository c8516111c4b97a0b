"""A look at each node of a running cluster before it trains: whether a trial can run there.

A node that lacks something is left out, so that no attempt at a trial is spent on it. It is looked at again
after `AGAIN_SECONDS`, or at once when it comes back as a new node; one that is slow joins when it has answered.
Import `sweeps.engine.tune` before this module: it makes the settings that Ray reads.
"""

import contextlib
import re
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle
from ray._private import state
from ray.core.generated.common_pb2 import NodeDeathInfo
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.engine.provenance import engine_code, program
from sweeps.engine.store import Bucket, Folder, insist, place
from sweeps.exits import StorageError
from sweeps.ledger import NodeState
from tinylm.data import cache_folder

FIRST_SECONDS = (
    60.0  # that a session waits for slow nodes before its first trial, if another can train
)
AGAIN_SECONDS = 300.0  # after which a node that lacks something is looked at again
_CLOCK_SECONDS = 60.0  # by which the clock of a node may differ from this machine's
_WORD = (
    ".word-"  # how the names begin of what is written to look at the sweep's folder, or its store
)
_ROOM = 100_000_000  # bytes on a disk besides those of checkpoints
_MEASURED = re.compile(r"[\d.e+]+ (?:GB|MB|s)\b")
_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 where Ray keeps objects, if it is large enough
_MEMORY_ROOM = 64_000_000  # bytes there

Known = Mapping[str, Any]  # what a node is told
Look = Callable[[Known], str]  # what a node lacks, found there; empty if nothing


@dataclass(frozen=True)
class Needs:
    """What the trials of a sweep need."""

    corpora: Mapping[str, Mapping[str, Any]]  # digest -> a config with that corpus
    device: str
    checkpoint: int  # bytes of the largest
    store: str = ""  # the URL where checkpoints are kept; empty if that is the sweep's folder


@dataclass(frozen=True)
class Part:
    """A part of the look at a node, which is a task there."""

    look: Look
    seconds: float  # in which it has to answer
    late: str  # what is said of a node that has not


@dataclass(frozen=True)
class Event:
    """What happened to a node."""

    node: str  # Ray's id
    host: str  # as people know it
    state: NodeState
    slots: int = 0  # trials that it runs at once, if it has joined
    reason: str = ""  # why it is left out, if it is

    def fields(self) -> dict[str, Any]:
        """The fields of a `node` row."""
        fields: dict[str, Any] = {"node": self.node, "host": self.host, "state": self.state}
        fields |= {"slots": self.slots} if self.state == "joined" else {}
        return fields | ({"reason": self.reason} if self.reason else {})


class Tasks(Protocol):
    """What the look at nodes needs of a cluster."""

    def nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that are alive, as Ray describes them."""

    def draining(self) -> Collection[str]:
        """Ray's ids of the nodes that are about to end."""

    def released(self) -> Collection[str]:
        """Ray's ids of the nodes that an autoscaler has ended because they were idle."""

    def start(self, node: str, look: Look, known: Known) -> Any:
        """A task on a node, begun now."""

    def answer(self, task: Any) -> tuple[str, float] | None:
        """What a look has found, and the time of day there; None as long as it has not. The error of a task that
        failed is raised."""

    def wait(self, tasks: Sequence[Any], seconds: float) -> None:
        """Return when one of the tasks has ended, or after so many seconds."""

    def now(self) -> float:
        """Seconds by a clock that is never set."""


class RayTasks:
    """Tasks on the nodes of the cluster that this process has joined."""

    def nodes(self) -> list[Mapping[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"]]

    def draining(self) -> Collection[str]:
        return state.state.get_draining_nodes()

    def released(self) -> Collection[str]:
        return {
            node["NodeID"]
            for node in ray.nodes()
            if node.get("DeathReason") == NodeDeathInfo.AUTOSCALER_DRAIN_IDLE
        }

    def start(self, node: str, look: Look, known: Known) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        return ray.remote(_timed).options(**options).remote(look, dict(known))

    def answer(self, task: Any) -> tuple[str, float] | None:
        ready, _ = ray.wait([task], timeout=0)
        return ray.get(task) if ready else None

    def wait(self, tasks: Sequence[Any], seconds: float) -> None:
        ray.wait(list(tasks), timeout=seconds)

    def now(self) -> float:
        return time.monotonic()


@dataclass
class _Looked:
    """How far the look at a node is."""

    host: str
    part: int = 0  # the one that is under way, or in which the node lacked something
    task: Any = None  # of this part; None once it has answered
    since: float = 0.0  # when that began, as `Tasks.now`
    time: float = 0.0  # the same, by the time of day
    ended: float | None = None  # when the node was found to lack something, as `Tasks.now`
    told: str = ""  # what was told of it last, without what is measured: free space, the clock
    is_good: bool = False
    is_draining: bool = False  # about to end: nothing new may start there


@dataclass
class Nodes:
    """The nodes of a cluster that may train trials of the sweep in a folder."""

    folder: Path
    needs: Needs
    slots: Callable[[Mapping[str, float]], int]  # trials at once, by the resources of a node
    tasks: Tasks = field(default_factory=RayTasks)
    parts: Sequence[Part] = ()  # `PARTS`, if empty
    _alive: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # nodes that have slots
    _looked: dict[str, _Looked] = field(default_factory=dict)  # the same, by Ray's id
    _known: dict[str, Any] = field(default_factory=dict)
    _place: Folder | Bucket = field(init=False)
    _has_word: bool = False  # whether this machine's word is there

    def __post_init__(self) -> None:
        self.parts = self.parts or PARTS
        self._place = place(self.folder, self.needs.store)
        here = program()
        self._known = {
            "program": {"code": here["code"], "engine": engine_code(), **here["versions"]},
            "folder": str(self.folder.resolve()),
            "store": self.needs.store,
            "word": secrets.token_hex(8),
            "cache": str(cache_folder().resolve()),
            "corpora": {digest: dict(config) for digest, config in self.needs.corpora.items()},
            "device": self.needs.device,
            "checkpoint": self.needs.checkpoint,
        }

    def first_look(self) -> list[Event]:
        """Look at all nodes until each has joined or is left out, slow ones for no longer than
        `FIRST_SECONDS` if another has joined; what happened to them."""
        self.close()  # what a driver that was killed has left
        begun, events = self.tasks.now(), self.look()
        while slow := [one.task for one in self._looked.values() if one.task and not one.told]:
            has_some = any(one.is_good for one in self._looked.values())
            if has_some and self.tasks.now() - begun > FIRST_SECONDS:
                break
            self.tasks.wait(slow, 1.0)
            events += self.look()
        return events

    def look(self) -> list[Event]:
        """Go on with the look at each node; what happened to nodes since the last call."""
        alive = {
            node["NodeID"]: node for node in self.tasks.nodes() if self.slots(node["Resources"])
        }
        draining = self.tasks.draining()
        events = []
        gone = {name: self._looked.pop(name) for name in self._looked.keys() - alive.keys()}
        released = self.tasks.released() if gone else []
        for name, one in gone.items():
            if one.is_good:
                events.append(Event(name, one.host, "released" if name in released else "lost"))
        self._alive = alive
        for name, node in alive.items():
            looked = self._looked.setdefault(name, _Looked(_host(node)))
            if name in draining and not looked.is_draining:
                looked.is_draining, looked.task = True, None
                events += [Event(name, looked.host, "draining")] if looked.is_good else []
            if not looked.is_draining:
                events += self._go_on(name, looked)
        if self._has_word and not any(one.task for one in self._looked.values()):
            self.close()
        return events

    def resources(self) -> dict[str, Mapping[str, float]]:
        """The resources of each node that has joined, by Ray's id, by the last look."""
        return {
            name: node["Resources"] for name, node in self._alive.items() if self.has_joined(name)
        }

    def has_joined(self, node: str) -> bool:
        """Whether a node may train, by Ray's id."""
        looked = self._looked.get(node)
        return looked is not None and looked.is_good and not looked.is_draining

    def draining(self) -> set[str]:
        """Ray's ids of the nodes that are about to end."""
        return {name for name, one in self._looked.items() if one.is_draining}

    def left_out(self) -> list[str]:
        """Ray's ids of the nodes that may not train, or not yet."""
        return sorted(name for name in self._looked if not self.has_joined(name))

    def refused(self) -> dict[str, Mapping[str, float]]:
        """The resources of each node that lacks something, by Ray's id."""
        return {
            name: node["Resources"]
            for name, node in self._alive.items()
            if self._looked[name].told and not self._looked[name].is_good
        }

    def close(self) -> None:
        """Remove what was written into the sweep's folder, or its store, for nodes to see and by them."""
        with contextlib.suppress(OSError, StorageError):  # of storage that is gone
            for name in self._place.beginning(_WORD):
                self._place.delete(name)
        self._has_word = False

    def _go_on(self, name: str, looked: _Looked) -> Iterator[Event]:
        """Take the answers of a node, and ask it what is next; what happened to it."""
        if looked.is_good:
            return
        if looked.ended is not None and self.tasks.now() - looked.ended >= AGAIN_SECONDS:
            looked.ended = None
        while looked.ended is None:
            if looked.task is None:
                self._ask(name, looked, 0)
            if (found := self._found(name, looked)) is None:
                part = self.parts[looked.part]
                if self.tasks.now() - looked.since > part.seconds:
                    yield from self._refuse(name, looked, part.late)
                return
            if found:
                looked.task, looked.ended = None, self.tasks.now()
                yield from self._refuse(name, looked, found)
            elif looked.part + 1 < len(self.parts):
                self._ask(name, looked, looked.part + 1)
            else:
                looked.task, looked.is_good = None, True
                slots = self.slots(self._alive[name]["Resources"])
                yield Event(name, looked.host, "joined", slots)
                return

    def _ask(self, name: str, looked: _Looked, part: int) -> None:
        """Begin a part of the look at a node."""
        has = self._alive[name]["Resources"]
        known = self._known | {
            "node": name,
            "slots": self.slots(has),
            "gpus": int(has.get("GPU", 0)),
            "objects": has.get("object_store_memory", 0),
        }
        if not self._has_word:
            word = known["word"].encode()
            insist(lambda: self._place.write(_word(known), word))
            self._has_word = True
        looked.part, looked.since, looked.time = part, self.tasks.now(), time.time()
        looked.task = self.tasks.start(name, self.parts[part].look, known)

    def _refuse(self, name: str, looked: _Looked, reason: str) -> Iterator[Event]:
        """Leave a node out; an event if this was not told at the look before."""
        if looked.told != (lasting := _MEASURED.sub("", reason)):
            looked.told = lasting
            yield Event(name, looked.host, "refused", reason=reason)

    def _found(self, name: str, looked: _Looked) -> str | None:
        """What a node lacks by the part that is under way, empty if nothing; None if it has not answered."""
        try:
            answer = self.tasks.answer(looked.task)
        except Exception as error:  # noqa: BLE001 whatever it is, the node can't run a trial
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"a task fails there: {lines[-1] if lines else type(error).__name__}"
        if answer is None:
            return None
        lacks, at = answer
        # It has answered at some time since it was asked.
        off = max(0.0, at - time.time()) - max(0.0, looked.time - at)
        if not lacks and abs(off) > _CLOCK_SECONDS:
            return f"its clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}; set it"
        if not lacks and self.parts[looked.part].look is _lacks_place:
            return self._unseen(name)
        return lacks

    def _unseen(self, name: str) -> str:
        """What is wrong with the word that a node has written into what all share; empty if nothing."""
        try:
            found = self._place.read(_word(self._known, name))
        except (OSError, StorageError):
            found = None
        if found == self._known["word"].encode():
            return ""
        return (
            f"what it writes into {_where(self._known)} does not arrive here; {_share(self._known)}"
        )


def _host(node: Mapping[str, Any]) -> str:
    """How people know a node."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


# What follows runs on a node too, which may not have this module: it is sent as code, and imports what it needs.


def _word(known: Known, of: str = "") -> str:
    """The name of the driver's word, or of what a node has written."""
    return f"{_WORD}{known['word']}{of and f'-{of}'}"


def _where(known: Known) -> str:
    """The folder or the store that all nodes have to see."""
    return str(known["store"] or known["folder"])


def _share(known: Known) -> str:
    """What to do where a node does not see the same as this machine."""
    if known["store"]:
        return "all nodes have to reach the same store, each by its own environment"
    return "the folder has to be on storage that all nodes share, under the same path"


def _timed(look: Look, known: Known) -> tuple[str, float]:
    """What a look finds on the node on which this runs, and the time of day there."""
    import time

    return look(known), time.time()


def _lacks_nothing(known: Known) -> str:
    return ""


def _lacks_program(known: Known) -> str:
    import sys

    try:
        from sweeps.engine import worker  # noqa: F401 what a trial needs
        from sweeps.engine.provenance import engine_code, program

        found = program()
        here = {"code": found["code"], "engine": engine_code(), **found["versions"]}
    except Exception as error:  # noqa: BLE001 of a package that is not there, or is broken
        return f"this program can't be imported there ({error}); install it for {sys.executable}"
    names = {"code": "the training code of tinylm", "engine": "the code of sweeps.engine"}
    for name, wanted in known["program"].items():
        pair = [here[name], wanted]
        if name == "python":  # its last number changes nothing
            same = len({one.rpartition(".")[0] for one in pair}) == 1
        else:  # torch for a CPU or for CUDA
            same = len({one.partition("+")[0] for one in pair}) == 1
        if not same:
            what = names.get(name, name)
            return f"{what} is {pair[0]} there and {wanted} here; install the same on all nodes"
    return ""


def _lacks_place(known: Known) -> str:
    from pathlib import Path

    from sweeps.engine.store import place
    from sweeps.exits import CommandError

    word = known["word"].encode()
    try:
        there = place(Path(known["folder"]), known["store"])
        if there.read(_word(known)) != word:
            return f"it does not see what this machine writes into {_where(known)}; {_share(known)}"
        there.write(_word(known, known["node"]), word)
    except CommandError as error:  # of a store
        return str(error)
    except OSError as error:
        return f"it can't read and write in {known['folder']}: {error.strerror}"
    return ""


def _lacks_room(known: Known) -> str:
    import shutil
    import tempfile
    from pathlib import Path

    # Each trial keeps two checkpoints, and writes them to the folder for temporary files first. One that is in
    # a store is read from there.
    one = known["slots"] * known["checkpoint"]
    places = [(tempfile.gettempdir(), one)]
    if not known["store"]:
        places.append((known["folder"], 2 * one))
    for folder, needs in places:
        free = shutil.disk_usage(folder).free
        if free < needs + _ROOM:
            return (
                f"{folder} has {free / 1e9:.2g} GB of room there, and checkpoints of "
                f"{known['slots']} trials need {(needs + _ROOM) / 1e9:.2g} GB; make room"
            )
    memory = Path(_MEMORY_FOLDER)
    if memory.is_dir():
        found = shutil.disk_usage(memory)
        # Where it is too small for all objects, Ray has put them elsewhere.
        if found.total >= known["objects"] and found.free < _MEMORY_ROOM:
            return (
                f"{memory} has {found.free / 1e6:.0f} MB of room there, and Ray keeps objects in it; make "
                "room, or give it more (docker run --shm-size=2g)"
            )
    return ""


def _lacks_corpora(known: Known) -> str:
    from pathlib import Path

    from tinylm import config, data

    try:
        Path(known["cache"]).mkdir(parents=True, exist_ok=True)
        for digest, tree in known["corpora"].items():
            if data.find(digest) is None:
                data.check_files(config.validate(tree, "corpus"))
    except OSError as error:
        return f"it has no folder for corpora: {known['cache']}: {error.strerror}"
    except config.ConfigError as error:
        return f"it has neither the prepared corpus in {known['cache']} nor the text: {error}"
    return ""


def _lacks_device(known: Known) -> str:
    if known["device"] != "cuda":
        return ""
    import os

    import torch

    os.environ.pop(
        "CUDA_VISIBLE_DEVICES", None
    )  # of a task without a GPU, which Ray may leave empty
    found = torch.cuda.device_count()
    if found < max(1, known["gpus"]):
        return (
            f"Ray has {known['gpus']} GPUs there, and torch {torch.__version__} finds {found} CUDA devices; "
            "install NVIDIA's driver, or torch for CUDA, or start that node with --num-gpus"
        )
    return ""


# The first begins a worker of Ray's, the second imports torch, perhaps over a network.
PARTS = (
    Part(
        _lacks_nothing, 60.0, "Ray has run no task there within 60 s; Ray's logs on it may say why"
    ),
    Part(
        _lacks_program,
        180.0,
        "it has not imported this program within 3 min; is its disk too slow?",
    ),
    Part(_lacks_place, 60.0, "it has not read and written where checkpoints are kept within 60 s"),
    Part(_lacks_room, 60.0, "it has not told how much room its disks have within 60 s"),
    Part(_lacks_corpora, 60.0, "it has not looked at the corpora within 60 s"),
    Part(_lacks_device, 60.0, "it has not told how many CUDA devices it has within 60 s"),
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])
