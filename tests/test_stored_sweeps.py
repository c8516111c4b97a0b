"""Real sweeps with a copy in a store: one whose machine is lost, one whose link is cut."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import node
from stores import Storage, google, refusal, storage
from sweeping import RATES, command, curves, run, write_space

from sweeps import ledger as led
from sweeps.ledger import Files

pytestmark = pytest.mark.slow
Curves = dict[str, list[tuple[int, float, float]]]


@pytest.fixture(scope="module")
def s3(cache: Path) -> Iterator[Storage]:
    """A store that the environment names."""
    with storage() as one, pytest.MonkeyPatch.context() as patch:
        for name, value in one.environment.items():
            patch.setenv(name, value)
        yield one


@dataclass(frozen=True)
class Machine:
    """A folder in which the command of a sweep is typed."""

    folder: Path
    url: str
    asked: list[str]

    @property
    def files(self) -> Files:
        return Files(self.folder / "results" / "rates")

    def start(self, store: Storage) -> subprocess.Popen[str]:
        """The command, once its store has the rows of three checkpoints."""
        ran = subprocess.Popen(
            self.asked, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 900
        while len(checkpoints(store.ledger(self.url))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return ran

    def run(self) -> subprocess.CompletedProcess[str]:
        """The command, when it has ended."""
        return subprocess.run(
            self.asked, cwd=self.folder, capture_output=True, text=True, timeout=900, check=False
        )


def checkpoints(ledger: bytes) -> list[tuple[str, int]]:
    """The trial and step of each checkpoint that these rows of a ledger name."""
    rows = [json.loads(line) for line in ledger.splitlines()]
    return [(row["trial"], row["step"]) for row in rows if row["kind"] == "checkpointed"]


def machine(folder: Path, scale: Path, url: str, *more: str) -> Machine:
    folder.mkdir()
    space = write_space(folder, {"policy": "none"}, RATES[:2])
    return Machine(folder, url, command(space, scale, url, *more))


@pytest.fixture(scope="module")
def workers(s3: Storage) -> Iterator[list[str]]:
    """The option for a cluster that was running, whose node can reach the store."""
    with node(None, "--num-cpus=2") as head:
        yield ["--address", head.address]


@dataclass(frozen=True)
class Lost:
    """A sweep whose machine is lost, and that goes on on another one."""

    rows: bytes  # in the ledger of the machine that was lost
    stored: bytes  # in the store then
    last: subprocess.CompletedProcess[str]
    here: Files  # of the machine on which it went on
    end: bytes  # rows in the store at the end


@pytest.fixture(scope="module")
def lost(
    s3: Storage, tmp_path_factory: pytest.TempPathFactory, scale: Path, workers: list[str]
) -> Lost:
    top, url = tmp_path_factory.mktemp("machines"), "s3://bucket/lost/rates"
    one, two = (machine(top / name, scale, url, *workers) for name in "ab")
    with one.start(s3) as driver:
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    rows = one.files.ledger.read_bytes()
    shutil.rmtree(one.folder)
    stored = s3.ledger(url)
    last = two.run()
    return Lost(rows, stored, last, two.files, s3.ledger(url))


def test_a_sweep_goes_on_on_another_machine(lost: Lost) -> None:
    assert lost.last.returncode == 0, lost.last.stderr
    assert "has not given the sweep back" in lost.last.stderr


def test_only_the_last_rows_of_a_lost_machine_are_lost(lost: Lost) -> None:
    assert lost.rows.startswith(lost.stored)
    assert lost.end.startswith(lost.stored)


def test_it_goes_on_from_the_checkpoints_in_the_store(lost: Lost) -> None:
    begun, saved = lost.stored.count(b"\n"), dict(checkpoints(lost.stored))
    later = [row for row in led.rows(lost.here, {"started"}) if row["seq"] >= begun]
    first = {row["trial"]: row["step"] for row in reversed(later)}
    assert first.keys() & saved
    assert all(first[trial] == saved[trial] for trial in first.keys() & saved)


def test_its_curves_are_those_of_an_undisturbed_run(lost: Lost, trained: Curves) -> None:
    found = curves(lost.here.folder)
    assert found == {label: trained[label] for label in found}
    assert len(found) == 2


def test_its_folder_has_the_checkpoints_that_the_analysis_read(lost: Lost) -> None:
    """Workers have written and read all others in the store."""
    best = json.loads(lost.here.best_facts.read_text())["trial"]
    found = {one.parent.name.partition("-")[0] for one in lost.here.checkpoints.glob("*-*/*/")}
    assert found == {best}


def test_the_store_has_the_whole_sweep_at_the_end(lost: Lost, s3: Storage) -> None:
    assert lost.end == lost.here.ledger.read_bytes()
    names = s3.objects("s3://bucket/lost/rates")
    assert {"analysis/report.html", "best/checkpoint.pt"} <= set(names)
    assert "owner" not in names


def test_a_plan_reads_what_the_store_has(
    lost: Lost, s3: Storage, tmp_path: Path, scale: Path
) -> None:
    url = "s3://bucket/lost/rates"
    before, one = s3.objects(url), machine(tmp_path / "c", scale, url, "--plan", "--json")
    planned = json.loads(one.run().stdout)
    assert {trial["state"] for trial in planned["trials"]} == {"finished"}
    assert (s3.objects(url), one.files.folder.exists()) == (before, False)


@pytest.fixture(scope="module")
def gs(cache: Path) -> Iterator[Storage]:
    """A stand-in for Google's store that the environment names."""
    with google() as one:
        yield one


