"""A study adds seeds to the arms that are not settled, looks again, and ends by itself."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conducting import (
    NOPE,
    RETUNE,
    arm,
    conduct,
    dead,
    facts_of,
    is_bare,
    steer,
    study,
    summarized,
    without_looks,
)
from fakes import Engine, driver, request
from ledgers import rewrite

from sweeps import ledger as led
from sweeps.engine.left import Left

WIDE = {"hypothesis": "Better.", "set": {"model.d_ff": 96}}
LOOKS = {"looks": [3, 5, 8], "until": "settled"}
How = Callable[[dict[str, Any], float], float]


def gaps(bare: float, wide: float, scatter: float = 0.01) -> How:
    """Losses whose arms differ from the baseline by a gap and a scatter over seeds."""

    def how(config: dict[str, Any], share: float) -> float:
        seed, is_wide = config["run"]["seed"], config["model"]["d_ff"] == 96
        own = scatter * (-1) ** seed * (is_bare(config) + 2 * is_wide)
        gap = bare * is_bare(config) + wide * is_wide
        return 3.0 + 0.01 * (seed % 3) + gap + own + (1 - share)

    return how


CLEAR, OPEN = gaps(0.5, 0.005), gaps(0.02, 0.005, 0.05)


def looked(folder: Path, how: How = CLEAR, **more: Any) -> led.Sweep:
    """A study of two arms, conducted to its end."""
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS) | more
    return conduct(folder, tree, how)


def seeds_of(sweep: led.Sweep) -> dict[str, int]:
    """How many runs each arm has."""
    return {name: len(row["trials"]) for name, row in sweep.chosen.items()}


def decisions(sweep: led.Sweep) -> list[dict[str, str]]:
    """What each look decided on the arms."""
    return [{name: one["decision"] for name, one in row["arms"].items()} for row in sweep.looks]


def test_an_arm_that_is_settled_early_gets_no_further_seeds(tmp_path: Path) -> None:
    sweep = looked(tmp_path, gaps(0.5, 0.005, 0.03), matters=0.01)
    assert seeds_of(sweep) == {"baseline": 8, "nope": 3, "wide": 8}


def test_a_study_ends_when_every_arm_is_settled(tmp_path: Path) -> None:
    sweep = looked(tmp_path, gaps(0.5, -0.6))
    assert seeds_of(sweep) == {"baseline": 3, "nope": 3, "wide": 3}
    assert decisions(sweep) == [{"nope": "worse", "wide": "better"}]


def test_a_study_ends_at_its_last_look(tmp_path: Path) -> None:
    sweep = looked(tmp_path, OPEN)
    assert seeds_of(sweep) == {"baseline": 8, "nope": 8, "wide": 8}
    assert [row["arms"]["nope"]["looks"] for row in sweep.looks] == [[3], [3, 5], [3, 5, 8]]


def test_nothing_is_left_to_do_after_the_last_look(tmp_path: Path) -> None:
    looked(tmp_path, OPEN)
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    assert driver(led.ReadLedger(led.Files(tmp_path)), request(tree)).is_done()


def test_a_difference_that_does_not_matter_settles_an_arm(tmp_path: Path) -> None:
    sweep = looked(tmp_path, gaps(0.001, 0.002, 0.001), matters=0.5)
    assert decisions(sweep) == [{"nope": "no difference", "wide": "no difference"}]


def test_an_arm_without_effect_gets_no_further_seeds(tmp_path: Path) -> None:
    assert seeds_of(conduct(tmp_path, study(seeds=LOOKS), dead))["nope"] == 3


def test_an_arm_that_diverges_on_every_seed_gets_no_further_seeds(tmp_path: Path) -> None:
    sweep = looked(tmp_path, lambda c, s: math.inf if is_bare(c) else gaps(0, 0.5)(c, s))
    assert (seeds_of(sweep)["nope"], sweep.looks[0]["arms"]["nope"]["decision"]) == (3, "worse")


def test_where_all_grids_diverge_one_look_is_taken(tmp_path: Path) -> None:
    sweep = looked(tmp_path, lambda c, s: math.inf, retune=RETUNE)
    assert decisions(sweep) == [{"nope": "no conclusion", "wide": "no conclusion"}]


def test_an_arm_that_diverges_on_a_seed_is_not_settled_as_better(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        lost = is_bare(config) and config["run"]["seed"] == 1
        return math.inf if lost else gaps(-0.5, 0.5)(config, share)

    sweep = looked(tmp_path, how)
    assert {row["nope"] for row in decisions(sweep)} == {"no conclusion"}
    assert seeds_of(sweep)["nope"] == 8


def test_a_list_of_seeds_has_one_look(tmp_path: Path) -> None:
    sweep = looked(tmp_path, OPEN, seeds=[0, 1, 2, 3])
    assert [(row["ends"], row["arms"]["nope"]["looks"]) for row in sweep.looks] == [([4], [4])]


def test_the_arms_of_a_re_tuned_study_are_looked_at_at_their_values(tmp_path: Path) -> None:
    sweep = looked(tmp_path, gaps(0.5, -0.6), retune=RETUNE)
    assert sweep.looks[0]["arms"]["nope"]["values"] == sweep.chosen["nope"]["values"]
    assert decisions(sweep) == [{"nope": "worse", "wide": "better"}]


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a ledger, without what every session and every attempt has of its own."""
    own = {"seq", "time", "t", "attempt"}
    kinds = {"look", "chosen", "planned", "finished"}
    every = led.read(led.Files(folder))
    return [
        {name: value for name, value in row.items() if name not in own}
        for row in every
        if row["kind"] in kinds
    ]


@pytest.mark.parametrize("records", [1, 30, 72, 73, 100, 120, 121, 191])
def test_a_study_that_is_interrupted_takes_the_same_looks(tmp_path: Path, records: int) -> None:
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    conduct(tmp_path / "cut", tree, OPEN, records=records)
    conduct(tmp_path / "cut", tree, OPEN)
    conduct(tmp_path / "whole", tree, OPEN)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["look", "chosen", "planned"])
def test_a_kill_before_any_row_of_a_look_changes_nothing(tmp_path: Path, kind: str) -> None:
    """The ledger ends before the last row of a kind, which follows from those before it."""
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    conduct(tmp_path / "whole", tree, OPEN)
    every = led.read(led.Files(tmp_path / "whole"))
    last = max(number for number, row in enumerate(every) if row["kind"] == kind)
    rewrite(led.Files(tmp_path / "cut"), every[:last])
    conduct(tmp_path / "cut", tree, OPEN)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_cap_ends_a_study_between_its_looks(tmp_path: Path) -> None:
    """The first look is after nine runs of 8,192 tokens, and the second after fifteen."""
    sweep = looked(tmp_path, OPEN, caps={"tokens": 12 * 8_192})
    assert (len(sweep.looks), sweep.spent_tokens < 13 * 8_192) == (1, True)


def test_a_look_that_a_kill_prevented_is_taken_when_the_study_begins_again(tmp_path: Path) -> None:
    """It trains nothing, so a cap that is reached does not matter."""
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS, caps={"tokens": 9 * 8_192})
    conduct(tmp_path / "whole", tree, OPEN)
    every = led.read(led.Files(tmp_path / "whole"))
    look = next(number for number, row in enumerate(every) if row["kind"] == "look")
    rewrite(led.Files(tmp_path / "cut"), every[:look])
    with led.Ledger(led.Files(tmp_path / "cut")) as ledger:
        conductor = driver(ledger, request(tree))
        assert conductor.is_look_due()
        conductor.begin({})
        assert (len(conductor.sweep.looks), conductor.is_look_due()) == (1, False)


def test_a_look_is_taken_also_where_a_cap_is_reached_with_its_last_run(tmp_path: Path) -> None:
    sweep = looked(tmp_path, gaps(0.5, -0.6), caps={"tokens": 9 * 8_192})
    assert decisions(sweep) == [{"nope": "worse", "wide": "better"}]


def test_seeds_that_are_added_after_the_end_spend_the_level_again(tmp_path: Path) -> None:
    looked(tmp_path, OPEN)
    sweep = looked(tmp_path, OPEN, seeds={"looks": [3, 5, 8, 10]})
    last = sweep.looks[-1]
    assert (last["ends"], last["arms"]["nope"]["looks"]) == ([8, 10], [3, 5, 8, 10])
    assert last["arms"]["nope"]["spent"] == pytest.approx(0.1)


def test_a_list_that_is_extended_is_looked_at_again(tmp_path: Path) -> None:
    looked(tmp_path, OPEN, seeds=[0, 1, 2])
    sweep = looked(tmp_path, OPEN, seeds=[0, 1, 2, 3, 4])
    assert [row["ends"] for row in sweep.looks] == [[3], [3, 5]]
    assert sweep.looks[-1]["arms"]["nope"]["looks"] == [3, 5]


def test_a_verdict_after_an_extension_names_its_level(tmp_path: Path) -> None:
    looked(tmp_path, gaps(0.0, 0.001), seeds=[0, 1, 2], matters=1e-9)
    much = gaps(0.3, 0.3)

    def how(config: dict[str, Any], share: float) -> float:
        return much(config, share) if config["run"]["seed"] > 2 else gaps(0.2, 0.001)(config, share)

    looked(tmp_path / "other", gaps(0.02, 0.001, 0.02), seeds=[0, 1, 2], matters=1e-9)
    looked(tmp_path / "other", how, seeds=[*range(9)], matters=1e-9)
    words = arm(facts_of(tmp_path / "other"))["words"]
    assert "(90% interval" in words
    assert "at level 10%, because seeds were added after the last look" in words


def test_an_arm_that_was_settled_before_an_extension_keeps_its_verdict(tmp_path: Path) -> None:
    how = gaps(0.5, 0.005, 0.03)
    looked(tmp_path, how, matters=0.01)
    before = arm(facts_of(tmp_path))["words"]
    looked(tmp_path, how, matters=0.01, seeds={"looks": [3, 5, 8, 10]})
    assert arm(facts_of(tmp_path))["words"] == before
    assert arm(facts_of(tmp_path), "wide")["level"] == 10


def test_an_arm_that_is_added_later_is_marked_and_changes_no_other(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=LOOKS)
    how = gaps(0.1, 0.9)
    conduct(tmp_path, tree, how)
    before = arm(facts_of(tmp_path))
    looked(tmp_path, how)
    facts = facts_of(tmp_path)
    assert {k: arm(facts)[k] for k in ("words", "p_holm")} == {
        k: before[k] for k in ("words", "p_holm")
    }
    late = arm(facts, "wide")
    assert "added after results were seen" in late["words"]
    assert late["p_holm"] == pytest.approx(2 * late["p"])


def test_an_arm_that_is_changed_later_is_another_arm(tmp_path: Path) -> None:
    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=LOOKS), OPEN)
    wide = {"nope": {**NOPE, "set": {"model.d_ff": 96}}}
    sweep = conduct(tmp_path, study(arms=wide, seeds=LOOKS), gaps(0.5, 0.6))
    assert sweep.looks[-1]["registered"] == ["nope (before)"]
    assert "changed after results were seen" in arm(facts_of(tmp_path))["words"]


