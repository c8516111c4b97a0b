"""Trials in MLflow and in Weights & Biases, by the real programs; tests/test_caps.py has W&B in a real sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ledgers import story
from sweeping import RATES, command, write_space

from sweeps.engine.job import Job
from sweeps.engine.trackers import TrackedRun, Tracker

# A session of a sweep as Ray Tune tells of it. Prints what MLflow's client then says, as
# run -> [[step, validation loss]].
MLFLOW = """
import json, sys
from pathlib import Path
import mlflow
from sweeps.engine.trackers import tracker
from sweeps.ledger import Files

class OfRay:
    def __init__(self, told):
        self.trial_id, self.config = told["job"]["label"], {"job": json.dumps(told["job"])}

folder = Path(sys.argv[1])
callback = tracker("mlflow", Files(folder))
for told in json.loads(sys.argv[2]):
    trial = OfRay(told)
    callback.on_trial_start(1, [], trial)
    for event in told["events"]:
        callback.on_trial_result(1, [], trial, {"event": json.dumps(event)})
    if told["ends"]:
        callback.on_trial_complete(1, [], trial)
callback.on_experiment_end([])

client = mlflow.MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
(experiment,) = [one for one in client.search_experiments() if one.name == folder.name]
found = {}
for run in client.search_runs([experiment.experiment_id]):
    history = client.get_metric_history(run.info.run_id, "val_loss")
    key = (run.info.run_name, run.info.status, run.data.params["optim.lr"])
    found[" ".join(key)] = [[m.step, m.value] for m in history]
print(json.dumps(found))
"""


def told(rate: float, attempt: int, losses: dict[int, float], *, ends: bool) -> dict[str, Any]:
    """An attempt: its job, and its records as step -> validation loss."""
    config = {"optim": {"lr": rate}}
    job = json.loads(
        Job(f"t{rate:g}", f"lr={rate:g}", attempt, config, "c", (), 0.0, None).to_json()
    )
    events = [{"event": "measured", "step": s, "val_loss": loss} for s, loss in losses.items()]
    return {"job": job, "events": events, "ends": ends}


def session(folder: Path, attempts: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """What MLflow has after a session with these attempts."""
    asked = [sys.executable, "-W", "ignore", "-c", MLFLOW, str(folder), json.dumps(attempts)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=900)
    assert (done.returncode, "dropped" in done.stderr) == (0, False), done.stderr
    found: dict[str, list[list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_trial_over_all_sessions(tmp_path: Path) -> None:
    with story(tmp_path / "rates") as tell:
        tell.ask({"optim.lr": {"grid": [0.001, 0.002]}})
    whole = told(0.001, 1, {10: 3.0, 20: 2.5}, ends=True)
    session(tmp_path / "rates", [whole, told(0.002, 1, {10: 2.75}, ends=False)])
    rest = told(0.002, 2, {20: 2.25, 30: 2.0}, ends=True)
    assert session(tmp_path / "rates", [rest]) == {
        "lr=0.001 (t0.001) FINISHED 0.001": [[10, 3.0], [20, 2.5]],
        "lr=0.002 (t0.002) FINISHED 0.002": [[10, 2.75], [20, 2.25], [30, 2.0]],
    }


class Full:
    """A logger whose disk is full."""

    def __init__(self) -> None:
        self.told: list[TrackedRun] = []

    def log_trial_start(self, run: TrackedRun) -> None:
        self.told.append(run)
        raise OSError(28, "No space left on device")


class OfRay:
    """What a callback reads of a trial of Ray's."""

    trial_id = "1"
    config = {  # noqa: RUF012 nobody writes to it
        "job": Job("a", "lr=1", 1, {}, "c", (), 0.0, None).to_json()
    }


def test_a_tracker_that_fails_is_dropped_with_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = Full()
    tracker = Tracker("mlflow", logger, lambda job: TrackedRun("a", "a", job.label, {}, "", "s"))
    event = {"event": json.dumps({"event": "measured", "step": 1, "val_loss": 2.0})}
    tracker.on_trial_start(1, [], OfRay())
    tracker.on_trial_result(1, [], OfRay(), event)
    tracker.on_trial_complete(2, [], OfRay())
    tracker.on_experiment_end([])
    assert len(logger.told) == 1
    assert capsys.readouterr().err == (
        "--tracker mlflow: dropped, and the sweep continues without it: OSError: [Errno 28] No space left on device\n"
    )


def test_an_attempt_that_never_started_is_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    """Tune tells of the error alone where a worker does not come up."""
    tracker = Tracker("mlflow", Full(), lambda job: TrackedRun("a", "a", job.label, {}, "", "s"))
    tracker.on_trial_error(1, [], OfRay())
    assert capsys.readouterr().err == ""


WRONG: list[tuple[str, dict[str, str], str]] = [
    (
        "mlflow",
        {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        "--tracker mlflow: MlflowException",
    ),
    (
        "wandb",
        {"WANDB_MODE": "online", "WANDB_API_KEY": ""},
        "--tracker wandb: no key to log in with",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("tracker", "environment", "message"), WRONG)
def test_a_tracker_that_is_not_to_be_had_exits_2_and_starts_nothing(
    tmp_path: Path, scale: Path, tracker: str, environment: dict[str, str], message: str
) -> None:
    space = write_space(tmp_path, {"policy": "none"}, RATES[:2])
    done = subprocess.run(
        command(space, scale, tmp_path / "results" / "rates", "--tracker", tracker),
        env=os.environ | {"HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "results" / "rates").exists()


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_exits_2(tmp_path: Path, scale: Path) -> None:
    space = write_space(tmp_path, {"policy": "none"}, RATES[:2])
    program = "import sys; sys.modules['mlflow'] = None; from sweeps.run import app; app()"
    asked: list[Any] = [space, "--scale", scale, "--out", tmp_path / "out", "--tracker", "mlflow"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, asked)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 2
    assert (
        "mlflow is not installed; install it with pip install 'tinylm-sweeps[mlflow]'"
        in done.stderr
    )
