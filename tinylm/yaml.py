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
_DEEPEST = 64  # lists and mappings within each other; Python's own limit differs between programs
# What a terminal would act on: control characters, and those that turn the direction of text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class YamlError(CommandError, ValueError):
    """Text that is not YAML, or YAML that would drop or duplicate what its author wrote."""

    code = Code.USAGE


_KEYS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}


class _Loader(yaml.SafeLoader):
    """Notes what is refused and reads on, so that all of it can be told."""

    # Its own table: resolvers are class attributes that all loaders of PyYAML share.
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[int, str]] = []  # line, and what is wrong there
        self.depth = 0  # of the node that is being read

    def refuse(self, mark: Any, problem: str) -> None:
        self.refused.append((mark.line + 1, problem))

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias or event.anchor is not None:
            self.refuse(event.start_mark, "anchors and aliases are not allowed")
        if is_alias:
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", self.get_event().start_mark)
        if event.tag is not None:
            self.refuse(event.start_mark, f"tag {event.tag!r} is not allowed{_untagged(event)}")
            event.tag, event.implicit = None, (True, False)
        event.anchor = None
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem="is nested too deeply", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen, kept = set(), []
        for key_node, value in node.value:
            if key_node.tag in _KEYS:  # a key is the text that is written: 4, 3e-5, true
                key_node.tag = "tag:yaml.org,2002:str"
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                self.refuse(key_node.start_mark, f"key {key!r:.80} is not text")
                continue
            if key in seen:
                self.refuse(key_node.start_mark, f"key {key!r:.80} is listed twice")
            seen.add(key)
            kept.append((key_node, value))
        node.value = kept
        return super().construct_mapping(node, deep=deep)

    def construct_decimal(self, node: Any) -> int:
        try:
            return int(node.value)
        except ValueError:  # more digits than Python converts
            self.refuse(node.start_mark, f"number has too many digits ({len(node.value)})")
            return 0


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
    (
        "expected <block end>",
        "can't be read: look for a colon after its key, its brackets, and its indentation",
    ),
    ("but found another document", "begins a second document (---); a file has one"),
)


def parse(text: str, source: str) -> Any:
    """The value of one YAML document; `YamlError`, with a line for each thing that is wrong, if it can't
    be read. The lines begin with `source`."""
    wrong, value, loader = [], None, None
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:  # it ends the reading
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or error.context or ""
        plain = next((plain for said, plain in _PLAIN if said in problem), problem)
        wrong = [f"{source}:{line} {plain}"]
    except yaml.reader.ReaderError as error:
        at = text.count("\n", 0, error.position) + 1
        wrong = [f"{source}: line {at} has the control character {text[error.position]!a}"]
    refused = sorted(loader.refused) if loader else []
    wrong = [*(f"{source}: line {line} {problem}" for line, problem in refused), *wrong]
    if wrong:
        raise YamlError("\n".join(wrong))
    return value


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
