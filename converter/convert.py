"""Converting a checkpoint, and quantizing a GGUF file: each one function that reads as its own summary."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from converter.architectures import Hyperparameters, find_architecture
from converter.checkpoint import open_checkpoint
from converter.errors import ConversionError
from converter.gguf_format import Field, Fields, TensorType
from converter.gguf_info import GGUFInfo, read_gguf_info
from converter.gguf_writer import OutputTensor, write_gguf
from converter.quantization import (
    Quantization,
    TypePlan,
    keeps_f32,
    needs_importance,
    parse_quantization,
    uniform_types,
)
from converter.tensor_data import FileTensor
from converter.vocab import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from converter.gguf_writer import Progress
    from converter.tensor_data import TensorData

QUANTIZATION_VERSION = 2
"""ggml's version of the quantized blocks (GGML_QNT_VERSION)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a conversion wrote.

    Attributes:
        path: the file.
        file_bytes: its size.
        quantization: the type asked for.
        tensors: how many there are.
        parameters: how many weights they have in all.
        bits_per_weight: what a weight takes on average.
        fallbacks: tensors that got another type than meant, since their rows' length forbids it.
        notes: what else the user should know, one sentence each.
    """

    path: Path
    file_bytes: int
    quantization: Quantization
    tensors: int
    parameters: int
    bits_per_weight: float
    fallbacks: int
    notes: tuple[str, ...] = ()


def convert(
    source: str | PathLike[str],
    out: str | PathLike[str],
    quantization: str = "Q4_K_M",
    *,
    name: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Converts a Hugging Face checkpoint to a GGUF file.

    The file appears when it is complete, in the place of one that was there before; interrupted, nothing is left.

    Args:
        source: the checkpoint's folder.
        out: the file to write.
        quantization: one of `Quantization`, in any case.
        name: the model's name; the folder's where none is given.
        threads: how many quantize at once; physical cores where none is given.
        progress: called with source bytes done and in all.

    Raises:
        ConversionError: the checkpoint cannot be converted, or the file cannot be written.
    """
    target, out = parse_quantization(quantization), _output_path(out)
    checkpoint = open_checkpoint(Path(source))
    architecture = find_architecture(checkpoint.config)
    hyperparameters = Hyperparameters.from_config(checkpoint.config)
    vocabulary = read_vocabulary(checkpoint.folder, checkpoint.config, hyperparameters.vocabulary)
    data = architecture.map_tensors(checkpoint, hyperparameters)
    fields = (
        _general_fields(architecture.name, name or checkpoint.folder.resolve().name, data)
        | architecture.fields(hyperparameters, target.file_type)
        | {"general.quantization_version": Field.u32(QUANTIZATION_VERSION)}
        | vocabulary.fields()
    )
    if target.is_uniform:
        plan = uniform_types({name: tensor.shape for name, tensor in data.items()}, target.tensor_type)
    else:
        plan = _ask_llama(fields, data, _before_quantizing(data, checkpoint.precision), target, out)
    return _write(out, fields, data, plan, target, threads, progress, architecture.notes(hyperparameters))


