"""Corpora, their tokens, and batches that are a pure function of (seed, step).

The documents of a corpus are split into training, validation and test documents before anything is
tokenized (see documents.py), and the byte-level BPE vocabulary is trained on the training documents
only. The result is a folder of token files, named by the digest of documents, split and vocabulary
size. It is built under another name and then renamed, so that a folder that exists is complete. One
process builds at a time, and goes on where a process that was killed had come.

However large a corpus is, its preparation needs less than 1 GB of memory.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tinylm import config as cfg
from tinylm import documents, texts
from tinylm.config import MAX_VOCABULARY, ConfigError
from tinylm.documents import SIDES, TEST, TRAIN, VALIDATION, Advance, Survey
from tinylm.files import replacing, sync
from tinylm.texts import END_OF_TEXT as END_OF_TEXT

Tell = Callable[[str], None]  # told what people should know

CHUNK = 2**24  # tokens counted at a time
_BATCH = 2**20  # characters tokenized at a time
_SAVED = 2**24  # characters tokenized between two saved states
SETTLED = (
    2 * 10**9
)  # nanoseconds: file systems tell the times of two changes apart that are so far apart
# The vocabulary is learned from the training text until its distinct words cost so much: the memory
# of learning grows with them, not with the text. Only large texts of many languages, of scripts
# without spaces, or of no language reach it.
_MOST_WORDS = 12 * 2**20


def cache_folder() -> Path:
    """The folder for downloads and prepared corpora: `$TINYLM_CACHE`, else `~/.cache/tinylm`."""
    named = os.environ.get("TINYLM_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "tinylm"


@dataclass(frozen=True)
class Tokens:
    """One split of a corpus: a memory-mapped array of token ids (uint16)."""

    ids: NDArray[np.uint16]
    documents: int

    def unigram_entropy(self) -> float:
        """Nats per token of the best model that knows only how frequent each token is."""
        counts = np.zeros(MAX_VOCABULARY, np.int64)
        for first in range(0, len(self.ids), CHUNK):
            counts += np.bincount(self.ids[first : first + CHUNK], minlength=MAX_VOCABULARY)
        share = counts[counts > 0] / len(self.ids)
        return float(-(share * np.log(share)).sum())

    def windows(self, start: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The windows of `length` tokens that begin at each start, shape (len(start), length)."""
        return self.ids[start[:, None] + np.arange(length)].astype(np.int64)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, read from its folder."""

    folder: Path
    train: Tokens
    validation: Tokens
    bytes_of_token: NDArray[np.int64]  # UTF-8 bytes of each token id; 0 for <|endoftext|>
    is_given: bool = False  # as token ids without their text; each id then counts as one byte
    test: Tokens | None = None  # that a sweep reads once, at its end

    @property
    def digest(self) -> str:
        """What identifies these documents, this split and this vocabulary."""
        return self.folder.name

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the token files."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))


def starts(tokens: Tokens, size: int, length: int, seed: int, step: int) -> NDArray[np.int64]:
    """Where `size` windows of `length + 1` tokens begin, a pure function of (seed, step)."""
    return np.random.default_rng([seed, step]).integers(0, len(tokens.ids) - length, size)


def batch(tokens: Tokens, size: int, length: int, seed: int, step: int) -> NDArray[np.int64]:
    """`size` windows of `length + 1` training tokens, a pure function of (seed, step)."""
    return tokens.windows(starts(tokens, size, length, seed, step), length + 1)


def fixed_windows(tokens: Tokens, count: int, length: int) -> NDArray[np.int64]:
    """`count` windows of `length + 1` tokens, evenly spread over a split, always the same."""
    start = np.linspace(0, len(tokens.ids) - length - 1, count).astype(np.int64)
    return tokens.windows(start, length + 1)


def cut(blocks: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The windows of `length + 1` tokens into which blocks of `n * length + 1` tokens are cut.

    The last token of a window is the first of the next one, so that the windows predict each token of a
    block but its first exactly once, whatever their length.
    """
    first = np.arange(0, blocks.shape[1] - 1, length)
    return blocks[:, first[:, None] + np.arange(length + 1)].reshape(-1, length + 1)


def _words(text: str) -> set[str]:
    """About the distinct words by which a text is tokenized."""
    between_spaces = set(text.split())
    long = {word for word in between_spaces if len(word) > 2**8}  # maybe of a script without spaces
    return (between_spaces - long).union(*(re.findall(r"\w+|\W+", word) for word in long))


