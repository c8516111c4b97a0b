"""What an arm is worth in tokens of the baseline."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conducting import (
    RETUNE,
    arm,
    conduct,
    dead,
    facts_of,
    is_bare,
    law,
    loss,
    study,
    summarized,
    worth,
)
from fakes import Engine, Loss, driver, request
from ledgers import rewrite, studied

from sweeps import ledger as led
from sweeps.findings.everything import findings
from sweeps.report.answer import answer_words
from sweeps.report.next_steps import steps_of
from sweeps.steering import Request, ask
from sweeps.text import show
from tinylm import config as cfg

SPEEDUP = {"horizons": [0.5, 2], "seeds": 3}


def told(folder: Path, how: Loss, **more: Any) -> dict[str, Any]:
    """The content of summary.json of a study of four seeds."""
    tree = study(speedup=SPEEDUP) | {"seeds": [0, 1, 2, 3]} | more
    conduct(folder, tree, how)
    return facts_of(folder)


def tokens_of(facts: dict[str, Any]) -> dict[str, float]:
    """The token speedup of the arm, with its interval."""
    found: dict[str, float] = arm(facts)["speedup"]["tokens"]
    return found


@pytest.mark.parametrize("times", [0.6, 0.8, 0.95, 1.05, 1.25, 1.8])
def test_an_arm_that_is_the_baseline_with_more_tokens_is_worth_them(
    tmp_path: Path, times: float
) -> None:
    assert tokens_of(told(tmp_path, worth(times)))["times"] == pytest.approx(times, rel=1e-3)


def test_the_interval_covers_what_the_arm_is_worth(tmp_path: Path) -> None:
    found = tokens_of(told(tmp_path, worth(1.25, noise=3e-3)))
    assert found["low"] < 1.25 < found["high"]


@pytest.mark.parametrize(("times", "bound"), [(0.3, 0.5), (3.0, 2.0)])
def test_beyond_the_horizons_there_is_only_a_bound(
    tmp_path: Path, times: float, bound: float
) -> None:
    assert set(tokens_of(told(tmp_path, worth(times))).values()) == {bound}


@pytest.mark.parametrize(("times", "words"), [(0.3, "less than 0.5x"), (3.0, "more than 2x")])
def test_a_bound_is_told_as_one(tmp_path: Path, times: float, words: str) -> None:
    told(tmp_path, worth(times))
    assert f"Token speedup of nope: {words} (95% interval {words})" in summarized(tmp_path)


def test_a_difference_is_told_in_tokens(tmp_path: Path) -> None:
    told(tmp_path, worth(1.25))
    assert "the baseline needs 25% more tokens for the same loss" in summarized(tmp_path)


def test_a_difference_that_is_no_percent_of_the_tokens_is_told_as_about_as_many(
    tmp_path: Path,
) -> None:
    facts = told(tmp_path, worth(1.002, noise=1e-6))
    assert arm(facts)["verdict"] == "better"
    assert "the baseline needs about as many tokens for the same loss" in summarized(tmp_path)


def test_a_worse_arm_is_told_in_fewer_tokens(tmp_path: Path) -> None:
    told(tmp_path, worth(0.8))
    assert "the baseline needs 20% fewer tokens for the same loss" in summarized(tmp_path)


def test_an_open_question_is_told_without_a_claim(tmp_path: Path) -> None:
    facts = told(tmp_path, worth(1.05, noise=2e-2))
    assert arm(facts)["verdict"] == "no conclusion"
    assert "tokens for the same loss" not in summarized(tmp_path)
    assert "Token speedup of nope: 1." in summarized(tmp_path)


def test_a_void_arm_is_worth_nothing(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        return dead(config, share) + law(config["budget"]["tokens"] / 8192)

    facts = told(tmp_path, how)
    assert arm(facts)["verdict"] == "void"
    assert "speedup" not in arm(facts)


def test_the_baseline_has_no_speedup(tmp_path: Path) -> None:
    assert "speedup" not in arm(told(tmp_path, worth(1.25)), "baseline")


def test_an_arm_with_a_run_that_diverged_has_no_speedup(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        is_lost = is_bare(config) and config["run"]["seed"] == 1
        return math.inf if is_lost else worth(1.25)(config, share)

    assert "speedup" not in arm(told(tmp_path, how))


def test_nothing_is_known_where_the_baseline_diverges_at_a_horizon(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        return math.inf if config["budget"]["tokens"] > 8192 else worth(1.25)(config, share)

    facts = told(tmp_path, how)
    assert "speedup" not in arm(facts)
    assert facts["arms"]["speedups"]["why_not"] == "the baseline diverged at 2 times the tokens"


def test_nothing_is_known_where_more_tokens_do_not_help(tmp_path: Path) -> None:
    facts = told(tmp_path, lambda config, share: 3.0 + 0.1 * is_bare(config) + (1 - share))
    assert (
        facts["arms"]["speedups"]["why_not"] == "the baseline's loss does not fall with its tokens"
    )


BASE_LR = cfg.load("smoke").optim.lr


def untuned(config: dict[str, Any], share: float) -> float:
    """A loss that falls with the tokens at the best rate, which is twice the base config's."""
    off = abs(math.log2(config["optim"]["lr"] / (2 * BASE_LR)))
    return worth(1.25)(config, share) + off * (1.0 if config["budget"]["tokens"] <= 8192 else 0.1)


