"""What a worker is told to load, and what it tells of the model once it is loaded."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

IDLE_SEQUENCES = 24
"""Sequences of one pool of cells beside those that run, to hold cached prefixes; each costs an output row in memory."""
MOST_SEQUENCES = 256
"""Sequences of a context at most (LLAMA_MAX_SEQ in llama-cparams.h)."""
Pooling = Literal["none", "mean", "cls", "last", "rank"]


class Placement(Struct, frozen=True, kw_only=True):
    """Where a model's parts go. Made by the planner; the worker obeys it.

    `devices` are ggml device names in llama.cpp's order (`CUDA0`, `RPC0`); empty means the CPU alone. `tensor_split`
    has one weight per device. `tensor_overrides` are pairs of a tensor-name regex and a buffer-type name (`CPU`).
    """

    devices: tuple[str, ...] = ()
    n_gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    offload_kv: bool = True
    n_batch: int = 2048
    n_ubatch: int = 512
    summary: str = "all layers on the CPU"


class LoadSpec(Struct, frozen=True, kw_only=True, tag=True):
    """Everything a worker needs to load a model and serve it. Sizes are in bytes, lengths in tokens."""

    path: str
    name: str
    digest: str
    """Content digest of the model file; part of the key of cached KV state."""
    placement: Placement = Placement()
    context: int = 0
    """Context length of one request; 0 takes the model's own."""
    kv_cells: int = 0
    """Cells of the one pool of KV cells that requests share; 0 is as many as `context`."""
    parallel: int = 8
    """Requests decoded side by side."""
    kv_type: Literal["f16", "q8_0", "q4_0", "f32"] = "f16"
    kv_unified: bool | None = None
    """One pool of KV cells for all sequences, or a buffer for each; None lets the worker choose."""
    rpc: tuple[str, ...] = ()
    threads: int = 0
    """CPU threads; 0 measures and chooses."""
    adapters: tuple[tuple[str, float], ...] = ()
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    queue_limit: int = 256
    stream_interval: float = 0.0
    """Seconds within which tokens of a stream are sent together."""
    weights_stay: bool = True
    """Whether those on the host stay in its memory, or have to be read from disk each time."""
    cache_ram: int = 0
    cache_disk: int = 0
    cache_dir: str = ""
    state_dir: str = ""
    """Where measurements of this machine are remembered."""
    draft_path: str = ""
    draft_placement: Placement = Placement(n_batch=512)
    """Where the draft goes: the CPU, unless the planner says otherwise."""
    projector_path: str = ""
    """The multimodal projector's file, if the model has one."""
    projector_device: str = ""
    """The ggml device that it runs on; empty is the CPU."""
    lookup: bool = True
    """Speculate by prompt lookup while it pays."""
    kernels: bool = False
    """Multiply weights on the CPU by brim's own kernels, where these know their formats and the CPU."""
    reorder: bool = True
    """Let llama.cpp bring weights into an order in which it multiplies them faster, kernels or not."""
    embedding: bool = False
    """Serve embeddings instead of text."""
    pooling: Pooling | None = None


def context_sequences(parallel: int, *, unified: bool, truncatable: bool) -> int:
    """Sequences of a context in which `parallel` run: in one pool there are more of a model whose states can be cut."""
    return min(parallel + (IDLE_SEQUENCES if unified and truncatable else 0), MOST_SEQUENCES)


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What the server needs to know of a loaded model."""

    name: str
    architecture: str
    description: str
    n_params: int
    n_bytes: int
    n_vocab: int
    n_layers: int
    n_embd: int
    context: int
    """Context length of one request, in tokens."""
    context_train: int
    parallel: int
    kv_unified: bool
    chat_template: str | None
    bos_token: str
    eos_token: str
    eot_token: str
    add_bos: bool
    fim: bool
    """Whether the vocabulary has fill-in-the-middle tokens."""
    special_tokens: dict[str, int] = field(default_factory=dict[str, int])
    """All control and user-defined tokens of the vocabulary, by their text."""
    fim_tokens: dict[str, str] = field(default_factory=dict[str, str])
    """Those of `prefix`, `suffix`, `middle`, `repository` and `file` that there are, to their text."""
    device_bytes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes this model holds on each device, as llama.cpp reports them."""
    companion_bytes: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """The same of what was loaded beside it, by its role: `draft` or `projector`."""
    threads: int = 0
    threads_batch: int = 0
    kernels: str = ""
    """The instructions that brim's own kernels use; empty where llama.cpp computes everything."""
    vision: bool = False
    """Whether prompts may show images. `hearing`: whether they may hold sounds."""
    hearing: bool = False
    embedding: bool = False
    pooling: Pooling = "none"
    load_seconds: float = 0.0
