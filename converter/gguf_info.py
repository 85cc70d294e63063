"""Reads a GGUF file's metadata and tensor list, without its tensors' data, and tells clearly when the file is damaged.

Needs neither llama.cpp nor NumPy, so that any process may ask: the planner, the API, the command line.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import ConversionError
from converter.gguf_format import (
    ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    SCALAR_FORMATS,
    TENSOR_TYPES,
    Field,
    Fields,
    TensorInfo,
    ValueType,
    align,
)

if TYPE_CHECKING:
    from os import PathLike

MIN_ENTRY_BYTES = 12
"""No metadata or tensor entry is smaller: a count that asks for more entries than fit is a sign of corruption."""


@dataclass(frozen=True)
class GGUFInfo:
    """What a GGUF file says about itself.

    `fields` keeps each metadata value with its type; `data_start` is the byte at which the tensors' data begins.
    """

    path: Path
    version: int
    fields: Fields
    tensors: tuple[TensorInfo, ...]
    data_start: int
    file_bytes: int

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value by its key, as a plain Python value."""
        field = self.fields.get(key)
        return default if field is None else field.value

    @property
    def architecture(self) -> str:
        """The model family, by llama.cpp's name."""
        return str(self.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        """Size of all tensors' data, without the header."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """What a weight takes on average."""
        return self.tensor_bytes * 8 / self.parameters if self.parameters else 0.0


def read_gguf_info(path: str | PathLike[str]) -> GGUFInfo:
    """Reads the header of a GGUF file and checks that every tensor lies within the file.

    Raises:
        ConversionError: the file is missing, not GGUF, of an unknown version, truncated or corrupt.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise ConversionError(f"{path} is empty.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Header(path, data).read()
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.") from error


class _Header:
    """A cursor over the header's bytes that knows what it is reading, for the sake of its error messages."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.position = 0
        self.reading = "the file's head"

    def read(self) -> GGUFInfo:
        if self.data[:4] != MAGIC:
            raise ConversionError(
                f"{self.path} is not a GGUF file: it begins with {self.data[:4]!r}, not with b'GGUF'."
            )
        self.position = len(MAGIC)
        version: int = self._scalar("I")
        if version not in (2, 3):
            raise ConversionError(f"{self.path} has GGUF version {version}; versions 2 and 3 can be read.")
        tensor_count, field_count = self._count("tensor"), self._count("metadata")

        fields: Fields = {}
        for index in range(field_count):
            self.reading = f"metadata entry {index + 1} of {field_count}"
            key = self._string()
            self.reading = f"metadata key {key!r}"
            fields[key] = self._field()
        tensors = tuple(self._tensor(index, tensor_count) for index in range(tensor_count))

        alignment = fields["general.alignment"].value if "general.alignment" in fields else ALIGNMENT
        if not isinstance(alignment, int) or alignment <= 0:
            raise self._corrupt(f"general.alignment is {alignment!r}")
        info = GGUFInfo(self.path, version, fields, tensors, align(self.position, alignment), len(self.data))
        self._check_extents(info, alignment)
        return info

    def _field(self) -> Field:
        value_type = self._value_type()
        if value_type is not ValueType.ARRAY:
            return Field(value_type, self._values(value_type, 1)[0])
        item_type = self._value_type()
        if item_type is ValueType.ARRAY:
            raise self._corrupt(f"{self.reading} is an array of arrays")
        count: int = self._scalar("Q")
        return Field(value_type, self._values(item_type, count), item_type)

    def _tensor(self, index: int, count: int) -> TensorInfo:
        self.reading = f"tensor entry {index + 1} of {count}"
        name = self._string()
        self.reading = f"the entry of tensor {name!r}"
        dimension_count: int = self._scalar("I")
        if not 1 <= dimension_count <= MAX_DIMENSIONS:
            raise self._corrupt(f"tensor {name!r} has {dimension_count} dimensions")
        shape = tuple(self._unpack(f"{dimension_count}Q"))[::-1]
        type_number: int = self._scalar("I")
        offset: int = self._scalar("Q")
        tensor_type = TENSOR_TYPES.get(type_number)
        if tensor_type is None:
            raise self._corrupt(f"tensor {name!r} has the unknown type {type_number}")
        if 0 in shape or prod(shape) >= 1 << 63 or shape[-1] % tensor_type.block_size:
            raise self._corrupt(f"tensor {name!r} of type {tensor_type.name} has the impossible shape {list(shape)}")
        return TensorInfo(name, shape, tensor_type, offset)

    def _check_extents(self, info: GGUFInfo, alignment: int) -> None:
        for tensor in info.tensors:
            if tensor.offset % alignment:
                raise self._corrupt(f"tensor {tensor.name!r} is not aligned to {alignment} bytes")
            end = info.data_start + tensor.offset + tensor.nbytes
            if end > info.file_bytes:
                raise ConversionError(
                    f"{self.path} is truncated: tensor {tensor.name!r} ends at byte {end:,}, "
                    f"and the file has {info.file_bytes:,} bytes."
                )

    def _values(self, value_type: ValueType, count: int) -> list[Any]:
        if value_type is ValueType.STRING:
            self._need(count * 8)
            return [self._string() for _ in range(count)]
        self._need(count)  # struct fails in its own way at sizes that no file has
        return list(self._unpack(f"{count}{SCALAR_FORMATS[value_type]}"))

    def _value_type(self) -> ValueType:
        number: int = self._scalar("I")
        try:
            return ValueType(number)
        except ValueError:
            raise self._corrupt(f"{self.reading} has the unknown value type {number}") from None

    def _string(self) -> str:
        length: int = self._scalar("Q")
        self._need(length)
        raw = self.data[self.position : self.position + length]
        self.position += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._corrupt(f"{self.reading} holds text that is not UTF-8") from None

    def _count(self, kind: str) -> int:
        count: int = self._scalar("Q")
        if count * MIN_ENTRY_BYTES > len(self.data):
            raise ConversionError(
                f"{self.path} is truncated or corrupt: its header counts {count:,} {kind} entries, more than the file "
                "could hold."
            )
        return count

    def _scalar(self, code: str) -> Any:
        return self._unpack(code)[0]

    def _unpack(self, code: str) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{code}")
        self._need(layout.size)
        values = layout.unpack_from(self.data, self.position)
        self.position += layout.size
        return values

    def _need(self, length: int) -> None:
        if self.position + length > len(self.data):
            raise ConversionError(
                f"{self.path} is truncated or corrupt: {self.reading} goes beyond the file's end at byte "
                f"{len(self.data):,}."
            )

    def _corrupt(self, what: str) -> ConversionError:
        return ConversionError(f"{self.path} is corrupt: {what}.")
