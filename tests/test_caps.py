"""A real sweep that ends at a cap and is completed once the cap is removed, in Weights & Biases."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sweeping import RATES, command, curves, write_space

from sweeps import ledger as led
from tinylm import config as cfg

pytestmark = pytest.mark.slow
CAP = 10_000  # tokens, in the middle of the second trial


KEY = "0123456789" * 4  # of W&B; nobody's
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobodysid0",
    "AWS_SECRET_ACCESS_KEY": "nobodyskey",
    "AWS_SESSION_TOKEN": "nobodystok",
}


@dataclass(frozen=True)
class Capped:
    """The sweep, and the sessions that trained it."""

    folder: Path
    first: subprocess.CompletedProcess[str]
    spent: int  # tokens of it
    still: subprocess.CompletedProcess[str]  # the same command, with the cap
    last: subprocess.CompletedProcess[str]

    @property
    def sweep(self) -> led.Sweep:
        return led.fold(led.read(led.Files(self.folder)))


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory, scale: Path, address: str) -> Capped:
    """A completed sweep of two rates with a cap that was removed, tracked by W&B offline."""
    folder = tmp_path_factory.mktemp("capped")
    out = folder / "results" / "rates"
    space = write_space(folder, {"policy": "none"}, RATES[:2])
    free = space.read_text()
    space.write_text(f"{free}caps: {{tokens: {CAP}}}\n")
    asked = command(space, scale, out, "--address", address, "--tracker", "wandb")
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY} | CREDENTIALS

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            asked, env=environment, capture_output=True, text=True, timeout=900, check=False
        )

    first = run()
    spent = led.fold(led.read(led.Files(out))).spent_tokens
    still = run()
    space.write_text(free)
    return Capped(out, first, spent, still, run())


def test_a_sweep_that_reaches_its_budget_exits_75_and_says_how_to_resume(capped: Capped) -> None:
    assert (capped.first.returncode, capped.still.returncode) == (75, 75), capped.first.stderr
    assert "caps.tokens: " in capped.first.stderr
    assert f"then resume: {shlex.quote(sys.executable)} -m sweeps.run" in capped.first.stderr


def test_a_sweep_stops_within_a_record_of_its_budget(capped: Capped, scale: Path) -> None:
    record = cfg.load(str(scale)).eval.every_tokens
    assert CAP <= capped.spent < CAP + record * (os.cpu_count() or 1)


def test_a_budget_that_was_reached_loses_no_work(capped: Capped) -> None:
    assert capped.sweep.spent_tokens == sum(t.tokens for t in capped.sweep.trials.values())


def _files_with(key: str, folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path.name for path in files if key.encode() in path.read_bytes()]


def test_the_key_of_a_tracker_is_in_no_file(capped: Capped, head: Any) -> None:
    assert capped.first.returncode == 75
    logs = head.session / "logs"
    assert _files_with("runtime env", logs) != []
    assert _files_with(KEY, logs) + _files_with(KEY, capped.folder) == []


@pytest.mark.parametrize("secret", CREDENTIALS.values())
def test_credentials_for_a_store_are_in_no_file(capped: Capped, head: Any, secret: str) -> None:
    assert _files_with(secret, head.session) + _files_with(secret, capped.folder) == []


# Prints the key and the niceness of a process that sends a trial to W&B, and its error.
KEYED = """
import os, sys
from pathlib import Path
from sweeps.engine.trackers import TrackedRun, tracker
from sweeps.engine.tune import cluster, ray
from sweeps.ledger import Files
from sweeps.plan.sections import Resources

with cluster(sys.argv[1], Resources(), None, 1):
    logger = tracker("wandb", Files(Path(sys.argv[2]) / "rates"))._logger
    logger.log_trial_start(run := TrackedRun("a-1", "a", "lr=1 (a)", {}, sys.argv[2], "rates"))
    process = logger._trial_logging_actors[run]
    try:
        logger.log_trial_end(run)
        print(ray.get(process.__ray_call__.remote(lambda _: os.environ["WANDB_API_KEY"])))
        print(ray.get(process.__ray_call__.remote(lambda _: os.nice(0))))
        logger.on_experiment_end([])
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def _process(folder: Path, address: str, **environment: str) -> list[str]:
    """The key, the niceness and the error of a process that sends a trial to W&B, on a cluster that was
    started without the key."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KEYED, address, str(folder)],
        env=os.environ | {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    return done.stdout.splitlines()


def test_the_process_of_a_tracker_has_its_key(tmp_path: Path, address: str) -> None:
    assert _process(tmp_path, address)[0] == KEY


def test_processes_of_ray_have_the_priority_of_what_started_it(
    tmp_path: Path, address: str
) -> None:
    assert _process(tmp_path, address)[1:] == [str(os.nice(0))]


def test_a_run_that_could_not_be_written_is_told_at_the_end(tmp_path: Path, address: str) -> None:
    said = _process(tmp_path, address, WANDB_PROJECT="a/b")[-1]
    assert said.startswith("UsageError: Invalid project name 'a/b'")


# What wandb's own format says, as run -> [[step, validation loss]]. A file is a LevelDB log behind
# seven bytes: blocks of 32 KiB with chunks of records, each behind a checksum, its length and whether
# it is whole (1), a first, a middle or the last (4) part.
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


def test_wandb_has_a_run_for_each_trial_over_all_sessions(capped: Capped) -> None:
    assert (capped.last.returncode, "dropped" in capped.last.stderr) == (0, False)
    begun = re.sub(r"\D", "", led.read(led.Files(capped.folder))[0]["time"])
    own = curves(capped.folder)
    expected = {
        f"rates rates-{begun}-{t.trial} {t.label} ({t.trial})": [[s, loss] for s, _, loss in own[t.label]]
        for t in capped.sweep.trials.values()
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WANDB, str(capped.folder.parent)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected
