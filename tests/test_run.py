"""The command line of a sweep: the commands it refuses, and real sweeps under Ray."""

import csv
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import Engine, driver, grid, v_shaped
from sweeping import (
    RATES,
    STOPPING,
    command,
    curves,
    run,
    run_watched,
    write_space,
)
from typer.testing import CliRunner

from sweeps import ledger as led
from sweeps.engine.worker import SAMPLE_TOKENS
from sweeps.exits import Code
from sweeps.findings.compute import timeline
from sweeps.findings.everything import Reader
from sweeps.plan.request import read_request
from sweeps.run import app

# Refusals: nothing is started, nothing is written


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and message of a command that must end before it writes anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        before = sorted(folder.rglob("*"))
        done = CliRunner().invoke(app, list(arguments))
        assert sorted(folder.rglob("*")) == before
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["../lr", "a/b", "..", "lr/.."])
def test_a_space_name_with_a_path_in_it_exits_2(tmp_path: Path, name: str) -> None:
    code, message = refused(tmp_path, name, "--scale", "smoke")
    assert (code, name in message) == (2, True)


def test_a_missing_space_file_exits_2(tmp_path: Path) -> None:
    assert refused(tmp_path, "none.yaml", "--scale", "smoke")[0] == 2


BAD_COMMANDS = [
    (["--scale", "smokey"], "did you mean 'smoke'"),
    (["--scale", "smoke", "--set", "optim.weight_decy=1"], "did you mean 'optim.weight_decay'"),
    (["--scale", "smoke", "--set", "optim.lr=1"], "the sweep varies optim.lr"),
    (["--scale", "smoke", "--set", "run.seed=1"], "seeds"),
    (["--scale", "smoke", "--set", "model.n_heads=5"], "n_heads 5 must divide d_model 32"),
    (["--scale", "smoke", "--set", "model.vocab_size=70000"], "model.vocab_size"),
    (["--scale", "smoke", "--set", "optim.eps"], "expected PATH=VALUE"),
    (["--set", "optim.eps", "1e-8"], "PATH=VALUE, e.g. optim.lr=3e-3, got 'optim.eps'"),
    (["--set", "optim.eps=", "1e-8"], "PATH=VALUE, e.g. optim.lr=3e-3, got 'optim.eps='"),
    (["--scale", "smoke", "--audit", "1.5"], "--audit"),
    (["--scale", "smoke", "--out", "a/../b"], "--out a/../b"),
    (["--scale", "smoke", "--out", "rates.yaml"], "not a folder"),
    (["--scale", "smoke", "--set", "data.corpus=text"], "data: path is missing"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_COMMANDS)
def test_a_wrong_command_exits_2_with_rule_and_value(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    space = write_space(tmp_path, STOPPING)
    code, said = refused(tmp_path, str(space), *arguments)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"caf\xe9 ole", "not UTF-8"), (b"too small", "the training split has at most 8 tokens")],
)
def test_a_bad_corpus_exits_2(tmp_path: Path, content: bytes, message: str) -> None:
    space = write_space(tmp_path, STOPPING)
    (tmp_path / "text.txt").write_bytes(content)
    text = ["--set", "data.corpus=text", "--set", "data.path=text.txt"]
    code, said = refused(tmp_path, str(space), "--scale", "smoke", *text)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "run"])
