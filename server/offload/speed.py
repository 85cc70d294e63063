"""How fast a placement will be: bytes moved over each device's bandwidth, plus what crossing between devices costs.

Decoding one token reads every weight on its way once, so time is bytes over bandwidth; each operation adds a little,
and each change of device one call and the copy of one hidden state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.offload.footprint import Footprint
    from server.offload.questions import DeviceSpeed

DEPTH = 4096
"""Tokens already in the sequence when speed is predicted, where the context allows for twice as many."""
OPERATIONS_PER_LAYER = 25
"""Norms, products, rotations and additions of a usual layer in llama.cpp's graph."""
_MEASURED = {"F32": "f16", "F16": "f16", "BF16": "f16", "Q8_0": "q8_0", "Q8_K": "q8_0", "Q6_K": "q8_0"}
"""Which measured type stands for which; the rest by q4_K."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one device computes a given model.

    Attributes:
        bandwidth: bytes of its weights read a second. kv_bandwidth: bytes of KV that attention reads a second.
        call: seconds that one stretch of work costs beside its bytes, the hidden state's way there and back included.
        layer: seconds that one layer costs beside its bytes: its operations one after another.
        logits: seconds to bring one token's logits to the host.
    """

    bandwidth: float
    kv_bandwidth: float
    call: float = 0.0
    layer: float = 0.0
    logits: float = 0.0


def speed_for(model: Footprint, measured: DeviceSpeed) -> Speed:
    """The speed at which a device computes a model."""
    bandwidth, link = measured.bandwidth, measured.link if measured.name != "CPU" else 0.0
    seconds = sum(size / bandwidth[_MEASURED.get(name, "q4_K")] for name, size in model.bytes_by_type.items())
    total = sum(model.bytes_by_type.values())
    copy = 2 * 4 * model.n_embd / link if link else 0.0
    return Speed(
        bandwidth=total / seconds if seconds else bandwidth["f16"],
        kv_bandwidth=measured.attention or bandwidth["f16"],
        call=measured.call + copy,
        layer=OPERATIONS_PER_LAYER * measured.operation,
        logits=4 * model.n_vocab / link if link else 0.0,
    )


def uniform(bandwidth: float) -> dict[str, float]:
    """The same bandwidth for every type: a GPU that memory limits."""
    return dict.fromkeys(("f16", "q8_0", "q4_K"), bandwidth)


def depth_for(context: int) -> int:
    """Tokens in the sequence at which a context's speed is predicted."""
    return min(DEPTH, context // 2)
