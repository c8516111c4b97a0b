"""Named experiments: one config each, entered in the log and compared with the baseline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conducting import conduct, study
from ledgers import BUDGET, EVERY, story
from typer.testing import CliRunner, Result

from sweeps import experiment
from sweeps.text import duration
from tinylm import config as cfg


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of the working directory, not created yet."""
    monkeypatch.chdir(tmp_path)
    return Path("results")


def single(results: Path, name: str, lr: float, plus: float = 0.0, corpus: str = "c" * 16) -> None:
    """Write an experiment of one config, whose losses are those of the rate, plus a constant."""
    with story(results / name) as tell:
        tell.ask({}, f"Why {name}?")
        trial = tell.plan({}, corpus=corpus)
        tell.start(trial)
        tell.train(trial, lr, 1, BUDGET // EVERY, plus)
        tell.finish(trial)


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(experiment.app, arguments)


def test_a_named_experiment_is_compared_with_the_named_baseline(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "longer", 2e-3, plus=0.33)
    said = run("show", "longer").output
    assert "Why longer?" in said
    assert "+10.00% validation loss (one seed: no interval)" in said


def test_losses_on_another_corpus_are_not_compared(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "other", 2e-3, corpus="d" * 16)
    assert "to baseline" not in run("show", "other").output


def test_list_has_a_line_for_every_experiment(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "wide", 4e-3)
    lines = run("list").output.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "baseline_17m", "wide"]


def test_a_lone_experiment_is_not_compared_with_itself(results: Path) -> None:
    single(results, "wide", 2e-3)
    assert "%" not in run("list").output


def test_list_groups_what_can_be_compared(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "other", 2e-3, corpus="d" * 16)
    lines = run("list").output.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["group", "A", "B"]
    assert lines[3:] == [
        "Losses can be compared within a group only.",
        "Group A: text sotu with digest cccccccccccccccc",
        "Group B: text sotu with digest dddddddddddddddd",
    ]


def test_compare_says_what_keeps_losses_apart(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "other", 2e-3, corpus="d" * 16)
    assert run("compare", "baseline_17m", "other").output.splitlines()[-1] == (
        "other is not compared with baseline_17m: other text (sotu with digest dddddddddddddddd, not "
        "sotu with digest cccccccccccccccc)."
    )


def test_compare_puts_experiments_side_by_side(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "longer", 2e-3, plus=1.0)
    lines = run("compare", "baseline_17m", "longer").output.splitlines()
    losses = next(line for line in lines if line.startswith("validation loss")).split()[2:]
    assert float(losses[1]) == pytest.approx(float(losses[0]) + 1.0, abs=2e-4)


def test_a_training_time_is_told_as_people_say_it(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    seconds = 3600 * json.loads(run("show", "baseline_17m", "--json").output)["hours"]
    lines = run("show", "baseline_17m").output.splitlines()
    (line,) = [line for line in lines if line.startswith("training time ")]
    assert line.split()[2:] == duration(seconds).split()


@pytest.mark.parametrize("command", [["list"], ["compare", "baseline_17m", "longer"]], ids=str)
def test_json_has_an_object_for_each_experiment(results: Path, command: list[str]) -> None:
    single(results, "baseline_17m", 2e-3)
    single(results, "longer", 2e-3, plus=1.0)
    first, second = json.loads(run(*command, "--json").output)
    assert [one["name"] for one in (first, second)] == ["baseline_17m", "longer"]
    assert second["val_loss"] == pytest.approx(first["val_loss"] + 1.0)
    assert second["comparison"]["difference"] == pytest.approx(1.0)


def test_json_of_one_experiment_is_an_object(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    assert json.loads(run("show", "baseline_17m", "--json").output)["is_baseline"] is True


def test_the_name_of_a_study_is_refused_with_its_experiments(results: Path) -> None:
    conduct(results / "st-smoke", study(seeds=[0, 1]))
    done = run("compare", "st-smoke", "st-smoke/baseline")
    said = "st-smoke is a study; its experiments are st-smoke/baseline, st-smoke/nope"
    assert (done.exit_code, said in done.output) == (2, True)


def test_an_unknown_experiment_is_refused_with_the_nearest(results: Path) -> None:
    single(results, "baseline_17m", 2e-3)
    done = run("show", "baseline_17")
    assert (done.exit_code, "did you mean 'baseline_17m'?" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--name: missing\n--config: missing"),
        (["--name", "a/b", "--config", "smoke"], "--name a/b: expected letters, digits"),
        (["--name", "a", "--config", "smok"], "did you mean 'smoke'?"),
        (["--name", "a", "--config", "smoke", "--set", "optim.lrr=1"], "did you mean 'optim.lr'?"),
        (["--name", "a", "--set", "optim.lr", "1"], "expected PATH=VALUE, e.g. optim.lr=3e-3"),
    ],
)
def test_a_wrong_call_starts_nothing(results: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.output, results.exists()) == (2, True, False)


@pytest.mark.slow
def test_a_json_config_is_run_and_entered_in_the_log(
    results: Path, tiny: cfg.Config, tmp_path: Path, address: str
) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny.model_dump(exclude_none=True), indent="\t"))
    asked = [sys.executable, "-m", "sweeps.experiment", "--name", "first", "--config", str(path)]
    asked += ["--set", "optim.weight_decay=0.0", "--why", "Does it run?", "--address", address]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    log = (results / "EXPERIMENT_LOG.md").read_text()
    assert "## Experiment 1: first" in log and "Does it run?" in log
    assert "weight decay=0)" in log
    assert f"python -m sweeps.experiment --name first --config {path}" in log