def test_a_trial_that_takes_more_than_the_machine_has_exits_2(
    tmp_path: Path, plan: list[str]
) -> None:
    space = write_space(tmp_path, STOPPING)
    space.write_text(f"{space.read_text()}resources: {{cpus: 4096}}\n")
    code, said = refused(tmp_path, str(space), "--scale", "smoke", *plan)
    assert (code, "resources.cpus: a trial takes 4096 CPUs, but only" in said) == (2, True), said


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "run"])
@pytest.mark.parametrize("out", ["/proc/rates", "rates.yaml/below/rates"])
def test_a_folder_that_cannot_be_written_exits_7(tmp_path: Path, out: str, plan: list[str]) -> None:
    space = write_space(tmp_path, STOPPING)
    code, said = refused(tmp_path, str(space), "--scale", "smoke", "--out", out, *plan)
    first = out.removesuffix("/rates") if "below" in out else out
    assert (code, said.startswith(f"{first}: ")) == (Code.STORAGE, True), said


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "run"])
def test_where_ray_has_no_place_a_sweep_and_its_plan_exit_7(
    tmp_path: Path, scale: Path, plan: list[str]
) -> None:
    place = tmp_path / ("x" * 80)
    place.mkdir()
    asked = command(write_space(tmp_path, STOPPING), scale, tmp_path / "rates", *plan)
    done = subprocess.run(
        asked,
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Set TMPDIR to a shorter path" in done.stderr) == (7, True), done
    assert not (tmp_path / "rates").exists()


def test_a_plan_is_printed_and_nothing_is_written(tmp_path: Path) -> None:
    space = write_space(tmp_path, STOPPING)
    code, said = refused(tmp_path, str(space), "--scale", "smoke", "--plan")
    assert (code, "all trials in full: 32.8k tokens" in said) == (0, True), said


def test_a_plan_that_takes_a_while_says_how_much_is_planned(tmp_path: Path) -> None:
    values = [number / 1000 for number in range(1, 102)]
    space = write_space(tmp_path, {"policy": "none"}, values)
    tree = yaml.safe_load(space.read_text())
    tree["space"]["optim.weight_decay"] = {"grid": values}
    space.write_text(yaml.safe_dump(tree))
    code, said = refused(tmp_path, str(space), "--scale", "smoke", "--plan")
    assert (code, "planning 10,201 trials" in said) == (0, True), said
    assert "and 10,151 more trials" in said


# Real sweeps


@dataclass(frozen=True)
class Ended:
    """A completed sweep."""

    asked: list[str]  # the command
    done: subprocess.CompletedProcess[str]
    addresses: set[str]  # at which it listened
    folder: Path

    @property
    def sweep(self) -> led.Sweep:
        return led.fold(led.read(led.Files(self.folder)))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, scale: Path) -> Ended:
    """A sweep with early stopping and an audit, on two GPUs that Ray believes in."""
    folder = tmp_path_factory.mktemp("with a space")
    space = write_space(folder, STOPPING)
    asked = command(space, scale, folder / "rates", "--audit", "1", "--gpus", "2")
    return Ended(asked, *run_watched(asked), folder / "rates")


def test_a_sweep_succeeds(stopped: Ended) -> None:
    assert stopped.done.returncode == 0, stopped.done.stderr


def test_a_sweep_stops_some_trials_and_finishes_others(stopped: Ended) -> None:
    trials = stopped.sweep.trials.values()
    assert {trial.status for trial in trials} == {"finished", "stopped"}


def test_a_gpu_trains_one_trial_at_a_time(stopped: Ended) -> None:
    """Also after a promotion; a slot is of a device that was free when its attempts began."""
    devices = timeline(Reader().findings(led.Files(stopped.folder)).results).slots
    assert devices in {("GPU 0",), ("GPU 0", "GPU 1")}


def test_a_sweep_prints_the_dashboard_the_ranking_and_the_paths(stopped: Ended) -> None:
    said = stopped.done.stdout
    assert "dashboard: http://127.0.0.1:" in said
    assert "finished" in said and "summary.md" in said


def test_a_sweep_listens_on_the_loopback_address_alone(stopped: Ended) -> None:
    """Ray's processes, its dashboard and its workers do, and the driver."""
    assert stopped.addresses == {"127.0.0.1"}


def test_ray_is_silent(stopped: Ended) -> None:
    assert stopped.done.stderr == ""


def test_a_sweep_leaves_tables_and_figures(stopped: Ended) -> None:
    names = {file.name for file in (stopped.folder / "analysis").iterdir()}
    assert names >= {"trials.csv", "curves.csv", "summary.md", "summary.json"}
    assert names >= {"loss_by_step.svg", "loss_by_tokens.png", "loss_vs_lr.svg"}


