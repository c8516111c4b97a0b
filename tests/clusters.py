"""Real Ray clusters, on the loopback address or on networks of their own, started as a user starts them."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from sweeping import descendants

HOST = "127.0.0.2"  # 127.0.0.1 is replaced by Ray where a node joins
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}


# A namespace in which this user may mount file systems.
OWN_MOUNTS = ["unshare", "--map-root-user", "--mount", "bash", "-c"]


def can_mount() -> bool:
    """Whether a small file system can be mounted here, for a process alone."""
    asked = [*OWN_MOUNTS, "mount -t tmpfs -o size=1m none /tmp"]
    try:
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="file systems can't be mounted here")


# Temporary files of its own.
OWN_FILES = (
    "mount -t tmpfs none /tmp && mount -t tmpfs none /dev/shm && echo ready && exec sleep infinity"
)


@dataclass(frozen=True)
class Machine:
    """A network with an address and a wire, and temporary files: all that two machines don't share but for their
    disk and, unless it has its own, the list of their processes."""

    process: int  # which keeps it
    address: str
    has_processes: bool = False

    def within(self, *words: str) -> list[str]:
        """A command on this machine."""
        listed = [f"--pid=/proc/{self.process}/ns/pid_for_children"] if self.has_processes else []
        return ["nsenter", f"--target={self.process}", *listed, "--mount", "--net", *words]

    def ip(self, *words: str) -> None:
        """Set up its network."""
        asked = ["nsenter", f"--target={self.process}", "--net", "ip", *words]
        subprocess.run(asked, check=True, capture_output=True)

    def wire(self, state: Literal["up", "down"]) -> None:
        """Cut or mend the wire, of which both ends hear nothing."""
        self.ip("link", "set", "wire", state)


@contextlib.contextmanager
def machine(address: str, has_processes: bool = False) -> Iterator[Machine]:
    """A machine without a wire; the test is skipped where none can be made."""
    if Path(sys.executable).is_relative_to("/tmp"):
        pytest.skip("a machine has a /tmp of its own, and Python lies below that of this one")
    listed = ["--pid", "--fork", "--kill-child", "--mount-proc"] if has_processes else []
    asked = ["unshare", "--net", "--mount", *listed, "bash", "-c", OWN_FILES]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as keeper:
        assert keeper.stdout is not None
        if not keeper.stdout.readline():
            pytest.skip("networks can't be made here")
        try:
            yield Machine(keeper.pid, address, has_processes)
        finally:
            keeper.kill()


@contextlib.contextmanager
def two_machines(has_processes: bool = False) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a wire between them."""
    with (
        machine("10.99.0.1", has_processes) as first,
        machine("10.99.0.2", has_processes) as second,
    ):
        pair = ["type", "veth", "peer", "name", "wire", "netns", str(second.process)]
        first.ip("link", "add", "wire", *pair)
        for one, other in ((first, second), (second, first)):
            one.ip("address", "add", f"{one.address}/24", "dev", "wire")
            one.ip("link", "set", "lo", "up")
            one.wire("up")
            one.ip("route", "add", "default", "via", other.address)
        yield first, second


@dataclass
class Node:
    """A node of a cluster: `ray start`, which runs until it is stopped."""

    process: subprocess.Popen[bytes]
    address: str  # HOST:PORT of the head
    folder: Path  # of Ray's files

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        for one in reversed(descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self.process.wait()


def free_port(host: str = HOST) -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def node(
    head: Node | None = None,
    *more: str,
    within: str = "",
    host: str = HOST,
    on: Machine | None = None,
    port: int | None = None,
    **environment: str,
) -> Iterator[Node]:
    """A node while the context lasts: of the cluster of a head, or a head, on this machine or another, at a port
    or any. A script may mount things `within` which it runs; `$1` is its folder, and the rest its command."""
    if shlex.quote(sys.executable) != sys.executable:
        pytest.skip("`ray start` can't start workers of a Python whose path a shell has to quote")
    # The paths of Ray's sockets have to be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    host, port = (on.address, 6379) if on else (host, port or free_port(host))
    address = head.address if head else f"{host}:{port}"
    asked = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
    ]
    if head:
        asked += [f"--address={address}", f"--node-ip-address={host}", *more]
    else:
        asked += ["--head", f"--node-ip-address={host}", f"--port={address.partition(':')[2]}"]
        asked += [f"--temp-dir={folder}", "--include-dashboard=false", *more]
    said = folder.with_suffix(".said")
    if within:
        asked = [*OWN_MOUNTS, within, "bash", str(folder), *asked]
    if on:
        on_it = 'mkdir -p "$1" && cd "$1" && exec "${@:2}"'
        asked = on.within("bash", "-c", on_it, "bash", str(folder), *asked)
    with said.open("wb") as stream:
        # Without the settings that a sweep of this process has made for a Ray of its own.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or "AUTH" in k}
        environment = {**ours, **ENVIRONMENT, "RAY_TMPDIR": str(folder), **environment}
        process = subprocess.Popen(
            asked, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield Node(process, address, folder)
    finally:
        started = Node(process, address, folder)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        started.kill()
        shutil.rmtree(folder, ignore_errors=True)
        said.unlink()


_FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_HEAD, _HEAD_ID = "ray.head.default", "f" * 51 + "00000"  # as that provider calls the head
_COMMANDS = ["initialization_commands", "setup_commands", "head_setup_commands"]
_COMMANDS += ["worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"]


@contextlib.contextmanager
def autoscaling(folder: Path, most: int, idle_seconds: float) -> Iterator[Node]:
    """A head that trains nothing, with Ray's autoscaler, which starts up to so many nodes with a CPU each, here, and
    ends those that are idle for so long.

    Not by `ray.cluster_utils.AutoscalingCluster`: that ends all of Ray on the machine first, and Ray's wheel
    lacks a file of its provider.
    """
    port = free_port()
    provider: dict[str, Any] = {
        "type": "external",
        "module": _FAKE,
        "gcs_address": f"{HOST}:{port}",
    }
    provider |= {"head_node_id": _HEAD_ID, "launch_multiple": True, "disable_node_updaters": True}
    scaled = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": most}
    tree = {
        "cluster_name": "sweeps",
        "max_workers": most,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": provider,
        "head_node_type": _HEAD,
        "available_node_types": {
            _HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "trials": scaled,
        },
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in (*_COMMANDS, "cluster_synced_files", "rsync_exclude")},
        "rsync_filter": [],
        "file_mounts_sync_continuously": False,
    }
    file = folder / "autoscaler.json"
    file.write_text(json.dumps(tree))
    settings: dict[str, Any] = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    }
    given = ["--num-cpus=0", f"--autoscaling-config={file}"]
    with node(None, *given, port=port, **settings) as head:
        try:
            yield head
        finally:
            # The autoscaler's nodes are its children, which outlive it.
            started = descendants(head.process.pid)
            head.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.process.wait(20)
            for one in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
