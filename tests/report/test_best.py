"""`best/`: whose checkpoint it is, what its card says, and what is never overwritten."""

import json
from pathlib import Path
from typing import Any

import pytest
from conducting import conduct, noisy, study
from ledgers import BUDGET, Saved, analyzed, better_audit, keep, rates, run, story, studied
from typer.testing import CliRunner

from sweeps.commands import export
from sweeps.findings.best import best_runs
from sweeps.findings.everything import StudyFindings, findings
from sweeps.ledger import Files
from sweeps.report import best
from tinylm import checkpoint
from tinylm import config as cfg
from tinylm.__main__ import app as tinylm


@pytest.fixture
def two(tmp_path: Path, saved: Path) -> tuple[Files, Saved]:
    """Two rates on two seeds. 0.002 has the lower mean, and 0.001 the lowest run."""
    return rates(tmp_path / "lr-cpu", saved, {1e-3: (2.9, 3.5), 2e-3: (3.1, 3.0)})


def written(files: Files) -> Path | None:
    """What the analysis writes into `best/`, without the rest of it."""
    return best.write(files, findings(studied(files)))


def facts(files: Files) -> Any:
    return json.loads(files.best_facts.read_text())


def text(files: Files) -> str:
    return (files.best / "README.md").read_text()


def test_it_is_the_lowest_run_of_the_best_values(two: tuple[Files, Saved]) -> None:
    files, kept = two
    analyzed(files)
    assert files.best_checkpoint.samefile(kept[2e-3, 1])


def test_its_facts_name_the_run(two: tuple[Files, Saved]) -> None:
    written(two[0])
    names = ("sweep", "values", "seed", "val_loss", "tokens")
    assert [facts(two[0])[name] for name in names] == ["lr-cpu", {"optim.lr": 2e-3}, 1, 3.0, BUDGET]


def test_its_config_is_that_of_the_run(two: tuple[Files, Saved]) -> None:
    written(two[0])
    config = cfg.load(str(two[0].best / "config.yaml"))
    assert (cfg.identity(config), config.optim.lr) == (facts(two[0])["trial"], 2e-3)


def test_its_tokenizer_is_that_of_the_checkpoint(two: tuple[Files, Saved], saved: Path) -> None:
    written(two[0])
    there = (two[0].best / "tokenizer.json").read_text()
    assert there == checkpoint.load_model(saved).tokenizer.to_str()


def test_generate_takes_the_folder(two: tuple[Files, Saved]) -> None:
    written(two[0])
    done = CliRunner().invoke(tinylm, ["generate", str(two[0].best), "--max-tokens", "3"])
    assert done.exit_code == 0, done.output


def test_the_card_begins_with_the_answer_of_every_text(two: tuple[Files, Saved]) -> None:
    written(two[0])
    assert "- lr=0.002 is the best of 2: validation loss 3.0500 nats per token" in text(two[0])
    assert facts(two[0])["answer"][0].startswith("lr=0.002 is the best of 2: ")


def test_the_card_says_that_its_run_was_taken_from_several(two: tuple[Files, Saved]) -> None:
    written(two[0])
    words = "Expect their mean: validation loss 3.0500 nats per token (3.0000 to 3.1000)."
    assert "It has the lowest loss of 2 runs with the same values" in text(two[0])
    assert words in text(two[0])


def test_one_run_was_taken_from_no_others(tmp_path: Path, saved: Path) -> None:
    files, _ = rates(tmp_path / "lr-cpu", saved, {1e-3: (3.0,)})
    written(files)
    assert "Expect their mean" not in text(files)


