"""The rows of a ledger: what each kind holds, and how lines become rows that can be trusted.

`ledger.jsonl` holds one JSON object per line. Every line has `seq` (its number, which gives the order;
clocks do not), `time` (UTC, ISO 8601), `kind`, `t` (seconds since its session began, by a clock that is
never set; durations are made of it) and, last, `sum` (see `Lines`). Ledgers of version 0.1 have no `t`
and no `sum`. The fields of each kind, whose types are in `_FIELDS`:

    sweep         the request: space (as written), source, base (resolved config), scale, seed,
                  bits (see `BITS`; missing in ledgers of version 0.1), judged (see `VALUES`; missing in
                  ledgers in which each seed is judged alone); of a study also looks (the numbers
                  of seeds after which it is looked at; missing in ledgers of versions that took none),
                  seeds, metric, matters (null for the default), variance (own if it is missing) and arms
                  (by name, with hypothesis and changes)
    session       a driver begins: command, folder_option (of the command, that chooses the sweep's
                  folder: --out, or --name of a named experiment), code (digest of the code that trains),
                  allowed (what --allow named), versions (by name), machine (system,
                  processor, cpus, memory, gpu), commit, slots, dashboard, product_flops (per second, of a large matrix product on this machine),
                  notes (on the plan), speeds (of the settings that were measured, if the base config
                  has the fastest; values, tokens_per_s, reason)
    node          of a running cluster: node (Ray's id), host (and its address), state (`joined`: it may train;
                  `refused`: it is left out; `draining`: it is about to end, and its trials leave it; `released`: an
                  autoscaler took it, since it was idle; `lost`), slots (trials that it runs at once, of one that
                  joined), reason (why it is left out)
    forecast      what the request is expected to take: tokens, low, high, trials, fewest, most (trials that
                  start), seconds (of training), start_up (seconds before it), occupancy (tokens, or share of each trial's own budget -> trials), basis
    planned       a trial exists: trial, label, config, values (varied path -> value), seed, role
                  (why it is trained, see `Role`), arm (of a study, else ""), grid (names the arm's
                  re-tune grid, "" outside of one), draws (that it took; 0 for a start point), params,
                  flops_per_token, corpus (digest of documents, split, vocabulary), unigram_entropy
                  (of that, in nats per token), train_tokens (of its training text)
    chosen        the values of an arm are settled: arm, values (null if every trial of its grid
                  diverged), score, tried, seeds, trials (its runs, by seed), repeats (more runs of
                  the first seed), place (in the plan), hypothesis, changes, retuned, grid (the trials
                  of its re-tune grid), failed (how many of these failed)
    look          verdicts are formed: metric, ends (the most seeds that were planned when the first run finished,
                  and after each time that more were planned), registered (arms that were planned at the
                  first record, by their names at the look), noise (null if it is not known), matters (as asked), variance (own if it is missing),
                  margin (within which there is no difference), arms (by name: seeds that it was planned to have; n, on how many it was
                  compared; its values and changes; trial and against, its run and the baseline's on the
                  first seed; looks, the numbers of differences at all its looks; the mean and
                  sd of the differences, low and high of its repeated interval; boundary, the t statistic
                  that is a difference; spent, the share of the level so far; p, sequential; p_holm;
                  matters, as asked when it was decided; decision; where the variance was pooled,
                  rests, the degrees of freedom that the other arms gave at all its looks)
    horizon       the baseline is trained at another number of tokens, to say what an arm is worth in tokens:
                  tokens, rates (trials, which differ in their learning rate), values (of the best of these;
                  null until they have ended, and if none finished), failed (how many of these failed),
                  trials (its runs at these values, by seed)
    confirming    the best of a search is run again on fresh seeds: values, score, tried, seeds, trials
                  (the runs, by seed)
    started       a worker begins an attempt, which may have waited for it: trial, attempt, step (that it
                  resumes from), checkpoint, worker (host and process), address (of its host), node (Ray's id), device
                  (its GPU, if Ray gave it one); the last four are missing if no worker came up
    measured      a record of `tinylm.train`: trial, attempt, step, tokens, seconds, losses, ...;
                  worker (host and process that trained it), device (its GPU, if Ray gave it one); at
                  a rung, with decayed scores,
                  decayed_val_loss, decayed_bits_per_byte and branch_tokens
    checkpointed  trial, attempt, step, tokens, path (relative to the sweep's folder)
    unusable      a checkpoint is damaged or missing, and the trial goes on from the one before: trial,
                  attempt (which it ends if it resumed from there), step, path, reason
    paused        the trial waits at a rung: trial, attempt, rung (in its own tokens, also where budgets
                  differ and a rung is a share of each), score
    promoted      it continues from a rung, after a pause or at once: trial, rung, to, score, rank,
                  arrived, forced, cutoff
    stopped       it will not continue: trial, reason, rung, score, rank, arrived, cutoff
    capped        its attempt ended because a cap was reached, or another trial reached the target that
                  ends the sweep: trial, attempt, cap (its name, or `target`), limit, used
    preempted     its attempt has saved a checkpoint and ended, because what it ran on is about to end: trial,
                  attempt, how (`node`: that is drained, `worker`: its process was asked to end, or `signal`: to the
                  driver)
    withdrawn     the space no longer has the trial: it is neither trained nor ranked, and no longer
                  counts for the others; its attempt has ended, if it was being trained: trial
    restored      the space has it again: trial
    steered       somebody steered the sweep by hand: action (`stop`: the trial gets no further tokens, which ends
                  its attempt; `finish`: it is trained to its end, whatever the policy says; `end`: nothing
                  new starts in this session), trial (of `stop` and `finish`), tokens (that it had then)
    refused       the driver did nothing of a request to steer: reason (which names the request)
    audited       a stopped trial is to be trained to the end, to see what stopping it cost: trial (the
                  id of the audit, under which its rows follow), of (the stopped trial), stopped (how many
                  it was drawn from), share
    diverged      trial, attempt, step, tokens, peak_loss, loss_init, how (`non-finite` or
                  `blown up`), reason, worker, device
    failed        trial, attempt, how (`out of memory`, `storage`, `died`: its process, `node`: that was
                  lost, `hung`: it was silent for too long, or `error`), reason, traceback, final (false: this session tries
                  again)
    finished      trial, attempt, step, tokens; how and reason if it ended before its budget: how is
                  `target`, which it reached
    sampled       texts from the checkpoints of the best run and of one of the baseline: texts (of the best
                  run first; each with trial, step, temperature, top_p, seed, text and tokens, its length)
    tested        the test text was read, by the last checkpoints of the runs of the chosen values and of the
                  baseline: runs (all of these, also those that read it before or could not), trials (by id:
                  loss, bits_per_byte, on so many tokens of it, and split, the digest of the whole text in
                  tokens)
    repaired      `sweeps ledger repair` dropped all lines from a damage on: damage, lines (how many), dropped (of
                  each kind that could be told), backup (file with the ledger as it was)

Rows of earlier versions are read as this version would have written them (`_current`). Kinds and fields
of a later version are skipped, and said once. Each row is validated where it is read, here and nowhere
else; one that is not valid is a damaged ledger.

Only the standard library is loaded before rows are read.
"""

