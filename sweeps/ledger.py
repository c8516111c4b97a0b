"""The ledger: a sweep as an append-only file of facts, and the fold that reads it.

`ledger.jsonl` holds one JSON object per line. Every line has `seq` (its number, which gives the order;
clocks do not), `time` (UTC, ISO 8601) and `kind`:

    sweep         the request: space (as written), source, base (resolved config), scale, seed,
                  bits (see `BITS`; missing in ledgers of version 0.1)
    session       a driver begins: command, folder_option (of the command, that chooses the sweep's
                  folder: --out, or --name of a named experiment), code (digest of the code that trains),
                  allowed (what --allow named), versions, machine, commit, slots,
                  dashboard, product_flops (per second, of a large matrix product on this machine),
                  notes (on the plan), speeds (of the settings that were measured, if the base config
                  has the fastest; values, tokens_per_s, reason)
    forecast      what the request is expected to take: tokens, low, high, seconds, occupancy
                  (tokens, or share of each trial's own budget -> trials), basis
    planned       a trial exists: trial, label, config, values (varied path -> value), seed, role
                  (why it is trained, see `Role`), arm (of a study, else ""), grid (names the arm's
                  re-tune grid, "" outside of one), draws (that it took; 0 for a start point), params,
                  flops_per_token, corpus (digest of documents, split, vocabulary), unigram_entropy
                  (of that, in nats per token), train_tokens (of its training text)
    chosen        the values of an arm are settled: arm, values (null if every trial of its grid
                  diverged), score, tried, seeds, trials (its runs, by seed), repeats (more runs of
                  the first seed), place (in the plan), hypothesis, changes, retuned, grid (the trials
                  of its re-tune grid), failed (how many of these failed)
    confirming    the best of a search is run again on fresh seeds: values, score, tried, seeds, trials
                  (the runs, by seed)
    started       an attempt begins: trial, attempt, step (that it resumes from), checkpoint
    measured      a record of `tinylm.train`: trial, attempt, step, tokens, seconds, losses, ...;
                  worker (host and process that trained it); at a rung, with decayed scores,
                  decayed_val_loss, decayed_bits_per_byte and branch_tokens
    checkpointed  trial, attempt, step, tokens, path (relative to the sweep's folder)
    paused        the trial waits at a rung: trial, attempt, rung (in its own tokens, also where budgets
                  differ and a rung is a share of each), score
    promoted      it continues from a rung, after a pause or at once: trial, rung, to, score, rank,
                  arrived, forced, cutoff
    stopped       it will not continue: trial, reason, rung, score, rank, arrived, cutoff
    capped        its attempt ended because a cap was reached, or another trial reached the target that
                  ends the sweep: trial, attempt, cap (its name, or `target`), limit, used
    withdrawn     the space no longer has the trial: it is neither trained nor ranked, and no longer
                  counts for the others: trial
    restored      the space has it again: trial
    audited       a stopped trial is to be trained to the end, to see what stopping it cost: trial (the
                  id of the audit, under which its rows follow), of (the stopped trial), stopped (how many
                  it was drawn from), share
    diverged      trial, attempt, step, tokens, peak_loss, loss_init, how (`non-finite` or
                  `blown up`), reason, worker
    failed        trial, attempt, how (`out of memory`, `storage`, `died`: its process, `hung`: it was silent for
                  too long, or `error`), reason, traceback, final (false: this session tries again)
    finished      trial, attempt, step, tokens; how and reason if it ended before its budget: how is
                  `target`, which it reached
    sampled       text from the checkpoint with the lowest final loss: trial, step, text, tokens (of
                  the text), temperature, top_p, seed

Rows of earlier versions are read as this version would have written them (`_current`).

This module names the files under results/, except figures and the folders of attempts, and needs only
the standard library, except to read rows and to name the nearest sweep to one that does not exist.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Final, Literal, Self

from sweeps.exits import Code, CommandError, StorageError, UsageError
from tinylm.files import replacing

Row = dict[str, Any]

RESULTS = Path("results")
BASELINE = "baseline"  # the arm that the others of a study are compared with
SETTLED = {"finished", "diverged", "stopped"}  # statuses of trials that need no more training
BITS = "text"  # bits per byte are those of the text, without the ends of documents
OUT_OF_MEMORY: Final = "out of memory"  # how a trial failed
AT_TARGET: Final = "target"  # how a trial finished before the end of its budget
_LONGEST_DRIVER = 200  # characters of a file that are shown
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_MEMORY = re.compile(
    r"out of memory|outofmemory|memoryerror|(can't|cannot) allocate memory|not enough memory|bad_alloc",
    re.IGNORECASE,
)
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_ID = re.compile(r"[A-Za-z0-9_-]+")  # of a trial; names of files are made from it
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# Why a trial is trained, in the order below: to find the best values of a sweep; to find those of an
# arm, in its re-tune grid; as a run of an arm at settled values; to measure how much equal runs differ;
# to run the best of a search on fresh seeds; to see what stopping another trial cost.
Role = Literal["search", "tuning", "run", "repeat", "confirm", "audit"]


def says_out_of_memory(text: str) -> bool:
    """Whether the text of an error says that memory ran out."""
    return _MEMORY.search(text) is not None


def pool_of(role: str, arm: str, grid: str) -> str | None:
    """The key that a trial shares with the trials it competes with; None if it always runs to the end."""
    if role == "tuning":
        return f"{arm} {grid}"
    return "" if role == "search" else None


class LedgerError(CommandError):
    """The ledger is damaged: a line before the last is not a row, or is out of order."""

    code = Code.DAMAGED


class LockedError(CommandError):
    """Another driver runs the sweep."""

    code = Code.LOCKED


@dataclass(frozen=True)
class ResultsFolder:
    """The files of a results folder that do not belong to one sweep."""

    folder: Path = RESULTS

    @property
    def log(self) -> Path:
        """The experiment log of all sweeps."""
        return self.folder / "EXPERIMENT_LOG.md"

    @property
    def index(self) -> Path:
        """The page that links the sweeps' reports."""
        return self.folder / "index.html"

    @property
    def mlflow(self) -> Path:
        """MLflow's database of all sweeps."""
        return self.folder / "mlflow.db"


