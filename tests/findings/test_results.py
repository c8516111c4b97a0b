"""What is said of a sweep is what its ledger says, compared at equal tokens, and no more."""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conducting import conduct, facts_of
from fakes import Engine, driver, request, v_shaped
from fakes import grid as space_of
from ledgers import (
    BUDGET,
    EVERY,
    FIRST,
    SECOND,
    Story,
    audited_seeds,
    audited_sweep,
    bowl,
    ended,
    loss,
    shares_sweep,
    story,
    studied,
)

from sweeps.findings.everything import SearchFindings, findings
from sweeps.findings.results import Results, results_of
from sweeps.findings.trends import cut_short
from sweeps.ledger import Files, Ledger, read


def facts(files: Files) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json.dumps(findings(studied(files)).as_json()))
    return facts


def grid(folder: Path, rates: list[float], best: float) -> dict[str, Any]:
    """What is said of the best rate of a grid."""
    return facts(ended(folder, "optim.lr", bowl(rates, best)))["best"][0]


def test_only_finished_trials_are_ranked(lr: Files) -> None:
    trial_results = facts(lr)["ranking"]["trials"]
    assert [(result["rank"], result["label"]) for result in trial_results] == [
        (1, "lr=0.002"),
        (2, "lr=0.001"),
    ]


def test_equal_losses_share_a_rank(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.2, 2e-3: 3.1, 3e-3: 3.1, 4e-3: 3.0})
    assert [result["rank"] for result in facts(files)["ranking"]["trials"]] == [1, 2, 2, 4]


@pytest.fixture
def budgets(tmp_path: Path) -> Files:
    """A trial that was ahead at the end of the shorter one's budget, and one of each budget."""
    with story(tmp_path) as tell:
        paths = {"budget.tokens": {"grid": [BUDGET, 2 * BUDGET]}}
        tell.ask(paths, schedule={"policy": "none"})
        long = tell.plan({"budget.tokens": 2 * BUDGET})
        tell.start(long)
        tell.measure(long, BUDGET, 3.5)
        tell.measure(long, 2 * BUDGET, 3.0)
        tell.finish(long, 2 * BUDGET)
        short = tell.plan({"budget.tokens": BUDGET})
        tell.start(short)
        tell.measure(short, BUDGET, 3.2)
        tell.finish(short)
    return Files(tmp_path)


def test_trials_of_different_budgets_are_ranked_at_their_ends(budgets: Files) -> None:
    found = facts(budgets)["ranking"]
    assert (found["tokens"], [result["val_loss"] for result in found["trials"]]) == (
        "end",
        [3.0, 3.2],
    )


def test_trials_of_different_budgets_share_no_token_count(budgets: Files) -> None:
    """At 786,432 tokens the rate of one has decayed, the other's has not."""
    assert facts(budgets)["comparison"]["tokens"] is None


def test_nothing_advises_another_budget(budgets: Files) -> None:
    assert facts(budgets)["best"] == []


def test_a_stopped_trial_of_another_budget_stands_beside_no_leader(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"budget.tokens": {"grid": [BUDGET, 2 * BUDGET]}}, schedule={"policy": "none"})
        short, long = (tell.plan({"budget.tokens": n * BUDGET}) for n in (1, 2))
        tell.start(short)
        tell.measure(short, EVERY, 4.0)
        tell.measure(short, BUDGET, 3.2)
        tell.finish(short)
        tell.start(long)
        tell.measure(long, EVERY, 4.1)
        tell.stop(long, EVERY, 4.1)
    assert [result["leader"] for result in facts(Files(tmp_path))["stopped"]] == [None]


@pytest.fixture
def shares(tmp_path: Path) -> Files:
    return shares_sweep(tmp_path)


def test_a_stopped_trial_stands_beside_the_leader_at_the_same_share(shares: Files) -> None:
    assert [result["leader"] for result in facts(shares)["stopped"]] == [3.9]