import json
import re
import shlex
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, get_args

from sweeps.exits import Code, CommandError
from sweeps.stats import Decision, Variance

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

Row = dict[str, Any]

OUT_OF_MEMORY: Final = "out of memory"  # how a trial failed
_MEMORY = re.compile(
    r"out of memory|outofmemory|memoryerror|(can't|cannot) allocate memory|not enough memory|bad_alloc",
    re.IGNORECASE,
)

# Why a trial is trained, in the order below: to find the best values of a sweep; to find those of an
# arm, in its re-tune grid; as a run of an arm at settled values; to measure how much equal runs differ;
# to run the best of a search on fresh seeds; to see what stopping another trial cost; to see how the loss of
# a baseline depends on its tokens.
Role = Literal["search", "tuning", "run", "repeat", "confirm", "audit", "horizon"]
# What people may ask of a running sweep.
Action = Literal["stop", "finish", "end"]
# What may have happened to a node of a cluster.
NodeState = Literal["joined", "refused", "draining", "lost", "released"]
# What may end soon, so that a trial leaves it.
Ending = Literal["node", "worker", "signal"]


def says_out_of_memory(text: str) -> bool:
    """Whether the text of an error says that memory ran out."""
    return _MEMORY.search(text) is not None


class LedgerError(CommandError):
    """The ledger is damaged: a line before its end is no row that could have been written there."""

    code = Code.DAMAGED
    what = ""  # is damaged, without where it lies


