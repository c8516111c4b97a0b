"""Verdicts: what differences over seeds support."""

import pytest

from sweeps.findings.verdict import judge
from sweeps.stats import Effect, Noise, effect

UNIT = "nats per token"
NOISE = Noise(0.01, 0.006, 0.02, 12)


@pytest.mark.parametrize(
    ("differences", "p_holm", "kind", "words"),
    [
        ([-0.030, -0.032, -0.031], 0.01, "better", "better by 0.0310 nats per token"),
        ([0.030, 0.032, 0.031], 0.01, "worse", "worse by 0.0310 nats per token"),
        ([0.001, -0.001, 0.0005], 0.9, "no difference", "no difference larger than 0.00"),
        ([0.03, -0.01, 0.02], 0.4, "no conclusion", "more seeds would settle"),
        ([0.030, 0.032, 0.031], 0.2, "no conclusion", "1 more seed would settle"),
        (
            [0.03, -0.03, 0.0],
            1.0,
            "no conclusion",
            "the difference is between -0.0745 and +0.0745, and 9 more seeds would show that none is "
            "larger than 0.0200",
        ),
        ([0.03], None, "no conclusion", "one seed has no interval"),
    ],
)
def test_the_four_verdicts(
    differences: list[float], p_holm: float | None, kind: str, words: str
) -> None:
    found = judge(effect(differences), p_holm, NOISE, UNIT)
    assert (found.kind, words in found.words) == (kind, True), found.words


@pytest.mark.parametrize(("end", "kind"), [(0.0199, "no difference"), (0.0201, "no conclusion")])
def test_a_difference_within_twice_the_noise_is_none(end: float, kind: str) -> None:
    """The noise is 0.01."""
    assert judge(Effect(9, 0.0, 0.001, -end, end, 1.0), 1.0, NOISE, UNIT).kind == kind


def test_a_difference_that_is_found_and_does_not_matter_is_told_as_such() -> None:
    """It matters from 0.02 on, twice the noise."""
    tiny = Effect(5, 7.4e-7, 1e-7, 6.1e-7, 8.7e-7, 1e-4)
    assert judge(tiny, 1e-4, NOISE, UNIT).words == (
        "worse by 7.4e-07 nats per token (95% interval 6.1e-07 to 8.7e-07), smaller than what matters (0.0200)"
    )
    large = judge(Effect(5, 0.02, 0.001, 0.0199, 0.0201, 1e-4), 1e-4, NOISE, UNIT).words
    assert large == "worse by 0.0200 nats per token (95% interval 0.0199 to 0.0201)"


def test_a_small_difference_without_a_noise_is_bounded_by_its_interval() -> None:
    found = judge(effect([0.03, -0.03, 0.0]), 1.0, None, UNIT)
    assert found.detail == (
        "the difference is between -0.0745 and +0.0745, and more seeds would not settle so small a difference"
    )
    assert found.seeds is None


def test_without_a_noise_there_is_no_verdict_of_no_difference() -> None:
    assert judge(effect([1e-5, -1e-5, 2e-5]), 0.9, None, UNIT).kind == "no conclusion"
