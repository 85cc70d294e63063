"""How running sequences come to lie side by side where each has a KV buffer of its own.

llama.cpp computes sequences in one piece only where their numbers follow each other, and every piece reads all weights
(`split_equal` in llama-batch.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def gathering_moves(together: Collection[int], others: Collection[int], places: int) -> list[tuple[int, int]]:
    """The fewest moves after which sequences that are computed together have neighbouring places.

    Of equal choices, the one that drives the fewest others from their places, and then the first.

    Args:
        together: places of the sequences that are computed together.
        others: places that are taken, too.
        places: how many there are.

    Returns:
        From where to where; no place is left or taken twice, and none is taken by two of `together`.
    """
    width = len(together)
    if width < 2 or max(together) - min(together) < width:
        return []

    def cost(first: int) -> tuple[int, int]:
        holes = set(range(first, first + width)).difference(together)
        return len(holes), len(holes.intersection(others))

    first = min(range(places - width + 1), key=cost)
    home = range(first, first + width)
    strays = sorted(place for place in together if place not in home)
    holes = [place for place in home if place not in together]
    return list(zip(strays, holes, strict=True))
