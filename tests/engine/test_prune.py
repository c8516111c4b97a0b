"""What `sweeps prune` deletes, and what it never touches."""

import json
from pathlib import Path
from typing import Any

import pytest
from conducting import RETUNE, conduct, noisy, study
from fakes import Engine, driver, grid, request, v_shaped
from ledgers import better_audit
from typer.testing import CliRunner

from sweeps import ledger as led
from sweeps.commands import prune as command
from sweeps.engine import prune, scratch

RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2]
NONE: dict[str, Any] = {"policy": "none"}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the temporary folders of drivers: not that of this machine."""
    monkeypatch.setattr(scratch, "PLACE", tmp_path / "tmp")
    return scratch.PLACE


def sweep(
    folder: Path, records: float = float("inf"), audit: float = 0.0, **schedule: Any
) -> led.Files:
    """A sweep of eight rates that was run for so many records."""
    files = led.Files(folder)
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, request(grid(RATES, **schedule)), audit)
        conductor.begin({})
        Engine(conductor, v_shaped).run(records)
    return files


def found(files: led.Files, **how: Any) -> dict[str, int]:
    """How many files can be deleted, by what they are."""
    sweep = led.fold(led.read(files))
    pruning = prune.find(files, sweep, command.best_trials(files, sweep), scratch.PLACE, **how)
    return {part.what: len(part.paths) for part in pruning.parts}


def left(files: led.Files) -> int:
    """How many checkpoints there are."""
    return len(list(files.checkpoints.glob("*/*/checkpoint.pt")))


def ask(files: led.Files, *more: str) -> Any:
    return CliRunner().invoke(command.app, [str(files.folder), *more])


def test_the_checkpoints_of_finished_trials_go_except_the_best(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    assert (left(files), found(files)) == (8, {prune.ENDED: 7})


def test_the_best_stays(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    ask(files, "--yes")
    (kept,) = files.checkpoints.iterdir()
    trials = led.fold(led.read(files)).trials
    assert trials[kept.name.rpartition("-")[0]].label == "lr=0.004"


def test_json_deletes_nothing_unless_yes_says_so(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    told = [json.loads(ask(files, "--json", *more).stdout) for more in ([], ["--yes"])]
    assert [list(one) for one in told] == [["sweep", "parts", "kept", "link", "deleted"]] * 2
    assert told[0]["parts"][0] | {"bytes": 0} == {"what": prune.ENDED, "files": 7, "bytes": 0}
    assert ([one["deleted"] for one in told], left(files)) == ([False, True], 1)


def kept(files: led.Files) -> set[tuple[str, str, int]]:
    """The roles, arms and seeds of the trials whose checkpoints are there after all others are deleted."""
    ask(files, "--yes")
    there = {path.name.rpartition("-")[0] for path in files.checkpoints.iterdir()}
    trials = led.fold(led.read(files)).everything
    return {(one.role, one.arm, one.seed) for one in trials if one.trial in there}


def test_the_runs_of_every_arm_stay_and_those_of_the_re_tune_grids_go(tmp_path: Path) -> None:
    conduct(tmp_path, study(retune=RETUNE), lambda c, s: noisy(c, s, 0.25, 1.0))
    runs = {("run", arm, seed) for arm in ("baseline", "nope") for seed in (0, 1)}
    assert kept(led.Files(tmp_path)) == runs


def test_the_runs_that_have_to_read_the_test_text_stay_until_they_have(tmp_path: Path) -> None:
    """They are those of the best rate, and of the base config's, 3e-3."""
    files = led.Files(tmp_path)
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, request(grid([1e-3, 3e-3, 4e-3], **NONE)))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
        assert found(files) == {prune.ENDED: 1}
        losses = {"loss": 3.0, "bits_per_byte": 1.0, "tokens": 2048, "split": "ab" * 8}
        conductor.test(conductor.sweep.trials.values(), lambda run, file: losses)
    assert found(files) == {prune.ENDED: 2}


def test_the_runs_of_the_best_mean_stay_and_not_the_lowest_run(tmp_path: Path) -> None:
    tree = {**grid(RATES[:2], **NONE), "seeds": [0, 1, 2]}
    lucky = {(RATES[0], 0): 1.0}
    losses = {RATES[0]: 3.0, RATES[1]: 2.2}

    def how(config: dict[str, Any], share: float) -> float:
        rate = config["optim"]["lr"]
        return lucky.get((rate, config["run"]["seed"]), losses[rate]) + 1 - share

    files = led.Files(tmp_path)
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        Engine(conductor, how).run()
    sweep = led.fold(led.read(files))
    best = {one.trial for one in sweep.trials.values() if one.values == {"optim.lr": RATES[1]}}
    assert command.best_trials(files, sweep) == best
    assert len(best) == len(kept(files)) == 3


def test_an_audit_that_was_better_stays(tmp_path: Path, saved: Path) -> None:
    files, file = better_audit(tmp_path / "s", saved)
    assert ask(files, "--yes").exit_code == 0
    assert file.is_file()


