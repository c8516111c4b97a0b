"""The ledger: a sweep as an append-only file of facts, and the fold that reads it.

Its rows are described in `sweeps.rows`. This module names the files under results/, except figures and
the folders of attempts, and needs only the standard library, except to read rows and to name the nearest
sweep to one that does not exist.
"""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Final, Self

from sweeps.exits import LockedError, StorageError, UsageError
from sweeps.rows import LONGEST_TEXT as LONGEST_TEXT
from sweeps.rows import OUT_OF_MEMORY as OUT_OF_MEMORY
from sweeps.rows import Action as Action
from sweeps.rows import Ending as Ending
from sweeps.rows import LedgerError as LedgerError
from sweeps.rows import Lines, damaged, sealed, tell
from sweeps.rows import NodeState as NodeState
from sweeps.rows import Role as Role
from sweeps.rows import Row as Row
from sweeps.rows import says_out_of_memory as says_out_of_memory
from tinylm.files import open_file, replacing

RESULTS = Path("results")
BASELINE = "baseline"  # the arm that the others of a study are compared with
SETTLED = {"finished", "diverged", "stopped"}  # statuses of trials that need no more training
VALUES = "values"  # what a search stops and promotes: values, of which seeds are repeats
BITS = "text"  # bits per byte are those of the text, without the ends of documents
# Kinds of rows that end an attempt; a `steered` row that stops its trial does, too.
_ATTEMPT_ENDS = {
    "paused", "stopped", "capped", "preempted", "finished", "diverged", "failed", "unusable", "withdrawn",
}  # fmt: skip
BY_HAND: Final = "stopped by hand"  # why a trial was stopped that somebody stopped, not the policy
AT_TARGET: Final = "target"  # how a trial finished before the end of its budget
_SAVED = r"checkpoint_\d+"  # how Ray Tune names the folder of a checkpoint
_LONGEST_DRIVER = 200  # characters of a file that are shown
_LOCK_SECONDS = 0.05  # between two tries
_TRIES, _LONG_TRIES = 4, 1200  # to lock it; who steers a sweep may have to read a large ledger
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_written_here = set[tuple[int, int]]()  # the ledgers that this process writes
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
LONGEST_NAME = 200  # characters; file names that are made from it have up to 255


def is_name(text: str) -> bool:
    """Whether a text can name a sweep, a space or an arm, and files that are made from it."""
    return len(text) <= LONGEST_NAME and NAME.fullmatch(text) is not None


def pool_of(role: str, arm: str, grid: str) -> str | None:
    """The key that a trial shares with the trials it competes with; None if it always runs to the end."""
    if role == "tuning":
        return f"{arm} {grid}"
    return "" if role == "search" else None


def value_of(values: Mapping[str, Any]) -> str:
    """The key of a value: what the trials share that differ only by seed, in whatever order it is written."""
    return json.dumps(values, sort_keys=True)


def ends_attempt(row: Row) -> bool:
    """Whether a row of a trial ends the attempt that is under way."""
    return row["kind"] in _ATTEMPT_ENDS or (row["kind"] == "steered" and row["action"] == "stop")


@dataclass(frozen=True)
class ResultsFolder:
    """The files of a results folder that do not belong to one sweep."""

    folder: Path = RESULTS

    @property
    def log(self) -> Path:
        """The experiment log of all sweeps."""
        return self.folder / "EXPERIMENT_LOG.md"

    @property
    def log_page(self) -> Path:
        """The same as a page."""
        return self.folder / "EXPERIMENT_LOG.html"

    @property
    def index(self) -> Path:
        """The page that links the sweeps' reports."""
        return self.folder / "index.html"

    @property
    def compare(self) -> Path:
        """The page that compares the experiments of the sweeps."""
        return self.folder / "compare.html"

    @property
    def written(self) -> Path:
        """The digests of what was written into it; see `sweeps.report.written`."""
        return self.folder / ".written"

    @property
    def mlflow(self) -> Path:
        """MLflow's database of all sweeps."""
        return self.folder / "mlflow.db"


