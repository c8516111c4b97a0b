"""What a job may use of its machine: CPUs and memory, by affinity and control groups (1 and 2).

A limit of a group holds for the groups below it, so the lowest on the way up counts. Files are read
below `root`, which is another folder in tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tinylm.machine import memory

ROOT = Path("/")
_ROUNDING = 1e-9  # 1 / 0.1 is 10
_RAYS_ROUNDING = 1e-3  # Ray counts in units of 0.0001, of which three thirds are 0.9999
_UNLIMITED = 2**60  # bytes; version 1 writes a number near 2**63 for no limit


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups of this process that a controller has, and of those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mount = mounts / controller if names else mounts
        group = Path(path)
        # In a container the path may be that on its host: what is mounted is then the group itself.
        for part in (group, *group.parents):
            yield mount / part.relative_to("/")


def _numbers(controller: str, name: str, root: Path) -> list[list[int]]:
    """The numbers in a file of each group that has it."""
    files = [group / name for group in _groups(controller, root)]
    words = [file.read_text().split() for file in files if file.is_file()]
    return [[int(word) for word in line] for line in words if line and "max" not in line]


# Bytes of a GPU's memory that a process takes besides its tensors, for its context and kernels.
_CONTEXT = 600e6


def gpu_memory(total: float, share: float) -> float:
    """Bytes for the tensors of a process that has this share of a GPU with so many bytes; one that has all
    of it may take what there is."""
    return total if share >= 1.0 else max(0.0, share * total - _CONTEXT)


def usable_cpus(root: Path = ROOT) -> float:
    """How many CPUs the job may use; a quota may be a part of one."""
    known = hasattr(os, "sched_getaffinity")  # not on a Mac
    allowed = float(len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1)
    quotas = [quota / period for quota, period in _numbers("cpu", "cpu.max", root)]
    whole = _numbers("cpu", "cpu.cfs_quota_us", root)
    periods = _numbers("cpu", "cpu.cfs_period_us", root)
    quotas += [q[0] / p[0] for q, p in zip(whole, periods, strict=True) if q[0] > 0]
    return min([allowed, *quotas])


def usable_memory(root: Path = ROOT) -> int:
    """How many bytes of memory the job may use."""
    limits = [
        number[0]
        for name in ("memory.max", "memory.limit_in_bytes")
        for number in _numbers("memory", name, root)
    ]
    return min([memory(), *(limit for limit in limits if limit < _UNLIMITED)])


def room_for(takes: float, has: float, *, by_device: bool) -> int:
    """How many trials a resource has room for, of which each takes a part; `by_device` if the part has to
    be of one device, as that of GPUs."""
    if by_device:
        whole, part = divmod(round(has, 4), 1)  # of a part, others use the rest
        by_whole, by_part = int(1 / takes + _ROUNDING), int(part / takes + _RAYS_ROUNDING)
        return int(whole) * by_whole + by_part if takes <= 1 else 0
    return int(has / takes + _ROUNDING)


def kernel_kills(root: Path = ROOT) -> int:
    """How many processes the kernel has killed for lack of memory: in the groups of this process, or
    on the machine where no group counts them."""
    for controller, name in (("memory", "memory.events"), ("memory", "memory.oom_control")):
        for group in _groups(controller, root):
            found = _counted(group / name, "oom_kill")
            if found is not None:
                return found
    return _counted(root / "proc/vmstat", "oom_kill") or 0


def _counted(file: Path, name: str) -> int | None:
    """The number after a name in a file of such lines; None without it."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.split()[:1] == [name]]
    return int(found[0]) if found else None
