"""How far apart checkpoints are where the time between failures is stated."""

import math
from pathlib import Path
from typing import Any

import pytest
from fakes import Engine, driver, grid, request, v_shaped

from sweeps import ledger as led
from sweeps.engine.interval import Interval
from sweeps.engine.job import Job

COST, MTBF, RECORD = 2.0, 400.0, 10.0  # seconds


class Timed(Engine):
    """Each record and each checkpoint take their time."""

    now = 0.0

    def _advance(self, job: Job, step: int) -> None:
        self.now += RECORD
        super()._advance(job, step)

    def _save(self, job: Job, step: int) -> None:
        self.now += COST
        super()._save(job, step)


def saved_at(folder: Path, **resources: float) -> list[int]:
    """The tokens at which a trial of eight records saved."""
    engines: list[Timed] = []
    files = led.Files(folder)
    with led.Ledger(files, clock=lambda: engines[0].now if engines else 0.0) as ledger:
        space: dict[str, Any] = {**grid([4e-3], policy="none"), "resources": resources}
        conductor = driver(ledger, request(space))
        conductor.begin({})
        engines.append(Timed(conductor, v_shaped, slots=1))
        engines[0].run()
    return [row["tokens"] for row in led.read(files) if row["kind"] == "checkpointed"]


def test_without_it_checkpoints_are_as_the_config_says(tmp_path: Path) -> None:
    assert saved_at(tmp_path) == [1024 * number for number in range(1, 9)]


def test_the_first_checkpoint_says_what_saving_costs(tmp_path: Path) -> None:
    """Then they are sqrt(2 * 2 s * 400 s) = 40 s apart, four records, and one is at the end."""
    assert saved_at(tmp_path, mtbf_hours=MTBF / 3600) == [1024, 5 * 1024, 8 * 1024]


def rows(*saves: tuple[float, float]) -> list[led.Row]:
    """The rows of a trial that records and saves at these times."""
    found = [{"kind": "started", "trial": "a", "t": 0.0}]
    for recorded, saved in saves:
        found += [{"kind": "measured", "trial": "a", "t": recorded}]
        found += [{"kind": "checkpointed", "trial": "a", "t": saved}]
    return found


def observed(found: list[led.Row]) -> Interval:
    interval = Interval(MTBF)
    for row in found:
        interval.observe(row)
    return interval


def test_the_interval_is_youngs() -> None:
    """Of the mean cost of saving."""
    interval = observed(rows((10.0, 11.0), (20.0, 23.0)))
    assert interval.seconds == pytest.approx(math.sqrt(2 * 2.0 * MTBF))


def test_it_is_not_known_before_a_checkpoint() -> None:
    interval = observed(rows((10.0, 11.0))[:2])
    assert (interval.seconds, interval.is_due("a")) == (None, None)


def test_an_attempt_that_has_just_begun_is_not_due() -> None:
    again: list[led.Row] = [
        {"kind": "started", "trial": "a", "t": 500.0},
        {"kind": "measured", "trial": "a", "t": 510.0},
    ]
    assert observed([*rows((10.0, 12.0)), *again]).is_due("a") is False


def test_rows_of_version_0_1_say_nothing() -> None:
    bare = [{"kind": row["kind"], "trial": row["trial"]} for row in rows((10.0, 12.0))]
    assert observed(bare).seconds is None
