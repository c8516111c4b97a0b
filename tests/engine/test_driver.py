"""The driver on made-up losses: what is handed out, written down, and picked up after a crash."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conducting import conduct, study
from conducting import loss as losses
from fakes import Engine, Loss, driver, grid, request, v_shaped
from faults import LOST, rows_lost

from sweeps import ledger as led
from sweeps import steering
from sweeps.engine.driver import RETRIES, Driver
from sweeps.engine.left import Left
from sweeps.engine.refusals import refuse_other_bits
from sweeps.exits import RefusedError

RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2]
NONE = {"policy": "none"}


def sweep(folder: Path, tree: dict[str, Any], loss: Loss = v_shaped, **how: Any) -> led.Sweep:
    """Run or resume a sweep for this many records; returns what its ledger then says."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(tree), how.get("audit", 0.0))
        conductor.begin({})
        engine = Engine(conductor, loss, how.get("slots", 2), how.get("workers"))
        engine.run(how.get("records", math.inf))
    return led.fold(led.read(led.Files(folder)))


def curves(of: led.Sweep) -> dict[str, list[tuple[int, float]]]:
    return {t.label: [(p["step"], p["val_loss"]) for p in t.curve] for t in of.trials.values()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, float]]]:
    """The curves of an uninterrupted sweep without a schedule."""
    return curves(sweep(tmp_path_factory.mktemp("whole"), grid(RATES, **NONE)))


def statuses(of: led.Sweep) -> list[str]:
    return [trial.status for trial in of.trials.values()]


def test_without_a_schedule_every_trial_finishes(tmp_path: Path) -> None:
    assert statuses(sweep(tmp_path, grid(RATES, **NONE))) == ["finished"] * 8


def test_asha_finishes_the_best_and_stops_the_rest(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    finished = [trial.label for trial in after.trials.values() if trial.status == "finished"]
    assert "lr=0.004" in finished
    assert set(statuses(after)) == {"finished", "stopped"}


@pytest.mark.parametrize("order", [RATES, RATES[::-1], RATES[::2] + RATES[1::2]])
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_stable_ranks_keep_the_best_in_any_order(
    tmp_path: Path, order: list[float], slots: int
) -> None:
    after = sweep(tmp_path, grid(order), slots=slots)
    best = next(trial for trial in after.trials.values() if trial.label == "lr=0.004")
    assert best.status == "finished"


SHORT, LONG = 8_192, 32_768
BUDGETS = {
    **grid(RATES, policy="asha", eta=2, grace="1/4"),
    "space": {"optim.lr": {"grid": RATES[2:5]}, "budget.tokens": {"grid": [SHORT, LONG]}},
}


def by_budget(of: led.Sweep, kind: str) -> set[tuple[int, float]]:
    """The rungs of the decisions of a kind, each after the budget of its trial."""
    rows = [row for row in of.decisions if row["kind"] == kind]
    return {(of.trials[row["trial"]].budget, row["rung"]) for row in rows}


def test_a_trial_pauses_at_shares_of_its_own_budget(tmp_path: Path) -> None:
    assert by_budget(sweep(tmp_path, BUDGETS), "paused") == {
        (SHORT, SHORT // 4),
        (SHORT, SHORT // 2),
        (LONG, LONG // 4),
        (LONG, LONG // 2),
    }


def test_a_trial_that_is_worse_at_the_same_share_stops_there(tmp_path: Path) -> None:
    """The best rate of both budgets goes on; at equal tokens the longer one would be 0.19 behind."""
    after = sweep(tmp_path, BUDGETS).trials.values()
    on = {
        (trial.budget, trial.value("optim.lr"))
        for trial in after
        if trial.step > trial.budget // 1024
    }
    assert on >= {(SHORT, 4e-3), (LONG, 4e-3)}


@pytest.mark.parametrize("policy", ["sha", "hyperband", "i_epoch", "median", "asha_stopping"])
def test_every_policy_keeps_the_best_where_budgets_differ(tmp_path: Path, policy: str) -> None:
    schedule = {"policy": policy, "grace": "1/4"}
    trials = sweep(tmp_path, {**BUDGETS, "schedule": schedule}).trials.values()
    finished = {trial.value("optim.lr") for trial in trials if trial.status == "finished"}
    assert 4e-3 in finished


def test_optuna_asks_for_trials_of_several_budgets(tmp_path: Path) -> None:
    space = {
        "optim.lr": {"loguniform": [1e-3, 1e-2]},
        "budget.tokens": {"choice": [SHORT, LONG]},
    }
    search = {"method": "optuna", "samples": 8}
    after = sweep(tmp_path, {**BUDGETS, "search": search, "space": space})
    assert set(statuses(after)) == {"finished", "stopped"}
    assert len(after.trials) == 8


@pytest.mark.parametrize("records", [3, 11, 19, 27])
def test_a_crash_changes_nothing_where_budgets_differ(tmp_path: Path, records: int) -> None:
    sweep(tmp_path / "cut", BUDGETS, records=records, slots=1)
    cut = sweep(tmp_path / "cut", BUDGETS, slots=1)
    assert curves(cut) == curves(sweep(tmp_path / "whole", BUDGETS, slots=1))


def test_asha_costs_less_than_the_grid(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    assert after.spent_tokens < 0.6 * sum(trial.budget for trial in after.trials.values())


def test_no_more_attempts_run_than_there_are_slots(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES)))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, slots=3)
        engine.run()
    assert engine.most == 3


def test_no_two_trials_have_one_label(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid([1e-3, 1.000000001e-3, 2e-3]))
    second = list(after.trials)[1]
    labels = [trial.label for trial in after.trials.values()]
    assert labels == ["lr=0.001", f"lr=0.001 ({second})", "lr=0.002"]


@pytest.mark.parametrize("records", range(1, 30, 4))
@pytest.mark.fault("a crash of the driver at any record", "the curves of a whole sweep")
def test_a_crash_at_any_record_changes_no_curve(tmp_path: Path, records: int, whole: Any) -> None:
    sweep(tmp_path / "cut", grid(RATES, **NONE), records=records)
    assert curves(sweep(tmp_path / "cut", grid(RATES, **NONE))) == whole


@pytest.mark.parametrize("records", range(1, 24, 3))
def test_a_crash_under_asha_still_finishes_the_best(tmp_path: Path, records: int) -> None:
    sweep(tmp_path, grid(RATES), records=records)
    after = sweep(tmp_path, grid(RATES))
    assert max(after.trials.values(), key=lambda trial: trial.step).label == "lr=0.004"
    assert set(statuses(after)) <= {"finished", "stopped"}


@pytest.mark.parametrize("records", [1, 5, 9])
def test_stopped_curves_are_the_beginnings_of_whole_ones(
    tmp_path: Path, records: int, whole: Any
) -> None:
    sweep(tmp_path / "asha", grid(RATES), records=records)
    cut = curves(sweep(tmp_path / "asha", grid(RATES)))
    assert {label: whole[label][: len(points)] for label, points in cut.items()} == cut


@pytest.mark.fault(
    "a crash between a checkpoint and its decision", "the decision is made at the resume"
)
def test_a_crash_between_checkpoint_and_pause_is_mended(tmp_path: Path) -> None:
    """The ledger ends with the checkpoint at a rung: the trial pauses, it does not run past."""
    sweep(tmp_path, grid(RATES), records=1)
    file = led.Files(tmp_path).ledger
    lines = file.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"kind":"paused"' in line)
    file.write_text("".join(lines[:cut]))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES)))
        conductor.begin({})
        assert statuses(conductor.sweep)[0] == "paused"


def text_of(file: Path) -> list[dict[str, Any]]:
    """A text that stands for what a checkpoint writes."""
    return [{"text": file.parents[1].name, **HOW}]


HOW = {"tokens": 1, "temperature": 1.0, "top_p": 0.9, "seed": 0}


def sampled_of(driver: Driver) -> list[str]:
    """The texts that were sampled last."""
    assert driver.sweep.sampled is not None
    return [text["text"] for text in driver.sweep.sampled["texts"]]