def damaged(source: Path | str, number: int, why: object) -> LedgerError:
    """The error of the row with this number: its line, what is before it, and what saves that."""
    before = f"{number} whole row{'s' * (number != 1)} before it"
    command = f"sweeps ledger repair {shlex.quote(str(Path(source).parent))}"
    what = f"line {number + 1} is damaged: {why}"
    error = LedgerError(f"{source}: {what}; `{command}` keeps the {before}")
    error.what = what
    return error


# The fields of each kind and their types (see `_types`); `?` marks one that may be missing.
_FIELDS: Mapping[str, str] = {
    "sweep": (
        "space=tree base=tree scale=text seed=count source?=text bits?=text looks?=counts seeds?=counts metric?=text "
        "matters?=number|null variance?=variance arms?=tree judged?=text"
    ),
    "session": (
        "command?=text folder_option?=text versions?=versions machine?=machine commit?=text|null "
        "changed?=flag|null constraints?=text|null slots?=count|null dashboard?=text|null "
        "product_flops?=number|null notes?=texts speeds?=trees code?=text allowed?=text|null"
    ),
    "node": "node?=text host=text state=node slots?=count reason?=text",
    "forecast": (
        "tokens=size low=count high=count trials?=number fewest?=count most?=count seconds=number|null "
        "start_up?=number occupancy?=numbers_by_name basis=text"
    ),
    "planned": (
        "trial=id label=text config=tree values=values seed=count role=role arm=text grid=text "
        "draws?=count params=size flops_per_token=size corpus=text unigram_entropy?=number|null "
        "train_tokens?=count|null"
    ),
    "chosen": (
        "arm=text values=values|null score?=number|null tried=count seeds?=counts trials=ids_by_name "
        "repeats=ids place=count hypothesis=text changes=values retuned=flag grid=ids failed=count"
    ),
    "look": (
        "metric=text ends=counts registered=texts noise=noise|null matters=number|null variance?=variance "
        "margin=number|null arms=seen"
    ),
    "horizon": ("tokens=size rates=ids values=values|null failed=count trials=ids_by_name"),
    "confirming": "values=values score?=number|null tried?=count seeds?=counts trials=ids_by_name",
    "started": (
        "trial=id attempt=count step=count checkpoint?=text|null worker?=text address?=text node?=text "
        "device?=text"
    ),
    "measured": (
        "trial=id attempt=count step=size tokens=size seconds=number train_loss=number "
        "val_loss=number bits_per_byte=number lr=number grad_norm=number|null peak_loss?=number|null "
        "loss_init?=number|null spike?=number|null first_losses?=numbers tokens_per_s=number|null "
        "mfu?=number|null compile_seconds?=number last=flag peak_memory?=count worker?=text device?=text decayed_val_loss?=number|null "
        "decayed_bits_per_byte?=number|null branch_tokens?=count"
    ),
    "checkpointed": "trial=id attempt=count step=count tokens=count path=text",
    "unusable": "trial=id attempt=count step=count path=text reason=text",
    "paused": "trial=id attempt?=count rung=size score=number|null",
    "promoted": (
        "trial=id rung=size to=size|null score=number|null rank=count arrived=count forced=flag "
        "cutoff?=number|null"
    ),
    "stopped": (
        "trial=id reason=text rung=size score=number|null rank=count arrived=count cutoff?=number|null"
    ),
    "capped": "trial=id attempt=count cap=text limit=number used=number",
    "preempted": "trial=id attempt=count how=ending",
    "withdrawn": "trial=id",
    "restored": "trial=id",
    "steered": "action=action trial?=id tokens?=count",
    "refused": "reason=text",
    "audited": "trial=id of=id stopped=count share=number",
    "diverged": (
        "trial=id attempt=count step=count tokens=count peak_loss?=number|null loss_init?=number|null "
        "how?=text reason=text worker?=text device?=text"
    ),
    "failed": "trial=id attempt=count how=text reason=text traceback?=text final=flag",
    "finished": "trial=id attempt=count step=count tokens=count how?=text reason?=text",
    "sampled": "texts=sampled",
    "tested": "runs=ids trials=tested",
    "repaired": "damage=text lines=count dropped=counts_by_name backup=text",
}
KINDS = frozenset(_FIELDS)
# Of the `machine` of a session, whose `versions` are texts, or null, by name.
_MACHINE = "system?=text processor?=text cpus?=count|null memory?=number gpu?=text"
# Of a trial in a `tested`.
_TESTED = "loss=number|null bits_per_byte=number|null tokens=count split=text"
# Of a text in a `sampled`.
_SAMPLED = "trial=id step=count temperature=number top_p=number seed=count text=text tokens=count"
# Of an arm in a `look`.
_SEEN = (
    "seeds=counts changes=values values=values|null trial=id|null against=id|null looks=counts n=count "
    "mean=number|null "
    "sd=number|null low=number|null high=number|null p=number|null p_holm=number|null "
    "boundary=number|null spent=number matters=number|null decision=decision rests?=counts"
)
_OF_EVERY = "seq=count time=text t?=number"
LONGEST_TEXT = 2**20  # characters
_MOST = 2**53  # of what is counted: floats are exact up to here
_LARGEST = 1e100  # number, up or down: its square and its sums are finite


