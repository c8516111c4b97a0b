"""The copy of a sweep in a store, against a real server that speaks S3, over a link that fails."""

import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import Engine, driver, grid, request, v_shaped
from stores import KEYS, Storage, google, refusal, storage

from sweeps import ledger as led
from sweeps.engine import store as st
from sweeps.engine.job import Job
from sweeps.engine.store import Store, as_stored, fetched, folder_of, send
from sweeps.exits import LockedError, RefusedError, StorageError, UsageError
from sweeps.ledger import Files, Ledger

URL, GS = "s3://bucket/some/rates", "gs://bucket/some/rates"


@pytest.fixture(scope="module")
def served() -> Iterator[Storage]:
    with storage() as one:
        yield one


@pytest.fixture
def s3(served: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Storage]:
    """The store, empty, as the environment of a driver names it."""
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield served
    served.link.refusal = b""
    served.link.changes.clear()
    served.link.answers.clear()
    served.link.delay = 0.0
    served.refuse(all_requests=False)
    if served.files.exists("bucket/some"):
        served.files.rm("bucket/some", recursive=True)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Storage]:
    with google() as one:
        yield one


@pytest.fixture
def gs(stand_in: Storage) -> Iterator[Storage]:
    """A stand-in for Google's store, empty."""
    yield stand_in
    stand_in.link.refusal = b""
    stand_in.link.delay = 0.0
    if stand_in.files.exists("bucket/some"):
        stand_in.files.rm("bucket/some", recursive=True)


# Google's client asks again for half a minute before it fails.
EITHER = ["s3", pytest.param("gs", marks=pytest.mark.slow)]


@pytest.fixture(params=EITHER)
def either(request: pytest.FixtureRequest) -> tuple[Storage, str]:
    """A store of each kind, and the URL of a sweep in it."""
    return request.getfixturevalue(request.param), {"s3": URL, "gs": GS}[request.param]