def test_all_that_finished_stay_of_a_space_that_is_not_known(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    lines = [line.rpartition(',"sum"')[0] + "}" for line in files.ledger.read_text().splitlines()]
    text = "\n".join([*lines, ""]).replace('"method":"grid"', '"method":"of tomorrow"')
    files.ledger.write_text(text)
    assert (ask(files, "--yes").exit_code, left(files)) == (0, 8)


def test_what_an_interrupted_trial_resumes_from_stays(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", records=5, **NONE)
    assert found(files) == {}


def test_a_sweep_that_was_pruned_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", records=40)
    ask(files, "--yes", "--stopped")
    after, whole = sweep(files.folder), sweep(tmp_path / "whole")
    curves = [
        {one.label: one.curve for one in led.fold(led.read(of)).trials.values()}
        for of in (after, whole)
    ]
    assert curves[0] == curves[1]


def test_stopped_trials_stay_for_an_audit(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s")
    assert prune.STOPPED not in found(files)


def test_stopped_trials_go_if_that_is_asked_for(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s")
    trials = led.fold(led.read(files)).trials.values()
    stopped = sum(one.status == "stopped" for one in trials)
    assert stopped and found(files, stopped=True)[prune.STOPPED] == stopped


def test_audits_that_have_ended_need_no_checkpoint(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", audit=1.0)
    audits = led.fold(led.read(files)).audits
    assert audits and found(files)[prune.ENDED] == len(audits)


def test_what_crashes_and_ray_tune_left_goes(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", records=5, **NONE)
    trial = next(iter(led.fold(led.read(files)).trials))
    attempt = files.checkpoints / f"{trial}-7"
    (attempt / "checkpoint_9").mkdir(parents=True)
    (attempt / "checkpoint_9" / "checkpoint.pt").write_text("9")
    (attempt / "error.pkl").write_text("x")
    (files.checkpoints / "experiment_state-2026.json").write_text("x")
    assert found(files) == {prune.UNNAMED: 2, prune.SNAPSHOTS: 1}
    ask(files, "--yes")
    assert (found(files), attempt.exists()) == ({}, False)


def test_temporary_folders_of_dead_drivers_go_and_others_stay(
    tmp_path: Path, temporary: Path
) -> None:
    files = sweep(tmp_path / "s", records=5, **NONE)
    dead, mine = temporary / "sweep-dead", temporary / "sweep-mine"
    dead.mkdir(parents=True, mode=0o700)
    mine.mkdir(mode=0o700)
    (dead / "driver.lock").write_text("")
    with scratch.private_folder(tmp_path) as alive:
        alive.rename(temporary / alive.name)
        assert found(files) == {prune.TEMPORARY: 1}
        ask(files, "--yes")
        assert sorted(temporary.iterdir()) == sorted([mine, temporary / alive.name])


def test_a_file_that_has_another_name_frees_nothing(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    folded = led.fold(led.read(files))
    (before,) = prune.find(files, folded, set(), scratch.PLACE).parts
    files.best.mkdir()
    files.best_checkpoint.hardlink_to(before.paths[0])
    (after,) = prune.find(files, folded, set(), scratch.PLACE).parts
    assert before.size - after.size == before.paths[0].stat().st_size > 0


def test_nothing_goes_without_a_yes(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    done = ask(files)
    assert (done.exit_code, left(files)) == (0, 8)
    assert "To delete this, add --yes" in done.stdout


@pytest.mark.fault("files of people in a sweep that is pruned", "they stay")
def test_the_ledger_and_files_of_people_stay(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    of_people = [
        files.notes,
        files.checkpoints / "mine-1" / "checkpoint_1" / "checkpoint.pt",
        next(files.checkpoints.glob("*/*/")) / "thesis.txt",
    ]
    of_people[1].parent.mkdir(parents=True)
    [file.write_text("mine") for file in of_people]
    before = files.ledger.read_bytes()
    assert ask(files, "--yes").exit_code == 0
    assert [file.read_text() for file in of_people] == ["mine"] * 3
    assert files.ledger.read_bytes() == before


@pytest.mark.fault("links out of a sweep that is pruned", "what they lead to stays")
def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    trial = next(iter(led.fold(led.read(files)).trials))
    outside = tmp_path / "outside" / "checkpoint_1" / "checkpoint.pt"
    outside.parent.mkdir(parents=True)
    outside.write_text("mine")
    (files.checkpoints / f"{trial}-8").symlink_to(tmp_path / "outside")
    (files.checkpoints / f"{trial}-9").mkdir()
    (files.checkpoints / f"{trial}-9" / "checkpoint_1").symlink_to(outside.parent)
    (files.checkpoints / f"{trial}-9" / "error.pkl").symlink_to(outside)
    ask(files, "--yes")
    assert outside.read_text() == "mine"


def test_checkpoints_that_are_kept_elsewhere_are_left_alone(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    files.checkpoints.rename(tmp_path / "elsewhere")
    files.checkpoints.symlink_to(tmp_path / "elsewhere")
    done = ask(files, "--yes")
    assert (done.exit_code, left(files)) == (0, 8)
    assert "is a link, so the checkpoints behind it are left alone" in done.stdout


@pytest.mark.fault("pruning a sweep that runs", "exit code 5")
def test_a_sweep_that_runs_is_not_pruned(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    with led.Ledger(files):
        done = ask(files, "--yes")
    assert (done.exit_code, left(files)) == (5, 8)


def test_a_path_out_of_the_sweep_is_damage_and_nothing_goes(tmp_path: Path) -> None:
    files = sweep(tmp_path / "s", **NONE)
    lines = files.ledger.read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if '"checkpointed"' in line)
    path = lines[last].split('"path":"')[1].split('"')[0]
    lines = [line.rpartition(',"sum"')[0] + "}" for line in lines]
    lines[last] = lines[last].replace(path, "../precious/a/checkpoint.pt")
    files.ledger.write_text("\n".join([*lines, ""]))
    done = ask(files, "--yes")
    assert (done.exit_code, left(files)) == (6, 8), done.output
