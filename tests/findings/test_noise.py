"""How far seeds and repeats scatter."""

from pathlib import Path

import pytest
from conducting import (
    SEEDS,
    conduct,
    facts_of_study,
    noisy,
    summarized,
)
from ledgers import ended, studied

from sweeps import ledger as led
from sweeps.findings.noise import seed_noise


def test_repeats_that_scatter_more_than_seeds_are_the_noise(tmp_path: Path) -> None:
    """As those of trainings that end by the clock may: here 0, 0.1 and 0.2 apart."""
    facts = facts_of_study(
        tmp_path,
        lambda c, s: noisy(c, s, 0.1, 1.0) + 0.1 * c["run"]["repeat"],
        repeats=3,
    )["arms"]
    assert (facts["noise"]["sd"], facts["noise_of"]) == (pytest.approx(0.1), "repeats")


@pytest.mark.parametrize("apart", [0.0, 0.02])
def test_repeats_that_scatter_no_more_than_seeds_are_not_the_noise(
    tmp_path: Path, apart: float
) -> None:
    """Over seeds it is 0.0129; two degrees of freedom do not tell 0.02 from that."""
    facts = facts_of_study(
        tmp_path,
        lambda c, s: noisy(c, s, 0.1, 0.1) + apart * c["run"]["repeat"],
        repeats=3,
    )["arms"]
    assert facts["noise_of"] == "seeds"


def test_an_arm_that_scatters_more_is_no_part_of_the_noise(tmp_path: Path) -> None:
    """The arm's seeds are a nat apart, the baseline's a hundredth."""
    facts = facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.1, 100.0))
    assert facts["arms"]["noise"]["sd"] == pytest.approx(0.0129, abs=1e-4)


def test_repeats_that_are_equal_are_said_to_be(tmp_path: Path) -> None:
    tree = {"question": "q?", "search": {"method": "grid"}, "seeds": SEEDS, "repeats": 3}
    conduct(tmp_path, {**tree, "schedule": {"policy": "none"}})
    noise = seed_noise(studied(led.Files(tmp_path)))
    assert noise is not None
    assert (noise.repeats, noise.repeats_apart, noise.groups) == ((3,), 0.0, (4,))
    said = summarized(tmp_path)
    assert "Repeats of one config and seed (3 runs) are identical bit for bit." in said


def test_one_seed_has_no_noise(tmp_path: Path) -> None:
    assert seed_noise(studied(ended(tmp_path, "optim.lr", {1e-3: 3.0, 2e-3: 3.1}))) is None