def _types() -> dict[str, Any]:
    """The schema of each type in `_FIELDS`."""
    from pydantic_core import core_schema as of

    text = of.str_schema(strict=True, max_length=LONGEST_TEXT)
    name = of.str_schema(strict=True, pattern=r"^[A-Za-z0-9_-]{1,100}$")  # files are named after it
    count = of.int_schema(strict=True, ge=0, le=_MOST)
    number = of.float_schema(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)
    flag = of.bool_schema(strict=True)
    whole = of.int_schema(strict=True, ge=-_MOST, le=_MOST)
    value = of.nullable_schema(of.union_schema([flag, whole, number, text]))
    tree = of.dict_schema(text, of.any_schema(), strict=True)
    types: dict[str, Any] = {
        "text": text,
        "id": name,
        "count": count,
        "size": of.int_schema(strict=True, ge=1, le=_MOST),
        "number": number,
        "flag": flag,
        "tree": tree,
        "role": of.literal_schema(list(get_args(Role))),
        "action": of.literal_schema(list(get_args(Action))),
        "node": of.literal_schema(list(get_args(NodeState))),
        "ending": of.literal_schema(list(get_args(Ending))),
        "values": of.dict_schema(text, value, strict=True),
        "texts": of.list_schema(text, strict=True),
        "ids": of.list_schema(name, strict=True),
        "counts": of.list_schema(count, strict=True),
        "numbers": of.list_schema(number, strict=True),
        "trees": of.list_schema(tree, strict=True),
        "ids_by_name": of.dict_schema(text, name, strict=True),
        "counts_by_name": of.dict_schema(text, count, strict=True),
        "numbers_by_name": of.dict_schema(text, number, strict=True),
    }
    types["versions"] = of.dict_schema(text, of.nullable_schema(text), strict=True)
    types["count|null"] = of.nullable_schema(count)
    types["machine"] = _tree(_MACHINE, types)
    types["noise"] = _tree("sd=number low=number high=number freedom=count of=text", types)
    types["decision"] = of.literal_schema(list(get_args(Decision)))
    types["variance"] = of.literal_schema(list(get_args(Variance)))
    types |= {
        f"{name}|null": of.nullable_schema(types[name]) for name in ("number", "values", "id")
    }
    types["seen"] = of.dict_schema(text, _tree(_SEEN, types), strict=True)
    types["tested"] = of.dict_schema(name, _tree(_TESTED, types), strict=True)
    types["sampled"] = of.list_schema(_tree(_SAMPLED, types), strict=True, min_length=1)
    return types | {f"{name}|null": of.nullable_schema(one) for name, one in types.items()}


