"""What the loss on the test text says of a choice by the validation text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conducting import conduct, is_bare, study
from ledgers import (
    BASE,
    BUDGET,
    Story,
    damage,
    ended,
    read_of,
    rewrite,
    story,
    studied,
    tell_tested,
)

from sweeps import ledger as led
from sweeps.findings.best import to_test
from sweeps.findings.everything import SearchFindings, StudyFindings, findings
from sweeps.findings.tested import OnTestText
from sweeps.ledger import Files, Trial
from sweeps.repair import repair
from sweeps.report import tested as words
from sweeps.stats import t_quantile

BASE_LR = BASE.optim.lr
LOSSES = {BASE_LR: (3.0, 3.1, 3.2), 4e-3: (2.8, 3.0, 3.05)}
# The validation text flatters the best by 0.01, 0.02 and 0.03.
TESTS = {BASE_LR: (3.5, 3.6, 3.7), 4e-3: (3.31, 3.52, 3.58)}


def by_rate(tests: Mapping[float, tuple[float, ...]]) -> Callable[[Trial], float | None]:
    """The losses of the runs of some rates, one for each seed."""

    def loss_of(trial: Trial) -> float | None:
        rate = trial.value("optim.lr")
        return tests[rate][trial.seed] if rate in tests else None

    return loss_of


def known_of(files: Files) -> OnTestText | None:
    return findings(studied(files)).tested


@pytest.fixture
def search(tmp_path: Path) -> Files:
    """A search with three seeds that has read its test text."""
    files = ended(tmp_path / "s", "optim.lr", LOSSES)
    tell_tested(files, by_rate(TESTS))
    return files


def test_before_it_is_read_nothing_is_known_of_the_test_text(tmp_path: Path) -> None:
    assert known_of(ended(tmp_path / "s", "optim.lr", LOSSES)) is None


def test_the_losses_of_the_choice_are_means_over_its_seeds(search: Files) -> None:
    found = known_of(search)
    assert found is not None and found.chosen is not None
    assert found.chosen.runs == 3
    assert found.chosen.validation == pytest.approx((2.8 + 3.0 + 3.05) / 3)
    assert found.chosen.test == pytest.approx((3.31 + 3.52 + 3.58) / 3)


def test_flattery_is_how_much_more_the_loss_rises_than_that_of_the_base_config(
    search: Files,
) -> None:
    found = known_of(search)
    assert found is not None and found.flattery is not None
    assert found.flattery.mean == pytest.approx(0.02)
    # t(2) at 97.5% is 4.3027; the standard deviation is 0.01.
    assert found.flattery.high == pytest.approx(0.02 + 4.3027 * 0.01 / 3**0.5, rel=1e-4)


def test_without_the_base_config_there_is_no_flattery(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", {1e-3: 3.0, 4e-3: 2.8})
    tell_tested(files, by_rate({4e-3: (3.3,)}))
    found = known_of(files)
    assert found is not None
    assert (found.base, found.flattery) == (None, None)


def test_the_base_config_itself_is_not_flattered_by_the_choice(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", {BASE_LR: 2.7, 4e-3: 2.8})
    found = findings(studied(files))
    assert isinstance(found, SearchFindings)
    assert found.to_test.is_base
    assert found.to_test.base == ()


def test_a_loss_that_is_not_finite_is_not_known(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", {4e-3: 2.8})
    with led.Ledger(files) as ledger:
        (trial,) = led.fold(ledger.rows()).trials
        ledger.append("tested", runs=[trial], trials={trial: read_of(None)})
    found = known_of(files)
    assert found is not None
    assert found.chosen is None


def test_a_run_whose_checkpoint_was_gone_is_counted(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", LOSSES)
    tell_tested(files, lambda trial: 3.5 if trial.label == "lr=0.002" else None)
    found = known_of(files)
    assert found is not None
    assert found.unread == 5


def test_a_search_reads_the_runs_of_its_best_values_and_of_its_base_config(tmp_path: Path) -> None:
    losses = {BASE_LR: (3.0, 3.1), 4e-3: (2.8, 3.0), 8e-3: (3.3, 3.4)}
    runs = to_test(findings(studied(ended(tmp_path / "s", "optim.lr", losses))))
    read_by = {(run.value("optim.lr"), run.seed) for run in runs}
    assert read_by == {(4e-3, 0), (4e-3, 1), (BASE_LR, 0), (BASE_LR, 1)}


def test_a_corpus_without_a_test_text_is_not_read(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"data.test_fraction": {"grid": [0.0]}}, metric="bits_per_byte")
        trial = tell.plan({"data.test_fraction": 0.0})
        tell.whole(trial, 2e-3)
    assert to_test(findings(studied(Files(tmp_path / "s")))) == ()


def went_on(files: Files) -> bool:
    found = known_of(files)
    assert found is not None
    return found.went_on


def test_a_text_that_was_read_at_the_end_is_new(search: Files) -> None:
    assert not went_on(search)


def test_a_sweep_that_is_extended_has_looked_at_its_test_text(search: Files) -> None:
    with led.Ledger(search) as ledger:
        Story(ledger).plan({"optim.lr": 8e-3})
    assert went_on(search)


def test_a_sweep_whose_values_are_withdrawn_has_looked_at_its_test_text(search: Files) -> None:
    with led.Ledger(search) as ledger:
        first = next(iter(led.fold(ledger.rows()).trials))
        ledger.append("withdrawn", trial=first)
    assert went_on(search)


def test_a_test_text_that_other_runs_read_later_was_looked_at(search: Files) -> None:
    with led.Ledger(search) as ledger:
        (*_, last) = led.fold(ledger.rows()).trials
        ledger.append("tested", runs=[last], trials={last: read_of(3.0)})
    assert went_on(search)


def test_a_test_text_that_is_read_to_the_end_later_is_new(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", LOSSES)
    tell_tested(files, by_rate({4e-3: TESTS[4e-3]}))
    tell_tested(files, by_rate({BASE_LR: TESTS[BASE_LR]}))
    found = known_of(files)
    assert found is not None
    assert (found.went_on, found.unread) == (False, 0)


def test_a_sweep_that_chooses_by_another_metric_has_looked_at_its_test_text(
    search: Files,
) -> None:
    rows = led.read(search)
    asked = next(row for row in rows if row["kind"] == "sweep")
    best = {row["trial"] for row in rows if row.get("values") == {"optim.lr": BASE_LR}}
    for row in rows:
        if row["kind"] == "measured":
            row["bits_per_byte"] = 1.0 if row["trial"] in best else 2.0
    rewrite(search, rows)
    with led.Ledger(search) as ledger:
        kept = {name: asked[name] for name in asked if name not in {"seq", "time", "t", "kind"}}
        ledger.append("sweep", **kept | {"space": asked["space"] | {"metric": "bits_per_byte"}})
    assert went_on(search)


def test_a_repair_that_drops_the_losses_on_the_test_text_is_told(search: Files) -> None:
    """That the sweep went on is told only if it did."""
    damage(search, "tested")
    repair(search)
    tell_tested(search, by_rate(TESTS))
    found = known_of(search)
    assert found is not None
    assert (found.went_on, found.read_once) == (False, False)


def test_a_repair_that_drops_what_came_after_the_test_text_is_told(search: Files) -> None:
    with led.Ledger(search) as ledger:
        Story(ledger).plan({"optim.lr": 8e-3})
    damage(search, "tested")
    repair(search)
    tell_tested(search, by_rate(TESTS))
    assert went_on(search)


def test_a_test_text_is_not_said_to_be_read_once_where_a_repair_dropped_what_it_could_not_read(
    search: Files,
) -> None:
    whole = search.ledger.read_bytes()
    search.ledger.write_bytes(whole + b"xx\n")
    repair(search)
    found = known_of(search)
    assert found is not None
    assert (found.went_on, found.read_once) == (False, False)


def test_a_search_says_that_it_read_the_test_text_once_itself(search: Files) -> None:
    (said, *_) = words.tested_words(findings(studied(search)))
    begin = "On the test text, which this sweep read once, at its end, lr=0.004 has a loss of "
    assert said.startswith(begin)


def test_a_session_that_trains_nothing_leaves_the_test_text_new(search: Files) -> None:
    with led.Ledger(search) as ledger:
        ledger.append("session", command="python -m sweeps.run lr", slots=0)
    assert not went_on(search)


def test_reading_the_test_text_takes_none_of_the_time_of_the_sweep(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", LOSSES)
    before = studied(files).sweep.seconds
    tell_tested(files, by_rate(TESTS))
    assert studied(files).sweep.seconds == before


@pytest.fixture
def arms(tmp_path: Path) -> Files:
    """A study with three seeds whose arm is worse by 0.2 on the validation text, and by 0.25 on the test text."""
    conduct(tmp_path, study(seeds=[0, 1, 2]), lambda c, s: arm_loss(c))
    files = Files(tmp_path)
    tell_tested(files, lambda t: arm_loss(t.config) + 0.4 + 0.05 * is_bare(t.config))
    return files


def arm_loss(config: dict[str, Any]) -> float:
    return 3.0 + 0.01 * config["run"]["seed"] + 0.2 * is_bare(config)


def test_an_arm_is_compared_on_both_texts_over_the_same_seeds(arms: Files) -> None:
    found = known_of(arms)
    assert found is not None
    (arm,) = found.arms
    assert (arm.arm, arm.test.n) == ("nope", 3)
    assert (arm.validation, arm.test.mean) == pytest.approx((0.2, 0.25))
    assert arm.flattery.mean == pytest.approx(0.05)


def test_a_study_says_that_it_read_the_test_text_once_itself(arms: Files) -> None:
    found = findings(studied(arms))
    assert isinstance(found, StudyFindings) and found.tested is not None
    tokens = (
        f"{found.tested.tokens:,} tokens of the test text, which this sweep read once, at its end."
    )
    assert tokens in "\n".join(words.tested_section(found))


def test_a_study_reads_the_runs_that_its_arms_are_compared_by(arms: Files) -> None:
    found = findings(studied(arms))
    assert isinstance(found, StudyFindings)
    compared = {run.trial for arm in found.settled for run in arm.runs.values()}
    assert {run.trial for run in to_test(found)} == compared


def test_after_several_looks_its_intervals_are_wider_as_that_of_the_verdict(tmp_path: Path) -> None:
    """Both differ from the differences on the validation text only by a constant."""
    seeds = {"looks": [3, 5]}
    conduct(tmp_path, study(seeds=seeds), lambda c, s: scattered(c))
    files = Files(tmp_path)
    tell_tested(files, lambda t: scattered(t.config) * (1 + is_bare(t.config)))
    compared, found = findings(studied(files)), known_of(files)
    assert isinstance(compared, StudyFindings) and compared.comparison is not None
    assert found is not None
    verdict, (arm,) = compared.comparison.arms[1].effect, found.arms
    assert verdict is not None and verdict.sd is not None
    assert verdict.low is not None and verdict.high is not None
    assert arm.test.low is not None and arm.test.high is not None and arm.test.sd is not None
    errors = (verdict.high - verdict.low) / verdict.sd
    assert (arm.test.high - arm.test.low) / arm.test.sd == pytest.approx(errors)
    assert errors > 2 * t_quantile(4) / 5**0.5


def scattered(config: dict[str, Any]) -> float:
    """The losses of an arm scatter over seeds by more than those of the baseline."""
    seed = config["run"]["seed"]
    return 3.0 + 0.01 * seed + is_bare(config) * 0.07 * (seed * 7 % 5)


def test_a_base_config_that_read_another_text_is_told(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [BASE_LR, 4e-3]}})
        for rate, loss, corpus in ((BASE_LR, 3.0, "a" * 16), (4e-3, 2.8, "b" * 16)):
            trial = tell.plan({"optim.lr": rate}, corpus=corpus)
            tell.start(trial)
            tell.measure(trial, BUDGET, loss)
            tell.finish(trial)
    files = Files(tmp_path / "s")
    tell_tested(files, by_rate({BASE_LR: (3.5,), 4e-3: (3.3,)}))
    found = findings(studied(files))
    assert found.tested is not None and found.tested.flattery is None
    assert words.tested_words(found)[1] == (
        "It was chosen by its validation loss, which is therefore a little too good; by how much is not known, "
        "because it was evaluated on another text than the base config."
    )
