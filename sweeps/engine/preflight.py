"""A look at each node of a running cluster before it trains: whether it has this program, the sweep's folder and
the corpora.

A node that lacks something is left out, so that no attempt at a trial is spent on it. Import
`sweeps.engine.tune` before this module: it makes the settings that Ray reads.
"""

import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.engine.provenance import program
from tinylm.data import cache_folder

ANSWER_SECONDS = 60.0  # in which a node has to answer; its first worker may have to start
_CLOCK_SECONDS = 60.0  # by which the clock of a node may differ from this machine's

Corpora = Mapping[str, Mapping[str, Any]]  # digest -> a config with that corpus


@dataclass(frozen=True)
class Refusal:
    """A node that is left out, and why."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host}: left out: {self.reason}"


@dataclass(frozen=True)
class _Asked:
    """A task that looks at a node."""

    task: Any
    since: float  # seconds, by the monotonic clock
    time: float  # the same, by the time of day


@dataclass
class Nodes:
    """The nodes of a cluster that may train trials of the sweep in a folder."""

    folder: Path
    corpora: Corpora
    refused: dict[str, Refusal] = field(default_factory=dict)  # by Ray's id of a node
    _good: set[str] = field(default_factory=set)
    _asked: dict[str, "_Asked"] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict)  # what is sent to each node

    def __post_init__(self) -> None:
        here = program()
        self._known = {
            "program": {"code": here["code"], **here["versions"]},
            "folder": str(self.folder.resolve()),
            "word": secrets.token_hex(8),
            "cache": str(cache_folder().resolve()),
            "corpora": {digest: dict(config) for digest, config in self.corpora.items()},
        }

    def alive(self) -> list[dict[str, float]]:
        """The resources of each node that is alive and lacks nothing."""
        return [node["Resources"] for node in _alive() if node["NodeID"] in self._good]

    def look(self, seconds: float = 0.0) -> list[Refusal]:
        """Ask the nodes that are new, and wait so long for answers; the nodes that are refused since the last
        call."""
        nodes = {node["NodeID"]: node for node in _alive()}
        file = self.folder / f".word-{self._known['word']}"
        new = nodes.keys() - self._good - self.refused.keys() - self._asked.keys()
        if new:
            file.write_text(self._known["word"])
        for name in new:
            self._asked[name] = _Asked(_ask(name, self._known), time.monotonic(), time.time())
        tasks = [asked.task for asked in self._asked.values()]
        ready = set(ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[0]) if tasks else set()
        found = []
        for name, asked in list(self._asked.items()):
            late = time.monotonic() - asked.since > ANSWER_SECONDS
            if asked.task in ready or late or name not in nodes:
                del self._asked[name]
            if name in nodes and (asked.task in ready or late):
                reason = self._answer(asked) if asked.task in ready else _LATE
                if reason:
                    self.refused[name] = Refusal(_host(nodes[name]), reason)
                    found.append(self.refused[name])
                else:
                    self._good.add(name)
        if not self._asked:
            file.unlink(missing_ok=True)
        return found

    def unchecked(self) -> set[str]:
        """Ray's ids of the nodes that are refused, or have not answered yet."""
        return self.refused.keys() | self._asked.keys()

    def _answer(self, asked: "_Asked") -> str:
        """What a node lacks by its answer; empty if it lacks nothing."""
        try:
            answer = ray.get(asked.task)
        except Exception as error:  # noqa: BLE001 whatever it is, the node can't run a trial
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"a task fails there: {lines[-1] if lines else type(error).__name__}"
        written = self.folder / answer["file"]
        try:
            same = written.read_text() == self._known["word"]
            written.unlink()
        except OSError:
            same = False
        if answer["lacks"]:
            return str(answer["lacks"])
        # It has answered at some time since it was asked.
        off = max(0.0, answer["time"] - time.time()) - max(0.0, asked.time - answer["time"])
        if not same:
            return _SHARED.format(folder=self._known["folder"])
        if abs(off) > _CLOCK_SECONDS:
            return f"its clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}; set it"
        return ""


_LATE = f"it has not answered within {ANSWER_SECONDS:.0f} s; Ray's logs on it may say why"
_SHARED = (
    "what it writes into {folder} does not arrive here; the folder has to be on storage that all nodes "
    "share, under the same path"
)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _host(node: Mapping[str, Any]) -> str:
    """How people know a node."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _ask(node: str, known: Mapping[str, Any]) -> Any:
    """A task on a node that looks at what it has."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return ray.remote(_look).options(**options).remote(dict(known), node)


# What follows runs on a node, which may not have this module: it is sent as code, and imports what it needs.


def _look(known: dict[str, Any], node: str) -> dict[str, Any]:
    """What the node on which this runs lacks of what is known here (empty if nothing), its time, and the file that
    it has written into the sweep's folder."""
    import time

    written = f".word-{known['word']}-{node}"
    lacks = _lacks_program(known) or _lacks_folder(known, written) or _lacks_corpora(known)
    return {"lacks": lacks, "file": written, "time": time.time()}


def _lacks_program(known: dict[str, Any]) -> str:
    import sys

    try:
        from sweeps.engine import worker  # noqa: F401 what a trial needs
        from sweeps.engine.provenance import program

        found = program()
    except Exception as error:  # noqa: BLE001 of a package that is not there, or is broken
        return f"this program can't be imported there ({error}); install it for {sys.executable}"
    here = {"code": found["code"], **found["versions"]}
    for name, wanted in known["program"].items():
        pair = [here[name], wanted]
        if name == "python":  # its last number changes nothing
            same = len({one.rpartition(".")[0] for one in pair}) == 1
        else:  # torch for a CPU or for CUDA
            same = len({one.partition("+")[0] for one in pair}) == 1
        if not same:
            what = "the training code of tinylm" if name == "code" else name
            return f"{what} is {pair[0]} there and {wanted} here; install the same on all nodes"
    return ""


def _lacks_folder(known: dict[str, Any], written: str) -> str:
    from pathlib import Path

    folder, word = Path(known["folder"]), known["word"]
    try:
        seen = (folder / f".word-{word}").read_text() == word
    except OSError:
        seen = False
    if not seen:
        return (
            f"it does not see what this machine writes into {folder}; the folder has to be on storage that "
            "all nodes share, under the same path"
        )
    try:
        (folder / written).write_text(word)
    except OSError as error:
        return f"it can't write into {folder}: {error.strerror}"
    return ""


def _lacks_corpora(known: dict[str, Any]) -> str:
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


cloudpickle.register_pickle_by_value(sys.modules[__name__])
