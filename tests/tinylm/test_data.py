"""Documents, their split, their tokens, and batches as a pure function of (seed, step)."""

import errno
import gzip
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import words

from tinylm import config as cfg
from tinylm import data, documents, texts
from tinylm.data import END_OF_TEXT, Corpus, Tokens

SOTU = cfg.load("smoke").data.model_copy(update={"test_fraction": 0.0})


def split(asked: cfg.Data) -> list[tuple[int, str]]:
    """Every document of a corpus with its side."""
    downloads = data.cache_folder() / "raw"
    survey = documents.survey(asked, 307, downloads, lambda done: None)
    found: list[tuple[int, str]] = []
    parts: list[str] = []
    for text, ends, _ in documents.pieces(asked, survey.split, downloads):
        parts.append(text)
        if ends:
            found.append((survey.sides[len(found)], "".join(parts)))
            parts = []
    return found


def text_config(base: cfg.Config, path: Path, **changes: object) -> cfg.Config:
    """The config that reads another text."""
    return cfg.overlay(
        base, {"data.path": str(path)} | {f"data.{name}": value for name, value in changes.items()}
    )


def read(base: cfg.Config, path: Path, **changes: object) -> list[str]:
    """The documents that a text file or folder holds."""
    return [text for _, text in split(text_config(base, path, **changes).data)]


def test_a_batch_is_a_pure_function_of_seed_and_step(corpus: Corpus) -> None:
    again = data.read(corpus.folder)
    assert np.array_equal(
        data.batch(corpus.train, 5, 13, 2, 3), data.batch(again.train, 5, 13, 2, 3)
    )


@pytest.mark.parametrize(("seed", "step"), [(2, 4), (3, 3), (3, 2)])
def test_batches_of_other_seeds_and_steps_differ(corpus: Corpus, seed: int, step: int) -> None:
    one, other = (data.batch(corpus.train, 5, 13, *named) for named in ((2, 3), (seed, step)))
    assert not np.array_equal(one, other)


def test_a_batch_holds_windows_of_one_token_more_than_the_context() -> None:
    tokens = Tokens(np.arange(101, dtype=np.uint16), 1)
    window = data.batch(tokens, 5, 13, 0, 0)
    assert window.shape == (5, 14)
    assert np.array_equal(window, window[:, :1] + np.arange(14))


def test_every_window_of_the_split_can_be_drawn_and_no_other() -> None:
    tokens = Tokens(np.arange(17, dtype=np.uint16), 1)
    assert set(data.batch(tokens, 500, 13, 0, 0)[:, 0]) == {0, 1, 2, 3}


def test_validation_windows_are_evenly_spread_from_the_first_token_to_the_last() -> None:
    tokens = Tokens(np.arange(2 * 19 + 14, dtype=np.uint16), 1)
    assert data.fixed_windows(tokens, 3, 13)[:, 0].tolist() == [0, 19, 38]
    assert data.fixed_windows(tokens, 3, 13)[-1, -1] == tokens.ids[-1]


BLOCKS = data.fixed_windows(Tokens(np.arange(997, dtype=np.uint16), 1), 3, 2 * 3 * 5 * 7)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 30, 105, 210])
def test_windows_of_every_length_predict_each_token_of_the_blocks_once(length: int) -> None:
    assert data.cut(BLOCKS, length)[:, 1:].tobytes() == BLOCKS[:, 1:].tobytes()


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 30, 105, 210])
def test_windows_of_a_block_are_consecutive_tokens(length: int) -> None:
    """Here a token is its own position."""
    windows = data.cut(BLOCKS, length)
    assert np.array_equal(windows, windows[:, :1] + np.arange(length + 1))


def test_a_block_of_one_window_is_that_window() -> None:
    assert np.array_equal(data.cut(BLOCKS, 210), BLOCKS)


def decoded(corpus: Corpus, tokens: Tokens) -> str:
    """The text that a token file spells."""
    return corpus.tokenizer().decode(tokens.ids.tolist(), skip_special_tokens=False)


def side(config: cfg.Config, held: int) -> list[str]:
    """The documents of one side of the split."""
    return [text for which, text in split(config.data) if which == held]


@pytest.mark.parametrize("held", [False, True])
def test_token_files_decode_to_the_documents_of_their_side(
    tiny: cfg.Config, corpus: Corpus, held: bool
) -> None:
    tokens = corpus.validation if held else corpus.train
    assert decoded(corpus, tokens) == "".join(f"{text}{END_OF_TEXT}" for text in side(tiny, held))


@pytest.mark.parametrize("held", [False, True])
def test_a_split_knows_how_many_documents_it_has(
    tiny: cfg.Config, corpus: Corpus, held: bool
) -> None:
    tokens = corpus.validation if held else corpus.train
    assert tokens.documents == len(side(tiny, held)) > 0