UNTUNED = "which may be why. Add `optim.lr` under `retune`."


def test_a_rate_that_was_tuned_at_other_numbers_of_tokens_alone_may_be_why_the_loss_does_not_fall(
    tmp_path: Path,
) -> None:
    facts = told(tmp_path, untuned)
    own, best = show(BASE_LR), show(2 * BASE_LR)
    assert facts["arms"]["speedups"]["why_not"].endswith("loss does not fall with its tokens")
    assert (
        f"The baseline's learning rate was tuned at the other numbers of tokens ({best} at 0.5 times and {best} at "
        f"2 times), but not at its own ({own}), {UNTUNED}"
    ) in summarized(tmp_path)


def test_a_loss_that_does_not_fall_at_one_rate_has_nothing_to_do_with_its_tuning(
    tmp_path: Path,
) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        off = abs(math.log2(config["optim"]["lr"] / BASE_LR))
        return 3.0 + off + 0.1 * is_bare(config) + (1 - share)

    facts = told(tmp_path, how)
    assert facts["arms"]["speedups"]["why_not"].endswith("loss does not fall with its tokens")
    assert UNTUNED not in summarized(tmp_path)


def test_between_the_looks_there_is_no_speedup(tmp_path: Path) -> None:
    conduct(tmp_path, study(speedup=SPEEDUP) | {"seeds": [0, 1, 2, 3]}, worth(1.25), records=70)
    facts = facts_of(tmp_path)
    assert "speedup" not in arm(facts)
    assert facts["arms"]["speedups"]["why_not"].endswith("yet")


def test_a_straight_law_is_checked_in_the_middle(tmp_path: Path) -> None:
    straight = told(tmp_path, worth(1.25))["arms"]["speedups"]["straight"]
    predicted = math.sqrt(law(0.5) * law(2))
    assert straight["predicted"] == pytest.approx(predicted, abs=1e-3)
    assert not straight["fits"]


def test_other_horizons_do_not_change_the_verdict(tmp_path: Path) -> None:
    with_them = arm(told(tmp_path / "with", worth(1.25)))
    conduct(tmp_path / "without", study() | {"seeds": [0, 1, 2, 3]}, worth(1.25))
    without = arm(facts_of(tmp_path / "without"))
    assert {name: with_them[name] for name in without} == without


def test_other_horizons_are_no_trials_of_the_comparison(tmp_path: Path) -> None:
    facts = told(tmp_path, worth(1.25))
    assert facts["arms"]["tokens"] == 8192
    assert [one["n"] for one in facts["arms"]["arms"]] == [4, 4]


def losing(role: Callable[[dict[str, Any]], bool]) -> Loss:
    """Losses of which those at twice the tokens are never measured for some configs."""

    def how(config: dict[str, Any], share: float) -> float:
        if config["budget"]["tokens"] > 8192 and role(config):
            raise ArithmeticError
        return worth(1.25)(config, share)

    return how


def test_a_rate_that_failed_at_a_horizon_is_told(tmp_path: Path) -> None:
    facts = told(tmp_path, losing(lambda config: config["optim"]["lr"] == 6e-3))
    assert (facts["trials"]["failed"], len(facts["failed"])) == (1, 1)
    said = answer_words(findings(studied(led.Files(tmp_path))))
    assert (
        "At 2 times the tokens, 1 of 3 learning rates of the baseline failed. If a better one is among them, the "
        "token speedups above 1x are too high."
    ) in said


def test_a_run_that_failed_at_a_horizon_is_told(tmp_path: Path) -> None:
    facts = told(tmp_path, losing(lambda config: config["run"]["seed"] == 1))
    assert (facts["trials"]["failed"], "speedup" in arm(facts)) == (1, False)
    assert "1 failed" in summarized(tmp_path)
    assert "No token speedups: the baseline failed at 2 times the tokens." in summarized(tmp_path)


