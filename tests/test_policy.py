"""Policies as folds: what goes on, what waits, and why."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.policy import Asha, Promotion, RunAll

RUNGS = (10, 30)


def asha(eta: int = 3, finish: int = 1) -> Asha:
    return Asha(RUNGS, "val_loss", eta, finish)


def arrive(policy: Asha, scores: dict[str, float], tokens: int = 10) -> Asha:
    """Let each trial be measured at a rung and pause there."""
    for trial, score in scores.items():
        policy.observe({"kind": "measured", "trial": trial, "tokens": tokens, "val_loss": score})
        policy.observe({"kind": "paused", "trial": trial, "rung": tokens, "score": score})
    return policy


def promote(policy: Asha, promotion: Promotion | None) -> str:
    assert promotion is not None
    policy.observe({"kind": "promoted", **promotion.fields()})
    return promotion.trial


def test_nobody_is_promoted_before_eta_trials_have_arrived() -> None:
    assert arrive(asha(), {"a": 1.0, "b": 2.0}).promotion(last_resort=False) is None


def test_the_best_of_eta_arrivals_is_promoted_whatever_their_order() -> None:
    orders = itertools.permutations({"a": 3.0, "b": 1.0, "c": 2.0}.items())
    chosen = {
        promote(p, p.promotion(last_resort=False))
        for p in (arrive(asha(), dict(o)) for o in orders)
    }
    assert chosen == {"b"}


def test_a_promotion_carries_the_numbers_it_was_taken_on() -> None:
    promotion = arrive(asha(), {"a": 3.0, "b": 1.0, "c": 2.0}).promotion(last_resort=False)
    assert promotion == Promotion("b", 10, 30, 1.0, rank=1, arrived=3, forced=False)


def test_the_last_rung_leads_to_the_end_of_the_training() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 1.0, "c": 2.0}, tokens=30)
    promotion = policy.promotion(last_resort=False)
    assert promotion is not None and promotion.to is None


def test_a_higher_rung_is_promoted_from_first() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    arrive(policy, {"d": 9.0, "e": 8.0, "f": 7.0}, tokens=30)
    assert promote(policy, policy.promotion(last_resort=False)) == "f"


def test_nobody_is_promoted_twice_from_one_rung() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    promote(policy, policy.promotion(last_resort=False))
    assert policy.promotion(last_resort=False) is None


def test_a_trial_that_is_next_in_line_keeps_its_slot() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 2.0})
    policy.observe({"kind": "measured", "trial": "c", "tokens": 10, "val_loss": 1.0})
    verdict = policy.verdict("c", 10)
    assert isinstance(verdict, Promotion) and verdict.trial == "c"


def test_a_trial_that_is_not_next_in_line_pauses() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "measured", "trial": "c", "tokens": 10, "val_loss": 3.0})
    assert policy.verdict("c", 10) == "pause"


def test_asking_for_a_verdict_changes_nothing() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 2.0})
    policy.observe({"kind": "measured", "trial": "c", "tokens": 10, "val_loss": 1.0})
    policy.verdict("c", 10)
    assert not policy.holds("c")


def test_a_trial_goes_on_between_rungs() -> None:
    assert asha().verdict("a", 20) == "continue"


def test_a_promoted_trial_that_passes_its_rung_again_goes_on() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    promote(policy, policy.promotion(last_resort=False))
    assert policy.verdict("a", 10) == "continue"


def test_the_first_score_at_a_rung_stands() -> None:
    policy = arrive(asha(), {"a": 1.0})
    policy.observe({"kind": "measured", "trial": "a", "tokens": 10, "val_loss": 9.0})
    assert policy.standing("a")["score"] == 1.0


def test_a_diverged_trial_counts_as_an_arrival() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "diverged", "trial": "c", "tokens": 5})
    assert promote(policy, policy.promotion(last_resort=False)) == "a"


def test_diverged_trials_are_never_promoted() -> None:
    policy = asha(eta=2)
    for trial in "abcd":
        policy.observe({"kind": "diverged", "trial": trial, "tokens": 5})
    assert policy.promotion(last_resort=True) is None


def test_equal_scores_rank_by_arrival() -> None:
    policy = arrive(asha(), {"b": 1.0, "a": 1.0, "c": 1.0})
    assert promote(policy, policy.promotion(last_resort=False)) == "b"


def test_the_last_resort_takes_the_best_of_the_highest_rung() -> None:
    policy = arrive(asha(), {"a": 1.0})
    arrive(policy, {"b": 5.0, "c": 4.0}, tokens=30)
    promotion = policy.promotion(last_resort=True)
    assert promotion is not None and (promotion.trial, promotion.forced) == ("c", True)


def test_the_last_resort_is_for_sweeps_with_too_few_finished() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "finished", "trial": "c"})
    assert policy.promotion(last_resort=True) is None


def test_running_trials_may_still_finish() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "started", "trial": "c"})
    assert policy.promotion(last_resort=True) is None


def test_no_trial_runs_when_a_session_begins() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "started", "trial": "c"})
    policy.observe({"kind": "session"})
    assert policy.promotion(last_resort=True) is not None


def test_standing_says_the_rank_and_how_many_go_on() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert policy.standing("c")["reason"] == "rank 3 of 3 at 10 tokens; 1 go on"


@pytest.mark.parametrize(
    ("trials", "eta", "finish", "tokens"),
    [(9, 3, 1, 9 * 10 + 3 * 20 + 1 * 60), (8, 3, 1, 8 * 10 + 2 * 20 + 1 * 60), (1, 3, 1, 90)],
)
def test_expected_tokens_let_one_in_eta_pass(
    trials: int, eta: int, finish: int, tokens: int
) -> None:
    assert asha(eta, finish).expected_tokens(trials, 90) == tokens


def test_without_a_schedule_everything_goes_on() -> None:
    assert RunAll().verdict("a", 10) == "continue"


def test_without_a_schedule_the_full_grid_is_expected() -> None:
    assert RunAll().expected_tokens(8, 90) == 720


SCORES = st.lists(st.floats(0, 100) | st.just(math.inf), min_size=1, max_size=40)


@given(SCORES, st.integers(2, 5))
def test_at_most_one_in_eta_is_ever_promoted_by_rank(scores: list[float], eta: int) -> None:
    policy, promoted = asha(eta), 0
    for number, score in enumerate(scores):
        arrive(policy, {str(number): score})
        while promotion := policy.promotion(last_resort=False):
            promote(policy, promotion)
            promoted += 1
    # Each promotion was among the best 1/eta of those that had arrived by then.
    assert promoted <= sum(1 for score in scores if math.isfinite(score))


@given(SCORES)
def test_a_policy_fed_the_same_rows_stands_the_same(scores: list[float]) -> None:
    named = {str(number): score for number, score in enumerate(scores)}
    first, second = arrive(asha(), named), arrive(asha(), named)
    assert first.promotion(last_resort=True) == second.promotion(last_resort=True)
