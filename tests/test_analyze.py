"""The tables say what the ledger says; the program writes all of it, and says what is wrong."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from ledgers import (
    EVERY,
    FIRST,
    RATES,
    analyzed,
    audited_sweep,
    ended,
    long_rows,
    loss,
    lr_sweep,
    rewrite,
    story,
    studied,
)
from rich.console import Console
from typer.testing import CliRunner, Result

from sweeps import analyze, experiment, ledger
from sweeps.findings.everything import Reader, findings
from sweeps.findings.results import results_of
from sweeps.ledger import Files, find_sweep, write_whole
from sweeps.report import log, tables
from sweeps.report.analysis import Analysis, present, publish, tell_left_out
from sweeps.report.index import write_index
from sweeps.report.summary import markdown
from sweeps.simulate.curves import read_curves


def cells(files: Files) -> list[dict[str, str]]:
    """trials.csv as a spreadsheet reads it."""
    text = tables.trials_table(studied(files)).csv().decode()
    return list(csv.DictReader(io.StringIO(text)))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(analyze.app, arguments)


def test_trials_csv_has_these_columns(lr: Files) -> None:
    assert ",".join(cells(lr)[0]) == (
        "trial,label,arm,role,status,outcome,reason,seed,optim.lr,params,steps,tokens,train_loss_final,val_loss_final,"
        "val_loss_best,step_best,bits_per_byte_final,seconds,tokens_per_s,val_loss_audited"
    )


def test_what_an_audit_came_to_stands_beside_the_stopped_trial(tmp_path: Path) -> None:
    rows = cells(audited_sweep(tmp_path, {2.0: 2.5, 3.0: 3.5}, audited=1))
    assert [row["val_loss_audited"] for row in rows] == ["", "2.5", ""]
    assert [row["val_loss_final"] for row in rows] == ["3.0", "5.0", "5.0"]


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
    assert {row[name] for name in tables.MEASURED} == {""}


def test_the_best_loss_keeps_its_own_step(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.measure(trial, EVERY, 3.5, step=24)
        tell.measure(trial, 2 * EVERY, 3.7, step=48)
    row = cells(Files(tmp_path))[0]
    assert (row["val_loss_final"], row["val_loss_best"], row["step_best"]) == ("3.7", "3.5", "24")


@pytest.mark.parametrize("text", ["123456789012", "1234e5678901", "012345678901", "0.010"])
def test_text_never_becomes_a_number(text: str) -> None:
    assert tables.cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["a23456789012", "1e2e3e4e5e6e", "nan", "1 of 2"])
def test_other_text_is_as_it_is(text: str) -> None:
    assert tables.cell(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_text_never_becomes_a_formula(text: str) -> None:
    assert tables.cell(text) == f"'{text}"


def test_a_negative_number_stays_a_number() -> None:
    assert tables.cell(-0.5) == -0.5


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_number_is_an_empty_cell(value: float | None) -> None:
    assert tables.cell(value) == ""


def test_curves_hold_every_record_once_though_a_trial_was_resumed(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 3)
        tell.start(trial, step=24)
        tell.train(trial, 1e-3, 2, 4)
    rows = csv.DictReader(tables.curves_csv(studied(Files(tmp_path))).decode().splitlines())
    assert [int(row["tokens"]) // EVERY for row in rows] == [1, 2, 3, 4]


def test_the_curves_of_a_sweep_can_be_replayed(lr: Files, analysis: Analysis) -> None:
    curves = read_curves(lr.analysis / "curves.csv")
    assert [(curve.label, curve.diverged) for curve in curves] == [
        (f"lr={rate:g} seed=0", rate > 1e-2) for rate in RATES
    ]


def test_everything_that_is_promised_is_written(lr: Files, analysis: Analysis) -> None:
    names = {"trials.csv", "curves.csv", "summary.json", "summary.md", "report.html"}
    stems = ("loss_by_step", "loss_by_tokens", "loss_by_seconds", "loss_vs_lr", "edge_of_stability")
    names |= {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    assert {path.name for path in lr.analysis.iterdir()} == names


def test_the_paths_returned_are_those_written(lr: Files, analysis: Analysis) -> None:
    assert set(analysis.paths) == set(lr.analysis.iterdir())


def test_summary_json_holds_the_facts(lr: Files, analysis: Analysis) -> None:
    written = json.loads((lr.analysis / "summary.json").read_text())
    del written["figures"]
    assert written == json.loads(json.dumps(analysis.findings.as_json()))


def test_the_figures_of_the_summary_exist(lr: Files, analysis: Analysis) -> None:
    links = set((lr.analysis / "summary.md").read_text().split("](")[1:])
    assert {(lr.analysis / link.split(")")[0]).is_file() for link in links} == {True}


def test_a_figure_of_a_path_no_longer_swept_goes(lr: Files, analysis: Analysis) -> None:
    assert not (lr.analysis / "loss_vs_gone.svg").exists()


@pytest.mark.fault("pictures of people in analysis/", "they stay")
def test_pictures_of_people_stay(tmp_path: Path) -> None:
    files = lr_sweep(tmp_path / "lr-cpu")
    mine = [files.analysis / name for name in ("my_plot.svg", "my_plot.png")]
    for picture in mine:
        write_whole(picture, b"mine")
    analyzed(files)
    assert [picture.read_bytes() for picture in mine] == [b"mine", b"mine"]


def test_the_files_to_open_first_stand_on_lines_of_their_own(lr: Files, analysis: Analysis) -> None:
    stream = io.StringIO()
    present(analysis, Console(file=stream, width=40))
    names = ("summary.md", "loss_vs_lr.png", "loss_by_tokens.png")
    assert stream.getvalue().splitlines()[-3:] == [str(lr.analysis / name) for name in names]


def test_json_is_the_summary_with_the_answer_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = lr_sweep(tmp_path / "results" / "lr-cpu")
    monkeypatch.chdir(tmp_path)
    done = run("lr-cpu", "--json")
    assert done.exit_code == 0
    (printed,) = json.loads(done.stdout)
    summary = json.loads(files.findings.read_text())
    assert {name: printed[name] for name in summary if name != "figures"} == {
        name: value for name, value in summary.items() if name != "figures"
    }
    assert printed["answer"][0].startswith("lr=0.002 is the best of 8: ")
    assert printed["model"] is None
    assert "results/lr-cpu/analysis/summary.md" in printed["paths"]


def test_tables_and_figures_for_a_paper_are_written_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ended(tmp_path / "results" / "lr-cpu", "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    monkeypatch.chdir(tmp_path)
    assert (run("lr-cpu").exit_code, files.paper.exists()) == (0, False)
    done = run("lr-cpu", "--paper")
    assert done.exit_code == 0
    assert "results/lr-cpu/analysis/paper" in done.stdout.splitlines()
    assert (files.paper / "table.tex").is_file()


def test_json_has_the_sweeps_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr_sweep(tmp_path / "results" / "lr-cpu")
    (tmp_path / "results" / "broken").mkdir()
    (tmp_path / "results" / "broken" / "ledger.jsonl").write_text("xx\n")
    monkeypatch.chdir(tmp_path)
    done = run("lr-cpu", "broken", "--json")
    assert done.exit_code == 6
    assert [one["sweep"] for one in json.loads(done.stdout)] == ["lr-cpu"]


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
    assert find_sweep(str(tmp_path.parent / lr_sweep(tmp_path).folder)).folder == tmp_path


BLOCKED = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "torch"}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Block())
"""


