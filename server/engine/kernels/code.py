"""Code over vectors of this machine's CPU, put together with llvmlite."""

# pyright: basic

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LANES = 16
"""Rows of weights computed side by side, each in a lane of 32 bits. Where vectors are shorter, LLVM takes several."""
VECTOR = 4 * LANES
"""Bytes of a vector."""

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
POINTER = ir.PointerType()
VOID = ir.VoidType()
BYTES = ir.VectorType(I8, VECTOR)
INTS = ir.VectorType(I32, LANES)
FLOATS = ir.VectorType(F32, LANES)

Value = Any
"""A value of llvmlite's, which has no types that a checker knows."""


class Code(ir.IRBuilder):
    """A function's code: llvmlite's builder, with memory addressed in bytes, fields of C structures, and loops."""

    def const(self, kind: Value, value: float) -> Value:
        """A constant, in each lane of a vector."""
        return _constant(kind, (value,) * kind.count if isinstance(kind, ir.VectorType) else value)

    def at(self, pointer: Value, offset: Value) -> Value:
        """The address some bytes further on."""
        return self.gep(pointer, [_i64(offset)], source_etype=I8)

    def get(self, pointer: Value, kind: Value, offset: Value = 0, align: int = 1) -> Value:
        """What lies some bytes further on."""
        return self.load(self.at(pointer, offset), typ=kind, align=align)

    def put(self, value: Value, pointer: Value, offset: Value = 0, align: int = 1) -> None:
        """Write to some bytes further on."""
        self.store(value, self.at(pointer, offset), align=align)

    def field(self, pointer: Value, struct: type[ctypes.Structure], name: str, index: int = 0) -> Value:
        """A member of a C structure; integers are widened to 64 bits."""
        offset, kind = _member(struct, name, index)
        value = self.get(pointer, kind, offset)
        return self.sext(value, I64) if isinstance(kind, ir.IntType) and kind.width < I64.width else value

    def set_field(self, value: Value, pointer: Value, struct: type[ctypes.Structure], name: str) -> None:
        """Write a member of a C structure."""
        offset, _ = _member(struct, name, 0)
        self.put(_i64(value) if isinstance(value, int) else value, pointer, offset)

    def intrinsic(self, name: str, kind: Value, *arguments: Value) -> Value:
        """Call one of LLVM's intrinsic functions by its full name."""
        known = self.module.globals.get(name)
        signature = ir.FunctionType(kind, [argument.type for argument in arguments])
        return self.call(known or ir.Function(self.module, signature, name), arguments)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """The sum of a product of floats and a third one, rounded once."""
        return self.intrinsic("llvm.fma.v16f32", FLOATS, a, b, c)

    def splat(self, value: Value) -> Value:
        """A number in each lane."""
        undefined = _constant(ir.VectorType(value.type, LANES), ir.Undefined)
        return self.shuffle(self.insert_element(undefined, value, _constant(I32, 0)), undefined, [0] * LANES)

    def shuffle(self, a: Value, b: Value, lanes: Iterable[int]) -> Value:
        """These lanes of two vectors in a row."""
        chosen = tuple(lanes)
        return self.shuffle_vector(a, b, _constant(ir.VectorType(I32, len(chosen)), chosen))

    def join(self, vectors: Sequence[Value]) -> Value:
        """Vectors in a row as one; there are 2, 4 or 8."""
        if len(vectors) == 1:
            return vectors[0]
        half = len(vectors) // 2
        a, b = self.join(vectors[:half]), self.join(vectors[half:])
        return self.shuffle(a, b, range(2 * a.type.count))

    @contextmanager
    def loop(self, start: Value, end: Value, step: Value = 1) -> Iterator[Value]:
        """The body of `for i in range(start, end, step)`."""
        start, end, step = _i64(start), _i64(end), _i64(step)
        before = self.block
        head, body, after = (self.append_basic_block(name) for name in ("head", "body", "after"))
        self.branch(head)
        self.position_at_end(head)
        index = self.phi(I64)
        index.add_incoming(start, before)
        self.cbranch(self.icmp_signed("<", index, end), body, after)
        self.position_at_end(body)
        yield index
        index.add_incoming(self.add(index, step), self.block)
        self.branch(head)
        self.position_at_end(after)


def define(module: ir.Module, name: str, result: Value, *arguments: Value) -> tuple[Value, Code]:
    """A function of a module, and what its code is put together with."""
    function = ir.Function(module, ir.FunctionType(result, arguments), name)
    function.attributes.add("noinline")
    function.attributes.alignstack = VECTOR  # vectors that find no register lie there
    return function, Code(function.append_basic_block("entry"))


def declare(module: ir.Module, name: str, result: Value, *arguments: Value) -> Value:
    """A function that comes from elsewhere."""
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def _i64(value: Value) -> Value:
    return _constant(I64, value) if isinstance(value, int) else value


@cache
def _constant(kind: Value, value: Value) -> Value:
    """A constant, made once: vectors of them are most of the code's text."""
    return ir.Constant(kind, list(value) if isinstance(value, tuple) else value)


_KINDS: dict[Any, Value] = {
    ctypes.c_int32: I32,
    ctypes.c_int64: I64,
    ctypes.c_size_t: I64,
    ctypes.c_void_p: POINTER,
    ctypes.c_char_p: POINTER,
}


def members(struct: type[ctypes.Structure]) -> dict[str, Any]:
    """The members of a C structure: their types by their names."""
    return {field[0]: field[1] for field in struct._fields_}


def _member(struct: type[ctypes.Structure], name: str, index: int) -> tuple[int, Value]:
    """A member's offset in bytes, and its type; of an array, that of one of its elements."""
    kind = members(struct)[name]
    element = kind if kind in _KINDS else kind._type_
    return getattr(struct, name).offset + index * ctypes.sizeof(element), _KINDS[element]
