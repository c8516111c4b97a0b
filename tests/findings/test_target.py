"""The race to a target: who took the fewest tokens, and what is compared then."""

from pathlib import Path
from typing import Any

import pytest
from conducting import conduct, facts_of, study
from fakes import grid, v_shaped

from sweeps.findings.everything import findings
from sweeps.findings.results import results_of
from sweeps.ledger import Files, read
from sweeps.outcomes import outcome
from sweeps.report.race import race_words
from sweeps.report.summary import markdown

# At 4e-3 a loss of 2.25 is reached at 3/4 of the budget, at 8e-3 and 2e-3 at 7/8, at 2.0 never.
RATES = [2e-3, 2.0, 4e-3]


def raced(folder: Path, ends: str, **more: Any) -> dict[str, Any]:
    """The findings of a search for the rate that first reaches a loss of 2.25."""
    target = {"target": {"val_loss": 2.25, "ends": ends}}
    conduct(folder, grid(RATES, policy="none") | target | more, v_shaped)
    return facts_of(folder)


def words(folder: Path) -> str:
    found = findings(results_of("sweep", read(Files(folder)))).race
    assert found is not None
    return race_words(found)


@pytest.mark.parametrize("ends", ["trial", "nothing"])
def test_the_trial_that_took_the_fewest_tokens_is_first(tmp_path: Path, ends: str) -> None:
    found = raced(tmp_path, ends)["target"]
    assert [(one["label"], one["tokens"]) for one in found["reached"]] == [
        ("lr=0.004", 6 * 1024),
        ("lr=0.002", 7 * 1024),
    ]


def test_trials_that_end_at_the_target_are_ranked_by_their_tokens(tmp_path: Path) -> None:
    """At their ends, the loss of 2e-3 is the lower one."""
    ranking = raced(tmp_path, "trial")["ranking"]["trials"]
    assert [(one["rank"], one["label"]) for one in ranking] == [
        (1, "lr=0.004"),
        (2, "lr=0.002"),
        (3, "lr=2"),
    ]
    assert ranking[1]["val_loss"] < ranking[0]["val_loss"]


def test_their_values_are_chosen_by_the_mean_over_the_seeds_that_reach_it(tmp_path: Path) -> None:
    best = raced(tmp_path, "trial", seeds=[0, 1])["best"]
    assert [one["best"] for one in best] == [4e-3]


def test_their_final_losses_say_nothing(tmp_path: Path) -> None:
    found = raced(tmp_path, "trial", seeds=[0, 1])
    assert (found["selection"], found["noise"], found["stability"]) == (None, None, None)


def test_losses_are_ranked_as_ever_where_the_target_ends_nothing(tmp_path: Path) -> None:
    found = raced(tmp_path, "nothing")
    without = tmp_path / "without"
    conduct(without, grid(RATES, policy="none"), v_shaped)
    assert found["ranking"] == facts_of(without)["ranking"]


def test_the_first_is_said_with_its_tokens_and_time(tmp_path: Path) -> None:
    raced(tmp_path, "trial")
    assert words(tmp_path) == (
        "lr=0.004 took the fewest tokens to the target, validation loss 2.25: 6,144 tokens, 24 s of "
        "training. 2 of 3 trials reached it."
    )


def test_a_target_that_none_reaches_is_said(tmp_path: Path) -> None:
    target = {"target": {"val_loss": 1.0}}
    conduct(tmp_path, grid(RATES, policy="none") | target, v_shaped)
    assert words(tmp_path) == "None of 3 trials reached the target, validation loss 1."


def test_a_study_reports_what_its_runs_take(tmp_path: Path) -> None:
    def loss(config: dict[str, Any], share: float) -> float:
        return 3.0 - share + 0.2 * (config["model"]["position"] == "none")

    conduct(tmp_path, study(target={"val_loss": 2.3, "ends": "nothing"}), loss)
    found = facts_of(tmp_path)["target"]
    shares = [one["tokens"] / (8 * 1024) for one in found["reached"]]
    assert shares == [0.75, 0.75, 1.0, 1.0]


def test_a_trial_that_ended_at_the_target_was_not_stuck(tmp_path: Path) -> None:
    """Its loss is still above the entropy of the corpus, 9 nats in these ledgers."""
    target = {"target": {"val_loss": 12.25, "ends": "trial"}}

    def loss(config: dict[str, Any], share: float) -> float:
        return 10.0 + v_shaped(config, 1.0 if config["optim"]["lr"] == 2.0 else share)

    conduct(tmp_path, grid([4e-3, 2.0], policy="none") | target, loss)
    found = results_of("sweep", read(Files(tmp_path)))
    assert [outcome(trial) for trial in found.trials] == ["", "stuck"]


def test_a_sweep_that_ended_at_its_target_is_complete(tmp_path: Path) -> None:
    """The other trials are not advised to be finished, and no edge is seen among values not tried."""
    found = raced(tmp_path, "sweep")
    assert (found["trials"]["unfinished"], found["best"], found["selection"]) == (2, [], None)
    text = markdown(findings(results_of("sweep", read(Files(tmp_path)))), [])
    assert "**unfinished:**" not in text and "No result yet" not in text


def test_an_audit_says_nothing_where_the_target_ends_trials(tmp_path: Path) -> None:
    """It trains for more tokens than the trials that it would be compared with."""
    target = {"target": {"val_loss": 2.25, "ends": "trial"}}
    tree = grid([2e-3, 4e-3, 8e-3, 1.6e-2], policy="asha", eta=2, grace="1/4") | target
    conduct(tmp_path, tree, v_shaped, audit=1.0)
    found = facts_of(tmp_path)
    assert (found["trials"]["stopped"] > 0, found["audit"]) == (True, None)
