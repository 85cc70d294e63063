"""How fast this machine's devices are: measured once and remembered; guessed from data sheets for cards elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
from msgspec import structs

from server.offload.asking import ask
from server.offload.questions import DeviceSpeed, Failure, Measure, Speeds
from server.offload.remembered import recall, remember
from server.offload.speed import uniform

if TYPE_CHECKING:
    from server.offload.devices import Device, Machine

REMEMBERED = "speeds"
EFFICIENCY = 0.7
"""Share of the data sheet's memory bandwidth that decoding reaches on a GPU."""
UNKNOWN_GPU = DeviceSpeed(name="", bandwidth=uniform(200e9), prefill=10e12, call=20e-6, link=12e9)
UNKNOWN_CPU = DeviceSpeed(name="CPU", bandwidth=uniform(25e9), prefill=0.3e12, call=5e-6, link=0.0)
OVERHEADS = {"CUDA": 400 << 20, "ROCm": 400 << 20, "HIP": 400 << 20, "Vulkan": 150 << 20, "SYCL": 300 << 20}
"""Bytes of device memory that a backend takes for itself, until it has been measured on the device."""


def speeds_of(machine: Machine, *, measure: bool = True) -> dict[str, DeviceSpeed]:
    """The speed of the host ("CPU") and of every device, by name.

    Args:
        measure: whether to time what is not remembered, a second each; otherwise it is guessed.
    """
    known = recall(REMEMBERED, dict[str, DeviceSpeed]) or {}
    keys = {"CPU": f"CPU {psutil.cpu_count(logical=False)} cores"} | {d.name: _key(d) for d in machine.devices}
    real = [name for name in keys if not any(d.name == name and d.hypothetical for d in machine.devices)]
    missing = [name for name in real if keys[name] not in known]
    if measure and missing:
        threads = psutil.cpu_count(logical=False) or 1
        answer = ask(Measure(tuple(missing), machine.rpc, threads))
        if isinstance(answer, Speeds):
            known |= {keys[speed.name]: speed for speed in answer.devices}
            remember(REMEMBERED, known)
        else:
            assert isinstance(answer, Failure)
    speeds = {device.name: known.get(keys[device.name]) or guess(device) for device in machine.devices}
    return speeds | {"CPU": known.get(keys["CPU"], UNKNOWN_CPU)}


def _key(device: Device) -> str:
    return f"{device.backend} {device.description} {device.total >> 20} MiB"


def guess(device: Device) -> DeviceSpeed:
    """A device's speed from its data sheet, where it cannot be measured."""
    return structs.replace(
        UNKNOWN_GPU,
        name=device.name,
        bandwidth=uniform(EFFICIENCY * device.bandwidth) if device.bandwidth else UNKNOWN_GPU.bandwidth,
        link=device.link or UNKNOWN_GPU.link,
    )


def overhead(device: Device, speed: DeviceSpeed) -> int:
    """Bytes of the device's memory that its backend takes beside the buffers: measured, or known of the backend."""
    return OVERHEADS.get(device.backend, 0) if speed.overhead is None else speed.overhead