class Time:
    """A clock that goes on only while somebody waits by it, and does something then."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.seconds = 0.0
        self.meanwhile = meanwhile

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.meanwhile()


def stored(folder: Path, time: Time | None = None, url: str = URL) -> Store:
    time = time or Time()
    return Store(Files(folder), url, clock=time.now, pause=time.wait)


def write(folder: Path, *seconds: float) -> None:
    """Append a row for each number to the ledger in a folder."""
    with Ledger(Files(folder)) as ledger:
        for one in seconds:
            ledger.append("node", node="a", host="b", state="lost", reason=str(one))


def killed(one: Store) -> Store:
    """A store whose driver ends without a word after it has begun and pushed."""
    one.take()
    return one


# Rows


def test_the_segments_are_the_ledger(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    one = killed(stored(folder))
    for number in range(3):
        write(folder, number)
        one.push()
    assert s3.ledger(URL) == Files(folder).ledger.read_bytes()


def test_what_is_not_a_whole_row_is_not_copied(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    write(folder, 1)
    whole = Files(folder).ledger.read_bytes()
    one = killed(stored(folder))
    with Files(folder).ledger.open("ab") as stream:
        stream.write(b'{"seq": 1, "ti')
    one.push()
    assert s3.ledger(URL) == whole


def test_rows_are_copied_while_the_sweep_runs(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    with Store(Files(folder), URL):
        write(folder, 1, 2)
        whole = Files(folder).ledger.read_bytes()
        s3.wait_for_rows(URL, whole)
    assert s3.ledger(URL) == whole


def test_a_large_ledger_goes_into_several_segments(
    s3: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rates", *range(30))
    monkeypatch.setattr(st, "_SEGMENT_BYTES", 700)
    killed(stored(tmp_path / "rates"))
    assert len(s3.objects(URL)) > 3
    assert s3.ledger(URL) == Files(tmp_path / "rates").ledger.read_bytes()


def test_another_machine_goes_on_with_the_rows_and_the_notes(s3: Storage, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "rates", tmp_path / "b" / "rates"
    with stored(first):
        write(first, 1, 2)
        Files(first).notes.write_text("why?")
    with stored(second):
        assert Files(second).ledger.read_bytes() == Files(first).ledger.read_bytes()
        assert Files(second).notes.read_text() == "why?"
        write(second, 3)
    with stored(first):
        pass
    assert Files(first).ledger.read_bytes() == Files(second).ledger.read_bytes() == s3.ledger(URL)


def test_a_row_that_a_crash_cut_is_taken_from_the_store(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    with stored(folder):
        write(folder, 1, 2)
    whole = Files(folder).ledger.read_bytes()
    Files(folder).ledger.write_bytes(whole[:-5])
    with stored(folder):
        assert Files(folder).ledger.read_bytes() == whole


def test_other_rows_than_those_of_the_store_are_refused(s3: Storage, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "rates", tmp_path / "b" / "rates"
    with stored(first):
        write(first, 1)
    write(second, 2)
    with (
        pytest.raises(RefusedError, match="has other rows than s3://bucket/some/rates"),
        stored(second),
    ):
        pass
    write(second, 3, 4)
    with (
        pytest.raises(RefusedError, match="has other rows than s3://bucket/some/rates"),
        stored(second),
    ):
        pass
    assert s3.ledger(URL) == Files(first).ledger.read_bytes()


def test_a_store_that_lost_a_segment_is_damaged(s3: Storage, tmp_path: Path) -> None:
    with stored(tmp_path / "rates"):
        write(tmp_path / "rates", 1)
    s3.files.rm_file(f"{URL}/ledger/00000001.jsonl")
    with pytest.raises(led.LedgerError, match="segments are missing"), stored(tmp_path / "rates"):
        pass


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_start_reads_the_last_segment_once(s3: Storage, tmp_path: Path, has_rows: bool) -> None:
    write(tmp_path / "a" / "rates", 1)
    with stored(tmp_path / "a" / "rates"):
        pass
    s3.link.asked.clear()
    with stored(tmp_path / ("a" if has_rows else "b") / "rates"):
        pass
    asked = [one for one in s3.link.asked if one.startswith(b"GET") and b"00000001" in one]
    assert len(asked) == 1


# A sweep that is only read


def test_the_rows_that_only_the_store_has_are_read(s3: Storage, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "rates", tmp_path / "b" / "rates"
    with stored(first):
        write(first, 1, 2)
    before = s3.objects(URL)
    with as_stored(Files(second), URL) as there:
        assert there.ledger.read_bytes() == Files(first).ledger.read_bytes()
    assert (second.exists(), s3.objects(URL)) == (False, before)


def test_rows_that_the_store_lacks_are_read_in_the_folder(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    write(folder, 1)
    killed(stored(folder))
    write(folder, 2)
    with as_stored(Files(folder), URL) as there:
        assert there == Files(folder)


def test_reading_does_not_wait_for_the_driver(s3: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    with stored(folder) as one:
        write(folder, 1)
        one.push()
        with as_stored(Files(tmp_path / "b" / "rates"), URL) as there:
            assert there.ledger.read_bytes() == Files(folder).ledger.read_bytes()


def test_other_rows_than_those_of_the_store_are_not_read(s3: Storage, tmp_path: Path) -> None:
    with stored(tmp_path / "a" / "rates"):
        write(tmp_path / "a" / "rates", 1)
    write(tmp_path / "b" / "rates", 2)
    with (
        pytest.raises(RefusedError, match="has other rows than"),
        as_stored(Files(tmp_path / "b" / "rates"), URL),
    ):
        pass


# Drivers


def test_a_driver_that_gave_the_sweep_back_is_not_waited_for(s3: Storage, tmp_path: Path) -> None:
    with stored(tmp_path / "rates"):
        assert "owner" in s3.objects(URL)
    assert "owner" not in s3.objects(URL)
    time = Time()
    with stored(tmp_path / "rates", time):
        assert time.seconds == 0


def _interrupted(one: Store, s3: Storage) -> None:
    """Interrupt a driver whose store does not answer."""
    with one:
        s3.link.cut()
        raise KeyboardInterrupt


def test_an_interruption_waits_for_no_answer(s3: Storage, tmp_path: Path) -> None:
    one = Store(Files(tmp_path / "rates"), URL)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(one, s3)
    s3.link.mend()
    one._thread.join()
    assert "owner" in s3.objects(URL)


def test_a_second_driver_is_refused_while_the_first_lives(s3: Storage, tmp_path: Path) -> None:
    first = killed(stored(tmp_path / "a" / "rates"))
    other = stored(tmp_path / "b" / "rates", Time(first._tell_owner))
    with pytest.raises(LockedError, match="another driver runs this sweep"), other:
        pass
    assert not (tmp_path / "b" / "rates").exists()


def test_the_sweep_of_a_driver_that_is_gone_is_taken_over(s3: Storage, tmp_path: Path) -> None:
    killed(stored(tmp_path / "a" / "rates"))
    time = Time()
    with stored(tmp_path / "b" / "rates", time):
        assert time.seconds == st.WATCH_SECONDS


def test_who_was_taken_over_has_lost_the_sweep(s3: Storage, tmp_path: Path) -> None:
    first = killed(stored(tmp_path / "a" / "rates"))
    with stored(tmp_path / "b" / "rates"):
        write(tmp_path / "b" / "rates", 2)
        write(tmp_path / "a" / "rates", 1)
        with pytest.raises(LockedError, match="another driver has taken over"):
            first.push()
        with pytest.raises(LockedError):
            first.check()
    assert s3.ledger(URL) == Files(tmp_path / "b" / "rates").ledger.read_bytes()


def test_who_was_taken_over_notices_without_a_row(s3: Storage, tmp_path: Path) -> None:
    time = Time()
    first = killed(stored(tmp_path / "a" / "rates", time))
    second = killed(stored(tmp_path / "b" / "rates"))
    time.wait(st.OWNER_SECONDS)
    for end in (first._beat, first.give_back):
        with pytest.raises(LockedError, match="another driver has taken over"):
            end()
    assert second._owner() == {"driver": second._driver, "who": st._who(), "beat": 1}


def test_of_two_drivers_that_begin_together_one_has_the_sweep(s3: Storage, tmp_path: Path) -> None:
    one, two = stored(tmp_path / "a" / "rates"), stored(tmp_path / "b" / "rates")
    for each in (one, two):
        each._watch()
        each._restore()
    two.push(claim=True)
    with pytest.raises(LockedError):
        one.push(claim=True)


WRITES = {URL: b"PUT /bucket/some/rates/ledger/00000002", GS: b"POST /upload/storage/"}


def test_a_write_whose_answer_was_lost_is_no_other_driver(
    either: tuple[Storage, str], tmp_path: Path
) -> None:
    there, url = either
    folder = tmp_path / "rates"
    one = killed(stored(folder, url=url))
    write(folder, 1)
    there.link.lost = WRITES[url]
    one.push()
    assert there.link.lost == b""
    write(folder, 2)
    one.push()
    assert there.ledger(url) == Files(folder).ledger.read_bytes()


# Checkpoints


class Kept:
    """A sweep of two rates with a store, trained by the stand-in for Ray."""

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder)
        self.store = killed(stored(folder))
        self.ledger = Ledger(self.files)
        self.driver = driver(self.ledger, request(grid([1e-3, 4e-3], policy="none")))
        self.driver.checkpoints = self.store

    def run(self, engine: type[Engine] = Engine) -> None:
        """Train all."""
        self.driver.begin({})
        engine(self.driver, v_shaped).run()


@pytest.fixture
def kept(s3: Storage, tmp_path: Path) -> Kept:
    one = Kept(tmp_path / "rates")
    with one.ledger:
        one.run()
    return one


def _named(files: Files) -> list[str]:
    """The checkpoints that a sweep still needs."""
    trials = led.fold(led.rows(files)).everything
    return sorted(one["path"] for trial in trials for one in trial.checkpoints)


def test_the_store_has_the_checkpoints_that_rows_name(s3: Storage, kept: Kept) -> None:
    kept.store.give_back()
    assert [one for one in s3.objects(URL) if one.startswith("checkpoints/")] == _named(kept.files)


def test_a_checkpoint_is_deleted_after_the_row_that_frees_it(s3: Storage, kept: Kept) -> None:
    before = {one for one in s3.objects(URL) if one.startswith("checkpoints/")}
    assert before > set(_named(kept.files))
    kept.store._beat()
    assert set(s3.objects(URL)) & before == set(_named(kept.files))


def test_who_was_taken_over_deletes_no_checkpoint(s3: Storage, kept: Kept, tmp_path: Path) -> None:
    killed(stored(tmp_path / "elsewhere" / "rates"))
    before = [one for one in s3.objects(URL) if one.startswith("checkpoints/")]
    with pytest.raises(LockedError):
        kept.store._beat()
    assert [one for one in s3.objects(URL) if one.startswith("checkpoints/")] == before


def test_a_checkpoint_that_is_only_in_the_store_is_fetched(
    s3: Storage, kept: Kept, tmp_path: Path
) -> None:
    kept.store.give_back()
    here = Files(tmp_path / "elsewhere" / "rates")
    with stored(here.folder) as one:
        paths = [here.folder / path for path in _named(here)]
        assert [one.has(path) for path in paths] == [True, True]
        assert not one.has(here.folder / "checkpoints/a-1/checkpoint_000000/checkpoint.pt")
    theirs = [(kept.files.folder / path).read_bytes() for path in _named(here)]
    assert [path.read_bytes() for path in paths] == theirs
    assert not (here.checkpoints / "a-1").exists()


def test_checkpoints_of_a_sweep_that_had_no_store_are_sent(s3: Storage, kept: Kept) -> None:
    kept.store.give_back()
    named = _named(kept.files)
    s3.files.rm_file(f"{URL}/{named[0]}")
    s3.files.pipe_file(f"{URL}/checkpoints/b-1/checkpoint_000000/checkpoint.pt", b"left over")
    kept.store.clean({(kept.files.folder / path).parent for path in named})
    assert [one for one in s3.objects(URL) if one.startswith("checkpoints/")] == named


def test_the_analysis_is_sent_and_what_it_lost_deleted(s3: Storage, tmp_path: Path) -> None:
    files = Files(tmp_path / "rates")
    with stored(files.folder):
        write(files.folder, 1)
        led.write_whole(files.summary, b"one")
        led.write_whole(files.figure("old"), b"old")
        led.write_whole(files.best_facts, b"{}")
    files.figure("old").unlink()
    with stored(files.folder):
        led.write_whole(files.summary, b"two")
    names = [one for one in s3.objects(URL) if not one.startswith("ledger/")]
    assert names == ["analysis/summary.md", "best/best.json"]
    assert s3.files.cat_file(f"{URL}/analysis/summary.md") == b"two"


def _results(folder: Path) -> None:
    write(folder, 1)
    led.write_whole(Files(folder).summary, b"one")
    led.write_whole(Files(folder).best_facts, b"{}")


def test_a_machine_without_an_analysis_deletes_none(s3: Storage, tmp_path: Path) -> None:
    with stored(tmp_path / "a" / "rates"):
        _results(tmp_path / "a" / "rates")
    with stored(tmp_path / "b" / "rates"):
        pass
    assert {"analysis/summary.md", "best/best.json"} < set(s3.objects(URL))


def test_an_error_gives_the_sweep_back_with_the_analysis_that_it_had(
    s3: Storage, tmp_path: Path
) -> None:
    folder = tmp_path / "rates"
    with stored(folder):
        _results(folder)

    def refused() -> None:
        with stored(folder):
            led.write_whole(Files(folder).summary, b"two")
            raise RefusedError("another base")

    with pytest.raises(RefusedError, match="another base"):
        refused()
    assert s3.files.cat_file(f"{URL}/analysis/summary.md") == b"one"
    assert "owner" not in s3.objects(URL)


def test_the_folder_of_checkpoints_may_be_a_link(s3: Storage, tmp_path: Path) -> None:
    folder, other = tmp_path / "rates", tmp_path / "disk"
    name = "checkpoints/a-1/checkpoint_000000/checkpoint.pt"
    one = killed(stored(folder))
    (other / name).parent.mkdir(parents=True)
    (other / name).touch()
    folder.mkdir(exist_ok=True)
    (folder / "checkpoints").symlink_to(other / "checkpoints")
    one.keep(folder.resolve() / name)
    assert name in s3.objects(URL)


def test_a_sweep_that_has_ended_sends_its_checkpoints(s3: Storage, kept: Kept) -> None:
    kept.store.give_back()
    named = _named(kept.files)
    s3.files.rm_file(f"{URL}/{named[0]}")
    with Ledger(kept.files) as ledger:
        ended = driver(ledger, request(grid([1e-3, 4e-3], policy="none")))
        assert ended.is_done()
        ended.keep_in(kept.store)
    assert set(named) < set(s3.objects(URL))


# Workers that write and read checkpoints in the store


class Elsewhere(Engine):
    """The stand-in for Ray, whose workers see the store alone."""

    def _begin(self) -> None:
        self.queue = [self._read(job) for job in self.queue]
        super()._begin()

    def _read(self, job: Job) -> Job:
        """A job with its checkpoint in a file."""
        if job.checkpoint is None or not job.store:
            return job
        copy = self.driver.ledger.files.folder.parent / f"{job.trial}.read"
        with fetched(job.store, job.checkpoint) as file:
            copy.write_bytes(file.read_bytes())
        return replace(job, checkpoint=str(copy), store="")

    def _save(self, job: Job, step: int) -> None:
        name = f"checkpoints/{job.trial}-{job.attempt}/checkpoint_{step:06}/checkpoint.pt"
        with tempfile.NamedTemporaryFile() as own:
            Path(own.name).write_text(str(step))
            send(self.driver.checkpoints.of_workers, name, Path(own.name))
        self.driver.saved(job.trial, self.driver.ledger.files.folder.resolve() / name)


@pytest.fixture
def elsewhere(s3: Storage, tmp_path: Path) -> Iterator[Kept]:
    """A sweep whose workers are elsewhere."""
    one = Kept(tmp_path / "rates")
    one.store.by_workers = True
    with one.ledger:
        yield one


def test_workers_elsewhere_keep_checkpoints_in_the_store_alone(
    s3: Storage, elsewhere: Kept
) -> None:
    elsewhere.run(Elsewhere)
    elsewhere.store.give_back()
    names = [one for one in s3.objects(URL) if one.startswith("checkpoints/")]
    assert names == _named(elsewhere.files) != []
    assert not elsewhere.files.checkpoints.exists()


def test_a_worker_elsewhere_goes_on_from_the_store(s3: Storage, elsewhere: Kept) -> None:
    driver = elsewhere.driver
    driver.begin({})
    engine = Elsewhere(driver, v_shaped, slots=1)
    engine.run(records=3)
    driver.failed(engine.running[0][0].trial, "node", "it is gone", "")
    job = driver.next_job()
    assert job is not None and job.checkpoint is not None
    with fetched(job.store, job.checkpoint) as file:
        assert int(file.read_text()) == driver.sweep.trials[job.trial].step > 0


def test_an_attempt_is_in_the_store_when_it_has_begun(s3: Storage, elsewhere: Kept) -> None:
    """So its number, which is in the names of its checkpoints, is no other driver's."""
    elsewhere.driver.begin({})
    job = elsewhere.driver.next_job()
    assert job is not None
    elsewhere.driver.began(job.trial)
    assert s3.ledger(URL) == elsewhere.files.ledger.read_bytes()