@dataclass(frozen=True)
class Files:
    """Every file and folder of one sweep."""

    folder: Path

    LEDGER: ClassVar[str] = "ledger.jsonl"
    CHECKPOINT: ClassVar[str] = "checkpoint.pt"  # the file in each checkpoint's own folder

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.folder.name

    @property
    def results(self) -> ResultsFolder:
        """The results folder that the sweep is in."""
        return ResultsFolder(self.folder.parent)

    @property
    def ledger(self) -> Path:
        """The rows, from which everything else is derived."""
        return self.folder / self.LEDGER

    @property
    def has_begun(self) -> bool:
        """Whether there is a ledger, also one that can't be read. It is empty if its driver found no
        cluster."""
        try:
            there = self.ledger.stat()
        except OSError:
            return os.path.lexists(self.ledger)
        return bool(there.st_size) or not stat.S_ISREG(there.st_mode)

    @property
    def space(self) -> Path:
        """The search space of a sweep that Python code asked for; others have theirs elsewhere."""
        return self.folder / "space.yaml"

    @property
    def driver(self) -> Path:
        """Which process runs the sweep, while one does."""
        return self.folder / ".driver"

    @property
    def requests(self) -> Path:
        """What people ask of the driver, a file each; see `sweeps.steering`."""
        return self.folder / "steer"

    @property
    def notes(self) -> Path:
        """What people write about the sweep; programs create it once and then only read it."""
        return self.folder / "notes.md"

    @property
    def checkpoints(self) -> Path:
        """What Ray Tune writes; only the paths in `checkpointed` rows mean anything."""
        return self.folder / "checkpoints"

    def checkpoint(self, row: Row) -> Path:
        """The file that a `checkpointed` row names; `LedgerError` if that is not one of an attempt at its
        trial, or is there by a link that leads out of `checkpoints`."""
        file = self.folder / row["path"]
        own = rf"checkpoints/{re.escape(row['trial'])}-\d+/{_SAVED}/{re.escape(self.CHECKPOINT)}"
        is_inside = self.checkpoints.resolve() in file.resolve().parents
        if not is_inside or re.fullmatch(own, row["path"], re.ASCII) is None:
            why = f"path {row['path']!r} is not a checkpoint of this sweep"
            raise damaged(self.ledger, row["seq"], why)
        return file

    def attempts(self, trials: Iterable[str]) -> list[Path]:
        """The folders of all attempts at these trials, without links."""
        known = set(trials)
        return [
            folder
            for folder in self.checkpoints.glob("*-*/")
            if folder.name.rpartition("-")[0] in known and not folder.is_symlink()
        ]

    def saved(self, attempt: Path) -> list[Path]:
        """The folders of checkpoints in the folder of an attempt, by their names, without links."""
        return [
            folder
            for folder in attempt.glob("checkpoint_*/")
            if re.fullmatch(_SAVED, folder.name, re.ASCII) and not folder.is_symlink()
        ]

    def remove_checkpoint(self, folder: Path) -> None:
        """Delete the checkpoint in a folder, and the folders that are empty without it: this one and that
        of its attempt."""
        with contextlib.suppress(OSError):  # it is gone, can't be deleted, or others are beside it
            (folder / self.CHECKPOINT).unlink(missing_ok=True)
            folder.rmdir()
            folder.parent.rmdir()

    @property
    def wandb(self) -> Path:
        """What Weights & Biases writes, one folder per attempt."""
        return self.folder / "wandb"

    @property
    def best(self) -> Path:
        """The folder of the best model, which the analysis writes."""
        return self.folder / "best"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best model."""
        return self.best / self.CHECKPOINT

    @property
    def best_facts(self) -> Path:
        """Which run the best model is of, for programs."""
        return self.best / "best.json"

    @property
    def analysis(self) -> Path:
        """The folder of everything that is derived from the ledger and can be rewritten."""
        return self.folder / "analysis"

    @property
    def written(self) -> Path:
        """The digests of what was written into that folder; see `sweeps.report.written`."""
        return self.folder / ".written"

    @property
    def summary(self) -> Path:
        """The findings, for people."""
        return self.analysis / "summary.md"

    @property
    def findings(self) -> Path:
        """The findings, for programs."""
        return self.analysis / "summary.json"

    @property
    def report(self) -> Path:
        """The page with the curves, tables and decisions."""
        return self.analysis / "report.html"

    @property
    def trials_table(self) -> Path:
        """One row per trial."""
        return self.analysis / "trials.csv"

    @property
    def curves_table(self) -> Path:
        """One row per record; `sweeps.replay` reads it."""
        return self.analysis / "curves.csv"

    @property
    def arms_table(self) -> Path:
        """One row per arm of a study."""
        return self.analysis / "arms.csv"

    def figure(self, name: str, kind: str = "svg") -> Path:
        """A figure by its name, which `report.plots` gives it; svg or png."""
        return self.analysis / f"{name}.{kind}"

    @property
    def paper(self) -> Path:
        """Tables and figures for a paper."""
        return self.analysis / "paper"

    @property
    def events(self) -> Path:
        """TensorBoard event files, one folder per trial."""
        return self.analysis / "tensorboard"


def sweeps(results: Path = RESULTS) -> list[Files]:
    """The sweeps under a results folder, by name."""
    found = [Files(folder) for folder in sorted(results.glob("*/"))]
    return [files for files in found if files.has_begun]


def find_sweep(name: str) -> Files:
    """The sweep of a name under results/, or in a folder; `UsageError` if there is none."""
    for folder in (RESULTS / name, Path(name)):
        if os.path.lexists(Files(folder).ledger):
            return Files(folder)
    from tinylm.config import did_you_mean  # loads pydantic

    names = [files.name for files in sweeps()]
    hint = did_you_mean(Path(name).name, names) or f"; there are {', '.join(names) or 'none'}"
    missing = "no ledger.jsonl in that folder" if Path(name).is_dir() else "no such sweep"
    raise UsageError(f"{name}: {missing} in {RESULTS}/ or by path{hint}")


def find_sweeps(names: Sequence[str]) -> list[Files]:
    """The sweeps of these names, or all under results/ if there are no names; `UsageError` with every
    name that does not exist, or if there is no sweep at all."""
    if not names:
        found = sweeps()
        if not found:
            raise UsageError(f"no sweeps under {RESULTS}/; make sweep SPACE=lr runs one")
        return found
    found, wrong = [], []
    for name in names:
        try:
            found.append(find_sweep(name))
        except UsageError as error:
            wrong.append(str(error))
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either what it held or all of the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(content)


def open_ledger(files: Files) -> IO[bytes] | None:
    """The ledger of a sweep, to be read; None if there is none. `LedgerError` if it is no file."""
    path = files.ledger
    try:
        return open_file(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise LedgerError(f"{path}: is a broken symbolic link") from None
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LedgerError(f"{path}: is a symbolic link to itself") from error
        if error.errno not in {errno.EISDIR, errno.EINVAL, errno.ENXIO}:
            raise
        kind = "folder" if error.errno == errno.EISDIR else "device"
        raise LedgerError(f"{path}: is a {kind}, not a file") from error


def rows(files: Files, kinds: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a sweep, one by one, or only those of some kinds; none if it has no ledger. Safe while a
    driver writes."""
    stream = open_ledger(files)
    if stream is None:
        return
    with stream:
        lines = Lines(stream, files.ledger)
        yield from lines.of(kinds) if kinds else lines
        if lines.is_torn:
            tell(
                f"{files.ledger}: its last {lines.rest} bytes are no rows, as a power cut leaves them; the "
                "next run of the sweep drops them"
            )


