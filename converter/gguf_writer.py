"""Writes a GGUF file: the header at once, then the tensors in chunks of rows, by several threads side by side.

Memory stays small however large the model is: a chunk is read, converted, written at its place and forgotten.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from math import prod
from typing import TYPE_CHECKING

import psutil

from converter.errors import ConversionError
from converter.gguf_format import Field, TensorInfo, TensorType, encode_header, lay_out
from converter.transcode import transcode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from converter.tensor_data import TensorData

    Progress = Callable[[int, int], None]
    """Called from the writing thread with the source bytes done and the source bytes in all."""

CHUNK_ELEMENTS = 1 << 20
"""About 4 MiB as float32: small beside any cache or budget, large beside the cost of handing it to a thread."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to write: its name in GGUF, the type it gets, and where its values come from."""

    name: str
    type: TensorType
    data: TensorData


@dataclass(frozen=True, slots=True)
class _Chunk:
    tensor: OutputTensor
    first_row: int
    rows: int
    offset: int


def physical_cores() -> int:
    """Cores this process may use, hyper-threads not counted: quantizing gains nothing from them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def write_gguf(
    path: Path,
    fields: Mapping[str, Field],
    tensors: Sequence[OutputTensor],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Writes `path`, complete or not at all: under a temporary name beside it, then renamed.

    Returns:
        The file's size in bytes.

    Raises:
        ConversionError: the disk is too small, or a tensor's values do not fit its type.
    """
    infos = lay_out([(tensor.name, tensor.data.shape, tensor.type) for tensor in tensors])
    header = encode_header(fields, infos)
    size = len(header) + (infos[-1].offset + infos[-1].nbytes if infos else 0)
    chunks = [
        chunk for tensor, info in zip(tensors, infos, strict=True) for chunk in _chunks(tensor, info, len(header))
    ]
    total = sum(_source_bytes(chunk) for chunk in chunks)

    with _replacing(path, size) as descriptor:
        os.pwrite(descriptor, header, 0)
        os.ftruncate(descriptor, size)
        with interrupts_deferred() as heed_interrupt, ThreadPoolExecutor(threads or physical_cores()) as pool:
            done = 0
            try:
                for finished in pool.map(_write_chunk, repeat(descriptor), chunks):
                    done += finished
                    heed_interrupt()
                    if progress is not None:
                        progress(done, total)
            finally:
                pool.shutdown(cancel_futures=True)
    return size


def _chunks(tensor: OutputTensor, info: TensorInfo, data_start: int) -> Iterator[_Chunk]:
    rows, columns = prod(info.shape[:-1]), info.shape[-1]
    group = tensor.data.row_group
    step = max(CHUNK_ELEMENTS // columns // group, 1) * group
    for first in range(0, rows, step):
        offset = data_start + info.offset + first * info.type.row_bytes(columns)
        yield _Chunk(tensor, first, min(step, rows - first), offset)


def _source_bytes(chunk: _Chunk) -> int:
    data = chunk.tensor.data
    return chunk.rows * data.type.row_bytes(data.shape[-1])


def _write_chunk(descriptor: int, chunk: _Chunk) -> int:
    data = chunk.tensor.data
    rows = data.read_rows(chunk.first_row, chunk.rows)
    try:
        encoded = transcode(rows, data.type, chunk.tensor.type).data.cast("B")
    except ConversionError as error:
        raise ConversionError(
            f"Tensor {chunk.tensor.name} cannot be written as {chunk.tensor.type.name}: {error}."
        ) from error
    written = 0
    while written < len(encoded):
        written += os.pwrite(descriptor, encoded[written:], chunk.offset + written)
    return rows.nbytes


@contextmanager
def temporary_beside(path: Path) -> Generator[Path]:
    """A new name in the folder of `path`; what is there at the end is removed.

    The name is known before a file has it, so that an interrupt at any moment finds it and leaves nothing.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path, size: int) -> Generator[int]:
    """A new file's descriptor; the file takes the place of `path` when all went well, else it leaves no trace."""
    try:
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise ConversionError(f"{path.parent} has {free:,} bytes free, and {path.name} needs {size:,}.")
        with temporary_beside(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
    except OSError as error:
        raise ConversionError(f"{path} cannot be written: {error.strerror}.") from error


@contextmanager
def interrupts_deferred() -> Generator[Callable[[], None]]:
    """Let Ctrl-C and SIGTERM wait until it is asked for them: one that strikes inside a pool's own locks would hang it.

    Yields:
        Raises KeyboardInterrupt if one has come; does nothing outside the main thread, which gets none.
    """
    caught: list[int] = []

    def heed() -> None:
        if caught:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in (wanted if main else ())}
    try:
        yield heed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    heed()
