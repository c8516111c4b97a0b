"""The table that `make test-faults` prints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faults import rows_lost, table, told


def report(outcome: str = "passed", when: str = "call", **said: Any) -> Any:
    """What pytest reports of a test of a fault."""
    properties = {"fault": "a kill", "expected": "nothing lost"}
    return SimpleNamespace(
        user_properties=[*properties.items(), *((k.replace("_", " "), v) for k, v in said.items())],
        passed=outcome == "passed",
        failed=outcome == "failed",
        when=when,
        nodeid="tests/test_x.py::test_y[1]",
        longrepr=("x.py", 1, "Skipped: no mounts"),
    )


def test_tests_of_one_fault_are_a_line() -> None:
    fault = told([report(rows_lost=1), report(rows_lost=2), report(seen="one died")])["a kill"]
    assert (fault.expected, fault.lost) == ("nothing lost", 3)
    assert fault.seen == {"as expected": 2, "one died": 1}


def test_a_test_that_failed_is_named() -> None:
    assert told([report("failed")])["a kill"].seen == {"FAILED: test_y[1]": 1}


def test_a_test_that_was_skipped_says_why() -> None:
    assert told([report("skipped", "setup")])["a kill"].seen == {"skipped: no mounts": 1}


def test_setting_up_and_tearing_down_is_not_counted() -> None:
    assert told([report(when="setup"), report(when="teardown")]) == {}


def test_rows_that_nobody_counted_are_not_zero() -> None:
    assert told([report()])["a kill"].lost is None


def test_the_table_has_a_line_for_a_fault_and_the_total() -> None:
    lines = table(told([report(rows_lost=2), report(rows_lost=0)])).splitlines()
    assert lines[1].split() == [
        "a",
        "kill",
        "nothing",
        "lost",
        "as",
        "expected,",
        "2",
        "times",
        "2",
    ]
    assert lines[-1] == "1 faults; rows lost: 2"


def test_whole_rows_that_changed_or_are_gone_are_lost(tmp_path: Path) -> None:
    (tmp_path / "now").write_bytes(b"a\nx\n")
    assert rows_lost(b"a\nb\nc\nhalf", tmp_path / "now") == 2