def blocked(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python where neither ray nor torch can be imported."""
    program = [sys.executable, "-c", BLOCKED + code, str(folder), "--tensorboard"]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_analysis_runs_where_neither_ray_nor_torch_is_installed(tmp_path: Path) -> None:
    files = ended(tmp_path / "lr-cpu", "optim.lr", {1e-3: 3.0})
    code = "import runpy; runpy.run_module('sweeps.analyze', run_name='__main__')"
    result = blocked(code, files.folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert (files.analysis / "loss_vs_lr.svg").is_file()
    assert {path.name.partition("-")[0] for path in files.events.iterdir()} == {
        "lr=0.001",
        "figures",
    }


@pytest.mark.parametrize("name", ["ray", "torch"])
def test_the_block_of_ray_and_torch_blocks(tmp_path: Path, name: str) -> None:
    assert f"blocked: {name}" in blocked(f"import {name}", tmp_path).stderr


def test_ten_thousand_records_are_all_compared() -> None:
    of = results_of("long", long_rows(trials=625))
    assert markdown(findings(of), []).count("| lr=") >= 625
    assert tables.curves_csv(of).count(b"\n") == 1 + 10_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each whole ledger is read from now on, by the name of its sweep."""
    counts: Counter[str] = Counter()
    rows = ledger.rows

    def counted(files: Files, kinds: Collection[str] = ()) -> Iterator[ledger.Row]:
        counts[files.name] += not kinds
        return rows(files, kinds)

    monkeypatch.setattr(ledger, "rows", counted)
    return counts


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sweeps and a damaged one under results/."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        ended(tmp_path / "results" / name, "optim.lr", {1e-3: 3.0})
    (tmp_path / "results" / "broken").mkdir()
    (tmp_path / "results" / "broken" / "ledger.jsonl").write_text("xx\n")
    return tmp_path / "results"


@pytest.mark.parametrize("names", [[], ["one"], ["results/two", "broken"]])
def test_analyze_reads_each_ledger_once(
    results: Path, reads: Counter[str], names: list[str]
) -> None:
    run(*names, "--tensorboard")
    assert reads == {"one": 1, "two": 1, "broken": 1}


def test_the_end_of_a_sweep_reads_each_ledger_once(results: Path, reads: Counter[str]) -> None:
    publish(Files(ledger.RESULTS / "one"), Console(file=io.StringIO()))
    assert reads == {"one": 1, "two": 1, "broken": 1}


@pytest.mark.parametrize("file", ["index.html", "EXPERIMENT_LOG.md"])
def test_a_damaged_ledger_is_named_in_index_and_log(results: Path, file: str) -> None:
    assert run("one").exit_code == 0
    said = (results / file).read_text().partition("Left out because")[2].partition("\n\n")[0]
    assert ("broken" in said, "one" in said, "two" in said) == (True, False, False)


def _of_another_space(files: Files) -> None:
    rows = ledger.read(files)
    rewrite(files, [{**rows[0], "space": {}}, *rows[1:]])


def _without_a_loss(files: Files) -> None:
    rows = [row | {"val_loss": None} if "val_loss" in row else row for row in ledger.read(files)]
    rewrite(files, rows)


def _replaced(files: Files, make: Callable[[Path], None]) -> None:
    files.ledger.unlink()
    make(files.ledger)


BROKEN: dict[str, Callable[[Files], None]] = {
    "a digit": lambda f: write_whole(f.ledger, f.ledger.read_bytes().replace(b"3.0", b"2.0", 1)),
    "no loss": _without_a_loss,
    "no space": _of_another_space,
    "a folder": lambda files: _replaced(files, Path.mkdir),
    "a dead link": lambda files: _replaced(files, lambda path: path.symlink_to("nowhere")),
    "a pipe": lambda files: _replaced(files, os.mkfifo),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.fault(
    "a sweep beside others that can't be read", "the others are analyzed; it is named"
)
def test_a_sweep_that_cant_be_read_stands_alone(results: Path, how: str) -> None:
    BROKEN[how](Files(results / "two"))
    reader = Reader()
    assert [found.results.name for found in reader.under(results)] == ["one"]
    assert set(reader.left_out(results)) == {"broken", "two"}


@pytest.mark.parametrize("write", [write_index, log.write], ids=["index", "log"])
def test_index_and_log_say_why_a_sweep_is_left_out(
    results: Path, write: Callable[[Path, Reader], Path]
) -> None:
    assert "line 1 is damaged" in write(results, Reader()).read_text()


def test_a_list_of_experiments_without_a_damaged_one_exits_6(results: Path) -> None:
    done = CliRunner().invoke(experiment.app, ["list"])
    assert (done.exit_code, "one" in done.stdout) == (6, True)
    assert "left out: broken: results/broken/ledger.jsonl: line 1 is damaged" in done.stderr


def test_the_end_of_a_sweep_says_which_others_are_left_out(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_left_out(Reader(), {"one"})
    said = capsys.readouterr().err
    assert said.startswith("left out of index and log: broken: ") and said.count("\n") == 1


def test_an_experiment_that_cant_be_read_is_an_error_with_its_line(results: Path) -> None:
    done = CliRunner().invoke(experiment.app, ["show", "broken"])
    assert (done.exit_code, "line 1 is damaged" in done.stderr) == (6, True)


def test_an_error_that_no_ledger_is_to_blame_for_is_not_swallowed(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(files: Files) -> Iterator[ledger.Row]:
        raise ValueError("a bug")

    monkeypatch.setattr(ledger, "rows", wrong)
    with pytest.raises(ValueError, match="a bug"):
        Reader().under(results)
