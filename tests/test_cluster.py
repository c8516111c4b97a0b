"""Real sweeps on Ray clusters of several nodes, as a user runs them; all nodes are on this machine."""

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import (
    ENVIRONMENT,
    HOST,
    Machine,
    Node,
    autoscaling,
    free_port,
    needs_mounts,
    node,
    two_machines,
)
from stores import KEYS, SERVER, serving
from sweeping import (
    RATES,
    STOPPING,
    command,
    count_rows,
    curves,
    process_of,
    run,
    wait_for_rows,
    write_space,
)

from sweeps import ledger as led
from sweeps import steering
from sweeps.engine.limits import usable_cpus
from sweeps.exits import Code
from tinylm import config as cfg
from tinylm import data, train

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]
# On several nodes, a minute each; `make check` leaves these to `make test-cluster`.
several = pytest.mark.system
TWO = RATES[:2]


@pytest.fixture(scope="module")
def head() -> Iterator[Node]:
    """A head that trains nothing."""
    with node(None, "--num-cpus=0") as started:
        yield started


@pytest.fixture
def asked(tmp_path: Path, scale: Path, head: Node) -> list[str]:
    """The command of a sweep of two rates on the cluster."""
    space = write_space(tmp_path, {"policy": "none"}, TWO)
    return command(space, scale, tmp_path / "rates", "--address", head.address)


@pytest.fixture
def whole(trained: dict[str, Any]) -> dict[str, Any]:
    """The curves of whole runs."""
    return dict(list(trained.items())[: len(TWO)])


def left_out(sweep: Path) -> list[str]:
    return [row["reason"] for row in node_rows(sweep) if row["state"] == "refused"]


def node_rows(sweep: Path) -> list[led.Row]:
    return [row for row in led.read(led.Files(sweep)) if row["kind"] == "node"]


# A node without this program; one that has another disk where the sweep is; one whose code is another; and one
# whose clock is an hour ahead.
NO_PROGRAM = f'mount -t tmpfs none "{ROOT}/tinylm"; exec "${{@:2}}"'
OTHER_DISK = 'mkdir -p "$SWEEP" && mount -t tmpfs none "$SWEEP"; exec "${@:2}"'
OTHER_CODE = f"""
cp -r "{ROOT}/tinylm" "$1/other" && echo "UNLIKE = 1" >> "$1/other/optim.py"
mount --bind "$1/other" "{ROOT}/tinylm"; exec "${{@:2}}"
"""
AHEAD = """
mkdir "$1/ahead"
echo "import time; real = time.time; time.time = lambda: real() + 3600" > "$1/ahead/sitecustomize.py"
PYTHONPATH="$1/ahead:$PYTHONPATH" exec "${@:2}"
"""
REASONS = [
    (NO_PROGRAM, "this program can't be imported there"),
    (OTHER_DISK, "it does not see what this machine writes into"),
    (OTHER_CODE, "the training code of tinylm is"),
    (AHEAD, "its clock is 3600 s ahead"),
]


@several
@needs_mounts
@pytest.mark.parametrize(("within", "reason"), REASONS, ids=["program", "folder", "code", "clock"])
def test_a_node_that_lacks_something_is_left_out_and_burns_no_attempt(
    tmp_path: Path, asked: list[str], head: Node, whole: Any, within: str, reason: str
) -> None:
    out = tmp_path / "rates"
    with (
        node(head, "--num-cpus=1", within=within, SWEEP=str(out)),
        node(head, "--num-cpus=1"),
    ):
        done = run(asked)
    assert (done.returncode, count_rows(out, "failed")) == (Code.DONE, 0), done.stderr
    assert [one.startswith(reason) for one in left_out(out)] == [True], left_out(out)
    assert f"{HOST}): left out: {reason}" in done.stderr
    assert curves(out) == whole
    assert not list(out.glob(".word-*"))


@several
@needs_mounts
def test_where_every_node_is_left_out_nothing_is_begun(
    tmp_path: Path, asked: list[str], head: Node
) -> None:
    with node(head, "--num-cpus=1", within=NO_PROGRAM):
        done = run(asked)
    rows = list(led.read(led.Files(tmp_path / "rates")))
    assert (done.returncode, rows) == (Code.CLUSTER, []), done.stderr
    assert "no node has the 1 CPU that a trial needs" in done.stderr
    assert "left out: this program can't be imported there" in done.stderr