def test_the_first_of_the_best_runs_is_sampled_once(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    asked_of: list[Path] = []

    def write(file: Path) -> list[dict[str, Any]]:
        asked_of.append(file)
        return text_of(file)

    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        best = [*conductor.sweep.trials.values()][3:]
        conductor.sample([best], write)
        conductor.sample([best], write)
        assert len(asked_of) == 1
        assert sampled_of(conductor) == [f"{best[0].trial}-1"]


def test_the_baseline_is_sampled_after_the_best_run(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        base, best = [*conductor.sweep.trials.values()][:2]
        conductor.sample([[best], []], text_of)
        conductor.sample([[best], [base]], text_of)
        assert sampled_of(conductor) == [f"{best.trial}-1", f"{base.trial}-1"]


def test_a_best_run_of_the_baseline_is_sampled_once(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        best = next(iter(conductor.sweep.trials.values()))
        conductor.sample([[best], [best]], text_of)
        assert sampled_of(conductor) == [f"{best.trial}-1"]


def test_a_run_whose_checkpoint_is_gone_is_not_sampled(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        gone, kept = [*conductor.sweep.trials.values()][:2]
        assert gone.checkpoint is not None
        ledger.files.checkpoint(gone.checkpoint).unlink()
        conductor.sample([[gone, kept]], text_of)
        assert sampled_of(conductor) == [f"{kept.trial}-1"]


def losses_of(run: led.Trial, file: Path | None) -> dict[str, Any] | None:
    """What a run loses on the test text; None without its checkpoint."""
    if file is None or not file.is_file():
        return None
    return {"loss": 3.0, "bits_per_byte": 1.0, "tokens": 2048, "split": run.trial}


def test_each_run_reads_the_test_text_once(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        first, second, *_ = conductor.sweep.trials.values()
        conductor.test([first], losses_of)
        conductor.test([first, second], losses_of)
        conductor.test([first, second], losses_of)
    rows = [row["trials"] for row in led.read(led.Files(tmp_path)) if row["kind"] == "tested"]
    assert [list(trials) for trials in rows] == [[first.trial], [second.trial]]


def test_a_run_whose_checkpoint_is_gone_reads_no_test_text(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        gone, kept, *_ = conductor.sweep.trials.values()
        assert gone.checkpoint is not None
        ledger.files.checkpoint(gone.checkpoint).unlink()
        conductor.test([gone, kept], losses_of)
        assert list(conductor.sweep.tests) == [kept.trial]


def test_without_a_run_no_test_text_is_read(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        conductor.test([], losses_of)
        assert conductor.sweep.tested == []


def test_a_sweep_without_a_best_run_is_not_sampled(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE), records=5)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **NONE)))
        conductor.sample([[], []], text_of)
        assert conductor.sweep.sampled is None


def test_the_same_command_has_nothing_left_to_do(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert driver(ledger, request(grid(RATES))).is_done()


def test_an_interrupted_sweep_is_not_done(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), records=3)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert not driver(ledger, request(grid(RATES))).is_done()


def test_a_larger_grid_adds_to_the_sweep(tmp_path: Path) -> None:
    before = curves(sweep(tmp_path, grid(RATES[:4], **NONE)))
    after = curves(sweep(tmp_path, grid(RATES, **NONE)))
    assert (len(after), {label: after[label] for label in before}) == (8, before)


PAUSING: list[dict[str, Any]] = [
    {"policy": "asha", "grace": "1/8"},
    {"policy": "asha", "grace": "1/8", "first": "promote"},
    {"policy": "sha", "grace": "1/8"},
    {"policy": "i_epoch", "grace": "1/8"},
]


@pytest.mark.parametrize("schedule", PAUSING, ids=str)
def test_every_better_value_that_a_grid_is_extended_by_goes_on(
    tmp_path: Path, schedule: dict[str, Any]
) -> None:
    sweep(tmp_path, grid([2e-3, 1e-3, 5e-4], **schedule), slots=1)
    after = sweep(tmp_path, grid([2e-3, 1e-3, 5e-4, 3e-3, 4e-3], **schedule), slots=1)
    assert statuses(after) == ["finished", "stopped", "stopped", "finished", "finished"]


def test_a_study_chooses_the_better_rate_that_its_grid_is_extended_by(tmp_path: Path) -> None:
    """The higher the rate, the lower the loss, at every rung."""
    tree = study(schedule={"policy": "asha", "grace": "1/8"})
    for times in [2, 4, 8], [2, 4, 8, 16, 32]:
        retune = {"optim.lr": {"times": times}}
        after = conduct(tmp_path, tree | {"retune": retune}, lambda c, s: 4 - c["optim"]["lr"] - s)
    chosen = {name: row["values"] for name, row in after.chosen.items()}
    assert chosen == {"baseline": {"optim.lr": 0.096}, "nope": {"optim.lr": 0.096}}


SEEDS = {**grid(RATES), "seeds": [0, 1]}


def by_rate(of: led.Sweep) -> dict[float, list[str]]:
    """The statuses of the trials of each rate, by seed."""
    found: dict[float, list[str]] = {}
    for trial in of.trials.values():
        found.setdefault(trial.value("optim.lr"), []).append(trial.status)
    return found


def test_only_values_that_pass_the_first_rung_are_trained_on_further_seeds(tmp_path: Path) -> None:
    ends = by_rate(sweep(tmp_path, SEEDS))
    two = {2e-3: ["stopped"] * 2, 4e-3: ["finished"] * 2}
    assert ends == {rate: ["stopped"] for rate in RATES} | two


def test_all_seeds_of_a_value_have_the_same_decision(tmp_path: Path) -> None:
    after = sweep(tmp_path, SEEDS)
    rows = [row for row in after.decisions if row["kind"] == "promoted" and row["rung"] == 3072]
    names = ("rung", "to", "score", "rank", "arrived", "forced")
    numbers = [{name: row[name] for name in names} for row in rows]
    assert len(rows) == 2 and numbers[0] == numbers[1]


def lucky(config: dict[str, Any], share: float) -> float:
    """Losses by which a rate of 2e-3 leads on its first seed at every rung, and 4e-3 in the mean."""
    rate, seed = config["optim"]["lr"], config["run"]["seed"]
    return v_shaped(config, share) + {2e-3: (-0.3, 0.9)}.get(rate, (0.0, 0.0))[seed]


def test_a_value_is_kept_by_the_mean_over_its_seeds(tmp_path: Path) -> None:
    ends = by_rate(sweep(tmp_path, SEEDS, lucky))
    assert (ends[2e-3], ends[4e-3]) == (["stopped"] * 2, ["finished"] * 2)


@pytest.mark.parametrize("records", [1, 8, 9, 10, 11, 12, 14, 16, 18, 22, 30])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_crash_at_any_record_leaves_no_seed_of_a_value_behind(
    tmp_path: Path, records: int, slots: int
) -> None:
    sweep(tmp_path, SEEDS, lucky, records=records, slots=slots)
    ends = by_rate(sweep(tmp_path, SEEDS, lucky, slots=slots))
    assert ends[4e-3] == ["finished"] * 2
    assert all(len(set(each)) == 1 for each in ends.values())


def test_a_crash_before_the_seeds_of_a_promoted_value_are_planned_is_mended(tmp_path: Path) -> None:
    sweep(tmp_path, SEEDS)
    file = led.Files(tmp_path).ledger
    lines = file.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"kind":"promoted"' in line)
    file.write_text("".join(lines[: cut + 1]))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(SEEDS))
        conductor.begin({})
        assert by_rate(conductor.sweep)[4e-3] == ["planned", "planned"]


@pytest.mark.parametrize("before", [[0], [0, 1]])
def test_seeds_that_are_added_later_are_those_of_values_that_finished(
    tmp_path: Path, before: list[int]
) -> None:
    first = by_rate(sweep(tmp_path, {**SEEDS, "seeds": before}))
    after = by_rate(sweep(tmp_path, {**SEEDS, "seeds": [0, 1, 2]}))
    assert after == {**first, 4e-3: ["finished"] * 3}


def test_values_are_the_same_in_whatever_order_a_space_has_its_paths(tmp_path: Path) -> None:
    paths = {"optim.lr": {"grid": RATES[:4]}, "optim.weight_decay": {"grid": [0.1, 0.2]}}
    tree = {**SEEDS, "space": paths}
    before = sweep(tmp_path, tree)
    after = sweep(tmp_path, {**tree, "space": dict(reversed(paths.items()))})
    assert len(before.trials) < 16
    assert (list(after.trials), statuses(after)) == (list(before.trials), statuses(before))


def test_what_is_left_of_values_that_are_ruled_out_is_nothing(tmp_path: Path) -> None:
    sweep(tmp_path, SEEDS)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(SEEDS))
        left = Left.of(conductor.state)
    assert (left.tokens, left.new, left.kept) == (0, 0, 10)
    assert list(left.states.values()).count("not needed") == 6
    assert conductor.is_done()


def test_of_seeds_that_are_added_those_of_finished_values_are_left(tmp_path: Path) -> None:
    sweep(tmp_path, SEEDS)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        left = Left.of(driver(ledger, request({**SEEDS, "seeds": [0, 1, 2]})).state)
    assert (left.new, left.tokens) == (1, 8192)


def test_a_value_whose_first_seed_is_withdrawn_is_judged_by_the_others(tmp_path: Path) -> None:
    sweep(tmp_path, SEEDS)
    after = sweep(tmp_path, {**SEEDS, "seeds": [1]})
    assert {trial.seed for trial in after.trials.values()} == {1}
    assert by_rate(after)[4e-3] == ["finished"]


def first_fails(config: dict[str, Any], share: float) -> float:
    if config["optim"]["lr"] == 4e-3 and config["run"]["seed"] == 0:
        raise ZeroDivisionError
    return v_shaped(config, share)


def test_a_value_whose_first_seed_fails_is_judged_by_the_next(tmp_path: Path) -> None:
    assert by_rate(sweep(tmp_path, SEEDS, first_fails))[4e-3] == ["failed", "finished"]


def test_a_value_whose_first_seed_diverges_gets_no_further_one(tmp_path: Path) -> None:
    assert by_rate(sweep(tmp_path, SEEDS, diverging))[3.2e-2] == ["diverged"]


def test_in_a_sweep_of_an_earlier_version_each_seed_is_judged_alone(tmp_path: Path) -> None:
    """Its `sweep` row does not say that seeds are repeats."""
    with led.Ledger(led.Files(tmp_path)) as ledger:
        ledger.append("sweep", **request(SEEDS).row())
    after = sweep(tmp_path, SEEDS, lucky)
    assert len(after.trials) == 16 and by_rate(after)[2e-3] == ["finished", "stopped"]


def test_dropping_the_schedule_finishes_what_was_stopped(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    assert statuses(sweep(tmp_path, grid(RATES, **NONE))) == ["finished"] * 8


def test_another_base_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), records=1)
    other = {**grid(RATES), "base": {"optim.weight_decay": 0.3}}
    with (
        led.Ledger(led.Files(tmp_path)) as ledger,
        pytest.raises(RefusedError, match=r"optim.weight_decay: 0.1 there, 0.3 here"),
    ):
        driver(ledger, request(other))


