"""Some rows of weights times some columns of activations: what one thread multiplies, from its cache.

A panel is `LANES` unpacked rows: for each `CHUNK` of weights `QUADS` vectors, and two with its factors.
"""

# pyright: basic

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from llvmlite import ir

from server.engine.kernels.code import BYTES, F32, FLOATS, I1, I8, I32, I64, INTS, LANES, POINTER, VECTOR, VOID, define
from server.engine.kernels.formats import CHUNK, QUADS, Rows, each_block

if TYPE_CHECKING:
    from server.engine.kernels.code import Code, Value
    from server.engine.kernels.dots import Dots
    from server.engine.kernels.formats import Format

PANEL = (QUADS + 2) * VECTOR
"""Bytes of a panel for each chunk."""


class Chunk(ctypes.Structure):
    """A chunk of one column's activations; those of a tile's columns (`Dots.columns`) lie side by side.

    Attributes:
        quants: whole numbers from -127 to 127. factor: what each has been divided by.
        offsets: what `Format.zero` adds to the sum of each half's products, or to the first that of all, negated.
        total: the sum of all activations.
    """

    _fields_ = (
        ("quants", ctypes.c_int8 * CHUNK),
        ("factor", ctypes.c_float),
        ("offsets", ctypes.c_int32 * 2),
        ("total", ctypes.c_float),
    )


CHUNK_SIZE = ctypes.sizeof(Chunk)


class _Panel:
    """Keeps the weights of a block in a panel."""

    def __init__(self, code: Code, panel: Value) -> None:
        self._code = code
        self._panel = panel

    def put(self, chunk: int, quad: int, weights: Value) -> None:
        self._code.put(weights, self._panel, chunk * PANEL + quad * VECTOR, align=VECTOR)

    def put_factor(self, chunk: int, number: int, factor: Value) -> None:
        self._code.put(factor, self._panel, chunk * PANEL + (QUADS + number) * VECTOR, align=VECTOR)


class _Sums:
    """Multiplies the weights of a block by the activations of some columns.

    Args:
        tile: the `Chunk`s of the first column. width: how many columns.
        pitch: columns whose `Chunk`s lie side by side.
        parts, minimum: as in `Format`.
    """

    def __init__(self, code: Code, dots: Dots, tile: Value, width: int, pitch: int, parts: int, minimum: bool) -> None:
        self._code = code
        self._dots = dots
        self._tile = tile
        self._width = width
        self._pitch = pitch
        self._parts = parts
        self._minimum = minimum
        self._sums: dict[tuple[int, int], list[Value]] = {}
        self._factors: dict[tuple[int, int], Value] = {}

    def put(self, chunk: int, quad: int, weights: Value) -> None:
        part = quad * self._parts // QUADS
        if (chunk, part) not in self._sums:
            self._sums[chunk, part] = self._of_each(chunk, I32, Chunk.offsets.offset + 4 * part)
        sums = self._sums[chunk, part]
        activations = self._of_each(chunk, I32, Chunk.quants.offset + 4 * quad)
        for column, values in enumerate(activations):
            sums[column] = self._dots.add(self._code, sums[column], weights, self._code.bitcast(values, BYTES))

    def put_factor(self, chunk: int, number: int, factor: Value) -> None:
        self._factors[chunk, number] = factor

    def add_to(self, results: list[Value]) -> None:
        """Add them to floats in memory, one vector for each column."""
        code = self._code
        for (chunk, part), sums in sorted(self._sums.items(), key=lambda item: item[0]):
            units = self._of_each(chunk, F32, Chunk.factor.offset)
            for result, total, unit in zip(results, sums, units, strict=True):
                factor = code.fmul(self._factors[chunk, part], unit)
                code.store(code.fma(code.sitofp(total, FLOATS), factor, code.load(result, typ=FLOATS)), result)
            if self._minimum:
                totals = self._of_each(chunk, F32, Chunk.total.offset)
                for result, total in zip(results, totals, strict=True):
                    code.store(code.fma(self._factors[chunk, 1], total, code.load(result, typ=FLOATS)), result)

    def _of_each(self, chunk: int, kind: Value, offset: int) -> list[Value]:
        """4 bytes of each column's `Chunk`, in all lanes of a vector."""
        begin = chunk * self._pitch * CHUNK_SIZE + offset
        return [
            self._code.splat(self._code.get(self._tile, kind, begin + column * CHUNK_SIZE))
            for column in range(self._width)
        ]


