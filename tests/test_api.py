"""`sweeps.load` and `sweeps.sweep`: tables as the files have them, and errors that can be caught."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conducting import conduct, noisy, study
from ledgers import audited_sweep, ended, rates, story

import sweeps
from sweeps import api, exits
from sweeps.exits import LockedError
from sweeps.ledger import Files, LedgerError
from sweeps.report.analysis import Analysis
from tinylm import config as cfg


def test_the_trials_are_those_of_the_csv_file(lr: Files, analysis: Analysis) -> None:
    there = pd.read_csv(lr.trials_table, dtype={"trial": str})
    trials = sweeps.load(lr.folder).trials
    assert list(trials.columns) == list(there.columns)
    assert trials["label"].tolist() == there["label"].tolist()
    np.testing.assert_array_equal(trials["val_loss_final"], there["val_loss_final"])


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    with story(tmp_path / "lr-cpu") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    losses = sweeps.load(tmp_path / "lr-cpu").trials["val_loss_final"]
    assert losses.dtype == float
    assert [math.isnan(loss) for loss in losses] == [False, True]


def test_the_curves_are_those_of_the_csv_file(lr: Files, analysis: Analysis) -> None:
    there = pd.read_csv(lr.curves_table).dropna(subset="val_loss")  # not where a trial diverged
    curves = sweeps.load(lr.folder).curves
    assert curves["tokens"].tolist() == there["tokens"].tolist()
    np.testing.assert_array_equal(curves["val_loss"], there["val_loss"])
    np.testing.assert_array_equal(curves["optim.lr"], there["optim.lr"])


def test_records_of_an_audit_are_marked(tmp_path: Path) -> None:
    files = audited_sweep(tmp_path / "lr-cpu", {2.0: 3.5})
    curves = sweeps.load(files.folder).curves
    assert curves.groupby("optim.lr")["audited"].sum().to_dict() == {1.0: 0, 2.0: 1}


def test_a_search_has_no_arms(lr: Files) -> None:
    arms = sweeps.load(lr.folder).arms
    assert (len(arms), "difference" in arms) == (0, True)


def test_a_study_has_a_row_for_each_arm(tmp_path: Path) -> None:
    conduct(tmp_path, study(), lambda c, s: noisy(c, s, 0.25, 1.0))
    arms = sweeps.load(tmp_path).arms.set_index("arm")
    assert list(arms.index) == ["baseline", "nope"]
    assert arms.loc["nope", "difference"] == pytest.approx(0.25)


def test_the_answer_has_the_sentences_of_every_text(tmp_path: Path) -> None:
    files = ended(tmp_path / "lr-cpu", "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    assert sweeps.load(files.folder).answer[0].startswith("lr=0.001 is the best of 2: ")
    assert sweeps.load(files.folder).next_steps[0].startswith("Widen: the best `optim.lr`, 0.001, ")


def test_the_findings_are_those_of_the_summary(lr: Files, analysis: Analysis) -> None:
    there = json.loads(lr.findings.read_text())
    del there["figures"]
    assert sweeps.load(lr.folder).findings == there


def test_the_best_model_can_be_used(tmp_path: Path, saved: Path) -> None:
    files, _ = rates(tmp_path / "lr-cpu", saved, {1e-3: (3.0,), 2e-3: (2.0,)})
    best = sweeps.load(files.folder).best
    assert (best.label, best.values, best.config.optim.lr) == ("lr=0.002", {"optim.lr": 2e-3}, 2e-3)
    ids = best.tokenizer().encode("ba de").ids
    with torch.no_grad():
        assert best.model()(torch.tensor([ids])).shape == (1, len(ids), 307)


def test_a_sweep_without_a_finished_run_has_no_best_model(tmp_path: Path) -> None:
    with story(tmp_path / "lr-cpu") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    loaded = sweeps.load(tmp_path / "lr-cpu")
    with pytest.raises(exits.UsageError, match="lr-cpu: no run has finished"):
        _ = loaded.best


def test_a_best_model_without_its_checkpoint_is_an_error(lr: Files) -> None:
    loaded = sweeps.load(lr.folder)
    with pytest.raises(exits.StorageError, match=r"the checkpoint of lr=0.002 is gone or damaged"):
        _ = loaded.best


def test_an_unknown_sweep_is_an_error_that_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(tmp_path / "results" / "lr-cpu", "optim.lr", {1e-3: 3.0})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(exits.UsageError, match="did you mean 'lr-cpu'"):
        sweeps.load("lr-cup")


def test_a_sweep_shows_how_much_of_it_is_done(lr: Files) -> None:
    assert repr(sweeps.load(lr.folder)) == "<sweep lr-cpu: 2 of 8 trials finished>"


# Running a sweep

SPACE: dict[str, Any] = {
    "question": "Which rate?",
    "search": {"method": "grid"},
    "schedule": {"policy": "none"},
    "space": {"optim.lr": {"grid": [1e-3, 2e-3]}},
}


@pytest.mark.parametrize(
    ("space", "name", "words"),
    [
        ({**SPACE, "spacer": 1}, "mine", "mine.yaml: spacer: unknown"),
        ({**SPACE, "space": {"optim.lrr": {"grid": [1]}}}, "mine", "did you mean 'optim.lr'"),
        (SPACE, "", "name: missing; a space that is a mapping needs one: add name='my_lr'"),
        (SPACE, "a/b", "name='a/b': expected a name of letters, digits"),
        ("lrr", "", "lrr"),
        ("lr", "mine", "name='mine': is for a space that is a mapping"),
    ],
)
def test_what_is_wrong_with_a_space_is_raised_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: Any, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((cfg.ConfigError, exits.UsageError)) as caught:
        sweeps.sweep(space, "smoke", name=name)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_changes_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cfg.ConfigError, match=r"optim.lr: the sweep varies optim.lr"):
        sweeps.sweep(SPACE, "smoke", name="mine", changes={"optim.lr": 1e-3})


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (np.float64(0.5), 0.5),
        ({"grid": np.array([1, 2])}, {"grid": [1, 2]}),
        ((1, "a", None), [1, "a", None]),
    ],
)
def test_values_of_numpy_are_numbers(given: Any, plain: Any) -> None:
    assert json.dumps(api._plain(given)) == json.dumps(plain)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (2, exits.UsageError),
        (5, LockedError),
        (6, LedgerError),
        (7, exits.StorageError),
        (9, exits.RefusedError),
        (130, KeyboardInterrupt),
        (1, RuntimeError),
        (-9, RuntimeError),
    ],
)
def test_the_error_that_ended_a_sweep_is_raised(code: int, error: type[BaseException]) -> None:
    with pytest.raises(error, match="why it ended"):
        api.conclude(code, "why it ended")


@pytest.mark.parametrize("code", [3, 4, 75])
def test_a_sweep_that_has_results_but_not_all_is_a_warning(code: int) -> None:
    with pytest.warns(UserWarning, match="what is missing"):
        api.conclude(code, "what is missing")


def test_what_a_command_prints_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(9)"
    assert api._run([sys.executable, "-c", program]) == (9, "two")
    assert capsys.readouterr().out == "one\n"


def test_a_refused_change_leaves_the_space_as_it_was(tmp_path: Path, scale: Path) -> None:
    with story(tmp_path / "mine") as tell:  # with the base config of another scale
        tell.ask({"optim.lr": {"grid": [1e-3]}})
    files = Files(tmp_path / "mine")
    files.space.write_text("question: before")
    with pytest.raises(exits.RefusedError, match="another base config"):
        sweeps.sweep(SPACE, str(scale), out=files.folder)
    assert files.space.read_text() == "question: before"


def test_a_sweep_that_runs_keeps_its_space(tmp_path: Path, scale: Path) -> None:
    files = Files(tmp_path / "mine")
    with story(files.folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        files.space.write_text("question: before")
        with pytest.raises(LockedError):
            sweeps.sweep(SPACE, str(scale), name="mine", out=files.folder)
    assert files.space.read_text() == "question: before"


@pytest.mark.parametrize("before", [None, "question: before"])
@pytest.mark.parametrize("error", [exits.StorageError, KeyboardInterrupt])
def test_an_error_before_anything_is_asked_for_leaves_the_space(
    tmp_path: Path, before: str | None, error: type[BaseException]
) -> None:
    files = Files(tmp_path)
    if before is not None:
        files.space.write_text(before)

    def ends() -> None:
        with api._restored(files):
            files.space.write_text("question: new")
            raise error

    with pytest.raises(error):
        ends()
    assert (files.space.read_text() if files.space.exists() else None) == before


def test_an_error_after_a_new_request_keeps_the_new_space(tmp_path: Path) -> None:
    files = Files(tmp_path)

    def ends() -> None:
        with api._restored(files), story(tmp_path) as tell:
            files.space.write_text("question: new")
            tell.ask({"optim.lr": {"grid": [1e-3]}})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ends()
    assert files.space.read_text() == "question: new"


SCRIPT = """
import sweeps
found = sweeps.sweep(
    {"question": "Which rate?", "search": {"method": "grid"}, "schedule": {"policy": "none"},
     "space": {"optim.lr": {"grid": [1e-3, 2e-3]}}},
    "SCALE", name="mine",
)
print("status:", *found.trials["status"])
print("best:", found.best.label, len(found.curves))
"""


@pytest.mark.slow
def test_a_script_runs_a_sweep_and_reads_it(tmp_path: Path, scale: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("SCALE", str(scale))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "status: finished finished" in lines
    assert lines[-1].startswith("best: lr=0.00") and lines[-1].endswith(" 24")
    assert (tmp_path / "results" / "mine-tiny" / "best").is_dir()


def test_a_value_that_no_space_can_hold_is_wrong(tmp_path: Path) -> None:
    space = {"question": "?", "space": {"optim.lr": {"grid": [object()]}}}
    with pytest.raises(cfg.ConfigError, match="only numbers, texts, lists and mappings"):
        sweeps.sweep(space, "smoke", name="p1", out=tmp_path / "p1")