def test_a_sweep_from_before_the_test_text_is_told_how_it_keeps_its_text(tmp_path: Path) -> None:
    sweep(tmp_path, {**grid(RATES), "base": {"data.test_fraction": 0.0}}, records=1)
    with (
        led.Ledger(led.Files(tmp_path)) as ledger,
        pytest.raises(RefusedError, match=r"set data.test_fraction: 0.0 under base"),
    ):
        driver(ledger, request(grid(RATES)))


def lengths(*values: int) -> dict[str, Any]:
    """A grid of context lengths, or of one rate if there are none."""
    space = {"model.context_length": {"grid": list(values)}} if values else {}
    return {**grid([1e-3], **NONE), "space": {**grid([1e-3])["space"], **space}}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((16, 32), (), "to keep its validation tokens, set eval.block: 2048 under base"),
        ((), (16, 32), "where model.context_length varies, all trials predict the same block"),
    ],
)
def test_a_sweep_keeps_its_validation_tokens(
    tmp_path: Path, before: tuple[int, ...], after: tuple[int, ...], told: str
) -> None:
    sweep(tmp_path, lengths(*before), records=1)
    with led.Ledger(led.Files(tmp_path)) as ledger, pytest.raises(RefusedError, match=told):
        driver(ledger, request(lengths(*after)))


def test_with_its_blocks_under_base_a_sweep_of_lengths_goes_on_with_one(tmp_path: Path) -> None:
    sweep(tmp_path, lengths(16, 32))
    after = sweep(tmp_path, {**lengths(), "base": {"eval.block": 2048}})
    assert {trial.config["eval"]["block"] for trial in after.trials.values()} == {2048}


def test_a_longer_context_extends_a_sweep(tmp_path: Path) -> None:
    before = sweep(tmp_path, lengths(16, 32))
    after = sweep(tmp_path, lengths(16, 32, 64))
    assert list(after.trials)[:2] == list(before.trials)
    assert statuses(after) == ["finished"] * 3


def test_a_refused_command_writes_nothing(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), records=1)
    before = led.Files(tmp_path).ledger.read_bytes()
    with led.Ledger(led.Files(tmp_path)) as ledger, pytest.raises(RefusedError):
        driver(ledger, request({**grid(RATES), "base": {"optim.weight_decay": 0.3}}))
    assert led.Files(tmp_path).ledger.read_bytes() == before


def diverging(config: dict[str, Any], share: float) -> float:
    return math.inf if config["optim"]["lr"] > 0.03 else v_shaped(config, share)


def test_diverged_trials_are_results(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES), diverging)
    ended = {trial.label: trial.status for trial in after.trials.values()}
    assert ended["lr=0.032"] == ended["lr=0.064"] == "diverged"


def test_a_sweep_in_which_everything_diverges_ends(tmp_path: Path) -> None:
    assert statuses(sweep(tmp_path, grid(RATES), lambda *_: math.inf)) == ["diverged"] * 8


def failing(config: dict[str, Any], share: float) -> float:
    if config["optim"]["lr"] == 4e-3 and share > 0.3:
        raise ZeroDivisionError
    return v_shaped(config, share)


@pytest.mark.fault("an attempt that fails each time", "three attempts, then a row with the reason")
def test_a_trial_that_fails_is_tried_again_then_given_up(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES, **NONE), failing)
    (failed,) = [trial for trial in after.trials.values() if trial.status == "failed"]
    assert (failed.label, failed.attempt) == ("lr=0.004", RETRIES + 1)


def checkpoints(folder: Path) -> list[str]:
    """The checkpoints of the first trial that are there, by rising step."""
    first = next(iter(led.fold(led.read(led.Files(folder))).trials))
    found = led.Files(folder).checkpoints.glob(f"{first}-*/checkpoint_*/checkpoint.pt")
    return sorted((file.read_text() for file in found), key=int)


def damage(folder: Path, how: str, last: int) -> None:
    """Damage the last checkpoints of the first trial of a sweep."""
    trial = next(iter(led.fold(led.read(led.Files(folder))).trials.values()))
    for row in trial.checkpoints[-last:]:
        file = folder / row["path"]
        if how == "flipped":
            file.write_text("?")
        else:
            file.unlink()
        if how == "a folder":
            file.mkdir()


@pytest.mark.fault("an interrupted trial", "two checkpoints are kept")
def test_a_trial_that_goes_on_keeps_two_checkpoints(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES[:1], **NONE), records=5, slots=1)
    assert checkpoints(tmp_path) == ["16", "20"]


def test_a_trial_that_has_ended_keeps_one_checkpoint(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES[:1], **NONE))
    assert checkpoints(tmp_path) == ["32"]


def test_a_trial_that_is_stopped_keeps_one_checkpoint(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    stopped = [one.trial for one in after.trials.values() if one.status == "stopped"]
    found = led.Files(tmp_path).checkpoints.glob("*/*/checkpoint.pt")
    names = [file.parents[1].name.partition("-")[0] for file in found]
    assert stopped and [names.count(trial) for trial in stopped] == [1] * len(stopped)


def test_no_attempt_leaves_an_empty_folder(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), records=20)
    sweep(tmp_path, grid(RATES))
    folders = list(led.Files(tmp_path).checkpoints.iterdir())
    assert folders and all(list(folder.iterdir()) for folder in folders)


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("how", ["flipped", "missing", "a folder"])
@pytest.mark.fault(
    "a damaged, missing or replaced checkpoint", "resumes from the one before; the same curve"
)
def test_a_trial_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, how: str, last: int, whole: Any
) -> None:
    """With both damaged it begins anew; in either case its curve is that of an undamaged run."""
    sweep(tmp_path, grid(RATES, **NONE), records=5, slots=1)
    damage(tmp_path, how, last)
    assert curves(sweep(tmp_path, grid(RATES, **NONE), slots=1)) == whole
    rows = led.read(led.Files(tmp_path))
    told = [row["step"] for row in rows if row["kind"] == "unusable"]
    resumed = [row["step"] for row in rows if row["kind"] == "started" and row["attempt"] > 1]
    assert told == [20, 16][:last]
    assert resumed[-1] == [16, 0][last - 1]


@pytest.mark.fault("several damaged checkpoints", "none counts as a failed attempt")
def test_damaged_checkpoints_are_none_of_the_attempts_that_may_fail(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES[:1], **NONE), records=5)
    damage(tmp_path, "flipped", 2)
    after = sweep(tmp_path, grid(RATES[:1], **NONE), failing)
    assert statuses(after) == ["finished"]
    assert not [row for row in led.read(led.Files(tmp_path)) if row["kind"] == "failed"]


@pytest.mark.parametrize("records", range(3, 30, 5))
def test_a_promoted_trial_goes_on_from_before_its_rung(tmp_path: Path, records: int) -> None:
    """What the policy decided there stands."""
    sweep(tmp_path / "cut", grid(RATES), records=records, slots=1)
    damage(tmp_path / "cut", "flipped", 1)
    cut = sweep(tmp_path / "cut", grid(RATES), slots=1)
    undamaged = sweep(tmp_path / "whole", grid(RATES), slots=1)
    assert (curves(cut), statuses(cut)) == (curves(undamaged), statuses(undamaged))


@pytest.mark.fault("an error whose message and traceback are megabytes", "its row can be read")
def test_a_failure_of_many_words_is_a_row_that_can_be_read(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], **NONE)))
        conductor.begin({})
        job = conductor.next_job()
        assert job is not None
        conductor.began(job.trial)
        conductor.failed(job.trial, "error", "x" * 10**7, "y" * 10**7 + "end")
    row = led.read(led.Files(tmp_path))[-1]
    assert (row["kind"], row["traceback"][-4:]) == ("failed", "yend")


def test_the_loss_of_nodes_does_not_use_up_the_attempts_of_a_trial(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], **NONE)))
        conductor.begin({})
        for how in ["node"] * (RETRIES + 1) + ["died"] * RETRIES:
            job = conductor.next_job()
            assert job is not None
            conductor.began(job.trial)
            conductor.failed(job.trial, how, "", "")
        assert conductor.next_job() is not None


@pytest.mark.fault("workers that don't come up", "none counts as a failed attempt")
def test_a_worker_that_never_came_up_does_not_use_up_an_attempt(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], **NONE)))
        conductor.begin({})
        for _ in range(RETRIES + 1):
            job = conductor.next_job()
            assert job is not None
            conductor.failed(job.trial, "died", "", "")
        assert conductor.next_job() is not None
    attempts = [row["attempt"] for row in led.read(led.Files(tmp_path)) if row["kind"] == "started"]
    assert attempts == [1, 2, 3]