def _cost(word: str) -> float:
    """What a word costs to learn from, about in bytes: more outside ASCII, where its pairs of letters
    are of many kinds, and ever more if it is long."""
    size = len(word) if word.isascii() else 4 * len(word.encode())
    return size * (1 + (len(word) / 2**12) ** 2)


def _until_enough(pieces: Iterable[str], tell: Tell) -> Iterator[str]:
    """The pieces up to the one whose new words are too many to learn from."""
    known: set[str] = set()
    cost, characters = 0.0, 0
    for text in pieces:
        new = _words(text) - known
        cost += sum(map(_cost, new))
        if cost > _MOST_WORDS and known:
            tell(f"the vocabulary is learned from the first {characters / 1e6:.1f}M characters")
            return
        known |= new
        characters += len(text)
        yield text


def _train_tokenizer(pieces: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        pieces,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def _bytes_of_token(tokenizer: Tokenizer) -> list[int]:
    """UTF-8 bytes of each id; in the byte-level alphabet, one character represents one byte."""
    tokens = sorted(tokenizer.get_vocab().items(), key=itemgetter(1))
    return [0 if token == END_OF_TEXT else len(token) for token, _ in tokens]


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Advance]:
    """A function that is told how much more is done; a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class _TokenFiles:
    """The token files of a corpus while they are written. After each saved state, writing can go on
    in another process."""

    def __init__(self, folder: Path, names: Collection[str]) -> None:
        self._state = folder / "state.json"
        self._files = [folder / _token_file(name) for name in names]
        self.pieces = 0  # that are written
        sizes = [0] * len(self._files)
        if self._state.exists():
            state = json.loads(self._state.read_text())
            # After a power cut a file may have less than was said.
            if all(
                file.exists() and file.stat().st_size >= size
                for file, size in zip(self._files, state["sizes"], strict=True)
            ):
                self.pieces, sizes = state["pieces"], state["sizes"]
        self._streams = [file.open("ab") for file in self._files]
        for stream, size in zip(self._streams, sizes, strict=True):
            stream.truncate(size)

    def write(self, side: int, ids: NDArray[np.uint16]) -> None:
        """Append token ids to the file of a side."""
        self._streams[side].write(ids.tobytes())

    def save(self, pieces: int) -> None:
        """Make what was written durable: so many pieces of the corpus."""
        self.pieces = pieces
        for stream in self._streams:
            stream.flush()
            os.fsync(stream.fileno())
        sizes = [file.stat().st_size for file in self._files]
        with replacing(self._state) as state:
            state.write(json.dumps({"pieces": pieces, "sizes": sizes}).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()


def _write_tokens(
    tokenizer: Tokenizer,
    pieces: Iterator[tuple[str, bool, int]],
    files: _TokenFiles,
    advance: Advance,
) -> None:
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)], dtype=np.uint16)
    batch: list[tuple[str, bool, int]] = []
    size = unsaved = number = 0

    def write() -> None:
        encodings = tokenizer.encode_batch_fast(
            [text for text, _, _ in batch], add_special_tokens=False
        )
        for encoding, (_, ends, side) in zip(encodings, batch, strict=True):
            files.write(side, np.array(encoding.ids, dtype=np.uint16))
            if ends:
                files.write(side, end)
        batch.clear()

    for number, piece in enumerate(pieces, start=1):
        advance(len(piece[0]))
        if number <= files.pieces:
            continue
        batch.append(piece)
        size += len(piece[0])
        if size >= _BATCH:
            write()
            unsaved, size = unsaved + size, 0
            if unsaved >= _SAVED:
                files.save(number)
                unsaved = 0
    write()
    files.save(number)


def _build(config: cfg.Config, survey: Survey, folder: Path, tell: Tell) -> None:
    """Make the files of a corpus in a folder that may have some of them."""

    def pieces() -> Iterator[tuple[str, bool, int]]:
        number = 0
        for text, ends, _ in documents.pieces(config.data, survey.split, _downloads()):
            yield text, ends, survey.sides[number]
            number += ends

    every = sum(side.characters for side in (survey.train, survey.validation, survey.test))
    saved = folder / "tokenizer.json"
    if not saved.exists():
        with _progress("learning the vocabulary", every) as advance:

            def training() -> Iterator[str]:
                for text, _, side in pieces():
                    advance(len(text))
                    if side == TRAIN:
                        yield text

            tokenizer = _train_tokenizer(_until_enough(training(), tell), config.model.vocab_size)
        # Text that spells the separator stays text; only the end of a document is the special token.
        tokenizer.encode_special_tokens = True
        with replacing(saved) as stream:
            stream.write(tokenizer.to_str(pretty=True).encode())
    tokenizer = Tokenizer.from_file(str(saved))
    tokenizer.encode_special_tokens = True
    names = _splits(config.data)
    with _TokenFiles(folder, names) as files, _progress("tokenizing", every) as advance:
        if files.pieces:
            tell(f"going on after {files.pieces} pieces that were tokenized before")
        _write_tokens(tokenizer, pieces(), files, advance)
    _save(folder / "bytes_of_token.npy", np.array(_bytes_of_token(tokenizer), dtype=np.int64))


def _save(file: Path, array: NDArray[np.int64]) -> None:
    """Write an array; numpy itself would not say that the disk is full."""
    content = io.BytesIO()
    np.save(content, array)
    file.write_bytes(content.getvalue())


def _splits(data: cfg.Data) -> tuple[str, ...]:
    """The names of the splits that a corpus has, in the order of `documents.SIDES`."""
    return _SPLITS if data.test_fraction else _SPLITS[:2]


def _token_file(split: str) -> str:
    """The file of the tokens of a split."""
    return f"{split}.bin"


@dataclass(frozen=True)
class _Need:
    """What a split has to have: its setting, its name, so many tokens, and for what; and what else would do."""

    setting: str
    name: str
    tokens: int
    what: str
    advice: str = ""

    def problem(self, has: int, documents: int, most: str = "") -> str:
        """What is wrong with a split of so many tokens in so many documents; empty if nothing is."""
        if has >= self.tokens:
            return ""
        return (
            f"{self.setting}: the {self.name} split has {most}{has} tokens in {_documents(documents)}, "
            f"{self.what} needs {self.tokens}{self.advice}"
        )


def _needs(config: cfg.Config) -> list[_Need]:
    """What each split has to have, in the order of `documents.SIDES`."""
    window, block = config.model.context_length + 1, config.eval_block + 1
    windows = max(block, config.eval.tokens)
    needs = [
        _Need("data.corpus", "training", max(window, config.tokens_per_step), "one batch"),
        _Need("data.corpus", "validation", windows, "eval.tokens"),
    ]
    share = f"data.test_fraction {config.data.test_fraction:g}"
    test = [_Need(share, "test", windows, "eval.tokens", "; 0 holds out no test text")]
    return [*needs, *(test if config.data.test_fraction else [])]


def _documents(number: int) -> str:
    return "1 document" if number == 1 else f"{number} documents"


def check_size(corpus: Corpus, config: cfg.Config) -> None:
    """Raise `ConfigError` if a corpus is too small for one batch or for the windows of validation and
    test, or does not go with the vocabulary."""
    vocabulary, asked = len(corpus.bytes_of_token), config.model.vocab_size
    wrong = []
    if corpus.is_given and vocabulary > asked:
        wrong.append(
            f"model.vocab_size: the token ids go up to {vocabulary - 1}; expected at least "
            f"{vocabulary}, got {asked}"
        )
    elif not corpus.is_given and vocabulary < asked:
        wrong.append(
            f"model.vocab_size: the training documents yield only {vocabulary} tokens, got {asked}"
        )
    for need, tokens in zip(
        _needs(config), (corpus.train, corpus.validation, corpus.test), strict=False
    ):
        assert tokens is not None  # the corpus of a config with a test fraction has a test split
        wrong.append(need.problem(len(tokens.ids), tokens.documents))
    wrong = [line for line in wrong if line]
    if wrong:
        raise ConfigError([f"{config.data.path or config.data.corpus}: {line}" for line in wrong])


def _check_possible(survey: Survey, config: cfg.Config) -> None:
    """Raise `ConfigError` if a split is too small even with a token for every byte."""
    sides = (survey.train, survey.validation, survey.test)
    told = (
        need.problem(side.bytes + side.documents, side.documents, "at most " * bool(side.bytes))
        for need, side in zip(_needs(config), sides, strict=False)
    )
    wrong = [line for line in told if line]
    if wrong:
        raise ConfigError([f"{config.data.path or config.data.corpus}: {line}" for line in wrong])


class _DamagedError(ValueError):
    """A prepared folder whose content is not what was written."""


_SPLITS = ("train", "validation", "test")  # in the order of `documents.SIDES`
_VOCABULARY = ("bytes_of_token.npy", "tokenizer.json")
_META = "corpus.json"
_DIGEST = re.compile(r"[0-9a-z]+")
# Of the files whose content was verified in this process: size, time of change and inode.
_verified: dict[Path, tuple[int, int, int]] = {}


def _files_of(meta: dict[str, Any]) -> tuple[str, ...]:
    """The names of the files that a description of a corpus says it has."""
    splits = [name for name in _SPLITS if name in meta["documents"]]
    return (*map(_token_file, splits), *_VOCABULARY)


def _sums(folder: Path, meta: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each file of a corpus."""
    sums = {}
    for name in _files_of(meta):
        with (folder / name).open("rb") as stream:
            sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _stamps(folder: Path, names: Iterable[str]) -> dict[Path, tuple[int, int, int]]:
    """Size, time of change and inode of each file; `_DamagedError` if one is no file."""
    found = {folder / name: (folder / name).stat() for name in names}
    other = [file.name for file, at in found.items() if not stat.S_ISREG(at.st_mode)]
    if other:
        raise _DamagedError(f"{' and '.join(other)} is not a file")
    return {file: (at.st_size, at.st_mtime_ns, at.st_ino) for file, at in found.items()}


