"""GGUF files of multimodal projectors with random weights, and of a language model that takes M-RoPE."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from converter.gguf_format import Field, Fields, TensorType, ValueType, encode_header, lay_out
from tests.offload.models import Shape, Tensors, fields, tensors

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDING = 64
"""Of the language models that these projectors fit."""
LAYERS, HEADS, FEED_FORWARD, PATCH, SIDE = 2, 4, 128, 14, 112
PATCHES = (SIDE // PATCH) ** 2
MEL_BINS, STACKED, POSITIONS = 128, 60, 1500
SAMPLE_RATE = 16_000

F16, F32 = TensorType.F16, TensorType.F32

GEMMA = Shape("gemma2", 4, EMBEDDING, 4, 2, 16, 128, 384, 512, window=32, type=F16, output_type=F16)
QWEN = Shape("qwen2vl", 3, EMBEDDING, 4, 2, 16, 128, 384, 512, type=F16, output_type=F16)


def write_llava(path: Path) -> Path:
    """Each patch of the image becomes one embedding."""
    projection: Tensors = [("mm.0.weight", (EMBEDDING, EMBEDDING), F16), ("mm.0.bias", (EMBEDDING,), F32)]
    projection += [("mm.2.weight", (EMBEDDING, EMBEDDING), F16), ("mm.2.bias", (EMBEDDING,), F32)]
    more: Tensors = [("v.class_embd", (EMBEDDING,), F32), ("v.position_embd.weight", (PATCHES + 1, EMBEDDING), F32)]
    return _write(path, "mlp", [*more, *_norm("v.pre_ln"), *projection])


def write_gemma(path: Path) -> Path:
    """Four by four patches become one embedding, and an image's embeddings attend to each other both ways."""
    projection: Tensors = [("mm.input_projection.weight", (EMBEDDING, EMBEDDING), F16)]
    projection.append(("mm.soft_emb_norm.weight", (EMBEDDING,), F32))
    more: Tensors = [("v.position_embd.weight", (PATCHES, EMBEDDING), F32)]
    return _write(path, "gemma3", [*more, *_norm("v.post_ln"), *projection])


def write_qwen(path: Path) -> Path:
    """Two by two patches become one embedding, as many as the image's size asks for, with positions of M-RoPE."""
    wide = 4 * EMBEDDING
    projection: Tensors = [("mm.0.weight", (wide, wide), F16), ("mm.0.bias", (wide,), F32)]
    projection += [("mm.2.weight", (EMBEDDING, wide), F16), ("mm.2.bias", (EMBEDDING,), F32)]
    second: Tensors = [("v.patch_embd.weight.1", (EMBEDDING, 3, PATCH, PATCH), F16)]
    return _write(path, "qwen2vl_merger", [*second, *_norm("v.post_ln"), *projection])


def write_ultravox(path: Path) -> Path:
    """An ear: of the 1,500 states that Whisper's encoder makes of 30 s, each 60 become one embedding."""
    stacked = STACKED * EMBEDDING
    found: Tensors = [
        ("a.conv1d.1.weight", (EMBEDDING, MEL_BINS, 3), F16),
        ("a.conv1d.1.bias", (EMBEDDING, 1), F32),
        ("a.conv1d.2.weight", (EMBEDDING, EMBEDDING, 3), F16),
        ("a.conv1d.2.bias", (EMBEDDING, 1), F32),
        ("a.position_embd.weight", (POSITIONS, EMBEDDING), F32),
        *_norm("a.post_ln"),
        ("mm.a.norm_pre.weight", (stacked,), F32),
        ("mm.a.mlp.1.weight", (2 * EMBEDDING, stacked), F16),
        ("mm.a.norm_mid.weight", (EMBEDDING,), F32),
        ("mm.a.mlp.2.weight", (EMBEDDING, EMBEDDING), F16),
    ]
    numbers = {"num_mel_bins": MEL_BINS, "projector.stack_factor": STACKED}
    return _write_tensors(path, _metadata("audio", "ultravox", numbers), [*found, *_layers("a", key_bias=False)])


