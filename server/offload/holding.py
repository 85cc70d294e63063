"""What each device holds of a model: as it was planned, and as llama.cpp allocated it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Role = Literal["draft", "projector"]
"""What a companion does for the model beside which it is loaded."""
Part = Literal["model"] | Role
HOST = "CPU"
TOLERANCE = 0.02
"""Share of the plan by which an allocation may differ from it."""
ROUNDING = 1 << 20
"""Bytes by which it may differ whatever the plan: llama.cpp tells sizes in hundredths of a MiB, one for each buffer."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a plan gives one device. Sizes in bytes.

    Attributes:
        device: ggml's name, or `CPU` for the host.
        buffer: what llama.cpp calls the device's memory.
        layers: repeating layers there, whole or in part.
        planned: weights, KV cache and compute buffers; None where the plan was not what was loaded.
        overhead: what the backend takes beside them.
        part: whose share it is: the model's own, or that of a companion by its role.
    """

    device: str
    buffer: str
    layers: int
    planned: int | None
    overhead: int = 0
    part: Part = "model"

    def owns(self, buffer: str) -> bool:
        """Whether a buffer of that name lies in the device's own memory (`MTL0_Mapped` does in `MTL0`'s)."""
        return buffer == self.buffer or buffer.startswith(f"{self.buffer}_")


@dataclass(frozen=True, slots=True)
class Holding:
    """A share, and the bytes that were allocated for it."""

    share: Share
    allocated: int

    @property
    def deviation(self) -> float | None:
        """By what share of the plan the allocation exceeds it (negative: falls short); None where it cannot be said.

        It cannot on the host, where weights are pages of the mapped file.
        """
        planned = self.share.planned
        if self.share.device == HOST or planned is None:
            return None
        return (self.allocated - planned) / max(planned, 1)

    @property
    def deviates(self) -> bool:
        """Whether plan and allocation differ by more than they should. A projector's may grow up to the plan."""
        off = self.allocated - (self.share.planned or 0)
        if self.deviation is None or (self.share.part == "projector" and off < 0):
            return False
        return abs(self.deviation) > TOLERANCE and abs(off) > ROUNDING

    @property
    def reserved(self) -> int:
        """Bytes that are no other model's to take."""
        grown = self.share.planned or 0 if self.share.part == "projector" else 0
        return max(self.allocated, grown)


def holdings(shares: Sequence[Share], held: Mapping[str, Mapping[str, int]]) -> tuple[Holding, ...]:
    """Put what llama.cpp allocated beside what was planned.

    Args:
        shares: of all devices, the host's among them: it gets what is no other device's, such as `CUDA_Host`.
        held: bytes of each part, the model and its companions, by llama.cpp's names of the buffers.
    """
    return tuple(
        holding for part, sizes in held.items() for holding in _of_part([s for s in shares if s.part == part], sizes)
    )


def _of_part(shares: Sequence[Share], device_bytes: Mapping[str, int]) -> list[Holding]:
    sizes = dict.fromkeys((*(share.device for share in shares), HOST), 0)
    for buffer, size in device_bytes.items():
        sizes[next((share.device for share in shares if share.device != HOST and share.owns(buffer)), HOST)] += size
    return [Holding(share, sizes[share.device]) for share in shares]
