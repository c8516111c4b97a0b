"""The learning rate as a function of the step, and what weight decay acts on."""

import itertools

import pytest
import torch

from tinylm import config as cfg
from tinylm.model import build
from tinylm.optim import Progress, adamw, learning_rate

# 100 updates of 5 x 13 tokens, the first 10 of them warm-up
CHANGES = {
    "budget.tokens": 100 * 65,
    "optim.lr": 0.5,
    "optim.warmup_fraction": 0.1,
    "optim.lr_final_fraction": 0.25,
    "optim.decay_fraction": 0.2,
}
SCHEDULES = ["cosine", "linear", "constant", "wsd"]


@pytest.fixture
def hundred(tiny: cfg.Config) -> cfg.Config:
    """A run of 100 updates."""
    return cfg.overlay(tiny, CHANGES)


def rates(config: cfg.Config, schedule: str) -> list[float]:
    """The learning rate of every update."""
    c = cfg.overlay(config, {"optim.schedule": schedule}).optim
    return [learning_rate(Progress(step, config.steps), c) for step in range(1, config.steps + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_from_the_first_update_to_the_peak(
    hundred: cfg.Config, schedule: str
) -> None:
    assert rates(hundred, schedule)[:10] == pytest.approx([0.05 * n for n in range(1, 11)], 1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_rate_is_above_the_peak_and_the_peak_is_reached(
    hundred: cfg.Config, schedule: str
) -> None:
    assert max(rates(hundred, schedule)) == 0.5


@pytest.mark.parametrize(
    ("schedule", "last"), [("cosine", 0.125), ("linear", 0.125), ("wsd", 0.125), ("constant", 0.5)]
)
def test_the_last_update_has_the_final_rate(
    hundred: cfg.Config, schedule: str, last: float
) -> None:
    assert rates(hundred, schedule)[-1] == last


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warm_up_the_rate_never_rises(hundred: cfg.Config, schedule: str) -> None:
    after = rates(hundred, schedule)[9:]
    assert after == sorted(after, reverse=True)


@pytest.mark.parametrize(
    ("schedule", "updates", "rate"),
    [
        ("cosine", 55, (0.5 + 0.125) / 2),
        ("cosine", 40, 0.125 + 0.375 * 0.75),  # a third of the way: (1 + cos 60 deg) / 2
        ("linear", 55, (0.5 + 0.125) / 2),
        ("linear", 40, 0.5 - 0.375 / 3),
        ("wsd", 80, 0.5),
        ("wsd", 81, 0.5 - 0.375 / 20),
        ("wsd", 90, (0.5 + 0.125) / 2),
        ("constant", 99, 0.5),
    ],
)
def test_schedules_have_their_closed_form(
    hundred: cfg.Config, schedule: str, updates: int, rate: float
) -> None:
    assert rates(hundred, schedule)[updates - 1] == pytest.approx(rate, rel=1e-14)


def test_wsd_stays_at_the_peak_until_the_decay(hundred: cfg.Config) -> None:
    assert set(rates(hundred, "wsd")[9:80]) == {0.5}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_is_all_warm_up_ends_at_its_peak(hundred: cfg.Config, schedule: str) -> None:
    shares = {"optim.warmup_fraction": 1.0, "optim.decay_fraction": 1e-9}
    if schedule == "wsd":
        shares["optim.warmup_fraction"] = 1 - 1e-9
    last = rates(cfg.overlay(hundred, shares), schedule)[-2:]
    assert last[0] == pytest.approx(0.495, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_no_rate_is_zero(hundred: cfg.Config, schedule: str) -> None:
    assert min(rates(cfg.overlay(hundred, {"optim.warmup_fraction": 0}), schedule)) == (
        0.5 if schedule == "constant" else 0.125
    )


def test_baseline_17m_peaks_at_update_500_and_ends_at_6e_5() -> None:
    rate = rates(cfg.load("baseline_17m"), "cosine")
    assert rate[499] == pytest.approx(6e-4, rel=1e-15)
    assert rate[498] < rate[499] > rate[500]
    assert rate[9_999] == pytest.approx(6e-5, rel=1e-15)


def test_progress_in_tokens_is_the_share_of_the_updates(hundred: cfg.Config) -> None:
    assert Progress.after(25, 1e9, hundred) == (25, 100)
    assert Progress.after(25, 1e9, hundred).share == 0.25


@pytest.mark.parametrize(
    ("step", "seconds", "expected"), [(25, 1.0, (25, 100)), (25, 2.0, (2.0, 4.0))]
)
def test_progress_in_a_timed_run_is_the_larger_of_two_shares(
    hundred: cfg.Config, step: int, seconds: float, expected: tuple[float, float]
) -> None:
    timed = cfg.overlay(hundred, {"budget.seconds": 4.0})
    assert Progress.after(step, seconds, timed) == expected


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_rate_depends_on_the_share_of_the_run_and_not_on_its_length(
    hundred: cfg.Config, schedule: str
) -> None:
    c = cfg.overlay(hundred, {"optim.schedule": schedule}).optim
    in_seconds = [learning_rate(Progress(step / 8, 12.5), c) for step in range(1, 101)]
    assert in_seconds == pytest.approx(rates(hundred, schedule), rel=1e-13)


def test_weight_decay_acts_on_matrices_and_on_nothing_else(tiny: cfg.Config) -> None:
    """Without gradients' help an update multiplies decayed weights by 1 - lr * decay."""
    config = cfg.overlay(tiny, {"optim.weight_decay": 0.5, "model.qk_norm": True})
    model = build(config.model, 0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = adamw(model, config)
    torch.stack([0.0 * p.sum() for p in model.parameters()]).sum().backward()
    optimizer.step()
    factor = {True: 1 - config.optim.lr * 0.5, False: 1.0}
    assert all(
        torch.equal(now, was * factor[was.ndim > 1])
        for now, was in zip(model.parameters(), before, strict=True)
    )


def test_every_parameter_is_optimized_once(tiny: cfg.Config) -> None:
    model = build(tiny.model, 0)
    groups = adamw(model, tiny).param_groups
    optimized = list(itertools.chain.from_iterable(group["params"] for group in groups))
    assert len(optimized) == len(set(map(id, optimized)))
    assert set(map(id, optimized)) == set(map(id, model.parameters()))


def test_adamw_has_the_numbers_of_the_config(tiny: cfg.Config) -> None:
    config = cfg.overlay(tiny, {"optim.beta1": 0.7, "optim.beta2": 0.9, "optim.eps": 1e-5})
    group = adamw(build(config.model, 0), config).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.7, 0.9), 1e-5)