def _tree(fields: str, types: Mapping[str, Any]) -> Any:
    """The schema of an object with these fields; others are left out."""
    from pydantic_core import core_schema as of

    return of.typed_dict_schema(_typed(fields, types), extra_behavior="ignore")


def _typed(fields: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of each of these fields."""
    from pydantic_core import core_schema as of

    parts = (one.partition("=") for one in fields.split())
    return {
        name.removesuffix("?"): of.typed_dict_field(types[type_], required=not name.endswith("?"))
        for name, _, type_ in parts
    }


@cache
def _validator(kind: str, *, others: Literal["forbid", "ignore"]) -> "SchemaValidator":
    """What checks the rows of a kind; fields that it does not know are errors, or left out."""
    from pydantic_core import SchemaValidator, core_schema

    fields = {"kind": core_schema.typed_dict_field(core_schema.literal_schema([kind]))}
    fields |= _typed(f"{_OF_EVERY} {_FIELDS[kind]}", _types())
    return SchemaValidator(core_schema.typed_dict_schema(fields, extra_behavior=others))


@cache  # once in a process
def tell(message: str) -> None:
    """Say something about a ledger that changes nothing of what is read."""
    print(message, file=sys.stderr, flush=True)


_MARK = b',"sum":"'  # before the checksum, at the end of a line
_END = len(_MARK) + len('00000000"}\n')
_MEASURED = b'"kind":"measured"'
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def sealed(row: Row, state: int) -> tuple[bytes, int]:
    """The line of a row with its checksum, and the checksum, which the next row's begins with."""
    body = _ENCODER.encode(row).encode()[:-1]
    state = zlib.crc32(body, state)
    return b'%s%s%08x"}\n' % (body, _MARK, state), state


def _parts(line: bytes) -> tuple[bytes, bytes, bytes]:
    """What the checksum of a line is made of, the line without it, and the checksum, if it has one."""
    if line[-_END : len(_MARK) - _END] != _MARK:
        return line[:-2], line, b""
    body = line[:-_END]
    return body, body + b"}", line[-11:-3]


class Lines:
    """The lines of a ledger as rows, one by one, and how far they were whole when the reading ended.

    A line ends with a checksum of its bytes and of all lines before, without `_MARK` and what follows:
    CRC-32, begun with the checksum of the line before. It finds accidents: a digit that flipped, lines
    that are missing, doubled, swapped or edited. It is no signature: anybody can write a new one.

    A driver writes the last line, or a crash cut it off, if it has no end. What a power cut leaves at the
    end of a file are bytes that no driver writes, such as NUL. Neither is a row, nor damage. A last line
    that lacks its end alone is a row: its checksum says that the rest is there.
    """

    def __init__(self, stream: IO[bytes], source: Path) -> None:
        self._stream = stream
        self._source = source
        self._lenient: set[str] = set()  # kinds that have fields of a later version
        self.number = 0  # of the whole lines
        self.state = 0  # the checksum after them
        self.whole = 0  # their bytes
        self.rest = 0  # bytes after them, which are no row
        self.is_torn = False  # whether some of these are bytes that no driver writes
        self.lacks_end = False  # whether the last row does

    def __iter__(self) -> Iterator[Row]:
        arms = _arms(self._stream)
        for line in self._stream:
            try:
                row, state = self._row(line if line.endswith(b"\n") else self._ended(line), arms)
            except _BROKEN as error:
                self.rest = self._torn(line)
                if self.rest:
                    return
                raise damaged(self._source, self.number, _why(error)) from error
            self.number, self.state, self.whole = self.number + 1, state, self.whole + len(line)
            self.lacks_end = not line.endswith(b"\n")
            if row is not None:
                yield row

    def of(self, kinds: Collection[str]) -> Iterator[Row]:
        """The rows of these kinds alone. Other lines are not looked at, nor is any checksum: who acts on
        the rows reads all of them first."""
        marks = [f'"{kind}"'.encode() for kind in kinds]
        for number, line in enumerate(self._stream):
            if any(mark in line for mark in marks):
                try:
                    whole = line if line.endswith(b"\n") else self._ended(line)
                    row = self._checked(_object(_parts(whole)[1]), {})
                except _BROKEN as error:
                    self.rest = self._torn(line)
                    if self.rest:
                        return
                    raise damaged(self._source, number, _why(error)) from error
                if row["kind"] in kinds:
                    yield row

    def _ended(self, line: bytes) -> bytes:
        """The last line with an end, which may be all that it lacks."""
        line += b"\n"
        if not _parts(line)[2]:
            raise EOFError
        return line

    def _torn(self, line: bytes) -> int:
        """The bytes from a line to the end of the file; 0 if they are no torn end of it."""
        size = 0
        while line:
            strange = b"\0" in line or not (line.isascii() or _parts(line)[2])
            self.is_torn |= strange
            size += len(line)
            if not line.endswith(b"\n"):  # a driver may write on meanwhile
                return size
            if not strange:
                return 0
            line = self._stream.readline()
        return size

    def _row(self, line: bytes, arms: Mapping[str, str]) -> tuple[Row | None, int]:
        """The row of a line, None if its kind is of a later version, and the checksum after it."""
        body, text, given = _parts(line)
        state = zlib.crc32(body, self.state)
        if given and given != b"%08x" % state:
            raise ValueError(
                "the checksum does not match: this line or one before it was changed, removed or moved"
            )
        row = self._measured(text) if _MEASURED in text[:120] else None  # by far the most rows
        if row is None:
            row = self._checked(_object(text), arms)
        if row["seq"] != self.number:
            raise ValueError(f"seq {row['seq']}")
        return row if row["kind"] in _FIELDS else None, state

    def _measured(self, text: bytes) -> Row | None:
        """The row of a record; None if something about it is wrong or strange, or of a later version."""
        if b"\\" in text or not text.isascii():
            return None
        try:
            row: Row = self._validator("measured").validate_json(text)
        except ValueError:
            return None
        return row

    def _checked(self, found: Row, arms: Mapping[str, str]) -> Row:
        """The row as this version writes it, with the fields that it knows."""
        from pydantic_core import ValidationError

        kind = found["kind"]
        if not isinstance(kind, str) or not isinstance(found["seq"], int):
            raise TypeError(f"seq {found['seq']!r}, kind {kind!r}")
        if "sum" in found:
            raise ValueError("`sum` is not the last field")
        if kind not in _FIELDS:
            tell(f"{self._source}: rows of a later version are skipped: {kind[:40]!r}")
            return found
        found = _current(found, arms) if kind in _CHANGED else found
        kind = found["kind"]
        row: Row
        try:
            row = self._validator(kind).validate_python(found)
        except ValidationError as error:
            self._lenient.add(kind)
            row = self._validator(kind).validate_python(found)
            names = ", ".join(repr(one["loc"][0])[:40] for one in error.errors(include_url=False))
            tell(f"{self._source}: fields of a later version are skipped: {names} in {kind!r}")
        return row

    def _validator(self, kind: str) -> "SchemaValidator":
        return _validator(kind, others="ignore" if kind in self._lenient else "forbid")


# What a line that is no row raises; pydantic's errors are ValueErrors.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, EOFError)


def _why(error: Exception) -> str:
    """What is wrong with a line, in a few words."""
    from pydantic_core import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        value = repr(first["input"])
        shown = value if len(value) <= 60 else f"{value[:60]}..."
        missing = first["type"] == "missing"
        return f"{'.'.join(map(str, first['loc']))[:80]}: " + (
            "missing" if missing else f"{first['msg'][:120]}, got {shown}"
        )
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)[:200] or type(error).__name__


