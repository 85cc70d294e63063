"""The product of a matrix of quantized weights with some columns of activations, in machine code.

Activations become bytes, `CHUNK` of which share a factor, as in llama.cpp's Q8_0. Each thread takes `LANES` rows of
weights at a time, unpacks them into a panel that stays in its cache, and multiplies that with all columns, a tile of
some columns after the other. So weights are read and unpacked once for all columns, while sums stay in registers. No
more columns than a tile has are multiplied as weights are unpacked: there is no panel then, and memory is read all the
time.

Every sum is made in the same order whatever is computed beside it: an activation's product does not depend on how many
columns there are.
"""

# pyright: basic

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from llvmlite import ir

from server.engine.kernels.code import I1, I32, I64, LANES, POINTER, VECTOR, VOID, declare, define, members
from server.engine.kernels.formats import CHUNK
from server.engine.kernels.tiles import (
    CHUNK_SIZE,
    PANEL,
    Chunk,
    define_direct,
    define_quantize,
    define_tile,
    define_unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engine.kernels.code import Code, Value
    from server.engine.kernels.dots import Dots
    from server.engine.kernels.formats import Format


class Job(ctypes.Structure):
    """A product for all threads.

    Attributes:
        weights: the matrix, and `stride` bytes from row to row. groups: of `LANES` rows, that it has.
        k: weights of a row. n: columns of activations.
        x: the activations, as floats, and `x_stride` bytes from column to column. y: the result, in the same way.
        quantized: room for the `Chunk`s of whole tiles. panels: room for one of each thread.
        taken: how many of each thread's groups have been taken, in `COUNTER` bytes for each thread; all are 0.
    """

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("y", ctypes.c_void_p),
        ("y_stride", ctypes.c_int64),
        ("quantized", ctypes.c_void_p),
        ("panels", ctypes.c_void_p),
        ("taken", ctypes.c_void_p),
    )


COUNTER = 64
"""Bytes of a counter: a cache line, so that threads that count do not hold each other up."""


class Products:
    """The machine code of the products of all formats.

    Attributes:
        by_format: void product(Job), for each format's number: to be called by all threads of an OpenMP team at once.
    """

    def __init__(self, module: ir.Module, dots: Dots, formats: tuple[Format, ...]) -> None:
        self._module = module
        self._dots = dots
        self._barrier = declare(module, "GOMP_barrier", VOID)
        self._thread = declare(module, "omp_get_thread_num", I32)
        self._threads = declare(module, "omp_get_num_threads", I32)
        self._quantize = define_quantize(module)
        self._widths = [1 << power for power in reversed(range(dots.columns.bit_length()))]
        self._tiles = {
            (parts, minimum, width): define_tile(module, dots, parts, minimum, width)
            for parts, minimum in dict.fromkeys((kind.parts, kind.minimum) for kind in formats)
            for width in self._widths
        }
        self.by_format = {kind.number: self._define(kind) for kind in formats}

    def _define(self, kind: Format) -> Value:
        """Write a format's product: up to a tile's columns directly, and more by panels."""
        unpack = define_unpack(self._module, kind)
        direct = {width: define_direct(self._module, self._dots, kind, width) for width in self._dots.direct}
        function, code = define(self._module, f"product_{kind.name}", VOID, POINTER)
        thread, threads = (code.sext(code.call(asked, []), I64) for asked in (self._thread, self._threads))
        field = {name: code.field(function.args[0], Job, name) for name in members(Job)}
        self._write_quantize(code, field, kind, thread, threads)
        code.call(self._barrier, [])
        for width, multiplied in direct.items():
            with code.if_then(code.icmp_signed("<=", field["n"], code.const(I64, width))):
                _for_groups(code, field, thread, threads, _directly(code, field, kind, multiplied))
                code.ret_void()
        _for_groups(code, field, thread, threads, self._by_panel(code, field, kind, unpack, thread))
        code.ret_void()
        return function

    def _write_quantize(self, code: Code, field: dict[str, Value], kind: Format, thread: Value, threads: Value) -> None:
        """Write what turns a thread's columns into `Chunk`s; columns go round. Those that a direct tile lacks are 0."""
        zero, halved = code.const(I32, -kind.zero), code.const(I1, kind.parts > 1)
        step = code.mul(self._pitch(code, field), code.const(I64, CHUNK_SIZE))
        with code.loop(thread, field["n"], threads) as column:
            x = code.at(field["x"], code.mul(column, field["x_stride"]))
            code.call(self._quantize, [x, self._column(code, field, column), _chunks(code, field), step, zero, halved])
        filled = field["n"]
        for width in reversed(self._dots.direct):
            fits = code.icmp_signed("<=", field["n"], code.const(I64, width))
            filled = code.select(fits, code.const(I64, width), filled)
        # what lay there before might be numbers so small that some CPUs take very long for each
        nothing = code.const(ir.VectorType(I64, 2), 0)
        with code.loop(code.add(field["n"], thread), filled, threads) as column:
            begin = self._column(code, field, column)
            with code.loop(0, _chunks(code, field)) as chunk:
                code.put(nothing, begin, code.add(code.mul(chunk, step), code.const(I64, Chunk.factor.offset)))

    def _by_panel(
        self, code: Code, field: dict[str, Value], kind: Format, unpack: Value, thread: Value
    ) -> Callable[[Value], None]:
        """What computes a group: unpacks it, and then multiplies it with each tile, the last of which may be cut up."""
        chunks = _chunks(code, field)
        panel = code.at(field["panels"], code.mul(thread, code.mul(chunks, code.const(I64, PANEL))))

        def multiply(first: Value, group: Value, width: int) -> None:
            tile, y = self._column(code, field, first), _result(code, field, first, group)
            code.call(self._tiles[kind.parts, kind.minimum, width], [panel, tile, chunks, y, field["y_stride"]])

        def compute(group: Value) -> None:
            code.call(unpack, [_rows(code, field, group), field["stride"], panel, _blocks(code, field, kind)])
            first = code.and_(field["n"], code.const(I64, -self._dots.columns))
            with code.loop(0, first, self._dots.columns) as column:
                multiply(column, group, self._dots.columns)
            for width in self._widths[1:]:
                rest = code.and_(field["n"], code.const(I64, width))
                with code.if_then(code.icmp_unsigned("!=", rest, code.const(I64, 0))):
                    multiply(first, group, width)
                first = code.add(first, rest)

        return compute

    def _column(self, code: Code, field: dict[str, Value], column: Value) -> Value:
        """Where a column's first `Chunk` is: those of a tile's columns lie side by side."""
        width = self._pitch(code, field)
        first = code.mul(code.sub(column, code.urem(column, width)), _chunks(code, field))
        return code.at(
            field["quantized"], code.mul(code.add(first, code.urem(column, width)), code.const(I64, CHUNK_SIZE))
        )

    def _pitch(self, code: Code, field: dict[str, Value]) -> Value:
        """Columns whose `Chunk`s lie side by side: of a tile's, or a single one."""
        alone = code.icmp_signed("==", field["n"], code.const(I64, 1))
        return code.select(alone, code.const(I64, 1), code.const(I64, self._dots.columns))


