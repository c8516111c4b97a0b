"""`sweeps new`: a search space for a question, as a file that runs."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from sweeps.commands.new import app
from sweeps.plan.request import read_request

QUESTION = ["--question", "Which rate?", "--scale", "smoke"]
FILE = Path("search_spaces/rates.yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder."""
    monkeypatch.chdir(tmp_path)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rates", *QUESTION, *arguments])


def test_the_file_is_a_space_and_the_command_runs_it() -> None:
    done = ask("--vary", "optim.lr")
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        0,
        "Run: sweeps run rates --scale smoke",
    )
    space = read_request("rates", "smoke", [], 0).space
    assert (space.question, list(space.space)) == ("Which rate?", ["optim.lr"])


def test_json_has_the_space_that_was_written_and_its_commands() -> None:
    told = json.loads(ask("--vary", "optim.lr", "--json").stdout)
    run = "sweeps run rates --scale smoke"
    space = yaml.safe_load(FILE.read_text())
    assert told == {"file": str(FILE), "plan": f"{run} --plan", "run": run, "space": space}


def test_a_blank_question_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = ask("--vary", "optim.lr", "--question", " ")
    assert (done.exit_code, done.output) == (
        2,
        "--question: expected text that is not blank, got ' '\n",
    )
    assert not [*tmp_path.iterdir()]


def test_several_paths_are_a_random_search() -> None:
    ask("--vary", "optim.lr", "--vary", "model.norm=[pre, post]")
    written = yaml.safe_load(FILE.read_text())
    assert written["search"] == {"method": "random", "samples": 16}
    assert written["space"]["model.norm"] == {"choice": ["pre", "post"]}


def test_a_space_that_is_there_stays() -> None:
    FILE.parent.mkdir()
    FILE.write_text("question: mine")
    done = ask("--vary", "optim.lr")
    assert (done.exit_code, "is already there" in done.output) == (2, True), done.output
    assert FILE.read_text() == "question: mine"


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("optim.learning_rate", "did you mean 'optim.lr'?"),
        ("optim.lr=[-1.0, 2e-3]", "space.optim.lr: expected a number above 0, got -1.0"),
        ("optim.lr=grid", "a value that every trial has belongs under base"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(vary: str, said: str) -> None:
    done = ask("--vary", vary)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not FILE.exists()
