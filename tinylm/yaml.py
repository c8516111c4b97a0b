"""YAML as people mean it: `1e-3` is a number, `on` is a word, nothing is silently lost.

PyYAML reads YAML 1.1, where `1e-3` is a string, `no` is false, `010` is 8, `12:30` is 750, and the
first of two equal keys is dropped. This loader reads the decimal scalars of the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema), accepts 10_000 for 10000, and refuses duplicate keys,
aliases and tags.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tinylm.exits import Code, CommandError
from tinylm.files import read_file

_LARGEST = 2 * 10**6  # bytes of a file; a grid of 100,000 values has half of that
_LONGEST, _LONGEST_KEY = 100_000, 200  # characters of a text, and of a key
# What a terminal would act on: control characters, and those that turn the direction of text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class YamlError(CommandError, ValueError):
    """Text that is not YAML, or YAML that would drop or duplicate what its author wrote."""

    code = Code.USAGE


_KEYS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}


class _Loader(yaml.SafeLoader):
    # Its own table: resolvers are class attributes that all loaders of PyYAML share.
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not allowed", event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"tag {event.tag!r} is not allowed{_untagged(event)}", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag in _KEYS:  # a key is the text that is written: 4, 3e-5, true
                key_node.tag = "tag:yaml.org,2002:str"
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r:.80} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r:.80} is listed twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_decimal(self, node: Any) -> int:
        try:
            return int(node.value)
        except ValueError as error:  # more digits than Python converts
            raise yaml.constructor.ConstructorError(
                None, None, f"number has too many digits ({len(node.value)})", node.start_mark
            ) from error


def _untagged(event: Any) -> str:
    """How a value is written without its tag, if that is known."""
    tag, text = event.tag.rpartition(":")[2], getattr(event, "value", "")
    if tag in {"float", "int"}:
        return f"; a plain {text} is a number"
    return f"; '{text}' in quotes is text" if tag == "str" else ""


_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_WHOLE = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"^[-+]?{_WHOLE}$")
_FLOAT = re.compile(
    rf"^(?:[-+]?(?:\.[0-9]+|{_WHOLE}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_DIGITS = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _DIGITS)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)


# What PyYAML says that needs other words.
_PLAIN = (
    (r"found character '\t'", "has a tab; indent with spaces"),
    (
        "mapping values are not allowed here",
        "has a colon where none can be; text with a colon needs quotes",
    ),
    ("but found another document", "begins a second document (---); a file has one"),
)


def parse(text: str, source: str) -> Any:
    """The value of one YAML document; `YamlError`, which begins with `source`, if it is wrong."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or error.context or ""
        plain = next((plain for said, plain in _PLAIN if said in problem), problem)
        raise YamlError(f"{source}:{line} {plain}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"{source}: {error}") from error
    except RecursionError as error:
        raise YamlError(f"{source}: nested too deeply") from error


def check_texts(value: Any, where: str) -> None:
    """Raise `YamlError` for a text in a value that is too long, or that a terminal would act on."""
    left = [(where, value)]
    while left:
        place, one = left.pop()
        if isinstance(one, dict):
            for key, part in one.items():
                if len(key) > _LONGEST_KEY:
                    raise YamlError(
                        f"{place}: a key has {len(key):,} characters; the most are {_LONGEST_KEY}"
                    )
                check_texts(key, place)
                left.append((f"{place}: {key}" if place == where else f"{place}.{key}", part))
        elif isinstance(one, list):
            left += [(place, part) for part in one]
        elif isinstance(one, str) and len(one) > _LONGEST:
            raise YamlError(
                f"{place}: a text has {len(one):,} characters; the most are {_LONGEST:,}"
            )
        elif isinstance(one, str) and (found := CONTROL.search(one)):
            raise YamlError(f"{place}: control character {found[0]!a}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; `ValueError` if a key is listed twice."""
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"key {key!r:.80} is listed twice")
        mapping[key] = value
    return mapping


def parse_json(text: str, source: str) -> Any:
    """The value of a JSON document; `YamlError`, which begins with `source`, if it is wrong."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise YamlError(f"{source}: {error}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or .json file; `YamlError`, which begins with its path, if it has none."""
    try:
        text = read_file(path, _LARGEST).decode()
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise YamlError(f"{path}: {error.strerror or error}") from error
    value = (parse_json if path.suffix == ".json" else parse)(text, str(path))
    if value is None:
        raise YamlError(f"{path}: the file is empty")
    if not isinstance(value, dict):
        raise YamlError(f"{path}: expected a mapping of keys to values, got {value!r:.80}")
    check_texts(value, str(path))
    return value
