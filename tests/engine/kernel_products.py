"""Calls the machine code of the kernels directly: one product of one format, by a team of threads."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import gguf
import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

from server.engine.kernels import ggml
from server.engine.kernels.code import LANES
from server.engine.kernels.compiled import MachineCode
from server.engine.kernels.formats import CHUNK, FORMATS, Format
from server.engine.kernels.product import COUNTER, Job
from server.engine.kernels.tiles import CHUNK_SIZE, PANEL

if TYPE_CHECKING:
    from server.engine.kernels.dots import Dots

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_ALIGNED = 64
FEATURES: dict[str, bool] = dict(llvm.get_host_cpu_features())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


@cache
def machine_code(dots: Dots) -> MachineCode:
    """That of all products which these instructions can compute."""
    names = [f"product_{kind.name}" for kind in FORMATS if dots.takes(kind)]
    return MachineCode(dots, FEATURES, names, None)


def random_weights(kind: Format, rows: int, k: int, seed: int) -> Bytes:
    """Blocks of random bits, whose factors are small numbers: [rows, bytes of a row]."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, k // kind.block, kind.size), dtype=np.uint8)
    offsets = {"q6_K": (208,), "q4_K": (0, 2), "q5_K": (0, 2)}.get(kind.name, (0,))
    for offset in offsets:
        factors = random.uniform(-0.01, 0.01, blocks.shape[:2]).astype(np.float16)
        blocks[..., offset : offset + 2] = factors[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def multiply(dots: Dots, kind: Format, weights: Bytes, x: Floats, threads: int = 2) -> Floats:
    """The product of weights [rows, bytes] with activations [n, k]: [n, rows]."""
    (rows, _), (n, k) = weights.shape, x.shape
    y = np.full((n, rows), np.nan, np.float32)
    whole_tiles = -(-n // dots.columns) * dots.columns
    quantized, panels = _aligned(whole_tiles * k // CHUNK * CHUNK_SIZE), _aligned(threads * k // CHUNK * PANEL)
    quantized.fill(0xFF)  # as another product may have left it: no number
    taken = _aligned(threads * COUNTER)
    job = Job(
        weights=weights.ctypes.data,
        stride=weights.strides[0],
        groups=rows // LANES,
        k=k,
        n=n,
        x=x.ctypes.data,
        x_stride=x.strides[0],
        y=y.ctypes.data,
        y_stride=y.strides[0],
        quantized=quantized.ctypes.data,
        panels=panels.ctypes.data,
        taken=taken.ctypes.data,
    )
    parallel = ggml.function("GOMP_parallel", None, *[ctypes.c_void_p] * 2, *[ctypes.c_uint] * 2)
    parallel(machine_code(dots)[f"product_{kind.name}"], ctypes.addressof(job), threads, 0)
    return y


def expected(kind: Format, weights: Bytes, x: Floats) -> npt.NDArray[np.float64]:
    """The same in double precision, of the activations as the kernels round them."""
    whole: Any = gguf.quants.dequantize(weights, gguf.GGMLQuantizationType(kind.number))
    chunks = x.reshape(len(x), -1, CHUNK)
    most = np.abs(chunks).max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(most > 0, np.float32(127) / most, np.float32(0))
    rounded = np.rint(chunks * inverse) * (most / np.float32(127))
    return rounded.reshape(x.shape).astype(np.float64) @ whole.reshape(len(weights), -1).T.astype(np.float64)


def _aligned(size: int) -> Bytes:
    memory = np.zeros(size + _ALIGNED, np.uint8)
    begin = -memory.ctypes.data % _ALIGNED
    return memory[begin : begin + size]