@pytest.mark.parametrize("held", [False, True])
def test_bytes_of_token_add_up_to_the_utf8_bytes_of_the_documents(
    tiny: cfg.Config, corpus: Corpus, held: bool
) -> None:
    tokens = corpus.validation if held else corpus.train
    spelled = sum(len(text.encode()) for text in side(tiny, held))
    assert corpus.bytes_of_token[tokens.ids].sum() == spelled


def test_no_document_is_on_both_sides(tiny: cfg.Config, texts: list[str]) -> None:
    assert not set(side(tiny, False)) & set(side(tiny, True))
    assert {*side(tiny, False), *side(tiny, True)} == set(texts)


def test_equal_documents_are_on_the_same_side(
    tiny: cfg.Config, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "twice.txt").write_text(END_OF_TEXT.join([*texts, *reversed(texts)]), "utf-8")
    config = text_config(tiny, tmp_path)
    assert not set(side(config, False)) & set(side(config, True))


def test_another_split_seed_holds_out_other_documents(tiny: cfg.Config) -> None:
    other = cfg.overlay(tiny, {"data.split_seed": 1})
    assert set(side(tiny, True)) != set(side(other, True))


def is_drawn(document: str, asked: cfg.Data) -> bool:
    """Whether a document of many is held out."""
    key = hashlib.sha256(f"{asked.split_seed}:{document}".encode()).digest()
    return int.from_bytes(key[:8], "big") < asked.validation_fraction * 2**64


def with_a_planted_word(config: cfg.Config, held: bool, folder: Path) -> cfg.Config:
    """The same corpus, but for one document of a side that holds a new word over and over."""
    before = [text for _, text in split(config.data)]
    chosen = before.index(side(config, held)[0])
    planted = (f"{n} " + "xyzzy " * 99 for n in itertools.count())
    document = next(text for text in planted if is_drawn(text.strip(), config.data) is held)
    before[chosen] = document
    (folder / "planted.txt").write_text(END_OF_TEXT.join(before), encoding="utf-8")
    return text_config(config, folder)


@pytest.mark.parametrize("held", [False, True])
def test_the_vocabulary_depends_on_training_documents_only(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, held: bool
) -> None:
    planted = data.prepare(with_a_planted_word(tiny, held, tmp_path))
    assert (planted.tokenizer().to_str() == corpus.tokenizer().to_str()) is held


@pytest.mark.parametrize(
    "changes",
    [{"data.split_seed": 1}, {"data.validation_fraction": 0.3}, {"model.vocab_size": 311}],
)
def test_another_split_or_vocabulary_is_another_corpus(
    tiny: cfg.Config, corpus: Corpus, changes: dict[str, object]
) -> None:
    assert data.prepare(cfg.overlay(tiny, changes)).digest != corpus.digest


def test_other_documents_are_another_corpus(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path
) -> None:
    assert data.prepare(with_a_planted_word(tiny, True, tmp_path)).digest != corpus.digest


