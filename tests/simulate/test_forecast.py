"""What a sweep is expected to take, against what it takes."""

import itertools
from pathlib import Path

import pytest
from fakes import MACHINE, Engine, driver, grid, request, v_shaped
from ledgers import EVERY, Story

from sweeps import ledger as led
from sweeps.engine.machine import known_speeds, learn, probes
from sweeps.plan import trials as pl
from sweeps.plan.request import Request
from sweeps.simulate.forecast import START_UP, Forecast, forecast
from tinylm import config as cfg
from tinylm.machine import keep, measured_here

RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2]
BUDGET = 8_192  # of scale smoke


def expected(what: Request, speeds: list[float] | None = None, slots: int = 2) -> Forecast:
    return forecast(what, pl.load(what, pl.plan(what, MACHINE)), speeds, slots)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No results but those that a test makes."""
    monkeypatch.chdir(tmp_path)


def run(folder: Path, what: Request) -> led.Sweep:
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, what)
        conductor.begin({}, {"tokens": 1, "low": 1, "high": 1, "seconds": None, "basis": "b"})
        Engine(conductor, v_shaped).run()
        return conductor.sweep


def test_the_start_up_is_that_of_the_sweeps_before() -> None:
    what = request(grid(RATES, policy="none"))
    first = expected(what, [BUDGET] * 8, slots=1)
    assert (first.start_up, first.whole_seconds()) == (START_UP, 8 + START_UP)
    clock = itertools.count(0, 5).__next__  # five seconds a row
    with led.Ledger(led.Files(Path("results/a")), clock=clock) as ledger:
        tell = Story(ledger)
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        ledger.append("session", command="", slots=1)
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.measure(trial, EVERY, 3.0, seconds=2.0)
    assert expected(what, [BUDGET] * 8, slots=1).start_up == 13.0


def test_without_a_schedule_it_is_the_full_grid() -> None:
    found = expected(request(grid(RATES, policy="none")))
    assert (found.tokens, found.low, found.high) == (8 * BUDGET,) * 3


def test_stable_orders_are_made_up_where_nothing_is_known(tmp_path: Path) -> None:
    what = request(grid(RATES))
    found = expected(what)
    assert found.basis == "replay of made-up curves that never cross"
    assert found.low <= run(tmp_path / "s", what).spent_tokens <= found.high


def test_curves_of_earlier_sweeps_are_replayed() -> None:
    run(led.RESULTS / "before", request(grid(RATES, policy="none")))
    assert expected(request(grid(RATES))).basis == "replay of 8 curves of earlier sweeps"


def test_curves_with_another_budget_are_not() -> None:
    run(led.RESULTS / "before", request(grid(RATES, policy="none")))
    other = request({**grid(RATES), "base": {"budget.tokens": 2 * BUDGET}})
    assert expected(other).basis == "replay of made-up curves that never cross"


def test_stopped_curves_stay_behind_the_finished_ones() -> None:
    """The forecast of the sweep that has just run is what it used."""
    what = request(grid(RATES))
    spent = run(led.RESULTS / "before", what).spent_tokens
    found = expected(what)
    assert found.basis == "replay of 8 curves of earlier sweeps"
    assert found.low <= spent <= found.high


def test_curves_that_miss_the_first_rung_are_not_replayed() -> None:
    coarse = {"eval.every_tokens": BUDGET // 2, "run.checkpoint_every_tokens": BUDGET // 2}
    run(led.RESULTS / "before", request({**grid(RATES, policy="none"), "base": coarse}))
    assert expected(request(grid(RATES))).basis == "replay of made-up curves that never cross"


def test_the_trials_that_get_to_each_rung_are_counted() -> None:
    found = expected(request(grid(RATES)))
    assert found.occupancy == {BUDGET // 8: 8.0, 3 * BUDGET // 8: 2.0, BUDGET: 1.0}


def test_further_seeds_are_those_of_the_values_that_pass_the_first_rung(tmp_path: Path) -> None:
    """Two of eight, of which one finishes."""
    what = request({**grid(RATES), "seeds": [0, 1]})
    found = expected(what)
    assert found.occupancy == {BUDGET // 8: 10.0, 3 * BUDGET // 8: 4.0, BUDGET: 2.0}
    assert (found.trials, found.fewest, found.most) == (10.0, 10, 10)
    assert found.tokens == run(tmp_path / "s", what).spent_tokens


BUDGETS = {
    **grid([1.0]),
    "space": {"budget.tokens": {"grid": [BUDGET, 2 * BUDGET, 5 * BUDGET]}},
}


def test_trials_with_budgets_of_their_own_are_counted_at_shares_of_them() -> None:
    found = expected(request(BUDGETS))
    assert found.occupancy == {"1/8": 3.0, "3/8": 1.0, "1": 1.0}


def test_every_trial_with_a_budget_of_its_own_costs_its_own_tokens() -> None:
    """The first rung of all is the least; most is used where the longest finishes."""
    found = expected(request(BUDGETS))
    assert (found.low, found.high) == (BUDGET + 7 * BUDGET // 8, BUDGET + 5 * 7 * BUDGET // 8)


def test_time_is_that_of_the_tokens_of_each_budget() -> None:
    what = request({**BUDGETS, "schedule": {"policy": "none"}})
    assert expected(what, [BUDGET / 60] * 3, slots=1).seconds == pytest.approx(8 * 60)


def test_a_damaged_ledger_is_passed_over() -> None:
    file = led.Files(led.RESULTS / "before").ledger
    file.parent.mkdir(parents=True)
    file.write_text("{}\n")
    assert expected(request(grid(RATES))).tokens > 0


def test_time_is_that_of_the_slots_at_their_speeds() -> None:
    found = expected(request(grid(RATES, policy="none")), [BUDGET / 60] * 8, slots=2)
    assert found.seconds == pytest.approx(8 / 2 * 60)


def test_without_speeds_no_time_is_said() -> None:
    assert expected(request(grid(RATES))).seconds is None


def test_an_optuna_search_has_as_many_trials_as_samples() -> None:
    tree = grid(RATES, policy="none")
    tree |= {"search": {"method": "optuna", "samples": 5}}
    tree |= {"space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}}}
    assert expected(request(tree)).tokens == 5 * BUDGET


def test_a_forecast_is_written_once_for_what_is_asked(tmp_path: Path) -> None:
    for what in (request(grid(RATES)), request(grid(RATES)), request(grid(RATES[:4]))):
        run(tmp_path / "s", what)
    kinds = [row["kind"] for row in led.read(led.Files(tmp_path / "s"))]
    assert kinds.count("forecast") == 2


def test_speeds_are_measured_once_a_shape_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    what = request(grid(RATES[:2], policy="none"))
    configs = pl.load(what, pl.plan(what, MACHINE)).configs
    wide = cfg.overlay(configs[0], {"model.d_ff": 40})
    before = known_speeds([*configs, wide])
    said: list[str] = []
    speeds, inits = probes([*configs, wide], said.append)
    assert before is None and len(said) == 2 and speeds[0] == speeds[1]
    assert known_speeds([*configs, wide]) == speeds
    assert probes([*configs, wide], said.append) == (speeds, inits) and len(said) == 2


def test_trials_that_ran_faster_than_was_measured_correct_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    trials = list(run(tmp_path / "s", request(grid(RATES[:3], policy="none"))).trials.values())
    config = cfg.validate(trials[0].config, "")
    fastest = max(trial.curve[-1]["tokens"] / trial.curve[-1]["seconds"] for trial in trials)
    learn(trials)
    assert known_speeds([config]) is None  # nor is the loss at init known
    keep("speeds", {measured_here(config): [fastest / 2, 7.6]})
    learn(trials)
    assert known_speeds([config]) == [fastest]
    keep("speeds", {measured_here(config): [fastest * 2, 7.6]})
    learn(trials)
    assert known_speeds([config]) == [fastest * 2]


LOOKS = {
    "question": "q",
    "arms": {"nope": {"hypothesis": "h", "set": {"model.position": "none"}}},
    "seeds": {"looks": [3, 5, 10]},
    "schedule": {"policy": "none"},
}


def test_a_study_takes_its_first_look_at_least_and_its_last_at_most() -> None:
    """Six runs, twenty, or twelve: the mean of the looks."""
    found = expected(request(LOOKS))
    assert (found.low, found.tokens, found.high) == (6 * BUDGET, 12 * BUDGET, 20 * BUDGET)


def test_the_time_of_a_study_is_that_of_the_tokens_that_are_expected() -> None:
    assert expected(request(LOOKS), [BUDGET / 10] * 20).seconds == pytest.approx(12 * 10 / 2)
