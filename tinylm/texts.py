"""Text files as documents, in pieces of bounded size, so that a file may be of any size.

A document is a series of pieces `(text, ends)`. A document that is longer than `2 * PIECE` is cut
only where the byte-level pre-tokenizer ends a word in any case: its pieces have together exactly the
tokens of the whole, whatever PIECE is. The one exception is a word (a run of letters, of digits, of
signs or of spaces) of more than PIECE / 4 characters, which may be cut.
"""

import codecs
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tokenizers import pre_tokenizers

from tinylm import config as cfg
from tinylm.config import ConfigError, did_you_mean

END_OF_TEXT = "<|endoftext|>"
PIECE = 2**16  # characters
BLOCK = 2**20  # characters read at a time
LONGEST_LINE = 2**26  # bytes of a line of JSON

JSON_LINES, PARQUET, TOKENS = (".jsonl", ".ndjson"), ".parquet", ".bin"
# Of a folder, the first of these kinds that it has is read: a readme beside the texts is no text.
KINDS = (".txt", *JSON_LINES, PARQUET, TOKENS, ".md")
COMPRESSED = (".gz", ".zst")
NOT_TEXT = (".json", ".zip", ".tar", ".tgz", ".7z", ".pkl", ".npy", ".pt", ".arrow")
# The last word of a name, before the number of a shard: owt_valid, train-00000-of-00004.
_SIDE = re.compile(
    r"(?:.*[^a-z])?(?:(?P<train>train|training)|(?P<validation>valid|validation|val|dev)"
    r"|(?P<test>test))(?:[^a-z]*[0-9][^a-z]*(?:of[^a-z]*)?)?"
)
_NAMED = 3  # skipped files that a note names

Piece = tuple[str, bool]  # a part of a document, and whether the document ends with it


