"""What the NVIDIA driver says about its GPUs, without opening one: NVML creates no CUDA context.

Source: the NVML API reference; `pynvml` is the module of the package nvidia-ml-py.
"""

# pyright: basic

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PCIE_LANE_BYTES = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""Bytes a second and lane of each PCI Express generation, after line coding."""


@dataclass(frozen=True, slots=True)
class NvidiaGpu:
    """One GPU as the driver sees it. Sizes in bytes, rates in bytes a second.

    Attributes:
        pci: lower-case address as ggml writes it, `0000:01:00.0`.
        used_by_others: what processes other than this one hold on it, where the driver tells.
        bandwidth: of its memory, from bus width and clock; 0 where the driver does not tell.
        mig: whether it is cut into slices; then `total` and `free` are the whole GPU's, and ggml knows the slice's.
    """

    pci: str
    name: str
    total: int
    free: int
    used_by_others: int
    bandwidth: float
    pcie_generation: int
    pcie_width: int
    driver: str
    compute_capability: str
    mig: bool

    @property
    def link(self) -> float:
        """Bytes a second over PCI Express, one way; 0 where unknown."""
        return PCIE_LANE_BYTES.get(self.pcie_generation, 0.0) * self.pcie_width


@contextlib.contextmanager
def _driver() -> Iterator[bool]:
    """Open NVML for a while; gives False on a machine without an NVIDIA driver or with a broken one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def nvidia_gpus() -> list[NvidiaGpu]:
    """All NVIDIA GPUs of this machine; none where there is no driver or it fails."""
    with _driver() as present:
        if not present:
            return []
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            return []
        found: list[NvidiaGpu] = []
        for handle in handles:
            with contextlib.suppress(pynvml.NVMLError):  # one that shares the host's memory tells nothing of its own
                found.append(_read(handle))
        return found


def used_by_this_process(pci: str | None) -> int | None:
    """Bytes that this process holds on the GPU at a PCI address; None where the driver does not tell."""
    with _driver() as present:
        if not present or pci is None:
            return None
        try:
            handle = pynvml.nvmlDeviceGetHandleByPciBusId(pci.encode())
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except pynvml.NVMLError:
            return None
        return sum(process.usedGpuMemory or 0 for process in processes if process.pid == os.getpid())


def _read(handle: Any) -> NvidiaGpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, (0, 0), handle)
    clock = _ask(pynvml.nvmlDeviceGetMaxClockInfo, 0, handle, pynvml.NVML_CLOCK_MEM)  # MHz
    bus_width = _ask(pynvml.nvmlDeviceGetMemoryBusWidth, 0, handle)  # bits
    processes = _ask(pynvml.nvmlDeviceGetComputeRunningProcesses, [], handle)
    mig, _ = _ask(pynvml.nvmlDeviceGetMigMode, (0, 0), handle)
    return NvidiaGpu(
        pci=_pci_address(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        total=int(memory.total),
        free=int(memory.free),
        used_by_others=sum(process.usedGpuMemory or 0 for process in processes if process.pid != os.getpid()),
        bandwidth=2 * clock * 1e6 * bus_width / 8,  # two transfers a clock
        pcie_generation=_ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, 0, handle),
        pcie_width=_ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, 0, handle),
        driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        compute_capability=f"{major}.{minor}",
        mig=bool(mig),
    )


def _ask(function: Callable[..., Any], default: Any, *arguments: Any) -> Any:
    """A fact that some drivers and GPUs do not give."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return default


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _pci_address(bus: str) -> str:
    """NVML writes an eight-digit domain where ggml and the kernel write four."""
    domain, _, rest = bus.lower().partition(":")
    return f"{domain[-4:]}:{rest}"