MUCH = gaps(0.5, 0.6)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"arms": {"nope": {**NOPE, "set": {"model.d_ff": 96}}}}, "changed after results"),
        (
            {"arms": {"nope": {**NOPE, "hypothesis": "?"}}},
            "a hypothesis that was written after res",
        ),
        ({"seeds": [7, 8, 9]}, "changed after results were seen"),
        ({"metric": "bits_per_byte"}, "in a metric that was chosen after results were seen"),
    ],
    ids=["arm", "hypothesis", "seeds", "metric"],
)
def test_what_is_changed_after_the_first_run_is_told_also_before_a_look(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    before = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, before, MUCH, records=20)
    conduct(tmp_path, before | more, MUCH)
    assert told in arm(facts_of(tmp_path))["words"]


@pytest.mark.parametrize(
    ("grid", "told"), [([1e-3, 4e-3, 1.6e-2, 6.4e-2], True), ([1e-3, 4e-3, 1.6e-2, 2e-3], False)]
)
def test_values_that_are_chosen_anew_after_the_first_run_are_told(
    tmp_path: Path, grid: list[float], told: bool
) -> None:
    """The arm is best at the highest rate. Its grid is widened before the first look."""

    def how(config: dict[str, Any], share: float) -> float:
        return MUCH(config, share) - config["optim"]["lr"] * is_bare(config)

    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2], retune=RETUNE)
    conduct(tmp_path, tree, how, records=8 * (6 + 5))
    conduct(tmp_path, tree | {"retune": {"optim.lr": {"grid": grid}}}, how)
    words = arm(facts_of(tmp_path))["words"]
    assert ("changed after results were seen" in words) == told


OTHERWISE = {
    "written out": {"nope": {**NOPE, "set": {**NOPE["set"], "model.d_ff": 88}}},
    "renamed": {"bare": NOPE},
}


@pytest.mark.parametrize("records", [20, math.inf], ids=["before a look", "after it"])
@pytest.mark.parametrize("more", [{}, {"retune": RETUNE}], ids=["as it is", "re-tuned"])
@pytest.mark.parametrize("name", OTHERWISE)
def test_an_arm_that_is_written_otherwise_is_the_same(
    tmp_path: Path, name: str, more: dict[str, Any], records: float
) -> None:
    """The baseline has a `model.d_ff` of 88."""
    before = study(arms={"nope": NOPE}, seeds=[0, 1, 2], **more)
    conduct(tmp_path / "one", before, MUCH, records=records)
    sweep = conduct(tmp_path / "one", before | {"arms": OTHERWISE[name]}, MUCH)
    conduct(tmp_path / "other", before, MUCH)
    ((was,), (now,)) = (
        [one for one in facts_of(tmp_path / folder)["arms"]["arms"] if one["arm"] != "baseline"]
        for folder in ("other", "one")
    )
    assert (now["words"], now["p_holm"]) == (was["words"], was["p_holm"])
    assert (len(sweep.looks), dropped(tmp_path / "one")) == (1, [])


def test_arms_that_change_their_names_keep_their_verdicts(tmp_path: Path) -> None:
    looked(tmp_path, MUCH)
    before = facts_of(tmp_path)
    looked(tmp_path, MUCH, arms={"nope": WIDE, "wide": NOPE})
    after = facts_of(tmp_path)
    assert arm(after)["words"] == arm(before, "wide")["words"]
    assert arm(after, "wide")["words"] == arm(before)["words"]
    assert after["arms"]["noise"] == before["arms"]["noise"]


def test_a_renamed_arm_with_another_hypothesis_is_told(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, MUCH, records=20)
    conduct(tmp_path, tree | {"arms": {"bare": {**NOPE, "hypothesis": "?"}}}, MUCH)
    words = arm(facts_of(tmp_path), "bare")["words"]
    assert words.endswith("with a hypothesis that was written after results were seen")


def test_an_arm_that_is_not_re_tuned_is_another_one(tmp_path: Path) -> None:
    """It has the config of the registered arm, but runs at the baseline's rate."""

    def how(config: dict[str, Any], share: float) -> float:
        return MUCH(config, share) - config["optim"]["lr"] * is_bare(config)

    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2], retune=RETUNE)
    conduct(tmp_path, tree, how, records=8 * (6 + 5))
    conduct(tmp_path, tree | {"arms": {"plain": {**NOPE, "retune": False}}}, how)
    assert "added after results were seen" in arm(facts_of(tmp_path), "plain")["words"]


def test_values_that_are_chosen_anew_twice_are_told(tmp_path: Path) -> None:
    """When the first run ends, the arm has no values yet. Its grid is widened then, and again after its first runs."""

    def how(config: dict[str, Any], share: float) -> float:
        return MUCH(config, share) - config["optim"]["lr"] * is_bare(config)

    def widened(*rates: float) -> dict[str, Any]:
        grid = {"optim.lr": {"grid": [1e-3, 4e-3, 1.6e-2, *rates]}}
        return study(arms={"nope": NOPE}, seeds=[0, 1, 2], retune=grid)

    conduct(tmp_path, widened(), how, records=64)
    conduct(tmp_path, widened(3.2e-2), how, records=16 + 24 + 8)
    sweep = conduct(tmp_path, widened(3.2e-2, 6.4e-2), how)
    assert any(one.arm == "nope" and one.role == "run" for one in sweep.withdrawn.values())
    assert "changed after results were seen" in arm(facts_of(tmp_path))["words"]


