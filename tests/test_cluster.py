"""Real sweeps on Ray clusters of several nodes, as a user runs them; all nodes are on this machine."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import HOST, Node, needs_mounts, node
from sweeping import RATES, command, count_rows, curves, run, wait_for_rows, write_space

from sweeps import ledger as led
from sweeps.exits import Code

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]
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
    return [row["reason"] for row in led.read(led.Files(sweep)) if row["kind"] == "node"]


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


@needs_mounts
def test_a_node_that_joins_later_is_looked_at_too(
    tmp_path: Path, asked: list[str], head: Node
) -> None:
    out, long = tmp_path / "rates", ["--set", f"budget.tokens={65 * 100_000}"]
    with node(head, "--num-cpus=1"), subprocess.Popen([*asked, *long]) as driver:
        wait_for_rows(out, "measured", 1)
        with node(head, "--num-cpus=1", within=NO_PROGRAM):
            wait_for_rows(out, "node", 1)
        driver.terminate()
        driver.wait(900)
    assert [one[:36] for one in left_out(out)] == ["this program can't be imported there"]
    assert count_rows(out, "failed") == 0
