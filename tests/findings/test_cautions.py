"""Cautions: what a reader of a verdict has to know, and what is not worth a word."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conducting import (
    NOPE,
    RETUNE,
    SEEDS,
    arm,
    conduct,
    facts_of,
    facts_of_study,
    is_bare,
    loss,
    steer,
    study,
)
from ledgers import rewrite

from sweeps import ledger as led
from sweeps.findings.cautions import far_runs
from sweeps.findings.everything import StudyFindings, findings
from sweeps.findings.results import results_of
from sweeps.ledger import Row


@pytest.mark.parametrize(("params", "told"), [(1011, ["it uses 1.1% more parameters"]), (1009, [])])
def test_sizes_that_differ_by_more_than_a_percent_are_pointed_out(
    tmp_path: Path, params: int, told: list[str]
) -> None:
    arms = {"wide": {"hypothesis": "h", "set": {"model.d_ff": 96}}}
    conduct(tmp_path, study(arms=arms))
    files = led.Files(tmp_path)
    rows = led.read(files)
    wide = [
        row for row in rows if row["kind"] == "planned" and row["config"]["model"]["d_ff"] == 96
    ]
    # The counts of these ledgers are made up.
    counts = {row["trial"]: params for row in wide}
    planned = [
        row | {"params": counts.get(row["trial"], 1000)} if row["kind"] == "planned" else row
        for row in rows
    ]
    rewrite(files, planned)
    assert arm(facts_of(tmp_path), "wide")["cautions"] == told


def test_a_rate_on_the_edge_of_its_grid_is_pointed_out(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, retune=RETUNE))
    assert (
        "its lr is the lowest of its re-tune grid, so the optimum may lie beyond it (try 0.00025)"
        in result["cautions"]
    )


@pytest.mark.parametrize(("gap", "told"), [(1.0, True), (0.2001, False)])
def test_a_grid_that_missed_the_better_rate_is_pointed_out(
    tmp_path: Path, gap: float, told: bool
) -> None:
    """On the tuning seed the arm likes 1e-3; on all others 4e-3, where its twin runs, is better by
    0.8, or by less than the noise."""

    def how(config: dict[str, Any], share: float) -> float:
        misled = is_bare(config) and config["run"]["seed"] < 1000 and config["optim"]["lr"] < 4e-3
        return loss(config, share) + misled * gap

    arms = {"nope": NOPE, "same": {**NOPE, "retune": False}}
    facts = facts_of_study(tmp_path, how, retune=RETUNE, arms=arms)
    said = "the re-tune grid did not choose the best value"
    assert [any(said in c for c in arm(facts, name)["cautions"]) for name in arms] == [told, False]


SHORT = {"short": {"hypothesis": "h", "set": {"model.context_length": 16}}}
SAME_TOKENS = (
    "context",
    "it predicts the same validation tokens in windows of 16 tokens instead of 32",
)


def of_short(rows: list[Row]) -> list[tuple[str, str]]:
    """The cautions on an arm of a shorter context."""
    return [caution for caution in of_arm(rows, "short") if caution[0] != "size"]


def test_a_shorter_context_is_said_to_predict_the_same_tokens(tmp_path: Path) -> None:
    assert SAME_TOKENS in of_short(rows_of(tmp_path, arms=SHORT))


def test_updates_of_a_shorter_context_are_said_to_have_fewer_tokens(tmp_path: Path) -> None:
    assert of_short(rows_of(tmp_path, arms=SHORT))[1:] == [
        (
            "updates",
            "its updates have 128 tokens, the baseline's 256, so it made 64 and the baseline 32",
        )
    ]


def test_in_a_time_budget_the_number_of_updates_is_not_known(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, arms=SHORT, base={"budget.seconds": 60.0})
    assert ("updates", "its updates have 128 tokens, the baseline's 256") in of_short(rows)


def test_matched_updates_are_no_caveat(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, arms=SHORT, match="tokens_per_update")
    assert of_short(rows) == [SAME_TOKENS]


def test_windows_of_another_length_are_pointed_out(tmp_path: Path) -> None:
    """As in the ledgers of version 0.1."""
    rows = rows_of(tmp_path, arms=SHORT, match="tokens_per_update")
    for row in rows:
        if row["kind"] == "planned":
            row["config"]["eval"]["block"] = "window"
    text = "its validation windows differ in length from the baseline's"
    assert of_short(rows) == [("windows", text)]


@pytest.mark.parametrize(("best", "told"), [(16, []), (64, [128])])
def test_a_longer_context_may_be_advised_and_a_shorter_one_not(
    tmp_path: Path, best: int, told: list[int]
) -> None:
    rows = rows_of(
        tmp_path,
        lambda c, s: 3.0 + abs(c["model"]["context_length"] - best) - s,
        retune={"model.context_length": {"grid": [16, 32, 64]}},
        match="tokens_per_update",
    )
    said = "its context_length is the highest of its re-tune grid, so the optimum may lie beyond it"
    edges = [text for kind, text in of_arm(rows) if kind == "grid edge"]
    assert edges == [f"{said} (try {further})" for further in told]


@pytest.mark.parametrize(("highest", "told"), [(0.5, " (try 1)"), (1.0, "")])
def test_no_value_is_to_be_tried_that_makes_no_sense(
    tmp_path: Path, highest: float, told: str
) -> None:
    """No rate above 1."""
    rows = rows_of(
        tmp_path,
        lambda c, s: 3.0 - c["optim"]["lr"] - s,
        retune={"optim.lr": {"grid": [highest / 4, highest / 2, highest]}},
    )
    said = "its lr is the highest of its re-tune grid, so the optimum may lie beyond it"
    assert ("grid edge", said + told) in of_arm(rows)


def test_another_batch_size_alone_is_no_caveat(tmp_path: Path) -> None:
    """It is what the arm is about, and compared at equal tokens."""
    arms = {"small": {"hypothesis": "h", "set": {"optim.batch_size": 4}}}
    assert of_arm(rows_of(tmp_path, arms=arms), "small") == []


def of_arm(rows: list[Row], name: str = "nope") -> list[tuple[str, str]]:
    """The kinds and the texts of the cautions on an arm."""
    found = findings(results_of("s", rows))
    assert isinstance(found, StudyFindings)
    assert found.comparison is not None
    (result,) = (arm for arm in found.comparison.arms if arm.name == name)
    return [(caution.kind, caution.text) for caution in result.cautions]


def rows_of(folder: Path, how: Any = loss, **more: Any) -> list[Row]:
    """The rows of a study of four seeds."""
    conduct(folder, study(seeds=SEEDS, **more), how)
    return led.read(led.Files(folder))


def runs_of(rows: list[Row], name: str = "nope") -> list[str]:
    """The runs of an arm by their seeds."""
    (chosen,) = (row for row in rows if row["kind"] == "chosen" and row["arm"] == name)
    return list(chosen["trials"].values())


@pytest.mark.parametrize(
    ("lost", "level", "told"),
    [
        ([2], 9.0, [("outcomes", "1 of 4 runs got stuck")]),
        ([1, 2], 9.0, [("outcomes", "2 of 4 runs got stuck")]),
        ([1, 2], 8.99, []),
    ],
)
def test_runs_that_never_beat_the_unigram_entropy_are_counted(
    tmp_path: Path, lost: list[int], level: float, told: list[tuple[str, str]]
) -> None:
    """The entropy is 9 nats."""

    def stuck(config: dict[str, Any], share: float) -> float:
        seed = config["run"]["seed"]
        return level if is_bare(config) and seed in lost else loss(config, share)

    of_kind = [one for one in of_arm(rows_of(tmp_path, stuck)) if one[0] == "outcomes"]
    assert of_kind == told


@pytest.mark.parametrize(
    ("spike", "told"), [(1.01, [("outcomes", "1 of 4 runs spiked")]), (1.0, [])]
)
def test_runs_whose_training_loss_spiked_are_counted(
    tmp_path: Path, spike: float, told: list[tuple[str, str]]
) -> None:
    rows = rows_of(tmp_path)
    spiking = runs_of(rows)[1]
    measured = [row for row in rows if row["kind"] == "measured" and row["trial"] == spiking]
    measured[-1]["spike"] = spike
    assert of_arm(rows) == told


def overfitting(rows: list[Row], trials: list[str]) -> list[Row]:
    """The rows, in which these trials fall to a training loss of 0.5 and end 3 nats higher."""
    for trial in trials:
        *_, last = (row for row in rows if row["kind"] == "measured" and row["trial"] == trial)
        last["train_loss"], last["val_loss"] = 0.5, last["val_loss"] + 3.0
    return rows


def test_arms_that_overfit_are_compared_by_how_much(tmp_path: Path) -> None:
    """Before the last record the losses are those at 15 of 16 parts of the budget."""
    rows = rows_of(tmp_path)
    trials = [*runs_of(rows), *runs_of(rows, "baseline")[:2]]
    (kind, text) = of_arm(overfitting(rows, trials))[-1]
    assert kind == "overfitting"
    assert text.startswith("4 of 4 runs and 2 of 4 runs of the baseline overfitted, so the final")


def test_an_overfitted_baseline_alone_is_pointed_out(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    (kind, text) = of_arm(overfitting(rows, runs_of(rows, "baseline")))[-1]
    assert (kind, text[:35]) == ("overfitting", "4 of 4 runs of the baseline overfit")


def test_a_rate_at_the_edge_says_nothing_where_the_grid_overfits(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, retune=RETUNE)
    before = "grid edge" in dict(of_arm(rows))
    grid = next(row for row in rows if row["kind"] == "chosen" and row["arm"] == "nope")["grid"]
    after = "grid edge" in dict(of_arm(overfitting(rows, grid[:1])))
    assert (before, after) == (True, False)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nope", "its loss at init, 24.20, is"),
        ("baseline", "the baseline's loss at init, 24.20, is"),
    ],
)
def test_a_high_loss_at_init_is_pointed_out(tmp_path: Path, name: str, told: str) -> None:
    rows = rows_of(tmp_path)
    high = [
        row | {"loss_init": 24.2}
        if row["kind"] == "measured" and row["trial"] in runs_of(rows, name)
        else row
        for row in rows
    ]
    (text,) = [text for kind, text in of_arm(high) if kind == "init"]
    assert text.startswith(told)


TIMED = {"base": {"budget.seconds": 60.0}}


def test_under_a_time_budget_the_tokens_of_the_runs_are_named(tmp_path: Path) -> None:
    """One run is slower, and its last record is at 4,096 tokens."""
    rows = rows_of(tmp_path, **TIMED)
    slow = runs_of(rows)[1]
    after = [row for row in rows if row.get("trial") == slow and row.get("tokens", 0) > 4_096]
    finished = after.pop()
    finished["tokens"] = 4_096
    told = of_arm([row for row in rows if row not in after])
    assert ("time", "its runs trained 4,096 to 8,192 tokens in the time budget") in told


def test_under_a_token_budget_they_are_not(tmp_path: Path) -> None:
    assert of_arm(rows_of(tmp_path)) == []


def test_in_a_time_budget_an_arm_without_finished_runs_has_no_tokens_to_name(
    tmp_path: Path,
) -> None:
    conduct(tmp_path, study(seeds=SEEDS, **TIMED), records=4 * 8)
    assert of_arm(led.read(led.Files(tmp_path))) == []


SAME = {"nope": NOPE, "same": {**NOPE, "retune": False}}
NOT_RETUNED = ("not re-tuned", "it runs at the baseline's re-tuned values")


def test_an_arm_at_the_re_tuned_values_of_the_baseline_is_pointed_out(tmp_path: Path) -> None:
    assert NOT_RETUNED in of_arm(rows_of(tmp_path, retune=RETUNE, arms=SAME), "same")


@pytest.mark.parametrize("name", ["baseline", "nope"])
def test_what_has_its_own_grid_is_not(tmp_path: Path, name: str) -> None:
    rows = rows_of(tmp_path, retune=RETUNE, arms=SAME)
    assert NOT_RETUNED not in of_arm(rows, name)


def test_where_nothing_is_re_tuned_no_arm_is_at_re_tuned_values(tmp_path: Path) -> None:
    arms = {"same": {**NOPE, "retune": False}}
    assert of_arm(rows_of(tmp_path, arms=arms), "same") == []


@pytest.mark.parametrize(("audit", "told"), [(1.0, True), (0.0, False)])
def test_a_better_rate_that_an_audit_finds_in_a_grid_is_pointed_out(
    tmp_path: Path, audit: float, told: bool
) -> None:
    """Early losses are ordered upside down, so the policy stops the better rates."""

    def crossing(config: dict[str, Any], share: float) -> float:
        end = loss(config, 1.0)
        return end if share == 1 else 9 - end

    schedule = {"policy": "asha", "grace": "1/4", "finish": 1}
    conduct(tmp_path, study(retune=RETUNE, schedule=schedule), crossing, audit=audit)
    cautions = arm(facts_of(tmp_path))["cautions"]
    was = "a stopped trial of its re-tune grid was better: lr=0.001 ended at 2.2030, the chosen lr=0.016"
    assert any(text.startswith(was) for text in cautions) == told


def test_runs_that_somebody_stopped_are_pointed_out_with_those_of_the_baseline(
    tmp_path: Path,
) -> None:
    conduct(tmp_path, study(seeds=SEEDS), records=1)
    steer(tmp_path, "stop", lambda one: one.seed == 3 or (one.arm == "nope" and one.seed == 2))
    conduct(tmp_path, study(seeds=SEEDS))
    facts = facts_of(tmp_path)
    back = f"to train one after all: `sweeps steer {tmp_path.name} finish TRIAL`"
    assert arm(facts)["cautions"] == [
        f"2 of 4 runs were stopped by hand; {back}",
        "1 of 4 runs of the baseline was stopped by hand",
    ]
    assert arm(facts, "baseline")["cautions"] == [f"1 of 4 runs was stopped by hand; {back}"]


def test_a_run_whose_stop_was_taken_back_is_a_run_like_others(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=SEEDS), records=1)
    steer(tmp_path, "stop", lambda one: one.arm == "nope" and one.seed == 2)
    conduct(tmp_path, study(seeds=SEEDS))
    steer(tmp_path, "finish", lambda one: one.arm == "nope" and one.seed == 2)
    conduct(tmp_path, study(seeds=SEEDS))
    found = arm(facts_of(tmp_path))
    assert (len(found["losses"]), found["cautions"]) == (4, [])


def repeated(config: dict[str, Any], share: float) -> float:
    """Repeats differ a little, arms much."""
    return loss(config, share) + config["run"]["repeat"] / 1e4


def test_repeats_of_the_baseline_that_somebody_stopped_are_pointed_out(tmp_path: Path) -> None:
    asked = study(seeds=SEEDS, repeats=3)
    conduct(tmp_path, asked, repeated, records=1)
    steer(tmp_path, "stop", lambda one: one.config["run"]["repeat"] == 2)
    conduct(tmp_path, asked, repeated)
    facts = facts_of(tmp_path)
    said = "1 of 2 repeats of the baseline's first run was stopped by hand"
    (own,), (other,) = (arm(facts, one)["cautions"] for one in ("baseline", "nope"))
    assert (own.startswith(said), other.startswith(said)) == (True, True)


def test_no_arm_is_void_because_all_repeats_were_stopped(tmp_path: Path) -> None:
    """How much equal runs differ is not known then."""
    asked = study(seeds=SEEDS, repeats=3)
    conduct(tmp_path, asked, repeated, records=1)
    steer(tmp_path, "stop", lambda one: one.role == "repeat")
    conduct(tmp_path, asked, repeated)
    assert not arm(facts_of(tmp_path))["void"]


def test_a_re_tune_grid_that_somebody_steered_is_pointed_out(tmp_path: Path) -> None:
    asked = study(seeds=SEEDS, retune=RETUNE)
    conduct(tmp_path, asked, records=1)
    steer(tmp_path, "stop", lambda one: one.arm == "nope" and one.value("optim.lr") == 1.6e-2)
    steer(tmp_path, "finish", lambda one: one.arm == "nope" and one.value("optim.lr") == 4e-3)
    conduct(tmp_path, asked)
    said = (
        "1 of 3 trials of its re-tune grid was stopped by hand and 1 was trained to the end by hand"
    )
    assert said in ", ".join(arm(facts_of(tmp_path))["cautions"])


def far(arm: list[float], base: list[float]) -> list[str]:
    """The cautions on runs of an arm and its baseline that end far from their others."""
    own, other = dict(enumerate(arm)), dict(enumerate(base))
    found = (*far_runs(own, [other]), *far_runs(other, [own], whose="the baseline's"))
    return [one.text for one in found]


BASE = [4.10, 4.12, 4.13, 4.11, 4.15]


def test_runs_that_end_far_from_the_others_of_their_arm_are_named() -> None:
    stuck = [4.20, 4.19, 4.27, 4.27, 4.19, 6.37, 4.88, 4.18]
    assert far(stuck, BASE) == [
        "2 of its 8 runs ended far from the others (6.3700 on seed 5 and 4.8800 on seed 6; the others 4.1800 "
        "to 4.2700), so the mean depends on how often that happens"
    ]
    assert far(BASE, stuck)[0].startswith("2 of the baseline's 8 runs ended far from the others")
    assert far(stuck[:5], BASE) == []


def test_a_far_run_of_the_baseline_is_named_in_each_entry(tmp_path: Path) -> None:
    """Three runs alone do not say that one is far, but those of the arm scatter less."""

    def how(config: dict[str, Any], share: float) -> float:
        far = not is_bare(config) and config["run"]["seed"] == 2
        return loss(config, share) + 1.5 * far

    conduct(tmp_path, study(seeds=[0, 1, 2]), how)
    facts = facts_of(tmp_path)
    said = "of {} 3 runs ended far from the others (3.5455 on seed 2; the others 2.0415 to 2.0435)"
    (own,), (other,) = (arm(facts, name)["cautions"] for name in ("baseline", "nope"))
    assert own.startswith("1 " + said.format("its"))
    assert other.startswith("1 " + said.format("the baseline's"))


def test_two_runs_do_not_say_which_of_them_is_far() -> None:
    assert far([4.1, 6.4], [4.1, 4.2]) == []
    assert len(far([4.1, 6.4, 4.2], [4.1, 4.2])) == 1


@pytest.mark.parametrize("seeds", [3, 4, 5, 8])
@pytest.mark.parametrize("sd", [0.02, 0.1])
def test_few_studies_of_normal_runs_have_one_that_is_far(seeds: int, sd: float) -> None:
    draw = np.random.default_rng(seeds).normal(4.1, sd, (1000, 2, seeds))
    assert sum(bool(far(arm, base)) for arm, base in draw.tolist()) < 10
