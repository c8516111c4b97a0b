"""The one command, and the project as it is installed: from a wheel, in an empty folder, beside others."""

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.__main__ import COMMANDS, app, module_of

HERE = Path(__file__).parents[1]
PACKED = ("sweeps", "tinylm", "search_spaces")
FILES = ("tinylm_sweeps.py", "pyproject.toml", "README.md", "LICENSE")


def python(
    *command: str, cwd: Path, path: tuple[Path, ...] = (HERE,)
) -> subprocess.CompletedProcess[str]:
    """What Python does in a folder, with the folders of `path` before those of the environment."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this tree is installed."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("target")
    for name in PACKED:
        shutil.copytree(
            HERE / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(HERE / name, tree)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    built = python("-c", build, cwd=tree, path=())
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tree.glob("tinylm_sweeps-*.whl"))) as wheel:
        wheel.extractall(target)  # which is how a wheel is installed
    return target


@pytest.mark.xdist_group("wheel")
def test_a_wheel_has_every_module(installed: Path) -> None:
    there = {path.relative_to(HERE) for name in PACKED[:2] for path in HERE.glob(f"{name}/**/*.py")}
    found = {path.relative_to(installed) for path in installed.glob("*/**/*.py")}
    assert {str(path) for path in there - found} == set()


@pytest.mark.xdist_group("wheel")
def test_a_wheel_has_the_files_that_its_code_reads(installed: Path) -> None:
    kinds = {".yaml", ".j2", ".css", ".js", ".typed"}
    there = {path.name for name in PACKED for path in (HERE / name).rglob("*.*")}
    found = {path.name for name in PACKED[:2] for path in (installed / name).rglob("*.*")}
    assert {name for name in there - found if Path(name).suffix in kinds} == set()


@pytest.mark.xdist_group("wheel")
def test_an_installed_command_finds_its_spaces_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    plan = ("run", "seeds", "--scale", "smoke", "--set", "optim.lrr=1", "--plan")
    done = python("-m", "sweeps", *plan, cwd=tmp_path, path=(installed,))
    assert (done.returncode, done.stderr) == (
        2,
        f"{installed}/sweeps/search_spaces/seeds.yaml with --set: optim.lrr: unknown path; "
        "did you mean 'optim.lr'?\n",
    )


def test_a_space_in_the_current_folder_comes_before_the_installed_one(tmp_path: Path) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "lr.yaml").write_text("serch: 1\n")
    done = python("-m", "sweeps.run", "lr", "--scale", "smoke", cwd=tmp_path)
    assert done.stderr.startswith("search_spaces/lr.yaml: ")


def test_the_script_runs_the_one_command(tmp_path: Path) -> None:
    done = python("-m", "tinylm_sweeps", "analyze", "nope", cwd=tmp_path)
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "nope")


@pytest.mark.parametrize("kind", ["regular", "namespace"])
def test_the_script_names_a_package_that_shadows_ours(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other" / "sweeps"
    other.mkdir(parents=True)
    if kind == "regular":
        (other / "__init__.py").write_text("raise AssertionError('imported')\n")
    script = str(shutil.copy(HERE / "tinylm_sweeps.py", tmp_path / "elsewhere.py"))
    done = python(script, "run", "lr", cwd=tmp_path, path=(tmp_path / "other",))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{other}" in done.stderr


HEAVY = {"matplotlib", "numpy", "pandas", "ray", "scipy", "torch"}
IMPORTED = """
import sys
from typer.testing import CliRunner
from sweeps.__main__ import COMMANDS, app, module_of
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
heavy = set(sys.argv[1:]) | {module_of(name) for name in COMMANDS}
print(sorted(heavy & set(sys.modules)))
"""


def test_help_of_the_one_command_imports_no_command(tmp_path: Path) -> None:
    assert python("-c", IMPORTED, *sorted(HEAVY), cwd=tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_same_under_both_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweeps", name, "--nope"])
    one = CliRunner().invoke(app, [name, "--nope"], prog_name="sweeps")
    module = importlib.import_module(module_of(name))
    other = CliRunner().invoke(module.app, ["--nope"], prog_name=f"sweeps {name}")
    assert (one.exit_code, one.stderr) == (2, other.stderr)


ARGUMENTS = """
import sys
from sweeps import run
from sweeps.__main__ import app
run.app = lambda prog_name: print(prog_name, sys.argv[1:])
app(["run", "lr", "--set", "optim.lr=1", "--plan"], prog_name="sweeps")
"""


def test_a_command_sees_the_arguments_that_python_m_gives_it(tmp_path: Path) -> None:
    seen = "sweeps run ['lr', '--set', 'optim.lr=1', '--plan']\n"
    assert python("-c", ARGUMENTS, cwd=tmp_path).stdout == seen


COMMIT = "from sweeps.engine.provenance import describe; print(describe('cpu')['commit'])"


def test_the_commit_of_a_repository_around_an_installation_is_not_ours(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    for package in ("sweeps", "tinylm"):
        shutil.copytree(HERE / package, tmp_path / package)
    done = python("-c", COMMIT, cwd=tmp_path, path=(tmp_path,))
    assert done.stdout == "None\n"
