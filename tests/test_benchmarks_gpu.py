"""`make gpu` on a CPU, where its cheap sections run at the shape of `smoke`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from benchmarks import gpu, trainer
from benchmarks.gpu import Check, Figure, Finding, Report
from benchmarks.trainer import Contender


def failing(device: str) -> Iterator[Finding]:
    yield Figure("before", 1.0)
    raise ValueError(f"no {device}\nat all")


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(gpu.app, ["--device", "cpu", *arguments])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run of two sections, and the JSON file that it wrote."""
    file = tmp_path_factory.mktemp("gpu") / "gpu.json"
    return invoked("--only", "machine", "--only", "batches", "--out", str(file)), file


def test_a_run_whose_checks_pass_ends_with_0(written: tuple[Result, Path]) -> None:
    assert written[0].exit_code == 0


def test_the_table_has_each_section_and_the_number_of_checks(written: tuple[Result, Path]) -> None:
    heads = [line for line in written[0].output.splitlines() if not line.startswith(" ")]
    assert [head.split()[0] for head in heads] == ["batches", "machine", "1"]


def test_the_json_file_has_each_check(written: tuple[Result, Path]) -> None:
    (check,) = json.loads(written[1].read_text())["sections"]["batches"]["checks"]
    assert check == {
        "name": "batches that differ from the CPU's",
        "seen": 0,
        "bar": "<= 0",
        "passed": True,
    }


def test_the_json_file_has_each_figure(written: tuple[Result, Path]) -> None:
    figures = json.loads(written[1].read_text())["sections"]["machine"]["figures"]
    assert {"name": "torch", "value": torch.__version__, "unit": ""} in figures


@pytest.mark.parametrize("name", ["traces", "deterministic"])
def test_a_section_passes_on_a_cpu(name: str) -> None:
    checks = [one for one in gpu.SECTIONS[name]("cpu") if isinstance(one, Check)]
    assert checks
    assert all(one.passed for one in checks)


def test_what_a_cpu_can_not_do_is_said() -> None:
    assert list(gpu.waits("cpu")) == [Figure("waits", "skipped: a CPU waits for itself")]


def test_an_error_is_a_failed_check_after_what_was_found() -> None:
    found = list(gpu.safely(failing, "cpu"))
    assert found == [
        Figure("before", 1.0),
        Check("ends", "ValueError: no cpu", "without an error", False),
    ]


def test_a_failed_check_stands_out() -> None:
    report = Report("speed", [gpu.at_least("times as fast", 0.5, 1.0)])
    assert report.lines[1].split() == [
        "FAILED",
        "times",
        "as",
        "fast",
        "0.5",
        "(asked:",
        ">=",
        "1)",
    ]


def test_a_number_that_is_none_is_not_small_enough() -> None:
    assert not gpu.at_most("nats", float("nan"), 1.0).passed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_a_run_ends_with_2() -> None:
    assert CliRunner().invoke(gpu.app, []).exit_code == 2


def test_an_unknown_section_ends_with_2() -> None:
    assert invoked("--only", "sped").exit_code == 2


def test_a_ratio_is_that_of_the_same_rounds() -> None:
    fast = Contender("a", "fp32", compiled=False, cpu_seconds=[1.0, 2.0, 4.0])
    slow = Contender("b", "fp32", compiled=False, cpu_seconds=[3.0, 6.0, 2.0])
    assert fast.ratio(slow, "cpu") == 3.0


def test_on_a_cuda_device_the_wall_clock_counts() -> None:
    one = Contender("a", "fp32", compiled=False, cpu_seconds=[1.0], wall_seconds=[5.0])
    assert one.seconds("cuda") == [5.0]


def test_two_at_once_are_two_processes_of_a_contender_that_has_raced() -> None:
    config = gpu.shaped("cpu", "cpu")
    raced = Contender(trainer.OURS, "fp32", compiled=False, params=1)
    assert 0 < trainer.together(raced, config, rounds=1, updates=2) < 10