@dataclass(frozen=True)
class Files:
    """Every file and folder of one sweep."""

    folder: Path

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
        return self.folder / "ledger.jsonl"

    @property
    def driver(self) -> Path:
        """Which process runs the sweep, while one does."""
        return self.folder / ".driver"

    @property
    def notes(self) -> Path:
        """What people write about the sweep; programs create it once and then only read it."""
        return self.folder / "notes.md"

    @property
    def checkpoints(self) -> Path:
        """What Ray Tune writes; only the paths in `checkpointed` rows mean anything."""
        return self.folder / "checkpoints"

    def checkpoint(self, row: Row) -> Path:
        """The file that a `checkpointed` row names; `LedgerError` if it is not in a folder below
        `checkpoints`, or is there by a link that leads out of it."""
        file = self.folder / row["path"]
        if self.checkpoints.resolve() not in file.resolve().parent.parents:
            raise LedgerError(
                f"{self.ledger}: line {row['seq'] + 1} is damaged: path {row['path']!r} is not a "
                "checkpoint of this sweep"
            )
        return file

    @property
    def wandb(self) -> Path:
        """What Weights & Biases writes, one folder per attempt."""
        return self.folder / "wandb"

    @property
    def analysis(self) -> Path:
        """The folder of everything that is derived from the ledger and can be rewritten."""
        return self.folder / "analysis"

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
    def events(self) -> Path:
        """TensorBoard event files, one folder per trial."""
        return self.analysis / "tensorboard"