def test_an_arm_that_comes_back_in_another_text_is_what_it_was(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, MUCH, records=24)
    conduct(tmp_path, tree | {"arms": {"nope": {**NOPE, "set": {"model.d_ff": 96}}}}, MUCH, 24)
    conduct(tmp_path, tree | {"question": "The same?"}, MUCH)
    assert "after results were seen" not in arm(facts_of(tmp_path))["words"]


def test_an_arm_that_comes_back_is_what_it_was(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, MUCH)
    before = arm(facts_of(tmp_path))
    conduct(tmp_path, tree | {"metric": "bits_per_byte"}, MUCH)
    conduct(tmp_path, tree, MUCH)
    assert {k: arm(facts_of(tmp_path))[k] for k in ("words", "p_holm")} == {
        k: before[k] for k in ("words", "p_holm")
    }


def test_every_list_of_seeds_that_was_tried_is_a_test(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, OPEN)
    conduct(tmp_path, tree | {"seeds": [3, 4, 5]}, OPEN)
    sweep = conduct(tmp_path, tree | {"seeds": [6, 7, 8]}, OPEN)
    last = sweep.looks[-1]["arms"]["nope"]
    assert last["p_holm"] == pytest.approx(min(1, 3 * last["p"]))


def test_other_seeds_by_the_command_line_are_told(tmp_path: Path) -> None:
    tree = study(seeds=[0, 1, 2])
    conduct(tmp_path, tree, CLEAR)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(tree, seed=7))
        conductor.begin({})
        Engine(conductor, CLEAR).run()
    facts = facts_of(tmp_path)
    assert arm(facts)["words"].endswith("changed after results were seen")
    assert [one["seeds"] for one in facts["arms"]["dropped"]] == [3]


def test_runs_that_were_trained_again_are_looked_at_again(tmp_path: Path) -> None:
    """The changes of the arm are the same; its batch size is not."""
    short = {"short": {"hypothesis": "Worse.", "set": {"model.context_length": 16}}}
    tree = study(arms=short, seeds=[0, 1, 2])
    conduct(
        tmp_path,
        tree,
        lambda c, s: (
            3
            + (c["model"]["context_length"] == 16)
            + 0.001 * c["run"]["seed"] * (c["model"]["context_length"])
        ),
    )
    before = led.fold(led.read(led.Files(tmp_path))).looks
    after = conduct(tmp_path, tree | {"match": "tokens_per_update"}, gaps(0, 0)).looks
    assert (len(before), len(after)) == (1, 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_where_the_baseline_is_gone_an_arm_that_lost_a_run_is_not_better(
    tmp_path: Path, seed: int
) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        lost = not is_bare(config) or config["run"]["seed"] == seed
        return math.inf if lost else 3 - share

    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=[0, 1, 2]), how)
    assert arm(facts_of(tmp_path))["verdict"] == "no conclusion"


def test_where_the_baseline_is_gone_an_arm_that_finished_is_better(tmp_path: Path) -> None:
    how = lambda c, s: 3 - s if is_bare(c) else math.inf  # noqa: E731
    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=[0, 1, 2]), how)
    assert arm(facts_of(tmp_path))["words"] == "better: the baseline diverged on every seed"


def test_an_arm_that_is_gone_has_a_verdict_at_a_look_alone(tmp_path: Path) -> None:
    """The seventh of its nine records comes before the last run of the baseline has ended."""
    how = lambda c, s: math.inf if is_bare(c) else 3 - s  # noqa: E731
    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=[0, 1, 2]), how, records=15)
    assert arm(facts_of(tmp_path))["verdict"] == "no conclusion"


def test_a_bound_that_is_taken_back_decides_nothing(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, OPEN, records=20)
    conduct(tmp_path, tree | {"matters": 0.5}, OPEN)
    late = arm(facts_of(tmp_path))["words"]
    conduct(tmp_path, tree, OPEN)
    conduct(tmp_path / "other", tree, OPEN)
    assert late.endswith("within a bound that was chosen after results were seen")
    assert arm(facts_of(tmp_path))["words"] == arm(facts_of(tmp_path / "other"))["words"]


ONE = study(arms={"nope": NOPE}, seeds=LOOKS)


def test_a_bound_that_is_added_in_the_end_is_read_from_the_interval(tmp_path: Path) -> None:
    before = conduct(tmp_path, ONE, OPEN)
    after = conduct(tmp_path, ONE | {"matters": 0.5}, OPEN)
    assert after.spent_tokens == before.spent_tokens
    seen, again = (one.looks[-1]["arms"]["nope"] for one in (before, after))
    assert again == seen | {"matters": 0.5, "decision": "no difference"}
    words = arm(facts_of(tmp_path))["words"]
    assert words.startswith("no difference larger than")
    assert words.endswith("within a bound that was chosen after results were seen")


def test_a_bound_that_is_added_in_the_end_leaves_nothing_to_do(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, OPEN)
    tree = ONE | {"matters": 0.5}
    conduct(tmp_path, tree, OPEN)
    assert driver(led.ReadLedger(led.Files(tmp_path)), request(tree)).is_done()


def test_a_smaller_bound_opens_the_question_again(tmp_path: Path) -> None:
    how = gaps(0.0001, 0.002, 0.01)
    settled = conduct(tmp_path, ONE | {"matters": 0.5}, how)
    after = conduct(tmp_path, ONE | {"matters": 0.0002}, how)
    assert (seeds_of(settled)["nope"], seeds_of(after)["nope"]) == (3, 8)
    assert after.looks[-1]["arms"]["nope"]["looks"] == [3, 5, 8]
    words = arm(facts_of(tmp_path))["words"]
    assert words.startswith("no conclusion yet")
    assert words.endswith("the bound for no difference was chosen after results were seen")


