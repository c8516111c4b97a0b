"""Trials are compared at equal tokens, or at their ends where budgets differ or are of time."""

from fractions import Fraction
from typing import Any

import pytest

from sweeps.ledger import Trial
from sweeps.selection import (
    END,
    at,
    best_group,
    best_record,
    common_tokens,
    final_point,
    groups,
    last_record,
    losses_at,
    same_point,
    when,
)

Losses = dict[int, float]  # tokens -> validation loss


def trial(name: str, losses: Losses, status: str = "finished", **more: Any) -> Trial:
    """A trial with a record of these losses at each token count."""
    config = {"budget": {"seconds": more.pop("seconds", None), "tokens": more.pop("tokens", 90)}}
    curve = [
        {"step": t, "tokens": t, "val_loss": v, "bits_per_byte": -v} for t, v in losses.items()
    ]
    fields = {"values": {"optim.lr": name}, "seed": 0, **more}
    return Trial(
        name, name, config, fields["values"], fields["seed"], 1, 1, "c",
        role="search", status=status, curve=curve,
    )  # fmt: skip


FALLING = {10: 3.0, 30: 2.0, 90: 1.0}


@pytest.mark.parametrize(("tokens", "loss"), [(30, 2.0), (29, None), (None, None)])
def test_a_record_is_at_exactly_these_tokens(tokens: int | None, loss: float | None) -> None:
    record = at(trial("a", FALLING), tokens)
    assert (record and record.val_loss) == loss


@pytest.mark.parametrize(("share", "loss"), [("1/3", 2.0), ("1/9", 3.0), ("1/2", None)])
def test_a_record_is_at_exactly_this_share_of_the_budget(share: str, loss: float | None) -> None:
    record = at(trial("a", FALLING), Fraction(share))
    assert (record and record.val_loss) == loss


@pytest.mark.parametrize(
    ("other", "point"),
    [({}, 30), ({"tokens": 900}, Fraction(1, 3)), ({"tokens": 900, "seconds": 5.0}, None)],
    ids=["one budget", "two budgets", "a budget of time"],
)
def test_another_trial_is_as_far_at_equal_tokens_or_shares(
    other: dict[str, Any], point: object
) -> None:
    assert same_point(trial("a", FALLING), 30, trial("b", FALLING, **other)) == point


@pytest.mark.parametrize(("status", "tokens"), [("finished", 90), ("stopped", None)])
def test_only_a_finished_trial_has_an_end(status: str, tokens: int | None) -> None:
    record = at(trial("a", FALLING, status), END)
    assert (record and record.tokens) == tokens


def test_losses_are_those_of_the_trials_that_were_measured_there() -> None:
    both = [trial("a", FALLING), trial("b", {10: 5.0})]
    assert losses_at(both, 30, "val_loss") == [2.0]
    assert losses_at(both, 10, "bits_per_byte") == [-3.0, -5.0]


def test_the_last_record_may_not_be_the_best() -> None:
    one = trial("a", {10: 3.0, 30: 1.0, 90: 2.0})
    last, best = last_record(one), best_record(one)
    assert last is not None and best is not None
    assert (last.tokens, best.tokens) == (90, 30)


def test_of_equal_records_the_first_is_best() -> None:
    best = best_record(trial("a", {10: 3.0, 30: 1.0, 90: 1.0}))
    assert best is not None and best.tokens == 30


def test_a_trial_without_records_has_neither() -> None:
    assert (last_record(trial("a", {})), best_record(trial("a", {}))) == (None, None)


@pytest.mark.parametrize(
    ("other", "tokens"), [({10: 1.0, 30: 1.0, 60: 1.0}, 30), ({20: 1.0}, None), ({}, None)]
)
def test_the_common_tokens_are_the_latest_that_all_have(other: Losses, tokens: int | None) -> None:
    assert common_tokens([trial("a", FALLING), trial("b", other)]) == tokens


def test_no_trials_have_no_tokens_in_common() -> None:
    assert common_tokens([]) is None


def test_trials_with_a_budget_of_time_are_compared_at_their_ends() -> None:
    timed = [trial("a", FALLING, seconds=60.0), trial("b", {10: 1.0}, seconds=60.0)]
    assert final_point(timed) == END


def test_trials_that_differ_by_their_seed_are_a_group_in_plan_order() -> None:
    rates = {"a": {"optim.lr": 1}, "b": {"optim.lr": 2}, "c": {"optim.lr": 1}}
    planned = [trial(name, FALLING, values=values) for name, values in rates.items()]
    assert [[one.trial for one in group] for group in groups(planned)] == [["a", "c"], ["b"]]


def test_the_best_values_are_those_with_the_lowest_mean_at_the_end() -> None:
    """At 30 tokens a is ahead."""
    ended = [trial("a", {30: 2.0, 90: 2.0}), trial("b", {30: 3.0, 90: 1.0})]
    assert [one.trial for one in best_group(ended, "val_loss")] == ["b"]


def test_trials_of_different_budgets_are_compared_at_their_ends() -> None:
    long, short = trial("a", {30: 2.0, 90: 1.5}), trial("b", {30: 1.8}, tokens=30)
    assert (final_point([long, short]), common_tokens([long, short])) == (END, None)
    assert [one.trial for one in best_group([long, short], "val_loss")] == ["a"]


def test_an_unfinished_trial_of_another_budget_shares_no_point() -> None:
    """The learning rate of one has decayed at 30 tokens, the other's has not."""
    assert final_point([trial("a", FALLING, "stopped"), trial("b", {30: 1.8}, tokens=30)]) is None


def test_values_with_fewer_finished_seeds_are_not_chosen() -> None:
    two: dict[str, Any] = {"values": {"optim.lr": 1}}
    ended = [trial("a", {90: 3.0}, **two), trial("b", {90: 4.0}, **two), trial("c", {90: 1.0})]
    assert [one.trial for one in best_group(ended, "val_loss")] == ["a", "b"]


def test_an_unfinished_trial_is_not_chosen() -> None:
    running = trial("b", {90: 1.0}, "stopped")
    assert [one.trial for one in best_group([trial("a", FALLING), running], "val_loss")] == ["a"]
    assert best_group([running], "val_loss") == []


@pytest.mark.parametrize(
    ("point", "words"),
    [(786_432, "at 786,432 tokens"), (END, "at the end of the budget"), (None, "so far")],
)
def test_the_point_of_a_comparison_is_named(point: int | str | None, words: str) -> None:
    assert when(point) == words
