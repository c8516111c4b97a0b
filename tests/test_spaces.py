"""Every shipped space, run as a user runs it, at scale smoke."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPACES = Path("search_spaces").resolve()
RUN = [sys.executable, "-m", "sweeps.run", "--scale", "smoke"]
# A minute a trial is too long here, and so are models of a million parameters.
MORE = {
    "leaderboard": ["--set", "budget.seconds=2"],
    "architecture_joint": ["--set", "budget.tokens=8192"],
}


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