def read(files: Files) -> list[Row]:
    """All rows of a sweep, or none if it has no ledger; safe while a driver writes."""
    return list(rows(files))


def _who() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _say_driver(files: Files, *, trains: bool) -> None:
    """Write down which process runs a sweep, for people: the lock is what counts. Who steers it writes nothing."""
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    with contextlib.suppress(OSError):
        files.driver.unlink(missing_ok=True)  # of a driver that was killed
        if trains:
            with files.driver.open("x") as stream:
                stream.write(f"{_who()}, since {since} UTC\n")


def _lock(stream: IO[bytes], files: Files) -> None:
    """Lock a ledger, as soon as those let it go that look who runs the sweep or steer it; `BlockingIOError`
    if a driver has it."""
    for number in itertools.count(1):
        try:
            # The kernel releases the lock when the process ends, however it ends.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if number >= (_TRIES if files.driver.exists() else _LONG_TRIES):
                raise
            time.sleep(_LOCK_SECONDS)
        else:
            return


def _driver_words(files: Files) -> str:
    """Which process runs a sweep, in parentheses; empty if it is not known."""
    try:
        return f" ({files.driver.read_text().strip()[:_LONGEST_DRIVER]})"
    except (OSError, UnicodeDecodeError):
        return ""


def has_driver(files: Files) -> bool:
    """Whether a driver runs a sweep now, whose ledger exists."""
    stream = open_ledger(files)
    if stream is None:
        return False
    with stream:  # which gives the lock back
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return False


def has_other_driver(files: Files) -> bool:
    """Whether a driver in another process runs a sweep now, whose ledger exists."""
    # Without the file, none has begun.
    is_begun = files.driver.exists() and files.ledger.exists()
    return is_begun and _key(files.ledger.stat()) not in _written_here and has_driver(files)


def _key(file: os.stat_result) -> tuple[int, int]:
    """What tells a file from all others."""
    return file.st_dev, file.st_ino


def require_writable(files: Files) -> None:
    """Raise the `OSError` of a driver that can't write the sweep; nothing is left of the attempt."""
    missing = [one for one in (files.folder, *files.folder.parents) if not one.exists()]
    new = missing[-1] if missing else files.ledger
    try:
        with tempfile.TemporaryFile(dir=new.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(new)) from error
    if files.ledger.is_file():
        files.ledger.open("ab").close()


