"""Which models the kernels are for: told without LLVM, which they need themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

KNOWN = frozenset({"Q4_0", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"})
"""Formats of weights that they multiply, by their names in GGUF files."""
_NOT_QUANTIZED = frozenset({"F32", "F16", "BF16"})


def know_some(formats: AbstractSet[str]) -> bool:
    """Whether there is anything for the kernels in a model with weights of these formats."""
    return not KNOWN.isdisjoint(formats)


def know_all(formats: AbstractSet[str], *, dense: bool) -> bool:
    """Whether they multiply all quantized weights: experts' products are llama.cpp's."""
    return dense and formats <= KNOWN | _NOT_QUANTIZED
