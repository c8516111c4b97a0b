"""Replays in virtual time, what is said of them, and the files that they read."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from ledgers import lr_sweep
from typer.testing import CliRunner

from sweeps.plan.space import Space
from sweeps.policies import DEFAULT_SCHEDULE, SCHEDULES
from sweeps.policies.asha import Asha
from sweeps.policies.none import RunAll
from sweeps.replay import app, main
from sweeps.simulate.curves import SCORE, Curve, arrivals, read_curves
from sweeps.simulate.judge import Judgment, judge
from sweeps.simulate.machine import ReplayResult, replay
from tinylm.config import ConfigError

TOKENS = (10, 30, 90)


def curve(trial: str, *scores: float, seconds: float = 1.0) -> Curve:
    """Records at 10, 30 and 90 tokens, at a number of seconds per token."""
    tokens = TOKENS[: len(scores)]
    return Curve(trial, trial, tokens, scores, tuple(seconds * t for t in tokens))


def asha(first: Any = "promote", finish: int = 1) -> Asha:
    return Asha((10, 30), SCORE, 3, finish, first)


NINE = [curve(str(n), n + 2.0, n + 1.0, float(n)) for n in range(9)]


def test_the_full_grid_costs_all_tokens() -> None:
    assert replay(NINE, RunAll(), 2).tokens == 9 * 90


@pytest.mark.parametrize(("workers", "seconds"), [(1, 810.0), (2, 450.0), (9, 90.0), (20, 90.0)])
def test_workers_train_side_by_side(workers: int, seconds: float) -> None:
    assert replay(NINE, RunAll(), workers).seconds == seconds


def test_a_worker_that_waits_is_not_busy() -> None:
    result = replay(NINE, RunAll(), 2)
    assert (result.busy, result.workers * result.seconds) == (810.0, 900.0)


def test_halving_by_three_costs_three_rungs_of_equal_size() -> None:
    """Best last, so that nothing is promoted too early: 9 x 10, 3 x 20 and 1 x 60 tokens."""
    assert replay(NINE, asha("start"), 1).tokens == 90 + 60 + 60


def test_seconds_of_each_trial_are_its_own() -> None:
    pool = [curve("slow", 1.0, 1.0, 1.0, seconds=10.0), curve("fast", 2.0, 2.0, 2.0)]
    assert replay(pool, RunAll(), 2).seconds == 900.0


def test_a_diverged_trial_costs_what_it_trained() -> None:
    assert replay([curve("a", 1.0, math.nan)], RunAll(), 1).tokens == 30


def test_a_rung_between_two_records_has_the_score_of_the_one_before() -> None:
    """At 20 tokens a is ahead by its record at 10; at 30 it would be behind."""
    a, b, c = curve("a", 1.0, 9.0, 9.0), curve("b", 2.0, 2.0, 2.0), curve("c", 3.0, 3.0, 3.0)
    policy = Asha((20,), SCORE, 3, 1, "start")
    assert replay([a, b, c], policy, 1).finished == ["a"]


def test_time_to_a_rung_between_two_records_is_interpolated() -> None:
    slow = Curve("a", "a", (10, 30, 90), (1.0, 1.0, 1.0), (10.0, 50.0, 110.0))
    policy = Asha((20, 40), SCORE, 3, 1, "start")
    assert replay([slow], policy, 1).seconds == 110.0


def test_orders_are_those_of_the_seed() -> None:
    def names(seed: int) -> list[list[str]]:
        return [[c.trial for c in order] for order in arrivals(NINE, 3, seed)]

    assert names(1) == names(1) != names(2)


def test_branches_at_rungs_cost_tokens_and_time() -> None:
    """A fifth of 10 tokens for each of nine, a fifth of 30 for each of three."""
    plain, branched = (replay(NINE, asha("start"), 1, branch) for branch in (0.0, 0.2))
    assert branched.tokens - plain.tokens == 9 * 2 + 3 * 6
    assert branched.seconds - plain.seconds == pytest.approx(9 * 2 + 3 * 6)
    assert branched.busy == pytest.approx(branched.seconds)


def test_branches_are_scored_by_the_decayed_column(tmp_path: Path) -> None:
    """By the scores at 10 tokens a leads, by the decayed ones b."""
    text = "trial,tokens,score,decayed\n"
    for trial, raw, decayed in [("a", 1, 9), ("b", 2, 2), ("c", 3, 3)]:
        text += f"{trial},10,{raw},{decayed}\n{trial},80,{decayed},\n"
    options = ("--order", "given", "--json", "--eta", "8")
    path = file(tmp_path, text)
    chosen = [
        list(json.loads(run(path, *options, "--score", score).stdout)["chosen"])
        for score in ("raw", "decayed")
    ]
    assert chosen == [["a"], ["b"]]


def judged(finished: list[list[str]], top: int = 1) -> Judgment:
    results = [
        ReplayResult(2, tokens=81, seconds=9.0, busy=9.0, finished=names) for names in finished
    ]
    return judge(NINE, results, top)


def test_regret_is_the_distance_from_the_best_of_the_pool() -> None:
    assert judged([["2", "5"]]).regret.mean == 2.0


def test_the_interval_of_regret_is_that_of_t() -> None:
    """Of 0 and 2: mean 1, standard error 1, t(0.975, 1) = 12.706; regret is never below 0."""
    regret = judged([["0"], ["2"]]).regret
    assert (regret.low, regret.high) == pytest.approx((0, 1 + 12.706), abs=1e-3)


def test_one_replay_has_no_interval() -> None:
    assert judged([["0"]]).as_json()["regret"] == {"mean": 0.0, "low": None, "high": None}


@pytest.mark.parametrize("finished", ["a", "b"])
def test_of_equals_it_is_no_loss_to_stop_one(finished: str) -> None:
    pool = [curve("a", 1.0, 1.0, 1.0), curve("b", 1.0, 1.0, 1.0)]
    result = ReplayResult(1, tokens=1, seconds=1.0, busy=1.0, finished=[finished])
    assert judge(pool, [result], 1).false_kills == 0.0


def test_the_other_numbers_are_means() -> None:
    found = judged([["0"], ["1", "2"]])
    expected = {"best_kept": 0.5, "cost": 0.1, "wall_clock": 9.0, "utilization": 0.5}
    assert {key: getattr(found, key) for key in expected} == pytest.approx(expected)
    assert (found.finished, found.chosen) == (1.5, {"0": 1, "1": 1})


def test_false_kills_are_a_share_of_those_that_were_stopped() -> None:
    """Of the best three, two are among the seven that did not finish."""
    assert judged([["0", "8"]], top=3).false_kills == pytest.approx(2 / 7)


def test_a_diverged_trial_is_no_kill() -> None:
    pool = [curve("a", 1.0, 1.0, 1.0), curve("b", 1.0, math.inf)]
    assert judge(pool, [replay(pool, RunAll(), 1)], 2).false_kills == 0.0


RATES = {
    "question": "Which?",
    "search": {"method": "grid"},
    "space": {"optim.lr": {"grid": [1e-3, 2e-3]}},
}
GOOD = "trial,tokens,score,optim.lr\n" + "".join(
    f"t{n},{tokens},{n + 90 / tokens},{n}e-3\n" for n in range(1, 10) for tokens in (10, 20, 80)
)


def file(folder: Path, text: str = GOOD) -> Path:
    path = folder / "curves.csv"
    path.write_text(text)
    return path


def run(path: Path | str, *options: str) -> Any:
    return CliRunner().invoke(app, [str(path), *options])


@pytest.mark.parametrize("by", [str, lambda folder: folder.name], ids=["folder", "name"])
def test_a_sweep_is_replayed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Callable[[Path], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = lr_sweep(tmp_path / "results" / "rates")
    assert "write it: sweeps analyze " in run(by(files.folder), "--policy", "none").output
    files.analysis.mkdir()
    curves = file(files.analysis)
    given = [run(one, "--policy", "none").output for one in (by(files.folder), curves)]
    assert given[0] == given[1] and "regret" in given[0]


def test_curves_are_labeled_by_their_values(tmp_path: Path) -> None:
    assert [curve.label for curve in read_curves(file(tmp_path))][:2] == ["lr=1e-3", "lr=2e-3"]


def test_a_trial_that_diverged_between_two_records_took_its_own_speed(tmp_path: Path) -> None:
    text = "trial,tokens,score,seconds\na,10,1,5\na,30,nan,\nb,10,1,1\nb,30,1,3\n"
    assert read_curves(file(tmp_path, text))[0].seconds == (5.0, 15.0)


def test_where_nothing_finishes_the_best_of_those_that_came_furthest_is_chosen(
    tmp_path: Path,
) -> None:
    """The first looks good, makes the rule stop the other, and diverges."""
    text = "trial,tokens,score\na,10,1\na,80,nan\nb,10,2\nb,80,2\n"
    options = ("--policy", "asha_stopping", "--order", "given", "--json")
    found = json.loads(run(file(tmp_path, text), *options).stdout)
    assert (found["finished"], found["chosen"], found["best_kept"]) == (0, {"b": 1}, 0)


SEEDS = "trial,tokens,score,optim.lr,seed\n" + "".join(
    f"t{rate}s{seed},{tokens},{score + seed * rate},{rate}e-3,{seed}\n"
    for rate, score in ((1, 3), (2, 2), (4, 1))
    for seed in (0, 1)
    for tokens in (10, 20, 80)
)


def test_seeds_of_a_value_are_replayed_as_one(tmp_path: Path) -> None:
    """By their means, 3.5, 3 and 3. The first seed leads at 4e-3, whose second is the worst of all."""
    found = json.loads(run(file(tmp_path, SEEDS), "--repeats", "5", "--json").stdout)
    assert (found["chosen"], found["finished"]) == ({"lr=4e-3": 5}, 1)
    assert found["regret"]["mean"] == 0.0


def test_of_values_with_seeds_only_those_that_pass_the_first_rung_are_replayed_whole(
    tmp_path: Path,
) -> None:
    """Three first seeds to 10 of 80 tokens, the best of them to the end, and its second seed: 180 of 480."""
    found = json.loads(run(file(tmp_path, SEEDS), "--order", "given", "--json").stdout)
    assert found["cost"] == pytest.approx(180 / 480)


def test_trials_with_equal_values_and_seeds_are_replayed_one_by_one(tmp_path: Path) -> None:
    found = json.loads(
        run(file(tmp_path, SEEDS.replace(",1\n", ",0\n")), "--policy", "none", "--json").stdout
    )
    assert found["finished"] == 6


def test_curves_that_end_early_are_counted(tmp_path: Path) -> None:
    text = "trial,tokens,score\na,10,1\na,40,1\nb,10,2\nb,80,2\n"
    result = run(file(tmp_path, text), "--json", "--repeats", "2")
    assert json.loads(result.stdout)["short"] == 1 and "one: 1 of 2. Their last" in result.stderr


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert len(read_curves(file(tmp_path, "\ufeff" + GOOD))) == 9


def test_only_what_is_the_same_in_all_rows_of_a_trial_labels_it(tmp_path: Path) -> None:
    text = "trial,tokens,score,width,accuracy\na,1,1,64,0.1\na,2,1,64,0.2\n"
    assert read_curves(file(tmp_path, text))[0].label == "width=64"


def test_without_seconds_a_token_takes_one(tmp_path: Path) -> None:
    assert read_curves(file(tmp_path))[0].seconds == (10.0, 20.0, 80.0)


def test_rows_after_a_score_that_is_not_finite_do_not_count(tmp_path: Path) -> None:
    text = "trial,tokens,score\na,10,1\na,20,nan\na,30,1\nb,10,1\nb,30,1\n"
    assert read_curves(file(tmp_path, text))[0].tokens == (10, 20)


def test_json_has_these_keys(tmp_path: Path) -> None:
    found = json.loads(run(file(tmp_path), "--json", "--repeats", "3").stdout)
    assert list(found) == [
        "regret", "best_kept", "cost", "wall_clock", "utilization", "false_kills", "finished",
        "chosen", "short",
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_answer(tmp_path: Path) -> None:
    path = file(tmp_path)
    options = ("--policy", "asha_stopping", "--json", "--repeats", "5", "--seed", "7")
    assert run(path, *options).stdout == run(path, *options).stdout


def test_all_policies_are_compared_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    result = run(file(tmp_path), "--compare", "--json", "--repeats", "3", "--out", str(out))
    assert set(json.loads(result.stdout)) == set(SCHEDULES)
    assert all(name in out.read_text() for name in SCHEDULES)


DECAYED = "trial,tokens,score,decayed,optim.lr\n" + "".join(
    f"t{n},{tokens},{n + 90 / tokens},{n + 45 / tokens if tokens < 80 else ''},{n}e-3\n"
    for n in range(1, 10)
    for tokens in (10, 20, 30, 40, 50, 60, 70, 80)
)


@pytest.mark.parametrize(
    ("options", "rows"),
    [([], {"asha (raw)", "asha (decayed)"}), (["--score", "decayed"], {"asha"})],
)
def test_where_curves_have_decayed_scores_both_scores_are_compared(
    tmp_path: Path, options: list[str], rows: set[str]
) -> None:
    common = ("--compare", "--json", "--repeats", "2", "--out", str(tmp_path / "out.svg"))
    found = json.loads(run(file(tmp_path, DECAYED), *common, *options).stdout)
    assert {name for name in found if name.partition(" ")[0] == "asha"} == rows
    assert "none" in found


def test_a_comparison_ends_with_the_schedule_to_paste(tmp_path: Path) -> None:
    """Curves that never cross: every policy keeps the best, and the cheapest is recommended."""
    out = ("--out", str(tmp_path / "out.svg"))
    path = file(tmp_path)
    found = json.loads(run(path, "--compare", "--json", "--repeats", "3", *out).stdout)
    cheapest = min(found, key=lambda name: found[name]["cost"])
    said = run(path, "--compare", "--repeats", "3", *out).stdout
    *_, sentence, line = said.splitlines()
    assert sentence.startswith(
        f"Recommended policy: {cheapest}, the cheapest that kept the best in"
    )
    schedule = yaml.safe_load(line)["schedule"]
    assert schedule["policy"] == cheapest
    Space.model_validate({**RATES, "schedule": schedule})


def test_curves_that_end_early_recommend_nothing(tmp_path: Path) -> None:
    text = "trial,tokens,score\na,10,1\na,40,1\nb,10,2\nb,80,2\n"
    out = ("--out", str(tmp_path / "out.svg"))
    said = run(file(tmp_path, text), "--compare", "--repeats", "2", *out).stdout
    assert "schedule: " not in said
    last = said.splitlines()[-1]
    assert (
        last.startswith("No policy is recommended: some curves end early") and "--audit 1" in last
    )


def test_a_table_shows_every_policy(tmp_path: Path) -> None:
    out = str(tmp_path / "out.png")
    said = run(file(tmp_path), "--compare", "--repeats", "2", "--out", out).stdout
    assert all(f"{name} " in said for name in SCHEDULES)


def test_the_order_of_the_file_is_one_replay(tmp_path: Path) -> None:
    found = json.loads(run(file(tmp_path), "--order", "given", "--json").stdout)
    assert found["regret"]["low"] is None


BAD = {
    "no such file": (None, [], "No such file"),
    "no score": ("trial,tokens,val_loss\na,1,2\n", [], "no column score"),
    "misspelled": ("trail,tokens,score\na,1,2\n", [], "no column trial; did you mean 'trail'?"),
    "one row": ("trial,tokens,score\na,1,2\n", [], "1 trial has one row (the first is a)"),
    "twice": ("trial,tokens,score\na,1,2\na,1,3\n", [], "line 3: trial a already has a row at 1 tokens"),
    "no number": ("trial,tokens,score\na,1,x\n", [], "line 2: score: expected a number, got 'x'"),
    "empty score": ("trial,tokens,score\na,1,\n", [], "line 2: score: expected a number, got ''"),
    "endless": ("trial,tokens,score\na,inf,1\n", [], "tokens: expected a number of at most 1e+15, got 'inf'"),
    "no time": (
        "trial,tokens,score,seconds\na,1,2,nan\n", [], "seconds: expected a number of at most 1e+15, got 'nan'"
    ),
    "empty seconds": ("trial,tokens,score,seconds\na,1,2,\n", [], "seconds: expected a number, got ''"),
    "no such kind of figure": (GOOD, ["--compare", "--out", "a.xyz"], "--out a.xyz: expected a file name ending in"),
    "half a token": ("trial,tokens,score\na,1.5,2\n", [], "expected a positive whole number, got '1.5'"),
    "short line": ("trial,tokens,score\na,1\n", [], "line 2: expected 3 cells"),
    "all diverged": ("trial,tokens,score\na,1,nan\n", [], "no trial has a finite final score"),
    "no rows": ("trial,tokens,score\n", [], "curves.csv: no rows"),
    "budgets differ": (
        "trial,tokens,score,budget.tokens\na,10,3,20\na,20,2,20\nb,20,3,40\nb,40,2,40\n",
        [],
        ": the trials have different budget.tokens, and a replay compares them at equal tokens",
    ),
    "seconds fall": (
        "trial,tokens,score,seconds\na,1,2,5\na,2,2,4\n", [], "seconds must increase"
    ),
    "ends before the first rung": (
        "trial,tokens,score\na,1,2\na,2,2\nb,1,2\nb,99,2\n",
        [],
        "trial a has no score at the first rung, 12 tokens: its rows are from 1 to 2 tokens",
    ),
    "begins after the first rung": (
        "trial,tokens,score\na,50,2\na,80,2\nb,5,2\nb,80,2\n",
        [],
        "trial a has no score at the first rung, 10 tokens: its rows are from 50 to 80 tokens",
    ),
    "a grace that nobody reaches": (
        GOOD, ["--grace", "1/1000"], "no trial has a score at the first rung, 0 of 80 tokens"
    ),
    "a tiny grace": (GOOD, ["--grace", "1e-999999999"], "a share of the budget between 1e-06"),
    "huge": ("trial,tokens,score\na,1,1e308\n", [], "score: expected a number of at most 1e+15"),
    "two columns of a name": ("trial,tokens,score,score\n", [], "two columns are named 'score'"),
    "a policy beside all": (GOOD, ["--compare", "--policy", "sha"], "--compare replays all"),
    "no decayed scores": (
        GOOD, ["--score", "decayed"], "trial t1 has no decayed score at 10 tokens"
    ),
    "no such score": (GOOD, ["--score", "fresh"], "--policy asha: score: expected 'raw'"),
    "eta below 2": (GOOD, ["--eta", "1"], "--policy asha: eta: expected at least 2, got 1"),
    "grace beyond the budget": (GOOD, ["--grace", "3/2"], "grace: expected a share of the budget between"),
    "grace is no share": (GOOD, ["--grace", "x"], "grace: expected a share such as 1/8"),
    "no such policy": (GOOD, ["--policy", "ahsa"], "no such policy; there are none, asha"),
    "not its setting": (GOOD, ["--policy", "none", "--eta", "3"], "--policy none: eta: unknown key"),
    "no such order": (GOOD, ["--order", "up"], "'up' is not one of"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_exits_with_two_and_says_why(
    tmp_path: Path, text: str | None, options: list[str], message: str
) -> None:
    path = tmp_path / "curves.csv"
    if text is not None:
        path.write_text(text)
    result = run(path, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("policy", f"The policy: {', '.join(SCHEDULES)}. Default: {DEFAULT_SCHEDULE.policy}."),
        ("eta", f"Default: {DEFAULT_SCHEDULE.eta}."),
        ("grace", f"Default: {DEFAULT_SCHEDULE.grace}."),
        ("finish", f"Default: {DEFAULT_SCHEDULE.finish}."),
    ],
    ids=["policy", "eta", "grace", "finish"],
)
def test_the_help_states_the_policies_and_the_defaults_of_a_space(option: str, said: str) -> None:
    """As text: reading the policies takes longer than `--help` may."""
    _, settings = get_args(get_type_hints(main, include_extras=True)[option])
    assert settings.help.endswith(said)


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_curves_in_no_file_are_refused_at_once(
    tmp_path: Path, plant: Callable[[Path], object]
) -> None:
    plant(tmp_path / "curves.csv")
    with pytest.raises(ConfigError, match=r"curves.csv: not a file"):
        read_curves(tmp_path / "curves.csv")
