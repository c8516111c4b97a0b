"""What fits in the memory of a slot, by peaks that are passed in instead of measured."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import grid, request

from sweeps.engine.machine import fits, local_slots, slot_memory
from tinylm import config as cfg

GIB = 2**30
FIXED, PER_WINDOW = 3 * GIB, GIB // 8  # bytes of a run, and of each window of its batch
BASE = cfg.load("smoke")


@pytest.fixture(autouse=True)
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No peaks but those that a test passes in."""
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))


def batches(windows: int, accumulate: int = 1, device: str = "cpu") -> cfg.Config:
    """A config with so many windows in a batch, trained in equal parts."""
    tokens = windows * BASE.model.context_length
    due = ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens")
    changes = {"optim.batch_size": windows, "run.accumulate": accumulate, "run.device": device}
    return cfg.overlay(BASE, changes | dict.fromkeys(due, tokens))


def linear(configs: Sequence[cfg.Config]) -> list[float]:
    """Peaks that grow with the windows of an update, as those of a real run do."""
    micro = [config.optim.batch_size // config.run.accumulate for config in configs]
    return [FIXED + PER_WINDOW * windows for windows in micro]


def never(configs: Sequence[cfg.Config]) -> list[float]:
    """No measurement is expected."""
    raise AssertionError


@pytest.mark.parametrize(("room", "expected"), [(10.01 * GIB, True), (9.99 * GIB, False)])
def test_a_run_may_fill_four_fifths_of_a_slot(room: float, expected: bool) -> None:
    """40 windows take 8 GiB: four fifths of 10 GiB."""
    assert fits(batches(40), room, linear) is expected


@pytest.mark.parametrize(("room", "expected"), [(10.01 * GIB, True), (9.99 * GIB, False)])
def test_memory_follows_the_windows_of_one_part_of_a_batch(room: float, expected: bool) -> None:
    """80 windows in two parts take as much as 40 in one."""
    assert fits(batches(80, accumulate=2), room, linear) is expected


def test_on_a_cpu_only_small_batches_are_measured() -> None:
    """A run that does not fit would be killed, and more than itself with it."""
    measured: list[int] = []

    def peaks(configs: Sequence[cfg.Config]) -> list[float]:
        measured.extend(config.optim.batch_size for config in configs)
        return linear(configs)

    fits(batches(512), 10 * GIB, peaks)
    assert measured == [1, 9]


def test_on_a_gpu_the_run_itself_is_measured() -> None:
    measured: list[int] = []

    def peaks(configs: Sequence[cfg.Config]) -> list[float]:
        measured.extend(config.optim.batch_size for config in configs)
        return linear(configs)

    fits(batches(512, device="cuda"), 10 * GIB, peaks)
    assert measured == [512]


def test_a_run_that_ran_out_of_memory_fits_nowhere() -> None:
    gpu = batches(8, device="cuda")
    assert not fits(gpu, 1e15, lambda configs: [math.inf] * len(configs))


def test_a_peak_is_measured_once() -> None:
    """So that a sweep that is resumed plans the same trials, whatever else the machine does."""
    fits(batches(40), 10.01 * GIB, linear)
    assert fits(batches(40), 10.01 * GIB, never)


@pytest.mark.parametrize(
    "change", [{"model.d_ff": 64}, {"optim.batch_size": 16}, {"run.precision": "bf16"}], ids=str
)
def test_another_shape_is_measured_again(change: dict[str, object]) -> None:
    fits(BASE, GIB, linear)
    with pytest.raises(AssertionError):
        fits(cfg.overlay(BASE, change), GIB, never)


@pytest.mark.parametrize("change", [{"optim.lr": 0.1}, {"run.seed": 5}], ids=str)
def test_the_same_shape_is_not_measured_again(change: dict[str, object]) -> None:
    fits(BASE, GIB, linear)
    assert not fits(cfg.overlay(BASE, change), GIB, never)


def test_slots_share_the_memory_of_a_machine_equally() -> None:
    assert slot_memory("cpu", 4, 1.0) == slot_memory("cpu", 1, 1.0) / 4


def test_a_machine_has_a_slot_even_for_a_trial_that_takes_more_cpus() -> None:
    tree = {**grid([1e-3]), "resources": {"cpus": 100_000}}
    assert local_slots(request(tree)) == 1
