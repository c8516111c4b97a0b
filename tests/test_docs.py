"""What the docs say is there: links, commands, settings, modules, and the picture of the code."""

import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from sweeps.__main__ import COMMANDS, module_of
from sweeps.plan.space import Space
from sweeps.policies import SCHEDULES
from sweeps.report.entries import Entry
from sweeps.simulate.judge import Judgment
from tinylm import config as cfg
from tinylm.size import Size

HERE = Path(__file__).parents[1]
FOLDERS = (HERE, HERE / "docs", HERE / "docs" / "results", HERE / "results", HERE / ".github")
WRITTEN_BY_PROGRAMS = "EXPERIMENT_LOG.md"
PAGES = [
    page
    for folder in FOLDERS
    for page in sorted(folder.glob("*.md"))
    if page.name != WRITTEN_BY_PROGRAMS
]
WIDTH = 120
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return str(page.relative_to(HERE))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    text = FENCE.sub("", page.read_text())
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


LINK = re.compile(r"\]\(([^)\s]+)\)")


def links() -> list[tuple[str, str]]:
    """Every link of a page to a file or to a heading, with the page."""
    return [
        (named(page), target)
        for page in PAGES
        for target in dict.fromkeys(LINK.findall(prose(page)))
        if not target.startswith(("https://", "http://"))
    ]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading)).lower().replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize(("page", "target"), links(), ids=str)
def test_a_link_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (HERE / page).parent.joinpath(path).resolve() if path else HERE / page
    assert file.is_relative_to(HERE)
    assert file.exists()
    assert not anchor or anchor in anchors(file)


def test_a_link_without_its_heading_is_found() -> None:
    assert "early-stopping" in anchors(HERE / "README.md")
    assert "late-stopping" not in anchors(HERE / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_line_of_prose_fits_an_editor(page: Path) -> None:
    lines = [line for line in page.read_text().splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > WIDTH] == []


INLINE = re.compile(r"`([^`]+)`")
KNOWN = ("make ", "sweeps ", "python ")
TARGETS = set(re.findall(r"^([a-z-]+):", (HERE / "Makefile").read_text(), re.MULTILINE))
USAGE: Any = typer.BadParameter.__base__  # the errors of Typer in what was typed
WRONG = (AssertionError, USAGE)


def commands() -> list[tuple[str, str]]:
    """Every command of a page, in a block or in a line, with the page."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        text = page.read_text()
        blocks = [line[4:].removeprefix("$ ") for line in text.splitlines() if line[:4] == "    "]
        for line in [*blocks, *INLINE.findall(FENCE.sub("", text))]:
            if line.startswith(KNOWN) and "=.." not in line:  # a pattern of commands
                found[named(page), re.sub(r"\s+#.*|\s*\[.*", "", line)] = None
    return list(found)


def parse(command: Any, name: str, arguments: list[str], parent: Any = None) -> None:
    """Parse a command's arguments and run nothing; `WRONG` where Typer refuses them."""
    context = command.make_context(name, list(arguments), parent=parent)
    rest = [*context._protected_args, *context.args]
    if rest:  # a command of a group
        _, inner, others = command.resolve_command(context, rest)
        parse(inner, rest[0], others, context)


def check(line: str) -> None:
    """Raise where a command can't be typed: no such target, module, file, option or value."""
    match shlex.split(line):
        case ["make", *rest]:
            settings = dict(word.split("=", 1) for word in rest if "=" in word)
            targets = [word for word in rest if "=" not in word]
            assert set(targets) <= TARGETS
            assert set(settings) <= {"SPACE", "SCALE", "ARGS"}
            if targets == ["sweep"]:
                more = shlex.split(settings.get("ARGS", ""))
                check_module("sweeps.run", [settings.get("SPACE", "lr"), *more])
        case ["sweeps", name, *rest]:
            assert name in COMMANDS
            check_module(module_of(name), rest)
        case ["python", "-m", "tinylm", *rest]:
            check_module("tinylm.__main__", rest)
        case ["python", "-m", module, *rest]:
            check_module(module, rest)
        case ["python", file, *_]:
            assert (HERE / file).is_file()
        case _:
            raise AssertionError(line)


def check_module(module: str, arguments: list[str]) -> None:
    """Raise where a module has no such command line, or the paths of `--set` are none."""
    assert importlib.util.find_spec(module) is not None
    if not arguments:
        return
    app = importlib.import_module(module).app
    parse(typer.main.get_command(app), module, arguments)
    pairs = itertools.pairwise(arguments)
    changes = [value for option, value in pairs if option == "--set"]
    assert {change.partition("=")[0] for change in changes} <= {*cfg.PATHS, "PATH"}


@pytest.mark.parametrize(("page", "line"), commands(), ids=str)
def test_a_command_of_the_docs_can_be_typed(page: str, line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "make swep",
        "make sweep SPACES=lr",
        "make sweep SPACE=lr ARGS=--pln",
        "sweeps rum lr",
        "python -m sweeps.rum lr",
        "python -m sweeps.run lr --audit much",
        "python -m sweeps.run lr --set optim.lrr=1",
        "python -m sweeps.experiment lst",
        "python benchmarks/none.py",
    ],
)
def test_a_command_that_can_not_be_typed_is_found(line: str) -> None:
    with pytest.raises(WRONG):
        check(line)


