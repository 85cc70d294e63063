"""How fast this machine's devices are: measured once and remembered; guessed from data sheets for cards elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import structs

from server.engine.cores import cpu_name, usable_cores
from server.offload.asking import ask
from server.offload.questions import DeviceSpeed, Measure, Speeds
from server.offload.remembered import recall, remember
from server.offload.speed import uniform

if TYPE_CHECKING:
    from server.offload.devices import Device, Machine

REMEMBERED = "speeds"
EFFICIENCY = 0.7
"""Share of the data sheet's memory bandwidth that decoding reaches on a GPU."""
ATTENTION_EFFICIENCY = 0.5
"""Share of that which attention reaches."""
BUSY = 0.8
"""Runnable processes for each processor beyond which nothing is measured."""
UNKNOWN_GPU = DeviceSpeed(name="", bandwidth=uniform(200e9), attention=100e9, prefill=10e12, call=20e-6, link=12e9)
UNKNOWN_CPU = DeviceSpeed(name="CPU", bandwidth=uniform(25e9), attention=8e9, prefill=0.3e12, call=5e-6, link=0.0)
OVERHEADS = {"CUDA": 400 << 20, "ROCm": 400 << 20, "HIP": 400 << 20, "Vulkan": 150 << 20, "SYCL": 300 << 20}
"""Bytes of device memory that a backend takes for itself, until it has been measured on the device."""


def speeds_of(machine: Machine, *, measure: bool = True) -> dict[str, DeviceSpeed]:
    """The speed of the host ("CPU") and of every device, by name.

    Args:
        measure: whether to time what is not remembered, a second each. Otherwise, and on a busy machine, it is guessed.
    """
    known = recall(REMEMBERED, dict[str, DeviceSpeed]) or {}
    keys = {"CPU": f"{cpu_name()}, {usable_cores()} cores"} | {d.name: _key(d) for d in machine.devices}
    real = [name for name in keys if not any(d.name == name and d.hypothetical for d in machine.devices)]
    missing = [name for name in real if keys[name] not in known]
    if measure and missing and not busy():
        answer = ask(Measure(tuple(missing), machine.rpc, usable_cores()))
        if isinstance(answer, Speeds):
            known |= {keys[speed.name]: speed for speed in answer.devices}
            remember(REMEMBERED, known)
    speeds = {device.name: known.get(keys[device.name]) or guess(device) for device in machine.devices}
    return speeds | {"CPU": known.get(keys["CPU"], UNKNOWN_CPU)}


def busy() -> bool:
    """Whether other work keeps the processors of this machine so busy that timing it would mislead."""
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def _key(device: Device) -> str:
    return f"{device.backend} {device.description} {device.total >> 20} MiB"


def guess(device: Device) -> DeviceSpeed:
    """A device's speed from its data sheet, where it cannot be measured."""
    bandwidth = EFFICIENCY * device.bandwidth or UNKNOWN_GPU.bandwidth["q4_K"]
    return structs.replace(
        UNKNOWN_GPU,
        name=device.name,
        bandwidth=uniform(bandwidth),
        attention=ATTENTION_EFFICIENCY * bandwidth,
        link=device.link or UNKNOWN_GPU.link,
    )


def overhead(device: Device, speed: DeviceSpeed) -> int:
    """Bytes of the device's memory that its backend takes beside the buffers: measured, or known of the backend."""
    return OVERHEADS.get(device.backend, 0) if speed.overhead is None else speed.overhead