class ReadLedger:
    """The rows of a sweep's ledger as they are now, from which nothing is written."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def rows(self) -> Iterator[Row]:
        """The rows, one by one, read from the file; `LedgerError` if it is damaged."""
        return rows(self.files)

    def append_all(self, facts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
        """Nothing is written: it is an error to ask for it."""
        raise AssertionError(f"{self.files.folder} is only read here")


class Ledger(ReadLedger):
    """The only writer of a sweep's ledger, for as long as the context lasts. It keeps no rows: a large
    sweep has a million of them.

    Raises `LockedError` if another process has it, `LedgerError` if it is damaged and `StorageError`
    if it can't be written. `clock` gives seconds and is never set; `now` is the time of day.
    """

    def __init__(
        self,
        files: Files,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        trains: bool = True,
    ) -> None:
        """`trains` is whether this is a driver: another one waits for who only writes a row."""
        self.files = files
        self._clock, self._now = clock, now
        self._begun = clock()  # the session
        self._next: int | None = None  # the number of the next row; None before all were read
        self._state = 0  # the checksum of the last row
        files.folder.mkdir(parents=True, exist_ok=True)
        there = open_ledger(files)  # refuses what is no file
        if there is not None:
            there.close()
        # Unbuffered: a line that could not be written must not appear later.
        self._stream = files.ledger.open("a+b", buffering=0)
        try:
            _lock(self._stream, files)
            _written_here.add(_key(os.fstat(self._stream.fileno())))
            _say_driver(files, trains=trains)
        except BlockingIOError as error:
            self._stream.close()
            who = _driver_words(files)
            raise LockedError(f"{files.folder}: another driver runs this sweep{who}") from error
        except OSError as error:
            self._stream.close()
            if error.errno not in _NO_LOCKS:
                raise
            raise StorageError(
                f"{files.folder}: its file system has no locks ({error.strerror}), and without them two "
                "drivers could write one sweep. Put the sweep on another file system, with --out"
            ) from error

    def rows(self) -> Iterator[Row]:
        """The rows, one by one. When all were read, what a crash left after them is dropped."""
        with self.files.ledger.open("rb") as stream:
            lines = Lines(stream, self.files.ledger)
            yield from lines
        if lines.rest:
            tell(
                f"{self.files.ledger}: dropped its last {lines.rest} bytes, a row that was never whole: a "
                "crash or a power cut left them"
            )
            self._stream.truncate(lines.whole)
        if lines.lacks_end:
            self._write(b"\n")
        self._next, self._state = lines.number, lines.state

    def append(self, kind: str, **fields: Any) -> Row:
        """Write one row; it is on the disk when this returns."""
        (row,) = self.append_all([(kind, fields)])
        return row

    def append_all(self, facts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
        """Write a row for each kind and its fields, with one sync; they are on the disk when this
        returns. A crash in between leaves the first of them, each whole."""
        if self._next is None:
            deque(self.rows(), maxlen=0)
        assert self._next is not None  # all rows were read
        self._refuse_another_file()
        state, rows, lines = self._state, [], []
        for seq, (kind, fields) in enumerate(facts, start=self._next):
            if kind == "session":
                self._begun = self._clock()
            row = {"seq": seq, "time": self._now().isoformat(timespec="milliseconds"), "kind": kind}
            row |= {"t": round(self._clock() - self._begun, 3), **fields}
            line, state = sealed(row, state)
            rows.append(row)
            lines.append(line)
        self._write(b"".join(lines))
        self._next, self._state = self._next + len(rows), state
        return rows

    def _write(self, lines: bytes) -> None:
        """Write lines to the disk, or none of them; `StorageError` if there is no room."""
        end = self._stream.seek(0, os.SEEK_END)
        try:
            left = memoryview(lines)
            while left:  # a write that is cut short says why when it goes on
                left = left[self._stream.write(left) :]
            os.fsync(self._stream.fileno())
        except OSError as error:
            self._stream.truncate(end)
            free = shutil.disk_usage(self.files.folder).free
            raise StorageError(
                f"{self.files.ledger}: can't be written, {len(lines):,} bytes: {error.strerror}; "
                f"{self.files.folder} has {free / 1e6:,.0f} MB free. All rows before are kept: make "
                "room, and the same command resumes"
            ) from error

    def _refuse_another_file(self) -> None:
        """Raise `LedgerError` if the file that is written is no longer the one at its path."""
        try:
            there = self.files.ledger.stat()
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._stream.fileno())):
            what = "deleted or moved" if there is None else "replaced by another file"
            raise LedgerError(
                f"{self.files.ledger}: was {what} while the sweep ran. The sweep has ended; what it "
                "measured before is in the file that was there"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.files.driver.unlink(missing_ok=True)
        _written_here.discard(_key(os.fstat(self._stream.fileno())))
        if not os.fstat(self._stream.fileno()).st_size:
            self._remove_empty()
        self._stream.close()

    def _remove_empty(self) -> None:
        """Remove what the constructor made, where no sweep has begun."""
        with contextlib.suppress(OSError, LedgerError):  # not ours, or with other files
            self._refuse_another_file()
            self.files.ledger.unlink()
            self.files.folder.rmdir()


@dataclass(frozen=True)
class Program:
    """What trains in a session; None where its row does not say."""

    code: str | None
    torch: str | None
    numpy: str | None = None  # its generator chooses the batches

    def differing(self, other: "Program") -> list[str]:
        """What differs from another: `code`, `torch`, `numpy`; what one of them does not say does not."""
        names = ("code", "torch", "numpy")
        both = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [name for name, one, two in both if None not in (one, two) and one != two]


@dataclass
class Trial:
    """What the ledger says of one trial."""

    trial: str
    label: str
    config: dict[str, Any]
    values: dict[str, Any]  # varied dotted path -> value, in the order of the space
    seed: int
    params: int
    flops_per_token: int
    corpus: str  # digest of documents, split and vocabulary
    role: Role
    arm: str = ""  # of a study
    grid: str = ""  # names the re-tune grid of that arm
    draws: int = 1  # that it took; 0 for a start point
    unigram_entropy: float | None = None  # of the corpus, in nats per token
    train_tokens: int | None = None  # of the corpus's training text; None in older ledgers
    # planned | running | paused | stopped | diverged | failed | finished
    status: str = "planned"
    reason: str = ""
    how: str = ""  # it diverged: `non-finite` or `blown up`; it failed, see `failed`; or AT_TARGET
    loss_init: float | None = None  # training loss before any update
    attempt: int = 0
    sessions: list[int] = field(default_factory=list)  # that trained its curve, of the sweep's
    step: int = 0
    tokens: int = 0
    # Measured rows, by rising tokens, without what nobody reads of each: there may be a million.
    curve: list[Row] = field(default_factory=list)
    moments: "array[float]" = field(
        default_factory=lambda: array("d")
    )  # of these, as `Sweep.seconds`
    first_measured: str = ""  # the time of the first of them: UTC, ISO 8601
    is_whole: bool = False  # whether the last of them is that of the whole budget
    peak_memory: int = 0  # bytes, at the last of them; 0 if not measured
    lowest: Row | None = field(init=False)  # of these, the first with the lowest validation loss
    # The `checkpointed` rows of the files that are kept, by rising step: two of a trial that goes on, and
    # the last of one that has ended.
    checkpoints: list[Row] = field(default_factory=list)
    spent_tokens: int = 0  # trained in total; repeated work counts again
    branch_tokens: int = 0  # of these, in decay branches at rungs
    failure: str = ""  # why it failed for good, in the session that tried it last
    is_withdrawn: bool = False  # the space no longer has it
    # How somebody steered it last, if anybody did: to stop it, or to train it to its end.
    by_hand: Action | None = None

    def __post_init__(self) -> None:
        self.find_lowest()

    def find_lowest(self) -> None:
        """Find the record with the lowest validation loss again, after the curve was cut."""
        self.lowest = min(self.curve, key=itemgetter("val_loss"), default=None)

    @property
    def checkpoint(self) -> Row | None:
        """The `checkpointed` row that it resumes from; None for its beginning."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def is_stopped_by_hand(self) -> bool:
        """Whether somebody stopped it, not the policy."""
        return self.by_hand == "stop"

    @property
    def is_finished_by_hand(self) -> bool:
        """Whether somebody has it trained to its end, where its policy could have stopped it."""
        return self.by_hand == "finish" and self.pool is not None

    @property
    def is_untried(self) -> bool:
        """Whether somebody stopped it before its first record, so that nothing is known of it."""
        return self.is_stopped_by_hand and not self.curve

    @property
    def pool(self) -> str | None:
        """The key that it shares with the trials that its policy compares it with; None for none."""
        return pool_of(self.role, self.arm, self.grid)

    def value(self, path: str) -> Any:
        """The value of the trial's config at a dotted path, whether the space varied it or not."""
        section, name = path.split(".")
        return self.config[section][name]

    @property
    def budget(self) -> int:
        """Training tokens of the full run. With a budget in seconds: the tokens it used once it has
        finished, and until then the most it may use."""
        timed = self.config["budget"]["seconds"] is not None
        tokens: int = self.config["budget"]["tokens"]
        return self.tokens if timed and self.status == "finished" else tokens

    @property
    def passes(self) -> float | None:
        """How often the full run reads the training text, on average: its windows are drawn at random,
        with replacement. None if the tokens of the text or of the run are not known."""
        endless = self.config["budget"]["seconds"] is not None and self.status != "finished"
        return None if endless or not self.train_tokens else self.budget / self.train_tokens


