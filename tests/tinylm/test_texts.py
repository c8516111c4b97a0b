"""Text files as documents: kinds of files, pieces of bounded size, and what is refused."""

import gzip
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tinylm import config as cfg
from tinylm import texts
from tinylm.config import ConfigError

DOCUMENTS = ["first\nwith a line", "zweites — ü", "漢字。"]
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
LETTERS, OTHERS = (
    ["s", "l", "d", "r", "漢", "é"],
    [*"   \n\n\t'1.", "。", "\u3000", "\x1c", "\x85", "🜁"],
)
CHARACTERS = st.sampled_from([*LETTERS, *OTHERS])


def of_short_words(others: list[str]) -> st.SearchStrategy[str]:
    """Texts in which letters and others take turns."""
    letters = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)
    between = st.text(st.sampled_from(others), min_size=1, max_size=4)
    return st.lists(st.tuples(letters, between).map("".join), max_size=40).map("".join)


def about(path: Path | str, **changes: object) -> cfg.Data:
    """The section of a config that reads a text."""
    return cfg.Data.model_validate({"corpus": "text", "path": str(path)} | changes)


def joined(pieces: Iterable[texts.Piece]) -> list[str]:
    """The documents of pieces."""
    found = [""]
    for text, ends in pieces:
        found[-1] += text
        found += [""] if ends else []
    return found[:-1]


def read(path: Path, **changes: object) -> list[str]:
    """The training documents of a file or folder."""
    data = about(path, **changes)
    files = texts.sources(data).training
    return [text for file in files for text in joined(texts.documents(file, data))]


def refusal(path: Path, **changes: object) -> str:
    """Why a file or folder is refused."""
    with pytest.raises(ConfigError) as caught:
        read(path, **changes)
    return str(caught.value)


def words(text: str) -> list[str]:
    """The words that a text is tokenized by."""
    return [word for word, _ in WORDS.pre_tokenize_str(text)]


class TestPieces:
    @example("d1d1111dd1111ddd1111dddd1\x85\x851dddd111dddd1111d1111d1111ddd1dddd1111")
    @given(of_short_words(OTHERS) | of_short_words(["\t", "\u3000", "'", "。"]))
    def test_the_words_of_the_pieces_are_the_words_of_the_whole(self, text: str) -> None:
        whole = text.strip()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "PIECE", 32)
            pieces = [piece for piece, _ in texts.pieces([(text, True)])]
        assert [word for piece in pieces for word in words(piece)] == words(whole)

    @given(st.text(CHARACTERS, max_size=150), st.lists(st.integers(0, 150), max_size=5))
    def test_pieces_do_not_depend_on_how_the_text_was_read(
        self, text: str, cuts: list[int]
    ) -> None:
        bounds = [0, *sorted(cuts), len(text)]
        fragments = [(text[a:b], False) for a, b in itertools.pairwise(bounds)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "PIECE", 16)
            assert list(texts.pieces([*fragments, ("", True)])) == list(
                texts.pieces([(text, True)])
            )

    @given(st.text(CHARACTERS, max_size=150))
    def test_no_piece_is_longer_than_two(self, text: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "PIECE", 8)
            assert all(0 < len(piece) <= 16 for piece, _ in texts.pieces([(text, True)]))

    def test_a_word_that_is_too_long_is_cut(self) -> None:
        long = "a" * (5 * texts.PIECE)
        pieces = [piece for piece, _ in texts.pieces([(long, True)])]
        assert "".join(pieces) == long and max(map(len, pieces)) <= 2 * texts.PIECE

    def test_a_document_is_stripped_and_an_empty_one_is_none(self) -> None:
        assert list(texts.pieces([("\n a", False), (" \n", True), (" \n", True)])) == [("a", True)]


def as_text(documents: list[str]) -> bytes:
    """A text file."""
    return texts.END_OF_TEXT.join(documents).encode()


def as_lines(documents: list[str]) -> bytes:
    """A file of JSON lines."""
    return "\n\n".join(json.dumps({"id": 1, "text": text}) for text in documents).encode()


def zst(content: bytes) -> bytes:
    """The content, compressed."""
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