def test_a_late_bound_is_not_told_where_the_registered_one_decides_the_same(tmp_path: Path) -> None:
    how = gaps(0.0001, 0.002, 0.01)
    conduct(tmp_path, ONE, how)
    conduct(tmp_path, ONE | {"matters": 0.0001}, how)
    conduct(tmp_path, ONE | {"matters": 0.5}, how)
    words = arm(facts_of(tmp_path))["words"]
    assert (words[:13], "after results" in words) == ("no difference", False)


def test_a_bound_that_changes_nothing_is_no_look(tmp_path: Path) -> None:
    before = conduct(tmp_path, ONE | {"matters": 0.5}, OPEN)
    after = conduct(tmp_path, ONE | {"matters": 0.6}, OPEN)
    assert len(after.looks) == len(before.looks)
    assert "after results" not in arm(facts_of(tmp_path))["words"]


def without_bounds(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was written when looks did not say by which bound each arm was decided."""
    if row["kind"] != "look":
        return row
    arms = {
        name: {field: value for field, value in one.items() if field != "matters"}
        for name, one in row["arms"].items()
    }
    return {**row, "arms": arms}


def test_a_look_from_before_arms_had_a_bound_was_decided_by_that_of_the_look(
    tmp_path: Path,
) -> None:
    conduct(tmp_path, ONE | {"matters": 0.5}, OPEN)
    rewrite(led.Files(tmp_path / "old"), map(without_bounds, led.read(led.Files(tmp_path))))
    assert arm(facts_of(tmp_path / "old"))["words"] == arm(facts_of(tmp_path))["words"]


def test_a_bound_does_not_change_a_difference(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, CLEAR)
    before = arm(facts_of(tmp_path))["words"]
    conduct(tmp_path, ONE | {"matters": 9.0}, CLEAR)
    assert arm(facts_of(tmp_path))["words"] == before


def test_a_bound_can_not_settle_an_arm_that_lost_a_run(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        lost = is_bare(config) and config["run"]["seed"] == 1
        return math.inf if lost else gaps(-0.02, 0, 0.01)(config, share)

    conduct(tmp_path, ONE, how)
    sweep = conduct(tmp_path, ONE | {"matters": 9.0}, how)
    assert {one["nope"] for one in decisions(sweep)} == {"no conclusion"}


@pytest.mark.parametrize(
    ("fewer", "left"), [({"looks": [3]}, 3), ({"at_most": 4}, 4), ([0, 1, 2], 3)], ids=str
)
def test_a_verdict_stays_when_a_study_is_shortened(tmp_path: Path, fewer: Any, left: int) -> None:
    how = gaps(0.03, 0.005, 0.01)
    assert seeds_of(conduct(tmp_path, ONE, how))["nope"] == 5
    before = arm(facts_of(tmp_path))
    conduct(tmp_path, ONE | {"seeds": fewer}, how)
    after = arm(facts_of(tmp_path))
    names = ("verdict", "difference", "low", "high", "p_holm")
    assert [after[name] for name in names] == [before[name] for name in names]
    assert f"after 5 seeds, of which the space has {left} now" in after["words"]


@pytest.mark.parametrize("name", ["nope", "renamed"])
def test_runs_that_were_stopped_and_dropped_are_told(tmp_path: Path, name: str) -> None:
    """Who stops the runs that speak against an arm can't hide them by taking their seeds out."""
    before = study(seeds=[0, 1, 2, 3, 4, 5])
    conduct(tmp_path, before, CLEAR, records=10)
    steer(tmp_path, "stop", lambda one: is_bare(one.config) and one.seed > 2)
    conduct(tmp_path, before, CLEAR)
    conduct(tmp_path, study(seeds=[0, 1, 2], arms={name: NOPE}), CLEAR)
    words = arm(facts_of(tmp_path), name)["words"]
    assert "after 6 seeds, of which 3 were compared and the space has 3 now" in words
    assert "3 of its 3 runs that the space no longer has were stopped by hand" in words


def test_runs_that_were_dropped_are_those_of_an_arm_that_trains_the_same(tmp_path: Path) -> None:
    """Also if its name and its seeds are others now, and whoever has that name now."""
    before = study(seeds=[0, 1, 2, 3, 4, 5], arms={"nope": NOPE, "wide": WIDE})
    conduct(tmp_path, before, CLEAR, records=10)
    steer(tmp_path, "stop", lambda one: is_bare(one.config) and one.seed > 2)
    conduct(tmp_path, before, CLEAR)
    conduct(tmp_path, study(seeds=[6, 7, 8], arms={"nope": WIDE, "wide": NOPE}), CLEAR)
    facts, told = facts_of(tmp_path), "3 of its 6 runs that the space no longer has were stopped"
    assert told in arm(facts, "wide")["words"]
    assert "stopped by hand" not in arm(facts)["words"]


def test_grids_that_are_dropped_with_re_tuning_are_told(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2], retune=RETUNE), CLEAR)
    conduct(tmp_path, study(seeds=[0, 1, 2]), CLEAR)
    words = arm(facts_of(tmp_path))["words"]
    assert "3 trials of its re-tune grid were dropped after results were seen" in words


def three_fail(config: dict[str, Any], share: float) -> float:
    """The arm is clearly worse, and fails on all seeds but the first three."""
    if is_bare(config) and config["run"]["seed"] > 2:
        raise ArithmeticError
    return CLEAR(config, share)


