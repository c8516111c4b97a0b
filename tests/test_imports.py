"""The floors: which module may import what.

Outward, in a fresh interpreter: which packages a module loads when it is imported, and a command when
it is run. Inward, from the source: which packages of the project a module names in any import, also
inside functions.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fakes import Engine, driver, grid, v_shaped

from sweeps import ledger as led
from sweeps.__main__ import COMMANDS, module_of
from sweeps.engine import machine
from sweeps.plan.request import read_request
from tinylm.machine import keep, measured_here

FORBIDDEN = {
    "tinylm.yaml": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.files": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib", "pydantic"},
    "tinylm.config": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.texts": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.documents": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.size": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.data": {"torch", "ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.model": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.train": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.measure": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.generate": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.__main__": {"torch", "ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.exits": {
        "torch",
        "ray",
        "sweeps",
        "numpy",
        "pandas",
        "matplotlib",
        "pydantic",
        "typer",
    },
    "tinylm.options": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib", "pydantic"},
    "sweeps": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic"},
    "sweeps.api": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.exits": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic", "typer"},
    "sweeps.ledger": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic", "typer"},
    "sweeps.steering": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic", "typer"},
    "sweeps.text": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic"},
    "sweeps.plan.reading": {"torch", "ray", "pandas", "matplotlib", "optuna"},
    "sweeps.plan.space": {"torch", "ray", "pandas", "matplotlib", "optuna"},
    "sweeps.policies": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.simulate.curves": {"torch", "ray", "numpy", "pandas", "matplotlib", "scipy"},
    "sweeps.simulate.judge": {"torch", "ray", "pandas", "matplotlib", "scipy"},
    "sweeps.simulate.forecast": {"torch", "ray", "pandas", "matplotlib", "scipy"},
    "sweeps.engine.driver": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.engine.job": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic"},
    "sweeps.engine.machine": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.engine.session": {"torch", "ray", "pandas", "matplotlib", "s3fs", "botocore", "gcsfs"},
    "sweeps.engine.view": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.engine.tune": {"torch", "matplotlib"},
    "sweeps.engine.worker": {"ray", "pandas", "matplotlib"},
    "sweeps.report.log": {"torch", "ray", "matplotlib"},
    "sweeps.report.page": {"torch", "ray", "matplotlib"},
    "sweeps.report.plots": {"torch", "ray"},
    "sweeps.report.server": {"torch", "ray", "matplotlib"},
    "sweeps.report.tensorboard": {"torch", "ray"},
    "sweeps.commands.shared": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.commands.export": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.report.best": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.run": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.analyze": {"torch", "ray"},
    "sweeps.replay": {"torch", "ray", "pandas", "matplotlib", "scipy"},
    "sweeps.experiment": {"torch", "ray", "matplotlib"},
    "sweeps.watch": {"torch", "ray", "matplotlib"},
}
PROGRAM = """
import importlib, sys
before = set()
for module in sys.argv[2].split(','):
    importlib.import_module(module)
    loaded = {name.partition('.')[0] for name in sys.modules} & set(sys.argv[1].split(','))
    print(module, *sorted(loaded - before))
    before |= loaded