class TestKinds:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.txt", as_text(DOCUMENTS)),
            ("A.TXT", as_text(DOCUMENTS)),
            ("a.md", as_text(DOCUMENTS)),
            ("a.Txt.GZ", gzip.compress(as_text(DOCUMENTS), mtime=0)),
            ("a.gz", gzip.compress(as_text(DOCUMENTS), mtime=0)),
            ("a.md.zst", zst(as_text(DOCUMENTS))),
            ("a.txt", b"\xef\xbb\xbf" + as_text(DOCUMENTS)),  # a byte order mark
            ("a.jsonl", as_lines(DOCUMENTS)),
            ("a.ndjson", b"\xef\xbb\xbf" + as_lines(DOCUMENTS)),
            ("a.JSONL.gz", gzip.compress(as_lines(DOCUMENTS), mtime=0)),
            ("a.jsonl.zst", zst(as_lines(DOCUMENTS))),
        ],
    )
    @pytest.mark.parametrize("named", ["file", "folder"])
    def test_a_file_of_each_kind_is_read(
        self, tmp_path: Path, name: str, content: bytes, named: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name if named == "file" else tmp_path) == DOCUMENTS

    def test_a_file_of_another_name_is_text(self, tmp_path: Path) -> None:
        (tmp_path / "corpus").write_bytes(as_text(DOCUMENTS))
        assert read(tmp_path / "corpus") == DOCUMENTS

    def test_a_column_of_a_parquet_file_is_read(self, tmp_path: Path) -> None:
        table = pa.table({"n": [1, 2, 3], "story": DOCUMENTS})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
        assert read(tmp_path, field="story") == DOCUMENTS

    def test_a_folder_is_read_by_one_kind_and_the_rest_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b.md").write_text("b")
        (tmp_path / "c.py").write_text("c")
        (tmp_path / "loop").symlink_to("loop")
        files = texts.sources(about(tmp_path))
        assert [file.name for file in files.training] == ["a.txt"]
        assert files.notes == (
            f"{tmp_path}: skipped 3 files (b.md, c.py, loop); only .txt files are read",
        )

    def test_a_readme_beside_the_texts_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("about")
        (tmp_path / "a.jsonl").write_bytes(as_lines(DOCUMENTS))
        assert read(tmp_path) == DOCUMENTS

    def test_a_file_that_is_there_compressed_as_well_is_read_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a", mtime=0))
        assert read(tmp_path) == ["a"]

    def test_a_folder_named_like_a_file_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").mkdir()
        (tmp_path / "a.txt" / "b.txt").write_text("b")
        assert read(tmp_path) == read(tmp_path / "a.txt") == ["b"]

    def test_a_tilde_is_the_home_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "a.txt").write_text("a")
        assert read(Path("~/a.txt")) == read(Path("~")) == ["a"]


