"""The command line: what it prints, writes and answers."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tinylm import config as cfg
from tinylm.__main__ import RecordsError, _keep, _locked, app, kept_records
from tinylm.checkpoint import is_due, load_model
from tinylm.data import Corpus, prepare
from tinylm.train import start, train

# 20 records and 10 checkpoints
CADENCE = {"eval.every_tokens": 10 * 65, "run.checkpoint_every_tokens": 20 * 65}
CLOCK = ("seconds", "tokens_per_s", "compile_seconds", "peak_memory")


def call(*arguments: object) -> Any:
    """The result of the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def facts(folder: Path) -> list[dict[str, object]]:
    """The records in a folder without what they say about the machine."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder, with its bytes and when it was written."""
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


@pytest.fixture(scope="module")
def config(tiny: cfg.Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run of about a second."""
    file = tmp_path_factory.mktemp("config") / "tiny.json"
    longer = cfg.overlay(tiny, {"budget.tokens": 200 * 65} | CADENCE)
    file.write_text(json.dumps(longer.model_dump()))
    return file


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run after it has ended."""
    folder = tmp_path_factory.mktemp("trained")
    assert call("train", "--config", config, "--out", folder).exit_code == 0
    return folder


def test_count_says_that_baseline_17m_has_128_million_parameters() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tinylm", "count", "baseline_17m"],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    lines = {line[:30].strip(): line.split() for line in ran.stdout.splitlines()}
    assert lines["parameters"][-2:] == ["128,625,408", "128.6M"]
    assert lines["training tokens"][-2:] == ["327,680,000", "327.7M"]
    assert lines["updates"][-2:] == ["10,000", "10k"]


def test_count_takes_changes() -> None:
    printed = call("count", "baseline_17m", "--set", "model.tie_embeddings=true").stdout
    assert "120,945,408" in printed


def test_count_prints_json() -> None:
    counted = json.loads(call("count", "baseline_17m", "--json").stdout)
    assert (counted["params"], counted["updates"]) == (128_625_408, 10_000)


def test_training_writes_config_records_and_checkpoint(trained: Path, config: Path) -> None:
    assert content(trained).keys() == {"config.json", "records.jsonl", "checkpoint.pt"}
    assert cfg.load(str(trained / "config.json")) == cfg.load(str(config))
    assert [record["step"] for record in facts(trained)] == [*range(10, 201, 10)]
    assert load_model(trained / "checkpoint.pt").step == 200


def test_the_same_command_again_says_that_nothing_is_left_to_do(
    trained: Path, config: Path
) -> None:
    before = content(trained)
    again = call("train", "--config", config, "--out", trained)
    assert again.exit_code == 0
    assert "is finished (200 updates); nothing is left to do" in again.stdout
    assert content(trained) == before


def test_another_config_into_the_same_folder_is_refused_with_the_difference(
    trained: Path, config: Path
) -> None:
    before = content(trained)
    other = call("train", "--config", config, "--out", trained, "--set", "optim.lr=1e-3")
    assert other.exit_code == 9
    assert "\n  optim.lr: 0.003 there, 0.001 here\n" in other.stderr
    assert content(trained) == before


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("optim.lrr=1", "--set: optim.lrr: unknown path; did you mean 'optim.lr'?"),
        ("optim.lr=fast", '--set: optim.lr: expected a number, got "fast"'),
        ("optim.lr", "--set: expected PATH=VALUE, e.g. optim.lr=3e-3, got 'optim.lr'"),
        ("=3", "--set: expected PATH=VALUE, e.g. optim.lr=3e-3, got '=3'"),
        ("optim.lr=[1", "--set optim.lr: line 1"),
        ("eval.tokens=13000000", "data.corpus: the validation split has"),
        ("data.path=/nowhere", "/nowhere: data.path: No such file or directory"),
    ],
)
def test_what_is_written_wrong_exits_2_and_writes_nothing(
    config: Path, tmp_path: Path, assignment: str, problem: str
) -> None:
    ended = call("train", "--config", config, "--out", tmp_path / "out", "--set", assignment)
    assert ended.exit_code == 2
    assert problem in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("train", "--out", "out"), ("count", "smoke")])
def test_a_value_after_a_space_is_told_with_the_right_form(command: tuple[str, ...]) -> None:
    ended = call(*command, "--set", "optim.lr", "3e-3")
    assert ended.exit_code == 2
    assert ended.stderr == "--set: expected PATH=VALUE, e.g. optim.lr=3e-3, got 'optim.lr'\n"


def test_a_device_that_is_not_available_is_refused_before_the_corpus_is_read(
    config: Path, tmp_path: Path
) -> None:
    wrong = ("--set", "run.device=mps", "--set", "data.path=/nowhere")
    ended = call("train", "--config", config, "--out", tmp_path / "out", *wrong)
    assert ended.exit_code == 2
    assert "run.device: mps is not available here" in ended.stderr


