"""Whatever people or disks put into an input: it is read, or refused with its file and a reason."""

import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import MACHINE
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.exits import CommandError
from sweeps.findings.everything import Reader
from sweeps.ledger import Files
from sweeps.plan import trials as pl
from sweeps.plan.reading import read
from sweeps.plan.request import Request, base_config, with_shared_blocks
from sweeps.plan.space import Space
from sweeps.report import index, log, notes, page
from sweeps.simulate.curves import read_curves
from tinylm import checkpoint
from tinylm import config as cfg
from tinylm.yaml import parse

FIXTURES = Path(__file__).parent / "fixtures"
WORDS = [
    *Space.model_fields,
    *cfg.PATHS,
    "grid",
    "choice",
    "int",
    "times",
    "of",
    "depends",
    "on",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=20)
)
KEYS = st.sampled_from(WORDS) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda of: st.lists(of, max_size=4) | st.dictionaries(KEYS, of, max_size=3),
    max_leaves=8,
)
SEARCH: dict[str, Any] = {
    "question": "Which?",
    "search": {"method": "random", "samples": 3},
    "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.weight_decay": {"choice": [0, 0.1]}},
    "start": ["base"],
    "exclude": [{"optim.weight_decay": 0.1}],
    "schedule": {"policy": "asha", "eta": 3, "grace": "1/8"},
    "resources": {"cpus": 1},
    "caps": {"tokens": 10**9},
    "target": {"val_loss": 2.0},
}
STUDY: dict[str, Any] = {
    "question": "Does it help?",
    "base": {"optim.lr": 1e-3},
    "arms": {"nope": {"hypothesis": "Worse.", "set": {"model.position": "none"}}},
    "retune": {"optim.lr": {"times": [0.5, 1, 2]}},
    "seeds": [0, 1],
    "schedule": {"policy": "none"},
}


def lines_of_refusal(of: Callable[[], object]) -> list[str]:
    """The lines of the error by which a call refuses its input; none if it takes it."""
    try:
        of()
    except CommandError as error:
        return [*getattr(error, "problems", (str(error),))]
    return []


def code_of_refusal(of: Callable[[], object]) -> int | None:
    """The exit code of the error by which a call refuses its input; none if it takes it."""
    try:
        of()
    except CommandError as error:
        return error.code
    return None


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree, as the keys that lead there."""
    inside = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [above, *(place for key, part in inside for place in places(part, (*above, key)))]


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """A valid space with something else at up to three places."""
    tree = copy.deepcopy(draw(st.sampled_from([SEARCH, STUDY])))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(places(tree)[1:]))
        part: Any = tree
        for key in above:
            part = part[key]
        what = draw(st.sampled_from(["value", "gone", "key"]))
        if what == "value":
            part[last] = draw(VALUES)
        elif what == "gone":
            del part[last]
        elif isinstance(part, dict):
            part[draw(KEYS)] = part.pop(last)
    return tree


def planned(path: Path, tree: dict[str, Any]) -> pl.Plan:
    """The plan of a space in a file."""
    path.write_text(json.dumps(tree))
    space, written = read(path)
    base = with_shared_blocks(space, base_config("smoke", space.base, str(path)), space.base)
    return pl.plan(Request(space, written, str(path), base, "smoke", 0), MACHINE)


@pytest.mark.parametrize("tree", [SEARCH, STUDY])
def test_the_spaces_that_are_changed_are_valid(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert planned(tmp_path / "asked.json", tree).trials


@settings(max_examples=15, derandomize=True)
@given(tree=spaces())
def test_a_space_is_planned_or_refused(tmp_path_factory: Any, tree: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "asked.json"
    refused = lines_of_refusal(lambda: planned(path, tree))
    assert all(line.startswith(f"{path}: ") for line in refused)


@settings(max_examples=200, derandomize=True)
@given(text=st.text(alphabet="ab:-[]{}\"'&*!|>%@`#,?~ \n\t0123.e\\\0é"))
def test_yaml_is_read_or_refused(text: str) -> None:
    refused = lines_of_refusal(lambda: parse(text, "x.yaml"))
    assert all(line.startswith("x.yaml:") for line in refused)


MARKS = [
    "<!-- notes: a -->\n",
    "<!-- end of notes: a -->\n",
    "<!-- notes: b -->\n",
    notes.LAST.decode(),
]


@given(parts=st.lists(st.sampled_from(MARKS) | st.text(max_size=9)))
def test_notes_are_kept_or_refused(parts: list[str]) -> None:
    content = "".join(parts).encode(errors="replace")
    refused = lines_of_refusal(lambda: notes.notes(content))
    assert all("have no" in line for line in refused)
    if refused:
        return
    found = notes.notes(content)
    kept = notes.notes(notes.filled(f"{notes.block('a')}\n".encode() + notes.LAST, found))
    assert {k: v for k, v in kept.items() if v.strip()} == {
        k: v for k, v in found.items() if v.strip()
    }


# Rows of real sweeps, small ones: of a search and of a study.
LEDGERS = [
    [json.loads(line) for line in (FIXTURES / name / "ledger.jsonl").read_text().splitlines()]
    for name in ("lr", "layer_norm", "confirm")
]
STRANGE = st.sampled_from(
    [None, True, -1, 0, 7, 2**53, 2**70, 1e308, 1e-300, 0.5, "", "x", "<b>", "../../x", "a" * 5000]
) | st.sampled_from([[], [None], ["x"], {}, {"a": 1}, {"grid": []}, {"grid": [1]}, {"": None}])


@st.composite
def ledgers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The rows of a ledger with something else at up to three places; rare kinds are as likely as others."""
    rows = copy.deepcopy(draw(st.sampled_from(LEDGERS)))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(
            st.sampled_from(sorted({row["kind"] for row in rows if isinstance(row["kind"], str)}))
        )
        row = draw(st.sampled_from([one for one in rows if one["kind"] == kind]))
        what = draw(st.sampled_from(["value", "value", "value", "gone", "more", "row", "again"]))
        *above, last = draw(st.sampled_from([one for one in places(row)[1:] if one[0] != "kind"]))
        part: Any = row
        for key in above:
            part = part[key]
        if what == "value":
            part[last] = draw(STRANGE)
        elif what == "gone":
            del part[last]
        elif what == "more":
            row["more"] = draw(STRANGE)
        elif what == "row":
            rows.remove(row)
        else:
            rows.insert(draw(st.integers(0, len(rows))), copy.deepcopy(row))
    return [{**row, "seq": number} for number, row in enumerate(rows)]