@several
@needs_mounts
def test_a_node_that_joins_later_is_looked_at_too(
    tmp_path: Path, asked: list[str], head: Node
) -> None:
    out, long = tmp_path / "rates", ["--set", f"budget.tokens={65 * 100_000}"]
    with node(head, "--num-cpus=1"), subprocess.Popen([*asked, *long]) as driver:
        wait_for_rows(out, "measured", 1)
        with node(head, "--num-cpus=1", within=NO_PROGRAM):
            wait_for_rows(out, "node", 2)
        driver.terminate()
        driver.wait(900)
    assert [one[:36] for one in left_out(out)] == ["this program can't be imported there"]
    assert count_rows(out, "failed") == 0


LONG_TOKENS = 65 * 1000
LONG = ["--set", f"budget.tokens={LONG_TOKENS}"]  # trials long enough to lose their node
LONGEST = ["--set", f"budget.tokens={65 * 100_000}"]  # longer than other sweeps; somebody ends it
WAITS = "the cluster has lost all nodes that can run a trial; waiting for one to join, for up to "


@several
def test_without_a_node_for_trials_a_sweep_waits_for_one(
    tmp_path: Path, asked: list[str], head: Node
) -> None:
    out = tmp_path / "rates"
    with (
        node(head, "--num-cpus=1") as only,
        subprocess.Popen([*asked, *LONG], stderr=subprocess.PIPE, text=True) as driver,
    ):
        wait_for_rows(out, "checkpointed", 2)
        only.kill()
        assert driver.stderr is not None
        said = driver.stderr.readline()
        with node(head, "--num-cpus=1"):
            said += driver.communicate(timeout=900)[1]
    assert driver.returncode == Code.DONE, said
    assert said.splitlines() == [f"{WAITS}10 min", "a node has joined; going on"]
    started = [row for row in led.read(led.Files(out)) if row["kind"] == "started"]
    assert any(row["step"] > 0 for row in started)
    failed = [row["how"] for row in led.read(led.Files(out)) if row["kind"] == "failed"]
    assert failed == ["node"]
    assert [row["state"] for row in node_rows(out)] == ["joined", "lost", "joined"]


# The command with another time that it waits.
IMPATIENT = """
import runpy
from sweeps.engine import tune
tune.WAIT_SECONDS = 3.0
runpy.run_module("sweeps.run", run_name="__main__", alter_sys=True)
"""


@several
def test_a_sweep_that_waited_in_vain_ends_with_its_analysis(
    tmp_path: Path, asked: list[str], head: Node
) -> None:
    out = tmp_path / "rates"
    words = [asked[0], "-c", IMPATIENT, *asked[3:], *LONG]
    with (
        node(head, "--num-cpus=1") as only,
        subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as driver,
    ):
        wait_for_rows(out, "checkpointed", 2)
        only.kill()
        said = driver.communicate(timeout=900)[1]
    assert driver.returncode == Code.CLUSTER, said
    assert said.splitlines()[:2] == [
        f"{WAITS}3 s",
        "the cluster has had no node that can run a trial for 3 s",
    ]
    assert "To resume: " in said and led.Files(out).summary.exists()


def drain(head: Node, other: Node, ray_id: str) -> None:
    """Tell a cluster that a node will end, as a cloud's notice does."""
    asked = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", head.address]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    named = ["--node-id", ray_id, "--deadline-remaining-seconds", "300"]
    subprocess.run(
        [*asked, *why, *named], check=True, capture_output=True, env={**os.environ, **ENVIRONMENT}
    )


def terminate(head: Node, other: Node, ray_id: str) -> None:
    """SIGTERM to `ray start --block`, as Kubernetes ends a pod."""
    other.process.terminate()