def _verify(folder: Path, meta: dict[str, Any]) -> None:
    """Raise `_DamagedError` if the content of a file is not what was written; `read` asks for it once in a
    process, and after that compares size and time."""
    sums = _sums(folder, meta)
    if "sha256" not in meta:  # of an earlier version, which kept none
        with suppress(OSError):  # the cache may be read-only
            _write_meta(folder, meta | {"sha256": sums})
    elif meta["sha256"] != sums:
        written = meta["sha256"]
        known = written if isinstance(written, dict) else {}
        names = [name for name in sums if known.get(name) != sums[name]]
        raise _DamagedError(f"{' and '.join(names)} changed after it was written")
    _verified.update(_stamps(folder, (*_files_of(meta), _META)))


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    with replacing(folder / _META) as stream:
        stream.write(json.dumps(meta).encode())


def read(folder: Path) -> Corpus:
    """The corpus in a prepared folder; `ValueError` if it is damaged."""
    try:
        stamps = _stamps(folder, [_META])
        meta = json.loads((folder / _META).read_bytes())
        documents_of = {name: int(number) for name, number in meta["documents"].items()}
        stamps |= _stamps(folder, _files_of(meta))
        if not stamps.items() <= _verified.items():
            _verify(folder, meta)
        bytes_of_token = np.load(folder / "bytes_of_token.npy", allow_pickle=False)
        if bytes_of_token.dtype != np.int64 or bytes_of_token.ndim != 1:
            raise _DamagedError("bytes_of_token.npy is not a list of whole numbers")

        def tokens(name: str) -> Tokens:
            file = folder / _token_file(name)
            # An empty file can't be mapped.
            ids = np.memmap(file, np.uint16, "r") if file.stat().st_size else np.empty(0, np.uint16)
            return Tokens(ids, documents_of[name])

        is_given = bool(meta.get("is_given", False))  # folders of version 0.1 do not say it
        test = tokens("test") if "test" in documents_of else None
        return Corpus(folder, tokens("train"), tokens("validation"), bytes_of_token, is_given, test)
    except FileNotFoundError as error:
        raise _DamagedError(f"{Path(error.filename).name} is missing") from error
    except _DamagedError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        IsADirectoryError,
    ) as error:
        raise _DamagedError(str(error).partition("\n")[0]) from error