def test_failed_runs_that_were_stopped_and_dropped_are_told_once(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2, 3, 4, 5]), three_fail)
    steer(tmp_path, "stop", lambda one: is_bare(one.config) and one.seed > 2)
    conduct(tmp_path, study(seeds=[0, 1, 2]), three_fail)
    words = arm(facts_of(tmp_path))["words"]
    assert "3 of its 3 runs that the space no longer has were stopped by hand" in words
    assert "failed" not in words
    sweep = conduct(tmp_path, study(seeds=[0, 1, 2, 3, 4, 5]), three_fail)
    stopped = [one for one in sweep.trials.values() if one.is_stopped_by_hand]
    assert [one.status for one in stopped] == ["stopped"] * 3


def test_runs_that_failed_and_were_dropped_are_told(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2, 3, 4, 5]), three_fail)
    conduct(tmp_path, study(seeds=[0, 1, 2]), three_fail)
    conduct(tmp_path, study(seeds=[0, 1, 2]), three_fail)
    words = arm(facts_of(tmp_path))["words"]
    assert "3 of its 3 runs that the space no longer has failed" in words
    conduct(tmp_path, study(seeds=[0, 1, 2, 3, 4, 5]), CLEAR)
    assert "failed" not in arm(facts_of(tmp_path))["words"]


def test_what_is_planned_after_the_first_record_is_added_later(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2], arms={"wide": WIDE}), CLEAR, records=1)
    conduct(tmp_path, study(seeds=[0, 1, 2], arms={"wide": WIDE, "nope": NOPE}), CLEAR)
    found = facts_of(tmp_path)
    assert arm(found)["words"].endswith(": added after results were seen")
    assert "results were seen" not in arm(found, "wide")["words"]


def test_seeds_that_are_replaced_after_the_first_record_are_told(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2]), CLEAR, records=1)
    conduct(tmp_path, study(seeds=[0, 7, 8]), CLEAR)
    words = arm(facts_of(tmp_path))["words"]
    assert words.endswith(": on seeds that were changed after results were seen")


def test_a_re_tune_grid_that_is_changed_after_it_was_seen_is_told(tmp_path: Path) -> None:
    before = study(seeds=[0, 1, 2], retune={"optim.lr": {"grid": [1e-3, 4e-3, 1.6e-2]}})
    conduct(tmp_path, before, CLEAR, records=50)
    conduct(tmp_path, before | {"retune": {"optim.lr": {"grid": [1e-3, 4e-3]}}}, CLEAR)
    words = arm(facts_of(tmp_path))["words"]
    assert "1 trial of its re-tune grid was dropped after results were seen" in words
    assert "1 trial of the baseline's re-tune grid was dropped" in words


def test_a_bound_that_reopens_a_settled_arm_is_told(tmp_path: Path) -> None:
    how = gaps(0.5, 0.018, 0.005)
    sweep = looked(tmp_path, how, matters=0.5)
    assert sweep.looks[-1]["arms"]["wide"]["decision"] == "no difference"
    looked(tmp_path, how, matters=1e-6)
    words = arm(facts_of(tmp_path), "wide")["words"]
    assert words.startswith("worse by 0.0")
    assert "settled before as no difference, and again after what matters was changed" in words


def test_more_seeds_of_a_settled_arm_change_none_of_its_numbers(tmp_path: Path) -> None:
    how = gaps(0.5, 0.0, 0.01)
    conduct(tmp_path, study(seeds=[0, 1, 2]), how)
    before = arm(facts_of(tmp_path))
    conduct(tmp_path, study(seeds=[*range(6)]), how)
    after = arm(facts_of(tmp_path))
    assert len(after["losses"]) == 6 > len(before["losses"])
    own = dict.fromkeys(["losses", "mean", "sd", "planned"])  # of its runs alone
    assert {**after, **own} == {**before, **own}


def test_an_open_question_stays_open_when_a_study_is_shortened(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, OPEN)
    sweep = conduct(tmp_path, ONE | {"seeds": {"looks": [3, 5]}}, OPEN)
    assert len(sweep.looks) == 3
    words = "no conclusion yet: after 8 seeds, of which the space has 5 now"
    assert arm(facts_of(tmp_path))["words"] == words


def test_a_shortened_arm_keeps_its_seeds_when_another_is_looked_at(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, OPEN)
    both = study(arms={"nope": NOPE, "wide": WIDE}, seeds={"looks": [3]})
    last = conduct(tmp_path, both, OPEN).looks[-1]["arms"]
    assert (len(last["nope"]["seeds"]), len(last["wide"]["seeds"])) == (8, 3)


def test_a_study_that_is_shortened_has_nothing_left_to_do(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, OPEN)
    tree = ONE | {"seeds": {"looks": [3]}}
    conduct(tmp_path, tree, OPEN)
    assert driver(led.ReadLedger(led.Files(tmp_path)), request(tree)).is_done()


@pytest.mark.parametrize("lists", [([0, 3, 4], [0, 5, 6]), ([1, 0, 2], [0, 2, 1])], ids=str)
def test_every_list_of_seeds_counts_also_one_that_begins_with_the_same(
    tmp_path: Path, lists: tuple[list[int], list[int]]
) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, OPEN)
    conduct(tmp_path, tree | {"seeds": lists[0]}, OPEN)
    sweep = conduct(tmp_path, tree | {"seeds": lists[1]}, OPEN)
    last = sweep.looks[-1]["arms"]["nope"]
    assert last["p_holm"] == pytest.approx(min(1, 3 * last["p"]))