def sweeps(results: Path = RESULTS) -> list[Files]:
    """The sweeps under a results folder, by name."""
    ledgers = sorted(results.glob("*/ledger.jsonl"))
    # A ledger is empty if its driver found no cluster.
    return [Files(ledger.parent) for ledger in ledgers if ledger.stat().st_size]


def find_sweep(name: str) -> Files:
    """The sweep of a name under results/, or in a folder; `UsageError` if there is none."""
    for folder in (RESULTS / name, Path(name)):
        if Files(folder).ledger.is_file():
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


def _rows(stream: IO[bytes], source: Path) -> Iterator[Row]:
    """The rows of complete lines, one by one; a last line that a crash cut off (no newline) is dropped."""
    arms: dict[str, str] = {}  # of runs, by the first `chosen` row that names them
    for number, line in enumerate(stream):
        if b'"chosen"' in line and line.endswith(b"\n"):
            row = _row(number, line, source)
            if row["kind"] == "chosen" and row.get("arm"):
                for trial in (*row.get("trials", {}).values(), *row.get("repeats", ())):
                    arms.setdefault(trial, row["arm"])
    stream.seek(0)
    for number, line in enumerate(stream):
        if not line.endswith(b"\n"):
            return  # a driver may be writing the rest of it
        row = _row(number, line, source)
        yield _current(row, arms) if row["kind"] in _CHANGED else row