@dataclass(frozen=True)
class Sources:
    """The files of a corpus. Without validation files, a part of the training text is held out."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    kind: str  # one of KINDS; "" is any other text file
    notes: tuple[str, ...]  # what people should know about the choice


def kind(file: Path) -> str:
    """The kind of a file by its name in any case, without `.gz` and `.zst`: one of KINDS, or ''."""
    name = Path(file.name.lower())
    if name.suffix not in COMPRESSED:
        return name.suffix
    return Path(name.stem).suffix or ".txt"


def _refusal(file: Path, setting: str, reason: object) -> ConfigError:
    return ConfigError([f"{file}: {setting}: {reason}"])


def sources(data: cfg.Data) -> Sources:
    """The files that `data.path` and `data.validation_path` name; `ConfigError` if there are none.

    Files of a folder whose names (or the names of their folders) hold train, and others that hold
    valid, val, validation or dev, are the two sides of the split: texts of the one never get into
    the other. Files that hold test are then left out.
    """
    assert data.path is not None
    found, skipped = _files(data.path, "data.path")
    sides: dict[str, list[Path]] = {"train": [], "validation": [], "test": [], "": []}
    root = Path(os.path.expanduser(data.path))  # noqa: PTH111 a user that does not exist is a file
    for file in found:
        sides[_side(file.relative_to(root)) if root.is_dir() else ""].append(file)
    training, validation = found, list[Path]()
    if data.validation_path is not None:
        validation, more = _files(data.validation_path, "data.validation_path")
        skipped += more
    if sides["validation"] or (sides["train"] and sides["test"]):
        training = sides["train"] or sides[""]
        validation = validation or sides["validation"]
    same = {file.resolve() for file in validation}
    training = [file for file in training if file.resolve() not in same]
    if not training:
        where = f"{data.path}: data.path"
        raise ConfigError([f"{where}: no training text besides the validation text"])
    kinds = sorted({kind(file) for file in (*training, *validation)})
    if len(kinds) > 1 and TOKENS in kinds:
        raise ConfigError(
            [
                f"{data.path}: data.validation_path: expected {TOKENS} beside {TOKENS}; texts and token "
                "ids do not go together"
            ]
        )
    notes = []
    if validation and data.validation_path is None:
        notes.append(
            f"{data.path}: the names of the files say the split: {_listed(training)} for training, "
            f"{_listed(validation)} for validation"
        )
    left = [file for file in found if file not in training and file.resolve() not in same]
    if left:
        notes.append(f"{data.path}: left out: {_listed(left)}")
    if skipped:
        notes.append(f"{data.path}: skipped {_listed(skipped)}; only {kinds[0]} files are read")
    return Sources(tuple(training), tuple(validation), kinds[0], tuple(notes))


def _listed(files: list[Path]) -> str:
    """How many files, and the names of the first."""
    names = ", ".join(file.name for file in files[:_NAMED])
    more = ", ..." if len(files) > _NAMED else ""
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({names}{more})"


def _side(file: Path) -> str:
    """`train`, `validation` or `test` if the name of a file, or of a folder above it, says so."""
    name = file.name.lower()
    for suffix in (*COMPRESSED, kind(file)):
        name = name.removesuffix(suffix)
    for part in (name, *(folder.lower() for folder in reversed(file.parts[:-1]))):
        if found := _SIDE.fullmatch(part):
            assert found.lastgroup is not None
            return found.lastgroup
    return ""


def _files(named: str, setting: str) -> tuple[list[Path], list[Path]]:
    """The files to read of a file or folder, in order of their paths, and those that are skipped."""
    path = Path(os.path.expanduser(named))  # noqa: PTH111 a user that does not exist is a file
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _refusal(path, setting, getattr(error, "strerror", None) or error) from error
    if stat.S_ISREG(mode):
        if kind(path) in NOT_TEXT:
            raise _refusal(path, setting, _advice(path))
        return [path], []
    if not stat.S_ISDIR(mode):
        raise _refusal(path, setting, "neither a file nor a folder; a corpus is read several times")
    inside: list[Path] = []

    def unreadable(error: OSError) -> None:
        raise _refusal(Path(error.filename), setting, error.strerror) from error

    for top, folders, names in os.walk(path, onerror=unreadable):
        links = [name for name in folders if Path(top, name).is_symlink()]  # are not followed
        inside += [Path(top, name) for name in (*names, *links)]
    inside.sort()
    files = [file for file in inside if file.is_file()]
    chosen = next((some for some in KINDS if some in map(kind, files)), None)
    if chosen is None:
        others = f"; it has {_listed(inside)}" if inside else ""
        raise _refusal(path, setting, f"no {', '.join(KINDS)} file in this folder{others}")
    here = {file for file in files if kind(file) == chosen}
    # A file that is there compressed as well is read once.
    here -= {
        file for file in here if file.suffix.lower() in COMPRESSED and file.with_suffix("") in here
    }
    return [file for file in inside if file in here], [file for file in inside if file not in here]


def _advice(file: Path) -> str:
    if kind(file) == ".json":
        return (
            "JSON is read line by line, one document a line; name such a file .jsonl "
            "(jq -c '.[]' makes one of an array)"
        )
    return f"{kind(file)} files are not read; expected one of {', '.join(KINDS)}, or text"


def documents(file: Path, data: cfg.Data, setting: str = "data.path") -> Iterator[Piece]:
    """The documents of a file, stripped, without those that are empty.

    Raises `ConfigError` with the file, and the line where there is one, if it can't be read.
    """
    readers: dict[str, Callable[[Path, cfg.Data], Iterator[Piece]]] = {
        **dict.fromkeys(JSON_LINES, _json_lines),
        PARQUET: _parquet,
    }
    try:
        yield from pieces(readers.get(kind(file), _text)(file, data))
    except UnicodeDecodeError as error:
        raise _refusal(file, setting, _wrong_byte(file)) from error
    except _Wrong as error:
        raise _refusal(file, setting, error) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _refusal(file, setting, getattr(error, "strerror", None) or error) from error


class _Wrong(Exception):  # noqa: N818 the sentence is the whole of it
    """What is wrong with a file, without its path."""


def _open(file: Path) -> BinaryIO:
    """The bytes of a file, uncompressed."""
    if file.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(file, "rb"))
    if file.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))
    return file.open("rb")


def _text(file: Path, data: cfg.Data) -> Iterator[Piece]:
    with io.TextIOWrapper(_open(file), encoding="utf-8-sig") as stream:
        yield from parted(iter(lambda: stream.read(BLOCK), ""), data.separator)


_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


def parted(blocks: Iterable[str], separator: str) -> Iterator[Piece]:
    """The documents of a text that comes in blocks, as it is between separators."""
    held = ""  # may be the beginning of a separator
    for block in blocks:
        text = held + block
        if separator == "blank_line":
            *whole, last = _BLANK_LINES.split(text)
            end = len(last.rstrip()) if "\n" in last[len(last.rstrip()) :] else len(last)
        else:
            *whole, last = text.split(END_OF_TEXT)
            lengths = range(len(END_OF_TEXT) - 1, 0, -1)
            begun = next((n for n in lengths if last.endswith(END_OF_TEXT[:n])), 0)
            end = len(last) - begun
        for document in whole:
            yield document, True
        yield last[:end], False
        held = last[end:]
    yield held, True


def _checked(text: object, where: str) -> str:
    """A document that was read from a field; `_Wrong` if it is no text."""
    if not isinstance(text, str):
        raise _Wrong(f"{where}: expected text, got {json.dumps(text, default=str)[:80]}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Wrong(f"{where}: half of a surrogate pair, which is no character") from error
    return text


def _json_lines(file: Path, data: cfg.Data) -> Iterator[Piece]:
    with _open(file) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise _Wrong(f"line {number}: longer than {LONGEST_LINE // 2**20} MiB")
            if not line.strip():
                continue
            try:
                found: Any = json.loads(
                    line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                )
            except UnicodeDecodeError:
                raise
            except (ValueError, RecursionError) as error:
                raise _Wrong(f"line {number}: not JSON ({error})") from error
            if not isinstance(found, dict):
                raise _Wrong(f"line {number}: expected a JSON object, got {json.dumps(found)[:80]}")
            if data.field not in found:
                raise _Wrong(f"line {number}: {_no_field(data.field, found)}")
            yield _checked(found[data.field], f"line {number}: {data.field}"), True


def _no_field(field: str, names: Iterable[str]) -> str:
    known = ", ".join(list(names)[:20]) or "none"
    return f"no field {field!r} (data.field); fields: {known}{did_you_mean(field, names)}"


def _parquet(file: Path, data: cfg.Data) -> Iterator[Piece]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    if file.suffix.lower() in COMPRESSED:
        raise _Wrong("a Parquet file is compressed by itself; unpack it")
    try:
        with pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as table:
            if data.field not in table.schema_arrow.names:
                raise _Wrong(_no_field(data.field, table.schema_arrow.names))
            row = 0
            for group in range(table.num_row_groups):
                about = table.metadata.row_group(group)
                each = about.total_byte_size // max(1, about.num_rows) + 1
                rows = max(1, min(4096, 2**24 // each))
                for part in table.iter_batches(rows, [group], [data.field], use_threads=False):
                    for text in part.column(0):
                        row += 1
                        yield _checked(text.as_py(), f"row {row}: {data.field}"), True
    except ArrowException as error:
        raise _Wrong(f"not a Parquet file that can be read ({error})") from error


def _wrong_byte(file: Path) -> str:
    """Where a file is not UTF-8, and what would read it."""
    offset, line, kept = 0, 1, b""
    with _open(file) as stream:
        while True:
            more = stream.read(BLOCK)
            block = kept + more
            try:
                # The last character of a block may go on in the next.
                text, length = codecs.utf_8_decode(block, "strict", not more)
            except UnicodeDecodeError as error:
                start = error.start
                break
            line += text.count("\n")
            offset += length
            kept = block[length:]
            if not more:
                return "not UTF-8 text"
    line += block[:start].count(b"\n")
    first = block.rfind(b"\n", max(0, start - 2**12), start) + 1 or max(0, start - 2**12)
    near = block[first : start + 2**12]
    marked = offset == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    names = ["utf-16"] if marked else _encodings(near)
    hint = f"; {' or '.join(names)} would read it: iconv -f {names[0]} -t utf-8" if names else ""
    return (
        f"not UTF-8 text: byte 0x{block[start]:02x} at offset {offset + start}, line {line}{hint}"
    )


def _encodings(near: bytes) -> list[str]:
    """The likeliest encodings that read these bytes, at most two; none if they are no text."""
    if re.search(rb"[\0-\x08\x0e-\x1a]", near):
        return []
    # More than an accent here and there: no Latin script.
    many = sum(byte >= 0x80 for byte in near) > len(near) / 4 and len(near) > 2**4
    names = ("gb18030", "shift_jis", "euc_kr", "cp1251") if many else ("cp1252", "latin-1")
    fitting = []
    for name in names:
        try:
            codecs.getincrementaldecoder(name)().decode(near)  # may end within a character
        except UnicodeDecodeError:
            continue
        fitting.append(name)
    return fitting[: 2 if many else 1]


_WORD_END = re.compile(r".*\S(?=[ \n])", re.DOTALL)
_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


def pieces(fragments: Iterable[Piece]) -> Iterator[Piece]:
    """The documents whose text comes in fragments of any size: stripped, cut into pieces, without
    those that are empty."""
    held, begun = "", False
    for text, ends in fragments:
        held += text
        if not begun:
            held = held.lstrip()
        start, end = 0, len(held.rstrip())
        while end - start > 2 * PIECE:
            cut = _cut(held, start)
            yield held[start:cut], False
            start, begun = cut, True
        held = held[start:]
        if ends:
            if rest := held.rstrip():
                yield rest, True
            held, begun = "", False


def _cut(text: str, start: int) -> int:
    """Where a piece that begins at `start` ends, at most PIECE further."""
    if found := _WORD_END.match(text, start, start + PIECE + 1):
        return found.end()
    # No space after a word: ask the pre-tokenizer itself. Its last two words may go on; and spaces at
    # the end of a text are one word, while before another word the last of them is not.
    words = _WORDS.pre_tokenize_str(text[start : start + PIECE])
    ends = (start + end for _, (_, end) in reversed(words[:-2]))
    return next((end for end in ends if not text[end - 1].isspace()), start + PIECE)