@several
@pytest.mark.parametrize("end", [drain, terminate])
@pytest.mark.fault(
    "a node is drained, or its `ray start --block` gets SIGTERM",
    "its trial saves and goes on elsewhere from there; no attempt is lost",
)
def test_a_trial_leaves_a_node_that_is_about_to_end(
    tmp_path: Path,
    asked: list[str],
    head: Node,
    long: Any,
    end: Callable[[Node, Node, str], None],
) -> None:
    out = tmp_path / "rates"
    every = ["--set", f"run.checkpoint_every_tokens={LONG_TOKENS}"]
    with (
        node(head, "--num-cpus=1") as first,
        node(head, "--num-cpus=1"),
        subprocess.Popen([*asked, *LONG, *every], stderr=subprocess.PIPE) as driver,
    ):
        wait_for_rows(out, "started", 2)
        wait_for_rows(out, "measured", 3)
        end(head, first, node_rows(out)[0]["node"])
        said = driver.communicate(timeout=900)[1]
    rows = led.read(led.Files(out))
    assert (driver.returncode, count_rows(out, "failed")) == (Code.DONE, 0), said
    assert [row["state"] for row in node_rows(out)[:3]] == ["joined", "joined", "draining"]
    (left,) = [row for row in rows if row["kind"] == "preempted"]
    trained = [row for row in rows if row.get("trial") == left["trial"]]
    last = next(
        row for row in reversed(trained) if row["kind"] == "measured" and row["seq"] < left["seq"]
    )
    again = next(row for row in trained if row["kind"] == "started" and row["seq"] > left["seq"])
    assert (left["how"], again["step"]) == ("node", last["step"])
    assert curves(out) == {label: long[label] for label in curves(out)}


@several
@pytest.mark.fault(
    "SIGTERM to a worker alone",
    "its trial saves and goes on in another worker from there; no attempt is lost",
)
def test_a_trial_leaves_a_worker_that_is_asked_to_end(
    tmp_path: Path, asked: list[str], head: Node, long: Any
) -> None:
    out = tmp_path / "rates"
    every = ["--set", f"run.checkpoint_every_tokens={LONG_TOKENS}"]
    with (
        node(head, "--num-cpus=1"),
        subprocess.Popen([*asked, *LONG, *every], stderr=subprocess.PIPE) as driver,
    ):
        wait_for_rows(out, "measured", 3)
        first = next(row for row in led.read(led.Files(out)) if row["kind"] == "started")
        os.kill(process_of(first), signal.SIGTERM)
        said = driver.communicate(timeout=900)[1]
    assert (driver.returncode, count_rows(out, "failed")) == (Code.DONE, 0), said
    rows = [row for row in led.read(led.Files(out)) if row.get("trial") == first["trial"]]
    (left,) = [row for row in rows if row["kind"] == "preempted"]
    last = [row for row in rows if row["kind"] == "measured" and row["seq"] < left["seq"]][-1]
    again = next(row for row in rows if row["kind"] == "started" and row["seq"] > left["seq"])
    assert (left["how"], again["step"]) == ("worker", last["step"])
    assert again["worker"] != first["worker"]
    assert curves(out) == {label: long[label] for label in curves(out)}


@several
def test_a_trial_that_waits_for_another_sweep_is_not_started(
    tmp_path: Path, scale: Path, asked: list[str], head: Node, whole: Any
) -> None:
    first, out = tmp_path / "first", tmp_path / "rates"
    before = command(tmp_path / "rates.yaml", scale, first, "--address", head.address)
    with node(head, "--num-cpus=1"), subprocess.Popen([*before, *LONG]) as busy:
        wait_for_rows(first, "measured", 1)
        done = run(asked)
        assert (busy.wait(900), done.returncode) == (Code.DONE, Code.DONE), done.stderr
    assert "other jobs hold all that the cluster has (1 slot); waiting for one" in done.stdout
    ended = [row["time"] for row in led.read(led.Files(first)) if row["kind"] == "finished"]
    rows = led.read(led.Files(out))
    started = [row for row in rows if row["kind"] == "started"]
    assert len(ended) == len(started) == len(TWO)
    assert max(ended) < min(row["time"] for row in started)
    assert {row["address"] for row in started} == {HOST}
    sweep = led.fold(rows)
    assert sweep.training_seconds < sweep.seconds
    assert curves(out) == whole


