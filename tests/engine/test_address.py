"""Which cluster an address means, and what is said of one that can't be used."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import HOST, Node, autoscaling, free_port, needs_mounts, node
from sweeping import command, run, write_space

from sweeps.engine.address import not_up, require_address
from sweeps.exits import Code, UsageError


@pytest.mark.parametrize("address", ["auto", "local", "127.0.0.1:6379", "head:6379", "[::1]:6379"])
def test_an_address_is_auto_local_or_host_and_port(address: str) -> None:
    require_address(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "cluster", ":6379", "head:", "head:port", "head:0", "head:65536", "a b:6379", ""],
)
def test_an_address_without_a_host_or_a_port_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=f"--address {address}: expected HOST:PORT, auto or local"):
        require_address(address)


def test_the_address_of_a_ray_client_is_refused_with_the_one_to_type() -> None:
    with pytest.raises(UsageError, match=r"does not run through ray://.*--address head:6379$"):
        require_address("ray://head:10001")


def test_a_ray_that_does_not_start_here_is_no_wrong_address() -> None:
    error = not_up("local", RuntimeError("The node timed out.\nMore."))
    assert str(error).splitlines() == [
        "Ray could not be started here: The node timed out.",
        "If other programs keep this machine busy, try again when it has less to do",
    ]


def test_a_cluster_that_can_not_be_joined_is_named() -> None:
    error = not_up("head:6379", RuntimeError("\nno token"))
    assert str(error) == "--address head:6379: RuntimeError: no token"


def test_a_variable_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS=ray://head:10001: expected HOST:PORT"):
        require_address("auto")


@pytest.mark.parametrize("given", ["auto", "local"])
def test_a_variable_that_names_no_cluster_is_refused_with_what_to_set(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(
        UsageError, match=rf"^RAY_ADDRESS={given}: .*; set it to HOST:PORT, or unset"
    ):
        require_address("auto")


Asked = list[str]


@pytest.fixture
def asked(tmp_path: Path, scale: Path) -> Asked:
    """The command of a sweep, without its address."""
    return command(write_space(tmp_path, {"policy": "none"}), scale, tmp_path / "rates")


def ended(asked: Asked, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """How a command ends with an address."""
    words = ["env", *(f"{name}={value}" for name, value in environment.items())]
    return run([*words, *asked, "--address", address])


def test_nothing_is_begun_where_nothing_listens(asked: Asked, tmp_path: Path) -> None:
    address = f"{HOST}:{free_port()}"
    done = ended(asked, address)
    assert (done.returncode, (tmp_path / "rates").exists()) == (Code.CLUSTER, False)
    assert done.stderr.startswith(f"--address {address}: nothing listens there"), done.stderr


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a port that accepts, and never answers."""
    with socket.create_server((HOST, 0)) as server:
        yield f"{HOST}:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.cluster
def test_a_port_that_never_answers_ends_a_command(asked: Asked, listening: str) -> None:
    done = ended(asked, listening)
    assert done.returncode == Code.CLUSTER
    assert "something listens there, but does not answer as Ray's head does" in done.stderr


def test_where_no_cluster_was_started_auto_says_so(asked: Asked, tmp_path: Path) -> None:
    done = ended(asked, "auto", RAY_TMPDIR=str(tmp_path))
    assert done.returncode == Code.CLUSTER
    assert "this machine belongs to no cluster" in done.stderr, done.stderr


def test_the_address_that_a_dead_cluster_left_is_named(asked: Asked, tmp_path: Path) -> None:
    left = tmp_path / "ray" / "ray_current_cluster"
    left.parent.mkdir()
    left.write_text(f"{HOST}:{free_port()}")
    done = ended(asked, "auto", RAY_TMPDIR=str(tmp_path))
    assert done.returncode == Code.CLUSTER
    assert f"which `ray start` left in {left}: nothing listens there" in done.stderr, done.stderr


def test_a_plan_for_a_cluster_that_does_not_answer_ends_with_8(asked: Asked) -> None:
    done = ended([*asked, "--plan"], f"{HOST}:{free_port()}")
    assert (done.returncode, "nothing listens there" in done.stderr) == (Code.CLUSTER, True)


