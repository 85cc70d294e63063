"""What loads beside a model in the same process: a draft that guesses its tokens, a projector that reads its pictures.

A companion stays in one piece, on one device or on the CPU, and the model is planned in what it leaves. Where it goes
is decided by the time that a token of the answer then takes: a draft on a device guesses faster, but the layers that it
pushes off the device make the model slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from server.offload.compute import header_digest
from server.offload.holding import HOST, Role
from server.offload.stepping_down import lesson
from server.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converter.gguf_info import GGUFInfo
    from server.offload.devices import Machine
    from server.offload.questions import DeviceSpeed
    from server.offload.wish import Wish


@dataclass(frozen=True, slots=True)
class Bytes:
    """What lies in one memory."""

    weights: int = 0
    kv: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.compute


def gave_way(info: GGUFInfo, machine: Machine) -> bool:
    """Whether a companion was seen not to fit on these devices beside a model."""
    free = {device.name: device.free for device in machine.devices}
    real = bool(free) and not any(device.hypothetical for device in machine.devices)
    return real and lesson(header_digest(info), free) is not None


class Companion(Protocol):
    """What the planner asks of a companion of any kind."""

    @property
    def role(self) -> Role:
        """What it does for the model."""
        ...

    @property
    def info(self) -> GGUFInfo:
        """Its file."""
        ...

    @property
    def layers(self) -> int:
        """Its repeating layers."""
        ...

    @property
    def least_batch(self) -> int:
        """Tokens that the model must be able to compute at once for it."""
        ...

    def homes(self, machine: Machine) -> tuple[str, ...]:
        """Where it may go: names of devices, and `CPU`."""
        ...

    def at(self, home: str, wish: Wish, machine: Machine, *, exact: bool) -> Guest:
        """What it takes there; with `exact`, compute buffers are dry-run where they can be."""
        ...

    def seconds(self, model_seconds: float, home: str, wish: Wish, speeds: Mapping[str, DeviceSpeed]) -> float:
        """What a token of the answer takes with it, where one of the model alone takes `model_seconds`."""
        ...


@dataclass(frozen=True, slots=True)
class Guest:
    """A companion in its home.

    Attributes:
        home: the device that holds it, or `CPU`.
        on_device: what it takes there; nothing where that is the CPU. on_host: what it takes of the host's memory.
    """

    companion: Companion
    home: str
    on_device: Bytes
    on_host: Bytes

    @property
    def role(self) -> Role:
        """What it does for the model."""
        return self.companion.role

    @property
    def device(self) -> str:
        """Its home in the worker's terms: a ggml device, or nothing for the CPU."""
        return "" if self.home == HOST else self.home

    @property
    def layers(self) -> int:
        """Its repeating layers, all of them in its home."""
        return self.companion.layers

    @property
    def at_home(self) -> Bytes:
        """What it takes in its home, be that a device or the host."""
        return self.on_host if self.home == HOST else self.on_device

    @property
    def summary(self) -> str:
        """Where it is, in a few words."""
        return f"{self.role} on {'the CPU' if self.home == HOST else self.home} ({format_size(self.at_home.total)})"