"""


def loaded(modules: list[str], names: set[str]) -> dict[str, set[str]]:
    """Which of the names a fresh interpreter loads with each module, when it imports one after the other."""
    command = [sys.executable, "-c", PROGRAM, ",".join(sorted(names)), ",".join(modules)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0]: set(line.split()[1:]) for line in said}


def in_turn(floors: dict[str, set[str]]) -> list[list[str]]:
    """The modules in lists, one for each interpreter. What a module of a list may load, none after it is
    forbidden to have loaded."""
    lists: list[list[str]] = []
    for module in sorted(floors, key=lambda name: -len(floors[name])):
        fits = (one for one in lists if floors[one[-1]] >= floors[module])
        found = next(fits, None)
        if found is None:
            lists.append([module])
        else:
            found.append(module)
    return lists


@pytest.fixture(scope="module")
def above() -> dict[str, set[str]]:
    """What each module loads that it must not."""
    found: dict[str, set[str]] = {}
    for modules in in_turn(FORBIDDEN):
        every = {name for module in modules for name in FORBIDDEN[module]}
        found |= loaded(modules, every)
    return {module: names & FORBIDDEN[module] for module, names in found.items()}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_keeps_to_its_floor(above: dict[str, set[str]], module: str) -> None:
    assert above[module] == set()


def test_a_module_above_its_floor_is_found() -> None:
    assert loaded(["tinylm.size", "tinylm.model"], {"torch", "ray"}) == {
        "tinylm.size": set(),
        "tinylm.model": {"torch"},
    }


# What takes long to import. Whoever asks for help, a plan or a sweep that is done waits for none of it.
HEAVY = {"torch", "ray", "scipy", "matplotlib", "pandas", "optuna", "plotly", "pyarrow", "jinja2"}
COMMAND_PROGRAM = """
import runpy, sys
heavy = set(sys.argv[1].split(','))
sys.argv = sys.argv[2:]
code = None
try:
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
except SystemExit as ended:
    code = ended.code