def test_the_rungs_of_budgets_that_differ_are_shares(shares: Files) -> None:
    assert studied(shares).rungs == (Fraction(1, 4),)


def test_a_trial_that_finished_alone_of_several_budgets_stands_at_its_end(shares: Files) -> None:
    """At its tokens, a longer one would be in mid-schedule."""
    assert facts(shares)["ranking"]["tokens"] == "end"


def test_falls_of_the_loss_are_compared_at_the_same_share(shares: Files) -> None:
    """The shorter one fell by 0.9 from 1/8 to 1/4 of its budget, the longer one by 0.6."""
    results = studied(shares)
    (found,) = cut_short(results, results.having("finished")[0])
    falls = round(found.fall, 9), round(found.best_fall, 9)
    assert (found.point, falls) == (Fraction(1, 4), (0.9, 0.6))


def test_the_best_for_their_compute_are_found(tmp_path: Path) -> None:
    """A longer run with a higher loss is not among them."""
    with story(tmp_path) as tell:
        paths = {"budget.tokens": {"grid": [BUDGET, 2 * BUDGET, 3 * BUDGET]}}
        tell.ask(paths, schedule={"policy": "none"})
        for times, value in ((1, 3.2), (2, 3.3), (3, 3.0)):
            trial = tell.plan({"budget.tokens": times * BUDGET})
            tell.start(trial)
            tell.measure(trial, times * BUDGET, value)
            tell.finish(trial, times * BUDGET)
    found = findings(studied(Files(tmp_path)))
    assert isinstance(found, SearchFindings)
    assert [trial.tokens for trial in found.front] == [BUDGET, 3 * BUDGET]


def test_bits_per_byte_rank_where_they_are_the_metric(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"model.vocab_size": {"grid": [512, 1024]}}, metric="bits_per_byte")
        small, large = (tell.plan({"model.vocab_size": size}) for size in (512, 1024))
        tell.start(small)
        tell.measure(small, BUDGET, 2.0, bits_per_byte=1.5)
        tell.finish(small)
        tell.start(large)
        tell.measure(large, BUDGET, 2.5, bits_per_byte=1.4)
        tell.finish(large)
    assert facts(Files(tmp_path))["ranking"]["trials"][0]["trial"] == large


def test_a_stopped_trial_stands_beside_the_leader_at_the_same_tokens(lr: Files) -> None:
    result = facts(lr)["stopped"][0]
    assert (result["tokens"], result["val_loss"], result["leader"]) == (
        SECOND,
        loss(4e-3, SECOND),
        loss(2e-3, SECOND),
    )


def test_all_trials_are_compared_at_the_latest_count_that_all_have_reached(lr: Files) -> None:
    found = facts(lr)["comparison"]
    assert (found["tokens"], len(found["trials"]), found["missing"]) == (
        FIRST,
        6,
        ["lr=0.016", "lr=0.032"],
    )


def test_an_inner_best_is_on_no_edge(tmp_path: Path) -> None:
    found = grid(tmp_path, [1e-3, 2e-3, 4e-3], 2e-3)
    assert (found["best"], found["edge"], found["next"]) == (2e-3, None, [])


@pytest.mark.parametrize(
    ("rates", "best", "edge", "following"),
    [
        ([1e-3, 2e-3, 4e-3], 4e-3, "high", [8e-3, 1.6e-2]),
        ([1e-3, 2e-3, 4e-3], 1e-3, "low", [5e-4, 2.5e-4]),
        ([1e-3, 2e-3, 3e-3], 3e-3, "high", [4e-3, 5e-3]),
        ([3e-3, 4e-3, 5e-3], 3e-3, "low", [2e-3, 1e-3]),
        ([1e-3, 2e-3, 3e-3], 1e-3, "low", []),
    ],
)
def test_a_best_on_the_edge_is_flagged_with_the_values_to_try_next(
    tmp_path: Path, rates: list[float], best: float, edge: str, following: list[float]
) -> None:
    found = grid(tmp_path, rates, best)
    assert (found["edge"], found["next"]) == (edge, following)