# An escape in JSON; the first group has one of a character that a terminal would act on, except a tab and
# the end of a line.
_ESCAPE = re.compile(
    rb"\\(?:(u00(?:0[0-8b-f]|1[0-9a-f]|7f|[89][0-9a-f])|u202[a-e]|u206[6-9]|[bfr])|.)",
    re.IGNORECASE,
)


def _harmless(text: bytes) -> bytes:
    """A JSON text in which characters that a terminal would act on are written out, as their escapes. A
    ledger may be somebody else's, and its texts are shown."""
    if not text.isascii() or b"\x7f" in text:
        text = json.dumps(json.loads(text)).encode()
    if b"\\" not in text:  # by far the most lines
        return text
    return _ESCAPE.sub(lambda found: b"\\" * bool(found[1]) + found[0], text)


def _object(text: bytes) -> Row:
    """The object that a JSON text holds; `ValueError` if it holds something else."""
    from pydantic_core import from_json

    if not text.strip():
        raise ValueError("the line is empty")
    text = _harmless(text)
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError:
        if b"\\ud" not in text.lower():
            raise
        # Half a surrogate pair, which stands for a byte of a command line that is no text.
        whole = json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace")
        found = from_json(whole, allow_inf_nan=False)
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, got {str(found)[:40]}")
    return found