def sides(folder: Path, names: list[str], **changes: object) -> tuple[list[str], list[str]]:
    """The files of a folder with these names that are trained on, and those that are held out."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    files = texts.sources(about(folder, **changes))
    return [file.name for file in files.training], [file.name for file in files.validation]


class TestSides:
    @pytest.mark.parametrize(
        ("names", "training", "validation"),
        [
            (["train.txt", "valid.txt"], ["train.txt"], ["valid.txt"]),
            (["train.txt", "valid.txt", "test.txt"], ["train.txt"], ["valid.txt"]),
            (["train.txt", "test.txt"], ["train.txt"], []),
            (["input.txt", "input_val.txt"], ["input.txt"], ["input_val.txt"]),
            (["T-GPT4-train.txt", "T-GPT4-valid.txt"], ["T-GPT4-train.txt"], ["T-GPT4-valid.txt"]),
            (["Train.TXT", "DEV.TXT"], ["Train.TXT"], ["DEV.TXT"]),
            (
                ["train-00000-of-00002.txt", "train-00001-of-00002.txt", "val_0.txt"],
                ["train-00000-of-00002.txt", "train-00001-of-00002.txt"],
                ["val_0.txt"],
            ),
            (["train/a.txt", "validation/b.txt"], ["a.txt"], ["b.txt"]),
            # Names that say no side: all is training text, of which a part is held out.
            (["train.txt", "more.txt"], ["more.txt", "train.txt"], []),
            (["a.txt", "test.txt"], ["a.txt", "test.txt"], []),
            (
                ["dev diary.txt", "invalid.txt", "a.txt"],
                ["a.txt", "dev diary.txt", "invalid.txt"],
                [],
            ),
        ],
    )
    def test_names_say_the_split(
        self, tmp_path: Path, names: list[str], training: list[str], validation: list[str]
    ) -> None:
        assert sides(tmp_path, names) == (training, validation)

    def test_what_the_names_say_is_said(self, tmp_path: Path) -> None:
        sides(tmp_path, ["train.txt", "valid.txt", "test.txt"])
        assert texts.sources(about(tmp_path)).notes == (
            f"{tmp_path}: the names of the files say the split: 1 file (train.txt) for training, "
            "1 file (valid.txt) for validation",
            f"{tmp_path}: left out: 1 file (test.txt)",
        )

    def test_a_validation_path_is_held_out_and_not_trained_on(self, tmp_path: Path) -> None:
        path = tmp_path / "b.txt"
        found = sides(tmp_path, ["a.txt", "b.txt"], validation_path=str(path))
        assert found == (["a.txt"], ["b.txt"])

    def test_training_text_that_is_the_validation_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a")
        told = refusal(tmp_path / "a.txt", validation_path=str(tmp_path))
        assert told == f"{tmp_path}/a.txt: data.path: no training text besides the validation text"

    def test_a_wrong_validation_file_is_refused_with_its_setting(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a")
        told = refusal(tmp_path / "a.txt", validation_path=f"{tmp_path}/b.txt")
        assert told == f"{tmp_path}/b.txt: data.validation_path: No such file or directory"


class TestRefusals:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ('{"text": "a"', "not JSON (Expecting ',' delimiter: line 1 column 13 (char 12))"),
            ('["a"]', 'expected a JSON object, got ["a"]'),
            (
                '{"txt": "a", "id": 1}',
                "no field 'text' (data.field); fields: txt, id; did you mean 'txt'?",
            ),
            ('{"text": null}', "text: expected text, got null"),
            ('{"text": 3}', "text: expected text, got 3"),
            ('{"text": "\\ud800"}', "text: half of a surrogate pair, which is no character"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str, reason: str) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(f'{{"text": "a"}}\n\n{line}\n')
        assert refusal(file) == f"{file}: data.path: line 3: {reason}"

    @pytest.mark.parametrize(
        ("content", "where"),
        [
            (b"a\nb\xe9 c\n", "byte 0xe9 at offset 3, line 2; cp1252 would"),
            ("﻿a\n".encode("utf-16"), "byte 0xff at offset 0, line 1; utf-16 would"),
            (b"a\nb\x81 c\n", "byte 0x81 at offset 3, line 2; latin-1 would"),
            (
                "a\n漢字も仮名も読めるはずだ\n".encode("shift_jis"),
                "byte 0x8a at offset 2, line 2; ",
            ),
            (
                "all of this\nДДДДДДД ДДДД".encode("cp1251"),
                "byte 0xc4 at offset 12, line 2; ",
            ),
            (b"PK\x03\x04\xff\x00", "byte 0xff at offset 4, line 1"),
            (b"cut \xe6\xbc", "byte 0xe6 at offset 4, line 1; cp1252 would"),
            ("é".encode() * texts.BLOCK + b"\n\xe9", "byte 0xe9 at offset 2097153, line 2"),
        ],
    )
    @pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
    def test_a_wrong_byte_is_named_by_its_place(
        self, tmp_path: Path, content: bytes, where: str, name: str
    ) -> None:
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if ".gz" in name else content)
        assert refusal(tmp_path).startswith(
            f"{tmp_path / name}: data.path: not UTF-8 text: {where}"
        )

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [("shift_jis", "漢字も仮名も読めるはずだ"), ("gb18030", "这是一个简单的例子文本")],
    )
    def test_the_encoding_is_among_those_that_are_named(
        self, tmp_path: Path, encoding: str, text: str
    ) -> None:
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        assert encoding in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            (
                "a.json",
                b"{}",
                "JSON is read line by line, one document a line; name such a file .jsonl ",
            ),
            ("a.tar.gz", b"", ".tar files are not read; expected one of .txt, .jsonl"),
            ("a.txt.gz", b"no gzip", "Not a gzipped file"),
            ("a.txt.zst", b"no zstd", "ZSTD decompress failed"),
            ("a.txt.zst", zst(b"abc" * 999)[:-4], "Truncated compressed stream"),
            ("a.parquet", b"no parquet, however long it may be", "not a Parquet file"),
        ],
    )
    def test_a_damaged_file_is_refused(
        self, tmp_path: Path, name: str, content: bytes, reason: str
    ) -> None:
        file = tmp_path / name
        file.write_bytes(content)
        assert refusal(file).startswith(f"{file}: data.path: {reason}")

    def test_a_column_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"story": ["a"]}), tmp_path / "a.parquet")
        assert refusal(tmp_path).endswith("no field 'text' (data.field); fields: story")

    def test_a_value_that_is_missing_from_a_column_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
        assert refusal(tmp_path).endswith("row 2: text: expected text, got null")

    def test_a_link_to_itself_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").symlink_to("a.txt")
        told = refusal(tmp_path / "a.txt")
        assert told == f"{tmp_path}/a.txt: data.path: Too many levels of symbolic links"

    def test_a_pipe_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.txt")
        told = refusal(tmp_path / "a.txt")
        assert told.endswith("neither a file nor a folder; a corpus is read several times")

    def test_a_path_with_a_null_byte_is_refused(self) -> None:
        assert refusal(Path("a\0b")) == "a\0b: data.path: embedded null byte"

    def test_token_ids_and_text_do_not_go_together(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(b"\1\0")
        (tmp_path / "b.txt").write_text("b")
        told = refusal(tmp_path / "a.bin", validation_path=f"{tmp_path}/b.txt")
        assert "texts and token ids do not go together" in told
