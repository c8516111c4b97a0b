"""Which nodes of a cluster may train: the look at each, on fake nodes, and what it finds on this one."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from stores import Storage, storage

from sweeps.engine import tune  # noqa: F401 its settings come before those of Ray

# isort: split
from sweeps.engine import preflight
from sweeps.engine.preflight import (
    AGAIN_SECONDS,
    FIRST_SECONDS,
    PARTS,
    Event,
    Known,
    Look,
    Needs,
    Nodes,
    Part,
)

NEEDS = Needs(corpora={}, device="cpu", checkpoint=1000)
PLACE = next(part for part in PARTS if part.look is preflight._lacks_place)


@dataclass
class Cluster:
    """Nodes whose tasks run in this process."""

    cpus: dict[str, float] = field(default_factory=dict)  # by node
    slow: set[str] = field(default_factory=set)  # nodes that do not answer
    dead: set[str] = field(default_factory=set)  # nodes on which tasks fail
    drained: set[str] = field(default_factory=set)  # nodes that are about to end
    idle: set[str] = field(default_factory=set)  # nodes that an autoscaler has ended
    ahead: float = 0.0  # seconds, of the clocks of all nodes
    sees: dict[str, Any] = field(default_factory=dict)  # what nodes see otherwise
    clock: float = 0.0
    begun: list[str] = field(default_factory=list)  # nodes of tasks

    def nodes(self) -> list[Mapping[str, Any]]:
        there = {"NodeManagerHostname": "host", "NodeManagerAddress": "10.0.0.1"}
        return [
            {"NodeID": name, "Resources": {"CPU": cpus}, **there}
            for name, cpus in self.cpus.items()
        ]

    def draining(self) -> set[str]:
        return self.drained

    def released(self) -> set[str]:
        return self.idle

    def start(self, node: str, look: Look, known: Known) -> tuple[str, Look, Known]:
        self.begun.append(node)
        return node, look, known

    def answer(self, task: tuple[str, Look, Known]) -> tuple[str, float] | None:
        node, look, known = task
        if node in self.dead:
            raise RuntimeError("The worker died.\n  It was killed.\n")
        if node in self.slow:
            return None
        return look({**known, **self.sees}), time.time() + self.ahead

    def wait(self, tasks: Any, seconds: float) -> None:
        self.clock += seconds

    def now(self) -> float:
        return self.clock


class Lacking:
    """A look that finds what it is told."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}  # by node

    def __call__(self, known: Known) -> str:
        return self.reasons.get(known["node"], "")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster({"a": 2.0, "b": 4.0})


@pytest.fixture
def lacks() -> Lacking:
    return Lacking()


@pytest.fixture
def nodes(tmp_path: Path, cluster: Cluster, lacks: Lacking) -> Nodes:
    """The nodes of a cluster, at each of which is looked in two parts."""
    parts = [Part(lacks, 10.0, "is late"), Part(Lacking(), 20.0, "is very late")]
    return Nodes(tmp_path, NEEDS, lambda has: int(has["CPU"]), cluster, parts)


def joined(name: str, slots: int) -> Event:
    return Event(name, "host (10.0.0.1)", "joined", slots)


def refused(name: str, reason: str) -> Event:
    return Event(name, "host (10.0.0.1)", "refused", reason=reason)


def test_nodes_that_lack_nothing_join(nodes: Nodes) -> None:
    assert nodes.first_look() == [joined("a", 2), joined("b", 4)]
    assert {name: has["CPU"] for name, has in nodes.resources().items()} == {"a": 2.0, "b": 4.0}
    assert nodes.left_out() == []


def test_a_node_that_has_joined_is_told_once(nodes: Nodes) -> None:
    nodes.first_look()
    assert nodes.look() == []


def test_a_node_that_lacks_something_is_left_out_with_the_reason(
    nodes: Nodes, lacks: Lacking
) -> None:
    lacks.reasons["a"] = "it has no torch"
    assert nodes.first_look() == [refused("a", "it has no torch"), joined("b", 4)]
    assert {name: has["CPU"] for name, has in nodes.resources().items()} == {"b": 4.0}
    assert (nodes.left_out(), nodes.has_joined("a")) == (["a"], False)


