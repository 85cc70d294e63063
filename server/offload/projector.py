"""The multimodal projector as a companion: what it takes, and how long a picture takes to read.

Source: tools/mtmd/clip.cpp. A projector's weights are one buffer, on the first GPU or on the CPU. Its graph's buffer is
reserved for a picture of the warm-up's size and grows with the first larger one, so the largest is allowed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.offload.companion import Bytes, Guest, gave_way
from server.offload.footprint import allocated
from server.offload.holding import HOST, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converter.gguf_info import GGUFInfo
    from server.offload.devices import Machine
    from server.offload.questions import DeviceSpeed
    from server.offload.wish import Wish

TOKENS_PER_PICTURE = 100
"""Answered tokens for each picture: over so many the time to read one is spread, when homes are compared."""
LARGEST_PICTURE = {
    "qwen2vl_merger": (4096, 2), "qwen2.5vl_merger": (4096, 2), "qwen3vl_merger": (4096, 2), "ling3vl": (4096, 2),
    "glm4v": (4096, 2), "muse-glimmer": (4096, 2), "kimik25": (4096, 2), "minimax_m3": (576, 2), "kimivl": (1024, 2),
    "pixtral": (1024, 1), "lfm2": (256, 2), "gemma4v": (1120, 3), "gemma4uv": (1120, 3),
}  # fmt: skip
"""For types whose pictures keep their proportions: tokens of the largest, and patches on a token's side by default."""
SEEN_WHOLE = {"gemma3": 4, "gemma4v": 3, "gemma4uv": 3}
"""Types whose pictures' tokens attend to each other both ways, and patches on a token's side by default."""
FLOAT = 4
MASK_ENTRY = 4 + 2
"""Bytes of an entry of the mask of windowed attention: as it is given, and as flash attention wants it."""
MARGIN = 1.1
"""What is allowed over what the CPU's graph was seen to take: other backends copy more."""


@dataclass(frozen=True)
class Projector:
    """A vision encoder and the matrices that turn its output into the model's embeddings."""

    info: GGUFInfo

    @property
    def role(self) -> Role:
        """What it does for the model."""
        return "projector"

    @property
    def layers(self) -> int:
        """Layers of its vision encoder."""
        return self._vision("block_count", 0)

    def _vision(self, key: str, default: Any) -> Any:
        return self.info.get(f"clip.vision.{key}", default)

    @property
    def kind(self) -> str:
        """Its type, by clip.cpp's name."""
        return self._vision("projector_type", None) or self.info.get("clip.projector_type", "")

    def _merged(self, usual: int) -> int:
        """Patches that become one token."""
        side = self._vision("spatial_merge_size", 0) or self._vision("projector.scale_factor", 0) or usual
        return side**2

    @property
    def patches(self) -> int:
        """Patches of the largest picture."""
        patch = self._vision("patch_size", 14)
        if pixels := self._vision("image_max_pixels", 0):
            return pixels // patch**2
        if self.kind not in LARGEST_PICTURE:
            return (self._vision("image_size", 448) // patch) ** 2
        tokens, usual = LARGEST_PICTURE[self.kind]
        return tokens * self._merged(usual)

    @property
    def least_batch(self) -> int:
        """Tokens of the largest picture, where all of them must be computed at once; else nothing."""
        return self.patches // self._merged(SEEN_WHOLE[self.kind]) if self.kind in SEEN_WHOLE else 0

    @property
    def compute(self) -> int:
        """Bytes allowed for its graph: what one of its layers holds of the largest picture, and the picture itself.

        Attention is taken to be computed without its whole matrix, as flash attention does.
        """
        gated = any(tensor.name.startswith("v.blk.0.ffn_gate") for tensor in self.info.tensors)
        hidden = 2 * self._vision("embedding_length", 0) + (1 + gated) * self._vision("feed_forward_length", 0)
        pixels = 3 * self._vision("patch_size", 14) ** 2
        mask = MASK_ENTRY * self.patches if self._vision("n_wa_pattern", 0) else 0
        return int(MARGIN * self.patches * (FLOAT * (hidden + pixels) + mask))

    def homes(self, machine: Machine) -> tuple[str, ...]:
        """The first GPU as ggml counts them, remote and integrated ones last, and the CPU."""
        ranked = sorted(machine.devices, key=lambda device: (device.shares_host_memory, device.backend == "RPC"))
        first = () if gave_way(self.info, machine) else ranked[:1]
        return (*(device.name for device in first), HOST)

    def at(self, home: str, wish: Wish, machine: Machine, *, exact: bool) -> Guest:
        """All of it is in its home."""
        held = Bytes(weights=sum(map(allocated, self.info.tensors)), compute=self.compute)
        return Guest(self, home, Bytes(), held) if home == HOST else Guest(self, home, held, Bytes())

    def seconds(self, model_seconds: float, home: str, wish: Wish, speeds: Mapping[str, DeviceSpeed]) -> float:
        """A token's time and its share of a picture's, in which every weight is used for every patch."""
        picture = 2 * self.info.parameters * self.patches / speeds[home].prefill
        return model_seconds + picture / TOKENS_PER_PICTURE
