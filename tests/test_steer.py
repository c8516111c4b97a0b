"""`sweeps steer`: the command without a driver, and a real sweep that is steered while it runs."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conducting import conduct
from fakes import grid
from sweeping import RATES, command, count_rows, wait_for_rows, write_space
from typer.testing import CliRunner, Result

from sweeps import ledger as led
from sweeps.commands.steer import app
from tinylm import config as cfg


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> led.Files:
    """A sweep under results/ that no driver runs: two trials have finished, one trained
    when its driver died."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/lr")
    conduct(folder, grid([1e-3, 2e-3, 4e-3], policy="none"), lambda c, s: 3 - s, records=17)
    return led.Files(folder)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_sweep_that_does_not_run_can_not_be_ended(done: led.Files) -> None:
    before = done.ledger.read_bytes()
    result = ask("lr", "end")
    said = "results/lr: the sweep is not running, so there is nothing to end\n"
    assert (result.exit_code, result.stderr, result.stdout) == (9, said, "")
    assert (done.ledger.read_bytes(), done.requests.exists()) == (before, False)


def of_rate(files: led.Files, label: str) -> led.Trial:
    return next(t for t in led.fold(led.read(files)).trials.values() if t.label == label)


def test_a_trial_that_was_stopped_is_taken_back_after_the_sweep_and_trained_by_its_next_run(
    done: led.Files,
) -> None:
    space = grid([1e-3, 2e-3, 4e-3], policy="none")
    stopped = ask("lr", "stop", "lr=0.004")
    assert (stopped.exit_code, stopped.stdout) == (0, "lr=0.004: stopped at 1,024 tokens\n")
    conduct(done.folder, space, lambda c, s: 3 - s)
    assert of_rate(done, "lr=0.004").status == "stopped"
    result = ask("lr", "finish", "lr=0.004")
    said = "lr=0.004: will be trained to its end (1,024 of 8,192 tokens so far) by: sweeps run\n"
    assert (result.exit_code, result.stdout, done.requests.exists()) == (0, said, False)
    conduct(done.folder, space, lambda c, s: 3 - s)
    assert of_rate(done, "lr=0.004").status == "finished"


def test_json_says_what_was_asked_and_whether_it_was_taken(done: led.Files) -> None:
    assert json.loads(ask("lr", "stop", "lr=0.004", "--json").stdout) == {
        "sweep": "results/lr",
        "action": "stop",
        "trial": of_rate(done, "lr=0.004").trial,
        "taken": True,
        "words": "lr=0.004: stopped at 1,024 tokens",
    }


def test_what_takes_a_stop_back_names_the_command_that_ran_the_sweep(done: led.Files) -> None:
    with led.Ledger(done) as ledger:
        ledger.append("session", command="/venv/bin/python3 -m sweeps.run lr --scale cpu", slots=1)
    assert "by: python -m sweeps.run lr --scale cpu" in ask("lr", "finish", "lr=0.004").stdout


def test_what_an_earlier_driver_did_not_take_is_done_with_the_next_request(
    done: led.Files,
) -> None:
    done.requests.mkdir()
    (done.requests / f"stop-{of_rate(done, 'lr=0.004').trial}").touch()
    conduct(done.folder, grid([1e-3, 2e-3, 4e-3, 8e-3], policy="none"), lambda c, s: 3 - s, 0)
    ask("lr", "finish", "lr=0.008")
    assert of_rate(done, "lr=0.004").by_hand == "stop"