def test_a_node_on_which_tasks_fail_is_left_out(nodes: Nodes, cluster: Cluster) -> None:
    cluster.dead.add("a")
    assert nodes.first_look()[0] == refused("a", "a task fails there: It was killed.")


def test_a_node_that_was_left_out_is_looked_at_again_after_a_while(
    nodes: Nodes, cluster: Cluster, lacks: Lacking
) -> None:
    lacks.reasons["a"] = "it has no torch"
    nodes.first_look()
    lacks.reasons.clear()
    cluster.clock += AGAIN_SECONDS - 1
    assert nodes.look() == []
    cluster.clock += 1
    assert nodes.look() == [joined("a", 2)]


def test_what_a_node_still_lacks_is_not_told_again(
    nodes: Nodes, cluster: Cluster, lacks: Lacking
) -> None:
    lacks.reasons["a"] = "it has 1 GB of room"
    nodes.first_look()
    asked = cluster.begun.count("a")
    lacks.reasons["a"] = "it has 2 GB of room"
    cluster.clock += AGAIN_SECONDS
    assert nodes.look() == []
    assert cluster.begun.count("a") == asked + 1


def test_what_else_a_node_lacks_is_told(nodes: Nodes, cluster: Cluster, lacks: Lacking) -> None:
    lacks.reasons["a"] = "torch is 2.11 there and 2.13 here"
    nodes.first_look()
    lacks.reasons["a"] = "torch is 2.12 there and 2.13 here"
    cluster.clock += AGAIN_SECONDS
    assert nodes.look() == [refused("a", "torch is 2.12 there and 2.13 here")]


def test_a_slow_node_is_left_out_until_it_has_answered(nodes: Nodes, cluster: Cluster) -> None:
    cluster.slow.add("a")
    assert nodes.first_look() == [joined("b", 4), refused("a", "is late")]
    assert nodes.left_out() == ["a"]
    cluster.clock += AGAIN_SECONDS
    assert nodes.look() == []
    assert cluster.begun.count("a") == 1
    cluster.slow.clear()
    assert nodes.look() == [joined("a", 2)]


def test_each_part_of_the_look_has_its_own_time(
    tmp_path: Path, cluster: Cluster, lacks: Lacking
) -> None:
    def last_answer(known: Known) -> str:
        cluster.slow.add("a")
        return ""

    del cluster.cpus["b"]
    parts = [Part(last_answer, 10.0, "is late"), Part(lacks, 20.0, "is very late")]
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, parts)
    assert nodes.look() == []
    cluster.clock += 15
    assert nodes.look() == []
    cluster.clock += 6
    assert nodes.look() == [refused("a", "is very late")]


def test_a_session_does_not_wait_for_a_slow_node_if_another_can_train(
    tmp_path: Path, cluster: Cluster
) -> None:
    cluster.slow.add("a")
    parts = [Part(Lacking(), 10 * FIRST_SECONDS, "is late")]
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, parts)
    assert nodes.first_look() == [joined("b", 1)]
    assert cluster.clock < 2 * FIRST_SECONDS


def test_it_waits_if_no_other_can(tmp_path: Path, cluster: Cluster) -> None:
    cluster.slow |= {"a", "b"}
    parts = [Part(Lacking(), 10 * FIRST_SECONDS, "is late")]
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, parts)
    assert nodes.first_look() == [refused("a", "is late"), refused("b", "is late")]


def test_a_node_that_is_drained_is_told_and_trains_nothing_new(
    nodes: Nodes, cluster: Cluster
) -> None:
    nodes.first_look()
    cluster.drained.add("a")
    assert nodes.look() == [Event("a", "host (10.0.0.1)", "draining")]
    assert (nodes.left_out(), nodes.draining(), list(nodes.resources())) == (["a"], {"a"}, ["b"])
    del cluster.cpus["a"]
    assert nodes.look() == [Event("a", "host (10.0.0.1)", "lost")]


