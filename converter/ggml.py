"""What the converter asks of llama.cpp: its choice of types, and the arithmetic of quantized blocks.

The only module of the converter that imports llama_cpp; others import it when they quantize, and not before.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from converter.errors import ConversionError
from converter.gguf_format import Field, TensorType, encode_header, lay_out
from converter.gguf_writer import temporary_beside
from converter.quantization import Quantization, TypePlan

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from numpy.typing import NDArray

PLAN_LINE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) .*type = +(\w+), size = .* MiB(?: -> .* MiB \((\w+)\))?$", re.MULTILINE)
"""llama.cpp's line on a tensor in a dry run: its name, its type, and the type it would be quantized to."""

FALLBACK = "-> falling back to"


class _TypeTraits(ctypes.Structure):
    """The beginning of ggml.h's ggml_type_traits."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def _load_ggml_base() -> ctypes.CDLL:
    """libggml-base, which llama_cpp has brought into the process: it exports what llama_cpp gives no Python name."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}
    library = ctypes.CDLL(str(folder / names.get(sys.platform, "libggml-base.so")))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    )
    library.ggml_validate_row_data.restype = ctypes.c_bool
    library.ggml_validate_row_data.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    return library


_GGML = _load_ggml_base()


class _Log:
    """llama.cpp's log, kept from the terminal: recorded where it is the answer, shown only when debugging."""

    def __init__(self) -> None:
        self.recorded: list[str] | None = None
        self.shown = False
        # the callback must live as long as llama.cpp may call it
        self.callback: Any = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
        line = text.decode(errors="replace")
        if self.recorded is not None:
            self.recorded.append(line)
        if self.shown:
            sys.stderr.write(line)

    @contextmanager
    def recording(self) -> Generator[list[str]]:
        self.recorded = lines = []
        try:
            yield lines
        finally:
            self.recorded = None


_LOG = _Log()


def show_log(shown: bool = True) -> None:
    """Whether llama.cpp's own messages go to stderr."""
    _LOG.shown = shown


def quantizer_types(
    fields: Mapping[str, Field],
    tensors: Sequence[tuple[str, tuple[int, ...], TensorType]],
    quantization: Quantization,
    out: Path,
) -> TypePlan:
    """Asks llama.cpp's quantizer which type it would give to each tensor.

    It makes a dry run on a file that holds the model's header and nothing else: the length of the tensors' data is
    only claimed, as a hole in a sparse file, so it takes no space on the disk.

    Args:
        fields: the model's metadata.
        tensors: name, shape and type of each tensor before quantizing.
        quantization: the type asked for.
        out: the file to be written in the end; the temporary one lies beside it.

    Raises:
        ConversionError: llama.cpp does not accept the model.
    """
    infos = lay_out(tensors)
    header = encode_header(fields, infos)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = quantization.file_type
    params.allow_requantize = True
    params.dry_run = True
    with temporary_beside(out) as temporary:
        temporary.write_bytes(header)
        os.truncate(temporary, len(header) + infos[-1].offset + infos[-1].nbytes)
        # in a thread, since an interrupt that reached this one while llama.cpp logs would be lost in the callback
        with _LOG.recording() as lines, ThreadPoolExecutor(1) as pool:
            dry_run = pool.submit(llama_cpp.llama_model_quantize, os.fsencode(temporary), b"", ctypes.pointer(params))
            status = dry_run.result()
    log = "".join(lines)
    if status != 0:
        reason = log.strip().rsplit("\n", 1)[-1].rsplit("failed to quantize: ", 1)[-1]
        raise ConversionError(f"llama.cpp cannot quantize this model to {quantization.name}: {reason}.")

    types = {name: TensorType[(target or source).upper()] for name, source, target in PLAN_LINE.findall(log)}
    unplanned = [name for name, _, _ in tensors if name not in types]
    if unplanned:
        raise ConversionError(
            f"llama.cpp's dry run says nothing of tensor {unplanned[0]}; is another version installed?"
        )
    return TypePlan(types, log.count(FALLBACK))


def quantize_rows(values: NDArray[np.float32], target: TensorType) -> NDArray[np.uint8]:
    """Quantizes rows, of shape (rows, columns), to rows of blocks of shape (rows, bytes per row).

    Releases the GIL, so that several threads quantize at once.

    Raises:
        ConversionError: a value is infinite or not a number, or too great for a block's scale, which is an F16.
    """
    # a NaN vanishes in some types' rounding, so the values are looked at, not only the blocks
    if not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise ConversionError("it holds values that are infinite or not numbers")
    values = np.ascontiguousarray(values)
    count, columns = values.shape
    blocks = np.empty((count, target.row_bytes(columns)), dtype=np.uint8)
    _GGML.ggml_quantize_chunk(target.number, values.ctypes.data, blocks.ctypes.data, 0, count, columns, None)
    if not _GGML.ggml_validate_row_data(target.number, blocks.ctypes.data, blocks.nbytes):
        raise ConversionError("it holds values too great for this type")
    return blocks


def dequantize_rows(rows: NDArray[np.uint8], source: TensorType) -> NDArray[np.float32]:
    """The values of rows of blocks, shape (rows, bytes per row), as float32 of shape (rows, columns)."""
    rows = np.ascontiguousarray(rows)
    count, row_bytes = rows.shape
    values = np.empty((count, row_bytes // source.block_bytes * source.block_size), dtype=np.float32)
    traits = _GGML.ggml_get_type_traits(source.number).contents
    traits.to_float(rows.ctypes.data, values.ctypes.data, values.size)
    return values
