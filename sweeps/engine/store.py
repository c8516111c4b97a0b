"""Where the checkpoints of a sweep are kept: in its folder, and with `--out s3://..` or `gs://..` in a store too.

In the store are the ledger in numbered segments (`ledger/`), the checkpoints that its rows name, the analysis,
and the `owner` object, which changes as long as a driver runs. Each segment is written if no other is there:
that write, not the owner object, decides which driver has the sweep. A checkpoint is in the store before a
row names it, and is deleted there after the row that frees it has arrived. Under a cluster that was running, the
workers write checkpoints to the store and read them there, with the credentials of their own nodes. s3fs and
gcsfs are loaded when they are needed.
"""

import errno
import json
import logging
import os
import platform
import re
import secrets
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from sweeps import ledger as led
from sweeps.exits import CommandError, LockedError, RefusedError, StorageError, UsageError
from tinylm.files import sync

PUSH_SECONDS = 1.0  # between two looks for rows that are not in the store
OWNER_SECONDS = 3.0  # between two changes of the owner object
WATCH_SECONDS = 30.0  # for which the object of a driver that is gone does not change
GIVE_UP_SECONDS = 60.0  # after which a store that can't be used ends the sweep
# The driver ends first, unless the store fails a worker alone.
_WORKER_GIVES_UP = 2 * GIVE_UP_SECONDS
_SEGMENT_BYTES = 32_000_000  # of rows, at most
_AT_ONCE = 200  # segments that are read at once
_SIGNALED = 128  # from which on the exit code of a session says that a signal ended it
_TRIES = 2  # of a request, each with these limits
_CONNECT_SECONDS, _READ_SECONDS = 5, 10
_LIMITS = {
    "connect_timeout": _CONNECT_SECONDS,
    "read_timeout": _READ_SECONDS,
    "retries": {"max_attempts": 0},
}
_Found = TypeVar("_Found")
_NOT_KNOWN, _NO_ROOM = 401, 507  # statuses of HTTP
_FULL = "quota|StorageFull|EntityTooLarge"  # in what stores say that have no room
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


def is_url(out: str) -> bool:
    """Whether a sweep is to be kept in a store, also one of a kind that can't be used."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", out) is not None


def folder_of(url: str) -> Path:
    """The folder in which a sweep with a store is run; `UsageError` if the URL names none."""
    scheme, _, path = url.partition("://")
    bucket, *parts = path.removesuffix("/").split("/")
    is_bucket = scheme in _KINDS and _BUCKET.fullmatch(bucket) is not None
    if not is_bucket or not parts or not all(map(led.is_name, parts)):
        raise UsageError(
            f"--out {url}: expected a folder, or s3:// or gs:// with BUCKET/NAME or BUCKET/PREFIX/NAME, of "
            "letters, digits, _, - and ."
        )
    return led.RESULTS / parts[-1]


@dataclass
class Checkpoints:
    """The checkpoints of a sweep, in its folder alone."""

    files: led.Files
    code: int = field(default=0, init=False)  # of the session, once it has ended

    @property
    def of_workers(self) -> str:
        """The URL of the store in which workers write and read them; empty if they do in the folder."""
        return ""

    def has(self, file: Path) -> bool:
        """Whether a checkpoint is there, to be read."""
        return file.is_file()

    def source(self, file: Path) -> str | None:
        """Where a worker reads a checkpoint: a path, or a name in the store `of_workers`; None if it is gone."""
        return str(file.resolve()) if self.has(file) else None

    def begin(self) -> None:
        """Make sure of the rows so far, before the attempt that the last one begins saves anything."""

    def keep(self, file: Path) -> None:
        """Make sure of a checkpoint, before a row names it."""
        for written in (file, file.parent):
            sync(written)

    def remove(self, folder: Path) -> None:
        """Delete the checkpoint in a folder, which no row needs any longer."""
        self.files.remove_checkpoint(folder)

    def clean(self, kept: Collection[Path]) -> None:
        """Bring what is kept elsewhere to that of these folders."""

    def check(self) -> None:
        """Raise the error for which the sweep can't go on."""


@contextmanager
def opened(files: led.Files, url: str, *, by_workers: bool = False) -> Iterator[Checkpoints]:
    """The checkpoints of a sweep: in its folder, and with a URL in a store, which this driver has for as long
    as the context lasts, and which its workers may write and read; see `Store` for the errors."""
    if not url:
        yield Checkpoints(files)
        return
    with Store(files, url, by_workers) as store:
        yield store


