"""BERT-like encoders with random weights: as GGUF files that llama.cpp runs, and as a forward pass in NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.gguf_format import Field, Fields, TensorType, ValueType, encode_header, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POOLING = {"mean": 1, "cls": 2, "last": 3, "rank": 4}
PAD, UNKNOWN, CLS, SEP, MASK = range(5)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"\N{LOWER ONE EIGHTH BLOCK}{letter}" for letter in LETTERS),
    *LETTERS,
]
"""WordPiece as GGUF files spell it: words begin with a block, and what goes on does not."""

Array = Any  # NumPy's operators widen what pyright infers of shapes and types; all values here are float32 arrays


@dataclass(frozen=True)
class Bert:
    """An encoder's lengths, how it pools, and its weights."""

    pooling: str
    layers: int = 2
    width: int = 64
    heads: int = 4
    inner: int = 96
    context: int = 256
    seed: int = 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' names and shapes."""
        e = self.width
        norm = {"weight": (e,), "bias": (e,)}
        found: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (len(VOCABULARY), e),
            "token_types.weight": (2, e),
            "position_embd.weight": (self.context, e),
        }
        parts: dict[str, dict[str, tuple[int, ...]]] = {"token_embd_norm": norm}
        for i in range(self.layers):
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                parts[f"blk.{i}.{name}"] = {"weight": (e, e), "bias": (e,)}
            parts[f"blk.{i}.attn_output_norm"] = parts[f"blk.{i}.layer_output_norm"] = norm
            parts[f"blk.{i}.ffn_up"] = {"weight": (self.inner, e), "bias": (self.inner,)}
            parts[f"blk.{i}.ffn_down"] = {"weight": (e, self.inner), "bias": (e,)}
        if self.pooling == "rank":
            parts["cls"] = {"weight": (e, e), "bias": (e,)}
            parts["cls.output"] = {"weight": (1, e), "bias": (1,)}
        return found | {f"{name}.{kind}": shape for name, kinds in parts.items() for kind, shape in kinds.items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The same random weights every time."""
        random = np.random.default_rng(self.seed)
        found: dict[str, NDArray[np.float32]] = {}
        for name, shape in self.shapes().items():
            values = random.standard_normal(shape, np.float32)
            if "norm" in name:
                found[name] = values * np.float32(0.1) + np.float32(name.endswith("weight"))
            else:
                found[name] = values * np.float32(1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.1)
        return found

    def metadata(self) -> Fields:
        """What llama.cpp needs beside the weights."""
        types = [3, 2, 3, 3, 3, *[1] * (len(VOCABULARY) - 5)]
        special = {"bos": CLS, "eos": SEP, "unknown": UNKNOWN, "seperator": SEP, "padding": PAD, "mask": MASK}
        numbers = {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.width,
            "feed_forward_length": self.inner,
            "attention.head_count": self.heads,
            "pooling_type": POOLING[self.pooling],
        }
        return {
            "general.architecture": Field.string("bert"),
            **{f"bert.{key}": Field.u32(value) for key, value in numbers.items()},
            "bert.attention.layer_norm_epsilon": Field.f32(1e-12),
            "bert.attention.causal": Field.boolean(False),
            "tokenizer.ggml.model": Field.string("bert"),
            "tokenizer.ggml.pre": Field.string("jina-v2-en"),
            "tokenizer.ggml.tokens": Field.array(ValueType.STRING, VOCABULARY),
            "tokenizer.ggml.token_type": Field.array(ValueType.INT32, types),
            "tokenizer.ggml.token_type_count": Field.u32(2),
            **{f"tokenizer.ggml.{name}_token_id": Field.u32(token) for name, token in special.items()},
        }

    def write(self, path: Path) -> Path:
        """Write it as a GGUF file in F32."""
        weights = self.weights()
        placed = lay_out([(name, value.shape, TensorType.F32) for name, value in weights.items()])
        header = encode_header(self.metadata(), placed)
        with path.open("wb") as file:
            file.write(header)
            for tensor in placed:
                file.seek(len(header) + tensor.offset)
                file.write(weights[tensor.name].tobytes())
        return path

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The pooled vector of a text, [width], or its score, [1], where it ranks."""
        w = self.weights()
        x: Array = w["token_embd.weight"][list(tokens)] + w["token_types.weight"][0]
        x = _norm(x + w["position_embd.weight"][: len(tokens)], w, "token_embd_norm")
        for i in range(self.layers):
            x = _norm(x + self._attend(x, w, f"blk.{i}"), w, f"blk.{i}.attn_output_norm")
            inner = _gelu(_linear(x, w, f"blk.{i}.ffn_up"))
            x = _norm(x + _linear(inner, w, f"blk.{i}.ffn_down"), w, f"blk.{i}.layer_output_norm")
        match self.pooling:
            case "mean":
                return x.mean(axis=0)
            case "last":
                return x[-1]
            case "cls":
                return x[0]
            case _:
                return _linear(np.tanh(_linear(x[0], w, "cls")), w, "cls.output")

    def _attend(self, x: Array, w: dict[str, NDArray[np.float32]], block: str) -> Array:
        split = (len(x), self.heads, self.width // self.heads)
        q, k, v = (_linear(x, w, f"{block}.attn_{name}").reshape(split).swapaxes(0, 1) for name in "qkv")
        scores = q @ k.swapaxes(1, 2) / math.sqrt(split[2])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ v
        return _linear(mixed.swapaxes(0, 1).reshape(x.shape), w, f"{block}.attn_output")


def _linear(x: Array, w: dict[str, NDArray[np.float32]], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Array, w: dict[str, NDArray[np.float32]], name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