@pytest.mark.parametrize(
    ("records", "left"),
    [
        (64, "the baseline has not been trained at other numbers of tokens yet."),
        (
            66,
            "2 of 14 trials have not finished; their losses so far are not final. No result yet for 4 of 14 trials.",
        ),
        (124, "the baseline has not finished at 0.5 times the tokens yet."),
    ],
    ids=["before the first", "within the rates", "before the runs"],
)
def test_a_study_that_was_interrupted_at_its_horizons_is_resumed(
    tmp_path: Path, records: int, left: str
) -> None:
    conduct(tmp_path, study(speedup=SPEEDUP) | {"seeds": [0, 1, 2, 3]}, worth(1.25), records)
    found = findings(studied(led.Files(tmp_path)))
    assert steps_of(found)[0].words == f"Resume: {left} Run the sweep again."
    assert "**unfinished:** " in summarized(tmp_path)


def test_a_study_whose_horizons_are_trained_is_finished(tmp_path: Path) -> None:
    told(tmp_path, worth(1.25))
    assert "unfinished" not in summarized(tmp_path)


def test_a_baseline_without_values_waits_for_no_horizons(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        return loss(config, share) if is_bare(config) else math.inf

    facts = told(tmp_path, how, retune=RETUNE)
    assert facts["arms"]["speedups"]["why_not"] == (
        "the baseline diverged at every value of its re-tune grid"
    )
    assert "unfinished" not in summarized(tmp_path)


def slower(folder: Path, pace: float) -> None:
    """Rewrite the ledger of a study so that the arm trains at this share of the baseline's speed."""
    files = led.Files(folder)
    rows = led.read(files)
    bare = {row["trial"] for row in rows if row["kind"] == "planned" and row["arm"] == "nope"}
    for row in rows:
        if row["kind"] == "measured" and row["trial"] in bare:
            row["seconds"] /= pace
    rewrite(files, rows)


def test_an_arm_that_is_better_a_token_and_slower_a_second_says_both(tmp_path: Path) -> None:
    told(tmp_path, worth(1.25))
    slower(tmp_path, 0.4)
    facts = facts_of(tmp_path)
    assert arm(facts)["speedup"]["time"]["times"] == pytest.approx(0.5, rel=1e-3)
    assert (
        "at 0.40 times the baseline's tokens/s, that is a speedup of 0.50x in training time"
        in summarized(tmp_path)
    )


def scattered(folder: Path, pace: float) -> None:
    """Rewrite the ledger of a study so that the arm trains at this share of the baseline's speed, and the runs of
    both at 0.9 to 1.2 times their own."""
    slower(folder, pace)
    files = led.Files(folder)
    rows = led.read(files)
    seed = {row["trial"]: row["seed"] for row in rows if row["kind"] == "planned"}
    for row in rows:
        if row["kind"] == "measured" and seed[row["trial"]] < 4:
            row["seconds"] /= 0.9 + 0.1 * seed[row["trial"]]
    rewrite(files, rows)


def test_speeds_that_scatter_are_told_with_their_range(tmp_path: Path) -> None:
    told(tmp_path, worth(1.25))
    scattered(tmp_path, 0.4)
    assert (
        "at 0.40 times the baseline's tokens/s (0.30 to 0.53 over the runs), that is a speedup of 0.50x in training time"
    ) in summarized(tmp_path)


def test_speeds_that_overlap_are_no_speedup_in_time(tmp_path: Path) -> None:
    told(tmp_path, worth(1.25))
    scattered(tmp_path, 1.2)
    said = summarized(tmp_path)
    assert "; at about the baseline's tokens/s (0.90 to 1.60 times over the runs)." in said
    assert "in training time" not in said.partition("## Token speedup")[0]
    assert arm(facts_of(tmp_path))["speedup"]["time"] is None


@pytest.mark.parametrize(
    ("best", "side", "edge"),
    [(1e-4, "below", "lowest"), (1.0, "below", "highest")],
)
def test_a_rate_at_the_edge_is_a_caution(tmp_path: Path, best: float, side: str, edge: str) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        off = abs(math.log2(config["optim"]["lr"] / best)) / 100
        return worth(1.25)(config, share) + off * (config["budget"]["tokens"] < 8192)

    told(tmp_path, how)
    said = f"At 0.5 times the tokens, the baseline's best learning rate is the {edge} of 3."
    assert said in summarized(tmp_path)
    assert f"the token speedups {side} 1x are too high" in summarized(tmp_path)


@pytest.mark.parametrize(("more", "number"), [({"retune": RETUNE}, 0), ({}, 1)])
def test_a_rate_that_was_tuned_elsewhere_alone_is_a_caution(
    tmp_path: Path, more: dict[str, Any], number: int
) -> None:
    told(tmp_path, worth(1.25), **more)
    assert summarized(tmp_path).count("- The baseline's learning rate was tuned at") == number


TARGET = {"val_loss": 3.6, "ends": "nothing"}


def test_an_arm_says_what_it_took_to_the_target(tmp_path: Path) -> None:
    conduct(tmp_path, study(target=TARGET) | {"seeds": [0, 1]}, worth(1.6, noise=0.0))
    slower(tmp_path, 0.5)
    facts = facts_of(tmp_path)
    found, base = arm(facts)["to_target"], arm(facts, "baseline")["to_target"]
    assert (found["reached"], found["runs"]) == (2, 2)
    assert found["times_tokens"] == pytest.approx(base["tokens"] / found["tokens"])
    assert found["times_seconds"] == pytest.approx(found["times_tokens"] / 2)


def test_times_to_the_target_name_the_seeds_on_which_both_reached_it(tmp_path: Path) -> None:
    """The baseline does not reach it on one of three seeds."""

    def how(config: dict[str, Any], share: float) -> float:
        misses = not is_bare(config) and config["run"]["seed"] == 1
        return worth(1.6, noise=0.0)(config, share) + misses

    conduct(tmp_path, study(target=TARGET) | {"seeds": [0, 1, 2]}, how)
    assert arm(facts_of(tmp_path))["to_target"]["shared"] == 2
    assert "over 2 seeds on which both did, the baseline took" in summarized(tmp_path)


def test_an_arm_that_does_not_reach_the_target_says_so(tmp_path: Path) -> None:
    target = {"val_loss": 0.1, "ends": "nothing"}
    conduct(tmp_path, study(target=target) | {"seeds": [0, 1]}, worth(1.6))
    assert "nope: none of 2 runs reached validation loss 0.1." in answer_words(
        findings(studied(led.Files(tmp_path)))
    )


def test_a_study_that_asks_for_neither_says_neither(tmp_path: Path) -> None:
    conduct(tmp_path, study() | {"seeds": [0, 1, 2]}, worth(1.25))
    assert "speedup" not in json.dumps(facts_of(tmp_path))
    assert "to_target" not in json.dumps(facts_of(tmp_path))


def stopping(folder: Path, choose: Callable[[led.Trial], bool], how: Loss) -> list[str]:
    """What is said of a study of which somebody stops trials at twice the tokens as soon as they are planned."""
    tree = study(speedup=SPEEDUP) | {"seeds": [0, 1, 2, 3]}
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        engine, left = Engine(conductor, how), True
        while left:
            engine.run(1)
            trials = conductor.sweep.trials.values()
            found = [one for one in trials if one.budget > 8192 and choose(one)]
            for one in found:
                ask(ledger.files, Request("stop", one.trial))
            left = not found
        engine.run()
    return answer_words(findings(studied(led.Files(folder))))


def test_a_rate_that_somebody_stopped_at_a_horizon_is_told_and_is_none_of_those_tried(
    tmp_path: Path,
) -> None:
    said = stopping(tmp_path / "s", lambda one: one.value("optim.lr") == 6e-3, worth(1.25))
    assert (
        "At 2 times the tokens, 1 of 3 learning rates of the baseline was stopped by hand. If a better one is "
        "among them, the token speedups above 1x are too high."
    ) in said
    assert "To train one after all: `sweeps steer s finish TRIAL`." in said
    at_half, at_twice = [words for words in said if "best learning rate is the" in words]
    assert ("the lowest of 3." in at_half, "the lowest of 2." in at_twice) == (True, True)


def test_a_run_that_somebody_stopped_at_a_horizon_is_told_and_left_out(tmp_path: Path) -> None:
    said = stopping(tmp_path / "s", lambda one: one.seed == 1, worth(1.25))
    assert "At 2 times the tokens, 1 of 3 runs of the baseline was stopped by hand." in said
    assert any(words.startswith("Token speedup of nope: 1.25x") for words in said)


def test_a_horizon_all_of_whose_rates_somebody_stopped_says_why_nothing_is_known(
    tmp_path: Path,
) -> None:
    said = stopping(tmp_path / "s", lambda one: one.role == "horizon", worth(1.25))
    assert "No token speedups: the baseline was stopped by hand at 2 times the tokens." in said
    assert (
        "At 2 times the tokens, 3 of 3 learning rates of the baseline were stopped by hand." in said
    )