@pytest.fixture(scope="module")
def head() -> Iterator[Node]:
    """A head with room for seven trials."""
    with node(None, "--num-cpus=7") as started:
        yield started


@pytest.mark.slow
@pytest.mark.cluster
def test_a_plan_counts_the_slots_of_the_cluster(asked: Asked, head: Node) -> None:
    done = ended([*asked, "--plan"], head.address)
    assert "7 trials at a time" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("more", [[], ["--plan"]], ids=["run", "plan"])
def test_a_cluster_without_a_node_for_a_trial_is_told_with_what_it_has(
    asked: Asked, more: list[str]
) -> None:
    space = Path(asked[3])
    space.write_text(f"{space.read_text()}resources: {{cpus: 2, memory: 1GB}}\n")
    with node(None, "--num-cpus=1", "--memory=500000000") as small:
        done = ended([*asked, *more], small.address)
    assert done.returncode == Code.CLUSTER
    assert (
        "no node has the 2 CPU and 1 GB of memory that a trial needs (the cluster has 1 node with 1 CPU and "
        "0.5 GB of memory); add one that has, with `ray start --address=HOST:PORT` there, or ask for less "
        "under `resources`"
    ) in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_a_plan_counts_on_an_autoscaler_that_has_started_no_node_yet(
    asked: Asked, tmp_path: Path
) -> None:
    with autoscaling(tmp_path, most=2, idle_seconds=60) as head:
        done = ended([*asked, "--plan", "--slots", "2"], head.address)
    assert done.returncode == Code.DONE, done.stderr
    assert "the cluster's autoscaler has to start one" in " ".join(done.stdout.split())
    assert "2 trials at a time" in done.stdout


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"RAY_AUTH_TOKEN": "another"},
            "the cluster has another token than the one in RAY_AUTH_TOKEN",
        ),
        ({"RAY_AUTH_MODE": "disabled"}, "the cluster demands a token; unset RAY_AUTH_MODE"),
    ],
    ids=["another token", "no token"],
)
def test_a_driver_without_the_token_is_told(
    asked: Asked, head: Node, setting: dict[str, str], words: str
) -> None:
    done = ended(asked, head.address, **setting)
    assert (done.returncode, words in done.stderr) == (Code.CLUSTER, True), done.stderr


@pytest.fixture(scope="module")
def open_head() -> Iterator[Node]:
    """A head that lets everybody in."""
    alone: Any = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else it listens on all interfaces
    with node(None, "--num-cpus=1", host="127.0.0.1", RAY_AUTH_MODE="disabled", **alone) as started:
        yield started


@pytest.mark.slow
@pytest.mark.cluster
def test_a_cluster_without_tokens_is_refused_before_a_trial(
    asked: Asked, open_head: Node, tmp_path: Path
) -> None:
    done = ended(asked, open_head.address)
    assert (done.returncode, (tmp_path / "rates").exists()) == (Code.CLUSTER, False)
    assert "the cluster demands no token" in done.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_a_cluster_without_tokens_is_used_if_that_is_asked_for(
    asked: Asked, open_head: Node
) -> None:
    done = ended(asked, open_head.address, RAY_AUTH_MODE="disabled")
    assert done.returncode == Code.DONE, done.stderr


# A cluster on other machines has its files there, and its nodes are none of this machine.
ELSEWHERE = 'mount -t tmpfs none "$1"; exec "${@:2}"'


@pytest.mark.slow
@pytest.mark.cluster
@needs_mounts
def test_a_machine_that_is_no_node_is_told_how_to_join(asked: Asked, tmp_path: Path) -> None:
    with node(None, "--num-cpus=1", within=ELSEWHERE) as elsewhere:
        done = ended(asked, elsewhere.address)
    assert (done.returncode, (tmp_path / "rates").exists()) == (Code.CLUSTER, False)
    assert f"ray start --address={elsewhere.address}" in done.stderr, done.stderr


def test_urls_are_no_folders(asked: Asked, tmp_path: Path) -> None:
    asked[asked.index("--out") + 1] = "az://bucket/rates"
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.glob("az*"))) == (Code.USAGE, []), done.stderr
    assert "--out az://bucket/rates: expected a folder, or s3:// or gs://" in done.stderr
