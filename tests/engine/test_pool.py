"""The workers of a sweep whose trials are shorter than the start of a worker."""

from pathlib import Path

import pytest
from sweeping import command, run, write_space

from sweeps import ledger as led

SLOTS = 4
RATES = [1e-3 * 1.15**place for place in range(32)]
ROUNDS = {"policy": "sha", "eta": 2, "grace": "1/4"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, scale: Path) -> list[led.Row]:
    """The rows of a sweep in rounds: where one ends, its slots wait for the last trial."""
    folder = tmp_path_factory.mktemp("rounds")
    space = write_space(folder, ROUNDS, RATES)
    # Slots that two cores could not have.
    space.write_text(f"{space.read_text()}resources: {{cpus: 0.25, gpus: 1}}\n")
    done = run(command(space, scale, folder / "rates", "--gpus", str(SLOTS)))
    assert done.returncode == 0, done.stderr
    return led.read(led.Files(folder / "rates"))


def workers(rows: list[led.Row]) -> list[str]:
    """The workers at which attempts began, in order."""
    return [row["worker"] for row in rows if row["kind"] == "started"]


@pytest.mark.slow
def test_every_slot_gets_its_worker(rows: list[led.Row]) -> None:
    assert len(set(workers(rows))) == SLOTS


@pytest.mark.slow
def test_workers_stay_from_one_round_to_the_next(rows: list[led.Row]) -> None:
    promoted = next(place for place, row in enumerate(rows) if row["kind"] == "promoted")
    first, later = workers(rows[:promoted]), workers(rows[promoted:])
    assert len(first) == len(RATES)
    together = later[: len(set(first))]
    assert set(together) == set(first)