def test_what_no_row_names_is_deleted_by_the_next_session(tmp_path: Path) -> None:
    first = sweep(tmp_path, grid(RATES, **NONE), records=3)
    folder = led.Files(tmp_path).checkpoints / f"{next(iter(first.trials))}-7"
    (folder / "checkpoint_9").mkdir(parents=True)
    sweep(tmp_path, grid(RATES, **NONE), records=1)
    assert not folder.exists()


@pytest.mark.fault("folders of people beside checkpoints", "they stay")
def test_what_is_not_of_a_trial_is_never_deleted(tmp_path: Path) -> None:
    first = sweep(tmp_path / "sweep", grid(RATES, **NONE), records=3)
    others = [
        tmp_path / "mine" / "checkpoint_9",
        led.Files(tmp_path / "sweep").checkpoints / "mine-1",
    ]
    for folder in others:
        folder.mkdir(parents=True)
    linked = led.Files(tmp_path / "sweep").checkpoints / f"{next(iter(first.trials))}-8"
    linked.symlink_to(tmp_path / "mine")
    sweep(tmp_path / "sweep", grid(RATES, **NONE))
    assert all(folder.is_dir() for folder in others)


@pytest.mark.fault("files of people in the folders of attempts", "they stay")
def test_what_people_put_into_the_folder_of_an_attempt_stays(tmp_path: Path) -> None:
    """Beside a checkpoint that a later one replaces, and one that no row names."""
    first = sweep(tmp_path, grid(RATES, **NONE), records=3)
    files = led.Files(tmp_path)
    row = next(one for trial in first.trials.values() for one in trial.checkpoints)
    saved = files.checkpoint(row)
    unnamed = files.checkpoints / f"{row['trial']}-7" / "checkpoint_9" / files.CHECKPOINT
    mine = [
        saved.with_name("thesis.txt"),
        saved.parents[1] / "checkpoint_mine" / files.CHECKPOINT,
        unnamed.with_name("thesis.txt"),
        unnamed.parents[1] / "checkpoint_mine" / files.CHECKPOINT,
    ]
    for file in (*mine, unnamed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    sweep(tmp_path, grid(RATES, **NONE))
    assert [file.exists() for file in (*mine, saved, unnamed)] == [True] * 4 + [False] * 2


def test_the_next_session_tries_a_failed_trial_again(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE), failing)
    assert statuses(sweep(tmp_path, grid(RATES, **NONE))) == ["finished"] * 8


@pytest.mark.fault("all checkpoints are deleted", "the trials begin anew; the same curves")
def test_a_lost_checkpoint_begins_the_trial_again(tmp_path: Path, whole: Any) -> None:
    sweep(tmp_path / "cut", grid(RATES, **NONE), records=9)
    for file in (tmp_path / "cut").rglob("checkpoint.pt"):
        file.unlink()
    assert curves(sweep(tmp_path / "cut", grid(RATES, **NONE))) == whole


def test_one_checkpoint_a_trial_is_kept(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 8


def test_every_seed_of_a_value_has_a_trial(tmp_path: Path) -> None:
    after = sweep(tmp_path, {**grid(RATES[:2], **NONE), "seeds": [3, 5]})
    assert [(t.label, t.seed) for t in after.trials.values()] == [
        ("lr=0.0005 seed=3", 3),
        ("lr=0.001 seed=3", 3),
        ("lr=0.0005 seed=5", 5),
        ("lr=0.001 seed=5", 5),
    ]


OPTUNA = {
    "question": "Which rate?",
    "search": {"method": "optuna", "samples": 12},
    "space": {"optim.lr": {"loguniform": [1e-4, 1e-1]}},
    "schedule": {"policy": "asha", "eta": 3, "grace": "1/8"},
}


def test_optuna_suggests_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    assert len(sweep(tmp_path, OPTUNA).trials) == 12


def test_optuna_goes_on_from_the_ledger(tmp_path: Path) -> None:
    begun = sweep(tmp_path, OPTUNA, records=5)
    after = sweep(tmp_path, OPTUNA)
    assert list(after.trials)[: len(begun.trials)] == list(begun.trials)
    assert len(after.trials) == 12


def test_optuna_is_a_function_of_what_was_measured(tmp_path: Path) -> None:
    first, second = (sweep(tmp_path / name, OPTUNA, slots=1) for name in ("one", "two"))
    assert list(first.trials) == list(second.trials)


def test_optuna_finds_every_choice_of_a_small_space(tmp_path: Path) -> None:
    small = {
        **OPTUNA,
        "search": {"method": "optuna", "samples": 9},
        "space": {
            "optim.lr": {"choice": [1e-3, 4e-3, 1.6e-2]},
            "optim.beta2": {"choice": [0.9, 0.95, 0.99]},
        },
    }
    assert len(sweep(tmp_path, small).trials) == 9


def test_optuna_counts_the_trials_of_its_seed(tmp_path: Path) -> None:
    sweep(tmp_path, OPTUNA)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(OPTUNA, seed=1))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    assert len(conductor.sweep.trials) == 24


def test_optuna_goes_on_in_a_narrowed_space(tmp_path: Path) -> None:
    sweep(tmp_path, OPTUNA)
    narrow = {**OPTUNA, "space": {"optim.lr": {"loguniform": [1e-3, 1e-2]}}}
    fits = [
        t for t in sweep(tmp_path, narrow).trials.values() if 1e-3 <= t.values["optim.lr"] <= 1e-2
    ]
    assert len(fits) == 12


WSD = {
    "question": "Which shares?",
    "base": {"optim.schedule": "wsd"},
    "search": {"method": "optuna", "samples": 40},
    "space": {
        "optim.warmup_fraction": {"uniform": [0.01, 0.06]},
        "optim.decay_fraction": {"uniform": [0.2, 0.95]},
    },
    "schedule": NONE,
}


def by_decay(config: dict[str, Any], share: float) -> float:
    """The longer the decay, the better: the best values are next to impossible ones."""
    return 2.0 - float(config["optim"]["decay_fraction"]) * share


def test_optuna_asks_again_for_an_impossible_suggestion(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(WSD, seed=3))
        conductor.begin({})
        Engine(conductor, by_decay, 1).run()
        trials = conductor.sweep.trials.values()
        assert [trial.status for trial in trials] == ["finished"] * 40
        asked = [row["draws"] for row in ledger.rows() if row["kind"] == "planned"]
        assert max(asked) > 1


def test_an_edited_schedule_may_be_edited_back(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert not driver(ledger, request(grid(RATES))).has_work()


@pytest.mark.parametrize("after", range(10, 100, 3))
@pytest.mark.fault(
    "a crash of the driver after any row", "the curves and decisions of a whole sweep"
)
def test_a_crash_after_any_row_is_mended(
    tmp_path: Path, after: int, whole: Any, record_property: Callable[..., None]
) -> None:
    """The ledger is cut between any two rows: the sweep ends with whole curves, every decision
    written, and the best finished."""
    sweep(tmp_path / "cut", grid(RATES))
    file = led.Files(tmp_path / "cut").ledger
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: min(after, len(lines))]))
    before = file.read_bytes()
    after_all = sweep(tmp_path / "cut", grid(RATES))
    record_property(LOST, rows_lost(before, file))
    assert curves(after_all) == {k: whole[k][: len(v)] for k, v in curves(after_all).items()}
    assert set(statuses(after_all)) == {"finished", "stopped"}
    passed = {(t.trial, 1024) for t in after_all.trials.values() if t.tokens > 1024}
    promoted = {
        (row["trial"], row["rung"]) for row in after_all.decisions if row["kind"] == "promoted"
    }
    assert passed <= promoted


SCHEDULES: list[dict[str, Any]] = [
    {"policy": "asha_stopping", "grace": "1/8"},
    {"policy": "sha", "grace": "1/8"},
    {"policy": "hyperband", "grace": "1/8"},
    {"policy": "i_epoch", "grace": "1/8", "finish": 2},
    {"policy": "median", "grace": "1/8"},
]


def decisions(of: led.Sweep) -> list[dict[str, Any]]:
    """What was decided, without when."""
    return [
        {k: v for k, v in row.items() if k not in {"seq", "time", "t", "attempt"}}
        for row in of.decisions
    ]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule["policy"])
def test_every_policy_drives_a_sweep_to_its_end(tmp_path: Path, schedule: dict[str, Any]) -> None:
    after = sweep(tmp_path, grid(RATES, **schedule))
    best = next(trial for trial in after.trials.values() if trial.label == "lr=0.004")
    assert best.status == "finished"
    assert set(statuses(after)) == {"finished", "stopped"}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule["policy"])
@pytest.mark.parametrize("records", range(1, 20, 3))
def test_a_crash_at_any_record_changes_no_verdict(
    tmp_path: Path, schedule: dict[str, Any], records: int
) -> None:
    whole = sweep(tmp_path / "whole", grid(RATES, **schedule), slots=1)
    sweep(tmp_path / "cut", grid(RATES, **schedule), slots=1, records=records)
    again = sweep(tmp_path / "cut", grid(RATES, **schedule), slots=1)
    assert (statuses(again), decisions(again)) == (statuses(whole), decisions(whole))


