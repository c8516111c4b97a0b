"""The tables and the summary say what the ledger says, at equal tokens, and no more."""

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ledgers import (
    BUDGET,
    EVERY,
    FIRST,
    RATES,
    SECOND,
    bowl,
    ended,
    long_rows,
    loss,
    lr_sweep,
    story,
    two_draws,
)
from rich.console import Console
from typer.testing import CliRunner, Result

from sweeps import analyze, ledger
from sweeps.ledger import Files


def study(files: Files) -> analyze.Study:
    return analyze.study(files.name, ledger.read(files))


def facts(files: Files) -> dict[str, Any]:
    return analyze.facts(study(files))


def cells(files: Files) -> list[dict[str, str]]:
    """trials.csv as a spreadsheet reads it."""
    text = analyze._csv(*analyze.trials_table(study(files))).decode()
    return list(csv.DictReader(io.StringIO(text)))


def words(files: Files) -> str:
    return analyze._markdown({**facts(files), "figures": []})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(analyze.app, arguments)


@pytest.fixture(scope="module")
def lr(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Eight rates under asha; see `lr_sweep`."""
    return lr_sweep(tmp_path_factory.mktemp("results") / "lr-cpu")


def grid(folder: Path, rates: list[float], best: float) -> dict[str, Any]:
    """What is said of the best rate of a grid."""
    return facts(ended(folder, "optim.lr", bowl(rates, best)))["best"][0]


# trials.csv and curves.csv ----------------------------------------------------------------------


def test_trials_csv_has_these_columns(lr: Files) -> None:
    assert ",".join(cells(lr)[0]) == (
        "trial,status,reason,seed,optim.lr,params,steps,tokens,train_loss_final,val_loss_final,"
        "val_loss_best,step_best,bits_per_byte_final,seconds,tokens_per_s"
    )


def test_trials_csv_has_one_row_a_trial_in_plan_order(lr: Files) -> None:
    assert [float(row["optim.lr"]) for row in cells(lr)] == list(RATES)


def test_each_trial_has_its_status(lr: Files) -> None:
    expected = "stopped stopped finished finished stopped stopped diverged diverged"
    assert [row["status"] for row in cells(lr)] == expected.split(" ")


def test_the_final_loss_of_a_stopped_trial_is_where_it_stopped(lr: Files) -> None:
    row = cells(lr)[0]
    assert (row["tokens"], row["val_loss_final"]) == (str(FIRST), repr(loss(RATES[0], FIRST)))


def test_a_diverged_trial_is_at_the_tokens_where_it_diverged(lr: Files) -> None:
    assert cells(lr)[7]["tokens"] == str(EVERY + 4 * 2048)


def test_tokens_a_second_are_over_the_whole_curve(lr: Files) -> None:
    assert float(cells(lr)[3]["tokens_per_s"]) == pytest.approx(10_000)


def test_what_was_not_measured_is_empty(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    row = cells(Files(tmp_path))[0]
    assert {row[name] for name in analyze._MEASURED} == {""}


def test_the_best_loss_keeps_its_own_step(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.measure(trial, EVERY, 3.5, step=24)
        tell.measure(trial, 2 * EVERY, 3.7, step=48)
    row = cells(Files(tmp_path))[0]
    assert (row["val_loss_final"], row["val_loss_best"], row["step_best"]) == ("3.7", "3.5", "24")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_text_never_becomes_a_formula(text: str) -> None:
    assert analyze._cell(text) == f"'{text}"


def test_a_negative_number_stays_a_number() -> None:
    assert analyze._cell(-0.5) == -0.5


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_number_is_an_empty_cell(value: float | None) -> None:
    assert analyze._cell(value) == ""


def test_curves_hold_every_record_once_though_a_trial_was_resumed(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 3)
        tell.start(trial, step=24)
        tell.train(trial, 1e-3, 2, 4)
    rows = analyze.curves_table(study(Files(tmp_path)))
    assert [row["tokens"] // EVERY for row in rows] == [1, 2, 3, 4]


# The ranking ------------------------------------------------------------------------------------


def test_only_finished_trials_are_ranked(lr: Files) -> None:
    places = facts(lr)["ranking"]["trials"]
    assert [(place["rank"], place["label"]) for place in places] == [
        (1, "lr=0.002"),
        (2, "lr=0.001"),
    ]


def test_equal_losses_share_a_rank(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.2, 2e-3: 3.1, 3e-3: 3.1, 4e-3: 3.0})
    assert [place["rank"] for place in facts(files)["ranking"]["trials"]] == [1, 2, 2, 4]


def test_longer_trials_are_ranked_where_the_shorter_ended(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"budget.tokens": {"grid": [BUDGET, 2 * BUDGET]}})
        long = tell.plan({"budget.tokens": 2 * BUDGET})
        tell.start(long)
        tell.measure(long, BUDGET, 3.5)
        tell.measure(long, 2 * BUDGET, 3.0)
        tell.finish(long, 2 * BUDGET)
        short = tell.plan({"budget.tokens": BUDGET})
        tell.start(short)
        tell.measure(short, BUDGET, 3.2)
        tell.finish(short)
    found = facts(Files(tmp_path))["ranking"]
    assert (found["tokens"], [place["val_loss"] for place in found["trials"]]) == (
        BUDGET,
        [3.2, 3.5],
    )


def test_finished_trials_without_a_common_token_count_have_no_rank(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        trials = [tell.plan({"optim.lr": rate}) for rate in (1e-3, 2e-3)]
        tell.start(trials[0])
        tell.measure(trials[0], EVERY, 3.0)
        tell.finish(trials[0])
        tell.start(trials[1])
        tell.measure(trials[1], 2 * EVERY, 3.0)
        tell.finish(trials[1])
    assert {place["rank"] for place in facts(Files(tmp_path))["ranking"]["trials"]} == {None}


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
    place = facts(lr)["stopped"][0]
    assert (place["tokens"], place["val_loss"], place["leader"]) == (
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


# Best values and edges --------------------------------------------------------------------------


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


def test_a_draw_near_the_bound_of_its_range_is_on_the_edge(tmp_path: Path) -> None:
    losses = bowl([2e-4, 1e-3, 9.5e-3, 9.9e-3], 9.5e-3)
    files = ended(tmp_path, "optim.lr", losses, {"loguniform": [1e-4, 1e-2]})
    found = facts(files)["best"][0]
    assert (found["edge"], found["next"]) == ("high", [pytest.approx(0.03162), 0.1])


def planned_beyond(folder: Path, ending: str) -> dict[str, Any]:
    """What is said of the best of two rates whose upper neighbour ended otherwise."""
    files = ended(folder, "optim.lr", bowl([1e-3, 2e-3], 2e-3))
    with story(folder) as tell:
        trial = tell.plan({"optim.lr": 4e-3})
        tell.start(trial)
        endings = {"diverged": tell.diverge, "failed": tell.fail}
        endings[ending](trial, EVERY if ending == "diverged" else "no memory")
    return facts(files)["best"][0]


def test_a_diverged_value_brackets_the_best(tmp_path: Path) -> None:
    found = planned_beyond(tmp_path, "diverged")
    assert (found["edge"], found["beside"][1]) == (None, {"value": 4e-3, "statuses": ["diverged"]})


def test_a_failed_value_brackets_nothing(tmp_path: Path) -> None:
    assert planned_beyond(tmp_path, "failed")["edge"] == "high"


def test_the_summary_says_that_an_edge_need_not_be_the_optimum(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", bowl([1e-3, 2e-3, 4e-3], 4e-3))
    assert "need not be the optimum.** Try next: 0.008, 0.016." in words(files)


# Seeds ------------------------------------------------------------------------------------------


def test_one_seed_is_said_in_words(lr: Files) -> None:
    assert analyze.ONE_SEED in words(lr)


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


def test_several_seeds_are_not_called_one(seeds: Files) -> None:
    assert analyze.ONE_SEED not in words(seeds)


def test_the_best_value_is_by_the_mean_of_its_seeds_not_by_the_luckiest(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: (3.0, 3.5), 2e-3: (3.1, 3.1)})
    assert facts(files)["best"][0]["best"] == 2e-3


def test_one_lucky_seed_is_no_winner_over_several(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: (3.1, 3.1), 2e-3: 3.0})
    assert facts(files)["best"][0]["best"] == 1e-3


# Compute, unfinished sweeps, text ---------------------------------------------------------------


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


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    assert "**unfinished:** 1 of 2 trials have a result" in words(Files(tmp_path))


def test_a_sweep_that_has_measured_nothing_has_a_summary(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    assert "No trial has finished." in words(Files(tmp_path))


def test_a_ledger_that_asks_nothing_yet_is_refused(tmp_path: Path) -> None:
    with story(tmp_path):
        pass
    with pytest.raises(ValueError, match="asks nothing yet"):
        study(Files(tmp_path))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("two\nlines", "two lines"),
        ("`code` *x*", r"\`code\` \*x\*"),
    ],
)
def test_text_stays_text_in_markdown(text: str, shown: str) -> None:
    assert analyze._escaped(text) == shown


def test_every_table_of_the_summary_has_as_many_cells_as_headers(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3}, label="a|b")
        tell.start(trial)
        tell.fail(trial, "x | y\nz")
    lines = [line for line in words(Files(tmp_path)).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {7}


def test_sizes_stand_in_the_tables_where_the_models_differ(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"model.n_layers": {"grid": [2, 4]}})
        tell.whole(tell.plan({"model.n_layers": 2}, params=700_000), 2e-3)
        tell.whole(tell.plan({"model.n_layers": 4}, params=1_300_000), 2e-3)
    assert "| parameters | FLOPs/token |" in words(Files(tmp_path))


def test_two_paths_that_end_alike_keep_their_whole_names(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.batch_size": {"grid": [16]}, "eval.batch_size": {"grid": [16]}})
        tell.plan({"optim.batch_size": 16, "eval.batch_size": 16})
    names = [swept.name for swept in study(Files(tmp_path)).swept]
    assert names == ["optim_batch_size", "eval_batch_size"]


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1e-3, 2e-3, 4e-3], True),
        ([1.0, 2.0, 5.0, 10.0], True),
        ([1.0, 2.0, 3.0, 4.0], False),
        ([0.0, 1.0, 10.0], False),
        ([-1.0, 1.0, 10.0], False),
        ([0.9, 0.99], False),
        ([1.0], False),
    ],
)
def test_values_are_spaced_by_ratio_or_by_difference(values: list[float], log: bool) -> None:
    assert analyze._spaced_by_ratio(values) is log


# Writing and the command line -------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(lr: Files) -> analyze.Summary:
    """The whole analysis of the eight rates, where a path was once swept that no longer is."""
    ledger.write_whole(lr.analysis / "loss_vs_gone.svg", b"")
    return analyze.write(lr)


def test_everything_that_is_promised_is_written(lr: Files, written: analyze.Summary) -> None:
    names = {"trials.csv", "curves.csv", "summary.json", "summary.md"}
    stems = ("loss_by_step", "loss_by_tokens", "loss_by_seconds", "loss_vs_lr")
    names |= {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    assert {path.name for path in lr.analysis.iterdir()} == names


def test_the_paths_returned_are_those_written(lr: Files, written: analyze.Summary) -> None:
    assert set(written.paths) == set(lr.analysis.iterdir())


def test_summary_json_holds_the_facts(lr: Files, written: analyze.Summary) -> None:
    assert json.loads((lr.analysis / "summary.json").read_text()) == written.facts


def test_the_figures_of_the_summary_exist(lr: Files, written: analyze.Summary) -> None:
    links = set((lr.analysis / "summary.md").read_text().split("](")[1:])
    assert {(lr.analysis / link.split(")")[0]).is_file() for link in links} == {True}


def test_a_figure_of_a_path_no_longer_swept_goes(lr: Files, written: analyze.Summary) -> None:
    assert not (lr.analysis / "loss_vs_gone.svg").exists()


def test_ten_thousand_records_are_compared_in_seconds() -> None:
    rows = long_rows(trials=625)
    begun = time.perf_counter()
    of = analyze.study("long", rows)
    analyze._markdown({**analyze.facts(of), "figures": []})
    assert len(analyze.curves_table(of)) == 10_000
    assert time.perf_counter() - begun < 5


def printed(files: Files) -> str:
    """The ranking as a terminal of 120 columns shows it."""
    stream = io.StringIO()
    summary = analyze.Summary(facts(files), (files.analysis / "trials.csv",))
    analyze.print_ranking(summary, Console(file=stream, width=120))
    return stream.getvalue()


def test_the_ranking_is_printed_with_the_finished_trials_first(lr: Files) -> None:
    rates = re.findall(r"lr=([0-9.]+)", printed(lr))
    assert rates == ["0.002", "0.001", "0.004", "0.008", "0.0005", "0.00025", "0.016", "0.032"]


def test_a_label_is_no_markup(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"data.path": {"grid": ["[red]"]}})
        tell.plan({"optim.lr": 1e-3}, label="path=[red]")
    assert "path=[red]" in printed(Files(tmp_path))


def test_what_is_not_printed_is_counted(tmp_path: Path) -> None:
    assert "and 6 more" in printed(two_draws(tmp_path, 30))


def test_an_unknown_name_gets_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr_sweep(tmp_path / "results" / "lr-cpu")
    monkeypatch.chdir(tmp_path)
    result = run("lr-cup")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "lr-cup: no such sweep in results/ or by path; did you mean 'lr-cpu'?" in result.stderr


def test_a_folder_without_a_ledger_is_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = run("empty")
    assert (result.exit_code, "no ledger.jsonl in that folder" in result.stderr) == (2, True)


def test_no_sweeps_at_all_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run()
    assert (result.exit_code, "make sweep SPACE=lr" in result.stderr) == (2, True)


def test_a_damaged_ledger_exits_6(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("{\n")
    assert run(str(tmp_path)).exit_code == 6


def test_a_folder_may_be_named_by_its_path(tmp_path: Path) -> None:
    assert analyze.find(str(tmp_path.parent / lr_sweep(tmp_path).folder)).folder == tmp_path


BLOCKED = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "torch", "tinylm"}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Block())
"""


def blocked(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python where neither ray nor torch nor tinylm can be imported."""
    program = [sys.executable, "-c", BLOCKED + code, str(folder), "--tensorboard"]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_analysis_runs_where_neither_ray_nor_torch_is_installed(tmp_path: Path) -> None:
    files = ended(tmp_path / "lr-cpu", "optim.lr", {1e-3: 3.0})
    code = "import runpy; runpy.run_module('sweeps.analyze', run_name='__main__')"
    result = blocked(code, files.folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert (files.analysis / "loss_vs_lr.svg").is_file()
    assert len(list(files.events.iterdir())) == 1


@pytest.mark.parametrize("name", ["ray", "torch", "tinylm"])
def test_the_block_of_ray_and_torch_blocks(tmp_path: Path, name: str) -> None:
    assert f"blocked: {name}" in blocked(f"import {name}", tmp_path).stderr
