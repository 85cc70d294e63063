"""How much memory the processes of this machine may still take, within the limits of their control group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Bytes of RAM in all and available, the smaller of the machine's and the control group's."""

    total: int
    available: int


def host_memory(cgroup: Path = CGROUP) -> HostMemory:
    """Read the machine's memory and the control group's limit (version 2, then version 1)."""
    memory = psutil.virtual_memory()
    limit, used = _limit_and_use(cgroup)
    if limit is None:
        return HostMemory(memory.total, memory.available)
    return HostMemory(min(memory.total, limit), max(0, min(memory.available, limit - used)))


def _limit_and_use(cgroup: Path) -> tuple[int | None, int]:
    for folder, limit_file, use_file, cache_key in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(folder / limit_file)
        if limit is not None and limit < 1 << 60:  # version 1 writes a huge number for no limit
            cached = _statistic(folder / "memory.stat", cache_key)
            return limit, max(0, (_number(folder / use_file) or 0) - cached)  # file pages are given back under pressure
    return None, 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or the word "max"
        return None


def _statistic(path: Path, key: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [key]), 0)