def test_a_sweep_keeps_text_from_its_best_checkpoint(stopped: Ended) -> None:
    sampled = stopped.sweep.sampled
    assert sampled is not None
    best = json.loads(led.Files(stopped.folder).best_facts.read_text())
    first, *_ = texts = sampled["texts"]
    assert first["trial"] == best["trial"]
    assert len({(text["trial"], text["temperature"], text["top_p"]) for text in texts}) == len(
        texts
    )
    assert first["text"] and 0 < first["tokens"] <= SAMPLE_TOKENS


def test_the_same_command_again_does_nothing_and_says_so(stopped: Ended) -> None:
    before = (stopped.folder / "ledger.jsonl").read_bytes()
    again = run(stopped.asked)
    assert (again.returncode, "nothing is left to do" in again.stdout) == (0, True)
    assert (stopped.folder / "ledger.jsonl").read_bytes() == before


def test_another_base_config_exits_9_with_the_difference(stopped: Ended) -> None:
    again = run([*stopped.asked, "--set", "optim.weight_decay=0.3"])
    assert (again.returncode, "0.1 there, 0.3 here" in again.stderr) == (Code.REFUSED, True)


def test_a_session_says_where_and_with_what_it_ran(stopped: Ended) -> None:
    session = stopped.sweep.sessions[-1]
    assert session["versions"]["ray"] == "2.60.0"
    assert session["machine"]["cpus"] == os.cpu_count()


def test_stopped_curves_are_the_beginnings_of_full_runs(stopped: Ended, trained: Any) -> None:
    cut = curves(stopped.folder)
    assert cut == {label: points[: len(cut[label])] for label, points in trained.items()}


def test_trials_take_turns_in_warm_workers(stopped: Ended) -> None:
    """All curves come from no more processes than run at once. The test above compares these curves
    with those of new processes."""
    rows = led.read(led.Files(stopped.folder))
    workers = {row["worker"] for row in rows if row["kind"] == "measured"}
    assert len(workers) <= sum(session["slots"] for session in stopped.sweep.sessions)


def test_the_summary_compares_the_forecast_with_what_was_used(stopped: Ended) -> None:
    said = (stopped.folder / "analysis" / "summary.md").read_text()
    assert "The forecast (replay of made-up curves that never cross) was " in said


def test_an_audit_trains_what_was_stopped_and_ranks_none_of_it(stopped: Ended) -> None:
    of = stopped.sweep
    ids = {trial.trial for trial in of.trials.values() if trial.status == "stopped"}
    assert ids and set(of.audit_of) == ids
    assert {audit.status for audit in of.audits.values()} == {"finished"}
    said = (stopped.folder / "analysis" / "summary.md").read_text()
    assert "## Audit of early stopping" in said


def test_audited_curves_are_those_of_full_runs(stopped: Ended, trained: Any) -> None:
    found = {
        audit.label.removesuffix(" (audit)"): [
            (p["step"], p["train_loss"], p["val_loss"]) for p in audit.curve
        ]
        for audit in stopped.sweep.audits.values()
    }
    assert found == {label: trained[label] for label in found}


def test_a_second_driver_exits_5(tmp_path: Path, scale: Path) -> None:
    asked = command(write_space(tmp_path, STOPPING), scale, tmp_path / "rates")
    with led.Ledger(led.Files(tmp_path / "rates")):
        done = run(asked)
    assert (done.returncode, "another driver" in done.stderr) == (Code.LOCKED, True), done.stderr


def test_an_unreachable_cluster_exits_8(tmp_path: Path, scale: Path) -> None:
    space = write_space(tmp_path, STOPPING)
    done = run(command(space, scale, tmp_path / "rates", "--address", "127.0.0.1:1"))
    assert (done.returncode, "127.0.0.1:1" in done.stderr) == (Code.CLUSTER, True), done.stderr