def define_quantize(module: ir.Module) -> Value:
    """Writes void quantize(x, first Chunk, chunks, bytes from one to the next, minus zero, whether halves differ)."""
    function, code = define(module, "quantize", VOID, POINTER, POINTER, I64, I64, I32, I1)
    x, begin, chunks, step, zero, halved = function.args
    number, one, none = ir.FloatType(), code.const(F32, 127.0), code.const(F32, 0.0)
    with code.loop(0, chunks) as index:
        source = code.at(x, code.mul(index, code.const(I64, CHUNK * 4)))
        chunk = code.at(begin, code.mul(index, step))
        values = [code.get(source, FLOATS, half * VECTOR) for half in range(2)]
        sizes = [code.intrinsic("llvm.fabs.v16f32", FLOATS, value) for value in values]
        most = code.intrinsic("llvm.maxnum.v16f32", FLOATS, *sizes)
        most = code.intrinsic("llvm.vector.reduce.fmax.v16f32", number, most)
        inverse = code.select(code.fcmp_ordered(">", most, none), code.fdiv(one, most), none)
        sums = []
        for half, value in enumerate(values):
            rounded = code.intrinsic("llvm.rint.v16f32", FLOATS, code.fmul(value, code.splat(inverse)))
            ints = code.fptosi(rounded, INTS)
            code.put(code.trunc(ints, ir.VectorType(I8, LANES)), chunk, Chunk.quants.offset + half * LANES)
            sums.append(code.intrinsic("llvm.vector.reduce.add.v16i32", I32, ints))
        total = code.add(*sums)
        factor = code.fdiv(most, one)
        code.put(factor, chunk, Chunk.factor.offset)
        code.put(code.mul(zero, code.select(halved, sums[0], total)), chunk, Chunk.offsets.offset)
        code.put(code.mul(zero, sums[1]), chunk, Chunk.offsets.offset + 4)
        code.put(code.fmul(code.sitofp(total, F32), factor), chunk, Chunk.total.offset)
    code.ret_void()
    return function


def define_unpack(module: ir.Module, kind: Format) -> Value:
    """Writes void unpack(rows, bytes from row to row, panel, blocks), which fills a panel from `LANES` rows."""
    function, code = define(module, f"unpack_{kind.name}", VOID, POINTER, I64, POINTER, I64)
    rows, stride, panel, blocks = function.args
    with each_block(code, kind, rows, stride, blocks) as (block, begin):
        into = code.at(panel, code.mul(block, code.const(I64, kind.block // CHUNK * PANEL)))
        kind.unpack(Rows(code, begin, stride, _Panel(code, into)))
    code.ret_void()
    return function


def define_tile(module: ir.Module, dots: Dots, parts: int, minimum: bool, width: int) -> Value:
    """Writes void tile(panel, first Chunk, chunks, y, bytes from column to column): `LANES` rows of `width` columns."""
    name = f"tile_{parts}{'m' if minimum else ''}_{width}"
    function, code = define(module, name, VOID, POINTER, POINTER, I64, POINTER, I64)
    panel, tile, chunks, y, stride = function.args
    results = _results(code, width)
    with code.loop(0, chunks) as index:
        weights = code.at(panel, code.mul(index, code.const(I64, PANEL)))
        columns = code.at(tile, code.mul(index, code.const(I64, dots.columns * CHUNK_SIZE)))
        sums = _Sums(code, dots, columns, width, dots.columns, parts, minimum)
        for quad in range(QUADS):
            sums.put(0, quad, code.get(weights, BYTES, quad * VECTOR, align=VECTOR))
        for number in range(2):
            sums.put_factor(0, number, code.get(weights, FLOATS, (QUADS + number) * VECTOR, align=VECTOR))
        sums.add_to(results)
    for number, result in enumerate(results):
        code.put(code.load(result, typ=FLOATS), y, code.mul(stride, code.const(I64, number)))
    code.ret_void()
    return function


def define_direct(module: ir.Module, dots: Dots, kind: Format, width: int) -> Value:
    """Writes void direct(rows, bytes from row to row, first Chunk, blocks, y, bytes from column to column, columns).

    It is a tile that needs no panel: weights are multiplied as they are unpacked. There may be fewer columns than
    `width`: what lies in the others' place counts for nothing.
    """
    name = f"direct_{kind.name}_{width}"
    function, code = define(module, name, VOID, POINTER, I64, POINTER, I64, POINTER, I64, I64)
    rows, stride, tile, blocks, y, y_stride, columns = function.args
    results, pitch = _results(code, width), 1 if width == 1 else dots.columns
    with each_block(code, kind, rows, stride, blocks) as (block, begin):
        chunks = code.at(tile, code.mul(block, code.const(I64, kind.block // CHUNK * pitch * CHUNK_SIZE)))
        sums = _Sums(code, dots, chunks, width, pitch, kind.parts, kind.minimum)
        kind.unpack(Rows(code, begin, stride, sums))
        sums.add_to(results)
    for number, result in enumerate(results):
        with code.if_then(code.icmp_signed("<", code.const(I64, number), columns)):
            code.put(code.load(result, typ=FLOATS), y, code.mul(y_stride, code.const(I64, number)))
    code.ret_void()
    return function


def _results(code: Code, width: int) -> list[Value]:
    results = [code.alloca(FLOATS) for _ in range(width)]
    for result in results:
        code.store(code.const(FLOATS, 0.0), result)
    return results