@contextmanager
def as_stored(files: led.Files, url: str) -> Iterator[led.Files]:
    """The sweep with the rows that its next driver would begin with, to be read for as long as the context lasts:
    a copy, if only the store has some. Takes no lock, and writes nothing to either."""
    rows = Store(files, url).to_begin_with() if url else None
    if rows is None:
        yield files
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = led.Files(Path(folder, files.name))
        copy.folder.mkdir()
        copy.ledger.write_bytes(rows)
        yield copy


def send(url: str, name: str, file: Path) -> None:
    """Write a checkpoint of a worker to a store; `StorageError` if it can't be used."""
    insist(lambda: _bucket(url).put(name, file), _WORKER_GIVES_UP)


@contextmanager
def fetched(url: str, name: str) -> Iterator[Path]:
    """The file of a checkpoint in a store, for a worker, as long as the context lasts; `StorageError` if the store
    can't be used."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, led.Files.CHECKPOINT)
        insist(lambda: _bucket(url).get(name, file), _WORKER_GIVES_UP)
        yield file


def insist(
    ask: Callable[[], _Found],
    give_up: float = GIVE_UP_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Any] = time.sleep,
    check: Callable[[], Any] = lambda: None,
) -> _Found:
    """What a store answers, also one that fails for less than `give_up` seconds, unless `check` raises."""
    begun = clock()
    while True:
        check()
        try:
            return ask()
        except StorageError as error:
            if clock() - begun > give_up:
                raise StorageError(f"{error}. It failed for {give_up:g} s") from error
            pause(PUSH_SECONDS)


@dataclass
class Store(Checkpoints):
    """The copy of a sweep in a store, which this driver has for as long as the context lasts.

    Raises `LockedError` if another driver has it, `StorageError` if the store can't be used, `RefusedError`
    if the folder and the store have different rows, and `UsageError` if s3fs or gcsfs is not installed.
    """

    url: str
    by_workers: bool = False  # whether these write and read checkpoints in it themselves
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Any] = time.sleep
    give_up: float = GIVE_UP_SECONDS
    _driver: str = field(default_factory=lambda: secrets.token_hex(8))
    _next: int = 1  # the number of the next segment
    _end: int = 0  # bytes of the ledger that are in segments
    # A segment that may have arrived, and its bytes of rows.
    _trying: tuple[bytes, int] | None = None
    _claimed: bytes = b""  # the segment that was written last
    _freed: list[str] = field(default_factory=list)  # checkpoints to delete after the next rows
    _error: Exception | None = None
    _changed: float = 0.0  # when the owner object was, by the clock
    _beats: int = 0  # how often
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        self.take()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        if isinstance(error, KeyboardInterrupt):  # the store may take long to answer
            return
        self._thread.join()
        if self._error is not None:
            if error is None:
                raise self._error
            return
        try:
            self.give_back(with_results=error is None)
        except CommandError as late:
            if error is None and self.code < _SIGNALED:
                raise
            print(f"{late}; {self._kept()}", file=sys.stderr)

    @cached_property
    def _bucket(self) -> "Bucket":
        return bucket_at(self.url)

    def take(self) -> None:
        """Get the sweep for this driver, and the rows that only the store has."""
        self._watch()
        self._restore()
        self.push(claim=True)
        # Twice the same: the second write has to fail.
        if self._bucket.create(self._segment(self._next - 1), self._claimed):
            raise StorageError(
                f"{self.url}: bucket {self._bucket.name} ignores conditional writes (If-None-Match), so two drivers "
                "could write one sweep; choose another with --out"
            )
        self._tell_owner()

    def give_back(self, *, with_results: bool = True) -> None:
        """Send what is left, and let the next driver begin at once."""
        self.push()
        self._require_owner()
        self._delete_freed(list(self._freed))
        if with_results:
            self._send_results()
        self._require_owner()
        self._bucket.delete("owner")

    def _watch(self) -> None:
        """Return when no other driver runs the sweep; `LockedError` if one does."""
        owner = self._owner()
        if owner is None:
            return
        print(
            f"{self.url}: {owner['who']} has not given the sweep back; watching for "
            f"{WATCH_SECONDS:g} s whether it still runs",
            file=sys.stderr,
            flush=True,
        )
        begun = self.clock()
        while self.clock() - begun < WATCH_SECONDS:
            self.pause(PUSH_SECONDS)
            now = self._owner()
            if now is None:
                return
            if now != owner:
                raise LockedError(f"{self.url}: another driver runs this sweep ({now['who']})")

    def _owner(self) -> dict[str, Any] | None:
        """What the driver that has the sweep, or had it, has written last; None if it was given back."""
        text = self._bucket.read("owner")
        return None if text is None else json.loads(text)

    def _require_owner(self) -> None:
        """Raise `LockedError` if another driver has the sweep."""
        owner = self._owner()
        if owner is not None and owner["driver"] != self._driver:
            raise self._lost()

    def _lost(self) -> LockedError:
        """The error of a driver that has lost the sweep, which is also that of `check`."""
        self._error = LockedError(
            f"{self.url}: another driver has taken over this sweep. What this one measured since, if anything, is in "
            f"{self.files.folder} alone"
        )
        return self._error

    def _tell_owner(self) -> None:
        """Change the owner object."""
        self._beats += 1
        told = {"driver": self._driver, "who": _who(), "beat": self._beats}
        self._bucket.write("owner", json.dumps(told).encode())
        self._changed = self.clock()

    def _segment(self, number: int) -> str:
        return f"ledger/{number:08}.jsonl"

    def _restore(self) -> None:
        """Find where the segments end, and write the rows that only they have into the ledger."""
        with led.Ledger(self.files) as ledger:  # no other driver has it
            deque(ledger.rows(), maxlen=0)  # drops what a crash has cut
            size = self.files.ledger.stat().st_size
            new = self._only_there(size)
            if not new:
                return
            with self.files.ledger.open("ab") as stream:
                stream.write(new)
                stream.flush()
                os.fsync(stream.fileno())
        for file in (self.files.notes, self.files.space):
            if not file.exists():
                self._bucket.get(self._key(file), file)
        rows = new.count(b"\n")
        print(f"{self.files.folder}: got {rows:,} rows from {self.url}", flush=True)

    def to_begin_with(self) -> bytes | None:
        """The rows that a driver would begin with; None if the folder has them all."""
        here = self._rows(0, -1)
        new = self._only_there(len(here))
        return here + new if new else None

    def _only_there(self, size: int) -> bytes:
        """The rows that the store has after so many bytes of the ledger. `RefusedError` if these are others than
        those of the store."""
        numbers = sorted(int(Path(one).stem) for one in self._bucket.list("ledger"))
        self._next = len(numbers) + 1
        if numbers != list(range(1, self._next)):
            raise led.LedgerError(f"{self.url}/ledger: segments are missing")
        begin, rows = self._read(numbers.pop()) if numbers else (0, b"")
        self._end = begin + len(rows)
        if self._end > size:
            found = bytearray()
            for at in range(0, len(numbers), _AT_ONCE):
                some = numbers[at : at + _AT_ONCE]
                texts = self._bucket.read_all([self._segment(number) for number in some])
                for number, text in zip(some, texts, strict=True):
                    self._add(found, number, *self._parse(number, text))
            self._add(found, self._next - 1, begin, rows)
            self._require_same(found.startswith(self._rows(0, size)))
            return bytes(found[size:])
        while numbers and not rows:
            begin, rows = self._read(numbers.pop())
        # The checksums in the last rows cover all before.
        self._require_same(self._rows(begin, len(rows)) == rows)
        return b""

    def _read(self, number: int) -> tuple[int, bytes]:
        """Where a segment begins in the ledger, and its rows."""
        return self._parse(number, self._bucket.read(self._segment(number)))

    def _add(self, found: bytearray, number: int, begin: int, rows: bytes) -> None:
        """Add the rows of a segment to those before; `LedgerError` if it does not begin at their end."""
        if begin != len(found):
            raise led.LedgerError(f"{self.url}/{self._segment(number)}: is damaged")
        found += rows

    def _parse(self, number: int, text: bytes | None) -> tuple[int, bytes]:
        """Where a segment begins in the ledger, and its rows; `LedgerError` if it is none."""
        head, _, rows = (text or b"").partition(b"\n")
        try:
            return int(json.loads(head)["begin"]), rows
        except (ValueError, KeyError, TypeError) as error:
            name = f"{self.url}/{self._segment(number)}"
            raise led.LedgerError(f"{name}: is damaged: {error}") from error

    def _require_same(self, same: bool) -> None:
        if not same:
            raise RefusedError(
                f"{self.files.ledger}: has other rows than {self.url}: another driver went on from there. To go "
                f"on with the store's, move {self.files.folder} away; to keep these, choose another --out"
            )

    def _rows(self, begin: int, size: int) -> bytes:
        """The whole rows among so many bytes of the ledger."""
        try:
            with self.files.ledger.open("rb") as stream:
                stream.seek(begin)
                found = stream.read(size)
        except FileNotFoundError:  # the sweep has not begun
            return b""
        return found[: found.rfind(b"\n") + 1]

    def push(self, *, claim: bool = False) -> None:
        """Write the rows that are not in the store into the next segment, or several; a claim is one even
        without rows. `LockedError` if another driver has written it."""
        with self._lock:
            while True:
                if self._trying is None:
                    rows = self._rows(self._end, _SEGMENT_BYTES)
                    if not rows and not claim:
                        return
                    head = {"driver": self._driver, "who": _who(), "begin": self._end}
                    self._trying = json.dumps(head).encode() + b"\n" + rows, len(rows)
                text, size = self._trying
                name = self._segment(self._next)
                # One that is there may be this one, of which no answer came.
                if not self._bucket.create(name, text) and self._bucket.read(name) != text:
                    raise self._lost()
                self._claimed, self._trying = text, None
                self._next, self._end, claim = self._next + 1, self._end + size, False

    def _run(self) -> None:
        """Copy rows until the context ends, or until it can't go on."""
        failed: float | None = None  # since when
        while not self._ending.wait(PUSH_SECONDS):
            try:
                self._beat()
                if failed is not None:
                    print(f"{self.url}: answers again", file=sys.stderr, flush=True)
                failed = None
            except StorageError as error:
                if failed is None:
                    failed = self.clock()
                    print(f"{error}; {self._kept()}", file=sys.stderr, flush=True)
                if self.clock() - failed > self.give_up:
                    self._error = self._given_up(error)
                    return
            except Exception as error:  # noqa: BLE001 the sweep ends with it; see `check`
                self._error = error
                return

    def _beat(self) -> None:
        """Copy new rows, delete what they have freed, and change the owner object if it is time."""
        self._stay_owner()
        freed = list(self._freed)  # by rows that are in the ledger
        self.push()
        self._delete_freed(freed)

    def _stay_owner(self) -> None:
        """Change the owner object if it is time; `LockedError` if another driver has the sweep."""
        if self.clock() - self._changed >= OWNER_SECONDS:
            self._require_owner()
            self._tell_owner()

    def _delete_freed(self, freed: list[str]) -> None:
        for key in freed:
            self._stay_owner()
            self._bucket.delete(key)
            self._freed.remove(key)

    def _kept(self) -> str:
        return f"what it does not have is kept in {self.files.folder}"

    def _given_up(self, error: StorageError) -> StorageError:
        return StorageError(f"{error}. It failed for {self.give_up:g} s; {self._kept()}")

    def _insist(self, ask: Callable[[], _Found]) -> _Found:
        """What the store answers, also one that fails for less than `give_up` seconds."""
        try:
            return insist(ask, self.give_up, self.clock, self.pause, self.check)
        except StorageError as error:
            self._error = self._error or StorageError(f"{error}; {self._kept()}")
            raise self._error from error.__cause__

    def _key(self, file: Path) -> str:
        """The name in the store of a file in the sweep's folder, in which `checkpoints` may be a link."""
        path, folder = file.absolute(), self.files.folder
        own = next(one for one in (folder.resolve(), folder.absolute()) if one in path.parents)
        return path.relative_to(own).as_posix()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    @property
    def of_workers(self) -> str:
        return self.url if self.by_workers else ""

    def has(self, file: Path) -> bool:
        if file.is_file():
            return True
        return self._insist(lambda: self._bucket.get(self._key(file), file))

    def source(self, file: Path) -> str | None:
        if not self.by_workers:
            return super().source(file)
        name = self._key(file)
        return name if self._insist(lambda: self._bucket.has(name)) else None

    def begin(self) -> None:
        # Once it has begun in the store, no other driver gives a checkpoint the same name.
        self._insist(self.push)

    def keep(self, file: Path) -> None:
        name = self._key(file)
        self._insist(self.push)  # the store names the checkpoint before this one, at the latest now
        if not self.by_workers:
            super().keep(file)
            self._insist(lambda: self._bucket.put(name, file))
        elif not self._insist(lambda: self._bucket.has(name)):
            raise StorageError(f"{self.url}: has no {name}, which a worker has written there")

    def remove(self, folder: Path) -> None:
        key = self._key(folder / self.files.CHECKPOINT)
        super().remove(folder)
        self._freed.append(key)

    def clean(self, kept: Collection[Path]) -> None:
        there = set(self._insist(lambda: self._bucket.list("checkpoints")))
        files = {self._key(folder / self.files.CHECKPOINT): folder for folder in kept}
        for key in there - files.keys():
            self._insist(lambda key=key: self._bucket.delete(key))  # type: ignore[misc]
        for key in files.keys() - there:
            file = files[key] / self.files.CHECKPOINT
            if file.is_file():
                self._insist(lambda key=key, file=file: self._bucket.put(key, file))  # type: ignore[misc]

    def _send_results(self) -> None:
        """Send what the folder has besides the ledger, checkpoints and what only a driver reads."""
        files = self.files
        for folder in (files.analysis, files.best):
            if not folder.is_dir():  # on this machine; another may have sent one
                continue
            sent = set()
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    self._stay_owner()
                    self._bucket.put(key := self._key(file), file)
                    sent.add(key)
            for key in set(self._bucket.list(folder.name)) - sent:
                self._bucket.delete(key)
        for file in (files.notes, files.space):
            if file.is_file():
                self._bucket.put(self._key(file), file)