names = {name.partition('.')[0] for name in sys.modules}
print('\\nloaded:', code or 0, *sorted(names & heavy))
"""


def loaded_by(command: list[str], names: set[str], cache: Path, cwd: Path) -> str:
    """The exit code of a command in a fresh interpreter, and which of the names it has then loaded."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_PROGRAM, ",".join(sorted(names)), *command],
        cwd=cwd,
        env={
            **os.environ,
            "TINYLM_CACHE": str(cache),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.rpartition("loaded: ")[2].strip() or done.stderr


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space and its sweep, of which nothing is left to do, whose speed is known."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "text.txt").write_text("one two three\n" * 4000)
    base = {"data.corpus": "text", "data.path": "text.txt", "model.vocab_size": 257}
    tree = {**grid([1e-3, 2e-3], policy="none"), "base": base}
    (folder / "rates.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TINYLM_CACHE", str(folder / "cache"))
        what = read_request("rates.yaml", "smoke", [], 0)
        machine.CorpusFacts(print).corpus(what.base)
        keep("speeds", {measured_here(what.base): [1000.0, 5.5]})
        with led.Ledger(led.Files(folder / "results" / "rates-smoke")) as ledger:
            conductor = driver(ledger, what)
            conductor.begin({})
            Engine(conductor, v_shaped).run()
            text = {"text": "a", "tokens": 1, "temperature": 1.0, "top_p": 0.9, "seed": 0}
            conductor.sample([conductor.sweep.trials.values()], lambda file: [text])
            losses = {"loss": 3.0, "bits_per_byte": 1.0, "tokens": 2048, "split": "ab" * 8}
            conductor.test(conductor.sweep.trials.values(), lambda run, file: losses)
        led.write_whole(ledger.files.summary, b"")
    return folder


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_loads_neither_pydantic_nor_numpy(name: str, tmp_path: Path) -> None:
    command = [module_of(name) if name else "sweeps", "--help"]
    assert loaded_by(command, HEAVY | {"pydantic", "numpy"}, tmp_path, tmp_path) == "0"


@pytest.mark.parametrize("more", [["--plan"], []], ids=["plan", "nothing left to do"])
def test_what_trains_nothing_loads_nothing_heavy(begun: Path, more: list[str]) -> None:
    command = ["sweeps.run", "rates.yaml", "--scale", "smoke", *more]
    assert loaded_by(command, HEAVY, begun / "cache", begun) == "0"


def test_a_heavy_import_of_a_command_is_found(begun: Path) -> None:
    command = ["sweeps.analyze", "rates-smoke"]
    assert "matplotlib" in loaded_by(command, HEAVY, begun / "cache", begun).split()


# The arrows between packages: what a module may import of the project. The row with the longest
# name holds; a package may import itself; a name stands for all that is below it. No command may
# import another, also within `sweeps.commands`: what they share is in `sweeps.commands.shared`.
LOW = {"tinylm.config", "tinylm.files", "tinylm.exits", "sweeps.exits"}
WORK = {"sweeps.plan", "sweeps.policies", "sweeps.ledger"}
FINDINGS = {
    "sweeps.ledger", "sweeps.selection", "sweeps.stats", "sweeps.outcomes", "sweeps.text",
    "sweeps.plan.reading", "sweeps.plan.sections", "sweeps.plan.space",
}  # fmt: skip
ENGINE = {"sweeps.engine", "sweeps.simulate", "sweeps.text", "tinylm"}
JOB = {"sweeps.engine.job", "sweeps.ledger", "tinylm"}
PARTS = {
    "sweeps.engine.address",
    "sweeps.engine.demand",
    "sweeps.engine.failures",
    "sweeps.engine.limits",
    "sweeps.engine.reuse",
    "sweeps.engine.preflight",
    "sweeps.engine.provenance",
    "sweeps.engine.scratch",
    "sweeps.engine.sharing",
    "sweeps.engine.silence",
    "sweeps.engine.store",
}
READING = {"sweeps.findings", "sweeps.report"}
COMMAND = (
    LOW | WORK | ENGINE | READING | {"sweeps.commands.shared", "sweeps.repair", "sweeps.steering"}
)
ARROWS = {
    "tinylm": set[str](),
    "sweeps": {"sweeps.api"},  # the package's own __init__
    "sweeps.api": LOW
    | READING
    | {"sweeps.ledger", "sweeps.plan.request", "sweeps.engine", "tinylm"},
    "sweeps.exits": {"tinylm.exits", "tinylm.messages", "tinylm.streams"},
    "sweeps.text": {"tinylm.counts", "sweeps.exits"},
    "sweeps.stats": set[str](),
    "sweeps.rows": LOW | {"sweeps.stats"},
    "sweeps.ledger": LOW | {"sweeps.rows"},
    "sweeps.repair": LOW | {"sweeps.rows", "sweeps.ledger"},
    "sweeps.steering": LOW | {"sweeps.rows", "sweeps.ledger"},
    "sweeps.selection": LOW | {"sweeps.ledger", "sweeps.stats"},
    "sweeps.outcomes": LOW | {"sweeps.ledger", "sweeps.selection"},
    "sweeps.policies": LOW | {"sweeps.ledger"},
    "sweeps.plan": LOW | {"sweeps.policies", "sweeps.ledger", "sweeps.text", "tinylm"},
    "sweeps.simulate": LOW | WORK | {"sweeps.stats", "sweeps.text"},
    "sweeps.findings": LOW | FINDINGS,
    "sweeps.report": LOW
    | FINDINGS
    | {"sweeps.findings", "sweeps.simulate.judge", "sweeps.steering"},
    "sweeps.engine": LOW | WORK | ENGINE | {"sweeps.steering"},
    "sweeps.engine.driver": LOW
    | WORK
    | {"sweeps.engine.choices", "sweeps.engine.interval", "sweeps.engine.job"}
    | {"sweeps.engine.refusals", "sweeps.engine.state", "sweeps.engine.store"}
    | {"sweeps.steering"},
    "sweeps.engine.choices": LOW
    | {"sweeps.ledger", "sweeps.plan", "sweeps.selection"}
    | {"sweeps.engine.looks", "sweeps.engine.state"},
    "sweeps.engine.interval": {"sweeps.ledger"},
    "sweeps.engine.job": set[str](),
    "sweeps.engine.left": {"sweeps.ledger", "sweeps.plan"}
    | {"sweeps.engine.choices", "sweeps.engine.state"},
    "sweeps.engine.refusals": LOW | {"sweeps.ledger", "sweeps.plan.request"},
    "sweeps.engine.state": LOW | WORK | {"sweeps.selection"},
    "sweeps.engine.store": LOW | {"sweeps.ledger"},
    "sweeps.engine.looks": LOW | WORK | {"sweeps.selection", "sweeps.stats", "sweeps.outcomes"},
    "sweeps.engine.view": LOW | WORK | ENGINE | {"sweeps.selection"},
    "sweeps.engine.worker": LOW | JOB | {"sweeps.engine.limits", "sweeps.engine.store"},
    "sweeps.engine.tune": LOW
    | JOB
    | PARTS
    | {"sweeps.engine.driver", "sweeps.engine.machine", "sweeps.engine.worker"}
    | {"sweeps.plan.sections", "sweeps.text"},
    "sweeps.engine.trackers": LOW | JOB | {"sweeps.engine.tune"},
    "sweeps.commands.shared": LOW | {"sweeps.ledger", "sweeps.engine"} | READING,
    **dict.fromkeys(
        (
            *("sweeps.__main__", "sweeps.commands", "sweeps.run", "sweeps.analyze"),
            *("sweeps.replay", "sweeps.experiment", "sweeps.watch"),
        ),
        COMMAND,
    ),
}
# Packages from elsewhere that are not imported inside functions either.
NEVER = {
    "tinylm": {"ray"},
    "sweeps.policies": {"ray", "torch"},
    "sweeps.plan": {"ray", "torch"},
    "sweeps.simulate": {"ray", "torch"},
    "sweeps.findings": {"ray", "torch", "matplotlib"},
    "sweeps.report": {"ray", "torch"},
    "sweeps.engine.choices": {"ray", "torch"},
    "sweeps.engine.driver": {"ray", "torch"},
    "sweeps.engine.job": {"ray", "torch"},
    "sweeps.engine.left": {"ray", "torch"},
    "sweeps.engine.looks": {"ray", "torch"},
    "sweeps.engine.refusals": {"ray", "torch"},
    "sweeps.engine.state": {"ray", "torch"},
    "sweeps.engine.worker": {"ray"},
}
ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("tinylm", "sweeps")
    for file in sorted((ROOT / package).rglob("*.py"))
}


