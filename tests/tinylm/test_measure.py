"""Speed and memory, measured by a clock that is passed in."""

from collections.abc import Callable
from itertools import accumulate, count

import pytest
import torch

from tinylm import config as cfg
from tinylm.measure import (
    PROBE_SECONDS,
    PROBE_UPDATES,
    PRODUCTS,
    ROUNDS,
    probe,
    product_flops,
    speeds,
)


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is this much further each time it is read."""
    return count(0.0, seconds).__next__


def taking(*seconds: float) -> Callable[[], float]:
    """A clock by which what is timed takes these seconds, one after the other."""
    return accumulate(step for each in seconds for step in (0.0, each)).__next__


def test_a_probe_is_the_tokens_of_its_updates_over_their_seconds(tiny: cfg.Config) -> None:
    assert probe(tiny, ticking(0.5)).tokens_per_s == 65 / 0.5


def test_a_probe_leaves_out_the_first_update(tiny: cfg.Config) -> None:
    assert probe(tiny, taking(7.0, *[0.25] * PROBE_UPDATES)).tokens_per_s == 65 / 0.25


def test_a_probe_takes_no_more_than_its_seconds(tiny: cfg.Config) -> None:
    """Three updates of eight seconds are more than `PROBE_SECONDS`."""
    assert 2 * 8 < PROBE_SECONDS < 3 * 8
    assert probe(tiny, taking(1.0, *[8.0] * 3)).tokens_per_s == 65 / 8


def test_a_first_update_that_takes_too_long_is_the_only_one(tiny: cfg.Config) -> None:
    assert probe(tiny, taking(PROBE_SECONDS)).tokens_per_s == 65 / PROBE_SECONDS


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch's, of its own modules
def test_the_time_to_compile_is_not_taken_for_the_speed(tiny: cfg.Config) -> None:
    compiled = cfg.overlay(tiny, {"run.compile": True})
    times = taking(PROBE_SECONDS, *[0.25] * PROBE_UPDATES)
    with torch.compiler.set_stance("force_eager"):
        assert probe(compiled, times).tokens_per_s == 65 / 0.25


def test_the_flops_of_a_product_are_those_of_the_fastest(tiny: cfg.Config) -> None:
    """A product of two square matrices of width 1024 takes 2 * 1024**3 operations."""
    seconds = [*range(PRODUCTS, 0, -1)]
    assert product_flops(tiny, taking(*seconds[:-1], 0.5)) == 2 * 1024**3 / 0.5


def test_a_probe_knows_the_loss_before_the_first_update(tiny: cfg.Config) -> None:
    tied = cfg.overlay(tiny, {"model.tie_embeddings": True})
    high = cfg.overlay(tied, {"model.embedding_std": 1.0})
    starts = [one.model.starts_high(probe(one).loss_init) for one in (tied, high)]
    assert starts == [False, True]


def test_settings_take_turns_and_a_slow_one_is_measured_once(tiny: cfg.Config) -> None:
    """The clock ends when more is measured."""
    others = [cfg.overlay(tiny, {"run.seed": seed}) for seed in range(3)]
    rounds = [4.0, 1.0, 1.25, *[1.5, 1.0], *[1.0, 1.25] * (ROUNDS - 2)]
    found = speeds(others, taking(*rounds))
    assert found == [(65 / 4, ""), (65 / 1.0, ""), (52, "")]


def test_a_setting_that_cannot_run_has_a_reason(tiny: cfg.Config) -> None:
    there = cfg.overlay(tiny, {"run.device": "mps"})
    (speed, no_reason), (no_speed, reason) = speeds([tiny, there], ticking(1.0))
    assert (speed, no_reason, no_speed) == (65, "", None)
    assert reason.startswith("ConfigError: run.device: mps is not available here")


def test_a_setting_that_is_slow_before_it_is_compiled_is_not_compiled(tiny: cfg.Config) -> None:
    slow = cfg.overlay(tiny, {"run.seed": 1})
    compiled = cfg.overlay(slow, {"run.compile": True})
    found = speeds([tiny, slow, compiled], taking(1.0, 4.0, *[1.0] * (ROUNDS - 1)))
    assert found[2][0] is None and found[2][1].startswith("skipped")
