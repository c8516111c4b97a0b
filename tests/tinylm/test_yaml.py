"""What a person writes in YAML is what the program reads."""

import json
import math
from pathlib import Path

import pytest

from tinylm.yaml import YamlError, parse, read_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("-7", -7),
        ("10_000", 10_000),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_", "1_"),
        ("1__0", "1__0"),
        ("0x1F", "0x1F"),
        ("=", "="),
        ("'1e-3'", "1e-3"),
    ],
)
def test_a_scalar_has_the_value_and_type_that_a_person_means(text: str, value: object) -> None:
    assert (parse(text, "here"), type(parse(text, "here"))) == (value, type(value))


def test_a_json_file_is_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\t"a": 1e-3}')
    assert read_mapping(path) == {"a": 0.001}


def test_a_key_listed_twice_in_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(YamlError, match=r"a\.json: key 'a' is listed twice"):
        read_mapping(path)


@pytest.mark.parametrize("key", ["4", "010", "3e-5", "true", "False", "1_000"])
def test_a_key_is_the_text_that_is_written(key: str) -> None:
    assert parse(f"{{{key}: 1}}", "here") == {key: 1}


def test_merge_keys_are_plain_text() -> None:
    assert parse("<<: {a: 1}", "here") == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: 1\nb: 2\na: 3", "line 3 key 'a' is listed twice"),
        ("a:\n  b: {c: 1,\n    c: 1}", "line 3 key 'c' is listed twice"),
        ("a: 1\nb: *a", "line 2 anchors and aliases are not allowed"),
        ("a: 1\nb: &x 2", "line 2 anchors and aliases are not allowed"),
        ("a:\n  &x [1]", "line 2 anchors and aliases are not allowed"),
        ("a: 1\nb: !!int 5", "line 2 tag 'tag:yaml.org,2002:int' is not allowed"),
        ("a: !!float 1e-8", "a plain 1e-8 is a number"),
        ("a: !!str 10", "'10' in quotes is text"),
        ("a: !!python/object/apply:os.getcwd []", "line 1 tag 'tag:yaml.org,2002:python"),
        ("a: 1\n~: b", "line 2 key None is not text"),
        ("a: 1\n4: b\n'4': c", "line 3 key '4' is listed twice"),
        ("a: 1\n---\nb: 2", "line 2 begins a second document (---); a file has one"),
        ("a: 1\n\tb: 2", "line 2"),
        (
            "a: Which: b or c?",
            "line 1 has a colon where none can be; text with a colon needs quotes",
        ),
        ("a:\n\tb: 2", "line 2 has a tab; indent with spaces"),
        ("a:\n  b {c: [1]}", "line 2 can't be read: look for a colon after its key"),
        ("a: " + "9" * 5_000, "line 1 number has too many digits (5000)"),
        ("[" * 500, "line 1 is nested too deeply"),
        ("a:\n  - " + "- " * 64 + "1", "line 2 is nested too deeply"),
        ("a: \x00", "has the control character"),
    ],
)
def test_yaml_that_would_lose_or_multiply_is_refused_with_its_line(text: str, rule: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text, "here.yaml")
    assert str(caught.value).startswith("here.yaml:")
    assert rule in str(caught.value)


def test_all_that_is_refused_is_told_at_once() -> None:
    with pytest.raises(YamlError) as caught:
        parse("a: !!int 5\nb: [1]\na: &x 2\n[c]: *x\nd: [1, 2}", "here.yaml")
    assert str(caught.value).splitlines() == [
        "here.yaml: line 1 tag 'tag:yaml.org,2002:int' is not allowed; a plain 5 is a number",
        "here.yaml: line 3 anchors and aliases are not allowed",
        "here.yaml: line 4 anchors and aliases are not allowed",
        "here.yaml: line 5 expected ',' or ']', but got '}'",
    ]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a: caf\xe9", "not UTF-8 text (byte 6)"),
        (b"- 1\n- 2", "expected a mapping of keys to values, got [1, 2]"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_mapping_in_utf8_is_refused_with_its_path(
    content: bytes, rule: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(YamlError) as caught:
        read_mapping(file)
    assert str(caught.value) == f"{file}: {rule}"


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(YamlError) as caught:
        read_mapping(tmp_path / "x.yaml")
    assert str(caught.value) == f"{tmp_path / 'x.yaml'}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: {b: " + "x" * 100_001 + "}", "x.yaml: a.b: a text has 100,001 characters"),
        ("x" * 201 + ": 1", "x.yaml: a key has 201 characters; the most are 200"),
        ('a: "\\e[31mred"', r"x.yaml: a: control character '\x1b'"),
        ('a: {b: [1, "\\a"]}', r"x.yaml: a.b: control character '\x07'"),
        ('"\\e[31m": 1', r"x.yaml: control character '\x1b'"),
        ('a: "\\u202e"', r"x.yaml: a: control character '\u202e'"),
        ("a: " + "x" * 2_000_000, "x.yaml: larger than 2 MB"),
    ],
)
def test_what_no_person_writes_is_refused_with_its_place(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(YamlError) as caught:
        read_mapping(tmp_path / "x.yaml")
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["x" * 100_000, "café 🜁 \u200d", "two\nlines\tand a tab"])
def test_what_people_write_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": text}))
    assert read_mapping(tmp_path / "x.json") == {"a": text}


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x07"])
def test_a_control_character_is_named_with_its_line(character: str) -> None:
    with pytest.raises(YamlError, match=r"^file: line 2 has the control character '\\x[01][07b]'$"):
        parse(f"a: 1\nb: {character}2\n", "file")
