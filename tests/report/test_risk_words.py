"""Sentences on the risk of the values that a search recommends."""

import math
from dataclasses import replace

from sweeps.findings.risk import Expected, Risk
from sweeps.report.risk import risk_words

SAFE = Risk({"optim.lr": 8e-3}, 6, 4, 0, (), 0.0, 0.459, None, None, None, 0)
NAME = "lr-cpu"
OWN = Expected({"optim.lr": 8e-3}, 3, 3.25)
NEAR_EDGE = replace(SAFE, edge=1.6e-2, expected=OWN, safest=OWN, rivals=2)


def test_a_search_far_from_trouble_says_nothing_of_risk() -> None:
    assert risk_words(SAFE, NAME) == []


def test_the_share_of_runs_that_went_wrong_has_its_interval() -> None:
    found = replace(SAFE, stopped=1, wrong=("non-finite", "spiked"), low=0.043, high=0.777)
    assert risk_words(found, NAME) == [
        "At lr=0.008 and within a factor of 2 of it, 2 of 6 runs went wrong: 1 non-finite, 1 spiked (33%, 95% "
        "interval 4% to 78%). Not counted: 1 run that was stopped."
    ]


def test_at_the_values_alone_there_is_no_factor() -> None:
    (words,) = risk_words(replace(SAFE, beside=0, wrong=("spiked",)), NAME)
    assert words.startswith("At lr=0.008, 1 of 6 runs went wrong: ")


def test_near_the_edge_that_nothing_went_wrong_has_an_interval_too() -> None:
    words, _ = risk_words(NEAR_EDGE, NAME)
    assert words == (
        "At lr=0.008 and within a factor of 2 of it, none of 6 runs went wrong (95% interval 0% to 46%)."
    )


def test_near_the_edge_the_best_rate_may_be_the_safest() -> None:
    _, words = risk_words(NEAR_EDGE, NAME)
    assert words == (
        "The lowest unstable rate, 0.016, is only 2 times the best one. The best rate has the lowest expected loss as "
        "well: 3.2500 (mean over 3 seeds, those that went wrong included)."
    )


def test_near_the_edge_another_rate_may_be_recommended() -> None:
    own = replace(OWN, loss=math.inf)
    _, words = risk_words(
        replace(NEAR_EDGE, expected=own, safest=Expected({"optim.lr": 4e-3}, 3, 3.3)), NAME
    )
    assert words.endswith(
        " By expected loss lr=0.004 is the better choice: 3.3000 against infinite, because a run diverged (mean over "
        "3 seeds, those that went wrong included)."
    )


def test_near_the_edge_the_best_rate_may_have_nothing_to_be_compared_with() -> None:
    _, words = risk_words(replace(NEAR_EDGE, rivals=0), NAME)
    assert words.endswith(
        " The expected loss of the best rate is 3.2500 (mean over 3 seeds, those that went wrong included). No other "
        "values ended on as many seeds to compare it with."
    )


def test_near_the_edge_nothing_may_be_safe() -> None:
    own = replace(OWN, loss=math.inf)
    _, words = risk_words(replace(NEAR_EDGE, expected=own, safest=own), NAME)
    assert words.endswith(
        " A seed of the best rate diverged, so its expected loss is infinite, and no values that ended on as many "
        "seeds have a lower one."
    )


def test_near_the_edge_one_seed_is_told_to_say_little() -> None:
    _, words = risk_words(replace(NEAR_EDGE, expected=None, safest=None), NAME)
    assert "is not known; `seeds: [0, 1, 2]` shows it." in words
