"""GGUF files of models whose state cannot be cut at any token: a recurrent one, a hybrid one, and sliding windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.gguf_format import Field, Fields, TensorType, ValueType, encode_header, lay_out
from tests.offload.models import Shape, Tensors, vocabulary, write_random

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 384
LAYERS = 4
CONTEXT = 512
EMBEDDING = 64
INNER = 2 * EMBEDDING
STATE, KERNEL, TIME_STEP_RANK = 8, 4, 4
FEED_FORWARD, HEADS, KV_HEADS = 128, 4, 2
ATTENTION_LAYERS = (1, 3)
"""Of the hybrid model; the others are recurrent."""

F32 = TensorType.F32
SLIDING = Shape(
    "gemma2", LAYERS, EMBEDDING, HEADS, KV_HEADS, 16, FEED_FORWARD, VOCABULARY, CONTEXT,
    window=32, type=TensorType.F16, output_type=TensorType.F16,
)  # fmt: skip


def write_sliding(path: Path) -> Path:
    """Gemma 2's architecture with windows of 32 tokens."""
    return write_random(SLIDING, path, seed=5)


def write_recurrent(path: Path) -> Path:
    """Mamba's architecture."""
    return _write(path, "mamba", [_mamba(i) for i in range(LAYERS)], {})


def write_hybrid(path: Path) -> Path:
    """Jamba's architecture: layers of attention between recurrent ones."""
    layers = [_attention(i) if i in ATTENTION_LAYERS else _mamba(i, norms=True) for i in range(LAYERS)]
    layers = [[*layer, *_feed_forward(i)] for i, layer in enumerate(layers)]
    kv_heads = [KV_HEADS if i in ATTENTION_LAYERS else 0 for i in range(LAYERS)]
    return _write(path, "jamba", layers, {"attention.head_count_kv": Field.array(ValueType.INT32, kv_heads)})


def _mamba(layer: int, *, norms: bool = False) -> Tensors:
    found: Tensors = [
        (f"blk.{layer}.attn_norm.weight", (EMBEDDING,), F32),
        (f"blk.{layer}.ssm_in.weight", (2 * INNER, EMBEDDING), F32),
        (f"blk.{layer}.ssm_conv1d.weight", (INNER, KERNEL), F32),
        (f"blk.{layer}.ssm_conv1d.bias", (INNER,), F32),
        (f"blk.{layer}.ssm_x.weight", (TIME_STEP_RANK + 2 * STATE, INNER), F32),
        (f"blk.{layer}.ssm_dt.weight", (INNER, TIME_STEP_RANK), F32),
        (f"blk.{layer}.ssm_dt.bias", (INNER,), F32),
        (f"blk.{layer}.ssm_a", (INNER, STATE), F32),
        (f"blk.{layer}.ssm_d", (INNER,), F32),
        (f"blk.{layer}.ssm_out.weight", (EMBEDDING, INNER), F32),
    ]
    if norms:
        sizes = {"dt": TIME_STEP_RANK, "b": STATE, "c": STATE}
        found += [(f"blk.{layer}.ssm_{name}_norm.weight", (size,), F32) for name, size in sizes.items()]
    return found


def _attention(layer: int) -> Tensors:
    kv = EMBEDDING // HEADS * KV_HEADS
    rows = {"attn_q": EMBEDDING, "attn_k": kv, "attn_v": kv, "attn_output": EMBEDDING}
    norm: Tensors = [(f"blk.{layer}.attn_norm.weight", (EMBEDDING,), F32)]
    return norm + [(f"blk.{layer}.{name}.weight", (count, EMBEDDING), F32) for name, count in rows.items()]


def _feed_forward(layer: int) -> Tensors:
    return [
        (f"blk.{layer}.ffn_norm.weight", (EMBEDDING,), F32),
        (f"blk.{layer}.ffn_gate.weight", (FEED_FORWARD, EMBEDDING), F32),
        (f"blk.{layer}.ffn_up.weight", (FEED_FORWARD, EMBEDDING), F32),
        (f"blk.{layer}.ffn_down.weight", (EMBEDDING, FEED_FORWARD), F32),
    ]


def _write(path: Path, architecture: str, layers: list[Tensors], more: Fields) -> Path:
    numbers = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": EMBEDDING,
        "feed_forward_length": FEED_FORWARD if more else 0,
        "attention.head_count": HEADS if more else 0,
        "ssm.conv_kernel": KERNEL,
        "ssm.inner_size": INNER,
        "ssm.state_size": STATE,
        "ssm.time_step_rank": TIME_STEP_RANK,
        "vocab_size": VOCABULARY,
    }
    fields = {"general.architecture": Field.string(architecture)} | vocabulary(VOCABULARY)
    fields |= {f"{architecture}.{key}": Field.u32(value) for key, value in numbers.items()}
    fields |= {f"{architecture}.{key}": value for key, value in more.items()}
    fields[f"{architecture}.attention.layer_norm_rms_epsilon"] = Field.f32(1e-5)
    ends: Tensors = [("token_embd.weight", (VOCABULARY, EMBEDDING), F32), ("output_norm.weight", (EMBEDDING,), F32)]
    placed = lay_out([*ends, *(tensor for layer in layers for tensor in layer)])
    header = encode_header(fields, placed)
    random = np.random.default_rng(11)
    with path.open("wb") as file:
        file.write(header)
        for tensor in placed:
            file.seek(len(header) + tensor.offset)
            file.write(_values(tensor.name, tensor.shape, random).astype(np.float32).tobytes())
    return path


def _values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float64]:
    if name.endswith("ssm_a"):  # a decay: negative, and different for each state
        return -np.tile(np.arange(1.0, shape[-1] + 1), (shape[0], 1))
    if name.endswith("norm.weight") or name.endswith("ssm_d"):
        return np.ones(shape)
    return random.standard_normal(shape) / np.sqrt(shape[-1])