def find(digest: str) -> Corpus | None:
    """The prepared corpus with this digest, if this machine has it whole; reads no documents."""
    return _look(cache_folder() / "corpora" / digest)[0] if _DIGEST.fullmatch(digest) else None


def _look(folder: Path) -> tuple[Corpus | None, str]:
    """The corpus in a prepared folder; None if there is none, and what is wrong with one that is damaged."""
    if not folder.exists():
        return None, ""
    try:
        return read(folder), ""
    except _DamagedError as error:
        return None, str(error)


def check_files(config: cfg.Config) -> None:
    """Raise `ConfigError` if the files of a corpus are not there; reads none of them."""
    if config.data.corpus == "text":
        texts.sources(config.data)


def _downloads() -> Path:
    return cache_folder() / "raw"


@contextmanager
def _locked(name: str, tell: Tell) -> Iterator[None]:
    """Keep other processes from preparing the same corpus, or wait for the one that does."""
    file = cache_folder() / f".{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with file.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("waiting for another process that prepares this corpus")
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                reason = f"no locks on this file system ({error.strerror}); set TINYLM_CACHE"
                raise OSError(error.errno, reason, str(file.parent)) from error
            # The process before has removed its lock: only the file that is there now is one.
            if file.exists() and os.path.samestat(file.stat(), os.fstat(stream.fileno())):
                try:
                    yield
                    return
                finally:
                    file.unlink(missing_ok=True)