def write_qwen_language_model(path: Path) -> Path:
    """A language model of Qwen2-VL's architecture."""
    metadata = fields(QWEN, runs=True)
    metadata["qwen2vl.rope.dimension_sections"] = Field.array(ValueType.INT32, [2, 3, 3, 0])
    biases: Tensors = [
        (f"blk.{i}.attn_{x}.bias", (rows,), F32)
        for i in range(QWEN.layers)
        for x, rows in (("q", 64), ("k", 32), ("v", 32))
    ]
    return _write_tensors(path, metadata, [*tensors(QWEN), *biases])


def picture(seed: int, width: int = 140, height: int = 84) -> bytes:
    """A PNG file of colourful noise in large blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def sound(seed: int, seconds: float = 1.5) -> bytes:
    """A WAV file of a few tones."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = np.random.default_rng(seed).uniform(100, 4000, 4)
    samples = np.sin(2 * np.pi * np.outer(tones, time)).mean(axis=0)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((samples * 32_000).astype("<i2").tobytes())
    return file.getvalue()


def _norm(name: str) -> Tensors:
    return [(f"{name}.weight", (EMBEDDING,), F32), (f"{name}.bias", (EMBEDDING,), F32)]


def _write(path: Path, kind: str, more: Tensors) -> Path:
    metadata = _metadata("vision", kind, {"image_size": SIDE, "patch_size": PATCH})
    metadata |= {f"clip.vision.image_{key}": Field.array(ValueType.FLOAT32, [0.5] * 3) for key in ("mean", "std")}
    found: Tensors = [("v.patch_embd.weight", (EMBEDDING, 3, PATCH, PATCH), F16), *more, *_layers("v")]
    return _write_tensors(path, metadata, found)


def _metadata(sense: str, kind: str, more: dict[str, int]) -> Fields:
    numbers = {
        "embedding_length": EMBEDDING,
        "feed_forward_length": FEED_FORWARD,
        "block_count": LAYERS,
        "projection_dim": EMBEDDING,
        "attention.head_count": HEADS,
        **more,
    }
    metadata: Fields = {"general.architecture": Field.string("clip"), "clip.projector_type": Field.string(kind)}
    metadata[f"clip.has_{sense}_encoder"] = Field.boolean(True)
    metadata |= {f"clip.{sense}.{key}": Field.u32(value) for key, value in numbers.items()}
    metadata[f"clip.{sense}.attention.layer_norm_epsilon"] = Field.f32(1e-6)
    return metadata


def _layers(prefix: str, *, key_bias: bool = True) -> Tensors:
    found: Tensors = []
    for i in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", EMBEDDING, EMBEDDING),
            ("attn_k", EMBEDDING, EMBEDDING),
            ("attn_v", EMBEDDING, EMBEDDING),
            ("attn_out", EMBEDDING, EMBEDDING),
            ("ffn_up", FEED_FORWARD, EMBEDDING),
            ("ffn_down", EMBEDDING, FEED_FORWARD),
        ):
            found.append((f"{prefix}.blk.{i}.{name}.weight", (rows, columns), F16))
            if key_bias or name != "attn_k":
                found.append((f"{prefix}.blk.{i}.{name}.bias", (rows,), F32))
        found += [*_norm(f"{prefix}.blk.{i}.ln1"), *_norm(f"{prefix}.blk.{i}.ln2")]
    return found


def _write_tensors(path: Path, metadata: Fields, found: Tensors) -> Path:
    random = np.random.default_rng(7)
    placed = lay_out(found)
    header = encode_header(metadata, placed)
    with path.open("wb") as file:
        file.write(header)
        for tensor in placed:
            file.seek(len(header) + tensor.offset)
            if len(tensor.shape) == 1:
                values = np.full(tensor.shape, float(tensor.name.endswith("weight")))
            else:
                values = random.standard_normal(tensor.shape) / np.sqrt(np.prod(tensor.shape[1:]))
            file.write(values.astype(np.float16 if tensor.type is F16 else np.float32).tobytes())
    return path