def test_the_same_documents_elsewhere_are_the_same_corpus(
    tiny: cfg.Config, corpus: Corpus, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    elsewhere = text_config(tiny, tmp_path / "one.txt", separator="blank_line")
    assert data.prepare(elsewhere).folder == corpus.folder


def test_a_prepared_corpus_is_not_prepared_again(tiny: cfg.Config, corpus: Corpus) -> None:
    messages: list[str] = []
    data.prepare(tiny, messages.append)
    assert messages == []


def test_preparing_says_what_it_does(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    messages: list[str] = []
    data.prepare(tiny, messages.append)
    assert messages == [
        f"preparing text: {len(side(tiny, False))} training and {len(side(tiny, True))} "
        "validation documents, vocabulary 307"
    ]


PREPARE = """
import sys
from pathlib import Path
from tinylm import config, data
print("ready", flush=True)
sys.stdin.readline()
messages = []
print(data.prepare(config.load(sys.argv[1]), messages.append).digest, len(messages))
"""


def test_two_processes_that_prepare_at_once_leave_one_intact_folder(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(tiny.model_dump()))
    environment = os.environ | {"TINYLM_CACHE": str(tmp_path / "cache")}
    one, other = (
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(config)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    with one, other:
        assert one.stdout is not None
        assert one.stdin is not None
        assert other.stdout is not None
        assert other.stdin is not None
        assert one.stdout.readline() == other.stdout.readline() == "ready\n"
        one.stdin.write("go\n")
        other.stdin.write("go\n")
        one.stdin.flush()
        other.stdin.flush()
        # One prepares; the other waits for it, or finds it done.
        assert one.stdout.read().split()[0] == other.stdout.read().split()[0] == corpus.digest
    assert one.returncode == other.returncode == 0
    folder = tmp_path / "cache" / "corpora" / corpus.digest
    assert list(folder.parent.iterdir()) == [folder]
    prepared = data.read(folder)
    assert np.array_equal(prepared.train.ids, corpus.train.ids)
    assert np.array_equal(prepared.validation.ids, corpus.validation.ids)
    assert prepared.tokenizer().to_str() == corpus.tokenizer().to_str()


def test_a_preparation_that_fails_leaves_nothing(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))

    def interrupted(message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare(tiny, interrupted)
    assert not (tmp_path / "corpora").exists()


@pytest.mark.parametrize(
    ("separator", "content", "expected"),
    [
        (
            "endoftext",
            "one<|endoftext|>\ntwo\n\nstill two\n<|endoftext|>\n",
            ["one", "two\n\nstill two"],
        ),
        ("endoftext", "a<|endoftext|>b<|endoftext|>c", ["a", "b", "c"]),
        ("endoftext", "<|endoftext|>\n<|endoftext|>a", ["a"]),
        ("blank_line", "one\nstill one\n\n \t\ntwo\n\n", ["one\nstill one", "two"]),
        ("blank_line", "a <|endoftext|> b\n\nc", ["a <|endoftext|> b", "c"]),
        (
            "endoftext",
            "a\r\nb\rc<|endof<|endoftext|>d<|endoftext",
            ["a\nb\nc<|endof", "d<|endoftext"],
        ),
        ("blank_line", "a\r\n\r\n b \n\n\n", ["a", "b"]),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 2**20])
def test_documents_are_parted_where_the_config_says(
    tiny: cfg.Config,
    tmp_path: Path,
    separator: str,
    content: str,
    expected: list[str],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(texts, "BLOCK", block)
    (tmp_path / "x.txt").write_text(content, encoding="utf-8")
    assert read(tiny, tmp_path, separator=separator) == expected


def test_a_folder_is_read_in_order_of_names_and_with_its_folders(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.txt").write_text("third")
    (tmp_path / "notes.md").write_text("no text")
    assert read(tiny, tmp_path) == ["first", "second", "third"]


def test_text_that_spells_the_separator_is_text_and_not_the_special_token(
    tiny: cfg.Config, texts: list[str], tmp_path: Path
) -> None:
    quoting = [f"{END_OF_TEXT} {text.splitlines()[0]} {END_OF_TEXT}" for text in texts]
    (tmp_path / "x.txt").write_text("\n\n".join(quoting), encoding="utf-8")
    corpus = data.prepare(text_config(tiny, tmp_path, separator="blank_line"))
    ends = corpus.train.ids == corpus.tokenizer().token_to_id(END_OF_TEXT)
    assert ends.sum() == corpus.train.documents
    assert decoded(corpus, corpus.train).count(END_OF_TEXT) == 3 * corpus.train.documents


def test_a_file_that_is_not_utf8_is_refused_with_its_path(tiny: cfg.Config, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(text_config(tiny, tmp_path))
    assert str(caught.value) == (
        f"{tmp_path / 'x.txt'}: data.path: not UTF-8 text: byte 0xe9 at offset 3, line 1; "
        "cp1252 would read it: iconv -f cp1252 -t utf-8"
    )


def test_a_missing_file_is_refused_with_its_path(tiny: cfg.Config, tmp_path: Path) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(text_config(tiny, tmp_path / "x.txt"))
    assert str(caught.value) == f"{tmp_path / 'x.txt'}: data.path: No such file or directory"


def test_a_folder_without_text_is_refused_with_its_path(tiny: cfg.Config, tmp_path: Path) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(text_config(tiny, tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: data.path: no .txt, .jsonl, .ndjson, .parquet, .bin, .md file in this folder"
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"eval.tokens": 13 * 10**6},
            "the validation split has {held} tokens in {held_documents} documents, eval.tokens needs 13000000",
        ),
        (
            {"optim.batch_size": 10**5, "budget.tokens": 13 * 10**5}
            | {"eval.every_tokens": 13 * 10**5, "run.checkpoint_every_tokens": 13 * 10**5},
            "the training split has {trained} tokens in {trained_documents} documents, one batch needs 1300000",
        ),
    ],
)
def test_a_corpus_too_small_is_refused_with_path_rule_and_value(
    tiny: cfg.Config, corpus: Corpus, changes: dict[str, object], rule: str
) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(cfg.overlay(tiny, changes))
    due = rule.format(
        held=len(corpus.validation.ids),
        held_documents=corpus.validation.documents,
        trained=len(corpus.train.ids),
        trained_documents=corpus.train.documents,
    )
    assert str(caught.value) == f"{tiny.data.path}: data.corpus: {due}"


def test_a_vocabulary_that_the_documents_do_not_yield_is_refused(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text(END_OF_TEXT.join(f"{n} " + "a b " * 30 for n in range(50)))
    with pytest.raises(
        cfg.ConfigError, match=r"model\.vocab_size: .* yield only \d+ tokens, got 307"
    ):
        data.prepare(text_config(tiny, tmp_path))


def test_an_empty_file_is_a_corpus_too_small(tiny: cfg.Config, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(cfg.ConfigError, match="training split has 0 tokens in 0 documents"):
        data.prepare(text_config(tiny, tmp_path))


def numbered(folder: Path, sizes: list[int]) -> Path:
    """A folder with a document of so many words in each file."""
    for number, size in enumerate(sizes):
        (folder / f"{number:02}.txt").write_text(f"document {number} " + "word " * size)
    return folder


def shares(base: cfg.Config, folder: Path, **changes: object) -> tuple[int, int]:
    """The characters of the training text and of the validation text."""
    config = text_config(base, folder, **changes)
    return sum(map(len, side(config, False))), sum(map(len, side(config, True)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "sizes", [[100] * 11, [10, 900, 20, 300, 40, 50, 60, 70, 80, 90, 100], [1000, 3], [7, 7]]
)
def test_few_documents_are_never_all_on_one_side(
    tiny: cfg.Config, tmp_path: Path, sizes: list[int], seed: int
) -> None:
    folder = numbered(tmp_path, sizes)
    trained, held = shares(tiny, folder, validation_fraction=0.05, split_seed=seed)
    total = trained + held
    assert held >= 0.005 * total and trained >= 0.95 / 2 * total


def test_few_documents_are_held_out_whole(tiny: cfg.Config, tmp_path: Path) -> None:
    folder = numbered(tmp_path, [100] * 11)
    config = text_config(tiny, folder, validation_fraction=0.05)
    held = side(config, True)
    assert len(held) == 1 and sorted([*side(config, False), *held]) == sorted(read(tiny, folder))


def test_another_seed_holds_out_another_of_few_documents(tiny: cfg.Config, tmp_path: Path) -> None:
    config = text_config(tiny, numbered(tmp_path, [100] * 11), validation_fraction=0.05)
    other = cfg.overlay(config, {"data.split_seed": 1})
    assert side(config, True) != side(other, True)


def test_the_end_of_one_document_is_held_out_from_a_break_on(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    paragraphs = [f"{n}" + " word" * 20 for n in range(100)]
    (tmp_path / "x.txt").write_text("\n\n".join(paragraphs))
    config = text_config(tiny, tmp_path, validation_fraction=0.1)
    (trained,), (held,) = side(config, False), side(config, True)
    assert trained.split("\n\n") + held.split("\n\n") == paragraphs
    assert 8 <= len(held.split("\n\n")) <= 12


@pytest.mark.parametrize("text", ["x" * 999, "漢" * 999, "a b " * 300, "\n".join("ab" * 500)])
@pytest.mark.parametrize("piece", [7, 2**16])
def test_one_document_is_split_wherever_it_can_be(
    tiny: cfg.Config, tmp_path: Path, text: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "PIECE", piece)
    (tmp_path / "x.txt").write_text(text)
    config = text_config(tiny, tmp_path, validation_fraction=0.1)
    (trained,), (held,) = side(config, False), side(config, True)
    assert "".join((trained + held).split()) == "".join(text.split())
    assert 0.08 * len(text) <= len(held) <= 0.12 * len(text)


def test_one_document_that_is_most_of_the_text_loses_its_end(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    config = text_config(tiny, numbered(tmp_path, [9000, 1]), validation_fraction=0.1)
    assert [len(side(config, held)) for held in (False, True)] == [2, 1]


def test_the_split_of_few_documents_is_said(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.txt").write_text(words(4000, 1))
    said: list[str] = []
    data.prepare(text_config(tiny, tmp_path / "x.txt"), said.append)
    assert said[0] == "preparing text: 1 training and 1 validation documents, vocabulary 307"
    assert said[1].startswith(
        "the text is one document, whose end is held out; data.separator says"
    )


def test_the_split_of_the_presidential_messages_is_that_of_old_sweeps() -> None:
    found = documents.survey(SOTU, 512, data.cache_folder() / "raw", lambda done: None)
    assert found.digest == "6971ebcf50017c40"


def test_validation_files_are_the_validation_text(
    tiny: cfg.Config, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text(END_OF_TEXT.join(texts[:40]))
    (tmp_path / "valid.txt").write_text(END_OF_TEXT.join(texts[40:]))
    config = text_config(tiny, tmp_path)
    assert (side(config, False), side(config, True)) == (texts[:40], texts[40:])


def with_test(config: cfg.Config, fraction: float) -> cfg.Config:
    """The config that holds a test text out as well."""
    return cfg.overlay(config, {"data.test_fraction": fraction})


@pytest.mark.parametrize("sizes", [[100] * 61, [100] * 11, [9000, 1], [9000]])
def test_the_validation_text_is_the_same_with_and_without_a_test_text(
    tiny: cfg.Config, tmp_path: Path, sizes: list[int]
) -> None:
    config = text_config(tiny, numbered(tmp_path, sizes), validation_fraction=0.1)
    tested = with_test(config, 0.1)
    assert side(tested, documents.VALIDATION) == side(config, documents.VALIDATION)


@pytest.mark.parametrize("sizes", [[100] * 61, [100] * 11, [9000, 1], [9000]])
def test_the_test_text_is_about_its_fraction_of_the_text(
    tiny: cfg.Config, tmp_path: Path, sizes: list[int]
) -> None:
    config = text_config(tiny, numbered(tmp_path, sizes), validation_fraction=0.1)
    held = sum(map(len, side(with_test(config, 0.1), documents.TEST))) / len("word ")
    assert 0.05 * sum(sizes) < held < 0.3 * sum(sizes)


def test_test_documents_were_training_documents(tiny: cfg.Config) -> None:
    tested = with_test(tiny, 0.1)
    held = side(tested, documents.TEST)
    assert sorted([*side(tested, documents.TRAIN), *held]) == sorted(side(tiny, documents.TRAIN))
    assert held


def test_a_larger_validation_text_takes_nothing_of_the_test_text(tiny: cfg.Config) -> None:
    tested = with_test(tiny, 0.1)
    larger = cfg.overlay(tested, {"data.validation_fraction": 0.4})
    assert side(larger, documents.TEST) == side(tested, documents.TEST)


def test_of_one_document_the_test_text_is_what_stands_before_the_validation_text(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    paragraphs = [f"{n}" + " word" * 20 for n in range(100)]
    (tmp_path / "x.txt").write_text("\n\n".join(paragraphs))
    config = with_test(text_config(tiny, tmp_path, validation_fraction=0.1), 0.2)
    (trained,), (held,), (tested,) = (side(config, number) for number in documents.SIDES)
    assert "\n\n".join((trained, tested, held)).split("\n\n") == paragraphs
    assert 16 <= len(tested.split("\n\n")) <= 21


def test_the_test_text_is_taken_from_training_files_where_files_say_the_split(
    tiny: cfg.Config, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text(END_OF_TEXT.join(texts[:40]))
    (tmp_path / "valid.txt").write_text(END_OF_TEXT.join(texts[40:]))
    config = with_test(text_config(tiny, tmp_path), 0.2)
    tested = side(config, documents.TEST)
    assert side(config, documents.VALIDATION) == texts[40:]
    assert tested
    assert set(tested) < set(texts[:40])


def test_a_corpus_has_its_test_tokens(tiny: cfg.Config) -> None:
    config = with_test(tiny, 0.2)
    prepared = data.prepare(config)
    assert prepared.test is not None
    held = prepared.tokenizer().decode(prepared.test.ids.tolist(), skip_special_tokens=False)
    assert held == "".join(text + END_OF_TEXT for text in side(config, documents.TEST))


def test_a_corpus_without_a_test_fraction_has_no_test_tokens(corpus: Corpus) -> None:
    assert corpus.test is None


def test_the_last_given_ids_are_validation_and_those_before_them_the_test(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    ids = np.arange(10_000, dtype=np.uint16) % 1000
    prepared = data.prepare(with_test(given_ids(tiny, tmp_path), 0.2))
    assert prepared.test is not None
    found = (prepared.train.ids, prepared.test.ids, prepared.validation.ids)
    assert [len(part) for part in found] == [7000, 2000, 1000]
    assert np.array_equal(np.concatenate(found), ids)


def test_a_test_text_too_small_for_its_windows_is_refused_with_path_rule_and_value(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text(words(4000, 1))
    config = with_test(text_config(tiny, tmp_path / "x.txt"), 0.0001)
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(config)
    assert caught.value.problems[0].startswith(
        f"{tmp_path}/x.txt: data.test_fraction 0.0001: the test"
    )
    rest = "tokens in 1 document, eval.tokens needs 91; 0 holds out no test text"
    assert caught.value.problems[0].endswith(rest)


def test_fractions_that_leave_no_training_text_are_refused(tiny: cfg.Config) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        with_test(tiny, 0.8)
    assert caught.value.problems == (
        "--set: data: validation_fraction 0.2 and test_fraction 0.8 leave no text to train on",
    )


def test_a_text_that_cannot_be_large_enough_is_refused_before_it_is_tokenized(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.txt").write_text("too short a text")
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(text_config(tiny, tmp_path / "x.txt"))
    assert caught.value.problems == (
        f"{tmp_path}/x.txt: data.corpus: the training split has at most 14 tokens in 1 document, "
        "one batch needs 65",
        f"{tmp_path}/x.txt: data.corpus: the validation split has at most 4 tokens in 1 document, "
        "eval.tokens needs 91",
    )
    assert not (tmp_path / "cache").exists()


KILLED = """
import os, signal, sys
from tinylm import config, data
data._BATCH = data._SAVED = 500
save = data._TokenFiles.save
def kill(files, pieces):
    save(files, pieces)
    if pieces > 30:
        os.kill(os.getpid(), signal.SIGKILL)
data._TokenFiles.save = kill
data.prepare(config.load(sys.argv[1]))
"""


@pytest.mark.fault("SIGKILL while a corpus is prepared", "it goes on where it was")
def test_a_preparation_that_was_killed_goes_on_where_it_was(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, cache = tmp_path / "tiny.json", tmp_path / "cache"
    config.write_text(json.dumps(tiny.model_dump()))
    monkeypatch.setenv("TINYLM_CACHE", str(cache))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(config)], check=False)
    assert killed.returncode == -signal.SIGKILL
    learned = (cache / "corpora" / f".{corpus.digest}" / "tokenizer.json").stat().st_ino
    said: list[str] = []
    again = data.prepare(tiny, said.append)
    assert said[1:] == ["going on after 33 pieces that were tokenized before"]
    assert np.array_equal(again.train.ids, corpus.train.ids)
    assert np.array_equal(again.validation.ids, corpus.validation.ids)
    assert (again.folder / "tokenizer.json").stat().st_ino == learned
    assert sorted(file.name for file in again.folder.iterdir()) == sorted(
        file.name for file in corpus.folder.iterdir()
    )


@pytest.mark.fault("token files that a power cut shortened", "written anew")
def test_token_files_that_a_power_cut_shortened_are_written_anew(tmp_path: Path) -> None:
    with data._TokenFiles(tmp_path, ["train", "validation"]) as files:
        files.write(documents.TRAIN, np.arange(7, dtype=np.uint16))
        files.save(3)
    (tmp_path / "train.bin").write_bytes(b"")
    with data._TokenFiles(tmp_path, ["train", "validation"]) as files:
        assert files.pieces == 0


def test_learning_ends_where_the_words_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_MOST_WORDS", 10)
    said: list[str] = []
    pieces = ["some words", "some words words", "other ones", "more"]
    assert list(data._until_enough(pieces, said.append)) == pieces[:2]
    assert said == ["the vocabulary is learned from the first 0.0M characters"]


def given_ids(base: cfg.Config, folder: Path, **changes: object) -> cfg.Config:
    """The config that reads 10,000 token ids up to 999, of which the last tenth is held out."""
    ids = np.arange(10_000, dtype=np.uint16) % 1000
    ids.tofile(folder / "train.bin")
    config = text_config(base, folder, validation_fraction=0.1)
    return cfg.overlay(config, {"model.vocab_size": 1024} | changes)


def test_given_token_ids_are_the_tokens(tiny: cfg.Config, tmp_path: Path) -> None:
    corpus = data.prepare(given_ids(tiny, tmp_path))
    assert np.array_equal(corpus.train.ids, np.arange(9000) % 1000)
    assert np.array_equal(corpus.validation.ids, np.arange(9000, 10_000) % 1000)


def test_given_validation_ids_are_the_validation_tokens(tiny: cfg.Config, tmp_path: Path) -> None:
    np.full(200, 7, np.uint16).tofile(tmp_path / "val.bin")
    corpus = data.prepare(given_ids(tiny, tmp_path))
    assert len(corpus.train.ids) == 10_000
    assert np.array_equal(corpus.validation.ids, np.full(200, 7))


def test_each_given_id_counts_as_one_byte(tiny: cfg.Config, tmp_path: Path) -> None:
    corpus = data.prepare(given_ids(tiny, tmp_path))
    assert corpus.bytes_of_token.tolist() == [1] * 1000


def test_a_vocabulary_smaller_than_the_given_ids_is_refused(
    tiny: cfg.Config, tmp_path: Path
) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        data.prepare(given_ids(tiny, tmp_path, **{"model.vocab_size": 999}))
    assert str(caught.value) == (
        f"{tmp_path}: model.vocab_size: the token ids go up to 999; expected at least 1000, got 999"
    )


def test_compressed_token_ids_are_refused(tiny: cfg.Config, tmp_path: Path) -> None:
    (tmp_path / "train.bin.gz").write_bytes(gzip.compress(b"\1\0"))
    with pytest.raises(cfg.ConfigError, match=r"train\.bin\.gz: data\.path: unpack it"):
        data.prepare(text_config(tiny, tmp_path))


def test_a_cache_that_cannot_be_written_is_named(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OSError) as caught:
        data.prepare(tiny)
    assert caught.value.filename in {tmp_path / "cache", str(tmp_path / "cache")}


def test_half_a_token_is_refused(tiny: cfg.Config, tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(b"\1\0\1")
    with pytest.raises(cfg.ConfigError, match=r"train\.bin: data\.path: half a token"):
        data.prepare(text_config(tiny, tmp_path))


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """The presidential messages as they are tokenized."""
    return [text for _, text in split(SOTU)]


def test_sotu_has_249_messages(messages: list[str]) -> None:
    assert len(messages) == 249


@pytest.mark.parametrize("mark", ["[laughter]", "[applause]", "[applause.]", "[inaudible"])
def test_sotu_holds_no_stage_mark(messages: list[str], mark: str) -> None:
    assert [text for text in messages if mark in text.lower()] == []


def test_sotu_keeps_brackets_that_are_words_of_the_message(messages: list[str]) -> None:
    assert [text for text in messages if "[the States]" in text] != []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fine. [Laughter] And", "fine. And"),
        ("fine. [Applause.]", "fine."),
        ("x [Laughter and applause] y", "x y"),
        ("x [At this point an audience member spoke.] y", "x y"),
        ("to them [the States] as", "to them [the States] as"),
        ("x [applaudable] y", "x [applaudable] y"),
        ("[open\nLaughter]", "[open\nLaughter]"),
    ],
)
def test_a_stage_mark_goes_with_the_space_before_it(before: str, after: str) -> None:
    assert documents.STAGE_MARK.sub("", before) == after


DATASET, FILES = documents.HUB["tinystories"]

STORIES = {
    name: f"Once in {name}.\n{END_OF_TEXT}\nThe end — fin.\n{END_OF_TEXT}\n".encode()
    for name in FILES
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A server that answers for two small files as the hub does; its address, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            folder, _, name = self.path.rpartition("/")
            asked.append(f"{self.command} {name}")
            known = folder == f"/datasets/{DATASET}/resolve/main" and name in STORIES
            self.send_response(200 if known else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{name}"')
            self.send_header("Content-Length", str(len(STORIES[name]) if known else 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(STORIES.get(self.path.rpartition("/")[2], b""))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as the base names it
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


READ_TWICE = """
import json
from tinylm import config, data, documents
stories = config.load("tinystories_17m").data
none = documents.Rule(lambda key: False)
def read():
    found = documents.pieces(stories, documents.Split(none, none), data.cache_folder() / "raw")
    return [[held, text] for text, _, held in found]
try:
    print(json.dumps([read(), read()]))
except config.ConfigError as error:
    print(error)
"""


def read_tinystories(endpoint: str, folder: Path) -> str:
    """What a process prints that reads the stories twice, with a hub of its own and no cache."""
    named = {"HF_HOME": str(folder / "hub"), "TINYLM_CACHE": str(folder), "HF_ENDPOINT": endpoint}
    return subprocess.run(
        [sys.executable, "-c", READ_TWICE],
        env=os.environ | named,
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    ).stdout


def test_tinystories_come_from_the_hub_once_with_the_split_of_their_files(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    endpoint, asked = hub
    train, validation = FILES
    stories = [
        [0, f"Once in {train}."],
        [0, "The end — fin."],
        [1, f"Once in {validation}."],
        [1, "The end — fin."],
    ]
    assert json.loads(read_tinystories(endpoint, tmp_path)) == [stories, stories]
    downloads = [line for line in asked if line.startswith("GET TinyStories")]
    assert downloads == [f"GET {train}", f"GET {validation}"]


def test_where_the_hub_is_out_of_reach_the_error_names_the_file_and_its_place(
    tmp_path: Path,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        printed = read_tinystories(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path)
    train = FILES[0]
    assert "the Hugging Face Hub could not be reached (ConnectError: " in printed
    assert f"hf download --repo-type dataset {DATASET} {train} --local-dir ." in printed
    assert printed.endswith(f"put it at {tmp_path / 'raw' / 'tinystories' / train}\n")


def test_tinystories_put_into_their_place_need_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    folder = tmp_path / "raw" / "tinystories"
    folder.mkdir(parents=True)
    (folder / FILES[0]).write_text(f"one{END_OF_TEXT}two")
    (folder / FILES[1]).write_text("three")
    stories = SOTU.model_copy(update={"corpus": "tinystories"})
    assert split(stories) == [(0, "one"), (0, "two"), (1, "three")]


def test_openwebtext_is_read_compressed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    folder = tmp_path / "raw" / "openwebtext"
    folder.mkdir(parents=True)
    with gzip.open(folder / "owt_train.txt.gz", "wt") as stream:
        stream.write(f"one{END_OF_TEXT}two")
    (folder / "owt_valid.txt").write_text("three")
    texts = SOTU.model_copy(update={"corpus": "openwebtext"})
    assert split(texts) == [(0, "one"), (0, "two"), (1, "three")]


def test_a_compressed_file_that_was_cut_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    folder = tmp_path / "raw" / "openwebtext"
    folder.mkdir(parents=True)
    (folder / "owt_train.txt.gz").write_bytes(gzip.compress(b"one " * 99)[:-9])
    texts = SOTU.model_copy(update={"corpus": "openwebtext"})
    with pytest.raises(cfg.ConfigError, match=r"owt_train\.txt\.gz: data\.path: "):
        split(texts)


def test_the_python_corpus_is_the_source_of_the_standard_library() -> None:
    texts = [text for _, text in split(SOTU.model_copy(update={"corpus": "python"}))]
    assert Path(json.__file__).read_text().strip() in texts
    assert Path(pytest.__file__).read_text().strip() not in texts


def test_the_unigram_entropy_of_equally_frequent_tokens_is_the_logarithm_of_their_number() -> None:
    ids = np.tile(np.arange(7, dtype=np.uint16), 5)
    assert Tokens(ids, 1).unigram_entropy() == pytest.approx(np.log(7), rel=1e-12)


def test_the_unigram_entropy_weighs_tokens_by_how_often_they_stand() -> None:
    ids = np.array([3, 3, 3, 65_535], dtype=np.uint16)
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert Tokens(ids, 1).unigram_entropy() == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def kept(tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cfg.Config:
    """A run of a text that was prepared before, in a cache of its own, long after it was written."""
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "SETTLED", -(2**62))
    file = tmp_path / "text.txt"
    file.write_text(END_OF_TEXT.join(words(37, seed) for seed in range(61)), encoding="utf-8")
    config = text_config(tiny, file, test_fraction=0.2)
    data.prepare(config)
    return config


PREPARED = (
    *("train.bin", "validation.bin", "test.bin"),
    *("bytes_of_token.npy", "tokenizer.json", "corpus.json"),
)


def flip(file: Path) -> None:
    """Flip a bit, as a disk does: size and time stay."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def pickled(file: Path) -> None:
    """An array of objects, which a reader would have to run."""
    np.save(file, np.array([print], dtype=object), allow_pickle=True)


def fractions(file: Path) -> None:
    np.save(file, np.array([0.5]))


def a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, flip) for name in PREPARED),
        *(("train.bin", how) for how in (Path.unlink, emptied, cut, a_folder, a_fifo)),
        ("bytes_of_token.npy", pickled),
        ("bytes_of_token.npy", fractions),
        ("corpus.json", emptied),
    ],
)
@pytest.mark.fault("a prepared corpus that changed on the disk", "said, and made again")
def test_a_damaged_corpus_is_made_again_and_that_is_said(
    kept: cfg.Config, name: str, how: Callable[[Path], object]
) -> None:
    folder = data.prepare(kept).folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    how(folder / name)
    data._verified.clear()  # as in a new process
    said: list[str] = []
    assert data.prepare(kept, said.append).folder == folder
    assert f"{folder} is damaged and is made again: " in said[0]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("how", [pickled, fractions])
@pytest.mark.fault("arrays of objects planted in the cache", "refused")
def test_planted_arrays_are_no_corpus_even_without_checksums(
    kept: cfg.Config, how: Callable[[Path], object]
) -> None:
    folder = data.prepare(kept).folder
    meta = json.loads((folder / "corpus.json").read_text())
    del meta["sha256"]
    (folder / "corpus.json").write_text(json.dumps(meta))
    how(folder / "bytes_of_token.npy")
    assert data.find(folder.name) is None


def test_within_a_process_a_corpus_that_changes_is_noticed(kept: cfg.Config) -> None:
    folder = data.prepare(kept).folder
    (folder / "train.bin").write_bytes(bytes((folder / "train.bin").stat().st_size))
    assert data.find(folder.name) is None


def test_a_corpus_of_an_earlier_version_gets_its_checksums(kept: cfg.Config) -> None:
    folder = data.prepare(kept).folder
    meta = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps({**meta, "sha256": None} | {"sha256": 0}))
    assert data.find(folder.name) is None
    del meta["sha256"]
    (folder / "corpus.json").write_text(json.dumps(meta))
    assert data.find(folder.name) is not None
    flip(folder / "validation.bin")
    data._verified.clear()
    assert data.find(folder.name) is None


@pytest.mark.parametrize("digest", ["", "..", "../raw", "/etc", "a/b", "A*"])
def test_what_is_no_digest_names_no_corpus(kept: cfg.Config, digest: str) -> None:
    assert data.find(digest) is None


@pytest.mark.fault("a disk that fills while a corpus is prepared", "exit code 7, with the folder")
def test_a_full_disk_while_a_corpus_is_prepared_is_told_with_its_folder(kept: cfg.Config) -> None:
    with pytest.raises(OSError) as caught, data._keeping(data.cache_folder() / "corpora" / ".x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(data.cache_folder() / "corpora" / ".x")
    assert "No space left on device (a corpus is prepared there; TINYLM_CACHE" in str(caught.value)


def unread(*_: object) -> documents.Survey:
    raise AssertionError


def test_a_text_that_has_not_changed_is_not_read_again(
    kept: cfg.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "survey", unread)
    assert data.prepare(kept).train.documents > 0


def test_a_text_that_has_changed_is_read_again_whatever_its_size_and_time(kept: cfg.Config) -> None:
    before, file = data.prepare(kept).digest, Path(str(kept.data.path))
    times, text = file.stat(), file.read_bytes()
    file.write_bytes(text.replace(b"a", b"e"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert data.prepare(kept).digest != before


def test_a_stamp_says_when_a_file_last_changed(tiny: cfg.Config, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "b.txt").write_text("new")
    os.utime(tmp_path / "b.txt", ns=(5, 5))  # which is a change as well
    found = documents.stamp(text_config(tiny, tmp_path).data, 307, tmp_path)
    assert found is not None and found[1] == (tmp_path / "b.txt").stat().st_ctime_ns


def test_a_text_that_was_just_written_is_read_again(
    kept: cfg.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have changed again within the same tick of the file system's clock."""
    monkeypatch.setattr(data, "SETTLED", 2**62)
    elsewhere = cfg.overlay(kept, {"data.split_seed": 5})
    data.prepare(elsewhere)
    monkeypatch.setattr(documents, "survey", unread)
    with pytest.raises(AssertionError):
        data.prepare(elsewhere)


def test_a_text_is_read_again_by_a_run_with_another_split(
    kept: cfg.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "survey", unread)
    with pytest.raises(AssertionError):
        data.prepare(cfg.overlay(kept, {"data.split_seed": 5}))
