"""The digest of the code that trains."""

import shutil
from pathlib import Path

import pytest

import tinylm
from sweeps.engine.provenance import code

CODE = Path(tinylm.__file__).parent


def changed(folder: Path, old: str, new: str) -> str:
    """The digest of the code with a change in tinylm/optim.py."""
    copy = folder / "tinylm"
    shutil.copytree(CODE, copy)
    text = (copy / "optim.py").read_text()
    assert old in text
    (copy / "optim.py").write_text(text.replace(old, new, 1))
    return code(copy)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""', '"""Other words: '), ("\nimport ", "\n# a comment\nimport ")],
    ids=["docstring", "comment"],
)
def test_what_is_written_for_people_does_not_change_the_digest(
    tmp_path: Path, old: str, new: str
) -> None:
    assert changed(tmp_path, old, new) == code()


def test_another_program_has_another_digest(tmp_path: Path) -> None:
    assert changed(tmp_path, "math.cos", "math.sin") != code()
