"""Arms: which are void, and which are settled."""

from pathlib import Path
from typing import Any

import pytest
from conducting import (
    NOPE,
    RETUNE,
    arm,
    both_diverge,
    conduct,
    dead,
    facts_of,
    facts_of_study,
    is_bare,
    study,
    summarized,
)

from sweeps.findings.arms import void_arms


def test_an_arm_whose_losses_are_the_baselines_is_void(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, dead))
    assert (result["verdict"], result["difference"]) == ("void", None)
    assert "the change had no effect" in result["words"]


def test_an_arm_that_differs_late_is_not_void(tmp_path: Path) -> None:
    """As a decay does: its losses are the baseline's until the last record."""
    sweep = conduct(tmp_path, study(), lambda c, s: dead(c, s) + 0.1 * (is_bare(c) and s == 1))
    assert void_arms(sweep) == []


def test_an_arm_that_differs_at_one_seed_is_not_void(tmp_path: Path) -> None:
    how = lambda c, s: dead(c, s) + 0.1 * (is_bare(c) and c["run"]["seed"] == 1)  # noqa: E731
    assert void_arms(conduct(tmp_path, study(), how)) == []


def on_gpu(gap: float) -> Any:
    """Losses of a device on which three runs of one training spread over two thousandths."""

    def how(config: dict[str, Any], share: float) -> float:
        return dead(config, share) + 0.001 * config["run"]["repeat"] + gap * is_bare(config)

    return how


@pytest.mark.parametrize(("gap", "void"), [(0.0039, ["nope"]), (0.0041, [])])
def test_where_repeats_differ_an_arm_is_void_within_twice_their_spread(
    tmp_path: Path, gap: float, void: list[str]
) -> None:
    sweep = conduct(tmp_path, study(base={"run.device": "cuda"}), on_gpu(gap))
    assert void_arms(sweep) == void


def test_an_arm_that_takes_the_values_of_a_baseline_that_chose_none_has_no_verdict(
    tmp_path: Path,
) -> None:
    """It never ran, so that it can't be worse."""
    arms = {"same": {**NOPE, "retune": False}}
    result = arm(facts_of_study(tmp_path, both_diverge(1000), retune=RETUNE, arms=arms), "same")
    assert (result["verdict"], result["planned"]) == ("no conclusion", 0)
    assert result["words"] == "no conclusion: nothing of the baseline's re-tune grid has finished"


def test_a_dead_switch_that_chose_another_rate_is_void_by_its_grid(tmp_path: Path) -> None:
    sweep = conduct(tmp_path, study(retune=RETUNE), dead)
    # As an asynchronous policy may, though the losses are the same.
    sweep.chosen["nope"]["values"] = {"optim.lr": 1.6e-2}
    assert void_arms(sweep) == ["nope"]


def test_arms_that_are_being_tuned_are_named(tmp_path: Path) -> None:
    arms = {"nope": NOPE, "same": {**NOPE, "retune": False}}
    conduct(tmp_path, study(retune=RETUNE, arms=arms), records=17)
    facts = facts_of(tmp_path)
    assert facts["unsettled"] == [
        {"arm": "baseline", "tried": 3, "ended": 2},
        {"arm": "nope", "tried": 3, "ended": 0},
        {"arm": "same", "tried": 0, "ended": 0},
    ]
    said = summarized(tmp_path)
    assert "- `baseline`: its re-tune grid has results for 2 of 3 trials." in said
    assert "- `same`: it waits for the values that the baseline's re-tune grid will choose." in said


def test_arms_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """Both values hold a space, and so do the names of the arms."""
    each = {"path": "data.path", "values": ["a b", "a c"], "hypothesis": "h"}
    base = {"data.corpus": "text", "data.path": "a"}
    more = {"base": base, "each": each, "retune": RETUNE, "metric": "bits_per_byte"}
    conduct(tmp_path, {k: v for k, v in study(**more).items() if k != "arms"}, records=60)
    facts = facts_of(tmp_path)
    names = [one["arm"] for one in facts["tuning"]]
    assert names == ["baseline", "path=a b", "path=a c"]
    assert [len(one["trials"]) for one in facts["tuning"]] == [3, 3, 3]
