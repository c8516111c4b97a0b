"""What the log advises to do next, and the observations that advice rests on."""

import math
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, is_bare, loss, study
from ledgers import BUDGET, EVERY, Story, ended, story

from sweeps.report.entries import Entry, entries_under

SEEDS = [0, 1, 2, 3]


def entry_of(folder: Path, name: str) -> Entry:
    """An experiment of the only sweep in a folder."""
    return next(entry for entry in entries_under(folder) if entry.name == name)


def arm_of(folder: Path, how: Any = loss, **more: Any) -> Entry:
    """The experiment of the arm of a study of four seeds."""
    conduct(folder / "s", study(seeds=SEEDS, **more), how)
    return entry_of(folder, "s/nope")


def beginning(entry: Entry, rule: str) -> list[str]:
    """The next steps by a rule."""
    return [step for step in entry.next_steps if step.startswith(rule)]


def test_trials_without_a_result_are_to_be_resumed(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    (step,) = beginning(entry_of(tmp_path, "a"), "Resume")
    assert "1 of 2 trials" in step


def test_nothing_is_to_be_resumed_once_all_have_ended(tmp_path: Path) -> None:
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.1, 2e-3: 3.0, 4e-3: 3.1})
    assert beginning(entry_of(tmp_path, "a"), "Resume") == []


@pytest.mark.parametrize(("losses", "steps"), [((3.0,), 1), ((3.0, 3.01), 0)])
def test_a_best_that_was_run_with_one_seed_needs_more(
    tmp_path: Path, losses: tuple[float, ...], steps: int
) -> None:
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.2, 2e-3: losses, 4e-3: 3.1})
    assert len(beginning(entry_of(tmp_path, "a"), "More seeds")) == steps


@pytest.mark.parametrize(("best", "steps"), [(2e-3, 0), (4e-3, 1)])
def test_only_a_best_on_the_edge_needs_further_values(
    tmp_path: Path, best: float, steps: int
) -> None:
    rates = {rate: 3 + abs(math.log(rate / best)) for rate in (1e-3, 2e-3, 4e-3)}
    ended(tmp_path / "a", "optim.lr", rates)
    assert len(beginning(entry_of(tmp_path, "a"), "optim.lr")) == steps


def test_an_arm_on_the_edge_of_its_grid_is_to_be_re_tuned(tmp_path: Path) -> None:
    (step,) = beginning(arm_of(tmp_path, retune=RETUNE), "Re-tune")
    assert "0.00025" in step


def test_an_arm_inside_its_grid_is_not_to_be_re_tuned(tmp_path: Path) -> None:
    grid = {"optim.lr": {"grid": [2.5e-4, 1e-3, 4e-3]}}
    assert beginning(arm_of(tmp_path, retune=grid), "Re-tune") == []


def test_a_trial_of_a_grid_that_failed_is_no_reason_to_re_tune(tmp_path: Path) -> None:
    def failing(config: dict[str, Any], share: float) -> float:
        if is_bare(config) and config["optim"]["lr"] == 1.6e-2:
            raise ArithmeticError("no")
        return loss(config, share)

    entry = arm_of(tmp_path, failing, retune={"optim.lr": {"grid": [2.5e-4, 1e-3, 1.6e-2]}})
    assert any("1 of the 3 trials" in line and "failed" in line for line in entry.observations)
    assert beginning(entry, "Re-tune") == []


def test_a_grid_that_missed_a_better_value_is_to_be_re_tuned(tmp_path: Path) -> None:
    """On the tuning seed the arm likes 1e-3; on the others 4e-3, where its twin runs, is better."""

    def misled(config: dict[str, Any], share: float) -> float:
        early = is_bare(config) and config["run"]["seed"] < 1000 and config["optim"]["lr"] < 4e-3
        return loss(config, share) + early

    arms = {"nope": NOPE, "same": {**NOPE, "retune": False}}
    entry = arm_of(tmp_path, misled, retune={"optim.lr": {"grid": [2.5e-4, 1e-3, 4e-3]}}, arms=arms)
    (step,) = beginning(entry, "Re-tune")
    assert "same" in step


def scattered(gap: float) -> Any:
    """An arm whose differences are 0.03 up or down by seed, around a gap."""

    def how(config: dict[str, Any], share: float) -> float:
        seed = config["run"]["seed"]
        own = (0.03 if seed % 2 else -0.03) * is_bare(config)
        return 3.0 + 0.01 * seed + gap * is_bare(config) + own + (1 - share)

    return how


def test_an_open_question_asks_for_the_seeds_that_would_settle_it(tmp_path: Path) -> None:
    """0.02 give or take 0.0346: a paired t test finds that in 26 seeds with a power of 80%."""
    (step,) = beginning(arm_of(tmp_path, scattered(0.02)), "More seeds")
    assert "22 more seeds" in step


def test_a_settled_question_asks_for_no_seeds(tmp_path: Path) -> None:
    assert beginning(arm_of(tmp_path, scattered(1.0)), "More seeds") == []


def observed(folder: Path, tell_records: Any) -> list[str]:
    """The observations on a single run with these records."""
    with story(folder / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell_records(tell, trial)
        tell.finish(trial)
    return entry_of(folder, "a").observations


@pytest.mark.parametrize(
    ("half", "end", "widens"),
    [(0.1, 0.2, True), (0.2, 0.1, False), (-0.2, -0.1, False), (-0.1, 0.1, True)],
)
def test_the_gap_widens_where_it_is_above_zero_and_grew(
    tmp_path: Path, half: float, end: float, widens: bool
) -> None:
    def gaps(tell: Story, trial: str) -> None:
        tell.measure(trial, BUDGET // 2, 3.5, train_loss=3.5 - half)
        tell.measure(trial, BUDGET, 3.0, train_loss=3.0 - end)

    (said,) = [line for line in observed(tmp_path, gaps) if "the training loss" in line]
    assert ("The gap widens" in said) is widens


def test_the_slope_is_that_from_the_last_record_before_the_last_tenth(tmp_path: Path) -> None:
    """Of 16 records, 14 are before 90% of the tokens; 15 are before 95%, and 12 before 80%."""

    def falling(tell: Story, trial: str) -> None:
        for number in range(1, 17):
            tell.measure(trial, number * EVERY, 4 - number / 100)

    assert any("12%" in line and "fell by 0.0200" in line for line in observed(tmp_path, falling))