SECTIONS = "|".join(cfg.Config.model_fields)
README = (HERE / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_path_of_the_config_that_a_page_names_is_one(page: Path) -> None:
    paths = re.findall(rf"[`\s]((?:{SECTIONS})\.[a-z][a-z0-9_]+)\b(?![./])", page.read_text())
    assert {path for path in paths if not path.endswith(".py")} <= set(cfg.PATHS)


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("search_spaces/*.yaml")))
def test_the_readme_names_every_shipped_space(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", [*SCHEDULES, *(path.stem for path in cfg.CONFIGS.glob("*.yaml"))])
def test_the_readme_has_a_row_for_every_policy_and_scale(name: str) -> None:
    assert f"\n| `{name}` |" in README


TESTS = "\n".join(path.read_text() for path in (HERE / "tests").rglob("test_*.py"))
NAMED = [
    (named(page), test)
    for page in PAGES
    for test in dict.fromkeys(re.findall(r"(?<![.\w])test_[a-z0-9_]+\b(?!\.py)", page.read_text()))
]


@pytest.mark.parametrize(("page", "test"), NAMED, ids=str)
def test_a_test_that_a_page_names_exists(page: str, test: str) -> None:
    assert f"def {test}(" in TESTS


PROMISES = (HERE / "docs" / "durability.md").read_text()


def test_every_promise_names_a_test() -> None:
    """A row of a table with a column of tests; `the same file` stands beside a name."""
    tables = [part for part in PROMISES.split("\n\n") if re.match(r"\|.*\| test", part)]
    rows = [row for part in tables for row in part.splitlines()[2:]]
    assert rows
    assert [row for row in rows if not re.search(r"`test_\w+`.*\|$", row)] == []


EXPORT = (HERE / "docs" / "export.md").read_text()


@pytest.mark.parametrize(
    "field", {name: 1 for one in (Entry, Size, Judgment) for name in one.__dataclass_fields__}
)
def test_the_page_on_exports_names_the_fields_that_programs_read(field: str) -> None:
    assert f"`{field}`" in EXPORT


ARCHITECTURE = HERE / "docs" / "architecture.md"
ENTRY = re.compile(r"^( *)(\S+)(?: {2,}(.+))?$")


def mapped() -> dict[str, str]:
    """The files and packages of the map of modules by their paths, with what is said of each."""
    block = FENCE.findall(ARCHITECTURE.read_text())[-1].splitlines()[1:-1]
    found: dict[str, str] = {}
    above: list[str] = []
    for line in block:
        indent, name, words = re.fullmatch(ENTRY, line).groups()  # type: ignore[union-attr]
        above = [*above[: len(indent) // 2], name]
        found["".join(above)] = words
    return found


def test_the_map_names_every_module_and_no_other() -> None:
    modules = [
        str(path.relative_to(HERE))
        for folder in ("sweeps", "tinylm")
        for path in (HERE / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    there = {*modules, *(path.name for path in HERE.glob("*.py"))}
    assert {path for path in mapped() if path.endswith(".py")} == there


def test_the_map_says_something_of_every_module() -> None:
    assert all(mapped().values())


def test_the_table_of_rows_names_every_kind_that_the_ledger_describes() -> None:
    rows = importlib.import_module("sweeps.rows")
    described = re.findall(r"^ {4}([a-z]+) {2,}\S", rows.__doc__ or "", re.MULTILINE)
    told = re.findall(r"^\| `([a-z]+)` \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert described
    assert told == described == list(rows._FIELDS)


def test_the_picture_of_the_code_is_current() -> None:
    program = "import architecture; print(architecture.draw(), end='')"
    drawn = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HERE / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (HERE / "docs" / "architecture.svg").read_text() == drawn.stdout


def test_the_pages_on_settings_are_current() -> None:
    """`make schema` writes them."""
    program = "import json, reference as r; print(json.dumps({p.name: page() for p, page in r.PAGES.items()}))"
    written = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HERE / "docs",
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=True,
    )
    pages = json.loads(written.stdout)
    assert pages == {name: (HERE / "docs" / name).read_text() for name in pages}


SETTINGS = [*cfg.PATHS, *Space.model_fields]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_says_what_it_does(setting: str) -> None:
    page = (HERE / "docs" / ("config.md" if "." in setting else "spaces.md")).read_text()
    lines = [one for one in page.splitlines() if one.startswith(f"| `{setting}` |")]
    assert lines and not [one for one in lines if one.endswith("|  |")]