@several
def test_slots_are_what_other_jobs_leave(
    tmp_path: Path, scale: Path, asked: list[str], head: Node, whole: Any
) -> None:
    first, out = tmp_path / "first", tmp_path / "rates"
    before = command(tmp_path / "rates.yaml", scale, first, "--address", head.address)
    with (
        node(head, "--num-cpus=2"),
        subprocess.Popen([*before, *LONGEST, "--slots", "1"]) as busy,
    ):
        wait_for_rows(first, "measured", 1)
        plan, done = run([*asked, "--plan"]), run([*asked, "--slots", "3"])
        busy.terminate()
        busy.wait(900)
    held = "other jobs hold 1 of 2 slots of the cluster"
    assert held in plan.stdout and "1 trial at a time" in plan.stdout, plan.stdout
    assert (done.returncode, held in done.stdout) == (Code.DONE, True), done.stderr
    assert [row["slots"] for row in led.read(led.Files(out)) if row["kind"] == "session"] == [1]
    assert curves(out) == whole


@several
def test_a_sweep_that_waits_for_another_can_be_ended(
    tmp_path: Path, scale: Path, asked: list[str], head: Node
) -> None:
    """Ray has its jobs in a queue by then; none begins."""
    first, out = tmp_path / "first", tmp_path / "rates"
    before = command(tmp_path / "rates.yaml", scale, first, "--address", head.address)
    with node(head, "--num-cpus=1"), subprocess.Popen([*before, *LONG]) as busy:
        wait_for_rows(first, "measured", 1)
        with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as waits:
            wait_for_rows(out, "planned", len(TWO))
            time.sleep(5)
            steering.ask(led.Files(out), steering.Request("end"))
            said = waits.communicate(timeout=900)[1]
        busy.terminate()
        busy.wait(900)
    assert (waits.returncode, count_rows(out, "started")) == (Code.CAPPED, 0), said


@several
def test_an_autoscaler_starts_the_nodes_that_a_sweep_can_use_and_takes_back_the_others(
    tmp_path: Path, scale: Path
) -> None:
    out, endless = tmp_path / "rates", ["--set", f"budget.tokens={65 * 1_000_000}"]
    space = write_space(
        tmp_path, {"policy": "none"}, RATES[:4]
    )  # more than it can ever have nodes for
    with autoscaling(tmp_path, most=2, idle_seconds=5) as head:
        asked = command(space, scale, out, "--address", head.address, *endless)
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as driver:
            wait_for_rows(out, "started", 2)
            kept = next(row for row in led.read(led.Files(out)) if row["kind"] == "started")
            for trial in led.fold(led.read(led.Files(out))).trials.keys() - {kept["trial"]}:
                steering.ask(led.Files(out), steering.Request("stop", trial))
            wait_for_rows(out, "node", 1, state="released")
            driver.terminate()
            said = driver.communicate(timeout=900)[0]
    states = [row["state"] for row in node_rows(out) if row["state"] != "draining"]  # for a moment
    assert (driver.returncode, states) == (143, ["joined", "joined", "released"]), said
    assert "waiting for the cluster's autoscaler to start one, for up to 10 min" in said
    assert count_rows(out, "failed") == 0


@several
@pytest.mark.fault("the head of a cluster dies", "exit code 8, with the analysis; resumes")
def test_a_lost_head_ends_a_sweep_with_its_analysis(tmp_path: Path, asked: list[str]) -> None:
    out = tmp_path / "rates"
    with node(None, "--num-cpus=1") as head:
        asked[asked.index("--address") + 1] = head.address
        with subprocess.Popen([*asked, *LONG], stderr=subprocess.PIPE, text=True) as driver:
            wait_for_rows(out, "checkpointed", 2)
            head.kill()
            said = driver.communicate(timeout=900)[1]
    assert driver.returncode == Code.CLUSTER, said
    assert f"the cluster was lost: {head.address}: nothing listens there" in said
    assert "To resume: " in said and led.Files(out).summary.exists()


@dataclass(frozen=True)
class Apart:
    """A cluster of two machines with a CPU each, and a sweep on it."""

    first: Machine
    second: Machine
    node: Node  # on the second
    asked: list[str]  # on the first
    out: Path  # the sweep's folder