def test_a_node_that_joins_while_it_is_drained_is_left_out(nodes: Nodes, cluster: Cluster) -> None:
    cluster.drained.add("a")
    assert nodes.first_look() == [joined("b", 4)]
    assert nodes.left_out() == ["a"]


def test_a_node_that_is_gone_is_lost(nodes: Nodes, cluster: Cluster) -> None:
    nodes.first_look()
    del cluster.cpus["a"]
    assert nodes.look() == [Event("a", "host (10.0.0.1)", "lost")]
    assert {name: has["CPU"] for name, has in nodes.resources().items()} == {"b": 4.0}
    assert nodes.look() == []


def test_an_idle_node_that_an_autoscaler_has_ended_is_released(
    nodes: Nodes, cluster: Cluster
) -> None:
    nodes.first_look()
    cluster.idle.add("a")
    cluster.cpus.clear()
    assert {(one.node, one.state) for one in nodes.look()} == {("a", "released"), ("b", "lost")}


def test_nodes_that_lack_something_are_known_until_they_have_joined(
    nodes: Nodes, cluster: Cluster, lacks: Lacking
) -> None:
    lacks.reasons["a"] = "it has no torch"
    nodes.first_look()
    assert list(nodes.refused()) == ["a"]
    lacks.reasons.clear()
    cluster.clock += AGAIN_SECONDS
    nodes.look()
    assert list(nodes.refused()) == []


def test_a_node_that_was_left_out_is_looked_at_when_it_comes_back(
    nodes: Nodes, cluster: Cluster, lacks: Lacking
) -> None:
    """Ray gives it another id then."""
    lacks.reasons["a"] = "it has no torch"
    nodes.first_look()
    del cluster.cpus["a"]
    assert nodes.look() == []
    cluster.cpus["a2"] = 2.0
    assert nodes.look() == [joined("a2", 2)]


def test_a_node_that_runs_no_trial_is_not_looked_at(nodes: Nodes, cluster: Cluster) -> None:
    cluster.cpus["head"] = 0.0
    nodes.first_look()
    assert "head" not in cluster.begun
    assert (nodes.left_out(), nodes.has_joined("head")) == ([], False)


@pytest.mark.parametrize(("ahead", "words"), [(3600, "3600 s ahead"), (-3600, "3600 s behind")])
def test_a_node_whose_clock_is_off_is_left_out(
    nodes: Nodes, cluster: Cluster, ahead: float, words: str
) -> None:
    del cluster.cpus["b"]
    cluster.ahead = ahead
    assert nodes.first_look() == [refused("a", f"its clock is {words}; set it")]


def test_what_a_row_of_a_node_says() -> None:
    assert joined("a", 2).fields() == {
        "node": "a",
        "host": "host (10.0.0.1)",
        "state": "joined",
        "slots": 2,
    }
    assert refused("a", "is late").fields()["reason"] == "is late"
    assert {"slots", "reason"}.isdisjoint(Event("a", "host", "lost").fields())


# The sweep's folder


def test_a_node_that_shares_the_folder_joins_and_leaves_nothing_in_it(
    tmp_path: Path, cluster: Cluster
) -> None:
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, [PLACE])
    assert nodes.first_look() == [joined("a", 1), joined("b", 1)]
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_another_disk_does_not_see_the_folder(tmp_path: Path, cluster: Cluster) -> None:
    del cluster.cpus["b"]
    cluster.sees["folder"] = str(tmp_path / "other")
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, [PLACE])
    (event,) = nodes.first_look()
    assert event.reason.startswith("it does not see what this machine writes into")


def test_what_a_node_writes_has_to_arrive(tmp_path: Path, cluster: Cluster) -> None:
    """As on a disk that is copied, and not shared."""
    del cluster.cpus["b"]
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    cluster.sees["folder"] = str(there)
    cluster.slow.add("a")
    nodes = Nodes(here, NEEDS, lambda has: 1, cluster, [PLACE])
    nodes.look()
    shutil.copytree(here, there)
    cluster.slow.clear()
    (event,) = nodes.look()
    assert event.reason.startswith(f"what it writes into {here} does not arrive here")


