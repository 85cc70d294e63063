"""What a model needs, exactly: bytes of each layer's parts and of its KV cache, from a GGUF file's header.

Sources: llama-model.cpp (which tensors go with which layer), llama-kv-cache.cpp, llama-kv-cache-iswa.cpp and
llama-memory-recurrent.cpp (sizes of the KV cache, of sliding-window layers and of recurrent state), llama-hparams.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, cast

from converter.gguf_format import TensorInfo, align
from server.engine.load_spec import context_sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converter.gguf_info import GGUFInfo

KV_BYTES = {"f32": (1, 4), "f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}
"""Elements and bytes of a block of each KV type."""
BUFFER_ALIGNMENT = 128
"""Each tensor starts at a multiple of this in a device buffer: CUDA's; the other backends' are no larger."""
ROW_PADDING = 512
"""CUDA pads the last row of a quantized matrix to a multiple of this many elements (MATRIX_ROW_PADDING)."""
CELL_PADDING = 256
"""llama.cpp rounds the cells of every KV buffer up to a multiple of this."""

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"ffn_(gate|up|down|gate_up)_(ch)?exps")
_SHARED = re.compile(r"ffn_(gate|up|down)_shexp")
_DENSE = re.compile(r"ffn_(gate|up|down)\.")
_RECURRENT = re.compile(r"ssm_|time_mix|shortconv")
_ATTENTION = re.compile(r"attn_(k|v|qkv|kv_a_mqa|kv_b)\.")

SLIDING_PATTERNS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "llama4": 4, "exaone4": 4, "exaone-moe": 4,
    "olmo2": 4, "afmoe": 4, "plamo3": 8, "mellum": 4, "muse-glimmer": 4,
}  # fmt: skip
"""Every n-th layer attends to everything, the rest to a window, where the file does not list the layers itself."""
SLIDING_PATTERNS_FULL_FIRST = {"cohere2moe": 4, "laguna": 4, "smallthinker": 4}
"""The same where the first layer of each n attends to everything."""
DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "smallthinker": 4096, "llama4": 8192}
NO_WINDOW = frozenset({"phi3"})
"""Architectures whose files name a window that llama.cpp does not use."""
SHARED_KV_FROM = {"gemma3n": 20}
"""Layers from this one on read the KV of earlier layers and have none of their own."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """How a context's KV cache is laid out.

    Attributes:
        cells: of one stream, in tokens.
        streams: separate buffers; 1 where all sequences share the cells.
        sequences: the most sequences that exist at a time.
        type: of keys and values.
        n_ubatch: tokens computed at a time; sliding-window buffers hold that many more.
        scale: what llama.cpp allocates over what is counted here, for architectures with caches of their own kind.
    """

    cells: int
    streams: int
    sequences: int
    type: str = "f16"
    n_ubatch: int = 512
    scale: float = 1.0

    def cells_of(self, window: int) -> int:
        """Cells of one stream for a layer that attends to `window` tokens (0: to all)."""
        if not window:
            return self.cells
        shared = self.sequences if self.streams == 1 else 1
        return align(min(self.cells, window * shared + self.n_ubatch), CELL_PADDING)


@dataclass(frozen=True, slots=True)
class Layer:
    """One repeating layer. All sizes are bytes as allocated on a device.

    Attributes:
        attention: attention or recurrent weights, norms, routers: all that always stays together.
        dense: a feed-forward network that every token uses. shared: experts that every token uses.
        experts: routed experts; `active` is the share of them that a token uses.
        kv_elements: numbers stored for each token. window: tokens attended to, 0 for all.
        state: recurrent state of one sequence.
    """

    attention: int
    dense: int = 0
    shared: int = 0
    experts: int = 0
    active: float = 1.0
    kv_elements: tuple[int, ...] = ()
    window: int = 0
    state: int = 0

    @property
    def weights(self) -> int:
        """Bytes of all its weights."""
        return self.attention + self.dense + self.shared + self.experts

    @property
    def ffn(self) -> int:
        """Bytes of the whole feed-forward part."""
        return self.dense + self.shared + self.experts

    @property
    def ffn_read(self) -> float:
        """Bytes of it that one token reads."""
        return self.dense + self.shared + self.experts * self.active

    def kv_bytes(self, shape: KvShape) -> int:
        """Bytes of this layer's KV cache or recurrent state."""
        cells = shape.cells_of(self.window) * shape.streams
        counted = sum(_kv_row(n, shape.type) * cells for n in self.kv_elements) + self.state * shape.sequences
        return counted if shape.scale == 1.0 else ceil(counted * shape.scale)

    def kv_read(self, shape: KvShape, depth: int) -> float:
        """Bytes of KV that the next token of a sequence of `depth` tokens reads."""
        tokens = min(depth, self.window) if self.window else depth
        return sum(_kv_row(n, shape.type) * tokens for n in self.kv_elements) + self.state


