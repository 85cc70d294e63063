"""A Hugging Face checkpoint folder: its configuration and where each tensor lies in its safetensors files."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from converter.errors import ConversionError
from converter.gguf_format import TensorType
from converter.tensor_data import FileTensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}
MAX_HEADER_BYTES = 100_000_000
"""The greatest header the safetensors format allows."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds: the configuration, and its tensors by name."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, FileTensor]

    @property
    def precision(self) -> TensorType:
        """The type most of the weights are stored in."""
        sizes: dict[TensorType, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.nbytes
        return max(sizes, key=lambda tensor_type: sizes[tensor_type])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint's configuration and the headers of its safetensors files, and no weights.

    Raises:
        ConversionError: something is missing, truncated, corrupt or of a kind that cannot be converted.
    """
    if folder.suffix == ".gguf":
        raise ConversionError(f"{folder} is a GGUF file, not a checkpoint folder: `brim quantize` changes its type.")
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise ConversionError(f"{folder} {problem}; a checkpoint is a folder with {CONFIG} and safetensors files.")
    config = read_json_object(folder / CONFIG)
    quantization: dict[str, Any] = config.get("quantization_config") or {}
    if method := quantization.get("quant_method"):
        raise ConversionError(
            f"{folder} is already quantized by {method}; convert the original checkpoint, in F32, F16 or BF16."
        )
    tensors: dict[str, FileTensor] = {}
    for file in _shards(folder):
        tensors.update(_read_safetensors(file))
    _check_index(folder, tensors)
    if not tensors:
        raise ConversionError(f"{folder} holds no tensors.")
    return Checkpoint(folder, config, tensors)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConversionError: the file is missing, unreadable or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConversionError(f"{path.parent} has no {path.name}.") from None
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConversionError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ConversionError(f"{path} holds no JSON object.")
    return value  # pyright: ignore[reportUnknownVariableType]


def _shards(folder: Path) -> list[Path]:
    """The safetensors files to read, in the order of their names."""
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX).is_file():
        files = [folder / name for name in sorted(set(_weight_map(folder).values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ConversionError(f"{folder} lacks the shard {missing[0]}{others} that {INDEX} names.")
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        instead = ": its weights are PyTorch .bin files; save it as safetensors" if any(folder.glob("*.bin")) else ""
        raise ConversionError(f"{folder} has no safetensors files{instead}.")
    return files


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ConversionError(f"{folder / INDEX} has no weight_map.")
    return weight_map  # pyright: ignore[reportUnknownVariableType]


def _check_index(folder: Path, tensors: Mapping[str, FileTensor]) -> None:
    if (folder / SINGLE_FILE).is_file() or not (folder / INDEX).is_file():
        return
    for name, file in _weight_map(folder).items():
        if name not in tensors:
            raise ConversionError(f"{folder / file} lacks tensor {name}, which {INDEX} says it holds.")


def _read_safetensors(path: Path) -> dict[str, FileTensor]:
    """Where each tensor lies in a safetensors file.

    The format: eight bytes of header length, a JSON header, the tensors' data; offsets count from the data's start.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length_bytes = file.read(8)
            if len(length_bytes) < 8:
                raise ConversionError(f"{path} is truncated: it has {size} bytes.")
            (header_length,) = struct.unpack("<Q", length_bytes)
            if header_length > MAX_HEADER_BYTES:
                raise ConversionError(
                    f"{path} is not a safetensors file: its header would take {header_length:,} bytes."
                )
            if 8 + header_length > size:
                raise ConversionError(
                    f"{path} is truncated: its header takes {header_length:,} bytes, and the file has {size:,}."
                )
            header = json.loads(file.read(header_length))
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConversionError(f"{path} is corrupt: its header is not valid JSON.") from error
    try:
        entries = {
            name: _locate(path, 8 + header_length, name, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConversionError(f"{path} is corrupt: its header describes no tensors.") from error
    end = max((tensor.offset + tensor.nbytes for tensor in entries.values()), default=0)
    if end > size:
        raise ConversionError(f"{path} is truncated: its tensors end at byte {end:,}, and the file has {size:,} bytes.")
    return entries


def _locate(path: Path, data_start: int, name: str, entry: Mapping[str, Any]) -> FileTensor:
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    if dtype not in DTYPES:
        raise ConversionError(f"{path}: tensor {name} is of type {dtype}; {', '.join(DTYPES)} can be converted.")
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if not shape or begin < 0 or end - begin != prod(shape) * DTYPES[dtype].block_bytes:
        raise ConversionError(
            f"{path} is corrupt: tensor {name} of shape {list(shape)} lies at bytes {begin} to {end}."
        )
    return FileTensor(path, data_start + begin, shape, DTYPES[dtype])