def _row(number: int, line: bytes, source: Path) -> Row:
    """The row of a line; `LedgerError` if it is damaged."""
    try:
        row = _object(line)
        in_order = row["seq"] == number and isinstance(row["kind"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{source}: line {number + 1} is damaged: {error}") from error
    if not in_order:
        raise LedgerError(f"{source}: line {number + 1} is damaged: seq {row['seq']}")
    return row


@cache
def _parser() -> Callable[[bytes], Any]:
    """Pydantic's parser of JSON: it takes a third of the time of the standard library's, and the rows
    share their names."""
    from pydantic_core import from_json

    return from_json


def _object(line: bytes) -> Row:
    """What a line holds."""
    row: Row
    try:
        row = _parser()(line)
    except ValueError:  # it refuses half a surrogate pair, which a command line may have
        row = json.loads(line)
    return row


_CHANGED = {"planned", "sweep", "chosen", "session", "failed"}  # kinds that have changed


def _current(row: Row, arms: Mapping[str, str]) -> Row:
    """The row as this version writes it; `arms` are those of the runs that some `chosen` row names.

    Older planned rows have a `pool` instead of a role: "" in a search, "ARM DIGEST" in a re-tune grid,
    null for a trial that runs to the end, whose arm only the first `chosen` row with it names. An
    older confirmation is a `chosen` row with an empty arm. An older session has a command without its
    `folder_option`. Older failures say in their text how they came about. Older configs lack the fields
    in `tinylm.config.IMPLIED`.
    """
    from tinylm import config as cfg  # loads pydantic

    config = {"planned": "config", "sweep": "base"}.get(row["kind"])
    if config in row:
        row = {**row, config: cfg.with_implied(row[config], cfg.IMPLIED)}
    if row["kind"] == "planned" and "role" not in row:
        return {**row, **_role(row, arms)}
    if row["kind"] == "chosen" and row.get("arm") == "":
        return {**row, "kind": "confirming"}
    if row["kind"] == "session" and "command" in row and "folder_option" not in row:
        is_named = "sweeps.experiment" in row["command"].split()
        return {**row, "folder_option": "--name" if is_named else "--out"}
    if row["kind"] == "failed" and "how" not in row:
        memory = says_out_of_memory(f"{row.get('reason')} {row.get('traceback')}")
        return {**row, "how": OUT_OF_MEMORY if memory else "error"}
    return row


def _role(row: Row, arms: Mapping[str, str]) -> Row:
    """The role, arm and grid of a planned row that has a pool."""
    pool = row.get("pool", "")
    if pool is not None:
        arm, _, grid = pool.rpartition(" ")
        return {"role": "tuning" if pool else "search", "arm": arm, "grid": grid}
    role = "confirm" if str(row.get("label")).endswith("(confirm)") else "run"
    if row.get("values", {}).get("run.repeat"):
        role = "repeat"
    return {"role": role, "arm": arms.get(str(row.get("trial")), ""), "grid": ""}


def rows(files: Files) -> Iterator[Row]:
    """The rows of a sweep, one by one; none if it has no ledger. Safe while a driver writes."""
    try:
        stream = files.ledger.open("rb")
    except FileNotFoundError:
        return
    with stream:
        yield from _rows(stream, files.ledger)


def read(files: Files) -> list[Row]:
    """All rows of a sweep, or none if it has no ledger; safe while a driver writes."""
    return list(rows(files))


def _say_driver(files: Files) -> None:
    """Write down which process runs a sweep, for people: the lock is what counts."""
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    with contextlib.suppress(OSError):
        files.driver.unlink(missing_ok=True)  # of a driver that was killed
        with files.driver.open("x") as stream:
            stream.write(f"process {os.getpid()} on {platform.node()}, since {since} UTC\n")


def _driver_words(files: Files) -> str:
    """Which process runs a sweep, in parentheses; empty if it is not known."""
    try:
        return f" ({files.driver.read_text().strip()[:_LONGEST_DRIVER]})"
    except (OSError, UnicodeDecodeError):
        return ""


class ReadLedger:
    """The rows of a sweep's ledger as they are now, from which nothing is written; `LedgerError` if it is
    damaged."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.rows = read(files)

    def append_all(self, facts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
        """Nothing is written: it is an error to ask for it."""
        raise AssertionError(f"{self.files.folder} is only read here")


class Ledger(ReadLedger):
    """The only writer of a sweep's ledger, for as long as the context lasts.

    Raises `LockedError` if another process has it, `LedgerError` if it is damaged and `OSError`
    if it can't be written.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        files.folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a line that could not be written must not appear later.
        self._stream = files.ledger.open("a+b", buffering=0)
        try:
            # The kernel releases the lock when the process ends, however it ends.
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _say_driver(files)
            with files.ledger.open("rb") as lines:
                self.rows = list(_rows(lines, files.ledger))
                lines.seek(0)
                whole = sum(len(line) for line in lines if line.endswith(b"\n"))
            if whole < self._stream.seek(0, os.SEEK_END):  # a crash cut off the last line
                self._stream.truncate(whole)
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
        except BaseException:
            self._stream.close()
            raise

    def append(self, kind: str, **fields: Any) -> Row:
        """Write one row; it is on the disk when this returns."""
        (row,) = self.append_all([(kind, fields)])
        return row

    def append_all(self, facts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
        """Write a row for each kind and its fields, with one sync; they are on the disk when this
        returns. A crash in between leaves the first of them, each whole."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [
            {"seq": seq, "time": time, "kind": kind, **fields}
            for seq, (kind, fields) in enumerate(facts, start=len(self.rows))
        ]
        self._refuse_another_file()
        lines = b"".join(_ENCODER.encode(row).encode() + b"\n" for row in rows)
        end = self._stream.seek(0, os.SEEK_END)
        try:
            if self._stream.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.files.ledger))
            os.fsync(self._stream.fileno())
        except OSError:
            self._stream.truncate(end)
            raise
        self.rows += rows
        return rows

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
        if not self.rows:
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

    def differing(self, other: "Program") -> list[str]:
        """What differs from another: `code`, `torch`; what one of them does not say does not."""
        names = ("code", "torch")
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
    # Measured rows, by rising step, without what they repeat of the trial and the attempt.
    curve: list[Row] = field(default_factory=list)
    lowest: Row | None = field(init=False)  # of these, the first with the lowest validation loss
    checkpoint: Row | None = None  # the last `checkpointed` row
    spent_tokens: int = 0  # trained in total; repeated work counts again
    branch_tokens: int = 0  # of these, in decay branches at rungs
    is_withdrawn: bool = False  # the space no longer has it

    def __post_init__(self) -> None:
        self.find_lowest()

    def find_lowest(self) -> None:
        """Find the record with the lowest validation loss again, after the curve was cut."""
        self.lowest = min(self.curve, key=itemgetter("val_loss"), default=None)

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


@dataclass
class Sweep:
    """The fold of a ledger's rows."""

    request: Row | None = None  # the last `sweep` row
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
    confirming: Row | None = None  # the last `confirming` row
    forecast: Row | None = None  # the last `forecast` row
    sampled: Row | None = None  # the last `sampled` row
    seconds: float = 0.0  # of all sessions, by the clock
    busy_seconds: float = 0.0  # the same, summed over the attempts under way
    spent_tokens: int = 0  # trained in total; repeated work counts again
    spent_flops: int = 0  # of these tokens
    running: set[str] = field(default_factory=set)  # trials and audits whose attempts are under way
    _clock: datetime | None = None  # of the session's last row

    @property
    def session(self) -> Row:
        """The last `session` row; empty if none has begun."""
        return self.sessions[-1] if self.sessions else {}

    def programs(self, trial: Trial) -> list[Program]:
        """What has trained a trial's curve, one after the other."""
        rows = [self.sessions[number] for number in trial.sessions if number >= 0]
        return [Program(row.get("code"), row.get("versions", {}).get("torch")) for row in rows]

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

    def audit(self, trial: str) -> Trial | None:
        """The audit of a stopped trial by the trial's id, if it was drawn."""
        return self.audits.get(self.audit_of.get(trial, ""))

    def observe(self, row: Row) -> None:
        """Fold one row in. A row of an attempt that has been replaced by a later one changes nothing.

        `LedgerError` if a field of its kind is missing.
        """
        try:
            self._tick(row)
            self._observe(row)
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"row {row['seq']} is damaged: {error!r}") from error

    def _tick(self, row: Row) -> None:
        """Count the time since the previous row, if that row is of the same session."""
        now = datetime.fromisoformat(row["time"])
        if self._clock is not None and row["kind"] not in {"sweep", "session", "sampled"}:
            passed = max(0.0, (now - self._clock).total_seconds())  # clocks may be set back
            self.seconds += passed
            self.busy_seconds += passed * len(self.running)
        self._clock = now

    def _observe(self, row: Row) -> None:
        kind = row["kind"]
        if kind not in _OF_SWEEPS:
            self._observe_trial(row)
        elif kind == "sweep":
            self.request = row
            self.asked_seeds.add(row["seed"])
            # They belong to the previous request; those that still apply are written again.
            self.chosen.clear()
            self.confirming = None
        elif kind in {"forecast", "sampled"}:
            setattr(self, kind, row)
        elif kind == "session":
            self.sessions.append(row)
            self.running.clear()
            for trial in self.everything:
                if trial.status in {"running", "failed"}:  # this session tries again
                    trial.status, trial.reason = "planned", ""
        elif kind == "planned":
            if not _ID.fullmatch(row["trial"]):
                raise ValueError(f"trial {row['trial']!r} is not an id")
            names = Trial.__dataclass_fields__
            planned = Trial(**{name: value for name, value in row.items() if name in names})
            self.trials[planned.trial] = planned
        elif kind == "chosen":
            self.chosen[row["arm"]] = _whole(row, _CHOSEN)
        elif kind == "confirming":
            self.confirming = _whole(row, _CONFIRMING)
        elif kind == "audited":
            self._begin_audit(row)
        else:
            self._move(row["trial"], away=kind == "withdrawn")

    def _move(self, trial: str, *, away: bool) -> None:
        """Withdraw a trial with its audit, or restore them."""
        for name, home in ((trial, self.trials), (self.audit_of.get(trial), self.audits)):
            if name is not None:
                source, target = (home, self.withdrawn) if away else (self.withdrawn, home)
                target[name] = source.pop(name)
                target[name].is_withdrawn = away

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
            sessions=list(stopped.sessions),
            checkpoint=stopped.checkpoint,
        )

    def _observe_trial(self, row: Row) -> None:
        name, kind = row.get("trial", ""), row["kind"]
        trial = self.trials.get(name) or self.audits.get(name)
        if trial is None:
            raise LedgerError(f"row {row['seq']} is damaged: no such trial was planned")
        if kind == "started":
            trial.attempt = row["attempt"]
            trial.step = row["step"]
            here = len(self.sessions) - 1
            trial.sessions = [*trial.sessions, here] if row["step"] else [here]
            trial.curve = [point for point in trial.curve if point["step"] <= row["step"]]
            trial.find_lowest()
            trial.tokens = trial.curve[-1]["tokens"] if trial.curve else 0
            trial.status, trial.reason = "running", ""
        elif kind in {"paused", "promoted", "stopped"}:
            self.decisions.append(row)
            if kind != "promoted":
                trial.status = kind
            elif trial.status != "running":  # one that is running keeps its slot
                trial.status = "planned"
            trial.reason = row.get("reason", "")
        elif row.get("attempt") == trial.attempt:
            before = trial.spent_tokens
            _observe_attempt(trial, kind, row)
            self.spent_tokens += trial.spent_tokens - before
            self.spent_flops += (trial.spent_tokens - before) * trial.flops_per_token
        (self.running.add if trial.status == "running" else self.running.discard)(trial.trial)


_CONFIRMING = {"values", "trials"}
_CHOSEN = {
    "arm", "values", "trials", "repeats", "place", "hypothesis", "changes", "retuned", "grid",
    "tried", "failed",
}  # fmt: skip


def _whole(row: Row, names: set[str]) -> Row:
    """The row; `KeyError` if some of the names are missing."""
    lacking = names - row.keys()
    if lacking:
        raise KeyError(*sorted(lacking))
    return row


# Kinds of rows; the others are of trials.
_OF_SWEEPS = {
    "sweep", "forecast", "sampled", "session", "planned", "chosen", "confirming", "audited", "withdrawn",
    "restored",
}  # fmt: skip
_REPEATED = {"seq", "kind", "trial", "attempt", "loss_init", "peak_loss", "worker"}


def _observe_attempt(trial: Trial, kind: str, row: Row) -> None:
    """Fold in what the latest attempt at a trial reported."""
    if kind in {"measured", "diverged"}:
        trial.branch_tokens += row.get("branch_tokens", 0)
        trial.spent_tokens += row["tokens"] - trial.tokens + row.get("branch_tokens", 0)
        trial.step, trial.tokens = row["step"], row["tokens"]
        trial.loss_init = row.get("loss_init")
    if kind == "measured":
        kept = {name: row[name] for name in row if name not in _REPEATED}
        trial.curve.append(kept)
        if trial.lowest is None or kept["val_loss"] < trial.lowest["val_loss"]:
            trial.lowest = kept
    elif kind == "checkpointed":
        trial.checkpoint = row
    elif kind == "capped":
        cap = row["cap"]
        trial.status = "planned"
        trial.reason = "the sweep reached its target" if cap == "target" else f"reached caps.{cap}"
    elif kind == "failed":
        trial.status = "failed" if row["final"] else "planned"
        trial.reason, trial.how = row["reason"], row["how"]
    elif kind in {"finished", "diverged"}:
        trial.status, trial.reason = kind, row.get("reason", "")
        trial.how = row.get("how", "")


def fold(rows: Iterable[Row]) -> Sweep:
    """The state of a sweep after all the rows."""
    sweep = Sweep()
    for row in rows:
        sweep.observe(row)
    return sweep
