"""The baseline is trained at other numbers of tokens, at its own best rate there."""

from pathlib import Path
from typing import Any

import pytest
from conducting import RETUNE, conduct, is_bare, study
from fakes import MACHINE, Loss, driver, problems, request

from sweeps import ledger as led
from sweeps.engine.left import Left
from sweeps.plan import horizons
from sweeps.plan import trials as pl
from sweeps.plan.space import TUNING_SEED

SPEEDUP = {"speedup": {"horizons": [0.5, 2], "seeds": 2}}


def by_tokens(config: dict[str, Any], share: float) -> float:
    """A loss that falls with the tokens, is lowest at twice the rate at twice the tokens, and is 0.1 higher for
    the arm."""
    tokens, rate = config["budget"]["tokens"] / 8192, config["optim"]["lr"]
    off = abs(rate - 4e-3 * tokens) * 10
    seed = config["run"]["seed"] % 3 / 1000
    return float(3.0 + tokens**-0.5 + off + 0.1 * is_bare(config) + seed * tokens + (1 - share))


def conducted(folder: Path, **more: Any) -> led.Sweep:
    """A study of one arm that is conducted to its end."""
    tree = study(retune=RETUNE) | {"seeds": [0, 1, 2]} | SPEEDUP | more
    return conduct(folder, tree, by_tokens)


def of_horizons(sweep: led.Sweep) -> list[led.Trial]:
    """The trials at other numbers of tokens."""
    return [one for one in sweep.trials.values() if one.role == "horizon"]


def test_each_horizon_has_its_own_best_of_three_rates(tmp_path: Path) -> None:
    rows = conducted(tmp_path).horizons
    assert {tokens: row["values"] for tokens, row in rows.items()} == {
        4096: {"optim.lr": 2e-3},
        16384: {"optim.lr": 8e-3},
    }


def test_the_rates_are_half_once_and_twice_that_of_the_baseline(tmp_path: Path) -> None:
    sweep = conducted(tmp_path)
    rates = [sweep.trials[one].value("optim.lr") for one in sweep.horizons[4096]["rates"]]
    assert rates == [2e-3, 4e-3, 8e-3]


def test_no_run_at_a_horizon_has_the_seed_that_chose_its_rate(tmp_path: Path) -> None:
    sweep = conducted(tmp_path)
    assert sweep.trials[sweep.horizons[4096]["rates"][0]].seed == TUNING_SEED
    assert list(sweep.horizons[4096]["trials"]) == ["0", "1"]


def test_a_horizon_has_a_whole_schedule(tmp_path: Path) -> None:
    sweep = conducted(tmp_path)
    assert {(one.budget, one.tokens, one.status) for one in of_horizons(sweep)} == {
        (4096, 4096, "finished"),
        (16384, 16384, "finished"),
    }


def test_horizons_begin_after_the_last_look(tmp_path: Path) -> None:
    conducted(tmp_path, seeds={"looks": [2, 3]})
    kinds = [row["kind"] for row in led.read(led.Files(tmp_path))]
    last = max(n for n, kind in enumerate(kinds) if kind == "look")
    assert last < kinds.index("horizon")


def test_a_study_without_a_speedup_trains_no_other_horizon(tmp_path: Path) -> None:
    sweep = conduct(tmp_path, study(retune=RETUNE, seeds=[0, 1, 2]), by_tokens)
    assert (of_horizons(sweep), sweep.horizons) == ([], {})


def test_a_speedup_that_is_added_later_trains_the_horizons_alone(tmp_path: Path) -> None:
    before = conduct(tmp_path, study(retune=RETUNE, seeds=[0, 1, 2]), by_tokens)
    after = conducted(tmp_path)
    new = [one for one in after.trials.values() if one.trial not in before.trials]
    assert new == of_horizons(after)
    assert [row["arms"] for row in after.looks] == [row["arms"] for row in before.looks]


def test_a_speedup_that_is_taken_away_withdraws_its_trials(tmp_path: Path) -> None:
    trained = [one.trial for one in of_horizons(conducted(tmp_path))]
    after = conduct(tmp_path, study(retune=RETUNE, seeds=[0, 1, 2]), by_tokens)
    assert list(after.withdrawn) == trained


@pytest.mark.parametrize("records", [60, 75, 90, 110, 130])
def test_a_driver_that_resumes_trains_the_same_horizons(tmp_path: Path, records: int) -> None:
    tree = study(retune=RETUNE, seeds=[0, 1, 2], **SPEEDUP)
    conduct(tmp_path / "resumed", tree, by_tokens, records)
    resumed = conduct(tmp_path / "resumed", tree, by_tokens)
    whole = conducted(tmp_path / "whole")
    assert resumed.trials.keys() == whole.trials.keys()
    without = ("seq", "time", "t")
    assert [
        {name: value for name, value in row.items() if name not in without}
        for row in resumed.horizons.values()
    ] == [
        {name: value for name, value in row.items() if name not in without}
        for row in whole.horizons.values()
    ]


def test_nothing_is_left_to_do_once_the_horizons_are_trained(tmp_path: Path) -> None:
    conducted(tmp_path)
    tree = study(retune=RETUNE, seeds=[0, 1, 2], **SPEEDUP)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        again = driver(ledger, request(tree))
        assert (again.is_done(), Left.of(again.state).tokens) == (True, 0)