def test_whole_numbers_are_followed_by_whole_numbers(tmp_path: Path) -> None:
    files = ended(tmp_path, "model.n_layers", {2: 3.8, 4: 3.6, 8: 3.2})
    assert facts(files)["best"][0]["next"] == [16, 32]


def best_length(folder: Path, best: int, **more: Any) -> list[dict[str, Any]]:
    """What is said of the best context length of a grid from 8 to 64, matched unless told otherwise."""
    space = {"model.context_length": {"grid": [8, 16, 32, 64]}}
    tree = {"question": "q", "search": {"method": "grid"}, "space": space, **more}
    tree["schedule"] = {"policy": "none"}
    conduct(folder, tree, lambda c, s: 3 + abs(math.log2(c["model"]["context_length"] / best)) - s)
    found: list[dict[str, Any]] = facts_of(folder)["best"]
    return found


MATCHED = {"match": "tokens_per_update"}


def test_where_updates_differ_no_context_length_is_called_the_best(tmp_path: Path) -> None:
    assert best_length(tmp_path, 8) == []


def test_a_longest_best_context_is_followed_by_longer_ones(tmp_path: Path) -> None:
    assert best_length(tmp_path, 64, **MATCHED)[0]["next"] == [128, 256]


def test_only_lengths_into_which_the_validation_tokens_can_be_cut_are_advised(
    tmp_path: Path,
) -> None:
    base = {"eval.block": 128}
    assert best_length(tmp_path, 64, base=base, **MATCHED)[0]["next"] == [128]


def test_a_shortest_best_context_is_followed_by_none(tmp_path: Path) -> None:
    (found,) = best_length(tmp_path, 8, **MATCHED)
    assert (found["edge"], found["next"]) == ("low", [])


def test_a_draw_near_the_bound_of_its_range_is_on_the_edge(tmp_path: Path) -> None:
    losses = bowl([2e-4, 1e-3, 9.5e-3, 9.9e-3], 9.5e-3)
    files = ended(tmp_path, "optim.lr", losses, {"loguniform": [1e-4, 1e-2]})
    found = facts(files)["best"][0]
    assert (found["edge"], found["next"]) == ("high", [0.03])


@pytest.mark.parametrize(("share", "edge"), [(0.049, "high"), (0.051, None)])
def test_a_twentieth_of_a_range_is_its_edge(tmp_path: Path, share: float, edge: str | None) -> None:
    """The range has two decades, and a rate still nearer to its bound was tried."""
    best = 1e-2 * 10 ** (-2 * share)
    losses = bowl([2e-4, best, 9.9e-3], best)
    files = ended(tmp_path, "optim.lr", losses, {"loguniform": [1e-4, 1e-2]})
    assert facts(files)["best"][0]["edge"] == edge


def test_a_range_with_room_beyond_its_highest_draw_is_not_used_up(tmp_path: Path) -> None:
    losses = bowl([2e-4, 1e-3, 3e-3], 3e-3)
    files = ended(tmp_path, "optim.lr", losses, {"loguniform": [1e-4, 1e-2]})
    found = facts(files)["best"][0]
    assert (found["edge"], found["used_up"], found["next"]) == ("high", False, [])


def planned_beyond(folder: Path, ending: str) -> dict[str, Any]:
    """What is said of the best of two rates whose upper neighbor ended otherwise."""
    files = ended(folder, "optim.lr", bowl([1e-3, 2e-3], 2e-3))
    with story(folder) as tell:
        trial = tell.plan({"optim.lr": 4e-3})
        tell.start(trial)
        if ending == "diverged":
            tell.diverge(trial, EVERY)
        else:
            tell.fail(trial, "no memory")
    return facts(files)["best"][0]


