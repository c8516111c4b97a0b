"""What fits in the memory of a slot, by peaks that are passed in instead of measured."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import grid, request

from sweeps.engine.limits import usable_cpus, usable_memory
from sweeps.engine.machine import (
    OTHERS,
    RAY,
    TOKEN_BYTES,
    WORKER,
    CorpusFacts,
    ProbeError,
    Slots,
    _death,
    fits,
    local_slots,
    needed,
    passes,
    probes,
    product_flops,
    require_a_slot,
    slot_memory,
)
from sweeps.exits import UsageError
from sweeps.plan.request import Request
from sweeps.text import quantity
from tinylm import config as cfg
from tinylm.machine import keep, measured_here

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


def rates(**resources: object) -> Request:
    """A sweep of two rates whose trials take these resources."""
    return request({**grid([1e-3, 2e-3]), "resources": resources})


def test_slots_share_the_memory_that_a_job_may_use_equally() -> None:
    """The file systems of a test's job are those of its machine."""
    whole = rates(cpus=usable_cpus())
    halves = rates(cpus=usable_cpus() / 2)
    assert slot_memory(halves) == slot_memory(whole) / 2


def test_a_trial_that_declares_its_memory_has_that_much() -> None:
    assert slot_memory(rates(memory="3GB")) == 3e9


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 100_000}, "space.yaml: resources.cpus: a trial takes 100000 CPUs, but only"),
        ({"memory": "1000TB"}, "space.yaml: resources.memory: a trial takes 1e+06 GB of memory"),
    ],
    ids=str,
)
def test_a_trial_that_can_never_fit_is_refused(resources: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        require_a_slot(rates(**resources))


def test_trials_at_once_are_limited_by_what_the_job_may_use() -> None:
    assert local_slots(rates(cpus=usable_cpus() / 4), [BASE]).number == 4


def test_trials_at_once_are_limited_by_the_command() -> None:
    assert local_slots(rates(cpus=usable_cpus() / 4), [BASE], 3).number == 3


@pytest.mark.parametrize(("share", "most"), [(1, 2), (0.5, 4), (0.6, 2)])
def test_trials_at_once_are_limited_by_declared_gpus(share: float, most: int) -> None:
    assert local_slots(rates(cpus=usable_cpus() / 8, gpus=share), [BASE], gpus=2).number == most


def test_without_declared_gpus_trials_on_cpus_take_none() -> None:
    assert local_slots(rates(cpus=usable_cpus() / 8, gpus=1), [BASE]).number == 8


def test_more_gpus_than_the_machine_has_are_refused_where_trials_run_on_them() -> None:
    asked = rates(gpus=1)
    on_gpus = replace(asked, base=cfg.overlay(asked.base, {"run.device": "cuda"}))
    here = f"this machine has {quantity(torch.cuda.device_count(), 'GPU')}"
    with pytest.raises(UsageError, match=rf"^--gpus 99: run\.device is cuda, and {here}$"):
        require_a_slot(on_gpus, 99)


def test_trials_at_once_are_limited_by_declared_memory() -> None:
    asked = rates(cpus=usable_cpus() / 4, memory=usable_memory() // 2)
    assert local_slots(asked, [BASE]) == Slots(2)


def test_fewer_trials_run_at_once_where_their_memory_does_not_fit() -> None:
    """So many that each has too little, whatever the machine: the smallest takes 0.6 GB."""
    most = math.ceil(usable_memory() / WORKER)
    found = local_slots(rates(cpus=usable_cpus() / most), [BASE], peaks=lambda configs: [2e9, 2e9])
    room = min(0.8 * usable_memory(), usable_memory() - OTHERS)
    assert found.number == max(1, int(room / (2e9 + RAY)))
    assert f"{found.number} of {most} trials at once: one takes up to 2.2 GB" in found.notes[0]


def test_a_run_that_never_fits_is_said_and_leaves_the_others_their_slots() -> None:
    huge = cfg.overlay(BASE, {"model.d_ff": 10**11})
    found = local_slots(rates(cpus=usable_cpus() / 2), [BASE, huge], peaks=never)
    assert found.number == 2
    assert "1 of 2 runs do not fit in the" in found.notes[0]


def test_memory_that_surely_fits_is_not_measured() -> None:
    assert needed(BASE, 1e12, 1e12, never) < 2e9


def test_memory_that_may_not_fit_is_measured() -> None:
    assert needed(BASE, 1e6, 1e12, lambda configs: [2e9, 2e9]) == 2e9 + RAY


@pytest.mark.parametrize(
    ("code", "killed", "how"),
    [(-9, True, "out of memory"), (-9, False, "died"), (-11, True, "died"), (1, False, "died")],
)
def test_only_a_kill_that_the_kernel_counts_is_one_for_memory(
    code: int, killed: bool, how: str
) -> None:
    assert _death(code, killed).how == how


def test_a_model_without_room_in_memory_is_told_from_its_error() -> None:
    """The probe runs in a process of its own."""
    windows = 10**9
    tokens = windows * BASE.model.context_length
    paths = ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens")
    huge = cfg.overlay(BASE, {"optim.batch_size": windows, **dict.fromkeys(paths, tokens)})
    with pytest.raises(
        ProbeError, match=r"does not fit in memory: MemoryError: Unable to allocate"
    ):
        probes([huge], lambda note: None)


def test_a_model_that_surely_does_not_fit_is_not_tried() -> None:
    huge = cfg.overlay(BASE, {"model.d_ff": 10**11})
    with pytest.raises(ProbeError, match=r"does not fit in memory: it takes at least .* GB of "):
        probes([huge], lambda note: None)


def test_the_speed_of_a_product_is_measured_once() -> None:
    keep("products", {measured_here(BASE): 3e9})
    assert product_flops(BASE) == 3e9


def of_text(folder: Path, size: int, **changes: object) -> cfg.Config:
    """A run of 8,192 tokens over a text of so many bytes."""
    (folder / "text.txt").write_text("abcdefg\n" * (size // 8))
    where = {"data.corpus": "text", "data.path": str(folder / "text.txt"), "model.vocab_size": 257}
    return cfg.overlay(BASE, {**where, "budget.tokens": 8192, **changes})


def untold(message: str) -> None:
    """Nobody listens."""


def test_a_text_that_a_run_may_read_again_is_prepared_to_count_its_tokens(tmp_path: Path) -> None:
    config = of_text(tmp_path, 2**14, **{"eval.tokens": 256})
    ((read, tokens),) = passes([config], CorpusFacts(untold))
    assert read == 8192 / tokens and tokens == CorpusFacts(untold)(config)["train_tokens"]


@pytest.mark.parametrize("change", [{}, {"budget.seconds": 60.0}], ids=["large", "timed"])
def test_no_other_text_is_prepared_to_plan(tmp_path: Path, change: dict[str, object]) -> None:
    """It has more bytes than the tokens of a run can, or the budget is one of time."""
    size = 8192 * TOKEN_BYTES + (0 if change else 8)
    config = of_text(tmp_path, size, **change)
    assert passes([config], never) == []  # type: ignore[arg-type]


def test_a_corpus_is_not_downloaded_to_plan() -> None:
    hub = cfg.overlay(BASE, {"data.corpus": "tinystories"})
    assert passes([hub], never) == []  # type: ignore[arg-type]
