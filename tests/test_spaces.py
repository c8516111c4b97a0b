"""Every shipped space, run as a user runs it, at scale smoke."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SPACES = Path("search_spaces").resolve()
RUN = [sys.executable, "-m", "sweeps.run", "--scale", "smoke"]
MORE = {"leaderboard": ["--set", "budget.seconds=2"]}  # a minute a trial is too long here


HEAD = """
from sweeps.engine.tune import cluster, ray
from sweeps.plan.space import Resources
with cluster("local", Resources(), None):
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray that the sweeps share: to start one takes as long as half of them."""
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        yield head.stdout.readline().strip()
        head.communicate("\n", timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in SPACES.glob("*.yaml")))
def test_a_shipped_space_runs_to_its_end(tmp_path: Path, address: str, name: str) -> None:
    (tmp_path / "search_spaces").symlink_to(SPACES)
    done = subprocess.run(
        [*RUN, name, "--address", address, *MORE.get(name, [])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SPACES.parent)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    summary = tmp_path / "results" / f"{name}-smoke" / "analysis" / "summary.json"
    found = json.loads(summary.read_text())
    assert found["trials"]["unfinished"] == 0
