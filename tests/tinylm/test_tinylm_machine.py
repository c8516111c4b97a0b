"""Which setting is chosen as the fastest, and that the choice is kept."""

import json
from pathlib import Path

import pytest

from tinylm import config as cfg
from tinylm import machine
from tinylm.machine import Tried, choose, fastest, to_choose


def tried(*speeds: float | None) -> list[Tried]:
    return [Tried({"run.precision": str(number)}, speed) for number, speed in enumerate(speeds)]


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ((100.0, 150.0, 120.0), 1),
        ((100.0, 109.0), 0),  # about as fast: the plainer one
        ((None, 90.0, 100.0), 2),
        ((100.0, None), 0),
        ((None, None), 0),
    ],
)
def test_the_fastest_setting_is_chosen(speeds: tuple[float | None, ...], chosen: int) -> None:
    assert fastest(tried(*speeds)).name == str(chosen)


@pytest.mark.parametrize(
    ("device", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "tf32", 495),
        ("NVIDIA A100-SXM4-40GB", "fp32", 19.5),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA GeForce RTX 4090", "tf32", 82.6),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("NVIDIA H200 NVL", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA A10G", "bf16", None),
        ("Tesla T4", "fp32", None),
    ],
)
def test_the_peak_rate_is_that_of_the_device_and_precision(
    device: str, precision: str, tera: float | None
) -> None:
    rate = machine.peak_rate(device, precision)
    assert rate == (None if tera is None else pytest.approx(tera * 1e12))


def test_what_a_config_states_is_not_chosen(tiny: cfg.Config) -> None:
    assert choose(tiny, print) == (tiny, [])


def test_a_choice_is_measured_once(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    told: list[str] = []
    left_open = cfg.overlay(tiny, {"run.precision": "fastest"})
    first, measured = choose(left_open, told.append)
    assert [one.name for one in measured] == ["fp32", "bf16"]
    assert first == cfg.overlay(tiny, fastest(measured).values)
    assert choose(left_open, told.append) == (first, measured)
    assert len(told) == 1


def test_a_kept_choice_is_of_one_shape(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    left_open = cfg.overlay(tiny, {"run.compile": "fastest"})
    known = [{"values": {"run.compile": True}, "tokens_per_s": 5.0, "reason": ""}]
    (tmp_path / "fastest.json").write_text(json.dumps({machine.measured_here(left_open): known}))
    assert choose(cfg.overlay(left_open, {"run.seed": 7}), print)[0].run.compile is True
    wider = cfg.overlay(left_open, {"model.d_ff": 41})
    assert machine.measured_here(wider) != machine.measured_here(left_open)


def test_only_what_says_so_is_chosen(tiny: cfg.Config) -> None:
    assert to_choose(cfg.overlay(tiny, {"run.compile": "fastest"})) == ["run.compile"]


def test_a_setting_is_told_with_its_speed_or_its_reason() -> None:
    values: dict[str, str | bool] = {"run.precision": "bf16", "run.compile": True}
    assert Tried(values, 12_300.0).words == "bf16, compiled: 12.3k tokens/s"
    assert Tried(values, None, "no compiler").words == "bf16, compiled: no compiler"


def test_what_could_not_be_measured_is_not_kept(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "new"))
    there = cfg.overlay(tiny, {"run.precision": "fastest", "run.device": "mps"})
    chosen, measured = choose(there, print)
    assert chosen.run.precision == "fp32" and not any(one.tokens_per_s for one in measured)
    assert not (tmp_path / "new" / "fastest.json").exists()