def test_nothing_is_left_in_the_folder_by_nodes_that_never_answered(
    tmp_path: Path, cluster: Cluster
) -> None:
    cluster.slow |= {"a", "b"}
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, cluster, [PLACE])
    nodes.look()
    assert list(tmp_path.iterdir()) != []
    nodes.close()
    assert list(tmp_path.iterdir()) == []


# A store in place of the folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A store, which the environment names."""
    with storage() as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        yield one


URL = "s3://bucket/looked/rates"


def without_folder(tmp_path: Path, cluster: Cluster, *parts: Part) -> Nodes:
    return Nodes(tmp_path, replace(NEEDS, store=URL), lambda has: 1, cluster, parts or [PLACE])


def test_a_node_that_sees_the_store_joins_and_leaves_nothing_there(
    tmp_path: Path, s3: Storage, cluster: Cluster
) -> None:
    cluster.sees["folder"] = str(tmp_path / "none")
    nodes = without_folder(tmp_path, cluster, *PARTS)
    assert nodes.first_look() == [joined("a", 1), joined("b", 1)]
    assert (s3.objects(URL), list(tmp_path.iterdir())) == ([], [])


def test_a_node_that_reaches_another_store_is_left_out(
    tmp_path: Path, s3: Storage, cluster: Cluster
) -> None:
    del cluster.cpus["b"]
    cluster.sees["store"] = "s3://bucket/other/rates"
    (event,) = without_folder(tmp_path, cluster).first_look()
    assert event.reason == (
        "it does not see what this machine writes into s3://bucket/other/rates; all nodes have to reach the "
        "same store, each by its own environment"
    )


def test_a_node_whose_credentials_are_refused_is_left_out(
    tmp_path: Path, s3: Storage, cluster: Cluster
) -> None:
    del cluster.cpus["b"]
    cluster.slow.add("a")
    nodes = without_folder(tmp_path, cluster)
    nodes.look()
    cluster.slow.clear()
    s3.refuse(all_requests=True)
    (event,) = nodes.look()
    s3.refuse(all_requests=False)
    assert event.reason.startswith(f"{URL}: refused (")


# What is found on this machine


def known(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a node is told."""
    told = Nodes(folder, NEEDS, lambda has: 1, Cluster())._known
    return {**told, "node": "a", "slots": 2, "gpus": 0, "objects": 0} | changes


def test_this_machine_lacks_nothing(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, NEEDS, lambda has: 1, Cluster({"a": 1.0}))
    assert nodes.first_look() == [joined("a", 1)]


def test_another_version_is_named_on_both_sides(tmp_path: Path) -> None:
    told = known(tmp_path)
    other = told | {"program": told["program"] | {"numpy": "0.1"}}
    found = preflight._lacks_program(other)
    assert found == (
        f"numpy is {told['program']['numpy']} there and 0.1 here; install the same on all nodes"
    )


@pytest.mark.parametrize(
    ("of", "words"),
    [("code", "the training code of tinylm is"), ("engine", "the code of sweeps.engine is")],
)
def test_other_code_is_told(tmp_path: Path, of: str, words: str) -> None:
    told = known(tmp_path)
    other = told | {"program": told["program"] | {of: "0123456789ab"}}
    assert preflight._lacks_program(other).startswith(words)


def test_a_disk_without_room_for_checkpoints_is_told(tmp_path: Path) -> None:
    found = preflight._lacks_room(known(tmp_path, checkpoint=10**17))
    assert "GB of room there, and checkpoints of 2 trials need 2e+08 GB; make room" in found


def test_a_full_memory_folder_is_told_where_ray_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_MEMORY_FOLDER", str(tmp_path))
    monkeypatch.setattr(preflight, "_MEMORY_ROOM", 10**18)
    assert f"{tmp_path} has " in preflight._lacks_room(known(tmp_path, objects=1))
    assert preflight._lacks_room(known(tmp_path, objects=10**18)) == ""


def test_a_node_without_the_devices_that_ray_gives_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = preflight._lacks_device(known(tmp_path, device="cuda", gpus=99))
    assert found.startswith("Ray has 99 GPUs there, and torch ")