@dataclass(frozen=True)
class Version:
    """Which runs of an arm a look compares with which of the baseline."""

    metric: str
    trial: (
        str | None
    )  # its run on the first seed, which says all but the seeds; None without values
    against: str | None  # the baseline's
    changes: Row
    seeds: list[int]
    variance: str  # of its differences in its test

    @classmethod
    def of(cls, seen: Row, look: Row) -> "Version":
        """The version of an arm that a look has seen."""
        variance = look.get("variance", "own")
        trial, against, changes, seeds = (
            seen[name] for name in ("trial", "against", "changes", "seeds")
        )
        return cls(look["metric"], trial, against, changes, seeds, variance)

    def agrees(self, other: "Version") -> bool:
        """Whether it is the same version with as many seeds, or more, or fewer, however its changes are written."""
        pairs = zip(self.seeds, other.seeds, strict=False)
        same = all(one == another for one, another in pairs)
        mine, others = (
            replace(one, seeds=[], changes={} if one.trial else one.changes)
            for one in (self, other)
        )
        return same and mine == others


@dataclass
class Sweep:
    """The fold of a ledger's rows."""

    request: Row | None = None  # the last `sweep` row
    # Whether each seed of a value is stopped or promoted alone, as in sweeps that earlier versions began.
    judges_each_seed: bool = False
    asked_seeds: set[int] = field(default_factory=set)  # of --seed, in all `sweep` rows
    sessions: list[Row] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)  # in the order they were planned
    # Audits of stopped trials, by the id of the audit.
    audits: dict[str, Trial] = field(default_factory=dict)
    audit_of: dict[str, str] = field(default_factory=dict)  # stopped trial -> its audit
    # Trials that the space no longer has, and their audits: neither trained nor ranked.
    withdrawn: dict[str, Trial] = field(default_factory=dict)
    decisions: list[Row] = field(default_factory=list)  # paused, promoted and stopped rows
    chosen: dict[str, Row] = field(default_factory=dict)  # the last `chosen` row of each arm
    horizons: dict[int, Row] = field(
        default_factory=dict
    )  # the last `horizon` row of each number of tokens
    confirming: Row | None = None  # the last `confirming` row
    refused: str = ""  # why the last request to steer of this session was refused, if it was
    looks: list[Row] = field(default_factory=list)  # the `look` rows
    registered: Row | None = None  # the `sweep` row in force at the first record
    # The last `chosen` row of each arm while that row was in force, or the first one after it.
    registered_choices: dict[str, Row] = field(default_factory=dict)
    # Of a study, the most seeds that were planned when the first run of an arm ended; each higher number that a later
    # `sweep` row plans follows.
    ends: list[int] = field(default_factory=list)
    forecast: Row | None = None  # the `forecast` row of the request
    # Of every trial, the tokens that it had been trained on when that was made; repeated work counts again.
    spent_at_forecast: dict[str, int] = field(default_factory=dict)
    nodes: list[tuple[float, Row]] = field(
        default_factory=list
    )  # `node` rows, and when as `seconds`
    sampled: Row | None = None  # the last `sampled` row
    tested: list[Row] = field(default_factory=list)  # the `tested` rows
    is_tested: bool = False  # whether the sweep has not gone on since the last of these
    went_on: bool = False  # whether anything was after one of them, also in what a repair dropped
    repairs: list[Row] = field(default_factory=list)  # the `repaired` rows
    is_ending: bool = False  # whether somebody asked that nothing new starts in the last session
    seconds: float = 0.0  # of all sessions, by a clock that is never set
    training_seconds: float = 0.0  # of these, those in which an attempt was under way
    busy_seconds: float = 0.0  # the same, summed over the attempts
    spent_tokens: int = 0  # trained in total; repeated work counts again
    spent_flops: int = 0  # of these tokens
    running: set[str] = field(default_factory=set)  # trials and audits whose attempts are under way
    source: str = Files.LEDGER  # where its rows are, for messages
    _t: float | None = None  # of the last row, in seconds since the session began
    _time: datetime | None = None  # of the last row

    @property
    def session(self) -> Row:
        """The last `session` row; empty if none has begun."""
        return self.sessions[-1] if self.sessions else {}

    def programs(self, trial: Trial) -> list[Program]:
        """What has trained a trial's curve, one after the other."""
        rows = [self.sessions[number] for number in trial.sessions if number >= 0]
        versions = [row.get("versions", {}) for row in rows]
        return [
            Program(row.get("code"), one.get("torch"), one.get("numpy"))
            for row, one in zip(rows, versions, strict=True)
        ]

    @property
    def attempted(self) -> list[Trial]:
        """The trials, and the audits of some of them."""
        return [*self.trials.values(), *self.audits.values()]

    @property
    def everything(self) -> list[Trial]:
        """All that was ever planned: the trials, the audits, and what was withdrawn."""
        return [*self.attempted, *self.withdrawn.values()]

    def find(self, trial: str) -> Trial:
        """A trial or an audit by its id, also one that was withdrawn."""
        for group in (self.audits, self.withdrawn):
            if trial in group:
                return group[trial]
        return self.trials[trial]

    @property
    def is_looked_at(self) -> bool:
        """Whether verdicts on its arms are formed at looks; not in ledgers of versions without any."""
        return self.request is not None and "looks" in self.request

    def seen(self, arm: str, version: "Version") -> Row | None:
        """What the last look found of a version of an arm, in the metric that is asked for; None before its
        first look. The arm may have had another name then."""
        for row in reversed(self.looks):
            own: Mapping[str, Row] = {arm: row["arms"][arm]} if arm in row["arms"] else {}
            for seen in (*own.values(), *row["arms"].values()):
                if version.agrees(Version.of(seen, row)):
                    return seen
        return None

    @property
    def tests(self) -> dict[str, Row]:
        """What runs lost on the test text, by trial."""
        return {trial: one for row in self.tested for trial, one in row["trials"].items()}

    @property
    def is_read(self) -> bool:
        """Whether all runs have read the test text that were to read it when the sweep had ended."""
        return self.is_tested and self.tests.keys() >= set(self.tested[-1]["runs"])

    def audit(self, trial: str) -> Trial | None:
        """The audit of a stopped trial by the trial's id, if it was drawn."""
        return self.audits.get(self.audit_of.get(trial, ""))

    def observe(self, row: Row) -> None:
        """Fold one row in. A row of an attempt that has been replaced by a later one changes nothing.

        `LedgerError` if it says what can't be, such as a record of a trial that was never planned.
        """
        try:
            self._tick(row)
            if self.is_tested and row["kind"] in _GOES_ON:
                self.is_tested, self.went_on = False, True
            self._observe(row)
        except KeyError as error:
            raise damaged(self.source, row["seq"], f"there is no trial {error}") from error
        except (TypeError, ValueError) as error:
            raise damaged(self.source, row["seq"], error) from error

    def _tick(self, row: Row) -> None:
        """Count the time since the previous row, if that row is of the same session: by `t`, or in a
        ledger of version 0.1 by the time of day."""
        t, now = row.get("t"), datetime.fromisoformat(row["time"])
        if row["kind"] not in {"sweep", "session", "sampled", "tested", "repaired"}:
            passed = 0.0
            if t is not None and self._t is not None:
                passed = t - self._t
            elif t is None and self._time is not None:
                passed = (now - self._time).total_seconds()
            passed = max(0.0, passed)  # the time of day may be set back
            self.seconds += passed
            self.training_seconds += passed if self.running else 0.0
            self.busy_seconds += passed * len(self.running)
        self._t, self._time = t, now

    def _observe(self, row: Row) -> None:
        kind = row["kind"]
        if kind not in _OF_SWEEPS:
            self._observe_trial(row)
        elif kind == "sweep":
            self._ask(row)
        elif kind == "session":
            self._begin_session(row)
        elif kind == "planned":
            names = Trial.__dataclass_fields__
            planned = Trial(**{name: value for name, value in row.items() if name in names})
            for path, value in planned.values.items():
                if planned.value(path) != value:
                    raise ValueError(f"{path} has another value in its config")
            self.trials[planned.trial] = planned
        elif kind in {"chosen", "confirming", "horizon", "sampled", "tested", "look"}:
            self._conclude(row)
        elif kind == "audited":
            self._begin_audit(row)
        elif kind in {"steered", "refused"}:
            self._steer(row)
        elif kind in {"withdrawn", "restored"}:
            self._move(row["trial"], away=kind == "withdrawn")
        else:
            self._keep(row)

    def _keep(self, row: Row) -> None:
        """Keep a forecast, what happened to a node, or a repair."""
        match row["kind"]:
            case "forecast":
                self.forecast = row
                self.spent_at_forecast = {one.trial: one.spent_tokens for one in self.everything}
            case "node":
                self.nodes.append((self.seconds, row))
            case "repaired":
                self.repairs.append(row)
                dropped = row["dropped"].keys()
                self.went_on |= "tested" in dropped and not _GOES_ON.isdisjoint(dropped)

    def _begin_session(self, row: Row) -> None:
        self.sessions.append(row)
        self.is_ending, self.refused = False, ""
        self.running.clear()
        for trial in self.attempted:
            if trial.status in {"running", "failed"}:  # this session tries again
                trial.status, trial.reason = "planned", ""

    def _conclude(self, row: Row) -> None:
        """Keep what was seen at a look; or chosen, confirmed, sampled or tested, of trials that are known."""
        if row["kind"] == "look":
            self.looks.append(row)
            return
        if row["kind"] == "tested":
            for trial in (*row["trials"], *row["runs"]):
                self.find(trial)
            self.tested.append(row)
            self.is_tested = True
            return
        is_text = row["kind"] == "sampled"
        trials = [one["trial"] for one in row["texts"]] if is_text else row["trials"].values()
        others = (row.get(name, ()) for name in ("repeats", "grid", "rates"))
        for trial in itertools.chain(trials, *others):
            self.find(trial)
        if row["kind"] == "chosen":
            self.chosen[row["arm"]] = row
            if self.request is self.registered or row["arm"] not in self.registered_choices:
                self.registered_choices[row["arm"]] = row
        elif row["kind"] == "horizon":
            self.horizons[row["tokens"]] = row
        elif row["kind"] == "confirming":
            self.confirming = row
        else:
            self.sampled = row

    def _move(self, trial: str, *, away: bool) -> None:
        """Withdraw a trial with its audit, which ends its attempt, or restore them."""
        for name, home in ((trial, self.trials), (self.audit_of.get(trial), self.audits)):
            if name is not None:
                source, target = (home, self.withdrawn) if away else (self.withdrawn, home)
                target[name] = source.pop(name)
                moved = target[name]
                moved.is_withdrawn = away
                if name in self.running:
                    self.running.discard(name)
                    moved.status = "planned"
                elif moved.failure and not moved.is_stopped_by_hand:
                    # The session that withdraws it was to try it again.
                    moved.status = "failed" if away else "planned"
                    moved.reason = moved.failure if away else ""

    def _steer(self, row: Row) -> None:
        self.refused = row["reason"] if row["kind"] == "refused" else ""
        if row["kind"] == "refused":
            return
        if "trial" not in row:
            self.is_ending = True
            return
        trial = self.find(row["trial"])
        trial.by_hand = row["action"]
        if trial.is_stopped_by_hand:
            trial.status, trial.reason = "stopped", BY_HAND
            trial.checkpoints = trial.checkpoints[-1:]
            self.running.discard(trial.trial)
        elif trial.status != "running":
            trial.status, trial.reason = "planned", ""

    def _register(self) -> None:
        """Keep what is asked as it was before the first record."""
        if self.registered is None:
            self.registered, self.registered_choices = self.request, dict(self.chosen)

    def _ask(self, row: Row) -> None:
        if self.request is None:
            self.judges_each_seed = row.get("judged") != VALUES
        self.request = row
        self.asked_seeds.add(row["seed"])
        if self.ends and _most_seeds(row) > self.ends[-1]:
            self.ends.append(_most_seeds(row))
        # They belong to the previous request; those that still apply are written again.
        self.chosen.clear()
        self.horizons.clear()
        self.confirming = None
        self.forecast = None

    def _begin_audit(self, row: Row) -> None:
        stopped = self.trials[row["of"]]
        self.audit_of[row["of"]] = row["trial"]
        self.audits[row["trial"]] = Trial(
            trial=row["trial"],
            label=f"{stopped.label} (audit)",
            config=stopped.config,
            values=stopped.values,
            seed=stopped.seed,
            params=stopped.params,
            flops_per_token=stopped.flops_per_token,
            corpus=stopped.corpus,
            role="audit",
            arm=stopped.arm,
            unigram_entropy=stopped.unigram_entropy,
            train_tokens=stopped.train_tokens,
            step=stopped.step,
            tokens=stopped.tokens,
            curve=list(stopped.curve),
            checkpoints=list(stopped.checkpoints),
            moments=stopped.moments[:],
            first_measured=stopped.first_measured,
            peak_memory=stopped.peak_memory,
            sessions=list(stopped.sessions),
        )

    def _observe_trial(self, row: Row) -> None:
        name, kind = row["trial"], row["kind"]
        trial = self.trials.get(name) or self.audits.get(name)
        if trial is None:
            raise ValueError(f"trial {name!r} was never planned")
        if kind == "started":
            trial.attempt = row["attempt"]
            trial.step = row["step"]
            kept = bisect_right(trial.curve, row["step"], key=itemgetter("step"))
            trial.is_whole &= kept == len(trial.curve)
            del trial.curve[kept:], trial.moments[kept:]
            here = len(self.sessions) - 1
            trial.sessions = [*trial.sessions, here] if row["step"] else [here]
            trial.find_lowest()
            trial.tokens = trial.curve[-1]["tokens"] if trial.curve else 0
            trial.checkpoints = [one for one in trial.checkpoints if one["step"] <= row["step"]]
            trial.status, trial.reason, trial.failure = "running", "", ""
        elif kind in {"paused", "promoted", "stopped"}:
            self.decisions.append(row)
            if kind != "promoted":
                trial.status = kind
            elif trial.status != "running":  # one that is running keeps its slot
                trial.status = "planned"
            trial.reason = row.get("reason", "")
            if kind == "stopped":
                trial.checkpoints = trial.checkpoints[-1:]
        elif row.get("attempt") == trial.attempt:
            before = trial.spent_tokens
            _observe_attempt(trial, kind, row, self.seconds)
            self.spent_tokens += trial.spent_tokens - before
            self.spent_flops += (trial.spent_tokens - before) * trial.flops_per_token
        (self.running.add if trial.status == "running" else self.running.discard)(trial.trial)
        if kind == "measured":
            self._register()
        elif kind in {"finished", "diverged"} and trial.role == "run" and self.request:
            self.ends = self.ends or [_most_seeds(self.request)]