@dataclass(frozen=True)
class Cut:
    """A sweep whose store failed for good, and the same command when that was mended."""

    code: int
    said: str
    last: subprocess.CompletedProcess[str]
    machine: Machine
    store: Storage


@pytest.fixture(scope="module", params=["driver", "workers", "full", "google"])
def cut(
    tmp_path_factory: pytest.TempPathFactory, scale: Path, request: pytest.FixtureRequest
) -> Cut:
    """A sweep whose link is cut for good, where its driver alone has the store, and where its workers have it too;
    or whose store is full; or whose link to Google's store is cut."""
    scheme = "gs" if request.param == "google" else "s3"
    store: Storage = request.getfixturevalue(scheme)
    more = request.getfixturevalue("workers") if request.param == "workers" else []
    folder = tmp_path_factory.mktemp("cut") / "a"
    one = machine(folder, scale, f"{scheme}://bucket/cut-{request.param}/rates", *more)
    full = refusal("507 Insufficient Storage", "InsufficientStorage", "no space")
    with one.start(store) as driver:
        if request.param == "full":
            store.link.refusal = full
        else:
            store.link.cut()
        said = driver.communicate(timeout=900)[1]
    if request.param == "full":
        store.link.refusal = b""
    else:
        store.link.mend()
    return Cut(driver.returncode, said, one.run(), one, store)


@pytest.mark.system  # of which each waits a minute
def test_a_store_that_fails_ends_a_sweep_with_7(cut: Cut) -> None:
    assert cut.code == 7, cut.said
    why = "bucket bucket is full" if "cut-full" in cut.said else "does not answer"
    assert f"/rates: {why}" in cut.said
    assert "what it does not have is kept in results/rates\nTo resume: " in cut.said


@pytest.mark.system  # of which each waits a minute
def test_the_same_command_resumes_it_and_nothing_is_lost(cut: Cut, trained: Curves) -> None:
    assert cut.last.returncode == 0, cut.last.stderr
    found = curves(cut.machine.files.folder)
    assert found == {label: trained[label] for label in found}
    assert cut.store.ledger(cut.machine.url) == cut.machine.files.ledger.read_bytes()


def test_a_sweep_keeps_a_copy_at_google(tmp_path: Path, scale: Path, gs: Storage) -> None:
    one = machine(tmp_path / "a", scale, "gs://bucket/rates")
    done = one.run()
    assert done.returncode == 0, done.stderr
    assert gs.ledger(one.url) == one.files.ledger.read_bytes()
    assert {"analysis/report.html", "best/checkpoint.pt"} <= set(gs.objects(one.url))


@pytest.mark.parametrize(
    ("out", "code", "said"),
    [
        ("s3://nowhere/rates", 7, "there is no bucket nowhere"),
        ("s3://bucket", 2, "expected a folder, or s3:// or gs:// with BUCKET/NAME"),
        ("az://bucket/rates", 2, "expected a folder, or s3:// or gs:// with BUCKET/NAME"),
    ],
)
def test_an_address_that_is_wrong_is_told(
    s3: Storage, tmp_path: Path, scale: Path, out: str, code: int, said: str
) -> None:
    done = run(command(write_space(tmp_path, {"policy": "none"}), scale, out))
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
    assert said in done.stderr
