"""Trials that leave what is about to end: a node that is drained, or the driver that was warned."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import Engine, driver, grid, request, v_shaped

from sweeps import ledger as led
from sweeps.engine.driver import Driver

RATES = [1e-3, 4e-3, 1.6e-2]
SPACE = grid(RATES, policy="none")


def curves(of: led.Sweep) -> dict[str, list[tuple[int, float]]]:
    return {t.label: [(p["step"], p["val_loss"]) for p in t.curve] for t in of.trials.values()}


def whole(folder: Path) -> led.Sweep:
    """A sweep that nothing disturbs."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(SPACE))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    return led.fold(led.read(led.Files(folder)))


def disturbed(
    folder: Path,
    records: int,
    happens: Callable[[Driver, Engine], None],
    workers: int | None = None,
) -> list[led.Row]:
    """The rows of a sweep to which something happens after so many records."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(SPACE))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, workers=workers)
        engine.run(records)
        happens(conductor, engine)
        engine.run()
    return led.read(led.Files(folder))


def drain(conductor: Driver, engine: Engine) -> None:
    """The first node is drained."""
    conductor.note({"node": "a", "host": "host", "state": "draining"})
    engine.node = "b"


def warn(conductor: Driver, engine: Engine) -> None:
    """The driver is warned."""
    conductor.leave()


def ask_to_end(conductor: Driver, engine: Engine) -> None:
    """The first of the workers is asked to end."""
    engine.asked_to_end.add(engine.jobs[0].trial)


def of_kind(rows: list[led.Row], kind: str) -> list[led.Row]:
    return [row for row in rows if row["kind"] == kind]


def test_the_trials_of_a_node_that_is_drained_save_leave_and_lose_nothing(tmp_path: Path) -> None:
    rows = disturbed(tmp_path / "drained", 3, drain)
    left = of_kind(rows, "preempted")
    assert [row["how"] for row in left] == ["node", "node"]
    assert curves(led.fold(rows)) == curves(whole(tmp_path / "whole"))
    assert not of_kind(rows, "failed")


def test_a_trial_whose_worker_is_asked_to_end_saves_leaves_and_loses_nothing(
    tmp_path: Path,
) -> None:
    rows = disturbed(tmp_path / "asked", 3, ask_to_end)
    (left,) = of_kind(rows, "preempted")
    first = of_kind(rows, "started")[0]
    assert (left["trial"], left["how"]) == (first["trial"], "worker")
    assert curves(led.fold(rows)) == curves(whole(tmp_path / "whole"))
    assert not of_kind(rows, "failed")


def test_they_go_on_from_the_record_at_which_they_left(tmp_path: Path) -> None:
    rows = disturbed(tmp_path, 3, drain)
    ends = {row["trial"]: row["seq"] for row in of_kind(rows, "preempted")}
    last = {
        row["trial"]: row["step"]
        for row in of_kind(rows, "measured")
        if row["seq"] < ends.get(row["trial"], 0)
    }
    resumed = {row["trial"]: row["step"] for row in of_kind(rows, "started") if row["attempt"] == 2}
    assert resumed == last


def test_a_trial_on_another_node_stays(tmp_path: Path) -> None:
    rows = disturbed(tmp_path, 3, drain)
    assert {row["node"] for row in of_kind(rows, "started") if row["attempt"] == 2} == {"b"}
    assert len(of_kind(rows, "preempted")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_warning_each_trial_that_runs_saves_and_nothing_begins(
    tmp_path: Path, workers: int
) -> None:
    rows = disturbed(tmp_path, 3, warn, workers)
    assert [row["how"] for row in of_kind(rows, "preempted")] == ["signal"] * workers
    assert len(of_kind(rows, "started")) == workers
    trials = led.fold(rows).trials.values()
    saved = [one.checkpoint["tokens"] for one in trials if one.checkpoint]
    assert saved == [one.tokens for one in trials if one.curve]


def test_a_sweep_that_was_warned_goes_on_to_the_same_curves(tmp_path: Path) -> None:
    disturbed(tmp_path / "warned", 3, warn)
    assert curves(whole(tmp_path / "warned")) == curves(whole(tmp_path / "whole"))


def test_a_trial_that_is_at_its_end_finishes(tmp_path: Path) -> None:
    ends = sum(len(one.curve) for one in whole(tmp_path / "a").trials.values())
    rows = disturbed(tmp_path / "b", ends - 1, warn)
    assert len(of_kind(rows, "finished")) == len(RATES)
    assert not of_kind(rows, "preempted")