def _who() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def place(folder: Path, url: str) -> "Folder | Bucket":
    """What the driver and the workers of a sweep both see: its folder, or with a URL a store."""
    return bucket_at(url) if url else Folder(folder)


@dataclass(frozen=True)
class Folder:
    """The files in a folder, as a `Bucket` has objects. What fails is an `OSError`."""

    path: Path

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        new = self.path / f"{name}-new"
        new.write_bytes(content)
        new.replace(self.path / name)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def beginning(self, prefix: str) -> list[str]:
        """The files whose names begin so."""
        return [file.name for file in self.path.glob(f"{prefix}*")]

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        (self.path / name).unlink(missing_ok=True)


class Bucket(ABC):
    """The objects under a URL. What fails is a `StorageError` with what to do."""

    extra: ClassVar[str]  # of this package, which installs what is needed

    def __init__(self, url: str) -> None:
        try:
            self._files, self._errors = self._open()
        except ImportError as error:
            raise UsageError(
                f"--out {url}: {error.name} is not installed; install it with pip install "
                f"'tinylm-sweeps[{self.extra}]'"
            ) from error
        self._url = url.removesuffix("/")
        self._root = self._url.partition("://")[2]

    @abstractmethod
    def _open(self) -> tuple[Any, tuple[type[Exception], ...]]:
        """The file system of fsspec, and the errors that it raises."""

    @abstractmethod
    def _words(self, error: Exception) -> str:
        """What people read of an error that only this kind of store has: what is wrong, and what to do."""

    @property
    def name(self) -> str:
        """The name of the bucket."""
        return self._root.partition("/")[0]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise StorageError(f"{self._url}: {self._common_words(error)}") from error

    def _common_words(self, error: Exception) -> str:
        """What people read of an error."""
        if isinstance(error, FileNotFoundError):  # where a missing object is no answer
            return f"there is no bucket {self.name}; create it, or choose another with --out"
        if _is_full(error):
            return f"bucket {self.name} is full ({_line(error)}); make room in it, or choose another with --out"
        return self._words(error)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object if there is none of that name; whether it was written."""
        with self._told():
            try:
                self._files.pipe_file(f"{self._root}/{name}", content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:  # of a server that does not name the condition
                if _code(error.__cause__) == "PreconditionFailed":
                    return False
                raise
            return True

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        with self._told():
            self._files.pipe_file(f"{self._root}/{name}", content)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none."""
        with self._told():
            try:
                return self._files.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None

    def read_all(self, names: list[str]) -> list[bytes]:
        """The contents of objects that are there."""
        paths = [f"{self._root}/{name}" for name in names]
        with self._told():
            found = self._files.cat(paths)
            return [found[path] for path in paths]

    def has(self, name: str) -> bool:
        """Whether there is an object of that name."""
        with self._told():
            try:
                self._files.info(f"{self._root}/{name}")
            except FileNotFoundError:
                return False
            return True

    def beginning(self, prefix: str) -> list[str]:
        """The names of the objects that begin so, up to a folder."""
        with self._told():
            found = self._files.glob(f"{self._root}/{prefix}*")
            return [path.removeprefix(f"{self._root}/") for path in found]

    def list(self, folder: str) -> list[str]:
        """The names of the objects in a folder and below it."""
        with self._told():
            try:
                found = self._files.find(f"{self._root}/{folder}")
            except FileNotFoundError:
                return []
            return [path.removeprefix(f"{self._root}/") for path in found]

    def put(self, name: str, file: Path) -> None:
        """Write a file as an object."""
        with self._told():
            self._files.put_file(str(file), f"{self._root}/{name}")

    def get(self, name: str, file: Path) -> bool:
        """Write an object to a file; whether there is one."""
        if not self.has(name):
            return False
        new = file.with_name(f".{file.name}-new")
        with self._told():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{name}", str(new))
        sync(new)
        new.replace(file)
        return True

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with self._told(), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


