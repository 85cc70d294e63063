"""Quantizing straight from the checkpoint gives the bytes that llama.cpp's quantizer makes of a converted file."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import gguf
import llama_cpp
import numpy as np
import pytest

from converter import ConversionError, Quantization, convert, ggml, quantize, read_gguf_info
from converter.gguf_format import TensorType
from converter.gguf_writer import CHUNK_ELEMENTS
from converter.quantization import uniform_types
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

MIXTURES = ["Q4_K_M", "Q2_K", "Q5_1", "Q8_0", "F16"]
SLOW_MIXTURES = ["Q5_K_S", "Q3_K_L", "Q6_K", "Q4_0", "TQ2_0", "IQ4_XS", "IQ4_NL", "IQ3_S"]
NEED_IMPORTANCE = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"]


def tensor_bytes(path: Path) -> dict[str, tuple[str, bytes]]:
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def llama_quantize(source: Path, out: Path, quantization: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = Quantization[quantization].file_type
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.pointer(params)) == 0


@pytest.mark.parametrize(
    "quantization", [*MIXTURES, *(pytest.param(slow, marks=pytest.mark.slow) for slow in SLOW_MIXTURES)]
)
def test_same_as_llama_cpp(wide_checkpoint: Path, tmp_path: Path, quantization: str) -> None:
    convert(wide_checkpoint, tmp_path / "ours.gguf", quantization)
    convert(wide_checkpoint, tmp_path / "plain.gguf", "BF16")
    llama_quantize(tmp_path / "plain.gguf", tmp_path / "theirs.gguf", quantization)
    assert tensor_bytes(tmp_path / "ours.gguf") == tensor_bytes(tmp_path / "theirs.gguf")
    assert read_gguf_info(tmp_path / "ours.gguf").get("general.file_type") == Quantization[quantization].file_type

    quantize(tmp_path / "plain.gguf", tmp_path / "again.gguf", quantization)
    assert tensor_bytes(tmp_path / "again.gguf") == tensor_bytes(tmp_path / "theirs.gguf")


@pytest.mark.parametrize("quantization", NEED_IMPORTANCE)
def test_needs_an_importance_matrix(wide_checkpoint: Path, tmp_path: Path, quantization: str) -> None:
    with pytest.raises(ConversionError, match=f"^{quantization} needs an importance matrix"):
        convert(wide_checkpoint, tmp_path / "out.gguf", quantization)
    assert list(tmp_path.iterdir()) == []


def test_mxfp4_is_for_experts(wide_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="mixtures of experts"):
        convert(wide_checkpoint, tmp_path / "out.gguf", "mxfp4")


def test_counts_fallbacks(checkpoint: Path, tmp_path: Path) -> None:
    summary = convert(checkpoint, tmp_path / "out.gguf", "q4_k_m")
    types = {tensor.type.name for tensor in read_gguf_info(tmp_path / "out.gguf").tensors}
    assert summary.fallbacks == 2 * 7 + 1, "every matrix of both layers and the embedding have rows of 64 or 96"
    assert "Q5_0" in types
    assert "Q4_K" not in types


def test_uniform_fallback_to_f16() -> None:
    plan = uniform_types({"a.weight": (4, 48), "b.weight": (4, 64), "b.bias": (64,)}, TensorType.Q8_0)
    assert plan.types == {"a.weight": TensorType.F16, "b.weight": TensorType.Q8_0, "b.bias": TensorType.F32}
    assert plan.fallbacks == 1


def test_tensor_of_many_chunks(tmp_path: Path) -> None:
    shape = Shape(layers=1, vocabulary=20_000, embedding=128, heads=8, key_value_heads=8, tied=True)
    assert shape.vocabulary * shape.embedding > 2 * CHUNK_ELEMENTS
    checkpoint = make_checkpoint(tmp_path / "tall", shape, dtype="F32")
    convert(checkpoint, tmp_path / "f32.gguf", "F32", threads=3)
    convert(checkpoint, tmp_path / "q8.gguf", "Q8_0", threads=3)
    plain = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    for tensor in gguf.GGUFReader(tmp_path / "q8.gguf").tensors:
        expected = gguf.quants.quantize(plain[tensor.name], tensor.tensor_type)
        np.testing.assert_array_equal(tensor.data, expected, err_msg=tensor.name)


def test_requantizing_has_to_be_allowed(wide_checkpoint: Path, tmp_path: Path) -> None:
    convert(wide_checkpoint, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(ConversionError, match="quantized already"):
        quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    summary = quantize(tmp_path / "q8.gguf", tmp_path / "q8.gguf", "Q4_0", allow_requantize=True)
    assert summary.bits_per_weight < 6
    assert read_gguf_info(tmp_path / "q8.gguf").get("general.file_type") == Quantization.Q4_0.file_type


def test_every_type_is_numbered_as_in_llama_cpp() -> None:
    for quantization in Quantization:
        name = "ALL_F32" if quantization is Quantization.F32 else f"MOSTLY_{quantization.name}"
        if number := getattr(llama_cpp, f"LLAMA_FTYPE_{name}", None):
            assert quantization.file_type == number


@pytest.mark.parametrize("tensor_type", TensorType)
def test_every_tensor_type_is_as_in_ggml(tensor_type: TensorType) -> None:
    traits = ggml._GGML.ggml_get_type_traits(tensor_type.number).contents
    assert traits.type_name.decode().upper() == tensor_type.name
    assert (traits.block_size, traits.type_size) == (tensor_type.block_size, tensor_type.block_bytes)
    assert traits.is_quantized == tensor_type.is_quantized