def test_the_card_quotes_the_confirmed_loss(tmp_path: Path, saved: Path) -> None:
    files = Files(tmp_path / "lr-cpu")
    with story(files.folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}}, confirm=1)
        run(tell, saved, {"optim.lr": 1e-3}, 0, 3.0)
        run(tell, saved, {"optim.lr": 2e-3}, 0, 3.3)
        trial = tell.plan({"optim.lr": 1e-3}, 1000, role="confirm")
        tell.ledger.append("confirming", values={"optim.lr": 1e-3}, trials={"1000": trial})
        tell.start(trial)
        tell.measure(trial, BUDGET, 3.2)
        tell.finish(trial)
    written(files)
    assert "validation loss 3.2000 nats per token" in text(files)
    assert "(3.0000 in the search, which chose it)" in text(files)
    assert "| validation loss | 3.0000 nats per token |" in text(files)


def test_a_better_audited_run_is_the_best_and_the_card_says_so(tmp_path: Path, saved: Path) -> None:
    files, file = better_audit(tmp_path / "lr-cpu", saved)
    written(files)
    assert files.best_checkpoint.samefile(file)
    assert "- A stopped trial was better: lr=0.002 ended at 2.5000" in text(files)


def arm_of_best(folder: Path, gap: float) -> str:
    """The arm of the best runs of a study, whose other arm is this far above the baseline."""
    conduct(folder, study(), lambda c, s: noisy(c, s, gap, 1.0))
    return best_runs(findings(studied(Files(folder))))[0].arm


@pytest.mark.parametrize(("gap", "name"), [(-0.25, "nope"), (0.25, "baseline"), (0.0, "baseline")])
def test_an_arm_is_the_best_of_a_study_if_it_is_better_than_the_baseline(
    tmp_path: Path, gap: float, name: str
) -> None:
    assert arm_of_best(tmp_path, gap) == name


def test_the_best_arm_has_the_lowest_paired_difference_and_not_the_lowest_mean(
    tmp_path: Path,
) -> None:
    """`late` is settled after four seeds, of which the later have higher losses in every arm."""

    def how(config: dict[str, Any], share: float) -> float:
        seed, position = config["run"]["seed"], config["model"]["position"]
        late = -0.30 + (0.04 if seed % 2 else -0.04)
        gap = {"none": -0.25 + seed / 1e4, "learned": late}.get(position, 0.0)
        return float(4.0 + seed / 10 + gap + 1 - share)

    arms = {
        "early": {"hypothesis": "Better.", "set": {"model.position": "none"}},
        "late": {"hypothesis": "Better.", "set": {"model.position": "learned"}},
    }
    seeds = {"looks": [2, 4, 6], "until": "settled"}
    conduct(tmp_path, study(arms=arms, seeds=seeds), how)
    found = findings(studied(Files(tmp_path)))
    assert isinstance(found, StudyFindings) and found.comparison is not None
    _, early, late = found.comparison.arms
    assert early.mean is not None and late.mean is not None and early.mean < late.mean
    assert (early.verdict.kind, best_runs(found)[0].arm) == ("better", "late")


def test_an_arm_is_found_by_its_name(tmp_path: Path) -> None:
    conduct(tmp_path, study(), lambda c, s: noisy(c, s, 0.25, 1.0))
    runs = best_runs(findings(studied(Files(tmp_path))), "nope")
    assert {run.arm for run in runs} == {"nope"}


def test_a_new_best_takes_its_place(two: tuple[Files, Saved], saved: Path) -> None:
    files = two[0]
    written(files)
    with story(files.folder) as tell:
        trials = [tell.plan({"optim.lr": 4e-3}, seed) for seed in (0, 1)]
        for trial in trials:
            tell.start(trial)
            tell.measure(trial, BUDGET, 1.0)
            keep(tell, trial, saved)
            tell.finish(trial)
    written(files)
    assert facts(files)["values"] == {"optim.lr": 4e-3}
    assert [path.name for path in files.folder.glob(".best*")] == []


def test_an_analysis_of_the_same_ledger_writes_the_same(two: tuple[Files, Saved]) -> None:
    files = two[0]
    written(files)
    before = {path.name: path.read_bytes() for path in files.best.iterdir()}
    written(files)
    assert {path.name: path.read_bytes() for path in files.best.iterdir()} == before


