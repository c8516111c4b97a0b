"""What findings say of a study whose ledger was repaired."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conducting import arm, both_diverge, conduct, facts_of, loss, study
from ledgers import damage

from sweeps.ledger import Files
from sweeps.repair import repair

TREE = study(seeds=[0, 1, 2])


def repaired(
    folder: Path,
    *kinds: str,
    records: float = math.inf,
    how: Callable[[dict[str, Any], float], float] = loss,
) -> dict[str, Any]:
    """The findings on a study that ended after so many records; then the first row of each kind was damaged, and
    after each repair the study went on to its end."""
    conduct(folder, TREE, how, records=records)
    for kind in kinds:
        damage(Files(folder), kind)
        repair(Files(folder))
        conduct(folder, TREE, how)
    return facts_of(folder)


@pytest.mark.parametrize(
    ("kind", "what"), [("look", "1 line (1 look)"), ("finished", "14 lines (2 finished trials)")]
)
def test_a_verdict_says_which_results_a_repair_dropped(
    tmp_path: Path, kind: str, what: str
) -> None:
    records = math.inf if kind == "look" else 20
    words = arm(repaired(tmp_path, kind, records=records))["words"]
    assert words.endswith(f": after a ledger repair dropped {what}")


def test_trials_that_diverged_are_among_the_results(tmp_path: Path) -> None:
    facts = repaired(tmp_path, "diverged", how=both_diverge(1))
    assert "1 diverged trial" in str(facts["notes"])


def test_a_verdict_says_nothing_of_a_repair_that_dropped_no_result(tmp_path: Path) -> None:
    facts = repaired(tmp_path, "checkpointed", records=4)
    assert facts["notes"] == ["a ledger repair dropped 7 lines"]
    assert "repair" not in arm(facts)["words"]


def test_a_verdict_says_nothing_of_a_repair_after_its_look(tmp_path: Path) -> None:
    before = arm(repaired(tmp_path))["words"]
    files = Files(tmp_path)
    files.ledger.write_bytes(files.ledger.read_bytes() + b"xx\n")
    repair(files)
    facts = facts_of(tmp_path)
    assert (arm(facts)["words"], facts["notes"]) == (
        before,
        ["a ledger repair dropped 1 line (1 unreadable line)"],
    )


def test_a_repair_that_drops_the_row_of_another_says_so(tmp_path: Path) -> None:
    words = arm(repaired(tmp_path, "look", "repaired"))["words"]
    assert words.endswith("after a ledger repair dropped 3 lines (1 look, 1 earlier repair)")
