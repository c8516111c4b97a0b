"""Ledgers of version 0.1, written before planned rows had a role: read as they were read then."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import analyzed

from sweeps import ledger as led
from sweeps.plan.request import PlannedTrial
from tinylm import config as cfg

FIXTURES = Path(__file__).parent / "fixtures"
SWEEPS = ("lr", "layer_norm", "confirm")
WRITTEN = [(path.parent.name, path.name) for path in sorted(FIXTURES.glob("*/*.[cj]s[vo]*"))]
WRITTEN = [(sweep, name) for sweep, name in WRITTEN if name != "ledger.jsonl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the old ledgers, analyzed anew."""
    folder = tmp_path_factory.mktemp("results")
    for sweep in SWEEPS:
        (folder / sweep).mkdir()
        shutil.copy(FIXTURES / sweep / "ledger.jsonl", folder / sweep)
        analyzed(led.Files(folder / sweep))
    return folder


def to_12_digits(text: str) -> str:
    """A text whose long numbers have 12 digits: the last of a fit depend on the processor's linear
    algebra."""
    return re.sub(r"\d+\.\d{10,}(e-?\d+)?", lambda number: f"{float(number[0]):.12g}", text)


@pytest.mark.parametrize(("sweep", "name"), WRITTEN)
def test_an_old_ledger_says_what_it_said(folder: Path, sweep: str, name: str) -> None:
    now = (folder / sweep / "analysis" / name).read_text()
    assert to_12_digits(now) == to_12_digits((FIXTURES / sweep / name).read_text())


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_trials_of_an_old_ledger_have_the_ids_of_today(sweep: str) -> None:
    trials = led.fold(led.read(led.Files(FIXTURES / sweep))).trials
    configs = {name: cfg.validate(trial.config, name) for name, trial in trials.items()}
    today = {name: PlannedTrial(config, {}, "").trial for name, config in configs.items()}
    assert today == {name: name for name in trials}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_one_sample_of_an_old_ledger_is_read(sweep: str) -> None:
    sampled = led.fold(led.read(led.Files(FIXTURES / sweep))).sampled
    assert sampled is not None
    (text,) = sampled["texts"]
    assert (text["temperature"], text["top_p"], text["seed"]) == (0.8, 0.95, 0)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_nothing_is_left_to_do_in_an_old_ledger(folder: Path, sweep: str) -> None:
    space, scale = FIXTURES / sweep / "space.yaml", FIXTURES / "smoke.yaml"
    command = [sys.executable, "-m", "sweeps.run", str(space)]
    command += ["--scale", str(scale), "--out", str(folder / sweep)]
    command += ["--audit", "1"] if sweep == "confirm" else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert (done.returncode, "nothing is left to do" in done.stdout) == (0, True)


def test_the_trials_of_an_old_ledger_have_roles_and_arms() -> None:
    trials = led.fold(led.read(led.Files(FIXTURES / "layer_norm"))).trials.values()
    roles = {(trial.role, trial.arm) for trial in trials}
    assert roles == {
        ("tuning", "baseline"),
        ("tuning", "no_norm"),
        ("run", "baseline"),
        ("run", "no_norm_same_rate"),  # those of no_norm as well, which chose the same rate
    }


def test_the_confirmation_of_an_old_ledger_is_found() -> None:
    sweep = led.fold(led.read(led.Files(FIXTURES / "confirm")))
    assert sweep.confirming is not None and sweep.chosen == {}
    again = [sweep.trials[trial].role for trial in sweep.confirming["trials"].values()]
    assert again == ["confirm", "confirm"]


def test_a_run_of_an_old_ledger_has_the_arm_of_the_first_choice_that_names_it() -> None:
    rows = led.read(led.Files(FIXTURES / "layer_norm"))
    arms = {trial: row["arm"] for row in reversed(rows) for trial in row.get("trials", {}).values()}
    runs = {row["trial"]: row["arm"] for row in rows if row.get("role") == "run"}
    assert runs == arms


def test_a_config_from_before_a_field_has_the_value_implied_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cfg, "IMPLIED", {"model.later": 7})
    sweep = led.fold(led.read(led.Files(FIXTURES / "lr")))
    assert {trial.value("model.later") for trial in sweep.trials.values()} == {7}
    assert sweep.request is not None and sweep.request["base"]["model"]["later"] == 7


def test_a_config_that_has_the_field_keeps_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cfg, "IMPLIED", {"optim.lr": 7})
    trials = led.fold(led.read(led.Files(FIXTURES / "lr"))).trials.values()
    assert {trial.value("optim.lr") for trial in trials} == {t.values["optim.lr"] for t in trials}