def test_a_stopped_trial_has_its_reason_and_numbers(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES, **SCHEDULES[0]))
    stop = next(row for row in after.decisions if row["kind"] == "stopped")
    assert stop["score"] > stop["cutoff"]


def test_a_trial_that_one_policy_stopped_may_be_promoted_by_another(tmp_path: Path) -> None:
    sweep(tmp_path, grid([4e-3, 2e-3, 8e-3], policy="asha_stopping", grace="1/8"))
    after = sweep(tmp_path, grid([4e-3, 2e-3, 8e-3], policy="asha", grace="1/8", finish=2))
    assert sorted(statuses(after)) == ["finished", "finished", "stopped"]


def test_a_trial_that_one_policy_paused_may_be_stopped_by_another(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), records=6)
    after = sweep(tmp_path, grid(RATES, policy="asha_stopping", grace="1/8"))
    assert set(statuses(after)) == {"finished", "stopped"}


def capped(tree: dict[str, Any], **caps: float) -> dict[str, Any]:
    return {**tree, "caps": caps}


def test_a_cap_ends_the_sweep_at_the_next_records(tmp_path: Path) -> None:
    after = sweep(tmp_path, capped(grid(RATES, **NONE), tokens=30_000))
    assert 30_000 <= after.spent_tokens < 30_000 + 2 * 1024


def test_a_cap_is_a_row_with_its_numbers(tmp_path: Path) -> None:
    sweep(tmp_path, capped(grid(RATES, **NONE), tokens=30_000), slots=1)
    row = next(row for row in led.read(led.Files(tmp_path)) if row["kind"] == "capped")
    assert (row["cap"], row["limit"], row["used"]) == ("tokens", 30_000, 30_720)


def test_flops_are_counted_against_their_cap(tmp_path: Path) -> None:
    after = sweep(tmp_path, capped(grid(RATES, **NONE), flops=11 * 30_000), slots=1)
    assert after.spent_tokens == 30_720


def test_a_sweep_that_used_its_budget_up_starts_nothing(tmp_path: Path) -> None:
    tree = capped(grid(RATES, **NONE), tokens=30_000)
    before = sweep(tmp_path, tree)
    assert sweep(tmp_path, tree).spent_tokens == before.spent_tokens


def test_a_cap_decides_nothing_of_those_that_wait(tmp_path: Path) -> None:
    after = sweep(tmp_path, capped(grid(RATES), tokens=8 * 1024))
    assert "stopped" not in statuses(after)


@pytest.mark.parametrize("schedule", [{}, *SCHEDULES], ids=str)
@pytest.mark.parametrize("records", [2, 7, 11])
def test_a_raised_cap_decides_as_if_there_had_been_none(
    tmp_path: Path, schedule: dict[str, Any], records: int
) -> None:
    whole = sweep(tmp_path / "whole", grid(RATES, **schedule), slots=1)
    sweep(tmp_path / "cut", capped(grid(RATES, **schedule), tokens=records * 1024), slots=1)
    again = sweep(tmp_path / "cut", grid(RATES, **schedule), slots=1)
    assert (statuses(again), decisions(again)) == (statuses(whole), decisions(whole))


def test_a_cap_loses_no_work_though_no_checkpoint_was_due(tmp_path: Path) -> None:
    """Checkpoints at the end alone; the driver asks for one where it caps."""
    tree = grid(RATES[:2], **NONE) | {"base": {"run.checkpoint_every_tokens": 8_192}}
    sweep(tmp_path, capped(tree, tokens=30_000))
    assert sweep(tmp_path, tree).spent_tokens == 2 * 8_192


def test_a_raised_cap_goes_on_with_the_same_curves(tmp_path: Path, whole: Any) -> None:
    sweep(tmp_path, capped(grid(RATES, **NONE), tokens=30_000))
    assert curves(sweep(tmp_path, grid(RATES, **NONE))) == whole


@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        ({"hours": 2.0}, "hours"),
        ({"gpu_hours": 4.0}, "gpu_hours"),
        ({"money": 5.0, "price_per_hour": 2.5}, "money"),
    ],
)
def test_time_is_counted_against_its_caps(tmp_path: Path, caps: dict[str, float], cap: str) -> None:
    """Two hours by the clock, with two attempts under way."""
    with led.Ledger(led.Files(tmp_path)) as ledger:
        tree = capped(grid(RATES, **NONE), **caps) | {"base": {"run.device": "cuda"}}
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        before = conductor.state.reached_cap()
        conductor.sweep.training_seconds += 7200
        conductor.sweep.busy_seconds += 2 * 7200
        reached = conductor.state.reached_cap()
    assert before is None and reached is not None and reached["cap"] == cap


def clocked(*rows: tuple[str, int]) -> led.Sweep:
    """Rows of a sweep of one trial at so many seconds."""
    of = led.Sweep()
    for number, (kind, second) in enumerate(rows):
        time = f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000+00:00"
        row = {"seq": number, "time": time, "kind": kind, "trial": "a", "label": "a"}
        row |= {"config": {}, "values": {}, "seed": 0, "params": 1, "flops_per_token": 1}
        of.observe(row | {"corpus": "c", "role": "search", "attempt": 1, "step": 0, "rung": 1})
    return of


def test_the_clock_of_a_sweep_stands_still_between_its_sessions() -> None:
    of = clocked(
        ("sweep", 0), ("session", 1), ("planned", 2), ("session", 1000), ("forecast", 1003)
    )
    assert of.seconds == 1 + 3


def test_attempts_are_busy_from_their_start_to_their_end() -> None:
    of = clocked(("session", 0), ("planned", 1), ("started", 3), ("paused", 10), ("forecast", 50))
    assert (of.seconds, of.training_seconds, of.busy_seconds) == (50, 7, 7)


def test_an_audit_trains_a_share_of_the_stopped_trials_to_their_ends(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES), audit=0.5)
    stopped = statuses(after).count("stopped")
    assert [audit.status for audit in after.audits.values()] == ["finished"] * math.ceil(
        stopped / 2
    )


@pytest.mark.parametrize("schedule", [{}, *SCHEDULES], ids=str)
def test_an_audit_changes_nothing_of_the_trials(tmp_path: Path, schedule: dict[str, Any]) -> None:
    plain = sweep(tmp_path / "plain", grid(RATES, **schedule))
    audited = sweep(tmp_path / "audited", grid(RATES, **schedule), audit=1.0)
    assert (statuses(audited), decisions(audited)) == (statuses(plain), decisions(plain))
    assert curves(audited) == curves(plain)


def test_audited_curves_are_those_of_whole_trainings(tmp_path: Path, whole: Any) -> None:
    after = sweep(tmp_path, grid(RATES), audit=1.0)
    found = {
        audit.label: [(p["step"], p["val_loss"]) for p in audit.curve]
        for audit in after.audits.values()
    }
    assert found == {label: whole[label.removesuffix(" (audit)")] for label in found}


def test_an_audit_may_follow_later_and_grow(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    first = sweep(tmp_path, grid(RATES), audit=0.3)
    second = sweep(tmp_path, grid(RATES), audit=0.6)
    assert set(first.audits) < set(second.audits)


@pytest.mark.parametrize("records", range(1, 60, 6))
@pytest.mark.fault("a crash in an audit", "the same audit")
def test_a_crash_in_an_audit_changes_nothing(tmp_path: Path, records: int) -> None:
    whole = sweep(tmp_path / "whole", grid(RATES), audit=0.5)
    sweep(tmp_path / "cut", grid(RATES), audit=0.5, records=records)
    after = sweep(tmp_path / "cut", grid(RATES), audit=0.5)
    assert set(after.audits) == set(whole.audits)
    assert {audit.status for audit in after.audits.values()} == {"finished"}


@pytest.mark.parametrize("audit", [0.0, 1.0])
@pytest.mark.parametrize("records", [8, 25, 45, math.inf])
def test_a_larger_grid_decides_as_it_does_without_an_audit(
    tmp_path: Path, records: float, audit: float
) -> None:
    few, more = [4e-3, 2e-3, 1e-3], [4e-3, 2e-3, *(1e-4 * n for n in range(1, 9)), 1e-3]
    sweep(tmp_path / "plain", grid(few), slots=3)
    plain = sweep(tmp_path / "plain", grid(more), slots=3)
    sweep(tmp_path / "audited", grid(few), audit=audit, slots=3)
    sweep(tmp_path / "audited", grid(more), audit=audit, slots=3, records=records)
    audited = sweep(tmp_path / "audited", grid(more), audit=audit, slots=3)
    assert statuses(audited) == statuses(plain)


def test_dropping_the_schedule_finishes_what_was_audited(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), audit=1.0)
    assert statuses(sweep(tmp_path, grid(RATES, **NONE))) == ["finished"] * 8


def test_a_sweep_with_an_audit_to_come_is_not_done(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert not driver(ledger, request(grid(RATES)), audit=0.1).is_done()


def test_an_audit_that_has_ended_is_done(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES), audit=0.5)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert driver(ledger, request(grid(RATES)), audit=0.5).is_done()


