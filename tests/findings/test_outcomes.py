"""The problem of a trial, by rule."""

from pathlib import Path
from typing import Any

import pytest
from ledgers import BUDGET, EVERY, Story, read_often, story, studied

from sweeps import ledger as led
from sweeps.findings.doubts import high_init
from sweeps.outcomes import RULES, outcome, overfit
from sweeps.report.plots.look import CROSSES
from tinylm import config as cfg


def problem_of(folder: Path, **how: Any) -> str:
    """The problem of a trial with this loss, spike, unigram entropy and end."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3}, unigram_entropy=how.get("entropy"))
        tell.start(trial)
        tell.measure(trial, BUDGET // 2, how.get("half", how.get("loss", 3.0)))
        tell.measure(trial, BUDGET, how.get("loss", 3.0), spike=how.get("spike", 0.0))
        how.get("end", lambda tell, trial: tell.finish(trial))(tell, trial)
    return outcome(led.fold(led.read(led.Files(folder))).trials[trial])


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({}, ""),
        ({"half": 3.04, "entropy": 3.0}, "stuck"),
        ({"half": 3.06, "entropy": 3.0}, ""),  # it still learns
        ({"entropy": 3.1}, ""),
        ({"entropy": 3.0}, "stuck"),
        ({"loss": 8.69}, ""),  # 0.99 above the loss at init, 7.7
        ({"loss": 8.71}, "blown up"),
        ({"loss": 8.71, "end": lambda tell, trial: tell.stop(trial, BUDGET, 8.71)}, "blown up"),
        ({"loss": 8.69, "end": lambda tell, trial: tell.stop(trial, BUDGET, 8.69)}, ""),
        ({"loss": 8.71, "end": lambda tell, trial: None}, ""),  # it may come down
        ({"spike": 0.99}, ""),
        ({"spike": 1.01}, "spiked"),
        ({"end": lambda tell, trial: tell.diverge(trial, BUDGET)}, "non-finite"),
        ({"end": lambda tell, trial: tell.diverge(trial, BUDGET, "loss up to")}, "blown up"),
        ({"end": lambda tell, trial: tell.fail(trial, "ValueError: no")}, "failed"),
        ({"end": lambda tell, trial: tell.fail(trial, "CUDA out of memory")}, "out of memory"),
        ({"end": lambda tell, trial: tell.fail(trial, "can't allocate memory")}, "out of memory"),
        (
            {
                "end": lambda tell, trial: tell.fail(
                    trial, "no", traceback="CUDA error: out of memory"
                )
            },
            "out of memory",
        ),
        ({"end": lambda tell, trial: tell.fail(trial, "no", how="out of memory")}, "out of memory"),
        ({"end": lambda tell, trial: tell.fail(trial, "out of memory", how="error")}, "failed"),
        ({"entropy": 2.0, "end": lambda tell, trial: tell.stop(trial, BUDGET, 3.0)}, ""),
    ],
)
def test_every_problem_has_its_rule(tmp_path: Path, how: dict[str, Any], kind: str) -> None:
    assert problem_of(tmp_path, **how) == kind


def test_every_problem_has_its_own_mark() -> None:
    assert set(CROSSES) == set(RULES)
    assert len(set(CROSSES.values())) == len(RULES)


def ended_at(folder: Path, val_loss: float, train_loss: float, **how: Any) -> led.Trial:
    """A trial whose validation loss was lowest, 3.0, at its first record, and that ended at these
    losses."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3}, unigram_entropy=how.get("entropy"))
        tell.start(trial)
        tell.measure(trial, EVERY, 3.0, train_loss=how.get("first", 2.9))
        last = {"train_loss": train_loss, "spike": how.get("spike", 0.0)}
        tell.measure(trial, BUDGET, val_loss, **last)
        how.get("end", Story.finish)(tell, trial)
    return led.fold(led.read(led.Files(folder))).trials[trial]


def stopped(tell: Story, trial: str) -> None:
    tell.stop(trial, BUDGET, 3.2)


def running(tell: Story, trial: str) -> None:
    """It goes on."""


@pytest.mark.parametrize(
    ("val_loss", "train_loss", "how", "kind"),
    [
        (3.051, 2.0, {}, "overfitted"),
        (3.049, 2.0, {}, ""),  # as much as evaluations differ
        (3.2, 2.849, {}, "overfitted"),
        (3.2, 2.851, {}, ""),  # the training loss did not fall: unstable, or at a plateau
        (3.2, 2.949, {"first": 7.0}, "overfitted"),
        (3.2, 2.951, {"first": 7.0}, ""),  # a first record's training loss is of the first updates
        (3.2, 2.0, {"end": stopped}, "overfitted"),
        (3.2, 2.0, {"end": running}, ""),  # the decay of the learning rate is yet to come
        (9.0, 2.0, {}, "overfitted"),  # not blown up, though above the loss at init
        (9.0, 9.0, {}, "blown up"),
        (3.2, 2.0, {"entropy": 3.0}, "overfitted"),  # not stuck
        (3.2, 2.0, {"spike": 2.0}, "spiked"),
    ],
)
def test_a_run_that_learned_only_its_training_text_has_overfitted(
    tmp_path: Path, val_loss: float, train_loss: float, how: dict[str, Any], kind: str
) -> None:
    assert outcome(ended_at(tmp_path, val_loss, train_loss, **how)) == kind


def test_an_overfitted_run_has_its_lowest_loss_and_the_gaps(tmp_path: Path) -> None:
    found = overfit(ended_at(tmp_path, 3.2, 2.0))
    assert found is not None
    assert (found.best.val_loss, found.best.tokens) == (3.0, EVERY)
    assert [found.rise, found.best.gap, found.end.gap] == pytest.approx([0.2, 0.1, 1.2])


@pytest.mark.parametrize(
    ("budget", "passes"), [({}, pytest.approx(40, rel=1e-3)), ({"seconds": 60.0}, None)]
)
def test_passes_are_the_tokens_of_a_run_over_those_of_its_text(
    tmp_path: Path, budget: dict[str, float], passes: float | None
) -> None:
    """Within a budget of time it is not known how many tokens a run will read."""
    trial = studied(read_often(tmp_path, {1e-3: 3.0})).trials[0]
    trial.config["budget"] |= budget
    trial.status = "running"
    assert trial.passes == passes


def test_the_passes_over_a_text_of_unknown_size_are_not_known(tmp_path: Path) -> None:
    trial = studied(read_often(tmp_path, {1e-3: 3.0})).trials[0]
    trial.train_tokens = None  # as in older ledgers
    assert trial.passes is None


@pytest.mark.parametrize(("above", "high"), [(0.99, False), (1.01, True)])
def test_a_loss_at_init_a_nat_above_a_uniform_guess_is_high(
    tmp_path: Path, above: float, high: bool
) -> None:
    trial = ended_at(tmp_path, 3.0, 3.0)
    trial.loss_init = cfg.validate(trial.config, "").model.uniform_loss + above
    assert (high_init([trial]) is not None) is high
