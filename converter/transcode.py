"""Turns rows of one tensor type into rows of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from converter.errors import ConversionError
from converter.gguf_format import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray

F16_MAX = 65504.0


def transcode(rows: NDArray[np.uint8], source: TensorType, target: TensorType) -> NDArray[np.uint8]:
    """Rows of bytes of type `source` as rows of bytes of type `target`.

    Plain types are rounded to the nearest, ties to even, as PyTorch rounds them; quantized ones are left to ggml.

    Args:
        rows: shape (rows, bytes per row of `source`).
        source: what the rows are.
        target: what they become.

    Returns:
        Shape (rows, bytes per row of `target`).

    Raises:
        ConversionError: a value is infinite, not a number, or beyond what `target` can hold.
    """
    if source is target:
        return rows
    return _encode(_decode(rows, source), target)


def _decode(rows: NDArray[np.uint8], source: TensorType) -> NDArray[np.float32]:
    match source:
        case TensorType.F32:
            return rows.view(np.float32)
        case TensorType.F16:
            return rows.view(np.float16).astype(np.float32)
        case TensorType.BF16:
            # bfloat16 is the upper half of a float32
            return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        case _:
            from converter import ggml

            return ggml.dequantize_rows(rows, source)


def _encode(values: NDArray[np.float32], target: TensorType) -> NDArray[np.uint8]:
    match target:
        case TensorType.F32:
            return values.view(np.uint8)
        case TensorType.F16:
            if not np.abs(values).max() <= F16_MAX:
                raise ConversionError("it holds values beyond 65504, the greatest of F16, or no numbers at all")
            return values.astype(np.float16).view(np.uint8)
        case TensorType.BF16:
            return values.astype(ml_dtypes.bfloat16).view(np.uint8)
        case _:
            from converter import ggml

            return ggml.quantize_rows(values, target)