def read_all(folder: Path) -> None:
    """Make what is made of a sweep that can be read."""
    found = Reader().findings(Files(folder))
    page.html(page.page(found, ""))


@settings(max_examples=25, derandomize=True)
@given(rows=ledgers())
@pytest.mark.fault("ledgers with any row changed", "read, or exit code 6 in a sentence")
def test_a_ledger_is_read_or_refused(tmp_path_factory: Any, rows: list[dict[str, Any]]) -> None:
    """The index and the log stand whatever one sweep is."""
    root = tmp_path_factory.mktemp("results")
    folder = root / "lr"
    folder.mkdir()
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    codes = {code_of_refusal(lambda: read_all(folder))}
    codes |= {code_of_refusal(lambda: index.index_html(root, Reader()))}
    codes |= {code_of_refusal(lambda: log.write(root, Reader()))}
    assert codes <= {None, 2, 6}


CELLS = st.sampled_from(
    ["trial", "tokens", "score", "seconds", "a", "1", "2", "nan", "1e400", "-1", "", '"']
)


@given(
    rows=st.lists(
        st.lists(CELLS | st.text(max_size=5), min_size=1, max_size=5).map(",".join), max_size=6
    ),
    header=st.booleans(),
)
def test_curves_are_read_or_refused(tmp_path_factory: Any, rows: list[str], header: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "curves.csv"
    lines = ["trial,tokens,score"] * header + rows
    path.write_bytes("\n".join(lines).encode(errors="replace"))
    refused = lines_of_refusal(lambda: read_curves(path))
    assert all(line.startswith(f"{path}: ") for line in refused)


@settings(max_examples=50, derandomize=True)
@given(content=st.dictionaries(st.sampled_from(["format", "config", "model", "step"]), VALUES))
def test_the_head_of_a_checkpoint_is_refused(
    tmp_path_factory: Any, content: dict[str, Any]
) -> None:
    path, stream = tmp_path_factory.getbasetemp() / "x.pt", io.BytesIO()
    torch.save({"format": 2, **content}, stream)
    path.write_bytes(stream.getvalue() + hashlib.sha256(stream.getvalue()).digest())
    with pytest.raises(CommandError) as caught:
        checkpoint.load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
