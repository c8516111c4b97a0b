"""What a job may use of its machine, read from made-up control groups."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sweeps.engine.limits import (
    gpu_memory,
    kernel_kills,
    room_for,
    usable_cpus,
    usable_memory,
)

ALLOWED = len(os.sched_getaffinity(0))
V1 = "4:memory:/job\n2:cpu,cpuacct:/job\n"
V2 = "0::/job/step\n"


def machine(root: Path, groups: str, files: Mapping[str, str]) -> Path:
    """A root folder with the control groups of this process, and files below /sys/fs/cgroup."""
    everything = {"proc/self/cgroup": groups, "proc/vmstat": "pgfault 5\noom_kill 7\n"}
    everything |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in everything.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("takes", "has", "trials"),
    [
        *[
            (0.6, 2, 2),
            (0.5, 2, 4),
            (0.1, 1, 10),
            (1 / 3, 4, 12),
            (1, 4, 4),
            (0.5, 0, 0),
            (2, 4, 0),
        ],
        *[(0.5, 1.5, 3), (0.6, 1.4, 1), (1, 1.5, 1), (1 / 3, 0.9999, 3)],  # others use a part
    ],
)
def test_shares_of_gpus_are_packed_by_device(takes: float, has: float, trials: int) -> None:
    assert room_for(takes, has, by_device=True) == trials


@pytest.mark.parametrize(("takes", "has", "trials"), [(0.6, 2, 3), (0.1, 0.3, 3), (2, 5, 2)])
def test_cpus_are_not(takes: float, has: float, trials: int) -> None:
    assert room_for(takes, has, by_device=False) == trials


@pytest.mark.parametrize(
    ("share", "gigabytes"), [(1.0, 24.0), (0.5, 11.4), (0.1, 1.8), (0.01, 0.0)]
)
def test_the_tensors_of_a_share_leave_room_for_what_else_a_process_needs(
    share: float, gigabytes: float
) -> None:
    assert gpu_memory(24e9, share) == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        (V2, {"job/step/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"job/cpu.max": "25000 100000\n", "job/step/cpu.max": "max 100000\n"}, 0.25),
        (V2, {"cpu.max": "50000 100000\n"}, 0.5),  # in a container whose path is its host's
        (V1, {"cpu/job/cpu.cfs_quota_us": "5\n", "cpu/job/cpu.cfs_period_us": "10\n"}, 0.5),
        (V1, {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "10\n"}, ALLOWED),
        (V2, {"job/step/cpu.max": "9900000 100000\n"}, ALLOWED),
        (V2, {}, ALLOWED),
    ],
)
def test_cpus_are_those_of_the_affinity_and_the_quota(
    tmp_path: Path, groups: str, files: Mapping[str, str], cpus: float
) -> None:
    assert usable_cpus(machine(tmp_path, groups, files)) == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == ALLOWED


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        (V2, {"job/memory.max": "1000000\n", "job/step/memory.max": "max\n"}),
        (V1, {"memory/job/memory.limit_in_bytes": "1000000\n"}),
    ],
)
def test_memory_is_that_of_the_lowest_limit(
    tmp_path: Path, groups: str, files: Mapping[str, str]
) -> None:
    assert usable_memory(machine(tmp_path, groups, files)) == 1_000_000


def test_a_limit_beyond_all_memory_is_none(tmp_path: Path) -> None:
    files = {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}
    assert usable_memory(machine(tmp_path, V1, files)) == usable_memory(tmp_path)


@pytest.mark.parametrize(
    ("groups", "files", "kills"),
    [
        (V2, {"job/step/memory.events": "oom 3\noom_kill 2\n"}, 2),
        (V1, {"memory/job/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
        (V2, {}, 7),
    ],
)
def test_kills_are_counted_by_the_group_or_else_by_the_machine(
    tmp_path: Path, groups: str, files: Mapping[str, str], kills: int
) -> None:
    assert kernel_kills(machine(tmp_path, groups, files)) == kills