def row(module: str, table: dict[str, set[str]]) -> str:
    """The longest name in a table that a module is, or is below; empty if there is none."""
    return max((name for name in table if is_in(module, name)), key=len, default="")


def is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def imported(source: str) -> Iterator[str]:
    """The full name of every module that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, "relative imports are not used"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in FILES else node.module for name in names)


def against(module: str, source: str) -> set[str]:
    """The imports in the source of a module that its row does not allow."""
    names = set(imported(source))
    own = row(module, ARROWS)
    may = ARROWS[own] | ({own} - {"sweeps", "sweeps.commands"})
    inner = {name for name in names if is_in(name, "tinylm") or is_in(name, "sweeps")}
    wrong = {name for name in inner if not any(is_in(name, package) for package in may)}
    never = NEVER.get(row(module, NEVER), set())
    return wrong | {name for name in names if name.partition(".")[0] in never}


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_its_package_may(module: str) -> None:
    assert against(module, FILES[module].read_text()) == set()


@pytest.mark.parametrize("module", [name for name in FILES if name.count(".") == 1])
def test_every_module_and_package_of_the_top_level_has_a_row(module: str) -> None:
    assert is_in(module, "tinylm") or module in ARROWS


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        (
            "sweeps.engine.driver",
            "from sweeps.findings.results import at",
            "sweeps.findings.results",
        ),
        ("sweeps.engine.session", "from sweeps.report import page", "sweeps.report.page"),
        ("sweeps.engine.driver", "def f():\n    import torch", "torch"),
        ("sweeps.engine.worker", "from ray import tune", "ray"),
        ("sweeps.findings.arms", "from sweeps.plan import trials", "sweeps.plan.trials"),
        ("sweeps.plan.space", "def f():\n    from sweeps import engine", "sweeps.engine"),
        ("sweeps.ledger", "import sweeps.text", "sweeps.text"),
        ("tinylm.train", "from sweeps import ledger", "sweeps.ledger"),
        ("sweeps.watch", "from sweeps.analyze import main", "sweeps.analyze"),
        ("sweeps.commands.next", "import sweeps.commands.new", "sweeps.commands.new"),
        ("sweeps.commands.next", "from sweeps import run", "sweeps.run"),
    ],
)
def test_an_arrow_against_the_table_is_found(module: str, source: str, found: str) -> None:
    assert against(module, source) == {found}