class _S3(Bucket):
    extra = "s3"

    def _open(self) -> tuple[Any, tuple[type[Exception], ...]]:
        import s3fs
        from botocore.exceptions import BotoCoreError

        files = s3fs.S3FileSystem(
            config_kwargs=_LIMITS, use_listings_cache=False, skip_instance_cache=True
        )
        files.retries = _TRIES
        return files, (OSError, BotoCoreError)

    def _words(self, error: Exception) -> str:
        import botocore.exceptions as boto

        line = _line(error)
        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
            return (
                "there are no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE"
            )
        if isinstance(error, PermissionError):
            return f"refused ({error}); the credentials need to read, write, list and delete there"
        lost = boto.HTTPClientError, boto.ConnectionError, ConnectionError, TimeoutError
        if isinstance(error, lost):
            return f"does not answer ({line}); is the network up, and AWS_ENDPOINT_URL right?"
        if isinstance(error, OSError) and error.errno == errno.ENOSYS:
            return f"bucket {self.name} has no conditional writes (If-None-Match); choose another with --out"
        return f"failed ({line})"


class _Google(Bucket):
    extra = "gs"

    def _open(self) -> tuple[Any, tuple[type[Exception], ...]]:
        import aiohttp
        from gcsfs.core import GCSFileSystem
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # which logs what it raises
        limits = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        files = GCSFileSystem(
            session_kwargs={"timeout": limits}, use_listings_cache=False, skip_instance_cache=True
        )
        return files, (OSError, ValueError, HttpError, aiohttp.ClientError, GoogleAuthError)

    def _words(self, error: Exception) -> str:
        import aiohttp
        from google.auth.exceptions import GoogleAuthError

        line = _line(error)
        refused = getattr(error, "code", 0) == _NOT_KNOWN or str(error).startswith("Forbidden")
        if refused or isinstance(error, GoogleAuthError):
            return (
                f"refused ({line}); the credentials need to read, write, list and delete there: "
                "set GOOGLE_APPLICATION_CREDENTIALS, or type gcloud auth application-default login"
            )
        if isinstance(error, aiohttp.ClientConnectionError | ConnectionError | TimeoutError):
            return f"does not answer ({line}); is the network up?"
        return f"failed ({line})"


_KINDS: dict[str, type[Bucket]] = {"s3": _S3, "gs": _Google}


def bucket_at(url: str) -> Bucket:
    """The objects under a URL; `UsageError` if what reads it is not installed."""
    return _KINDS[url.partition("://")[0]](url)


_bucket = cache(bucket_at)  # for all attempts of a worker


def _code(error: BaseException | None) -> str:
    """What a store calls its error; empty if it is none of a store."""
    answer: dict[str, Any] = getattr(error, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _is_full(error: Exception) -> bool:
    """Whether an error says that there is no room, for all or for an object of this size."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", {})
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", getattr(error, "code", None))
    said = f"{_code(error.__cause__)} {error}"
    return status == _NO_ROOM or re.search(_FULL, said, re.IGNORECASE) is not None


def _line(error: BaseException) -> str:
    """The type of an error and its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
