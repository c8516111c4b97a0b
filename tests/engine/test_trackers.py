"""Trials in MLflow and in Weights & Biases, offline, by real sweeps and the real programs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeping import RATES, command, curves, write_space

from sweeps import ledger as led
from sweeps.engine.driver import Job
from sweeps.engine.trackers import TrackedRun, Tracker

Points = dict[str, list[tuple[int, float]]]

# What MLflow's client and wandb's own format say, as run -> [[step, validation loss]].
MLFLOW = """
import json, sys
import mlflow
client = mlflow.MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
(experiment,) = [one for one in client.search_experiments() if one.name == "rates"]
found = {}
for run in client.search_runs([experiment.experiment_id]):
    history = client.get_metric_history(run.info.run_id, "val_loss")
    key = (run.info.run_name, run.info.status, run.data.params["optim.lr"])
    found.setdefault(" ".join(key), []).extend([m.step, m.value] for m in history)
print(json.dumps(found))
"""
# A file of wandb is a LevelDB log behind seven bytes: blocks of 32 KiB with chunks of records, each
# behind a checksum, its length and whether it is whole (1), a first, a middle or the last (4) part.
WANDB = """
import json, struct, sys
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(data):
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""

found = {}
for path in sorted(Path(sys.argv[1]).glob("rates/wandb/*/wandb/offline-run-*/*.wandb")):
    for record in records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            name = f"{run.project} {run.run_id} {run.display_name}"
            found.setdefault(name, [])
        elif kind == "history":
            items = {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item}
            found[name].append([items["_step"], items["val_loss"]])
print(json.dumps(found))
"""


def read(program: str, results: Path) -> Points:
    """What a tracker has."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(results)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {run: [(step, loss) for step, loss in points] for run, points in found.items()}


def tracked(
    folder: Path, scale: Path, address: str, tracker: str, **environment: str
) -> tuple[list[subprocess.CompletedProcess[str]], Path]:
    """A sweep of two rates that a budget ends in the middle of the second, and the same again with more
    budget."""
    space, out = write_space(folder, {"policy": "none"}, RATES[:2]), folder / "results" / "rates"
    tree = yaml.safe_load(space.read_text())
    whole = yaml.safe_load(scale.read_text())["budget"]["tokens"]
    done = []
    for cap in (whole * 3 // 2, whole * 3):
        space.write_text(yaml.safe_dump({**tree, "caps": {"tokens": cap}}))
        asked = command(space, scale, out, "--tracker", tracker, "--address", address)
        done.append(
            subprocess.run(
                asked,
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
        )
    return done, out


def points(out: Path) -> Points:
    """The same of the ledger, by trial and label."""
    trials = led.fold(led.read(led.Files(out))).trials.values()
    own = curves(out)
    return {f"{t.label} ({t.trial})": [(s, loss) for s, _, loss in own[t.label]] for t in trials}


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_trial_over_all_sessions(
    tmp_path: Path, scale: Path, address: str
) -> None:
    done, out = tracked(tmp_path, scale, address, "mlflow")
    assert [(one.returncode, "dropped" in one.stderr) for one in done] == [(75, False), (0, False)]
    expected = {
        f"{name} FINISHED {rate}": curve
        for (name, curve), rate in zip(points(out).items(), RATES[:2], strict=True)
    }
    assert read(MLFLOW, out.parent) == expected


@pytest.mark.slow
def test_wandb_has_a_run_for_each_trial_over_all_sessions(
    tmp_path: Path, scale: Path, address: str
) -> None:
    done, out = tracked(tmp_path, scale, address, "wandb", WANDB_MODE="offline")
    assert [(one.returncode, "dropped" in one.stderr) for one in done] == [(75, False), (0, False)]
    begun = re.sub(r"\D", "", led.read(led.Files(out))[0]["time"])
    expected = {
        f"rates rates-{begun}-{name.rpartition('(')[2].rstrip(')')} {name}": curve
        for name, curve in points(out).items()
    }
    assert read(WANDB, out.parent) == expected


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