WRONG = [
    (["lrr", "stop", "lr=0.004"], "did you mean 'lr'"),
    (["lr", "stop", "lr=0.0044"], "no such trial; did you mean 'lr=0.004'"),
    (["lr", "stop", "lr="], "lr=: no such trial"),
    (["lr", "stop", "lr=0.001"], "lr=0.001: it has finished; nothing was changed"),
    (["lr", "finish", "lr=0.001"], "lr=0.001: it has finished; nothing was changed"),
    (["lr", "stop"], "which trial?"),
    (["lr", "end", "lr=0.001"], "end is about the whole sweep"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_can_not_be_asked_exits_with_2_and_writes_nothing(
    done: led.Files, arguments: list[str], said: str
) -> None:
    with led.Ledger(done):  # as a driver has it
        result = ask(*arguments)
        assert (result.exit_code, said in result.stderr) == (2, True)
        assert not done.requests.exists()


def test_a_request_that_no_driver_takes_in_time_is_told_and_waits(done: led.Files) -> None:
    with led.Ledger(done):
        said = {one: ask("lr", *one.split(), "--wait", "0") for one in ("stop lr=0.004", "end")}
        waiting = sorted(file.name for file in done.requests.iterdir())
    assert [(one.exit_code, one.stdout) for one in said.values()] == [
        (0, "lr=0.004: trains now; it will be stopped at its next record\n"),
        (0, "lr: asked; the driver has not answered yet, which it does at its end at the latest\n"),
    ]
    assert [name.partition("-")[0] for name in waiting] == ["end", "stop"]


def test_a_driver_is_noticed_while_it_has_the_ledger_alone(done: led.Files) -> None:
    before = led.has_driver(done)
    with led.Ledger(done):
        during = led.has_driver(done)
    assert [before, during, led.has_driver(done)] == [False, True, False]


LONG = 1000  # times the budget: no trial ends by itself while a test lasts


@dataclass(frozen=True)
class Steered:
    """A sweep that was steered to its end, what the command said, and its two sessions."""

    folder: Path
    said: dict[str, subprocess.CompletedProcess[str]]
    sessions: list[tuple[int, str]]  # how each ended, and what it printed
    begun: int  # attempts of the first

    @property
    def sweep(self) -> led.Sweep:
        return led.fold(led.read(led.Files(self.folder)))

    def trial(self, label: str) -> led.Trial:
        return next(one for one in self.sweep.trials.values() if one.label == label)


def steer(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "sweeps", "steer", str(folder), *arguments, "--wait", "900"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)


@contextmanager
def running(asked: list[str], ends: list[tuple[int, str]]) -> Iterator[None]:
    """A session that runs while the context lasts, and has to end by itself then."""
    pipe = subprocess.PIPE
    with subprocess.Popen(asked, stdout=pipe, stderr=subprocess.STDOUT, text=True) as run:
        yield
        printed = run.communicate(timeout=900)[0]
    ends.append((run.returncode, printed))


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, scale: Path, address: str) -> Steered:
    """A sweep of four rates on one slot. While the first trains, the last is to be finished, the third is
    stopped, and so is the first; then the sweep is ended, and the second stopped. The same command goes on
    with the last, until it is stopped as well."""
    folder = tmp_path_factory.mktemp("steered")
    out = folder / "results" / "rates"
    base = cfg.validate(yaml.safe_load(scale.read_text()), "scale")
    long = folder / "long.yaml"
    config = cfg.overlay(base, {"budget.tokens": base.budget.tokens * LONG})
    long.write_text(yaml.safe_dump(config.model_dump()))
    space = write_space(folder, {"policy": "none"}, RATES)
    asked = command(space, long, out, "--address", address)
    said, ends = {}, list[tuple[int, str]]()
    (out / "steer").mkdir(parents=True)
    (out / "steer" / "end").touch()  # left by an earlier driver
    (out / "steer" / "stop-nobody").symlink_to(space)
    with running(asked, ends):
        wait_for_rows(out, "measured", 2)
        said["finish"] = steer(out, "finish", "lr=0.064")
        said["third"] = steer(out, "stop", "lr=0.016")
        said["first"] = steer(out, "stop", "lr=0.001")
        wait_for_rows(out, "started", 2)
        said["end"] = steer(out, "end")
        said["second"] = steer(out, "stop", "lr=0.004")
    begun = count_rows(out, "started")
    with running(asked, ends):
        wait_for_rows(out, "started", begun + 1)
        said["last"] = steer(out, "stop", "lr=0.064")
    return Steered(out, said, ends, begun)


@pytest.mark.slow
def test_the_command_says_what_the_driver_did(steered: Steered) -> None:
    def stopped(label: str) -> str:
        return f"{label}: stopped at {steered.trial(label).tokens:,} tokens\n"

    budget = f"0 of {steered.trial('lr=0.064').budget:,} tokens so far"
    assert {name: one.stdout for name, one in steered.said.items()} == {
        "finish": f"lr=0.064: is trained to its end, whatever the policy says ({budget})\n",
        "third": "lr=0.016: stopped at 0 tokens\n",
        "first": stopped("lr=0.001"),
        "end": "rates: nothing new starts; the sweep ends after what trains now: lr=0.004\n",
        "second": stopped("lr=0.004"),
        "last": stopped("lr=0.064"),
    }
    assert {one.returncode for one in steered.said.values()} == {0}


@pytest.mark.slow
def test_the_ledger_has_a_row_for_each_request_in_their_order(steered: Steered) -> None:
    rows = [row for row in led.read(led.Files(steered.folder)) if row["kind"] == "steered"]
    trials = steered.sweep.trials
    assert [(r["action"], trials[r["trial"]].label if "trial" in r else "") for r in rows] == [
        ("finish", "lr=0.064"),
        ("stop", "lr=0.016"),
        ("stop", "lr=0.001"),
        ("end", ""),
        ("stop", "lr=0.004"),
        ("stop", "lr=0.064"),
    ]


@pytest.mark.slow
def test_a_sweep_that_is_ended_exits_with_75_its_analysis_and_how_to_resume(
    steered: Steered,
) -> None:
    code, said = steered.sessions[0]
    assert (code, steered.begun) == (75, 2)
    assert "ended by hand before all was trained. To resume: " in said
    assert "summary.md" in said


@pytest.mark.slow
def test_the_same_command_trains_the_rest_and_nothing_of_what_was_stopped(
    steered: Steered,
) -> None:
    code, said = steered.sessions[1]
    assert code == 0, said
    trials = steered.sweep.trials.values()
    assert [(one.status, one.attempt) for one in trials] == [
        ("stopped", 1),
        ("stopped", 1),
        ("stopped", 0),
        ("stopped", 1),
    ]


@pytest.mark.slow
def test_a_trial_that_is_stopped_keeps_the_checkpoint_of_its_last_record(
    steered: Steered,
) -> None:
    trial = steered.trial("lr=0.001")
    assert trial.checkpoint is not None
    assert trial.checkpoint["tokens"] == trial.tokens > 0
    assert led.Files(steered.folder).checkpoint(trial.checkpoint).is_file()


@pytest.mark.slow
def test_the_table_of_trials_says_who_stopped_them(steered: Steered) -> None:
    with led.Files(steered.folder).trials_table.open(newline="") as stream:
        reasons = [row["reason"] for row in csv.DictReader(stream)]
    assert reasons == ["stopped by hand"] * 4


@pytest.mark.slow
def test_what_was_no_request_is_all_that_is_left_of_them(steered: Steered) -> None:
    left = [file.name for file in led.Files(steered.folder).requests.iterdir()]
    assert left == ["stop-nobody"]
    assert steered.sessions[0][1].count("left alone: 'stop-nobody'") == 1
