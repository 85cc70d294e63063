"""Which CPUs this process may use, and how many cores they are: physical ones, within CPU set and cgroup's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_CPU_SET = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def cpu_set() -> tuple[int, ...]:
    """The CPUs that this process was given at its start; empty where the system does not tell."""
    return _CPU_SET


def roam() -> None:
    """Let the calling thread run on all of them. A thread inherits the CPU that the one which starts it is bound to."""
    if _CPU_SET:
        os.sched_setaffinity(0, _CPU_SET)


def usable_cores() -> int:
    """Physical cores in the CPU set, at most what the cgroup's quota amounts to; at least 1."""
    cores = _physical_in_cpu_set()
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def cpu_name() -> str:
    """The processor's model, for remembering what was measured on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def waited_for_cpus() -> float:
    """Seconds that this process's threads have been ready to run while others had their CPUs; 0 where none tells."""
    statistics = (_read(path) for path in Path("/proc/self/task").glob("*/schedstat"))
    return sum(int(line.split()[1]) for line in statistics if line) / 1e9


def _physical_in_cpu_set() -> int:
    if not _CPU_SET:
        return psutil.cpu_count(logical=False) or 1
    siblings = {_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in _CPU_SET}
    return len(siblings)


def _cgroup_quota() -> float | None:
    """CPUs that the cgroup may use on average, or None where it sets no bound."""
    text = _read(_CGROUP / "cpu.max")  # version 2
    if text:
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    quota, period = _read(_CGROUP / "cpu/cpu.cfs_quota_us"), _read(_CGROUP / "cpu/cpu.cfs_period_us")  # version 1
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