def test_a_list_that_is_extended_twice_is_another_test(tmp_path: Path) -> None:
    tree, how = study(arms={"nope": NOPE}, seeds=[0, 1, 2]), gaps(0.03, 0, 0.02)
    conduct(tmp_path, tree, how)
    conduct(tmp_path, tree | {"seeds": [0, 1, 2, 3, 4]}, how)
    last = conduct(tmp_path, tree | {"seeds": [0, 1, 2, 5, 6, 7, 8, 9]}, how).looks[-1]
    assert last["arms"]["nope"]["p_holm"] == pytest.approx(2 * last["arms"]["nope"]["p"])
    assert "changed after results were seen" in arm(facts_of(tmp_path))["words"]


def test_the_noise_of_a_look_is_without_arms_that_spiked(tmp_path: Path) -> None:
    """Only the arm scatters, and a run of it has spiked."""
    conduct(tmp_path, ONE, gaps(0.3, 0, 0.004))
    files = led.Files(tmp_path)
    every = led.read(files)
    runs = [row["trial"] for row in every if row["kind"] == "planned" and row["arm"] == "nope"]
    spiked = [
        row | {"spike": 2.0} if row.get("trial") in runs and row["kind"] == "measured" else row
        for row in every
        if row["kind"] != "look"
    ]
    rewrite(files, [row | {"seq": number} for number, row in enumerate(spiked)])
    (look,) = conduct(tmp_path, ONE, gaps(0.3, 0, 0.004)).looks
    assert look["noise"]["freedom"] == 2


def test_the_noise_is_of_the_runs_that_a_study_still_has(tmp_path: Path) -> None:
    looked(tmp_path / "long", OPEN)
    looked(tmp_path / "long", OPEN, seeds={"looks": [3]})
    looked(tmp_path / "short", OPEN, seeds={"looks": [3]})
    long, short = (facts_of(tmp_path / name)["arms"]["noise"] for name in ("long", "short"))
    assert long == short


def test_the_looks_that_follow_a_list_begin_with_the_next_one(tmp_path: Path) -> None:
    looked(tmp_path, OPEN, seeds=[0, 1, 2, 3, 4])
    sweep = looked(tmp_path, OPEN, seeds={"looks": [8, 12]})
    assert sweep.looks[-1]["arms"]["nope"]["looks"] == [5, 8, 12]


def test_an_arm_that_is_removed_still_counts_for_the_others(tmp_path: Path) -> None:
    how = gaps(0.05, 0.6, 0.02)
    conduct(tmp_path, study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS), how, records=80)
    sweep = conduct(tmp_path, study(arms={"nope": NOPE}, seeds=LOOKS), how)
    last = sweep.looks[-1]["arms"]["nope"]
    assert (sweep.looks[-1]["registered"], last["p_holm"]) == (
        ["nope", "wide"],
        pytest.approx(2 * last["p"]),
    )


def dropped(folder: Path) -> list[tuple[str, str, int]]:
    """The arms that a study dropped: what was found of each, after how many seeds."""
    found = facts_of(folder)["arms"].get("dropped", [])
    return [(one["arm"], one["verdict"], one["seeds"]) for one in found]


def test_what_was_found_of_an_arm_that_is_removed_is_still_told(tmp_path: Path) -> None:
    looked(tmp_path, gaps(0.5, -0.6))
    conduct(tmp_path, ONE, gaps(0.5, -0.6))
    assert dropped(tmp_path) == [("wide", "better", 3)]
    assert "`wide` (d_ff=96): better by" in summarized(tmp_path)


def test_what_was_found_of_an_arm_that_is_changed_is_still_told(tmp_path: Path) -> None:
    conduct(tmp_path, ONE, MUCH)
    conduct(tmp_path, ONE | {"arms": {"nope": {**NOPE, "set": {"model.d_ff": 96}}}}, MUCH)
    assert dropped(tmp_path) == [("nope", "worse", 3)]


def test_every_list_of_seeds_that_was_dropped_is_told(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE}, seeds=[0, 1, 2])
    conduct(tmp_path, tree, OPEN)
    conduct(tmp_path, tree | {"seeds": [3, 4, 5, 6]}, OPEN)
    conduct(tmp_path, tree | {"seeds": [7, 8]}, OPEN)
    assert dropped(tmp_path) == [("nope", "no conclusion", 4), ("nope", "no conclusion", 3)]


def test_more_seeds_drop_nothing(tmp_path: Path) -> None:
    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=[0, 1, 2]), OPEN)
    conduct(tmp_path, study(arms={"nope": NOPE}, seeds=[0, 1, 2, 3]), OPEN)
    assert dropped(tmp_path) == []


def test_an_arm_that_was_gone_is_told_as_worse(tmp_path: Path) -> None:
    how = lambda c, s: math.inf if is_bare(c) else 3 - s  # noqa: E731
    looked(tmp_path, how)
    conduct(tmp_path, study(arms={"wide": WIDE}, seeds=LOOKS), how)
    assert dropped(tmp_path) == [("nope", "worse", 3)]


def test_a_metric_that_is_chosen_later_is_told(tmp_path: Path) -> None:
    looked(tmp_path, gaps(0.5, 0.6))
    looked(tmp_path, gaps(0.5, 0.6), metric="bits_per_byte")
    words = arm(facts_of(tmp_path))["words"]
    assert words.endswith("in a metric that was chosen after results were seen")


def test_a_bound_that_is_chosen_later_is_told(tmp_path: Path) -> None:
    looked(tmp_path, OPEN)
    looked(tmp_path, OPEN, matters=0.5, seeds={"looks": [3, 5, 8, 10]})
    words = arm(facts_of(tmp_path))["words"]
    assert words.startswith("no difference larger than")
    assert words.endswith("within a bound that was chosen after results were seen")