def test_a_diverged_value_brackets_the_best(tmp_path: Path) -> None:
    found = planned_beyond(tmp_path, "diverged")
    assert (found["edge"], found["beside"][1]["statuses"]) == (None, ["diverged"])


def test_a_failed_value_brackets_nothing(tmp_path: Path) -> None:
    assert planned_beyond(tmp_path, "failed")["edge"] == "high"


@pytest.fixture
def seeds(tmp_path: Path) -> Files:
    """Two norms with three seeds each."""
    return ended(tmp_path, "model.norm", {"pre": (3.0, 3.01, 3.02), "post": (3.02, 3.03, 3.04)})


def test_seeds_of_one_choice_have_mean_and_deviation(seeds: Files) -> None:
    group = facts(seeds)["spread"]["groups"][1]
    assert (group["n"], group["mean"], group["std"], group["min"], group["max"]) == (
        3,
        pytest.approx(3.03),
        pytest.approx(0.01),
        3.02,
        3.04,
    )


def test_one_seed_has_no_deviation(lr: Files) -> None:
    assert {group["std"] for group in facts(lr)["spread"]["groups"]} == {None}


def test_the_best_value_is_by_the_mean_of_its_seeds_not_by_the_luckiest(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: (3.0, 3.5), 2e-3: (3.1, 3.1)})
    assert facts(files)["best"][0]["best"] == 2e-3


def test_one_lucky_seed_is_no_winner_over_several(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: (3.1, 3.1), 2e-3: 3.0})
    assert facts(files)["best"][0]["best"] == 1e-3


def test_compute_is_what_was_trained_against_every_trial_to_its_end(lr: Files) -> None:
    tokens = 2 * BUDGET + 2 * SECOND + 2 * FIRST + 2 * EVERY + 14 * 2048
    spent = facts(lr)["compute"]
    assert (spent["tokens"], spent["tokens_full"], spent["flops"]) == (
        tokens,
        8 * BUDGET,
        tokens * 7_900_000,
    )


def test_work_that_was_repeated_is_counted_and_named(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 3)
        tell.start(trial, step=24)
        tell.train(trial, 1e-3, 2, 3)
    spent = facts(Files(tmp_path))["compute"]
    assert (spent["tokens"], spent["tokens_repeated"]) == (5 * EVERY, 2 * EVERY)


def test_a_ledger_that_asks_nothing_yet_is_refused(tmp_path: Path) -> None:
    with story(tmp_path):
        pass
    with pytest.raises(ValueError, match="asks nothing yet"):
        studied(Files(tmp_path))


def test_a_space_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"eval.batch_size": {"grid": [16]}})
    with pytest.raises(ValueError, match=r"the space in its ledger: .*same windows"):
        studied(Files(tmp_path))


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1e-3, 2e-3, 4e-3], True),
        ([1.0, 2.0, 5.0, 10.0], True),
        ([1.0, 2.0, 3.0, 4.0], False),
        ([0.0, 1.0, 10.0], False),
        ([-1.0, 1.0, 10.0], False),
        ([0.9, 0.99], False),
        ([3e-3, 1e-2], True),
        ([32.0, 64.0], True),
        ([1.0, 2.0, 3.0], False),
        ([1.0], False),
    ],
)
def test_values_are_spaced_by_ratio_or_by_difference(
    tmp_path: Path, values: list[float], log: bool
) -> None:
    """No config is checked here, which would refuse some of these as rates."""
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1.0]}})
        tell.plan({"optim.lr": 1.0})
    *asked, planned = read(Files(tmp_path))
    config = planned["config"]
    rows = [
        planned
        | {"trial": f"trial-{number}", "values": {"optim.lr": value}}
        | {"config": config | {"optim": config["optim"] | {"lr": value}}}
        for number, value in enumerate(values)
    ]
    (swept,) = results_of("a", [*asked, *rows]).swept
    assert (swept.values, swept.log) == (tuple(values), log)


