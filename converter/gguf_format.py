"""The GGUF file format: value types, tensor types and the header's bytes.

Source: the GGUF specification (ggml, docs/gguf.md) and, for the tensor types' numbers and block sizes, ggml.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from math import prod
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
MAX_DIMENSIONS = 4


class ValueType(IntEnum):
    """Types of metadata values, by their number in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALAR_FORMATS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""The `struct` format of each value type of fixed size; the file is little-endian."""


class TensorType(Enum):
    """How a tensor's values are stored: its number in the file, elements per block, bytes per block."""

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    Q4_0 = (2, 32, 18)
    Q4_1 = (3, 32, 20)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q8_1 = (9, 32, 36)
    Q2_K = (10, 256, 84)
    Q3_K = (11, 256, 110)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)
    Q8_K = (15, 256, 292)
    IQ2_XXS = (16, 256, 66)
    IQ2_XS = (17, 256, 74)
    IQ3_XXS = (18, 256, 98)
    IQ1_S = (19, 256, 50)
    IQ4_NL = (20, 32, 18)
    IQ3_S = (21, 256, 110)
    IQ2_S = (22, 256, 82)
    IQ4_XS = (23, 256, 136)
    I8 = (24, 1, 1)
    I16 = (25, 1, 2)
    I32 = (26, 1, 4)
    I64 = (27, 1, 8)
    F64 = (28, 1, 8)
    IQ1_M = (29, 256, 56)
    BF16 = (30, 1, 2)
    TQ1_0 = (34, 256, 54)
    TQ2_0 = (35, 256, 66)
    MXFP4 = (39, 32, 17)
    NVFP4 = (40, 64, 36)
    Q1_0 = (41, 128, 18)
    Q2_0 = (42, 64, 18)

    def __init__(self, number: int, block_size: int, block_bytes: int) -> None:
        self.number = number
        self.block_size = block_size
        self.block_bytes = block_bytes

    @property
    def is_quantized(self) -> bool:
        """Whether several values share a block and its scale."""
        return self.block_size > 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` values, which are a multiple of the block size."""
        return columns // self.block_size * self.block_bytes


TENSOR_TYPES = {tensor_type.number: tensor_type for tensor_type in TensorType}


@dataclass(frozen=True, slots=True)
class Field:
    """One metadata value and its type; an array has the type of its items as well."""

    type: ValueType
    value: Any
    item_type: ValueType | None = None

    @classmethod
    def u32(cls, value: int) -> Self:
        """An unsigned integer of 32 bits."""
        return cls(ValueType.UINT32, value)

    @classmethod
    def f32(cls, value: float) -> Self:
        """A float of 32 bits."""
        return cls(ValueType.FLOAT32, value)

    @classmethod
    def boolean(cls, value: bool) -> Self:
        """A truth value."""
        return cls(ValueType.BOOL, value)

    @classmethod
    def string(cls, value: str) -> Self:
        """A text."""
        return cls(ValueType.STRING, value)

    @classmethod
    def array(cls, item_type: ValueType, values: Sequence[Any]) -> Self:
        """Values of one type."""
        return cls(ValueType.ARRAY, list(values), item_type)


Fields = dict[str, Field]
"""A file's metadata, in the order it is written."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's entry in the header.

    `shape` is row-major, as in a checkpoint: the last number is the row length (the file stores the reverse).
    `offset` counts bytes from the start of the data section.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return prod(self.shape[:-1]) * self.type.row_bytes(self.shape[-1])


def align(offset: int, alignment: int = ALIGNMENT) -> int:
    """The first multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment


def lay_out(tensors: Sequence[tuple[str, tuple[int, ...], TensorType]]) -> list[TensorInfo]:
    """Places tensors (name, shape, type) one after the other, each at an aligned offset."""
    infos: list[TensorInfo] = []
    offset = 0
    for name, shape, tensor_type in tensors:
        infos.append(TensorInfo(name, shape, tensor_type, offset))
        offset += align(infos[-1].nbytes)
    return infos


def encode_header(fields: Mapping[str, Field], tensors: Sequence[TensorInfo]) -> bytes:
    """The bytes before the data section: magic, counts, metadata, tensor entries, padding."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(fields))]
    for key, field in fields.items():
        parts += [_encode_string(key), _encode_field(field)]
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        parts += [
            _encode_string(tensor.name),
            struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions),
            struct.pack("<IQ", tensor.type.number, tensor.offset),
        ]
    header = b"".join(parts)
    return header.ljust(align(len(header)), b"\0")


def _encode_string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _encode_field(field: Field) -> bytes:
    if field.item_type is None:
        return struct.pack("<I", field.type) + _encode_values(field.type, [field.value])
    head = struct.pack("<IIQ", ValueType.ARRAY, field.item_type, len(field.value))
    return head + _encode_values(field.item_type, field.value)


def _encode_values(value_type: ValueType, values: Sequence[Any]) -> bytes:
    if value_type is ValueType.STRING:
        return b"".join(map(_encode_string, values))
    return struct.pack(f"<{len(values)}{SCALAR_FORMATS[value_type]}", *values)