DECAYED = {"policy": "asha", "grace": "1/8", "score": "decayed"}


def misleading(config: dict[str, Any], share: float) -> float:
    """Losses that are ordered upside down before the end."""
    loss = v_shaped(config, share)
    return loss if share == 1 else 9 - loss


def test_decayed_scores_decide_where_raw_ones_mislead(tmp_path: Path) -> None:
    raw = sweep(tmp_path / "raw", grid(RATES), misleading)
    decayed = sweep(tmp_path / "decayed", grid(RATES, **DECAYED), misleading)
    finished = [
        {trial.label for trial in of.trials.values() if trial.status == "finished"}
        for of in (raw, decayed)
    ]
    assert ("lr=0.004" in finished[0], "lr=0.004" in finished[1]) == (False, True)


def test_branches_are_counted_in_what_was_spent(tmp_path: Path) -> None:
    plain = sweep(tmp_path / "plain", grid(RATES))
    branched = sweep(tmp_path / "branched", grid(RATES, **DECAYED))
    arrivals = [
        at for trial in branched.trials.values() for at in (1024, 3072) if trial.tokens >= at
    ]
    extra = sum(round(0.2 * at) for at in arrivals)
    assert branched.spent_tokens - plain.spent_tokens == extra


def test_a_branch_that_diverges_is_never_promoted(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **DECAYED)))
        conductor.begin({})
        engine = Engine(conductor, v_shaped)
        engine.decayed = lambda config: math.inf
        engine.run()
        assert statuses(conductor.sweep) == ["stopped"] * 8


def test_raw_scores_may_follow_decayed_ones_but_not_the_other_way(tmp_path: Path) -> None:
    sweep(tmp_path / "one", grid(RATES, **DECAYED), records=5)
    assert "finished" in statuses(sweep(tmp_path / "one", grid(RATES)))
    sweep(tmp_path / "other", grid(RATES), records=5)
    with pytest.raises(
        RefusedError, match=r"schedule.score: trial \w+ has passed the rung at 1024"
    ):
        sweep(tmp_path / "other", grid(RATES, **DECAYED))


@pytest.mark.parametrize("records", range(1, 24, 3))
@pytest.mark.fault("a crash between decay branches", "the same decisions")
def test_a_crash_with_branches_changes_no_decision(tmp_path: Path, records: int) -> None:
    whole = sweep(tmp_path / "whole", grid(RATES, **DECAYED), misleading, slots=1)
    sweep(tmp_path / "cut", grid(RATES, **DECAYED), misleading, slots=1, records=records)
    again = sweep(tmp_path / "cut", grid(RATES, **DECAYED), misleading, slots=1)
    assert (statuses(again), decisions(again)) == (statuses(whole), decisions(whole))


@pytest.mark.parametrize("records", [30, 45])
def test_audits_of_branched_trials_go_on_after_a_crash(tmp_path: Path, records: int) -> None:
    sweep(tmp_path, grid(RATES, **DECAYED), audit=1.0, records=records)
    after = sweep(tmp_path, grid(RATES, **DECAYED), audit=1.0)
    assert {audit.status for audit in after.audits.values()} == {"finished"}


def test_audits_have_the_decayed_scores_that_a_policy_would_compare(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES, **DECAYED), audit=1.0)
    rungs = set(request(grid(RATES, **DECAYED)).space.schedule.rungs(8 * 1024))
    scored = [
        {row["tokens"] for row in audit.curve if "decayed_val_loss" in row}
        for audit in after.audits.values()
    ]
    assert scored == [rungs] * len(after.audits)


def test_bits_per_byte_of_two_definitions_are_not_joined(tmp_path: Path) -> None:
    tree = grid([1e-3], **NONE) | {"metric": "bits_per_byte"}
    after = sweep(tmp_path, tree, records=2)
    refuse_other_bits(after, request(tree))  # of this version: nothing to refuse
    assert after.request is not None
    del after.request["bits"]
    with pytest.raises(RefusedError, match="ends of documents"):
        refuse_other_bits(after, request(tree))


def test_losses_of_an_old_ledger_go_with_new_ones(tmp_path: Path) -> None:
    tree = grid([1e-3], **NONE)
    after = sweep(tmp_path, tree, records=2)
    assert after.request is not None
    del after.request["bits"]
    refuse_other_bits(after, request(tree))


# Values that the space no longer has


def labels(of: led.Sweep) -> set[str]:
    return {trial.label for trial in of.trials.values()}


def test_a_value_that_is_removed_is_neither_trained_nor_ranked(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE), records=3)
    after = sweep(tmp_path, grid(RATES[:3], **NONE))
    assert labels(after) == {"lr=0.0005", "lr=0.001", "lr=0.002"}
    assert {trial.label: trial.status for trial in after.withdrawn.values()} == {
        f"lr={rate:g}": "planned" for rate in RATES[3:]
    }


def test_a_withdrawn_trial_keeps_what_it_had_measured(tmp_path: Path, whole: Any) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    after = sweep(tmp_path, grid(RATES[:3], **NONE))
    kept = {
        t.label: [(p["step"], p["val_loss"]) for p in t.curve] for t in after.withdrawn.values()
    }
    assert kept == {label: whole[label] for label in kept} and len(kept) == 5


def test_a_value_that_comes_back_continues_where_it_was(tmp_path: Path, whole: Any) -> None:
    sweep(tmp_path, grid(RATES, **NONE), records=5)
    sweep(tmp_path, grid(RATES[1:], **NONE))
    after = sweep(tmp_path, grid(RATES, **NONE))
    assert curves(after) == whole and not after.withdrawn
    assert after.spent_tokens == sum(trial.tokens for trial in after.trials.values())


def test_a_sweep_with_a_value_to_withdraw_is_not_done(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:3], **NONE)))
        assert (conductor.is_done(), conductor.has_work()) == (False, False)
        conductor.begin({})
        assert conductor.is_done()


def narrowed(folder: Path, how: Loss = losses) -> led.Sweep:
    """A study whose best rate is removed while the runs at it are being trained, resumed on five slots."""
    schedule = {"policy": "asha", "eta": 3, "grace": "1/4"}
    tree, rates = study(schedule=schedule), [1e-3, 4e-3, 1.6e-2]
    sweep(folder, tree | {"retune": {"optim.lr": {"grid": rates}}}, losses, slots=5, records=23)
    left = tree | {"retune": {"optim.lr": {"grid": [rates[0], rates[2]]}}}
    return sweep(folder, left, how, slots=5)


def test_a_run_that_is_being_trained_when_its_values_are_given_up_is_withdrawn(
    tmp_path: Path,
) -> None:
    after = narrowed(tmp_path)
    given_up = [trial for trial in after.withdrawn.values() if trial.role == "run"]
    assert [(one.label, one.status) for one in given_up] == [
        ("baseline lr=0.004 seed=0", "planned"),
        ("baseline lr=0.004 seed=1", "planned"),
    ]
    assert all(0 < one.tokens < one.budget for one in given_up) and not after.running
    assert set(statuses(after)) == {"finished", "stopped"}


def test_a_run_that_fails_after_its_values_were_given_up_is_withdrawn_too(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        rows = led.read(led.Files(tmp_path))
        chosen = [row["values"] for row in rows if row.get("arm") == "baseline" and "tried" in row]
        if config["optim"]["lr"] == 4e-3 and chosen[-1] == {"optim.lr": 1e-3}:
            raise ZeroDivisionError
        return losses(config, share)

    after = narrowed(tmp_path, how)
    assert len([one for one in after.withdrawn.values() if one.reason]) == 2
    assert set(statuses(after)) == {"finished", "stopped"}


def test_a_grid_that_loses_its_best_value_chooses_from_the_others(tmp_path: Path) -> None:
    narrowed(tmp_path)
    chosen = [row["values"] for row in led.read(led.Files(tmp_path)) if row["kind"] == "chosen"]
    assert None not in chosen


def test_a_withdrawn_trial_stops_no_other(tmp_path: Path) -> None:
    """The best three rates are removed: the best of the rest finishes."""
    sweep(tmp_path, grid(RATES))
    after = sweep(tmp_path, grid([5e-4, 1.6e-2, 3.2e-2, 6.4e-2]))
    finished = {t.label for t in after.trials.values() if t.status == "finished"}
    assert "lr=0.016" in finished


def left(folder: Path, tree: dict[str, Any]) -> Left:
    return Left.of(driver(led.ReadLedger(led.Files(folder)), request(tree)).state)


def test_nothing_is_left_of_a_finished_sweep(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    found = left(tmp_path, grid(RATES))
    assert (found.tokens, found.trained) == (0, after.spent_tokens)
    assert list(found.states.values()) == statuses(after)


def test_what_was_stopped_is_left_where_nothing_stops_it_now(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    whole = sum(trial.budget for trial in after.trials.values())
    assert left(tmp_path, grid(RATES, **NONE)).tokens == whole - after.spent_tokens


def test_the_rest_of_a_trial_is_left_below_a_lower_target(tmp_path: Path) -> None:
    after = sweep(tmp_path, aiming({"val_loss": 2.5}, [4e-3]), slots=1)
    (trial,) = after.trials.values()
    assert trial.tokens < trial.budget
    lower = left(tmp_path, aiming({"val_loss": 1.0}, [4e-3]))
    assert lower.tokens == trial.budget - trial.tokens


def test_new_values_and_withdrawn_ones_are_told_apart(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES[:2], **NONE))
    found = left(tmp_path, grid(RATES[1:3], **NONE))
    assert list(found.states.values()) == ["finished", "new"]
    assert (found.kept, found.new) == (1, 1)
    assert found.withdrawn == ["lr=0.0005"]
    assert found.tokens == next(iter(after.trials.values())).budget


def test_an_interrupted_trial_is_unfinished(tmp_path: Path) -> None:
    """Whether a driver trains it at the moment is not known."""
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:2], **NONE)))
        conductor.begin({})
        Engine(conductor, v_shaped, slots=1).run(1)
    found = left(tmp_path, grid(RATES[:2], **NONE))
    assert list(found.states.values()) == ["unfinished", "planned"]


