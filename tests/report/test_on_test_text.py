"""Sentences on the test text."""

import pytest

from sweeps.report.tested import flattery_words
from sweeps.stats import Effect


def words(mean: float, half: float | None) -> str:
    """What is said of flattery with an interval of this half width; None for one seed."""
    one = Effect(1, mean, None, None, None, None)
    found = one if half is None else Effect(3, mean, 0.01, mean - half, mean + half, 0.3)
    return flattery_words(found, "nats per token", "that of the baseline")


def test_the_flattery_is_told_with_what_it_is_measured_by() -> None:
    assert words(0.0123, 0.01) == (
        "Its loss on the test text minus that on the validation text is 0.0123 nats per token higher than that of the "
        "baseline (95% interval +0.0023 to +0.0223, 3 seeds): choosing on the validation text flatters it by that "
        "much."
    )


@pytest.mark.parametrize(
    ("mean", "half", "conclusion"),
    [
        (0.0123, 0.02, "the runs do not show that choosing on the validation text flatters it."),
        (-0.0123, 0.02, "the runs do not show that choosing on the validation text flatters it."),
        (-0.0123, 0.01, "choosing on the validation text does not flatter it."),
        (-0.0123, None, "the runs do not show that choosing on the validation text flatters it."),
        (0.0123, None, "the runs do not show that choosing on the validation text flatters it."),
    ],
)
def test_no_more_is_concluded_than_the_interval_shows(
    mean: float, half: float | None, conclusion: str
) -> None:
    assert words(mean, half).endswith(f": {conclusion}")


def test_a_smaller_difference_has_no_minus_sign() -> None:
    assert "is 0.0123 nats per token lower than" in words(-0.0123, 0.02)


def test_one_seed_has_no_interval() -> None:
    assert "(one seed has no interval)" in words(0.0123, None)
