"""The devices a model can be placed on: what ggml lists, made exact by what NVML and the control group say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from server.errors import BrimError
from server.offload.asking import ask
from server.offload.host import HostMemory, host_memory
from server.offload.nvml import NvidiaGpu, nvidia_gpus
from server.offload.questions import DeviceFacts, DeviceList, Failure, ListDevices


@dataclass(frozen=True, slots=True)
class Device:
    """A place for layers other than the host's memory. Sizes in bytes, rates in bytes a second (0: unknown).

    Attributes:
        name: ggml's name (`CUDA0`, `RPC0`), or a card's from the catalogue.
        buffer: what llama.cpp calls its memory.
        shares_host_memory: an integrated GPU, whose memory is the host's own.
        hypothetical: from the catalogue or a flag; there is nothing to ask.
    """

    name: str
    description: str
    backend: str
    total: int
    free: int
    buffer: str = ""
    shares_host_memory: bool = False
    bandwidth: float = 0.0
    link: float = 0.0
    used_by_others: int = 0
    driver: str = ""
    compute_capability: str = ""
    hypothetical: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """The host's memory, the devices beside it, and one sentence for each thing that went wrong while looking."""

    host: HostMemory
    devices: tuple[Device, ...] = ()
    warnings: tuple[str, ...] = ()
    rpc: tuple[str, ...] = ()
    note: str = field(default="")
    """Why there is no device, where there is none."""

    @property
    def sharing(self) -> frozenset[str]:
        """Names of the devices whose memory is the host's own."""
        return frozenset(device.name for device in self.devices if device.shares_host_memory)


def discover(rpc: tuple[str, ...] = (), only: tuple[str, ...] | None = None) -> Machine:
    """Find the devices of this machine and of the RPC workers at `rpc`.

    Args:
        rpc: endpoints, HOST:PORT.
        only: ggml device names to use, in this order; None takes all that llama.cpp would.

    Raises:
        BrimError: a name in `only` is no device.
    """
    nvidia = nvidia_gpus()
    answer = ask(ListDevices(rpc))
    lost = ""
    if isinstance(answer, Failure) and rpc:
        lost = f"the RPC workers are left out: {answer.reason}"
        rpc, answer = (), ask(ListDevices())
    host = host_memory()
    if isinstance(answer, Failure):
        return Machine(host, warnings=(f"{answer.reason}; all layers go to the CPU",), note="the drivers failed")
    assert isinstance(answer, DeviceList)
    devices = [_device(facts, nvidia, host) for facts in answer.devices if facts.type in ("gpu", "igpu")]
    devices = _chosen(devices, only)
    warnings = (*answer.failures, lost) if lost else answer.failures
    return Machine(host, tuple(devices), warnings, answer.reached, "" if devices else _why_none(nvidia, answer))


def _chosen(devices: list[Device], only: tuple[str, ...] | None) -> list[Device]:
    if only is not None:
        by_name = {device.name: device for device in devices}
        for name in only:
            if name not in by_name:
                known = ", ".join(by_name) or "none"
                raise BrimError(f"there is no device {name}; the devices here are: {known}")
        return [by_name[name] for name in only]
    if any(not device.shares_host_memory and device.backend != "RPC" for device in devices):
        devices = [device for device in devices if not device.shares_host_memory]  # as llama.cpp itself chooses
    remote = [device for device in devices if device.backend == "RPC"]
    return remote + [device for device in devices if device.backend != "RPC"]


def _device(facts: DeviceFacts, nvidia: list[NvidiaGpu], host: HostMemory) -> Device:
    shares = facts.type == "igpu" or facts.backend in ("MTL", "Metal")
    device = Device(
        name=facts.name,
        description=facts.description,
        backend=facts.backend,
        total=facts.total,
        free=min(facts.free, host.available) if shares else facts.free,
        buffer=facts.buffer,
        shares_host_memory=shares,
    )
    gpu = next((gpu for gpu in nvidia if gpu.pci == facts.pci), None)
    if gpu is None:
        return device
    device = replace(device, link=gpu.link, driver=gpu.driver, compute_capability=gpu.compute_capability)
    if gpu.mig:  # the probe sees its slice; the driver's figures are the whole GPU's
        return replace(device, bandwidth=gpu.bandwidth * facts.total / gpu.total)
    # NVML's figures were read before the probe's own context took its share
    return replace(device, total=gpu.total, free=gpu.free, bandwidth=gpu.bandwidth, used_by_others=gpu.used_by_others)


def _why_none(nvidia: list[NvidiaGpu], answer: DeviceList) -> str:
    if nvidia and not any(facts.backend == "CUDA" for facts in answer.devices):
        return f"{nvidia[0].name} is here, but this build of llama.cpp cannot use it (rebuild with BRIM_BACKEND=cuda)"
    return "no GPU found"
