"""Where a tensor's values lie before they are written: in a file, read a few rows at a time, or in memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from converter.errors import ConversionError
from converter.gguf_format import TensorType

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class TensorData(Protocol):
    """A tensor as rows of bytes: the last dimension is a row, all others together count the rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions, row-major: the last is the row length."""
        ...

    @property
    def type(self) -> TensorType:
        """How its values are stored."""
        ...

    @property
    def row_group(self) -> int:
        """How many rows have to be read together: a read begins and ends at a multiple of it."""
        ...

    def read_rows(self, first: int, count: int) -> NDArray[np.uint8]:
        """Rows [first, first + count) as an array of shape (count, bytes per row)."""
        ...


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor that lies in one piece in a safetensors or GGUF file.

    `read` copies into memory of its own instead of mapping the file: what is done with is given back at once, so
    that a conversion's memory does not grow with the model.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    type: TensorType
    row_group: int = 1

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return prod(self.shape[:-1]) * self.type.row_bytes(self.shape[-1])

    def read_rows(self, first: int, count: int) -> NDArray[np.uint8]:
        """Rows [first, first + count) as bytes."""
        row_bytes = self.type.row_bytes(self.shape[-1])
        rows = np.empty((count, row_bytes), dtype=np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + first * row_bytes)
                complete = file.readinto(rows.data) == rows.nbytes
        except OSError as error:
            raise ConversionError(f"{self.path} cannot be read: {error.strerror}.") from error
        if not complete:
            raise ConversionError(f"{self.path} became shorter while it was read; start again once it is complete.")
        return rows


@dataclass(frozen=True, slots=True)
class RopeOrder:
    """A query or key projection whose rows llama.cpp wants in another order.

    Transformers rotates feature i of a head with feature i + d/2; llama.cpp's Llama rotates neighbours, 2i with
    2i + 1. So within each head of d rows the two halves are interleaved. A bias is a single row of such features.
    """

    source: FileTensor
    head_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.source.shape

    @property
    def type(self) -> TensorType:
        """As stored."""
        return self.source.type

    @property
    def row_group(self) -> int:
        """A head at a time, since rows change places within it."""
        return self.head_size if len(self.shape) > 1 else 1

    def read_rows(self, first: int, count: int) -> NDArray[np.uint8]:
        """Rows [first, first + count) as bytes."""
        rows = self.source.read_rows(first, count)
        features = rows if len(self.shape) > 1 else rows.reshape(-1, self.type.block_bytes)
        heads = features.reshape(-1, 2, self.head_size // 2, features.shape[-1])
        return heads.swapaxes(1, 2).reshape(rows.shape)


@dataclass(frozen=True, slots=True)
class MemoryTensor:
    """A small tensor that the converter computes itself, of float32."""

    values: NDArray[np.float32]
    type: TensorType = TensorType.F32
    row_group: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return self.values.shape

    def read_rows(self, first: int, count: int) -> NDArray[np.uint8]:
        """Rows [first, first + count) as bytes."""
        rows = self.values.reshape(-1, self.values.shape[-1])[first : first + count]
        return np.ascontiguousarray(rows).view(np.uint8)