def _arms(stream: IO[bytes]) -> dict[str, str]:
    """The arms of runs, by the first `chosen` row that names them; `planned` rows of version 0.1 lack
    them, and only a ledger that it began has such rows."""
    arms: dict[str, str] = {}
    is_old = not _parts(stream.readline())[2]
    stream.seek(0)
    for line in stream if is_old else ():
        if b'"chosen"' in line:
            try:
                row = _object(line)
                if row["kind"] == "chosen" and row.get("arm"):
                    for trial in (*row.get("trials", {}).values(), *row.get("repeats", ())):
                        arms.setdefault(trial, row["arm"])
            except _BROKEN:
                break  # damaged, which is found when the rows are read
    stream.seek(0)
    return arms


# Kinds that have changed.
_CHANGED = {
    "planned", "sweep", "chosen", "session", "failed", "look", "tested", "sampled", "node",
}  # fmt: skip


def _current(row: Row, arms: Mapping[str, str]) -> Row:
    """The row as this version writes it; `arms` are those of the runs that some `chosen` row names.

    Older planned rows have a `pool` instead of a role: "" in a search, "ARM DIGEST" in a re-tune grid,
    null for a trial that runs to the end, whose arm only the first `chosen` row with it names. An
    older confirmation is a `chosen` row with an empty arm. An older session has a command without its
    `folder_option`. Older failures say in their text how they came about. Older looks say of no arm which
    bound it was decided by. Older `tested` rows name no run that could not read the text. Older `sampled`
    rows have one text. Older `node` rows are of nodes that were left out. Older configs lack the fields in
    `tinylm.config.IMPLIED`.
    """
    from tinylm import config as cfg  # loads pydantic

    config = {"planned": "config", "sweep": "base"}.get(row["kind"])
    if config is not None:
        row = {**row, config: cfg.with_implied(row[config], cfg.IMPLIED)}
        _check_config(row[config])
    if row["kind"] == "planned" and "role" not in row:
        row = {**row, **_role(row, arms)}
        row.pop("pool", None)
        return row
    if row["kind"] == "chosen" and row["arm"] == "":
        only = ("arm", "grid", "repeats", "failed")
        return {name: row[name] for name in row if name not in only} | {"kind": "confirming"}
    if row["kind"] == "session" and "command" in row and "folder_option" not in row:
        is_named = "sweeps.experiment" in row["command"].split()
        return {**row, "folder_option": "--name" if is_named else "--out"}
    if row["kind"] == "look":
        arms_seen = {name: {"matters": row["matters"], **one} for name, one in row["arms"].items()}
        return {**row, "arms": arms_seen}
    if row["kind"] == "tested":
        return {"runs": list(row["trials"]), **row}
    if row["kind"] == "sampled" and "texts" not in row:
        names = ("trial", "step", "temperature", "top_p", "seed", "text", "tokens")
        text = {name: row[name] for name in names}
        return {**{name: row[name] for name in row if name not in names}, "texts": [text]}
    if row["kind"] == "node":
        return {"state": "refused", **row}
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


def _check_config(tree: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a config is not one of this version, settings of a later version aside."""
    from pydantic import ValidationError

    from tinylm import config as cfg

    try:
        cfg.Config.model_validate(tree)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            is_new = one["type"] == "extra_forbidden"
            if not is_new or not isinstance(one["input"], str | int | float | None):
                where = ".".join(map(str, one["loc"]))
                raise ValueError(f"config: {where}: {one['msg'][:120]}") from error