def test_a_folder_that_is_a_file_exits_2(config: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    ended = call("train", "--config", config, "--out", tmp_path / "out")
    assert (ended.exit_code, ended.stderr) == (2, f"--out {tmp_path / 'out'}: not a folder\n")


def test_a_folder_that_cannot_be_made_exits_7(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = call("train", "--config", config, "--out", tmp_path / "file" / "out")
    assert ended.exit_code == 7
    assert "Not a directory" in ended.stderr


def test_a_damaged_checkpoint_exits_6_and_is_kept(config: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    ended = call("train", "--config", config, "--out", tmp_path)
    assert ended.exit_code == 6
    assert "Delete it, and the same command trains from the beginning" in ended.stderr
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"damaged"


@pytest.mark.parametrize("content", ["{", "{}", '{"run": []}'])
def test_a_damaged_config_of_a_run_exits_6_and_is_kept(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "config.json"
    kept.write_text(content)
    done = call("train", "--config", "cpu", "--out", tmp_path)
    assert (done.exit_code, kept.read_text()) == (6, content)
    assert f"{kept}: not the config of a run" in done.stderr


def test_divergence_is_a_result(config: Path, tmp_path: Path) -> None:
    wild = ("--set", "optim.lr=1e30", "--set", "model.norm=none")
    ended = call("train", "--config", config, "--out", tmp_path / "out", *wild)
    assert ended.exit_code == 0
    assert "diverged: training loss nan at step" in ended.stdout


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
@pytest.mark.fault("a signal to `tinylm train`", "the same records after a resume")
def test_an_interrupted_run_resumes_with_the_records_of_an_uninterrupted_one(
    trained: Path, config: Path, tmp_path: Path, number: int, code: int
) -> None:
    command = ["train", "--config", str(config), "--out", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "tinylm", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().split()[:2] == ["step", "tokens"]
        assert running.stdout.readline().split()[:2] == ["10", "650"]
        running.send_signal(number)
        said = running.communicate(timeout=900)[1]
    assert (running.returncode, "run the same command again" in said) == (code, True)
    begun = facts(tmp_path)
    assert 1 <= len(begun) < 20
    again = call(*command)
    assert again.exit_code == 0
    assert facts(tmp_path) == facts(trained)


def test_a_record_that_a_crash_cut_off_is_dropped_with_those_beyond_the_checkpoint(
    tmp_path: Path,
) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"step": 3}\n{"step": 6}\n{"step": 9}\n{"st')
    assert kept_records(file, 6) == len('{"step": 3}\n{"step": 6}\n')


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"step": "x"}', "\0"])
@pytest.mark.fault("a damaged record of `tinylm train`", "exit code 6, with what to do")
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, line: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(f'{{"step": 3}}\n{line}\n{{"step": 9}}\n')
    with pytest.raises(RecordsError, match=r"records.jsonl: line 2 is damaged. Delete the line"):
        kept_records(file, 9)


@pytest.mark.fault("two `tinylm train` in one folder", "the second is refused")
def test_a_second_process_in_the_same_folder_is_refused(config: Path, tmp_path: Path) -> None:
    with _locked(tmp_path / "records.jsonl"):
        ended = call("train", "--config", config, "--out", tmp_path)
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (
        5,
        f"{tmp_path}: another process trains this run",
    )


@pytest.fixture
def half(config: Path, tmp_path: Path) -> Path:
    """The folder of a run that was interrupted after several checkpoints."""
    settings = cfg.load(str(config))
    corpus, state, saved = prepare(settings), start(settings), tmp_path / "checkpoint.pt"
    with (tmp_path / "records.jsonl").open("w") as records:
        for record in islice(train(state, corpus, settings), 6):
            records.write(json.dumps(asdict(record)) + "\n")
            if is_due(record, settings):
                _keep(saved, state, corpus, settings, record.last)
    return tmp_path


def test_a_run_that_goes_on_keeps_the_checkpoint_before(half: Path) -> None:
    steps = [load_model(half / name).step for name in ("checkpoint.before.pt", "checkpoint.pt")]
    assert steps == [40, 60]


@pytest.mark.parametrize("size", [0, 1000, -1])
@pytest.mark.fault("a damaged checkpoint of `tinylm train`", "resumes from the one before")
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    half: Path, config: Path, trained: Path, size: int
) -> None:
    file = half / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:size])
    again = call("train", "--config", config, "--out", half)
    assert again.exit_code == 0
    assert "resuming from the checkpoint before, step 40" in again.stderr
    assert facts(half) == facts(trained)
    assert not (half / "checkpoint.before.pt").exists()


def test_a_crash_between_two_renames_loses_no_checkpoint(
    half: Path, config: Path, trained: Path
) -> None:
    (half / "checkpoint.pt").rename(half / "checkpoint.before.pt")
    assert call("train", "--config", config, "--out", half).exit_code == 0
    assert facts(half) == facts(trained)


def test_generate_continues_the_prompt_and_gives_the_same_text_for_the_same_seed(
    trained: Path,
) -> None:
    command = ("generate", trained / "checkpoint.pt", "--prompt", "ba de ", "--max-tokens", 20)
    one, other = call(*command), call(*command)
    assert one.exit_code == 0
    assert one.stdout.startswith("ba de ")
    assert len(one.stdout) > len("ba de \n")
    assert one.stdout == other.stdout


def test_generate_from_a_missing_checkpoint_exits_2(tmp_path: Path) -> None:
    ended = call("generate", tmp_path / "x.pt")
    assert ended.exit_code == 2
    assert f"{tmp_path / 'x.pt'}: no such checkpoint" in ended.stderr


def test_generate_from_a_damaged_checkpoint_exits_6(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes((trained / "checkpoint.pt").read_bytes()[:-1])
    assert call("generate", tmp_path / "x.pt").exit_code == 6


@pytest.mark.parametrize(("read", "told"), [(1.5, True), (0.9, False)])
def test_a_text_that_is_read_again_is_said_so(
    config: Path, tmp_path: Path, corpus: Corpus, tiny: cfg.Config, read: float, told: bool
) -> None:
    updates = round(read * len(corpus.train.ids) / tiny.tokens_per_step)
    tokens = updates * tiny.tokens_per_step
    changes = ["budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens"]
    options = [part for path in changes for part in ("--set", f"{path}={tokens}")]
    done = CliRunner().invoke(
        app, ["train", "--config", str(config), "--out", str(tmp_path), *options]
    )
    assert done.exit_code == 0, done.output
    sentence = f"the run reads the training text ({len(corpus.train.ids):,} tokens) about 1.5 times"
    assert (sentence in done.output) is told
