"""The command line of a sweep: what it refuses, and real sweeps under a real Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sweeps import ledger as led
from sweeps.run import CLUSTER, FAILED, LOCKED, REFUSED, app
from tinylm import config as cfg
from tinylm import data, train

RATES = [1e-3, 4e-3, 1.6e-2, 6.4e-2]
STOPPING = {"policy": "asha", "eta": 2, "grace": "1/4"}


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory, tiny: cfg.Config) -> Path:
    """The scale of these sweeps: 24 records of 10 updates in about two seconds."""
    step = tiny.tokens_per_step
    changes = {"budget.tokens": 240 * step, "eval.every_tokens": 10 * step}
    config = cfg.overlay(tiny, changes | {"run.checkpoint_every_tokens": 10 * step})
    path = tmp_path_factory.mktemp("scale") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    return path


def write_space(folder: Path, schedule: dict[str, Any], rates: list[float] = RATES) -> Path:
    tree = {
        "question": "Which rate?",
        "search": {"method": "grid"},
        "space": {"optim.lr": {"grid": rates}},
        "schedule": schedule,
    }
    path = folder / "rates.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


# Refusals: nothing is started, nothing is written


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and message of a command that must end before it writes anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        before = sorted(folder.rglob("*"))
        done = CliRunner().invoke(app, list(arguments))
        assert sorted(folder.rglob("*")) == before
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["../lr", "a/b", "..", "lr/.."])
def test_a_space_name_with_a_path_in_it_exits_2(tmp_path: Path, name: str) -> None:
    code, message = refused(tmp_path, name, "--scale", "smoke")
    assert (code, name in message) == (2, True)


def test_a_missing_space_file_exits_2(tmp_path: Path) -> None:
    assert refused(tmp_path, "none.yaml", "--scale", "smoke")[0] == 2


BAD_COMMANDS = [
    (["--scale", "smokey"], "did you mean 'smoke'"),
    (["--scale", "smoke", "--set", "optim.weight_decy=1"], "did you mean 'optim.weight_decay'"),
    (["--scale", "smoke", "--set", "optim.lr=1"], "sweeps this path"),
    (["--scale", "smoke", "--set", "run.seed=1"], "seeds"),
    (["--scale", "smoke", "--set", "model.n_heads=5"], "n_heads 5 must divide d_model 32"),
    (["--scale", "smoke", "--set", "model.vocab_size=70000"], "model.vocab_size"),
    (["--scale", "smoke", "--set", "optim.eps"], "PATH=VALUE is due"),
    (["--scale", "smoke", "--out", "a/../b"], "--out a/../b"),
    (["--scale", "smoke", "--out", "rates.yaml"], "not a folder"),
    (["--scale", "smoke", "--set", "data.corpus=text"], "data: path is missing"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_COMMANDS)
def test_a_wrong_command_exits_2_with_rule_and_value(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    space = write_space(tmp_path, STOPPING)
    code, said = refused(tmp_path, str(space), *arguments)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"caf\xe9 ole", "not UTF-8"), (b"too small", "training documents yield")],
)
def test_a_bad_corpus_exits_2(tmp_path: Path, content: bytes, message: str) -> None:
    space = write_space(tmp_path, STOPPING)
    (tmp_path / "text.txt").write_bytes(content)
    text = ["--set", "data.corpus=text", "--set", "data.path=text.txt"]
    code, said = refused(tmp_path, str(space), "--scale", "smoke", *text)
    assert (code, message in said) == (2, True), said


def test_a_plan_is_printed_and_nothing_is_written(tmp_path: Path) -> None:
    space = write_space(tmp_path, STOPPING)
    code, said = refused(tmp_path, str(space), "--scale", "smoke", "--plan")
    assert (code, "full grid: 98.3k tokens" in said) == (0, True), said


# Real sweeps


def command(space: Path, scale: Path, out: Path, *more: str) -> list[str]:
    asked = [str(space), "--scale", str(scale), "--out", str(out), *more]
    return [sys.executable, "-m", "sweeps.run", *asked]


def run(asked: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(asked, capture_output=True, text=True, timeout=180, check=False)


def wait_for_rows(sweep: Path, kind: str, count: int) -> None:
    """Return once the ledger holds so many rows of a kind."""
    deadline = time.monotonic() + 120
    while count_rows(sweep, kind) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def curves(sweep: Path) -> dict[str, list[tuple[int, float, float]]]:
    trials = led.fold(led.read(led.Files(sweep))).trials.values()
    return {t.label: [(p["step"], p["train_loss"], p["val_loss"]) for p in t.curve] for t in trials}


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, scale: Path
) -> tuple[list[str], subprocess.CompletedProcess[str], Path]:
    """A sweep with early stopping that has ended, and the command for it."""
    folder = tmp_path_factory.mktemp("with a space")
    asked = command(write_space(folder, STOPPING), scale, folder / "rates")
    return asked, run(asked), folder / "rates"


def test_a_sweep_succeeds(stopped: Any) -> None:
    assert stopped[1].returncode == 0, stopped[1].stderr


def test_a_sweep_stops_some_trials_and_finishes_others(stopped: Any) -> None:
    trials = led.fold(led.read(led.Files(stopped[2]))).trials.values()
    assert {trial.status for trial in trials} == {"finished", "stopped"}


def test_a_sweep_prints_the_dashboard_the_ranking_and_the_paths(stopped: Any) -> None:
    said = stopped[1].stdout
    assert "dashboard: http://127.0.0.1:" in said
    assert "finished" in said and "summary.md" in said


def test_ray_is_silent(stopped: Any) -> None:
    assert stopped[1].stderr == ""


def test_a_sweep_leaves_tables_and_figures(stopped: Any) -> None:
    names = {file.name for file in (stopped[2] / "analysis").iterdir()}
    assert names >= {"trials.csv", "curves.csv", "summary.md", "summary.json"}
    assert names >= {"loss_by_step.svg", "loss_by_tokens.png", "loss_vs_lr.svg"}


def test_the_same_command_again_does_nothing_and_says_so(stopped: Any) -> None:
    before = (stopped[2] / "ledger.jsonl").read_bytes()
    again = run(stopped[0])
    assert (again.returncode, "nothing is left to do" in again.stdout) == (0, True)
    assert (stopped[2] / "ledger.jsonl").read_bytes() == before


def test_another_base_config_exits_9_with_the_difference(stopped: Any) -> None:
    again = run([*stopped[0], "--set", "optim.weight_decay=0.3"])
    assert (again.returncode, "0.1 there, 0.3 here" in again.stderr) == (REFUSED, True)


def test_a_session_says_where_and_with_what_it_ran(stopped: Any) -> None:
    (session,) = led.fold(led.read(led.Files(stopped[2]))).sessions
    assert session["versions"]["ray"] == "2.60.0"
    assert session["machine"]["cpus"] == os.cpu_count()


@pytest.fixture(scope="module")
def trained(scale: Path) -> dict[str, list[tuple[int, float, float]]]:
    """The curves of the same trials, trained one after the other without a sweep."""
    found = {}
    for rate in RATES:
        config = cfg.overlay(cfg.load(str(scale)), {"optim.lr": rate})
        corpus = data.prepare(config)
        records = train.train(train.start(config), corpus, config)
        found[f"lr={rate:.4g}"] = [(r.step, r.train_loss, r.val_loss) for r in records]
    return found


def test_stopped_curves_are_the_beginnings_of_whole_trainings(stopped: Any, trained: Any) -> None:
    cut = curves(stopped[2])
    assert cut == {label: points[: len(cut[label])] for label, points in trained.items()}


def count_rows(sweep: Path, kind: str) -> int:
    return sum(row["kind"] == kind for row in led.read(led.Files(sweep)))


def interrupt(asked: list[str], out: Path, number: int) -> tuple[int, str]:
    """Start a driver, signal it when it has seen three more checkpoints; exit code and output."""
    before = count_rows(out, "checkpointed")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_for_rows(out, "checkpointed", before + 3)
        os.kill(driver.pid, number)
        said = driver.communicate(timeout=120)[0].decode()
    return driver.returncode, said


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, scale: Path
) -> tuple[Path, int, tuple[int, str], subprocess.CompletedProcess[str]]:
    """A sweep whose driver was killed, then terminated, then left to end."""
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "rates"
    asked = command(write_space(folder, {"policy": "none"}, RATES[:2]), scale, out)
    interrupt(asked, out, signal.SIGKILL)
    rows = len(led.read(led.Files(out)))
    return out, rows, interrupt(asked, out, signal.SIGTERM), run(asked)


def test_a_terminated_sweep_exits_143_and_says_how_to_go_on(killed: Any) -> None:
    code, said = killed[2]
    assert (code, "To go on: " in said) == (143, True), said


def test_a_killed_sweep_ends_with_the_curves_of_whole_trainings(killed: Any, trained: Any) -> None:
    out, _, _, last = killed
    assert last.returncode == 0, last.stderr
    assert curves(out) == dict(list(trained.items())[:2])


def test_a_killed_sweep_keeps_every_row_it_had(killed: Any) -> None:
    out, rows, _, _ = killed
    found = led.read(led.Files(out))
    assert [row["seq"] for row in found[:rows]] == list(range(rows))


def test_a_killed_sweep_goes_on_from_checkpoints(killed: Any) -> None:
    started = [row for row in led.read(led.Files(killed[0])) if row["kind"] == "started"]
    assert any(row["step"] > 0 and row["attempt"] > 1 for row in started)


def test_a_second_driver_exits_5(tmp_path: Path, scale: Path) -> None:
    asked = command(write_space(tmp_path, STOPPING), scale, tmp_path / "rates")
    with led.Ledger(led.Files(tmp_path / "rates")):
        done = run(asked)
    assert (done.returncode, "another driver" in done.stderr) == (LOCKED, True), done.stderr


def test_an_unreachable_cluster_exits_8(tmp_path: Path, scale: Path) -> None:
    space = write_space(tmp_path, STOPPING)
    done = run(command(space, scale, tmp_path / "rates", "--address", "127.0.0.1:1"))
    assert (done.returncode, "127.0.0.1:1" in done.stderr) == (CLUSTER, True), done.stderr


def test_a_trial_whose_corpus_changed_is_refused(tmp_path: Path, scale: Path) -> None:
    """The documents of an unfinished sweep are edited between two sessions."""
    out = tmp_path / "rates"
    text = tmp_path / "text.txt"
    documents = [f"document {number} " + "word " * number for number in range(200)]
    text.write_text("<|endoftext|>".join(documents))
    config = json.loads(json.dumps(cfg.load(str(scale)).model_dump()))
    config["data"]["path"] = str(text)
    config["model"]["vocab_size"] = 270
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config))
    asked = command(write_space(tmp_path, {"policy": "none"}), other, out)
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as first:
        wait_for_rows(out, "planned", 4)
        os.kill(first.pid, signal.SIGKILL)
    text.write_text("<|endoftext|>".join([*documents, "one more"]))
    again = run(asked)
    assert (again.returncode, "has changed since" in again.stderr) == (REFUSED, True), again.stderr


def test_a_failing_trial_is_tried_again_reported_and_exits_3(tmp_path: Path, scale: Path) -> None:
    """A model that no machine has memory for fails beside one that finishes."""
    space = write_space(tmp_path, {"policy": "none"})
    tree = yaml.safe_load(space.read_text())
    tree["space"] = {"model.d_ff": {"grid": [37, 10**11]}}
    space.write_text(yaml.safe_dump(tree))
    done = run(command(space, scale, tmp_path / "widths"))
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert "failed: d_ff=100000000000" in done.stderr
    trials = led.fold(led.read(led.Files(tmp_path / "widths"))).trials.values()
    assert [(t.status, t.attempt) for t in trials] == [("finished", 1), ("failed", 3)]