def test_the_plan_counts_the_horizons() -> None:
    tree = study(retune=RETUNE, seeds=[0, 1, 2])
    loads = [
        pl.load(one, pl.plan(one, MACHINE)) for one in (request(tree), request(tree | SPEEDUP))
    ]
    assert loads[1].tokens - loads[0].tokens == 5 * (4096 + 16384)


def test_without_a_retune_grid_the_rates_are_around_that_of_the_base(tmp_path: Path) -> None:
    sweep = conduct(tmp_path, study(seeds=[0, 1], **SPEEDUP), by_tokens)
    rates = [sweep.trials[one].value("optim.lr") for one in sweep.horizons[4096]["rates"]]
    assert rates == [1.5e-3, 3e-3, 6e-3]


def test_a_horizon_at_which_every_rate_diverges_has_no_values(tmp_path: Path) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        return float("inf") if config["budget"]["tokens"] == 16384 else by_tokens(config, share)

    sweep = conduct(tmp_path, study(retune=RETUNE, seeds=[0, 1, 2], **SPEEDUP), how)
    assert (sweep.horizons[16384]["values"], sweep.horizons[16384]["trials"]) == (None, {})


def fails(*, at: float, tokens: int) -> Loss:
    """Losses of which those at a rate and at this many tokens are never measured."""

    def how(config: dict[str, Any], share: float) -> float:
        if (config["optim"]["lr"], config["budget"]["tokens"]) == (at, tokens):
            raise ArithmeticError
        return by_tokens(config, share)

    return how


def test_a_rate_that_fails_again_writes_no_further_row(tmp_path: Path) -> None:
    tree = study(retune=RETUNE) | {"seeds": [0, 1, 2]} | SPEEDUP
    how = fails(at=2e-3, tokens=4096)
    rows = [conduct(tmp_path, tree, how).horizons[4096]["seq"] for _ in range(2)]
    assert rows[0] == rows[1]


def test_values_that_change_take_their_horizons_with_them(tmp_path: Path) -> None:
    tree = study(retune=RETUNE) | {"seeds": [0, 1, 2]} | SPEEDUP
    before = conduct(tmp_path, tree, fails(at=4e-3, tokens=8192))
    after = conduct(tmp_path, tree, by_tokens)
    whole = conducted(tmp_path / "whole")
    rates = [sweep.horizons[4096]["rates"] for sweep in (before, after, whole)]
    assert rates[0] != rates[1] == rates[2]
    assert set(rates[0]) - set(rates[1]) <= after.withdrawn.keys()


def test_horizons_are_exact_shares_of_the_tokens() -> None:
    tree = study(speedup={"horizons": [0.1, 1.1]}, base={"budget.tokens": 10240})
    assert horizons.horizons(request(tree)) == (1024, 11264)


BAD = {
    "descending": ({"horizons": [2, 0.5]}, "speedup.horizons: expected one below 1 and then one"),
    "equal": ({"horizons": [2, 2]}, "got [2, 2]"),
    "both above": ({"horizons": [2, 4]}, "got [2, 4]"),
    "both below": ({"horizons": [0.25, 0.5]}, "got [0.25, 0.5]"),
    "one is 1": ({"horizons": [0.5, 1]}, "got [0.5, 1]"),
    "zero": ({"horizons": [0, 2]}, "speedup.horizons: expected two shares of budget.tokens"),
    "negative": ({"horizons": [-0.5, 2]}, "got [-0.5, 2]"),
    "one": ({"horizons": [2]}, "got [2]"),
    "three": ({"horizons": [0.25, 0.5, 2]}, "got [0.25, 0.5, 2]"),
    "too many tokens": ({"horizons": [0.5, 101]}, "got [0.5, 101]"),
    "no record": (
        {"horizons": [0.3, 2]},
        "speedup.horizons: no record falls on the end of 0.3 times the 8192 tokens: 2457.6 is not a "
        "multiple of eval.every_tokens, 1024",
    ),
    "no seeds": ({"seeds": 0}, "speedup.seeds: expected at least 2, got 0"),
    "more seeds than the study": ({"seeds": 3}, "speedup.seeds: the study has 2, got 3"),
    "another key": ({"horizon": [0.5, 2]}, "did you mean 'speedup.horizons'?"),
}


@pytest.mark.parametrize(("block", "message"), BAD.values(), ids=BAD.keys())
def test_a_wrong_speedup_is_refused(tmp_path: Path, block: dict[str, Any], message: str) -> None:
    assert message in problems(tmp_path, study(speedup=block))


def test_a_speedup_needs_a_budget_of_tokens(tmp_path: Path) -> None:
    tree = study(speedup={}, base={"budget.seconds": 5.0})
    assert "speedup: needs a budget of tokens, but budget.seconds is 5" in problems(tmp_path, tree)


def test_a_speedup_is_for_studies(tmp_path: Path) -> None:
    tree = {"question": "q?", "search": {"method": "grid"}, "speedup": {}}
    tree["space"] = {"optim.lr": {"grid": [1e-3]}}
    assert "speedup: only for studies" in problems(tmp_path, tree)
