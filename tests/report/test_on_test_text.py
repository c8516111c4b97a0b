"""Sentences on the test text."""

import pytest

from sweeps.report.tested import flattery_words
from sweeps.stats import Effect


def effect(mean: float, n: int = 3) -> Effect:
    known = n > 1
    return (
        Effect(n, mean, 0.01, mean - 0.02, mean + 0.02, 0.3)
        if known
        else Effect(n, mean, None, None, None, None)
    )


def test_a_loss_that_rises_more_is_flattered() -> None:
    assert flattery_words(effect(0.0123), "nats per token", "that of the baseline") == (
        "Choosing flatters its validation loss by 0.0123 nats per token (95% interval -0.0077 to +0.0323, 3 "
        "seeds): from the validation text to the test text it rises by that much more than that of the baseline."
    )


@pytest.mark.parametrize("mean", [0.0, -0.0123])
def test_a_loss_that_rises_less_is_not_flattered(mean: float) -> None:
    words = flattery_words(effect(mean), "nats per token", "that of the baseline")
    assert words.startswith("Choosing does not flatter its validation loss: ")
    assert f"it rises by {-mean:.4f} nats per token less than that of the baseline" in words


def test_one_seed_has_no_interval() -> None:
    words = flattery_words(effect(0.0123, n=1), "nats per token", "that of the baseline")
    assert "(one seed has no interval)" in words