def test_a_stopped_trial_may_go_on_where_others_join_its_pool(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES[1:]))
    whole = sum(trial.budget for trial in after.trials.values())
    added = whole // len(after.trials)
    assert left(tmp_path, grid(RATES)).tokens == whole - after.spent_tokens + added


def test_a_withdrawn_trial_whose_value_returns_is_restored(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES))
    sweep(tmp_path, grid(RATES[2:]))
    found = left(tmp_path, grid(RATES))
    assert list(found.states.values())[:2] == ["restored", "restored"]
    before = led.fold(led.read(led.Files(tmp_path))).spent_tokens
    assert sweep(tmp_path, grid(RATES)).spent_tokens - before <= found.tokens


def test_what_a_smaller_pool_promotes_is_left(tmp_path: Path) -> None:
    """Without the best rates, others are the best."""
    sweep(tmp_path, grid(RATES))
    narrow = grid([5e-4, 1.6e-2, 3.2e-2, 6.4e-2])
    before = led.fold(led.read(led.Files(tmp_path))).spent_tokens
    found = left(tmp_path, narrow)
    assert 0 < sweep(tmp_path, narrow).spent_tokens - before <= found.tokens
    assert left(tmp_path, narrow).tokens == 0


def test_audits_are_left(tmp_path: Path) -> None:
    after = sweep(tmp_path, grid(RATES))
    conductor = driver(led.ReadLedger(led.Files(tmp_path)), request(grid(RATES)), audit=1.0)
    whole = sum(trial.budget for trial in after.trials.values())
    assert Left.of(conductor.state).tokens == whole - after.spent_tokens


def test_a_target_that_is_reached_leaves_nothing_to_do(tmp_path: Path) -> None:
    sweep(tmp_path, aiming({"val_loss": 2.9}, RATES), slots=1)
    found = left(tmp_path, aiming({"val_loss": 2.9}, RATES))
    assert found.tokens > 0 and found.cap and found.cap["cap"] == "target"


def test_runs_that_are_not_planned_yet_are_left(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE))
    assert left(tmp_path, grid(RATES, **NONE) | {"confirm": 2}).tokens == 2 * 8192


def test_start_points_are_no_samples_that_push_out_others(tmp_path: Path) -> None:
    after = sweep(tmp_path, {**OPTUNA, "start": ["base"]})
    assert (len(after.trials), len(after.withdrawn)) == (13, 0)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        assert driver(ledger, request({**OPTUNA, "start": ["base"]})).is_done()


def test_fewer_samples_withdraw_the_later_ones(tmp_path: Path) -> None:
    def drawn(samples: int) -> dict[str, Any]:
        tree = grid([], **NONE)
        search = {"method": "random", "samples": samples}
        return {**tree, "search": search, "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}}}

    before = list(sweep(tmp_path, drawn(8), records=3).trials)
    after = sweep(tmp_path, drawn(3))
    assert (list(after.trials), list(after.withdrawn)) == (before[:3], before[3:])


def test_an_arm_that_is_removed_is_withdrawn(tmp_path: Path) -> None:
    nope = {"hypothesis": "Worse.", "set": {"model.position": "none"}}
    post = {"hypothesis": "Worse.", "set": {"model.norm": "post"}}
    tree = {
        "question": "q?",
        "arms": {"nope": nope, "post": post},
        "seeds": [0, 1],
        "schedule": NONE,
    }
    sweep(tmp_path, tree, records=2)
    after = sweep(tmp_path, {**tree, "arms": {"post": post}})
    assert {trial.arm for trial in after.trials.values()} == {"baseline", "post"}
    assert {trial.arm for trial in after.withdrawn.values()} == {"nope"}


def aiming(target: dict[str, Any], rates: list[float] = RATES, **schedule: Any) -> dict[str, Any]:
    """A space of learning rates with a target; at 4e-3 a loss of 2.25 is reached at 3/4 of the budget."""
    return {**grid(rates, **(schedule or NONE)), "target": target}


def test_a_target_ends_the_sweep_at_the_next_records(tmp_path: Path) -> None:
    after = sweep(tmp_path, aiming({"val_loss": 2.25}, [1e-3, 4e-3, 8e-3]))
    assert [(trial.status, trial.reason) for trial in after.trials.values()] == [
        ("planned", "the sweep reached its target"),
        ("finished", "reached val_loss 2.25"),
        ("planned", ""),
    ]


def test_a_sweep_at_its_target_starts_nothing(tmp_path: Path) -> None:
    before = sweep(tmp_path, aiming({"val_loss": 2.25}))
    assert sweep(tmp_path, aiming({"val_loss": 2.25})).spent_tokens == before.spent_tokens


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_that_waits_for_a_worker_when_the_target_is_reached_is_not_trained(
    tmp_path: Path, whole: Any, workers: int
) -> None:
    tree = aiming({"val_loss": 2.25}, [4e-3, 1e-3, 8e-3, 2e-3])
    after = sweep(tmp_path, tree, slots=4, workers=workers)
    begun = [trial.label for trial in after.trials.values() if trial.attempt]
    assert begun == ["lr=0.004", "lr=0.001"][:workers]
    assert sweep(tmp_path, tree).spent_tokens == after.spent_tokens
    assert curves(sweep(tmp_path, aiming({"val_loss": 1.0}))) == whole


@pytest.mark.parametrize("ends", ["sweep", "trial"])
@pytest.mark.parametrize("then", [{"val_loss": 1.0}, {"val_loss": 2.25, "ends": "nothing"}])
def test_a_lower_target_goes_on_with_the_same_curves(
    tmp_path: Path, whole: Any, ends: str, then: dict[str, Any]
) -> None:
    sweep(tmp_path, aiming({"val_loss": 2.25, "ends": ends}))
    assert curves(sweep(tmp_path, aiming(then))) == whole


def test_a_target_may_end_each_trial_that_reaches_it(tmp_path: Path) -> None:
    after = sweep(tmp_path, aiming({"val_loss": 2.25, "ends": "trial"}, [4e-3, 8e-3, 2.0]))
    assert [trial.curve[-1]["val_loss"] for trial in after.trials.values()] == [
        pytest.approx(2.25),
        pytest.approx(2.225),
        pytest.approx(2.8966, abs=1e-4),
    ]
    assert statuses(after) == ["finished"] * 3


def test_a_trial_that_crashed_at_the_target_is_at_its_end(tmp_path: Path) -> None:
    """The driver dies before the row that ends the trial."""
    tree = aiming({"val_loss": 2.25, "ends": "trial"}, [4e-3])
    spent = sweep(tmp_path, tree).spent_tokens
    file = led.Files(tmp_path).ledger
    lines = file.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"kind":"finished"' in line)
    file.write_text("".join(lines[:cut]))
    after = sweep(tmp_path, tree)
    assert (statuses(after), after.spent_tokens) == (["finished"], spent)


def test_a_retry_that_lost_the_record_at_the_target_reaches_it_again(tmp_path: Path) -> None:
    """The worker dies between the record and its checkpoint."""
    tree = aiming({"val_loss": 2.25}, [4e-3])
    tree["base"] = {"run.checkpoint_every_tokens": 8_192}
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, 1)
        engine.run(5)
        ((job, _),) = engine.running
        event = {"event": "measured", "save": False, "step": 48, "tokens": 6144, "last": False}
        event |= {"val_loss": 2.25, "bits_per_byte": 1.0, "train_loss": 2.0, "seconds": 1.0}
        event |= {"lr": 0.1, "grad_norm": 1.0, "tokens_per_s": 9.0}
        assert not conductor.reported(job.trial, event)
        conductor.failed(job.trial, "error", "lost", "trace")
        engine.running.clear()
        engine.run(1)
        assert statuses(conductor.sweep) == ["running"]
        engine.run()
    after = led.fold(led.read(led.Files(tmp_path)))
    (trial,) = after.trials.values()
    assert (trial.status, trial.curve[-1]["val_loss"]) == ("finished", 2.25)


def test_a_target_that_a_withdrawn_trial_reached_ends_nothing(tmp_path: Path) -> None:
    sweep(tmp_path, aiming({"val_loss": 2.5}, [4e-3, 6.4e-2]), slots=1)
    after = sweep(tmp_path, aiming({"val_loss": 2.5}, [6.4e-2, 8e-3]))
    assert [(t.label, t.status, t.reason) for t in after.trials.values()] == [
        ("lr=0.064", "planned", "the sweep reached its target"),
        ("lr=0.008", "finished", "reached val_loss 2.5"),
    ]