def test_before_the_first_look_there_are_numbers_and_no_verdict(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    conduct(tmp_path, tree, gaps(0.5, 0.6), records=56)
    found = arm(facts_of(tmp_path))
    assert (found["verdict"], found["low"], found["p_holm"]) == ("no conclusion", None, None)
    assert found["difference"] is not None


def test_between_looks_the_last_verdict_stands(tmp_path: Path) -> None:
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    conduct(tmp_path, tree, OPEN, records=9 * 8 + 36)
    found = arm(facts_of(tmp_path))
    words = "no conclusion yet: the next look is after 5 seeds, and the last after 8; the chance "
    assert (found["words"].startswith(words), found["low"]) == (True, None)
    assert found["n"] > 3


def test_between_looks_the_seeds_that_are_likely_to_settle_an_arm_are_told(tmp_path: Path) -> None:
    """A run takes 32 seconds; five more of the arm and of the baseline are still to be trained."""
    how = gaps(0.03, 0.005, 0.01)
    sweep = conduct(tmp_path, ONE, how, records=6 * 8 + 1)
    assert decisions(sweep) == [{"nope": "no conclusion"}]
    words = arm(facts_of(tmp_path))["words"]
    assert words.endswith(
        "; 2 to 5 more seeds are likely to settle it, within about 5 min of training"
    )


def test_looks_that_were_added_after_the_end_spend_a_level_of_their_own(tmp_path: Path) -> None:
    conduct(tmp_path, ONE | {"seeds": [0, 1, 2]}, OPEN)
    conduct(tmp_path, ONE, OPEN, records=1)
    assert "the chance that they settle the question is" in arm(facts_of(tmp_path))["words"]


def test_at_the_end_an_open_question_says_how_many_seeds_would_settle_it(tmp_path: Path) -> None:
    looked(tmp_path, OPEN)
    found = arm(facts_of(tmp_path))
    assert found["further"] is not None
    assert "would settle a difference of the size seen" in found["words"]


def test_a_study_of_a_version_without_looks_keeps_its_verdict(tmp_path: Path) -> None:
    looked(tmp_path, CLEAR, seeds=[0, 1, 2, 3])
    now = facts_of(tmp_path)
    without_looks(tmp_path)
    before = facts_of(tmp_path)
    names = ("words", "p_holm", "low", "high", "p")
    assert json.dumps([arm(now)[n] for n in names]) == json.dumps([arm(before)[n] for n in names])


def test_an_old_study_that_is_done_is_not_looked_at(tmp_path: Path) -> None:
    looked(tmp_path, CLEAR, seeds=[0, 1, 2, 3])
    without_looks(tmp_path)
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=[0, 1, 2, 3])
    assert driver(led.ReadLedger(led.Files(tmp_path)), request(tree)).is_done()


def test_what_is_left_of_a_study_ends_with_its_arms(tmp_path: Path) -> None:
    looked(tmp_path, gaps(0.5, -0.6))
    tree = study(arms={"nope": NOPE, "wide": WIDE}, seeds=LOOKS)
    assert Left.of(driver(led.ReadLedger(led.Files(tmp_path)), request(tree)).state).tokens == 0


def test_an_old_study_that_is_extended_was_looked_at_where_it_was_to_end(tmp_path: Path) -> None:
    looked(tmp_path, OPEN, seeds=[0, 1, 2])
    without_looks(tmp_path)
    sweep = looked(tmp_path, OPEN, seeds=[0, 1, 2, 3, 4])
    assert [row["arms"]["nope"]["looks"] for row in sweep.looks] == [[3, 5]]


def test_a_pooled_variance_is_said_with_the_verdict(tmp_path: Path) -> None:
    sweep = looked(tmp_path, CLEAR, variance="pooled")
    assert sweep.looks[0]["arms"]["nope"]["rests"] == [2]
    assert arm(facts_of(tmp_path))["words"].endswith(": with a variance pooled over the arms")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("own", "pooled", "pooled over the arms, which was chosen after results were seen"),
        ("pooled", "own", "without the pooled variance that was registered"),
    ],
)
def test_another_variance_after_results_were_seen_is_told(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    looked(tmp_path, CLEAR, variance=before)
    looked(tmp_path, CLEAR, variance=after)
    said = arm(facts_of(tmp_path))["words"]
    assert (words in said, "changed after results were seen" in said) == (True, True)


def test_a_variance_that_is_changed_back_finds_its_verdict_again(tmp_path: Path) -> None:
    looked(tmp_path, CLEAR)
    before = arm(facts_of(tmp_path))["words"]
    looked(tmp_path, CLEAR, variance="pooled")
    looked(tmp_path, CLEAR)
    assert arm(facts_of(tmp_path))["words"] == before


def test_the_advice_after_the_last_look_is_that_of_the_pooled_test(tmp_path: Path) -> None:
    """The arm's own runs scatter less than the other's, with which they are pooled."""
    own, together = tmp_path / "own", tmp_path / "pooled"
    listed = {"seeds": [0, 1, 2], "matters": 0.001}
    looked(own, OPEN, **listed)
    looked(together, OPEN, variance="pooled", **listed)
    by_its_own, by_both = (arm(facts_of(folder))["further"] for folder in (own, together))
    assert by_both > by_its_own


def test_a_look_that_is_resumed_keeps_what_was_pooled(tmp_path: Path) -> None:
    before = looked(tmp_path, OPEN, variance="pooled")
    after = looked(tmp_path, OPEN, variance="pooled")
    assert after.looks == before.looks
    assert [len(row["arms"]["nope"]["rests"]) for row in after.looks] == [1, 2, 3]
