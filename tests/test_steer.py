"""`sweeps steer`: the command without a driver, and a real sweep that is steered while it runs."""

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conducting import conduct
from fakes import grid
from sweeping import command, count_rows, wait_for_rows, write_space
from typer.testing import CliRunner, Result

from sweeps import ledger as led
from sweeps.commands.steer import app
from tinylm import config as cfg


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> led.Files:
    """A sweep under results/ that no driver runs: a trial has finished, one has not started."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/lr")
    conduct(folder, grid([1e-3, 2e-3, 4e-3], policy="none"), lambda c, s: 3 - s, records=17)
    return led.Files(folder)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("arguments", [["stop", "lr=0.004"], ["finish", "lr=0.004"], ["end"]])
def test_without_a_driver_it_is_one_sentence_and_exit_code_9(
    done: led.Files, arguments: list[str]
) -> None:
    before = done.ledger.read_bytes()
    result = ask("lr", *arguments)
    said = "results/lr: the sweep is not running, so there is nothing to steer\n"
    assert (result.exit_code, result.stderr, result.stdout) == (9, said, "")
    assert (done.ledger.read_bytes(), done.requests.exists()) == (before, False)


WRONG = [
    (["lrr", "stop", "lr=0.004"], "did you mean 'lr'"),
    (["lr", "stop", "lr=0.0044"], "no such trial; did you mean 'lr=0.004'"),
    (["lr", "stop", "lr="], "several trials match: lr=0.001 ("),
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


def test_a_driver_is_noticed_while_it_has_the_ledger_alone(done: led.Files) -> None:
    before = led.has_driver(done)
    with led.Ledger(done):
        during = led.has_driver(done)
    assert [before, during, led.has_driver(done)] == [False, True, False]


RATES = [1e-3, 4e-3, 1.6e-2, 6.4e-2]


@dataclass(frozen=True)
class Steered:
    """A sweep that was steered, what the command said, and the sessions that trained it."""

    folder: Path
    said: dict[str, subprocess.CompletedProcess[str]]
    first: tuple[int, str]  # how it ended, and what it printed
    began: int  # attempts of the first session
    last: subprocess.CompletedProcess[str]  # the same command again

    @property
    def sweep(self) -> led.Sweep:
        return led.fold(led.read(led.Files(self.folder)))

    def trial(self, label: str) -> led.Trial:
        return next(one for one in self.sweep.trials.values() if one.label == label)


def steer(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "sweeps", "steer", str(folder), *arguments, "--wait", "900"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, scale: Path, address: str) -> Steered:
    """A sweep of four rates on one slot. While the first trains, it is stopped, the worst is to be finished, and
    the third is stopped; while the second trains, the sweep is ended."""
    folder = tmp_path_factory.mktemp("steered")
    out = folder / "results" / "rates"
    tree = yaml.safe_load(scale.read_text())
    longer = cfg.overlay(
        cfg.validate(tree, "scale"), {"budget.tokens": tree["budget"]["tokens"] * 40}
    )
    long_scale = folder / "long.yaml"
    long_scale.write_text(yaml.safe_dump(longer.model_dump()))
    space = write_space(folder, {"policy": "asha", "eta": 2, "grace": "1/4"}, RATES)
    asked = command(space, long_scale, out, "--address", address)
    said = {}
    with subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        wait_for_rows(out, "measured", 2)
        (out / "steer").mkdir(exist_ok=True)
        (out / "steer" / "stop-nobody").symlink_to(space)
        said["finish"] = steer(out, "finish", "lr=0.064")
        said["third"] = steer(out, "stop", "lr=0.016")
        said["first"] = steer(out, "stop", "lr=0.001")
        wait_for_rows(out, "started", 2)
        said["end"] = steer(out, "end")
        printed = run.communicate(timeout=900)[0]
    began = count_rows(out, "started")
    again = subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)
    return Steered(out, said, (run.returncode, printed), began, again)


@pytest.mark.slow
def test_the_command_says_what_the_driver_did(steered: Steered) -> None:
    tokens = f"{steered.trial('lr=0.001').tokens:,}"
    budget = f"{steered.trial('lr=0.064').budget:,}"
    assert {name: one.stdout for name, one in steered.said.items()} == {
        "first": f"lr=0.001: stopped at {tokens} tokens\n",
        "third": "lr=0.016: stopped at 0 tokens\n",
        "finish": f"lr=0.064: is trained to its end, whatever the policy says (0 of {budget} tokens so far)\n",
        "end": "rates: nothing new starts; the sweep ends after what trains now: lr=0.004\n",
    }
    assert {one.returncode for one in steered.said.values()} == {0}


@pytest.mark.slow
def test_the_ledger_has_a_row_for_each_request_in_their_order(steered: Steered) -> None:
    rows = [row for row in led.read(led.Files(steered.folder)) if row["kind"] == "steered"]
    labels = [steered.sweep.trials[row["trial"]].label for row in rows if "trial" in row]
    assert [row["action"] for row in rows] == ["finish", "stop", "stop", "end"]
    assert labels == ["lr=0.064", "lr=0.016", "lr=0.001"]


@pytest.mark.slow
def test_a_sweep_that_is_ended_exits_with_75_its_analysis_and_how_to_resume(
    steered: Steered,
) -> None:
    code, said = steered.first
    assert (code, steered.began) == (75, 2)
    assert "ended by hand before all was trained. To resume: " in said
    assert "summary.md" in said


@pytest.mark.slow
def test_the_same_command_trains_the_rest_and_nothing_of_what_was_stopped(
    steered: Steered,
) -> None:
    assert steered.last.returncode == 0, steered.last.stderr
    ends = {one.label: (one.status, one.by_hand) for one in steered.sweep.trials.values()}
    assert ends == {
        "lr=0.001": ("stopped", "stop"),
        "lr=0.004": ("finished", None),
        "lr=0.016": ("stopped", "stop"),
        "lr=0.064": ("finished", "finish"),
    }
    assert steered.trial("lr=0.016").attempt == 0


@pytest.mark.slow
def test_the_table_of_trials_says_who_stopped_them(steered: Steered) -> None:
    with led.Files(steered.folder).trials_table.open(newline="") as stream:
        reasons = {row["label"]: row["reason"] for row in csv.DictReader(stream)}
    assert (reasons["lr=0.001"], reasons["lr=0.016"]) == ("stopped by hand",) * 2


@pytest.mark.slow
def test_what_was_no_request_is_all_that_is_left_of_them(steered: Steered) -> None:
    left = [file.name for file in led.Files(steered.folder).requests.iterdir()]
    assert left == ["stop-nobody"]
    assert steered.first[1].count("left alone: 'stop-nobody'") == 1