def test_the_best_checkpoint_stays_when_the_others_go(two: tuple[Files, Saved]) -> None:
    files, kept = two
    written(files)
    for file in kept.values():
        file.unlink()
    written(files)
    assert checkpoint.load_model(files.best_checkpoint).step == 0
    assert facts(files)["seed"] == 1


def test_another_seed_takes_the_place_of_one_whose_checkpoint_is_gone(
    two: tuple[Files, Saved],
) -> None:
    files, kept = two
    kept[2e-3, 1].unlink()
    written(files)
    assert facts(files)["seed"] == 0


def test_the_card_says_that_lower_runs_have_no_checkpoint(two: tuple[Files, Saved]) -> None:
    files, kept = two
    kept[2e-3, 1].unlink()
    written(files)
    words = "It is one of 2 runs with the same values, which differ by their seeds. No checkpoint is left of"
    assert words in text(files)


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_model_without_its_checkpoint_is_not_written(
    tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    files, kept = rates(tmp_path / "lr-cpu", saved, {1e-3: (3.0,)})
    kept[1e-3, 0].unlink()
    if content is not None:
        kept[1e-3, 0].write_bytes(content)
    written(files)
    assert not files.best.exists()
    words = "not written: the checkpoint of lr=0.001 is gone or damaged"
    assert capsys.readouterr().err == f"{files.best}: {words}\n"


def test_a_packed_checkpoint_is_not_read(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("archive/data.pkl", b"0" * 10**6)
    assert best._tokenizer(tmp_path / "x.pt") is None


def test_a_sweep_without_a_finished_run_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path / "lr-cpu")
    with story(files.folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 2)
    written(files)
    assert (files.best.exists(), capsys.readouterr().err) == (False, "")


def test_the_best_so_far_says_what_has_not_finished(two: tuple[Files, Saved]) -> None:
    with story(two[0].folder) as tell:
        tell.start(tell.plan({"optim.lr": 4e-3}))
    written(two[0])
    assert "- No result yet for 1 of 5 trials." in text(two[0])


@pytest.mark.parametrize("mine", ["notes.txt", "checkpoint-of-mine.pt"])
def test_a_folder_with_files_of_people_is_left_as_it_is(
    two: tuple[Files, Saved], capsys: pytest.CaptureFixture[str], mine: str
) -> None:
    files = two[0]
    written(files)
    (files.best / mine).write_text("mine")
    (files.best / "README.md").write_text("mine too")
    written(files)
    assert ((files.best / mine).read_text(), text(files)) == ("mine", "mine too")
    assert "has files that the analysis did not write" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "tokenizer.json"])
def test_a_file_that_people_have_changed_is_left_as_it_is(
    two: tuple[Files, Saved], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files = two[0]
    written(files)
    (files.best / name).write_text("mine")
    written(files)
    assert (files.best / name).read_text() == "mine"
    assert "has files that the analysis did not write; left unchanged" in capsys.readouterr().err


def test_a_folder_of_people_is_never_replaced(two: tuple[Files, Saved]) -> None:
    files = two[0]
    files.best.mkdir()
    files.best_checkpoint.write_text("mine")
    written(files)
    assert [path.name for path in files.best.iterdir()] == ["checkpoint.pt"]
    assert files.best_checkpoint.read_text() == "mine"


def test_a_link_of_people_is_not_followed(two: tuple[Files, Saved], tmp_path: Path) -> None:
    files = two[0]
    written(files)
    files.best.rename(tmp_path / "elsewhere")
    files.best.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").stat().st_mtime_ns
    written(files)
    assert files.best.is_symlink()
    assert (tmp_path / "elsewhere").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "facts", [b"{", b"[]", b'{"files": [{}]}', b'{"files": 1}', b'{"files": {}}']
)
def test_damaged_facts_are_not_taken_for_those_of_an_analysis(
    two: tuple[Files, Saved], facts: bytes
) -> None:
    written(two[0])
    two[0].best_facts.write_bytes(facts)
    written(two[0])
    assert two[0].best_facts.read_bytes() == facts