@contextlib.contextmanager
def apart(scale: Path, url: str = "") -> Iterator[Apart]:
    """Two machines that share the sweep's folder; with a URL they share what that names, on the first of them, and
    the text."""
    with (
        two_machines() as (first, second),
        tempfile.TemporaryDirectory(dir="/var/tmp") as shared,
        pytest.MonkeyPatch.context() as patch,
        contextlib.ExitStack() as stack,
    ):
        patch.setenv("RAY_AUTH_TOKEN_PATH", f"{shared}/token")
        patch.setenv("TINYLM_CACHE", f"{shared}/cache")
        Path(shared, "token").touch(0o600)
        Path(shared, "token").write_text("0123456789abcdef" * 4)
        tree = yaml.safe_load(scale.read_text())
        tree["data"]["path"] = shutil.copytree(tree["data"]["path"], f"{shared}/texts")
        Path(shared, "scale.yaml").write_text(yaml.safe_dump(tree))
        space = write_space(Path(shared), {"policy": "none"}, RATES)
        out = Path(shared, "results", "rates")
        for own in (out.parent, Path(shared, "cache")):
            own.mkdir()
            if url:
                mount = second.within("mount", "-t", "tmpfs", "none", str(own))
                subprocess.run(mount, check=True)
        if url:
            for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{first.address}:5000"}.items():
                patch.setenv(name, value)
            stack.enter_context(serving(first.within(*SERVER, first.address, "5000")))
        with (
            node(None, "--num-cpus=1", on=first) as head,
            node(head, "--num-cpus=1", on=second) as other,
        ):
            scale, to = Path(shared, "scale.yaml"), ("--address", head.address)
            words = command(space, scale, url or out, *to)
            there = ["bash", "-c", 'cd "$1" && exec "${@:2}"', "bash", shared]
            yield Apart(first, second, other, first.within(*there, *words), out)


def trained_at(out: Path) -> set[str]:
    rows = led.read(led.Files(out))
    return {row["address"] for row in rows if row["kind"] == "started"}


@several
def test_two_machines_that_share_a_disk_alone_train_a_sweep(scale: Path, trained: Any) -> None:
    with apart(scale) as on:
        done = run(on.asked)
        assert done.returncode == Code.DONE, done.stderr
        both = {on.first.address, on.second.address}
        assert (curves(on.out), trained_at(on.out)) == (trained, both)


@pytest.fixture(scope="module")
def long(scale: Path) -> dict[str, Any]:
    """The curves of longer trials, trained without a sweep."""
    config = cfg.overlay(cfg.load(str(scale)), {"budget.tokens": LONG_TOKENS})
    found = {}
    for rate in RATES:
        one = cfg.overlay(config, {"optim.lr": rate})
        records = train.train(train.start(one), data.prepare(one), one)
        found[f"lr={rate:.4g}"] = [(r.step, r.train_loss, r.val_loss) for r in records]
    return found


@contextlib.contextmanager
def trains_on_the_second(on: Apart) -> Iterator[subprocess.Popen[str]]:
    """The driver of a sweep whose second machine has trained and saved."""
    with subprocess.Popen([*on.asked, *LONG], stderr=subprocess.PIPE, text=True) as driver:
        while not has_saved(on.out, on.second.address):
            assert driver.poll() is None
            time.sleep(0.1)
        yield driver


def has_saved(out: Path, address: str) -> bool:
    """Whether a machine has saved a trial."""
    rows = led.read(led.Files(out))
    there = {row["trial"] for row in rows if row.get("address") == address}
    return any(row["kind"] == "checkpointed" and row["trial"] in there for row in rows)


def cut(on: Apart, seconds: float) -> tuple[int, str]:
    """Run a sweep, and cut the second machine off for so long; exit code and output."""
    with trains_on_the_second(on) as driver:
        on.second.wire("down")
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(seconds)
        on.second.wire("up")
        said = driver.communicate(timeout=900)[1]
    return driver.returncode, said


@several
@pytest.mark.fault("the wire to a machine is cut for 5 s", "no attempt is lost; the same curves")
def test_a_wire_that_is_cut_for_a_while_loses_nothing(scale: Path, long: Any) -> None:
    with apart(scale) as on:
        code, said = cut(on, 5)
        assert (code, curves(on.out), count_rows(on.out, "failed")) == (Code.DONE, long, 0), said


@several
@pytest.mark.fault(
    "the wire to a machine is cut for good", "its trial goes on elsewhere; the same curve"
)
def test_a_machine_that_is_cut_off_is_lost_and_its_trial_goes_on(scale: Path, long: Any) -> None:
    with apart(scale) as on:
        code, said = cut(on, 900)
        assert (code, curves(on.out)) == (Code.DONE, long), said
        assert [row["state"] for row in node_rows(on.out)] == ["joined", "joined", "lost"]