def test_a_checkpoint_that_did_not_arrive_is_told(s3: Storage, elsewhere: Kept) -> None:
    file = elsewhere.files.checkpoints / "a-1/checkpoint_000000/checkpoint.pt"
    with pytest.raises(StorageError, match="has no checkpoints/a-1/"):
        elsewhere.store.keep(file)
    assert elsewhere.store.source(file) is None


def test_a_worker_whose_link_is_mended_in_time_sends_its_checkpoint(
    s3: Storage, tmp_path: Path
) -> None:
    time = Time(s3.link.mend)
    (tmp_path / "one").write_text("1")
    s3.link.cut()
    bucket = st.bucket_at(URL)
    st.insist(lambda: bucket.put("one", tmp_path / "one"), clock=time.now, pause=time.wait)
    assert s3.files.cat_file(f"{URL}/one") == b"1"


# A link that fails


def test_a_signal_keeps_its_exit_code_where_the_store_does_not_answer(
    s3: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stored(tmp_path / "rates") as one:
        write(tmp_path / "rates", 1)
        s3.link.cut()
        one.code = 143
    s3.link.mend()
    assert "does not answer" in capsys.readouterr().err


def test_a_refusal_that_does_not_name_its_condition_is_one(s3: Storage, tmp_path: Path) -> None:
    named = b"<Condition>If-None-Match</Condition>"
    s3.link.answers[named] = b" " * len(named)
    one = killed(stored(tmp_path / "rates"))
    assert not one._bucket.create("ledger/00000001.jsonl", b"")


def test_a_link_that_is_mended_in_time_loses_nothing(
    either: tuple[Storage, str], tmp_path: Path
) -> None:
    there, url = either
    folder = tmp_path / "rates"
    write(folder, 1)
    waits, last = itertools.count(1), {URL: 3, GS: 1}[url]
    time = Time(lambda: there.link.mend() if next(waits) == last else None)
    one = killed(stored(folder, time, url))
    there.link.cut()
    write(folder, 2)
    one._insist(one.push)
    assert there.ledger(url) == Files(folder).ledger.read_bytes()


def test_a_link_that_stays_cut_ends_the_sweep_with_its_rows_kept(
    s3: Storage, tmp_path: Path
) -> None:
    folder = tmp_path / "rates"
    one = killed(stored(folder))
    s3.link.cut()
    write(folder, 1)
    with pytest.raises(
        StorageError, match=r"does not answer .* It failed for 60 s; what it does not have is kept"
    ):
        one._insist(one.push)
    with pytest.raises(StorageError):
        one.check()
    s3.link.mend()
    with stored(folder):
        pass
    assert s3.ledger(URL) == Files(folder).ledger.read_bytes() != b""


def _run_until_it_ends(one: Store, there: Storage) -> None:
    """Cut the link while the thread copies, and wait for its end."""
    with one:
        write(one.files.folder, 1)
        there.link.cut()
        one._thread.join()


def test_the_thread_that_copies_ends_when_the_link_stays_cut(
    either: tuple[Storage, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, url = either
    one = Store(Files(tmp_path / "rates"), url, give_up=0.0)
    with pytest.raises(StorageError, match="does not answer"):
        _run_until_it_ends(one, there)
    there.link.mend()
    assert "is kept in" in capsys.readouterr().err


def test_a_slow_link_loses_nothing(either: tuple[Storage, str], tmp_path: Path) -> None:
    there, url = either
    folder = tmp_path / "rates"
    there.link.delay = 0.2
    with Store(Files(folder), url):
        write(folder, 1, 2)
    assert there.ledger(url) == Files(folder).ledger.read_bytes()


# What a person can get wrong


def _said(folder: Path, url: str = URL) -> str:
    """What a driver says that can't use the store."""
    with pytest.raises(StorageError) as told, stored(folder, url=url):
        pass
    assert not folder.exists()
    return str(told.value)


def test_a_bucket_that_does_not_exist_is_told(s3: Storage, tmp_path: Path) -> None:
    said = _said(tmp_path / "rates", "s3://nowhere/rates")
    assert said == (
        "s3://nowhere/rates: there is no bucket nowhere; create it, or choose another with --out"
    )


def test_an_endpoint_that_is_down_is_told(s3: Storage, tmp_path: Path) -> None:
    s3.link.cut()
    said = _said(tmp_path / "rates")
    s3.link.mend()
    assert said.startswith(f"{URL}: does not answer (EndpointConnectionError: ")
    assert said.endswith("; is the network up, and AWS_ENDPOINT_URL right?")


def test_lacking_credentials_are_told(
    s3: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    said = _said(tmp_path / "rates")
    assert said == (
        f"{URL}: there are no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE"
    )


def test_credentials_that_are_refused_are_told(s3: Storage, tmp_path: Path) -> None:
    s3.refuse(all_requests=True)
    said = _said(tmp_path / "rates")
    assert said.startswith(f"{URL}: refused (")
    assert said.endswith("; the credentials need to read, write, list and delete there")


def test_a_store_without_conditional_writes_is_refused(s3: Storage, tmp_path: Path) -> None:
    s3.link.changes = {b"If-None-Match": b"X-None-Matches"}
    assert "bucket bucket ignores conditional writes" in _said(tmp_path / "rates")


def test_a_store_that_says_that_it_has_no_conditional_writes_is_refused(
    s3: Storage, tmp_path: Path
) -> None:
    s3.link.refusal = refusal("501 Not Implemented", "NotImplemented", "If-None-Match")
    assert _said(tmp_path / "rates") == (
        f"{URL}: bucket bucket has no conditional writes (If-None-Match); choose another with --out"
    )


# Stores that are full: of RFC 4918, Ceph, MinIO, one that calls it a lack of rights, and of Amazon's limit of the
# size of an object.
FULL = [
    ("507 Insufficient Storage", "InsufficientStorage", "no space"),
    ("403 Forbidden", "QuotaExceeded", "no more"),
    ("507 Insufficient Storage", "XMinioStorageFull", "the drive path is full"),
    ("403 Forbidden", "AccessDenied", "the quota of the bucket is used up"),
    ("400 Bad Request", "EntityTooLarge", "exceeds the maximum allowed size"),
]


@pytest.mark.parametrize("answer", FULL)
def test_a_full_store_ends_the_sweep_which_goes_on_when_there_is_room(
    s3: Storage, tmp_path: Path, answer: tuple[str, str, str]
) -> None:
    folder = tmp_path / "rates"
    one = killed(stored(folder))
    s3.link.refusal = refusal(*answer)
    write(folder, 1)
    with pytest.raises(StorageError) as told:
        one._insist(one.push)
    said = str(told.value)
    assert said.startswith(f"{URL}: bucket bucket is full (")
    assert said.endswith(
        f"{answer[2]}); make room in it, or choose another with --out. It failed for 60 s; what it does not have "
        f"is kept in {folder}"
    )
    s3.link.refusal = b""
    with stored(folder):
        pass
    assert s3.ledger(URL) == Files(folder).ledger.read_bytes() != b""


def test_a_store_that_is_full_at_the_start_is_told(s3: Storage, tmp_path: Path) -> None:
    s3.link.refusal = refusal(*FULL[0])
    assert _said(tmp_path / "rates").startswith(f"{URL}: bucket bucket is full (")


# Google's store, of which a stand-in is at hand


def test_a_sweep_goes_on_elsewhere_from_google(gs: Storage, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "rates", tmp_path / "b" / "rates"
    with stored(first, url=GS):
        write(first, 1, 2)
    with stored(second, url=GS):
        write(second, 3)
    assert gs.ledger(GS) == Files(second).ledger.read_bytes() != Files(first).ledger.read_bytes()
    assert "owner" not in gs.objects(GS)


def test_of_two_drivers_one_has_the_sweep_at_google(gs: Storage, tmp_path: Path) -> None:
    one, two = stored(tmp_path / "a" / "rates", url=GS), stored(tmp_path / "b" / "rates", url=GS)
    for each in (one, two):
        each._restore()
    two.push(claim=True)
    with pytest.raises(LockedError):
        one.push(claim=True)


def test_checkpoints_come_and_go_at_google(gs: Storage, tmp_path: Path) -> None:
    one = killed(stored(tmp_path / "rates", url=GS))
    name = "checkpoints/a-1/checkpoint_000000/checkpoint.pt"
    file = tmp_path / "rates" / name
    (tmp_path / "one").write_text("1")
    send(GS, name, tmp_path / "one")
    assert one.has(file)
    assert file.read_text() == "1"
    one.clean({file.parent})
    assert gs.objects(f"{GS}/checkpoints") == [name.removeprefix("checkpoints/")]
    one.remove(file.parent)
    one._beat()
    one._bucket.delete(name)  # which is gone
    assert gs.objects(f"{GS}/checkpoints") == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (FULL[0], "bucket bucket is full ("),
        (FULL[3], "bucket bucket is full ("),
        (("403 Forbidden", "forbidden", "no right to write"), "refused ("),
        (("401 Unauthorized", "required", "Anonymous caller"), "refused ("),
    ],
)
def test_what_google_refuses_is_told(
    gs: Storage, tmp_path: Path, answer: tuple[str, str, str], said: str
) -> None:
    gs.link.refusal = refusal(*answer)
    assert _said(tmp_path / "rates", GS).startswith(f"{GS}: {said}")


def test_a_bucket_that_google_does_not_have_is_told(gs: Storage, tmp_path: Path) -> None:
    assert _said(tmp_path / "rates", "gs://nowhere/rates") == (
        "gs://nowhere/rates: there is no bucket nowhere; create it, or choose another with --out"
    )


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3://B/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "gs://bucket",
        "az://bucket/x",
    ],
)
def test_an_address_without_a_name_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected a folder, or s3:// or gs://"):
        folder_of(url)


def test_the_folder_has_the_last_name_of_the_address() -> None:
    assert folder_of("s3://bucket/a/b/rates/") == Path("results/rates")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs.core")])
def test_the_package_that_is_lacking_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(UsageError, match=rf"pip install 'tinylm-sweeps\[{scheme}\]'"),
        stored(tmp_path, url=f"{scheme}://bucket/some/rates"),
    ):
        pass


def test_a_segment_says_who_wrote_it(s3: Storage, tmp_path: Path) -> None:
    write(tmp_path / "rates", 1)
    one: Any = killed(stored(tmp_path / "rates"))
    head = json.loads(s3.files.cat_file(f"{URL}/ledger/00000001.jsonl").partition(b"\n")[0])
    assert head == {"driver": one._driver, "who": st._who(), "begin": 0}