def test_without_an_audit_nothing_is_said_of_one(lr: Files) -> None:
    assert facts(lr)["audit"] is None


def test_false_kills_are_the_audited_that_end_better_than_the_best(tmp_path: Path) -> None:
    audit = facts(audited_sweep(tmp_path, {2.0: 2.9, 3.0: 3.1, 4.0: math.inf}))["audit"]
    assert (audit["stopped"], audit["audited"], audit["false_kills"]) == (3, 3, 1)


def test_only_the_best_of_all_that_ended_are_false_kills(tmp_path: Path) -> None:
    found = facts(audited_sweep(tmp_path, {2.0: 2.9, 3.0: 2.8, 4.0: 3.5}))["audit"]
    assert found["false_kills"] == 1


def test_the_interval_of_false_kills_is_that_of_clopper_and_pearson(tmp_path: Path) -> None:
    """None of three, drawn from four: 0 to 1 - 0.025 ** (1 / 3)."""
    ends = {2.0: 3.1, 3.0: 3.2, 4.0: 3.3, 5.0: 3.4}
    audit = facts(audited_sweep(tmp_path, ends, audited=3))["audit"]
    assert (audit["low"], audit["high"]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))


def test_where_all_were_audited_nothing_is_uncertain(tmp_path: Path) -> None:
    audit = facts(audited_sweep(tmp_path, {2.0: 2.9, 3.0: 3.1}))["audit"]
    assert (audit["low"], audit["rate"], audit["high"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("end", "regret"), [(2.75, 0.25), (3.5, 0.0)])
def test_the_regret_of_an_audit_is_what_the_best_stopped_trial_wins(
    tmp_path: Path, end: float, regret: float
) -> None:
    assert facts(audited_sweep(tmp_path, {2.0: end}))["audit"]["regret"] == regret


def test_where_each_seed_was_judged_alone_the_best_trials_are_the_bar(tmp_path: Path) -> None:
    """Two trials finish, of one rate; both audits end above them."""
    files = audited_seeds(tmp_path, {0: 3.0, 1: 3.1}, {0: 3.2, 1: 3.3}, by_value=False, top=2)
    audit = facts(files)["audit"]
    assert (audit["audited"], audit["false_kills"]) == (2, 0)


def test_a_value_that_was_stopped_on_its_first_seed_is_ranked_on_that_seed(tmp_path: Path) -> None:
    """2.9 is below the mean of 3.1, but not below 2.8 on the same seed."""
    files = audited_seeds(tmp_path, {0: 2.8, 1: 3.2, 2: 3.3}, {0: 2.9}, by_value=True)
    audit = facts(files)["audit"]
    assert (audit["false_kills"], audit["regret"]) == (0, 0.0)


def test_the_seeds_of_a_value_are_one_false_kill(tmp_path: Path) -> None:
    files = audited_seeds(tmp_path, {0: 3.0, 1: 3.0}, {0: 2.0, 1: 3.5}, by_value=True)
    audit = facts(files)["audit"]
    assert (audit["choices"], audit["false_kills"], audit["rate"]) == (1, 1, 1.0)
    assert audit["regret"] == 0.25


def test_a_value_of_which_a_seed_diverged_was_rightly_stopped(tmp_path: Path) -> None:
    files = audited_seeds(tmp_path, {0: 3.0, 1: 3.0}, {0: 2.0}, by_value=True)
    with Ledger(files) as ledger:
        tell = Story(ledger)
        lost = tell.plan({"optim.lr": 2e-3}, 1)
        tell.start(lost)
        tell.diverge(lost, FIRST)
    audit = facts(files)["audit"]
    assert (audit["audited"], audit["false_kills"]) == (1, 0)


def test_audited_trials_are_not_ranked(tmp_path: Path) -> None:
    found = facts(audited_sweep(tmp_path, {2.0: 2.0}))
    assert [result["label"] for result in found["ranking"]["trials"]] == ["lr=1"]


def test_audited_trials_are_compared_where_they_stopped(tmp_path: Path) -> None:
    found = facts(audited_sweep(tmp_path, {2.0: 2.0, 3.0: 2.5}))
    assert (found["comparison"]["tokens"], found["spread"]["tokens"]) == (FIRST, FIRST)
    assert found["comparison"]["trials"][0]["label"] == "lr=1"


def test_an_audited_trial_stands_where_it_was_stopped(tmp_path: Path) -> None:
    (result,) = facts(audited_sweep(tmp_path, {2.0: 2.0}))["stopped"]
    assert (result["tokens"], result["val_loss"]) == (FIRST, 5.0)


def test_what_an_audit_trained_is_counted_apart(tmp_path: Path) -> None:
    found = facts(audited_sweep(tmp_path, {2.0: 2.0, 3.0: 3.5}))["compute"]
    assert found["tokens_audit"] == 2 * (BUDGET - FIRST)


def test_a_forecast_is_kept_beside_what_was_used(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        row = {"tokens": 7, "low": 5, "high": 9, "seconds": 3.0, "start_up": 2.0, "basis": "b"}
        tell.ledger.append("forecast", **row)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    used = {"before": 0, "since": BUDGET}
    assert facts(Files(tmp_path))["compute"]["forecast"] == row | used


def test_a_forecast_is_of_the_trials_that_the_space_has_and_of_what_came_after_it(
    tmp_path: Path,
) -> None:
    row = {"tokens": 7, "low": 5, "high": 9, "seconds": 3.0, "start_up": 2.0, "basis": "b"}
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.ledger.append("forecast", **row)
        gone, kept = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        tell.whole(gone, 1e-3)
        tell.whole(kept, 2e-3)
        tell.ask({"optim.lr": {"grid": [2e-3, 4e-3]}})
        tell.ledger.append("forecast", **row)
        tell.ledger.append("withdrawn", trial=gone)
        new = tell.plan({"optim.lr": 4e-3})
        tell.start(new)
        tell.measure(new, FIRST, 5.0)
    found = facts(Files(tmp_path))["compute"]
    assert found["forecast"] == row | {"before": BUDGET, "since": FIRST}
    assert (found["tokens"], found["tokens_withdrawn"]) == (2 * BUDGET + FIRST, BUDGET)


def test_a_changed_sweep_without_a_forecast_is_not_held_against_that_of_the_old_one(
    tmp_path: Path,
) -> None:
    row = {"tokens": 7, "low": 5, "high": 9, "seconds": 3.0, "start_up": 2.0, "basis": "b"}
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.ledger.append("forecast", **row)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
    assert facts(Files(tmp_path))["compute"]["forecast"] is None


# What trained the runs


def trained_by(folder: Path, *codes: str, records: int = 8) -> Results:
    """A sweep that was trained for a while by each version of the code, and to its end by the last."""
    for number, code in enumerate(codes):
        with Ledger(Files(folder)) as ledger:
            conductor = driver(ledger, request(space_of([1e-3, 4e-3], policy="none")))
            conductor.begin({"code": code, "versions": {"torch": "2.1"}})
            Engine(conductor, v_shaped).run(1000 if number + 1 == len(codes) else records)
    return results_of("rates", read(Files(folder)))


def test_nothing_is_said_of_one_program(tmp_path: Path) -> None:
    results = trained_by(tmp_path, "a", "a")
    assert results.programs_words(results.trials) == ""


def test_runs_that_changed_their_program_are_counted(tmp_path: Path) -> None:
    results = trained_by(tmp_path, "a", "b")
    assert results.programs_words(results.trials) == (
        "the runs were trained by different versions of the training code, and 2 runs changed versions "
        "midway; differences between them may come from that"
    )


def test_a_run_that_began_anew_has_one_program(tmp_path: Path) -> None:
    results = trained_by(tmp_path, "a", "b", records=0)
    assert results.programs_words(results.trials) == ""