def test_a_restored_trial_at_the_target_trains_no_further(tmp_path: Path) -> None:
    target = {"val_loss": 2.25, "ends": "trial"}
    before = sweep(tmp_path, aiming(target, [4e-3, 8e-3]))
    sweep(tmp_path, aiming(target, [8e-3]))
    assert curves(sweep(tmp_path, aiming(target, [4e-3, 8e-3]))) == curves(before)


def test_an_audit_goes_on_below_the_target(tmp_path: Path) -> None:
    tree = aiming({"val_loss": 2.5, "ends": "trial"}, policy="asha", eta=3, grace="1/8")
    after = sweep(tmp_path, tree, audit=1.0)
    assert after.audits and all(one.is_whole for one in after.audits.values())


# What the driver keeps instead of looking at every trial again


def kept_as_found(
    folder: Path, tree: dict[str, Any], records: float = math.inf, loss: Loss = v_shaped
) -> set[bool]:
    """Run or resume a sweep; whether what is kept is what all trials say, at each of its records."""
    agrees = set()
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(tree), audit=0.5)
        conductor.begin({})

        def watched(config: dict[str, Any], share: float) -> float:
            of = conductor.sweep
            ready = [trial for trial in of.trials.values() if conductor.state.is_ready(trial)]
            ready.sort(key=lambda trial: not trial.curve)  # the begun ones first
            running = {trial.trial for trial in of.attempted if trial.status == "running"}
            spent = sum(trial.spent_tokens for trial in of.everything)
            flops = sum(trial.spent_tokens * trial.flops_per_token for trial in of.everything)
            agrees.add(
                [place[-1] for place in conductor.state.ready] == [one.trial for one in ready]
            )
            agrees.add((of.running, of.spent_tokens, of.spent_flops) == (running, spent, flops))
            return loss(config, share)

        Engine(conductor, watched).run(records)
    return agrees


def stumbling(config: dict[str, Any], share: float) -> float:
    """One rate always fails, one diverges."""
    if config["optim"]["lr"] == RATES[1]:
        raise ArithmeticError
    return math.inf if config["optim"]["lr"] == RATES[7] else v_shaped(config, share)


EARLY, LATE = {"policy": "asha", "grace": "1/8"}, {"policy": "sha", "grace": "1/4"}
OTHERS = ("asha_stopping", "median", "hyperband", "i_epoch")


@pytest.mark.parametrize(
    "schedule", [NONE, EARLY, LATE, *({"policy": name, "grace": "1/4"} for name in OTHERS)], ids=str
)
def test_what_may_start_is_kept_with_every_policy(tmp_path: Path, schedule: dict[str, Any]) -> None:
    assert kept_as_found(tmp_path, grid(RATES, **schedule), loss=stumbling) == {True}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (grid(RATES, **EARLY), grid(RATES, **EARLY)),
        (grid(RATES, **EARLY), grid(RATES, **LATE)),
        (grid(RATES, **LATE), grid(RATES, **NONE)),
        (grid(RATES, **EARLY), grid(RATES[3:], **EARLY)),
        (grid(RATES[3:], **EARLY), grid(RATES, **EARLY)),
        (aiming({"val_loss": 2.25}), grid(RATES, **NONE)),
    ],
    ids=["resumed", "another policy", "no policy", "withdrawn", "extended", "no target"],
)
def test_what_may_start_is_kept_across_sessions(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any]
) -> None:
    kept_as_found(tmp_path, first, records=25)
    assert kept_as_found(tmp_path, then, loss=stumbling) == {True}


def test_what_may_start_is_kept_when_trials_are_restored(tmp_path: Path) -> None:
    kept_as_found(tmp_path, grid(RATES, **EARLY), records=25)
    kept_as_found(tmp_path, grid(RATES[3:], **EARLY), records=10)
    assert kept_as_found(tmp_path, grid(RATES, **EARLY)) == {True}


def test_trials_that_were_begun_go_on_before_new_ones_start(tmp_path: Path) -> None:
    sweep(tmp_path, grid(RATES, **NONE), records=3)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid([1.0, *RATES], **NONE)))
        conductor.begin({})
        begun = [trial.trial for trial in conductor.sweep.trials.values() if trial.curve]
        jobs = [conductor.next_job(), conductor.next_job()]
    assert len(begun) == 2 and [job and job.trial for job in jobs] == begun


# Jobs that wait for a worker


def test_a_job_that_waits_for_a_worker_is_not_started(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], **NONE)))
        conductor.begin({})
        job = conductor.next_job()
        assert job is not None
        assert not [row for row in ledger.rows() if row["kind"] == "started"]
        conductor.began(job.trial, worker="host:7", address="10.0.0.1", device="GPU 0")
        (row,) = [row for row in ledger.rows() if row["kind"] == "started"]
    assert (row["attempt"], row["step"], row["checkpoint"]) == (1, 0, None)
    assert (row["worker"], row["address"], row["device"]) == ("host:7", "10.0.0.1", "GPU 0")


def test_a_job_that_waits_is_handed_out_once_and_is_work(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], **NONE)))
        conductor.begin({})
        job = conductor.next_job()
        assert job is not None and conductor.next_job() is None
        assert [trial.trial for trial in conductor.state.under_way] == [job.trial]
        assert conductor.has_work()


@pytest.mark.parametrize("schedule", [NONE, {}, *SCHEDULES], ids=str)
def test_jobs_that_wait_change_no_curve_and_are_all_trained(
    tmp_path: Path, schedule: dict[str, Any], whole: Any
) -> None:
    after = sweep(tmp_path, grid(RATES, **schedule), slots=4, workers=1)
    found = curves(after)
    assert found == {label: whole[label][: len(curve)] for label, curve in found.items()}
    assert all(found.values()) and set(statuses(after)) <= {"finished", "stopped"}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_round_waits_for_jobs_that_wait(tmp_path: Path, workers: int) -> None:
    """No trial leaves a rung before those are there whose jobs wait for a worker."""
    tree = grid(RATES, policy="sha", eta=2, grace="1/8")
    alone = sweep(tmp_path / "alone", tree, slots=1)
    queued = sweep(tmp_path / "queued", tree, slots=6, workers=workers)
    assert statuses(queued) == statuses(alone)


@pytest.mark.parametrize("records", range(1, 20, 3))
@pytest.mark.fault("a crash while jobs wait for a worker", "the curves of whole runs")
def test_a_crash_while_jobs_wait_loses_nothing(tmp_path: Path, records: int, whole: Any) -> None:
    sweep(tmp_path, grid(RATES, **NONE), slots=4, workers=1, records=records)
    assert curves(sweep(tmp_path, grid(RATES, **NONE), slots=4, workers=2)) == whole


def test_a_trial_that_is_to_be_stopped_while_it_waits_is_stopped(tmp_path: Path) -> None:
    """Before it begins."""
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:2], **NONE)))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, 2, 1)
        engine.run(1)
        (waiting,) = engine.queue
        steering.ask(led.Files(tmp_path), steering.Request("stop", waiting.trial))
        engine.run()
    one = led.fold(led.read(led.Files(tmp_path))).trials[waiting.trial]
    assert (one.status, one.is_stopped_by_hand, len(one.curve)) == ("stopped", True, 0)


def test_a_job_that_is_taken_back_because_it_is_stopped_is_not_handed_out_again(
    tmp_path: Path,
) -> None:
    """Also before requests are looked for again."""
    now = 0.0
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = replace(driver(ledger, request(grid(RATES[:1], **NONE))), clock=lambda: now)
        conductor.begin({})
        job = conductor.next_job()
        assert job is not None
        now += 5
        steering.ask(led.Files(tmp_path), steering.Request("stop", job.trial))
        conductor.take_requests()
        assert conductor.no_longer_wanted() == [job.trial]
        conductor.take_back([job.trial])
        assert (conductor.next_job(), conductor.has_work()) == (None, False)


@pytest.mark.parametrize("schedule", [NONE, *SCHEDULES], ids=str)
def test_what_waits_when_a_sweep_is_ended_does_not_begin_and_is_trained_later(
    tmp_path: Path, schedule: dict[str, Any], whole: Any
) -> None:
    tree = grid(RATES, **schedule)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, 4, 1)
        engine.run(3)
        waiting = {job.trial: job.attempt for job in engine.queue}
        steering.ask(led.Files(tmp_path), steering.Request("end"))
        engine.run()
        assert conductor.is_capped()
        started = [row for row in ledger.rows() if row["kind"] == "started"]
    assert waiting and not any(row["attempt"] >= waiting.get(row["trial"], 9) for row in started)
    after = sweep(tmp_path, tree)
    found = curves(after)
    assert found == {label: whole[label][: len(curve)] for label, curve in found.items()}
    assert set(statuses(after)) <= {"finished", "stopped"}


def test_what_waits_when_a_cap_is_reached_does_not_begin(tmp_path: Path) -> None:
    tree = grid(RATES, **NONE) | {"caps": {"tokens": 1}}
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        Engine(conductor, v_shaped, 4, 1).run()
        assert [row["kind"] for row in ledger.rows()].count("started") == 1
