"""A study that is started over in another folder is told on, by the ledgers beside it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, conduct, is_bare, study
from ledgers import lr_sweep, rewrite

from sweeps import ledger as led
from sweeps.findings.everything import Reader

TREE = study(seeds=[0, 1, 2])
TOLD = "the same comparison was made before in first"


def worse(config: dict[str, Any], share: float) -> float:
    """The arm is clearly worse."""
    return 3.0 + 0.3 * is_bare(config) + 0.001 * config["run"]["seed"] + (1 - share)


def at(folder: Path, day: int, since: int = 0) -> None:
    """Rewrite the ledger of a study as if the rows from one on had been made on this day."""
    files, time = led.Files(folder), f"2026-01-{day:02}T00:00:00.000+00:00"
    rows = led.read(files)
    rewrite(files, [*rows[:since], *[{**row, "time": time} for row in rows[since:]]])


def words(folder: Path, arm: str = "nope") -> str:
    """The verdict on an arm of a study."""
    (found,) = (
        one
        for one in Reader().findings(led.Files(folder)).as_json()["arms"]["arms"]
        if one["arm"] == arm
    )
    return str(found["words"])


def twice(folder: Path, first: dict[str, Any], second: dict[str, Any], records: float = 99) -> str:
    """What the second of two studies says of its arm."""
    conduct(folder / "first", first, worse, records)
    at(folder / "first", 1)
    conduct(folder / "second", second, worse)
    at(folder / "second", 2)
    return words(folder / "second")


@pytest.mark.parametrize(
    "second",
    [
        TREE,
        TREE | {"seeds": [5, 6, 7]},
        TREE | {"metric": "bits_per_byte"},
        TREE | {"repeats": 2},
        TREE | {"base": {"run.checkpoint_every_tokens": 2048}},
    ],
    ids=["same", "seeds", "metric", "repeats", "checkpoints"],
)
def test_a_study_that_is_started_over_says_so(tmp_path: Path, second: dict[str, Any]) -> None:
    assert TOLD in twice(tmp_path, TREE, second)


def test_an_arm_that_is_started_over_by_another_name_says_so(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse)
    at(tmp_path / "first", 1)
    conduct(tmp_path / "second", TREE | {"arms": {"bare": NOPE}}, worse)
    at(tmp_path / "second", 2)
    assert TOLD in words(tmp_path / "second", "bare")


def test_the_first_of_two_studies_says_nothing(tmp_path: Path) -> None:
    twice(tmp_path, TREE, TREE)
    assert "before" not in words(tmp_path / "first")


def test_another_change_is_not_the_same(tmp_path: Path) -> None:
    change = {**NOPE, "set": {"model.norm": "post", "model.position": "none"}}
    assert "before" not in twice(tmp_path, TREE, TREE | {"arms": {"nope": change}})


def test_a_change_that_was_studied_on_another_base_says_so(tmp_path: Path) -> None:
    said = twice(tmp_path, TREE, TREE | {"base": {"optim.weight_decay": 0.2}})
    assert said.endswith(": the same change was studied before on another base config, in first")


def of_scale(folder: Path, scale: str) -> str:
    """What a study of the same change on another base says, after one of this scale."""
    conduct(folder / "first", TREE, worse)
    files = led.Files(folder / "first")
    rewrite(files, [row | {"scale": scale} if "scale" in row else row for row in led.read(files)])
    at(folder / "first", 1)
    conduct(folder / "second", TREE | {"base": {"optim.weight_decay": 0.2}}, worse)
    at(folder / "second", 2)
    return words(folder / "second")


def test_at_another_scale_it_is_another_question(tmp_path: Path) -> None:
    assert "before" not in of_scale(tmp_path, "cpu")


def test_a_scale_that_is_named_by_its_file_is_the_same(tmp_path: Path) -> None:
    (scale,) = {row["scale"] for row in scaled(tmp_path / "plain")}
    assert "studied before on another base" in of_scale(tmp_path, f"/some/where/{scale}.yaml")


def scaled(folder: Path) -> list[dict[str, Any]]:
    """The rows of a study that name its scale."""
    conduct(folder, TREE, worse, records=0)
    return [row for row in led.read(led.Files(folder)) if "scale" in row]


def test_an_arm_that_becomes_the_base_is_the_same_comparison(tmp_path: Path) -> None:
    turned = {"hypothesis": "Better.", "set": {"model.position": "rope"}}
    second = TREE | {"base": {"model.position": "none"}, "arms": {"nope": turned}}
    assert twice(tmp_path, TREE, second).endswith(TOLD)


def test_a_study_that_was_moved_into_a_folder_beside_is_told(tmp_path: Path) -> None:
    twice(tmp_path, TREE, TREE)
    (tmp_path / "old").mkdir()
    shutil.move(tmp_path / "first", tmp_path / "old" / "first")
    assert words(tmp_path / "second").endswith("was made before in old/first")


def into_sub(folder: Path, sub: str = "sub") -> Path:
    """The second of two studies in a folder within the results folder of the first."""
    twice(folder, TREE, TREE)
    (folder / sub).mkdir(parents=True)
    shutil.move(folder / "second", folder / sub / "second")
    return folder / sub / "second"


def test_a_study_in_a_folder_of_a_results_folder_is_told_of_those_above(tmp_path: Path) -> None:
    second = into_sub(tmp_path)
    led.ResultsFolder(tmp_path).written.touch()
    assert words(second).endswith("the same comparison was made before in ../first")


def test_a_study_further_down_is_told_of_those_in_the_results_folder(tmp_path: Path) -> None:
    second = into_sub(tmp_path, "sub/more")
    led.ResultsFolder(tmp_path).written.touch()
    assert words(second).endswith("the same comparison was made before in ../../first")


def test_a_study_is_told_of_those_above_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = into_sub(tmp_path)
    led.ResultsFolder(tmp_path).written.touch()
    monkeypatch.chdir(second.parent)
    assert words(Path("second")).endswith("the same comparison was made before in ../first")


def test_a_folder_above_that_is_no_results_folder_is_not_beside(tmp_path: Path) -> None:
    assert "before" not in words(into_sub(tmp_path))


def test_a_study_without_a_record_of_the_arm_was_not_studied(tmp_path: Path) -> None:
    assert "before" not in twice(tmp_path, TREE, TREE, records=4)


def test_a_study_whose_driver_was_killed_was_studied(tmp_path: Path) -> None:
    """No row says how its runs ended, and somebody has seen their curves."""
    killed = conduct(tmp_path / "first", TREE, worse, records=30)
    curves = {
        trial.status: len(trial.curve) for trial in killed.trials.values() if trial.arm == "nope"
    }
    assert curves == {"running": 7, "planned": 0}
    at(tmp_path / "first", 1)
    conduct(tmp_path / "second", TREE, worse)
    at(tmp_path / "second", 2)
    with led.Ledger(led.Files(tmp_path / "first")):
        assert "before" not in words(tmp_path / "second")
    assert words(tmp_path / "second").endswith(TOLD)


def test_a_study_that_was_killed_and_went_on_later_had_been_studied(tmp_path: Path) -> None:
    begun_first(tmp_path, records=30)
    assert words(tmp_path / "second").endswith(TOLD)
    assert "before" not in words(tmp_path / "first")


def test_a_study_whose_runs_of_an_arm_failed_was_studied(tmp_path: Path) -> None:
    def fails(config: dict[str, Any], share: float) -> float:
        if is_bare(config) and share > 0.5:
            raise ArithmeticError
        return worse(config, share)

    conduct(tmp_path / "first", TREE, fails)
    at(tmp_path / "first", 1)
    conduct(tmp_path / "second", TREE, worse)
    assert words(tmp_path / "second").endswith(TOLD)


# The runs of the baseline on two seeds end, those on the third and of the arm on the first are capped.
CAPPED = {"caps": {"tokens": 3 * 8192}}


def begun_first(folder: Path, records: float, **more: Any) -> None:
    """A study that is begun before another one, for so many records, and goes on after it."""
    conduct(folder / "first", TREE | more, worse, records)
    at(folder / "first", 1)
    rows = len(led.read(led.Files(folder / "first")))
    conduct(folder / "second", TREE, worse)
    at(folder / "second", 2)
    conduct(folder / "first", TREE, worse)
    at(folder / "first", 3, since=rows)


def test_a_study_that_was_begun_first_and_has_later_results_is_the_later_one(
    tmp_path: Path,
) -> None:
    begun_first(tmp_path, records=4)
    assert words(tmp_path / "first").endswith("the same comparison was made before in second")
    assert "before" not in words(tmp_path / "second")


def test_a_study_whose_baseline_alone_was_capped_had_no_result(tmp_path: Path) -> None:
    begun_first(tmp_path, records=99, caps={"tokens": 4096})
    assert words(tmp_path / "first").endswith("the same comparison was made before in second")
    assert "before" not in words(tmp_path / "second")


def test_a_study_whose_runs_a_cap_ended_was_studied(tmp_path: Path) -> None:
    begun_first(tmp_path, records=99, **CAPPED)
    assert "before" not in words(tmp_path / "first")
    assert words(tmp_path / "second").endswith(TOLD)


def instead(folder: Path, kind: str, **fields: Any) -> None:
    """Rewrite the ledger of a study as if its capped runs had ended otherwise."""
    files = led.Files(folder)
    same = ("seq", "time", "t", "trial")
    rewrite(
        files,
        [
            {**{name: row[name] for name in same}, "kind": kind, **fields}
            if row["kind"] == "capped"
            else row
            for row in led.read(files)
        ],
    )


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("preempted", {"attempt": 1, "how": "signal"}),
        ("steered", {"action": "stop", "tokens": 2048}),
    ],
)
def test_a_study_whose_runs_were_ended_with_a_curve_was_studied(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    conduct(tmp_path / "first", TREE | CAPPED, worse)
    instead(tmp_path / "first", kind, **fields)
    at(tmp_path / "first", 1)
    conduct(tmp_path / "second", TREE, worse)
    assert words(tmp_path / "second").endswith(TOLD)


@pytest.mark.parametrize(
    "fields", [{"action": "stop", "tokens": 0}, {"action": "finish", "tokens": 2048}]
)
def test_a_study_whose_runs_were_steered_before_they_showed_anything_was_not_studied(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    conduct(tmp_path / "first", TREE | CAPPED, worse)
    instead(tmp_path / "first", "steered", **fields)
    files = led.Files(tmp_path / "first")
    kept = [row for row in led.read(files) if row["kind"] != "measured"]
    rewrite(files, [{**row, "seq": place} for place, row in enumerate(kept)])
    at(tmp_path / "first", 1)
    conduct(tmp_path / "second", TREE, worse)
    assert "before" not in words(tmp_path / "second")


def test_a_copy_of_a_study_is_not_another_one(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert "before" not in words(tmp_path / "copy") + words(tmp_path / "first")


def test_a_copy_of_an_earlier_study_is_named_once(tmp_path: Path) -> None:
    twice(tmp_path, TREE, TREE)
    shutil.copytree(tmp_path / "first", tmp_path / "first-copy")
    assert words(tmp_path / "second").endswith(TOLD)


def test_a_copy_of_a_study_that_went_on_otherwise_is_told(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    conduct(tmp_path / "copy", TREE | {"seeds": [7, 8, 9]}, worse)
    assert words(tmp_path / "first").endswith("a copy of the study went on otherwise: copy")
    assert "copy of the study" not in words(tmp_path / "copy")


def test_a_copy_that_was_made_before_the_first_look_is_told(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse, records=4)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    conduct(tmp_path / "copy", TREE | {"seeds": [7, 8, 9]}, worse)
    conduct(tmp_path / "first", TREE, worse)
    assert words(tmp_path / "first").endswith(": a copy of the study went on otherwise: copy")
    assert words(tmp_path / "copy").endswith("; a copy of the study went on otherwise: first")


def test_a_copy_that_went_on_otherwise_without_a_look_is_told(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse, records=4)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    conduct(tmp_path / "copy", TREE | {"seeds": [7, 8, 9]} | CAPPED, worse)
    conduct(tmp_path / "first", TREE, worse)
    assert words(tmp_path / "first").endswith("a copy of the study went on otherwise: copy")


def test_copies_that_went_on_in_the_same_way_are_one_study(tmp_path: Path) -> None:
    conduct(tmp_path / "first", TREE, worse, records=4)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    conduct(tmp_path / "copy", TREE, worse)
    conduct(tmp_path / "first", TREE, worse)
    assert words(tmp_path / "first") == words(tmp_path / "copy")
    assert "copy" not in words(tmp_path / "first")


def again(folder: Path, name: str, day: int) -> None:
    """The first study under another name, as if it had been begun on another day."""
    shutil.copytree(folder / "first", folder / name)
    at(folder / name, day)


def test_of_many_earlier_studies_two_are_named(tmp_path: Path) -> None:
    twice(tmp_path, TREE, TREE)
    at(tmp_path / "second", 9)
    again(tmp_path, "third", 3)
    again(tmp_path, "fourth", 4)
    told = "the same comparison was made before in first and third and 1 other sweep"
    assert words(tmp_path / "second").endswith(told)


def test_a_study_that_was_moved_out_is_not_beside(tmp_path: Path) -> None:
    twice(tmp_path / "results", TREE, TREE)
    shutil.move(tmp_path / "results" / "first", tmp_path / "first")
    assert "before" not in words(tmp_path / "results" / "second")


def test_a_verdict_without_a_claim_says_nothing_of_others(tmp_path: Path) -> None:
    dead = lambda config, share: 3.0 + 0.1 * config["run"]["seed"] + (1 - share)  # noqa: E731
    conduct(tmp_path / "first", TREE, dead)
    conduct(tmp_path / "second", TREE, dead)
    assert words(tmp_path / "second").startswith("void")
    assert "before" not in words(tmp_path / "second")


def test_a_damaged_ledger_beside_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.jsonl").write_text('{"kind":"sweep"}\n')
    assert TOLD in twice(tmp_path, TREE, TREE)


def test_a_search_beside_is_no_study(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "rates")
    assert TOLD in twice(tmp_path, TREE, TREE)


def test_every_arm_that_was_ever_studied_counts(tmp_path: Path) -> None:
    wide = {"hypothesis": "Better.", "set": {"model.d_ff": 96}}
    conduct(tmp_path / "first", TREE | {"arms": {"nope": NOPE, "wide": wide}}, worse)
    conduct(tmp_path / "first", TREE | {"arms": {"wide": wide}}, worse)
    assert TOLD in twice(tmp_path, TREE | {"arms": {"wide": wide}}, TREE)
