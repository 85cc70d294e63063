"""What a user wishes for: how long contexts are, how many requests run side by side, and what may be used for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from converter.gguf_format import align
from server.offload.footprint import CELL_PADDING, Footprint, KvShape
from server.offload.planner import UBATCHES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.offload.companion import Companion

GpuLayers = int | Literal["auto", "all"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed, and within which limits.

    Attributes:
        context: tokens of one request; 0 leaves it open, up to the model's own.
        parallel: requests decoded side by side.
        kv_unified: one pool of cells for all sequences, or a buffer for each; None lets the engine choose.
        pool: cells of that pool; 0 leaves it open: room for one request at least, for all of `parallel` at most.
        vram_budget: bytes that brim may use of all devices together.
        held: bytes that brim's other models hold, by llama.cpp's name of the device's memory.
        companions: what loads beside the model; it is planned in what they leave.
    """

    context: int = 0
    parallel: int = 1
    kv_type: str = "f16"
    gpu_layers: GpuLayers = "auto"
    vram_budget: int | None = None
    held: Mapping[str, int] = field(default_factory=dict[str, int])
    kv_unified: bool | None = None
    pool: int = 0
    companions: tuple[Companion, ...] = ()

    @property
    def ubatches(self) -> tuple[int, ...]:
        """Batch sizes to choose from, the preferred one first."""
        least = max((companion.least_batch for companion in self.companions), default=0)
        return tuple(size for size in UBATCHES if size >= least) or (align(least, CELL_PADDING),)

    def shape(self, model: Footprint, n_ubatch: int = UBATCHES[0]) -> KvShape:
        """The model's KV cache under this wish."""
        cells = self.context if self.kv_unified is False else max(self.context, self.pool)
        return model.kv_shape(cells, self.parallel, self.kv_unified is not False, self.kv_type, n_ubatch)