def quantize(
    source: str | PathLike[str],
    out: str | PathLike[str],
    quantization: str,
    *,
    allow_requantize: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Writes a GGUF file anew with another quantization type.

    Args:
        source: the file to read.
        out: the file to write; it may be the same.
        quantization: one of `Quantization`, in any case.
        allow_requantize: whether tensors that are quantized already may be quantized again, at a loss.
        threads: how many quantize at once; physical cores where none is given.
        progress: called with source bytes done and in all.

    Raises:
        ConversionError: the file cannot be read, is quantized already, or the new one cannot be written.
    """
    target, out = parse_quantization(quantization), _output_path(out)
    info = read_gguf_info(source)
    data = _tensors_of(info, allow_requantize)
    fields = {key: field for key, field in info.fields.items() if key != "general.alignment"} | {
        "general.quantization_version": Field.u32(QUANTIZATION_VERSION),
        "general.file_type": Field.u32(target.file_type),
    }
    plan = _ask_llama(fields, data, {name: tensor.type for name, tensor in data.items()}, target, out)
    return _write(out, fields, data, plan, target, threads, progress)


def _output_path(out: str | PathLike[str]) -> Path:
    path = Path(out)
    if path.is_dir():
        raise ConversionError(f"{path} is a folder; name the file to write.")
    if not os.access(path.parent, os.W_OK):
        raise ConversionError(f"{path} cannot be written: there is no folder {path.parent} that may be written to.")
    return path


def _general_fields(architecture: str, name: str, data: Mapping[str, TensorData]) -> Fields:
    return {
        "general.architecture": Field.string(architecture),
        "general.type": Field.string("model"),
        "general.name": Field.string(name),
        "general.size_label": Field.string(_size_label(sum(prod(tensor.shape) for tensor in data.values()))),
    }


def _size_label(parameters: int) -> str:
    """How a model's size is spoken of: 260K, 494M, 1.2B."""
    scale, letter = next((s for s in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if parameters >= s[0]), (1e3, "K"))
    digits = 1 if parameters / scale < 10 else 0
    return f"{parameters / scale:.{digits}f}".removesuffix(".0") + letter


def _tensors_of(info: GGUFInfo, allow_requantize: bool) -> dict[str, TensorData]:
    if info.get("split.count", 1) > 1:
        raise ConversionError(f"{info.path} is one part of a split model; merge its parts first (llama-gguf-split).")
    quantized = next((tensor for tensor in info.tensors if tensor.type.is_quantized), None)
    if quantized and not allow_requantize:
        raise ConversionError(
            f"{info.path} is quantized already (tensor {quantized.name} is {quantized.type.name}), and doing so twice "
            "loses quality: start from F16, BF16 or F32, or allow it with --allow-requantize."
        )
    return {
        tensor.name: FileTensor(info.path, info.data_start + tensor.offset, tensor.shape, tensor.type)
        for tensor in info.tensors
    }


def _before_quantizing(data: Mapping[str, TensorData], precision: TensorType) -> dict[str, TensorType]:
    """The types llama.cpp's quantizer would find: matrices in the checkpoint's own precision, vectors as F32."""
    return {name: TensorType.F32 if keeps_f32(name, tensor.shape) else precision for name, tensor in data.items()}


def _ask_llama(
    fields: Fields, data: Mapping[str, TensorData], types: Mapping[str, TensorType], target: Quantization, out: Path
) -> TypePlan:
    from converter import ggml

    tensors = [(name, tensor.shape, types[name]) for name, tensor in data.items()]
    plan = ggml.quantizer_types(fields, tensors, target, out)
    _check_plan(plan, target)
    return plan


def _check_plan(plan: TypePlan, target: Quantization) -> None:
    demanding = [name for name, type_ in plan.types.items() if needs_importance(name, type_, target)]
    if demanding:
        raise ConversionError(
            f"{target.name} needs an importance matrix ({len(demanding)} tensors, {demanding[0]} among them), which "
            "cannot be made yet; choose a type of three bits or more, such as Q3_K_M."
        )
    if target is Quantization.MXFP4_MOE and TensorType.MXFP4 not in plan.types.values():
        raise ConversionError(
            "MXFP4_MOE is for mixtures of experts, and this model has no experts; choose Q4_K_M or Q4_0."
        )


def _write(
    out: Path,
    fields: Fields,
    data: Mapping[str, TensorData],
    plan: TypePlan,
    target: Quantization,
    threads: int | None,
    progress: Progress | None,
    notes: tuple[str, ...] = (),
) -> Summary:
    tensors = [OutputTensor(name, plan.types[name], tensor) for name, tensor in data.items()]
    file_bytes = write_gguf(out, fields, tensors, threads=threads, progress=progress)
    info = read_gguf_info(out)
    return Summary(
        path=out,
        file_bytes=file_bytes,
        quantization=target,
        tensors=len(tensors),
        parameters=info.parameters,
        bits_per_weight=info.bits_per_weight,
        fallbacks=plan.fallbacks,
        notes=notes,
    )
