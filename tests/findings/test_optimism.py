"""By how much the choice of the best flatters it."""

from pathlib import Path

import pytest
from conducting import (
    facts_of,
)
from ledgers import ended, studied

from sweeps.findings.everything import SearchFindings, findings


def test_the_optimism_of_a_choice_is_what_left_out_seeds_lose(tmp_path: Path) -> None:
    """0.002 is chosen for its mean of 3.05; leaving seed 0 out chooses 0.001, which has 3.3 there."""
    files = ended(tmp_path, "optim.lr", {1e-3: (3.3, 3.0), 2e-3: (3.0, 3.1)})
    chosen = facts_of(files.folder)["selection"]
    assert chosen["optimism"] == pytest.approx((3.3 + 3.1) / 2 - 3.05)


@pytest.mark.parametrize(("optimism", "is_stable"), [(4e-5, True), (6e-5, False)])
def test_a_choice_is_stable_if_its_optimism_is_zero_to_four_digits(
    tmp_path: Path, optimism: float, is_stable: bool
) -> None:
    """Without seed 0 the second value is chosen, which loses twice the optimism there."""
    losses = {1e-3: (3.0, 3.0), 2e-3: (3.0 + 2 * optimism, 3.0 - 1e-5)}
    found = findings(studied(ended(tmp_path, "optim.lr", losses)))
    assert isinstance(found, SearchFindings) and found.selection is not None
    assert found.selection.optimism == pytest.approx(optimism)
    assert found.selection.is_stable is is_stable