def unread_lines(repaired: Row) -> int:
    """How many lines a repair dropped of which nobody can tell the kind."""
    return int(repaired["lines"] - sum(repaired["dropped"].values()))


def may_have_dropped(repaired: Row, kinds: Collection[str]) -> bool:
    """Whether a repair dropped rows of some kinds, or the row of an earlier repair, or lines that can't be read."""
    dropped = repaired["dropped"]
    return unread_lines(repaired) > 0 or any(kind in dropped for kind in (*kinds, "repaired"))


def _most_seeds(request: Row) -> int:
    """The most seeds that a `sweep` row of a study plans; rows of earlier versions have a list of them."""
    looks: Sequence[int] = request.get("looks") or [len(request["space"].get("seeds", [0]))]
    return looks[-1]


# Kinds of rows; the others are of trials.
_OF_SWEEPS = {
    "sweep", "forecast", "sampled", "tested", "session", "planned", "chosen", "horizon", "confirming",
    "look", "audited", "withdrawn", "restored", "steered", "refused", "node",
    "repaired",
}  # fmt: skip
# Kinds after which a test text that was read has been looked at.
_GOES_ON = {"planned", "restored", "withdrawn", "audited", "measured", "diverged"}
_NOT_KEPT = {  # of a record, in a curve
    "seq", "time", "t", "kind", "trial", "attempt", "loss_init", "peak_loss", "last", "peak_memory",
    "worker", "device", "mfu", "compile_seconds",
}  # fmt: skip