def _directly(code: Code, field: dict[str, Value], kind: Format, direct: Value) -> Callable[[Value], None]:
    """What computes a group with all columns at once."""

    def compute(group: Value) -> None:
        rows, y = _rows(code, field, group), _result(code, field, code.const(I64, 0), group)
        blocks = _blocks(code, field, kind)
        arguments = [rows, field["stride"], field["quantized"], blocks, y, field["y_stride"], field["n"]]
        code.call(direct, arguments)

    return compute


def _for_groups(
    code: Code, field: dict[str, Value], thread: Value, threads: Value, do: Callable[[Value], None]
) -> None:
    """Write `do` for each group that a thread takes: first its own, one after the other, then what others have left."""
    with code.loop(0, threads) as number:
        owner = code.urem(code.add(thread, number), threads)
        begin, end = (
            code.udiv(code.mul(field["groups"], which), threads)
            for which in (owner, code.add(owner, code.const(I64, 1)))
        )
        counter = code.at(field["taken"], code.mul(owner, code.const(I64, COUNTER)))
        take, work, done = (code.append_basic_block(name) for name in ("take", "work", "done"))
        code.branch(take)
        code.position_at_end(take)
        group = code.add(begin, code.atomic_rmw("add", counter, code.const(I64, 1), "monotonic"))
        code.cbranch(code.icmp_signed("<", group, end), work, done)
        code.position_at_end(work)
        do(group)
        code.branch(take)
        code.position_at_end(done)


def _chunks(code: Code, field: dict[str, Value]) -> Value:
    return code.udiv(field["k"], code.const(I64, CHUNK))


def _blocks(code: Code, field: dict[str, Value], kind: Format) -> Value:
    return code.udiv(field["k"], code.const(I64, kind.block))


def _rows(code: Code, field: dict[str, Value], group: Value) -> Value:
    """Where a group's first row begins."""
    return code.at(field["weights"], code.mul(code.mul(group, code.const(I64, LANES)), field["stride"]))


def _result(code: Code, field: dict[str, Value], column: Value, group: Value) -> Value:
    """Where a group's part of a column's result begins."""
    begin = code.at(field["y"], code.mul(column, field["y_stride"]))
    return code.at(begin, code.mul(group, code.const(I64, VECTOR)))