def _kept(
    digest: str, tell: Tell, says: Iterable[str], build: Callable[[Path], dict[str, Any]]
) -> Corpus:
    """The corpus with this digest in the cache. If it is not there, tell what is said of it, and have
    its files built in a folder that may have some of them already."""
    folder = cache_folder() / "corpora" / digest
    corpus, _ = _look(folder)
    if corpus is not None:
        return corpus
    with _locked(digest, tell):
        corpus, wrong = _look(folder)
        if corpus is not None:  # another process made it in the meantime
            return corpus
        if wrong:
            tell(f"{folder} is damaged and is made again: {wrong}")
        for line in says:
            tell(line)
        building = folder.with_name(f".{digest}")
        with _keeping(building):
            building.mkdir(parents=True, exist_ok=True)
            meta = build(building)
            _write_meta(building, meta | {"sha256": _sums(building, meta)})
            (building / "state.json").unlink()
            for file in building.iterdir():
                sync(file)
            if wrong:
                _remove(folder)
            building.rename(folder)
            sync(folder.parent)
        return read(folder)


def _remove(path: Path) -> None:
    """Delete a folder, or whatever is in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Make an `OSError` name the folder of the cache, and what to do if there is no room."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            reason += " (a corpus is prepared there; TINYLM_CACHE chooses another folder)"
        raise OSError(error.errno, reason, error.filename or str(folder)) from error


def prepare(config: cfg.Config, tell: Tell = lambda message: None) -> Corpus:
    """The corpus that a config names; tokenizes it first if it is not in the cache yet.

    Raises `ConfigError` if documents can't be read or the corpus is too small for the config, and
    `OSError` with the folder if it can't be kept.
    """
    corpus = _unless_changed(config, lambda: _read_and_prepare(config, tell))
    check_size(corpus, config)
    return corpus


def _unless_changed(config: cfg.Config, prepared: Callable[[], Corpus]) -> Corpus:
    """The corpus that was prepared of the same files before, which are then not read; else it is
    prepared now."""

    def stamp() -> tuple[str, int] | None:
        return documents.stamp(config.data, config.model.vocab_size, _downloads())

    before, now = stamp(), time.time_ns()
    if before is None:
        return prepared()
    kept = cache_folder() / "stamps" / before[0]
    corpus = find(kept.read_text(errors="replace")) if kept.is_file() else None
    if corpus is None:
        corpus = prepared()
        # A file that has just been written may change again at what counts as the same time.
        if now - before[1] > SETTLED and stamp() == before:
            kept.parent.mkdir(exist_ok=True)
            with replacing(kept) as stream:
                stream.write(corpus.digest.encode())
    return corpus


def _read_and_prepare(config: cfg.Config, tell: Tell) -> Corpus:
    files = texts.sources(config.data) if config.data.corpus == "text" else None
    if files and files.kind == texts.TOKENS:
        return _prepare_given(config.data, files, tell)
    return _prepare_texts(config, files.notes if files else (), tell)


def _prepare_texts(config: cfg.Config, notes: Iterable[str], tell: Tell) -> Corpus:
    with _progress("reading the text", None) as advance:
        survey = documents.survey(config.data, config.model.vocab_size, _downloads(), advance)
    if find(survey.digest) is None:
        _check_possible(survey, config)

    sides = {"train": survey.train, "validation": survey.validation, "test": survey.test}
    split = survey.split

    def build(folder: Path) -> dict[str, Any]:
        _build(config, survey, folder, tell)
        counts = {name: sides[name].documents for name in _splits(config.data)}
        return {"corpus": config.data.corpus, "documents": counts, "split": split.validation.note}

    counts = [f"{sides[name].documents} {_IN_WORDS[name]}" for name in _splits(config.data)]
    says = [
        f"preparing {config.data.corpus}: {_listed(counts)} documents, vocabulary "
        f"{config.model.vocab_size}",
        *notes,
    ]
    total = sum(side.bytes for side in sides.values())
    for rule, held in ((split.validation, survey.validation), (split.test, survey.test)):
        if rule.note:
            says.append(f"{rule.note} ({held.bytes} of {total} bytes)")
    return _kept(survey.digest, tell, says, build)


_IN_WORDS = {"train": "training", "validation": "validation", "test": "test"}


def _listed(parts: Sequence[str]) -> str:
    """Two parts or more as people list them."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _given_ids(data: cfg.Data, files: texts.Sources) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """The token ids of files of token ids, and their sides."""
    sizes = {}
    for file in (*files.training, *files.validation):
        if file.suffix.lower() in texts.COMPRESSED:
            raise ConfigError([f"{file}: data.path: unpack it; token ids are read as they are"])
        try:
            sizes[file] = file.stat().st_size // 2
            if file.stat().st_size % 2:
                raise ConfigError([f"{file}: data.path: half a token; expected ids of two bytes"])
        except OSError as error:
            raise ConfigError([f"{file}: data.path: {error.strerror}"]) from error
    total = sum(sizes[file] for file in files.training)
    # Without validation files the last ids are held out, and the test's are those before them.
    held = 0 if files.validation else max(1, round(total * data.validation_fraction))
    tested = round(total * data.test_fraction)
    ends = (total - held - tested, total - held)  # of the training ids, and of the test's
    place = 0
    for file in (*files.training, *files.validation):
        with file.open("rb") as stream:
            while len(ids := np.fromfile(stream, np.uint16, CHUNK)):
                if file in files.validation:
                    yield VALIDATION, ids
                    continue
                first, second = (max(0, min(end - place, len(ids))) for end in ends)
                place += len(ids)
                yield TRAIN, ids[:first]
                yield TEST, ids[first:second]
                yield VALIDATION, ids[second:]


def _prepare_given(data: cfg.Data, files: texts.Sources, tell: Tell) -> Corpus:
    """The corpus of files that hold token ids (uint16, as nanoGPT writes them) and no text."""
    names = _splits(data)
    hashes, counts, vocabulary = [hashlib.sha256() for _ in SIDES], [0 for _ in SIDES], 1
    with _progress("reading the token ids", None) as advance:
        for side, ids in _given_ids(data, files):
            hashes[side].update(ids.tobytes())
            counts[side] += len(ids)
            vocabulary = max(vocabulary, int(ids.max(initial=0)) + 1)
            advance(len(ids))
    digests = [one.hexdigest() for one in hashes[: len(names)]]
    name = ":".join([f"{documents.FORMAT}:token ids", *digests])

    def build(folder: Path) -> dict[str, Any]:
        with _TokenFiles(folder, names) as written:
            for side, ids in _given_ids(data, files):
                if len(ids):
                    written.write(side, ids)
            written.save(0)
        ids_as_text = {str(number): number for number in range(vocabulary - 1)}
        tokenizer = Tokenizer(
            models.WordLevel(ids_as_text | {END_OF_TEXT: vocabulary - 1}, END_OF_TEXT)
        )
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True))
        _save(folder / "bytes_of_token.npy", np.ones(vocabulary, np.int64))
        return {"corpus": data.corpus, "documents": dict.fromkeys(names, 1), "is_given": True}

    told = [f"{count} {_IN_WORDS[name]}" for name, count in zip(names, counts, strict=False)]
    says = [
        f"preparing {data.path}: {_listed(told)} token ids, vocabulary {vocabulary}",
        *files.notes,
        "token ids come without text: bits per byte count a byte for each token, samples are ids",
    ]
    if not files.validation:
        test = ", and those before them for the test" * bool(data.test_fraction)
        says.append(f"no validation files: the last ids are held out{test}")
    return _kept(hashlib.sha256(name.encode()).hexdigest()[:16], tell, says, build)
