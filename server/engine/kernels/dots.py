"""The instructions that multiply bytes, which differ between CPUs."""

# pyright: basic

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from server.engine.kernels.code import I8, I16, INTS, LANES, VECTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.engine.kernels.code import Code, Value
    from server.engine.kernels.formats import Format


@dataclass(frozen=True, slots=True)
class Dots:
    """A way of multiplying bytes.

    Attributes:
        name: that of the instructions.
        needs: the CPU's features, by LLVM's names, that it and the rest of the code are written for.
        without: features that LLVM is not to use, by the beginning of their names.
        columns: of a tile, which are computed together: their sums have to stay in registers.
        direct: how many are multiplied as weights are unpacked; fewer than one of these are filled up.
        largest: the largest unsigned byte with which nothing is lost.
        add: (code, sums, unsigned bytes, signed bytes): to each sum the four products of its lane are added.
    """

    name: str
    needs: tuple[str, ...]
    columns: int
    direct: tuple[int, ...]
    largest: int
    add: Callable[[Code, Value, Value, Value], Value]
    without: tuple[str, ...] = ()

    def takes(self, kind: Format) -> bool:
        """Whether it multiplies all bytes that weights of a format may become."""
        return kind.largest <= self.largest


def _vnni(code: Code, sums: Value, unsigned: Value, signed: Value) -> Value:
    return code.intrinsic("llvm.x86.avx512.vpdpbusd.512", INTS, sums, unsigned, signed)


def _avx2(code: Code, sums: Value, unsigned: Value, signed: Value) -> Value:
    bytes_, shorts, ints = ir.VectorType(I8, VECTOR // 2), ir.VectorType(I16, LANES), ir.VectorType(INTS.element, 8)
    halves = []
    for part in (range(VECTOR // 2), range(VECTOR // 2, VECTOR)):
        u, s = (code.bitcast(code.shuffle(vector, vector, part), bytes_) for vector in (unsigned, signed))
        pairs = code.intrinsic("llvm.x86.avx2.pmadd.ub.sw", shorts, u, s)
        halves.append(code.intrinsic("llvm.x86.avx2.pmadd.wd", ints, pairs, code.const(shorts, 1)))
    return code.add(sums, code.join(halves))


VNNI = Dots(
    "AVX-512 VNNI",
    ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "f16c", "fma"),
    8,
    (1, 4, 8),
    255,
    _vnni,
)
AVX2 = Dots("AVX2", ("avx2", "f16c", "fma"), 4, (1, 4), 128, _avx2, ("avx512",))


def dots_of(features: Mapping[str, bool]) -> Dots | None:
    """The fastest for a CPU with these features, or None."""
    return next((dots for dots in (VNNI, AVX2) if all(features.get(name) for name in dots.needs)), None)