@several
@pytest.mark.fault(
    "a node dies, of a cluster without a shared folder and with a store",
    "its trial goes on elsewhere from the store; the same curve",
)
def test_a_trial_of_a_lost_node_goes_on_from_the_store(scale: Path, long: Any) -> None:
    with apart(scale, "s3://bucket/rates") as on:
        with trains_on_the_second(on) as driver:
            on.node.kill()
            said = driver.communicate(timeout=900)[1]
        rows = led.read(led.Files(on.out))
        assert (driver.returncode, curves(on.out)) == (Code.DONE, long), said
        assert [row["state"] for row in node_rows(on.out)] == ["joined", "joined", "lost"]
        started = [row for row in rows if row["kind"] == "started"]
        lost = [row["trial"] for row in started if row["address"] == on.second.address][-1]
        last = [row for row in started if row["trial"] == lost][-1]
        assert (last["step"] > 0, last["address"]) == (True, on.first.address)
        assert list(Path(f"/proc/{on.second.process}/root{on.out.parent}").iterdir()) == []


SIX = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]


def test_six_trials_share_four_declared_gpus(tmp_path: Path, scale: Path) -> None:
    """Never two at a time on one device, and what is promoted goes on where one is free."""
    out, space = tmp_path / "rates", write_space(tmp_path, STOPPING, SIX)
    space.write_text(f"{space.read_text()}resources: {{cpus: 0.25, gpus: 1}}\n")
    # So that four workers have come up before six trials have ended.
    every = dict.fromkeys(("eval.every_tokens", "run.checkpoint_every_tokens"), 65 * 150)
    sizes = {"budget.tokens": 65 * 2400, **every}
    long = [part for name in sizes for part in ("--set", f"{name}={sizes[name]}")]
    done = run(command(space, scale, out, "--gpus", "4", *long))
    rows = led.read(led.Files(out))
    assert done.returncode == Code.DONE, done.stderr
    assert [row["slots"] for row in rows if row["kind"] == "session"] == [4]
    holders: dict[str, str] = {}  # device -> trial that trains on it
    used = set()
    for row in rows:
        if row["kind"] == "measured":
            used.add(row["device"])
            assert holders.setdefault(row["device"], row["trial"]) == row["trial"]
        elif led.ends_attempt(row):
            holders = {device: trial for device, trial in holders.items() if trial != row["trial"]}
    assert used == {"GPU 0", "GPU 1", "GPU 2", "GPU 3"}
    started = [row["trial"] for row in rows if row["kind"] == "started"]
    assert len(started) > len(set(started)) == len(SIX)  # some were promoted


def recipe() -> list[str]:
    """The commands of the README: on the first machine, on the others, and on one of them."""
    text = (ROOT / "README.md").read_text()
    section = text.partition("### More than one machine\n")[2].partition("\n##")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


@contextlib.contextmanager
def machines() -> Iterator[Path]:
    """A folder for the files of Ray nodes that go on after their command; they are killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        yield folder
    finally:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                if f"{folder}/ray".encode() in file.read_bytes():
                    os.kill(int(file.parent.name), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@several
def test_the_commands_of_the_readme_join_two_machines(tmp_path: Path) -> None:
    """Each has a home of its own, and both are this machine."""
    head, port = tmp_path / "head", str(free_port())
    own = {
        "HEAD:.ray": f"{head}/.ray",
        "scp ": "cp ",
        "HEAD": HOST,
        "6379": port,
        "/shared": str(tmp_path / "shared"),
        "sweeps run lr": f"'{sys.executable}' -m sweeps.run lr --scale smoke",
    }
    outer = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with machines() as folder:
        for name, script in zip(("head", "other", "other"), recipe(), strict=True):
            home = tmp_path / name
            home.mkdir(exist_ok=True)
            typed = functools.reduce(lambda text, pair: text.replace(*pair), own.items(), script)
            done = subprocess.run(
                ["bash", "-e", "-c", typed],
                env={**outer, "PATH": path, "HOME": str(home), "RAY_TMPDIR": str(folder)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    rows = led.read(led.Files(tmp_path / "shared" / "results" / "lr"))
    assert [row["slots"] for row in rows if row["kind"] == "session"] == [2 * int(usable_cpus())]
