"""Looking for devices: whatever drivers do, the answer is a warning and the CPU, never a crash."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from server.errors import BrimError
from server.offload import devices as devices_module
from server.offload.asking import ask
from server.offload.devices import discover
from server.offload.host import HostMemory, host_memory
from server.offload.nvml import NvidiaGpu
from server.offload.questions import DeviceFacts, DeviceList, Failure, ListDevices

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def _facts(
    name: str, type_: str = "gpu", backend: str = "CUDA", free: int = 7 * GIB, pci: str | None = None
) -> DeviceFacts:
    return DeviceFacts(
        name=name, description=name, type=type_, backend=backend, total=8 * GIB, free=free, buffer=name, pci=pci
    )


def _gpu(**changes: object) -> NvidiaGpu:
    facts: dict[str, object] = {
        "pci": "0000:01:00.0",
        "name": "RTX",
        "total": 8 * GIB,
        "free": 6 * GIB,
        "used_by_others": GIB,
        "bandwidth": 272e9,
        "pcie_generation": 4,
        "pcie_width": 8,
        "driver": "570.1",
        "compute_capability": "8.9",
        "mig": False,
    }
    return NvidiaGpu(**(facts | changes))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine whose drivers say what a test lets them say."""
    monkeypatch.setattr(devices_module, "host_memory", lambda: HostMemory(32 * GIB, 16 * GIB))
    monkeypatch.setattr(devices_module, "nvidia_gpus", list)
    return monkeypatch


def _answer(facts: tuple[DeviceFacts, ...], _: ListDevices) -> DeviceList:
    return DeviceList(facts)


def _answers(machine: pytest.MonkeyPatch, *facts: DeviceFacts) -> None:
    machine.setattr(devices_module, "ask", partial(_answer, facts))


def test_a_driver_that_hangs_is_a_warning_and_a_cpu_placement(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(devices_module, "ask", partial(ask, time_limit=0.01))
    found = discover()
    assert found.devices == ()
    assert "no answer from the device drivers" in found.warnings[0]


def test_a_driver_that_crashes_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\ncat > /dev/null\necho 'CUDA error: no device' >&2\nkill -SEGV $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    answer = ask(ListDevices())
    assert isinstance(answer, Failure)
    assert "CUDA error: no device" in answer.reason


def test_nvml_corrects_what_the_probe_itself_used(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(devices_module, "nvidia_gpus", lambda: [_gpu()])
    _answers(machine, _facts("CUDA0", free=5 * GIB, pci="0000:01:00.0"))
    (device,) = discover().devices
    assert device.free == 6 * GIB
    assert device.bandwidth == 272e9
    assert device.link == pytest.approx(8 * 1.969e9)


def test_a_slice_of_a_gpu_keeps_its_own_memory(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(
        devices_module, "nvidia_gpus", lambda: [_gpu(mig=True, total=80 * GIB, free=40 * GIB, bandwidth=2000e9)]
    )
    _answers(machine, _facts("CUDA0", free=7 * GIB, pci="0000:01:00.0"))
    (device,) = discover().devices
    assert (device.total, device.free, device.bandwidth) == (8 * GIB, 7 * GIB, 200e9)


def test_an_integrated_gpu_shares_the_hosts_memory_and_yields_to_a_discrete_one(machine: pytest.MonkeyPatch) -> None:
    integrated = _facts("Vulkan0", "igpu", "Vulkan", free=20 * GIB)
    _answers(machine, integrated)
    (device,) = discover().devices
    assert device.shares_host_memory
    assert device.free == 16 * GIB
    _answers(machine, integrated, _facts("CUDA0"))
    assert [device.name for device in discover().devices] == ["CUDA0"]


def test_devices_can_be_chosen_by_name(machine: pytest.MonkeyPatch) -> None:
    _answers(machine, _facts("CUDA0"), _facts("CUDA1"))
    assert [device.name for device in discover(only=("CUDA1",)).devices] == ["CUDA1"]
    with pytest.raises(BrimError, match=r"no device CUDA7; the devices here are: CUDA0, CUDA1"):
        discover(only=("CUDA7",))


def test_a_gpu_that_this_build_cannot_use_is_named(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(devices_module, "nvidia_gpus", lambda: [_gpu()])
    _answers(machine, _facts("CPU", "cpu", "CPU"))
    assert "RTX is here, but this build of llama.cpp cannot use it" in discover().note


def test_an_rpc_worker_that_does_not_answer_is_a_warning() -> None:
    found = discover(("127.0.0.1:1",))
    assert "no RPC worker answers at 127.0.0.1:1" in found.warnings[0]


def test_host_memory_stays_within_the_control_group(tmp_path: Path) -> None:
    assert host_memory(tmp_path).total == host_memory(tmp_path / "absent").total
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 2}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 4}\n")
    assert host_memory(tmp_path) == HostMemory(GIB, GIB - GIB // 4)
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(tmp_path).total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
