"""GGUF files for tests: real shapes of known models without data (sparse files), and small random ones that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converter.gguf_format import Field, Fields, TensorType, ValueType, encode_header, lay_out

if TYPE_CHECKING:
    from pathlib import Path

Tensors = list[tuple[str, tuple[int, ...], TensorType]]


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder-only transformer."""

    arch: str
    layers: int
    n_embd: int
    heads: int
    kv_heads: int
    head: int
    n_ff: int
    n_vocab: int
    context: int = 8192
    window: int = 0
    experts: int = 0
    experts_used: int = 0
    n_ff_expert: int = 0
    tied: bool = True
    type: TensorType = TensorType.Q4_K
    output_type: TensorType = TensorType.Q6_K


GEMMA_2_27B = Shape("gemma2", 46, 4608, 32, 16, 128, 36864, 256000, window=4096)
QWEN3_30B_A3B = Shape(
    "qwen3moe", 48, 2048, 32, 4, 128, 6144, 151936, 40960, experts=128, experts_used=8, n_ff_expert=768, tied=False
)
LLAMA_3_8B = Shape("llama", 32, 4096, 32, 8, 128, 14336, 128256, tied=False)
RANDOM_160M = Shape(
    "llama", 12, 768, 12, 12, 64, 2048, 32000, 2048, tied=False, type=TensorType.F16, output_type=TensorType.F16
)


def fields(shape: Shape, *, runs: bool = False) -> Fields:
    """The metadata that llama.cpp needs to build the model; no vocabulary but its size, unless it is to run."""
    f: Fields = {"general.architecture": Field.string(shape.arch)}
    f |= vocabulary(shape.n_vocab) if runs else {"tokenizer.ggml.model": Field.string("none")}
    numbers = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "vocab_size": shape.n_vocab,
        "rope.dimension_count": shape.head,
    }
    if shape.window:
        numbers["attention.sliding_window"] = shape.window
    if shape.experts:
        numbers |= {
            "expert_count": shape.experts,
            "expert_used_count": shape.experts_used,
            "expert_feed_forward_length": shape.n_ff_expert,
        }
    f |= {f"{shape.arch}.{key}": Field.u32(value) for key, value in numbers.items()}
    f[f"{shape.arch}.attention.layer_norm_rms_epsilon"] = Field.f32(1e-5)
    return f


def tensors(shape: Shape) -> Tensors:
    """Names, shapes and types as a converter writes them."""
    e, q, kv = shape.n_embd, shape.heads * shape.head, shape.kv_heads * shape.head
    found: Tensors = [
        ("token_embd.weight", (shape.n_vocab, e), shape.output_type),
        ("output_norm.weight", (e,), TensorType.F32),
    ]
    if not shape.tied:
        found.append(("output.weight", (shape.n_vocab, e), shape.output_type))
    for i in range(shape.layers):
        layer: Tensors = [
            ("attn_norm", (e,), TensorType.F32),
            ("attn_q", (q, e), shape.type),
            ("attn_k", (kv, e), shape.type),
            ("attn_v", (kv, e), shape.type),
            ("attn_output", (e, q), shape.type),
            ("ffn_norm", (e,), TensorType.F32),
        ]
        if shape.arch == "gemma2":
            layer += [("post_attention_norm", (e,), TensorType.F32), ("post_ffw_norm", (e,), TensorType.F32)]
        if shape.arch == "qwen3moe":
            layer += [(f"attn_{x}_norm", (shape.head,), TensorType.F32) for x in "qk"]
        if shape.experts:
            n, f = shape.experts, shape.n_ff_expert
            layer += [
                ("ffn_gate_inp", (n, e), TensorType.F32),
                ("ffn_gate_exps", (n, f, e), shape.type),
                ("ffn_up_exps", (n, f, e), shape.type),
                ("ffn_down_exps", (n, e, f), shape.type),
            ]
        else:
            layer += [
                ("ffn_gate", (shape.n_ff, e), shape.type),
                ("ffn_up", (shape.n_ff, e), shape.type),
                ("ffn_down", (e, shape.n_ff), shape.type),
            ]
        found += [(f"blk.{i}.{name}.weight", dimensions, type_) for name, dimensions, type_ in layer]
    return found


def write_hollow(shape: Shape, path: Path) -> Path:
    """A file of the right size whose tensor data is a hole: it takes no room on disk, and plans like the real model."""
    placed = lay_out(tensors(shape))
    header = encode_header(fields(shape), placed)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + placed[-1].offset + placed[-1].nbytes)
    return path


def write_random(shape: Shape, path: Path, seed: int = 0) -> Path:
    """A file that runs: random F16 and F32 weights of a spread that keeps activations in range."""
    random = np.random.default_rng(seed)
    placed = lay_out(tensors(shape))
    header = encode_header(fields(shape, runs=True), placed)
    with path.open("wb") as file:
        file.write(header)
        for tensor in placed:
            file.seek(len(header) + tensor.offset)
            if len(tensor.shape) == 1:
                file.write(np.ones(tensor.shape, np.float32).tobytes())
                continue
            values = random.standard_normal(tensor.shape, np.float32) * (0.7 / np.sqrt(tensor.shape[-1]))
            file.write(values.astype(np.float16 if tensor.type is TensorType.F16 else np.float32).tobytes())
    return path


def vocabulary(size: int) -> Fields:
    """A vocabulary as SentencePiece's: control tokens, bytes, and words that mean nothing."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [f"w{i}" for i in range(len(names), size)]
    types = [2, 3, 3, *[6] * 256, *[1] * (size - 259)]
    return {
        "tokenizer.ggml.model": Field.string("llama"),
        "tokenizer.ggml.tokens": Field.array(ValueType.STRING, names),
        "tokenizer.ggml.scores": Field.array(ValueType.FLOAT32, [0.0] * size),
        "tokenizer.ggml.token_type": Field.array(ValueType.INT32, types),
        "tokenizer.ggml.bos_token_id": Field.u32(1),
        "tokenizer.ggml.eos_token_id": Field.u32(2),
    }
