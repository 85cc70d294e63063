"""How weights of each format are unpacked: into whole bytes, and what these are to be multiplied by.

Formats as in ggml-common.h and dequantize_row_* of ggml-quants.c.
"""

# pyright: basic

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llvmlite import ir

from server.engine.kernels.code import BYTES, F16, FLOATS, I16, I32, I64, INTS, LANES, VECTOR, VOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from server.engine.kernels.code import Code, Value

CHUNK = 32
"""Weights of a row that share what the activations are multiplied by."""
QUADS = CHUNK // 4
"""Vectors of a chunk, each of which holds 4 weights of every row, as bytes without a sign."""
_SUPER = 256
"""Weights of a block of K-quants."""
_LINE = 64
"""Bytes of a cache line."""


class Sink(Protocol):
    """Where the weights of a block of each row go."""

    def put(self, chunk: int, quad: int, weights: Value) -> None:
        """The weights 4·quad to 4·quad + 3 of a chunk: see `QUADS`."""
        ...

    def put_factor(self, chunk: int, number: int, factor: Value) -> None:
        """The first or second of a chunk's factors, one for every row: see `Format`."""
        ...


class Rows:
    """One block of each of `LANES` rows, as its weights are read."""

    def __init__(self, code: Code, rows: Value, stride: Value, sink: Sink) -> None:
        self.code = code
        self.put, self.put_factor = sink.put, sink.put_factor
        self._rows = [code.at(rows, code.mul(stride, code.const(I64, row))) for row in range(LANES)]

    def column(self, offset: int) -> list[Value]:
        """16 bytes of each row at an offset, as four vectors which each hold 4 bytes of every row."""
        code = self.code
        loaded = [code.get(row, ir.VectorType(I32, 4), offset) for row in self._rows]
        a, b, c, d = (code.join(loaded[first::4]) for first in range(4))
        pairs = [[4 * lane + word + side for lane in range(4) for word in words for side in (0, LANES)]
                 for words in ((0, 1), (2, 3))]  # fmt: skip
        quads = [[4 * lane + word + side for lane in range(4) for side in (0, LANES) for word in words]
                 for words in ((0, 1), (2, 3))]  # fmt: skip
        halves = [(code.shuffle(a, b, pair), code.shuffle(c, d, pair)) for pair in pairs]
        return [code.bitcast(code.shuffle(*half, quad), BYTES) for half in halves for quad in quads]

    def words(self, offset: int) -> tuple[Value, Value]:
        """8 bytes of each row at an offset, as two whole numbers."""
        code = self.code
        loaded = [code.get(row, ir.VectorType(I32, 2), offset) for row in self._rows]
        first, second = code.join(loaded[: LANES // 2]), code.join(loaded[LANES // 2 :])
        low, high = (code.shuffle(first, second, range(side, 2 * LANES, 2)) for side in (0, 1))
        return low, high

    def floats(self, words: Value, *, upper: bool = False) -> Value:
        """The numbers of 16 bits in the lower, or upper halves of whole numbers."""
        code = self.code
        shifted = code.lshr(words, code.const(INTS, 16)) if upper else words
        bits = code.trunc(shifted, ir.VectorType(I16, LANES))
        return code.fpext(code.bitcast(bits, ir.VectorType(F16, LANES)), FLOATS)

    def nibbles(self, vectors: list[Value]) -> tuple[list[Value], list[Value]]:
        """The lower, and the upper halves of bytes."""
        return [self.bits(vector, 0, 4) for vector in vectors], [self.bits(vector, 4, 4) for vector in vectors]

    def bits(self, vector: Value, first: int, count: int) -> Value:
        """Some bits of each byte, or of each whole number of a vector of these."""
        code, kind = self.code, vector.type
        shifted = code.lshr(vector, code.const(kind, first)) if first else vector
        return code.and_(shifted, code.const(kind, (1 << count) - 1))

    def with_high(self, weights: Value, high: Value, first: int, count: int) -> Value:
        """Weights of 4 bits with some more above them, from `first` on in each byte of another vector."""
        bits = self.bits(high, first, count)
        return self.code.or_(weights, self.code.shl(bits, self.code.const(BYTES, 4)))


@dataclass(frozen=True, slots=True)
class Format:
    """A format of weights.

    Attributes:
        name, number: ggml's.
        block: weights of a block. size: its bytes.
        zero: what an unpacked byte stands above its weight.
        parts: the factors of a chunk, each of which multiplies as many weights.
        minimum: whether the second factor is added to each of a chunk's weights instead.
        unpack: writes the code that unpacks a block of each row.
        largest: of the bytes that weights become.
    """

    name: str
    number: int
    block: int
    size: int
    unpack: Callable[[Rows], None]
    largest: int
    zero: int = 0
    parts: int = 1
    minimum: bool = False


def _q4_0(rows: Rows) -> None:
    low, high = rows.nibbles(rows.column(2))
    for quad, weights in enumerate(low + high):
        rows.put(0, quad, weights)
    rows.put_factor(0, 0, rows.floats(rows.words(0)[0]))


def _q5_0(rows: Rows) -> None:
    code = rows.code
    factor, rest = rows.words(0)
    fifth = code.or_(code.lshr(factor, code.const(INTS, 16)), code.shl(rest, code.const(INTS, 16)))
    fifth = code.bitcast(fifth, BYTES)
    low, high = rows.nibbles(rows.column(6))
    for quad, weights in enumerate(low + high):
        spread = code.shuffle(fifth, fifth, [byte // 4 * 4 + quad // 2 for byte in range(VECTOR)])
        mask = ir.Constant(BYTES, [1 << (quad % 2 * 4 + byte % 4) for byte in range(VECTOR)])
        has = code.icmp_unsigned("!=", code.and_(spread, mask), code.const(BYTES, 0))
        rows.put(0, quad, code.select(has, code.or_(weights, code.const(BYTES, 16)), weights))
    rows.put_factor(0, 0, rows.floats(factor))


def _q8_0(rows: Rows) -> None:
    for quad, weights in enumerate(rows.column(2) + rows.column(18)):
        rows.put(0, quad, rows.code.xor(weights, rows.code.const(BYTES, 128)))
    rows.put_factor(0, 0, rows.floats(rows.words(0)[0]))


def _put_k_factors(rows: Rows) -> None:
    """The 6-bit factors and minimums of the eight chunks of Q4_K and Q5_K: see get_scale_min_k4 in ggml-quants.c."""
    code = rows.code
    units, *packed = rows.column(0)
    units, (first, second, third) = code.bitcast(units, INTS), packed
    low, high = rows.nibbles([third])
    scales = [rows.bits(first, 0, 6), rows.with_high(low[0], first, 6, 2)]
    minimums = [rows.bits(second, 0, 6), rows.with_high(high[0], second, 6, 2)]
    unit, lowest = rows.floats(units), rows.floats(units, upper=True)
    for number, (factors, each) in enumerate(((scales, unit), (minimums, code.fneg(lowest)))):
        for chunk in range(_SUPER // CHUNK):
            ints = rows.bits(code.bitcast(factors[chunk // 4], INTS), chunk % 4 * 8, 8)
            rows.put_factor(chunk, number, code.fmul(code.uitofp(ints, FLOATS), each))


def _q4_k(rows: Rows) -> None:
    _put_k_factors(rows)
    for pair in range(_SUPER // CHUNK // 2):
        halves = rows.nibbles(rows.column(16 + pair * 32) + rows.column(32 + pair * 32))
        for half, quads in enumerate(halves):
            for quad, weights in enumerate(quads):
                rows.put(2 * pair + half, quad, weights)


def _q5_k(rows: Rows) -> None:
    _put_k_factors(rows)
    fifth = rows.column(16) + rows.column(32)
    for pair in range(_SUPER // CHUNK // 2):
        halves = rows.nibbles(rows.column(48 + pair * 32) + rows.column(64 + pair * 32))
        for half, quads in enumerate(halves):
            for quad, weights in enumerate(quads):
                rows.put(2 * pair + half, quad, rows.with_high(weights, fifth[quad], 2 * pair + half, 1))


def _q6_k(rows: Rows) -> None:
    code = rows.code
    unit, scales = rows.floats(rows.words(202)[1], upper=True), rows.column(192)
    for part in range(2):
        high = rows.column(128 + part * 32) + rows.column(144 + part * 32)
        columns = [rows.column(part * 64 + 16 * number) for number in range(4)]
        low = [rows.nibbles(columns[0] + columns[1]), rows.nibbles(columns[2] + columns[3])]
        for quarter in range(4):
            chunk = part * 4 + quarter
            for quad, weights in enumerate(low[quarter % 2][quarter // 2]):
                rows.put(chunk, quad, rows.with_high(weights, high[quad], 2 * quarter, 2))
            for half in range(2):
                packed = code.bitcast(scales[chunk // 2], INTS)
                upwards = code.shl(packed, code.const(INTS, 24 - 8 * (chunk % 2 * 2 + half)))
                factor = code.sitofp(code.ashr(upwards, code.const(INTS, 24)), FLOATS)
                rows.put_factor(chunk, half, code.fmul(factor, unit))


FORMATS = (
    Format("q4_0", 2, 32, 18, _q4_0, 15, zero=8),
    Format("q5_0", 6, 32, 22, _q5_0, 31, zero=16),
    Format("q8_0", 8, 32, 34, _q8_0, 255, zero=128),
    Format("q4_K", 12, _SUPER, 144, _q4_k, 15, minimum=True),
    Format("q5_K", 13, _SUPER, 176, _q5_k, 31, minimum=True),
    Format("q6_K", 14, _SUPER, 210, _q6_k, 63, zero=32, parts=2),
)


@contextmanager
def each_block(code: Code, kind: Format, rows: Value, stride: Value, blocks: Value) -> Iterator[tuple[Value, Value]]:
    """A loop over the blocks of `LANES` rows: for each its number, and where it begins in the first row.

    The rows behind these are asked for meanwhile: they come from memory while these are multiplied.
    """
    following = code.at(rows, code.mul(stride, code.const(I64, LANES)))
    with code.loop(0, blocks) as block:
        ahead = code.at(following, code.mul(block, code.const(I64, LANES * kind.size)))
        for line in range(0, LANES * kind.size, _LINE):
            reading, into_level_2, data = (code.const(I32, number) for number in (0, 2, 1))
            code.intrinsic("llvm.prefetch.p0", VOID, code.at(ahead, line), reading, into_level_2, data)
        yield block, code.at(rows, code.mul(block, code.const(I64, kind.size)))
