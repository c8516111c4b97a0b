"""Every shipped space: all of them in this process, and one as a user runs it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps import ledger as led
from sweeps.engine.driver import Driver
from sweeps.engine.job import Job
from sweeps.engine.machine import CorpusFacts, this_machine
from sweeps.engine.worker import Attempt
from sweeps.findings.everything import Reader
from sweeps.plan import trials as pl
from sweeps.plan.reading import parse
from sweeps.plan.request import Request, read_request
from sweeps.report import analysis, log

SPACES = Path("search_spaces").resolve()
# Scale smoke, with eight updates and a record of each.
SHORT = ["budget.tokens=2048", "eval.every_tokens=256", "eval.tokens=256"]
SHORT += ["run.checkpoint_every_tokens=256"]
CHANGES = {"leaderboard": ["budget.seconds=0.25"]}  # its budget is a minute a trial
LOOKS = {"looks": [2, 3], "until": "settled"}


def asked_of(name: str) -> Request:
    """The request of a shipped space; a study looks at its arms early."""
    asked = read_request(str(SPACES / f"{name}.yaml"), "smoke", CHANGES.get(name, SHORT), 0)
    if not asked.space.is_study:
        return asked
    written = {**asked.written, "seeds": LOOKS}
    return replace(asked, written=written, space=parse(written, asked.source))


def train(driver: Driver, job: Job) -> None:
    """Train an attempt until it ends or the driver ends it, as a worker of Ray Tune does."""
    attempt = Attempt(job)
    for event in attempt.events():
        goes_on = driver.reported(job.trial, event)
        if driver.wants_checkpoint(job.trial, event["save"]):
            folder = f"{job.trial}-{job.attempt}/checkpoint_{event['step']}"
            file = driver.ledger.files.checkpoints.resolve() / folder / led.Files.CHECKPOINT
            file.parent.mkdir(parents=True)
            attempt.save(file)
            driver.saved(job.trial, file)
        if not goes_on:
            return


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in SPACES.glob("*.yaml")))
def test_a_shipped_space_is_trained_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = asked_of(name)
    machine = this_machine(asked)
    files = led.Files(led.RESULTS / name)
    with led.Ledger(files) as ledger:
        driver = Driver(ledger, asked, pl.plan(asked, machine), machine, CorpusFacts(print))
        driver.begin({})
        while (job := driver.next_job()) is not None:
            driver.began(job.trial)
            train(driver, job)
        driver.end()
    assert driver.is_done()
    reader = Reader()
    analysis.write(files, reader.findings(files))
    found = json.loads(files.findings.read_text())
    assert found["trials"]["unfinished"] == 0 and found["trials"]["failed"] == 0
    assert asked.space.question in log.write(led.RESULTS, reader).read_text()


@pytest.mark.slow
def test_a_shipped_space_runs_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "search_spaces").symlink_to(SPACES)
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", "lr", "--scale", "smoke"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SPACES.parent)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = json.loads((tmp_path / "results/lr-smoke/analysis/summary.json").read_text())
    assert found["trials"]["unfinished"] == 0
