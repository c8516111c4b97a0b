"""What a sweep asks of a cluster's autoscaler: as many slots as it can use, and no longer those that it can't."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import Engine, driver, grid, request, v_shaped

from sweeps.engine import tune  # noqa: F401 its settings come before those of Ray

# isort: split
from sweeps import ledger as led
from sweeps import steering
from sweeps.engine.demand import MOST, Demand, elsewhere

RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2]
TAKES = {"CPU": 2.0}


@dataclass
class Groups:
    """A cluster that keeps the placement groups that are made."""

    made: dict[int, Sequence[str]] = field(default_factory=dict)  # group -> nodes it may not be on
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def make(self, takes: Mapping[str, float], without: Sequence[str]) -> int:
        assert takes == TAKES
        number = next(self.numbers)
        self.made[number] = without
        return number

    def remove(self, group: int) -> None:
        del self.made[group]


@pytest.fixture
def groups() -> Groups:
    return Groups()


@pytest.fixture
def demand(groups: Groups) -> Demand:
    return Demand(groups)


def test_what_is_asked_for_follows_what_is_lacking(demand: Demand, groups: Groups) -> None:
    asked = []
    for number in (3, 5, 5, 2, 0, -4):
        demand.ask(number, TAKES, [])
        asked.append(len(groups.made))
    assert asked == [3, 5, 5, 2, 0, 0]


def test_the_same_is_not_asked_for_anew(demand: Demand, groups: Groups) -> None:
    demand.ask(3, TAKES, [])
    demand.ask(3, TAKES, [])
    assert list(groups.made) == [0, 1, 2]


def test_no_slot_is_asked_for_on_a_node_that_trials_may_or_may_not_run_on(
    demand: Demand, groups: Groups
) -> None:
    demand.ask(2, TAKES, [])
    demand.ask(2, TAKES, ["a", "b"])
    assert groups.made == {2: ["a", "b"], 3: ["a", "b"]}
    assert elsewhere(["a", "b"]) == {"ray.io/node-id": "!in(a,b)"}


def test_the_slots_of_a_node_that_joins_are_not_asked_for_again(
    demand: Demand, groups: Groups
) -> None:
    demand.ask(3, TAKES, [])
    demand.joined(2)
    demand.look(3, TAKES, [])  # what is free is known a little late
    assert len(groups.made) == 0
    for _ in range(2):
        demand.look(1, TAKES, [])
    assert len(groups.made) == 1


def test_more_is_asked_for_only_if_it_is_lacking_for_a_while(
    demand: Demand, groups: Groups
) -> None:
    asked = []
    for lacking in (2, 2, 0, 3, 3, 3, 1):
        demand.look(lacking, TAKES, [])
        asked.append(len(groups.made))
    assert asked == [0, 0, 0, 0, 0, 3, 1]


def test_a_large_sweep_does_not_ask_for_everything_at_once(demand: Demand, groups: Groups) -> None:
    demand.ask(10_000, TAKES, [])
    assert len(groups.made) == MOST


def most_at_once(
    folder: Path, records: float, slots: int = 2, **schedule: object
) -> tuple[int, int]:
    """How many trials a sweep could train at once after so many records, and how many it trains."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(grid(RATES, **schedule)))
        conductor.begin({})
        engine = Engine(conductor, v_shaped, slots)
        engine.run(records)
        return conductor.most_at_once(), len(conductor.state.under_way)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_sweep_that_begins_can_use_a_slot_for_each_trial(tmp_path: Path, slots: int) -> None:
    assert most_at_once(tmp_path, 1, slots, policy="none") == (len(RATES), slots)


def test_a_rung_that_shrinks_needs_fewer(tmp_path: Path) -> None:
    """Of eight trials at the first rung, at the first record, two are promoted when all are there."""
    rung = {"policy": "sha", "eta": 4, "grace": "1/8"}
    asked = [most_at_once(tmp_path / str(n), n, slots=8, **rung) for n in (1, 7, 9)]
    assert asked == [(7, 7), (1, 1), (2, 2)]


def test_a_sweep_that_is_done_needs_none(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, math.inf) == (0, 0)


def test_a_sweep_that_was_told_to_end_needs_no_more_than_it_has(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, policy="none")))
        conductor.begin({})
        engine = Engine(conductor, v_shaped)
        engine.run(1)
        steering.ask(led.Files(tmp_path), steering.Request("end"))
        conductor.take_requests()
        assert conductor.most_at_once() == 2
        conductor.leave()
        assert conductor.most_at_once() == 2


def test_an_optuna_search_can_use_a_slot_for_each_sample_that_is_left(tmp_path: Path) -> None:
    tree = grid(RATES, policy="none") | {"search": {"method": "optuna", "samples": 6}}
    tree["space"] = {"optim.lr": {"loguniform": [1e-4, 1e-1]}}
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        engine = Engine(conductor, v_shaped)
        engine.run(1)
        assert (conductor.most_at_once(), len(conductor.state.under_way)) == (6, 2)
        engine.run()
        assert conductor.most_at_once() == 0
