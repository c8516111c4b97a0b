"""The digest of the code that trains."""

import shutil
from pathlib import Path

import pytest

import tinylm
from sweeps.engine.provenance import code

ROOT = Path(tinylm.__file__).parents[1]


def changed(folder: Path, old: str, new: str, module: str = "tinylm/optim.py") -> str:
    """The digest of the code with a change in a module."""
    for package in ("tinylm", "sweeps"):
        shutil.copytree(ROOT / package, folder / package)
    text = (folder / module).read_text()
    assert old in text
    (folder / module).write_text(text.replace(old, new, 1))
    return code(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""', '"""Other words: '), ("\nimport ", "\n# a comment\nimport ")],
    ids=["docstring", "comment"],
)
def test_what_is_written_for_people_does_not_change_the_digest(
    tmp_path: Path, old: str, new: str
) -> None:
    assert changed(tmp_path, old, new) == code()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("tinylm/optim.py", "math.cos", "math.sin"),
        ("tinylm/size.py", "6 * (c.n_layers", "7 * (c.n_layers"),
        ("sweeps/engine/worker.py", "round(step * self.job.branch)", "int(step * self.job.branch)"),
    ],
)
def test_another_program_has_another_digest(
    tmp_path: Path, module: str, old: str, new: str
) -> None:
    assert changed(tmp_path, old, new, module) != code()
