"""The problem of a trial, by rule."""

from pathlib import Path
from typing import Any

import pytest
from ledgers import BUDGET, story

from sweeps import ledger as led
from sweeps.findings.outcomes import RULES, outcome
from sweeps.report.plots.look import CROSSES


def problem_of(folder: Path, **how: Any) -> str:
    """The problem of a trial with this loss, spike, unigram entropy and end."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3}, unigram_entropy=how.get("entropy"))
        tell.start(trial)
        tell.measure(trial, BUDGET, how.get("loss", 3.0), spike=how.get("spike", 0.0))
        how.get("end", lambda tell, trial: tell.finish(trial))(tell, trial)
    return outcome(led.fold(led.read(led.Files(folder))).trials[trial])


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({}, ""),
        ({"entropy": 3.1}, ""),
        ({"entropy": 3.0}, "stuck"),
        ({"loss": 8.69}, ""),  # 0.99 above the loss at init, 7.7
        ({"loss": 8.71}, "blown up"),
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