def _kv_row(elements: int, kv_type: str) -> int:
    block, nbytes = KV_BYTES[kv_type]
    return -(-elements // block) * nbytes


@dataclass(frozen=True, slots=True)
class Footprint:
    """A model's needs. Bytes as allocated.

    Attributes:
        embeddings: token embeddings, which llama.cpp keeps on the host always.
        output: final norm and output matrix, a copy of the embeddings where the two are `tied`.
        bytes_by_type: weight bytes that a token may read, by GGUF type name.
        parameters: weights in layers and output. n_vocab, n_embd, n_ff, context_train: dimensions of the model.
    """

    architecture: str
    layers: tuple[Layer, ...]
    embeddings: int
    output: int
    tied: bool
    bytes_by_type: dict[str, int]
    parameters: int
    n_vocab: int
    n_embd: int
    n_ff: int
    context_train: int

    @property
    def weights(self) -> int:
        """Bytes of all weights; tied embeddings count once."""
        return self.host_only(offloaded=0, with_output=False)

    def host_only(self, *, offloaded: int, with_output: bool) -> int:
        """Bytes of weights on the host where `offloaded` bytes are on devices; tied embeddings are then held twice."""
        everything = sum(layer.weights for layer in self.layers) + self.output + self.embeddings
        return everything - offloaded - (self.embeddings if self.tied and not with_output else 0)

    @property
    def truncatable(self) -> bool:
        """Whether the end of a sequence can be dropped from its KV state: no windows, no recurrent state."""
        return not any(layer.window or layer.state for layer in self.layers)

    def kv_shape(self, cells: int, parallel: int, unified: bool, kv_type: str, n_ubatch: int) -> KvShape:
        """The engine's two modes: one pool of `cells`, or as many for each of `parallel` sequences."""
        unified = unified or parallel == 1
        sequences = context_sequences(parallel, unified=unified, truncatable=self.truncatable)
        return KvShape(align(cells, CELL_PADDING), 1 if unified else parallel, sequences, kv_type, n_ubatch)

    def kv_bytes(self, shape: KvShape) -> int:
        """Bytes of the KV cache of all layers."""
        return sum(layer.kv_bytes(shape) for layer in self.layers)


def footprint(info: GGUFInfo) -> Footprint:
    """Work out a model's footprint from its file's header."""
    arch = info.architecture
    n_layers = int(info.get(f"{arch}.block_count", 0))
    loaded = n_layers - int(info.get(f"{arch}.nextn_predict_layers", 0))  # llama.cpp skips those that only guess
    by_layer: list[list[tuple[str, TensorInfo]]] = [[] for _ in range(n_layers)]
    loose: dict[str, TensorInfo] = {}
    for tensor in info.tensors:
        found = _LAYER.match(tensor.name)
        if found and loaded <= int(found[1]) < n_layers:
            continue
        if found and int(found[1]) < n_layers:
            by_layer[int(found[1])].append((found[2], tensor))
        else:
            loose[tensor.name] = tensor
    embeddings = [
        t for name, t in loose.items() if name.startswith(("token_embd", "per_layer_token_embd", "position_embd"))
    ]
    output = [t for t in loose.values() if t not in embeddings]
    if "output.weight" not in loose:
        output += [t for t in embeddings if t.name == "token_embd.weight"]
    offloadable = [t for tensors in by_layer for _, t in tensors] + output
    attention = _AttentionFacts(info, n_layers)
    layers = tuple(_layer(i, tensors, attention) for i, tensors in enumerate(by_layer))
    return Footprint(
        architecture=arch,
        layers=layers,
        embeddings=sum(map(allocated, embeddings)),
        output=sum(map(allocated, output)),
        tied="output.weight" not in loose,
        bytes_by_type=_bytes_by_type(offloadable),
        parameters=sum(t.elements for t in offloadable),
        n_vocab=max((t.shape[0] for t in embeddings if t.name == "token_embd.weight"), default=0),
        n_embd=int(info.get(f"{arch}.embedding_length", 0)),
        n_ff=max((t.shape[0] for tensors in by_layer for name, t in tensors if name == "ffn_up.weight"), default=0),
        context_train=int(info.get(f"{arch}.context_length", 4096)),
    )


def allocated(tensor: TensorInfo) -> int:
    """Bytes a tensor takes in a device's buffer, padding included."""
    row = tensor.shape[-1]
    padding = 0
    if tensor.type.is_quantized and row % ROW_PADDING:
        padding = tensor.type.row_bytes(
            -(-(ROW_PADDING - row % ROW_PADDING) // tensor.type.block_size) * tensor.type.block_size
        )
    return align(tensor.nbytes + padding, BUFFER_ALIGNMENT)


def _bytes_by_type(tensors: Sequence[TensorInfo]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.nbytes
    return sizes


def _layer(index: int, tensors: list[tuple[str, TensorInfo]], facts: _AttentionFacts) -> Layer:
    parts = {"experts": 0, "shared": 0, "dense": 0, "attention": 0}
    for name, tensor in tensors:
        parts[_part(name)] += allocated(tensor)
    recurrent = any(_RECURRENT.match(name) for name, _ in tensors)
    own_attention = any(_ATTENTION.match(name) and (not recurrent or "qkv" not in name) for name, _ in tensors)
    return Layer(
        **parts,
        active=facts.active_experts if parts["experts"] else 1.0,
        kv_elements=facts.kv_elements(index) if own_attention else (),
        window=facts.window(index),
        state=facts.state_bytes() if recurrent else 0,
    )


def _part(name: str) -> str:
    if _EXPERTS.match(name):
        return "experts"
    if _SHARED.match(name):
        return "shared"
    return "dense" if _DENSE.match(name) else "attention"


class _AttentionFacts:
    """The metadata that decides what a layer keeps of past tokens."""

    def __init__(self, info: GGUFInfo, n_layers: int) -> None:
        self._info = info
        self._arch = info.architecture
        self._n_layers = n_layers
        experts = self._number("expert_count")
        self.active_experts = min(1.0, self._number("expert_used_count") / experts) if experts else 1.0
        self._sliding_window = (
            0
            if self._arch in NO_WINDOW
            else self._number("attention.sliding_window", DEFAULT_WINDOWS.get(self._arch, 0))
        )
        self._own_kv = n_layers - self._number("attention.shared_kv_layers") - self._number("nextn_predict_layers")
        self._own_kv = min(self._own_kv, SHARED_KV_FROM.get(self._arch, n_layers))

    def _value(self, key: str, default: Any = None) -> Any:
        return self._info.get(f"{self._arch}.{key}", default)

    def _number(self, key: str, default: int = 0) -> int:
        value = self._value(key, default)
        return max(cast("list[int]", value), default=default) if isinstance(value, list) else int(value)

    def _of_layer(self, key: str, index: int, default: int) -> int:
        value = self._value(key, default)
        return cast("list[int]", value)[index] if isinstance(value, list) else int(value)

    def window(self, index: int) -> int:
        """Tokens that a layer attends to; 0 for all."""
        if not self._sliding_window:
            return 0
        pattern = self._value("attention.sliding_window_pattern")
        if isinstance(pattern, list):
            slides = bool(cast("list[bool]", pattern)[index])
        elif self._arch in SLIDING_PATTERNS_FULL_FIRST:
            slides = index % SLIDING_PATTERNS_FULL_FIRST[self._arch] != 0
        elif self._arch in SLIDING_PATTERNS:
            every = int(pattern or SLIDING_PATTERNS[self._arch])
            slides = index % every < every - 1
        else:
            slides = False
        return self._sliding_window if slides else 0

    def kv_elements(self, index: int) -> tuple[int, ...]:
        """Numbers that a layer stores for each token: keys and values, or one latent vector with MLA."""
        if index >= self._own_kv:
            return ()
        heads = self._of_layer("attention.head_count", index, 1)
        kv_heads = self._of_layer("attention.head_count_kv", index, heads)
        head = self._number("embedding_length") // max(1, heads)
        keys, values = self._number("attention.key_length", head), self._number("attention.value_length", head)
        if self.window(index):
            keys = self._number("attention.key_length_swa", keys)
            values = self._number("attention.value_length_swa", values)
        if self._number("attention.key_length_mla"):
            return (keys * kv_heads,) if kv_heads else ()
        return (keys * kv_heads, values * kv_heads) if kv_heads else ()

    def state_bytes(self) -> int:
        """Bytes of float32 recurrent state for one sequence."""
        n_embd = self._number("embedding_length")
        if head := self._number("wkv.head_size"):
            return 4 * (self._number("token_shift_count", 2) * n_embd + n_embd * head)
        if cache := self._number("shortconv.l_cache"):
            return 4 * n_embd * (cache - 1)
        if head := self._number("kda.head_dim"):
            heads, kernel = self._number("attention.head_count"), self._number("ssm.conv_kernel", 4)
            return 4 * heads * head * (3 * (kernel - 1) + head)
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        convolution = max(0, self._number("ssm.conv_kernel") - 1)
        return 4 * (convolution * (inner + 2 * self._number("ssm.group_count") * state) + state * inner)
