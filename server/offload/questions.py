"""What the planner asks of the probe and what it answers: JSON over a subprocess's standard input and output."""

from __future__ import annotations

from msgspec import Struct


class ListDevices(Struct, frozen=True, tag=True):
    """Which devices does ggml find, with those of the RPC workers at `rpc` (HOST:PORT)?"""

    rpc: tuple[str, ...] = ()


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """One device as ggml describes it.

    `buffer` is what llama.cpp calls its buffers in the log. `total` and `free` are bytes. `pci` is a PCI address.
    """

    name: str
    description: str
    type: str
    backend: str
    total: int
    free: int
    buffer: str
    pci: str | None = None


class DeviceList(Struct, frozen=True, tag=True):
    """All devices, the CPU included, in ggml's order; the RPC workers `reached`, and what failed at the others."""

    devices: tuple[DeviceFacts, ...]
    reached: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class DryRun(Struct, frozen=True, kw_only=True, tag=True):
    """How large are the compute buffers of this placement? Nothing is allocated but metadata.

    With `stand_ins`, that many CPU devices behind a loopback RPC server play the devices, as RPC0, RPC1, ...: the graph
    splits as on real ones. Then `rpc` is empty. `cells` counts the KV cells of all sequences.
    """

    path: str
    devices: tuple[str, ...] = ()
    n_gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    offload_kv: bool = True
    cells: int = 4096
    sequences: int = 1
    unified: bool = True
    kv_type: str = "f16"
    n_batch: int = 2048
    n_ubatch: int = 512
    rpc: tuple[str, ...] = ()
    stand_ins: int = 0


class DryRunResult(Struct, frozen=True, kw_only=True, tag=True):
    """Compute buffer bytes for each of the asked devices in their order, on the host, and KV bytes of all devices."""

    compute: tuple[int, ...]
    host_compute: int
    kv: int


class Measure(Struct, frozen=True, tag=True):
    """How fast are these devices (ggml names; "CPU" is the host)? Takes about a second each."""

    devices: tuple[str, ...]
    rpc: tuple[str, ...] = ()
    threads: int = 0


class DeviceSpeed(Struct, frozen=True, kw_only=True):
    """What was measured of one device.

    Attributes:
        bandwidth: bytes of weights read a second in a matrix-vector product, by tensor type (`f16`, `q8_0`, `q4_K`).
        attention: bytes of KV that attention to a long context reads a second, for one token; 0 where unsupported.
        prefill: floating-point operations a second in a product with 128 columns of a q4_K matrix.
        call: seconds that starting one graph and awaiting it takes, whatever its size.
        operation: seconds that each further operation of a graph takes, however small.
        link: bytes a second from the host to the device's memory.
        overhead: bytes of device memory that the backend takes beside its buffers; None where it cannot be told.
    """

    name: str
    bandwidth: dict[str, float]
    attention: float
    prefill: float
    call: float
    link: float
    operation: float = 0.0
    overhead: int | None = None


class Speeds(Struct, frozen=True, tag=True):
    """The measured devices, in the order they were asked for."""

    devices: tuple[DeviceSpeed, ...]


class Failure(Struct, frozen=True, tag=True):
    """The probe could not answer; one sentence says why."""

    reason: str


Question = ListDevices | DryRun | Measure
Answer = DeviceList | DryRunResult | Speeds | Failure