def _observe_attempt(trial: Trial, kind: str, row: Row, seconds: float) -> None:
    """Fold in what the latest attempt at a trial reported, after so many seconds of the sweep."""
    if kind in {"measured", "diverged"}:
        trial.branch_tokens += row.get("branch_tokens", 0)
        trial.spent_tokens += row["tokens"] - trial.tokens + row.get("branch_tokens", 0)
        trial.step, trial.tokens = row["step"], row["tokens"]
        trial.loss_init = row.get("loss_init")
    if kind == "measured":
        if trial.curve and trial.curve[-1]["tokens"] >= row["tokens"]:
            raise ValueError(f"tokens {row['tokens']} do not come after those of the record before")
        kept = {name: row[name] for name in row if name not in _NOT_KEPT}
        trial.first_measured = trial.first_measured if trial.curve else row["time"]
        trial.is_whole, trial.peak_memory = row["last"], row.get("peak_memory", 0)
        trial.curve.append(kept)
        trial.moments.append(seconds)
        if trial.lowest is None or kept["val_loss"] < trial.lowest["val_loss"]:
            trial.lowest = kept
    elif kind == "checkpointed":
        trial.checkpoints = [*trial.checkpoints[-1:], row]
    elif kind == "unusable":
        trial.checkpoints = [one for one in trial.checkpoints if one["path"] != row["path"]]
        trial.status = "planned"
    elif kind == "capped":
        cap = row["cap"]
        trial.status = "planned"
        trial.reason = "the sweep reached its target" if cap == "target" else f"reached caps.{cap}"
    elif kind == "preempted":
        trial.status, trial.reason = "planned", "preempted"
    elif kind == "failed" and not trial.is_stopped_by_hand:
        trial.status = "failed" if row["final"] else "planned"
        trial.reason, trial.how = row["reason"], row["how"]
        trial.failure = trial.reason if row["final"] else ""
    elif kind in {"finished", "diverged"}:
        trial.status, trial.reason = kind, row.get("reason", "")
        trial.how = row.get("how", "")
        trial.checkpoints = trial.checkpoints[-1:]


def fold(rows: Iterable[Row], source: str = Files.LEDGER) -> Sweep:
    """The state of a sweep after all the rows, which are read from the source."""
    sweep = Sweep(source=source)
    for row in rows:
        sweep.observe(row)
    return sweep