# A real study


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, scale: Path, address: str
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A re-tuned study with an arm that has no effect: without RoPE, its theta is not used."""
    folder = tmp_path_factory.mktemp("study")
    tree = {
        "question": "Which switch does something?",
        "base": {"model.position": "none"},
        "arms": {
            "dead": {"hypothesis": "Nothing.", "set": {"model.rope_theta": 77.0}},
            "post": {"hypothesis": "Something.", "set": {"model.norm": "post"}},
        },
        "retune": {"optim.lr": {"grid": RATES[:2]}},
        "seeds": [0, 1],
        "schedule": STOPPING,
    }
    space = folder / "switches.yaml"
    space.write_text(yaml.safe_dump(tree))
    asked = command(space, scale, folder / "switches", "--address", address)
    return run(asked), folder / "switches"


@pytest.mark.slow
def test_a_dead_switch_is_void_and_exits_3(compared: Any) -> None:
    done, _ = compared
    assert done.returncode == Code.FAILED, done.stderr
    assert done.stderr == "void: arm dead did not apply: its losses equal the baseline's\n"


@pytest.mark.slow
def test_a_trial_on_a_cpu_takes_no_gpu_of_a_running_cluster(compared: Any) -> None:
    rows = led.read(led.Files(compared[1]))
    assert not [row for row in rows if row["kind"] == "measured" and "device" in row]


@pytest.mark.slow
def test_a_study_ends_with_a_verdict_on_every_arm(compared: Any) -> None:
    done, folder = compared
    assert "void: its runs equal the baseline's" in done.stdout
    rows = list(csv.DictReader((folder / "analysis" / "arms.csv").read_text().splitlines()))
    assert [(row["arm"], row["n"]) for row in rows] == [
        ("baseline", "2"),
        ("dead", "2"),
        ("post", "2"),
    ]
    assert rows[1]["verdict"] == "void" and rows[2]["verdict"] not in {"", "void"}


@pytest.mark.slow
def test_a_study_runs_its_arms_to_the_end_and_stops_within_its_grids(compared: Any) -> None:
    trials = led.fold(led.read(led.Files(compared[1]))).trials.values()
    assert {t.status for t in trials if t.role != "tuning"} == {"finished"}
    assert {t.status for t in trials if t.role == "tuning"} == {"finished", "stopped"}


@pytest.mark.slow
def test_a_void_study_stays_void_when_it_is_run_again(compared: Any, scale: Path) -> None:
    _, folder = compared
    again = run(command(folder.with_suffix(".yaml"), scale, folder))
    assert (again.returncode, "nothing is left to do" in again.stdout) == (Code.FAILED, True)


@pytest.fixture
def rates_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A space whose sweep is under results/ and has nothing left to do."""
    monkeypatch.chdir(tmp_path)
    tree = grid([1e-3, 4e-3], policy="none")
    Path("rates.yaml").write_text(yaml.safe_dump(tree))
    files = led.Files(Path("results/rates-smoke"))
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, read_request("./rates.yaml", "smoke", [], 0))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
        conductor.sample([conductor.sweep.trials.values()], lambda file: [SAMPLE])
    led.write_whole(files.summary, b"")
    return "./rates.yaml"


SAMPLE = {"text": "a", "tokens": 1, "temperature": 1.0, "top_p": 0.9, "seed": 0}


def test_the_result_is_json_and_what_happens_goes_to_stderr(rates_done: str) -> None:
    ran = CliRunner().invoke(app, [rates_done, "--scale", "smoke", "--json"])
    facts = json.loads(ran.stdout)
    assert (ran.exit_code, "nothing is left to do" in ran.stderr) == (0, True)
    assert facts["answer"][0].startswith("lr=0.004 is the best of 2: validation loss 2.0000")
    assert facts["next"][0].startswith("Widen: ")


def test_the_plan_is_json_with_the_state_of_each_trial(rates_done: str) -> None:
    ran = CliRunner().invoke(app, [rates_done, "--scale", "smoke", "--plan", "--json"])
    facts = json.loads(ran.stdout)
    assert [one["state"] for one in facts["trials"]] == ["finished", "finished"]
    assert (facts["begun"]["kept"], facts["begun"]["new"], facts["full"]["tokens"]) == (
        2,
        0,
        16_384,
    )
    assert "2 trials kept, 0 new, 0 withdrawn" in ran.stderr