def test_a_checkpoint_is_copied_where_it_can_not_be_linked(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / "there").write_text("")  # which a link does not replace
    best._link(tmp_path / "one", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "one"
    assert not (tmp_path / "there").samefile(tmp_path / "one")


# The command `sweeps export`


def call(*arguments: object) -> Any:
    return CliRunner().invoke(export.app, [str(argument) for argument in arguments])


def test_the_best_model_is_exported_with_its_card(two: tuple[Files, Saved], tmp_path: Path) -> None:
    done = call(two[0].folder, "--to", "hf", tmp_path / "model")
    assert (done.exit_code, done.stderr) == (0, "")
    there = (tmp_path / "model" / "README.md").read_text()
    assert there.startswith("---\nlibrary_name: transformers\n")
    assert "- lr=0.002 is the best of 2" in there
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_json_names_the_run_that_was_exported(two: tuple[Files, Saved], tmp_path: Path) -> None:
    told = json.loads(call(two[0].folder, tmp_path / "model", "--json").stdout)
    assert told == {
        "folder": str(tmp_path / "model"),
        "to": "hf",
        "custom_code": False,
        "sweep": str(two[0].folder),
        "arm": None,
        "trial": told["trial"],
        "label": "lr=0.002 seed=1",
    }


def test_the_best_model_is_exported_with_its_code_if_that_is_asked_for(
    two: tuple[Files, Saved], tmp_path: Path
) -> None:
    done = call(two[0].folder, "--custom-code", tmp_path / "model")
    assert (done.exit_code, "trust_remote_code=True" in done.stdout) == (0, True)
    assert (tmp_path / "model" / "modeling_tinylm.py").is_file()


def test_a_model_whose_checkpoints_were_pruned_is_exported(
    two: tuple[Files, Saved], tmp_path: Path
) -> None:
    files, kept = two
    written(files)
    for file in kept.values():
        file.unlink()
    assert call(files.folder, tmp_path / "model").exit_code == 0


def test_an_export_without_a_checkpoint_exits_7(two: tuple[Files, Saved], tmp_path: Path) -> None:
    files, kept = two
    for file in kept.values():
        file.unlink()
    done = call(files.folder, tmp_path / "model")
    assert done.exit_code == 7
    assert "the checkpoint of lr=0.002 seed=1 is gone or damaged" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lr-cup", "lr-cup: no such sweep in results/ or by path; did you mean 'lr-cpu'?"),
        ("lr-cpu/nope", "lr-cpu/nope: no settled arm 'nope'; there are none"),
        ("lr-cup/nope", "lr-cup: no such sweep"),
    ],
)
def test_a_name_that_is_none_exits_2(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    rates(tmp_path / "results" / "lr-cpu", saved, {1e-3: (3.0,)})
    monkeypatch.chdir(tmp_path)
    done = call(name, tmp_path / "model")
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


def test_an_arm_is_exported_by_its_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results" / "nope-cpu"
    conduct(folder, study(), lambda c, s: noisy(c, s, 0.25, 1.0))
    for file in folder.glob("checkpoints/**/checkpoint.pt"):
        file.write_bytes(saved.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert call("nope-cpu/nope", "--to", "hf", "model").exit_code == 0
    text = Path("model/README.md").read_text()
    assert "\n# nope" in text
    assert "The best model of the arm `nope` of the sweep `nope-cpu`" in text


def test_an_unknown_arm_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "nope-cpu"
    conduct(folder, study(), lambda c, s: noisy(c, s, 0.25, 1.0))
    monkeypatch.chdir(tmp_path)
    done = call("nope-cpu/nop", "model")
    assert (done.exit_code, "did you mean 'nope'?" in done.stderr) == (2, True)


def test_a_sweep_without_a_finished_run_has_no_model_to_export(tmp_path: Path) -> None:
    with story(tmp_path / "lr-cpu") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    done = call(tmp_path / "lr-cpu", tmp_path / "model")
    assert (done.exit_code, "no run has finished" in done.stderr) == (2, True)
