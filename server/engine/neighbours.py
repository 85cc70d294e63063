"""How sequences that are computed together come to lie side by side where each has a KV buffer of its own.

llama.cpp computes sequences in one piece only where their numbers follow each other and each has equally many tokens in
the batch; every piece reads all weights (`split_equal` in llama-batch.cpp).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def runs(places: Collection[int]) -> list[int]:
    """The lengths of the runs of neighbouring places."""
    ordered = sorted(places)
    starts = [at for at, place in enumerate(ordered) if at == 0 or place != ordered[at - 1] + 1]
    return [end - start for start, end in pairwise([*starts, len(ordered)])]


def in_one_piece(tokens: Mapping[int, int]) -> bool:
    """Whether a batch of so many tokens for each of these places is computed in one piece."""
    return len(tokens) == 1 or (len(runs(tokens)) == 1 and len(set(tokens.values())) == 1)


def gathering_moves(together: Mapping[int, int], others: Mapping[int, int], places: int) -> list[tuple[int, int]]:
    """The moves of the fewest tokens after which sequences that are computed together have neighbouring places.

    Args:
        together: places of the sequences that are computed together, and how many tokens each holds.
        others: the same of those that are not.
        places: how many there are.

    Returns:
        From where to where; what is there changes places with what comes. No place is left or taken twice, and none is
        taken that one of `together` has already.
    """
    width = len(together)

    def moves(first: int) -> list[tuple[int, int]]:
        home = range(first, first + width)
        strays = sorted(place for place in together if place not in home)
        holes = [place for place in home if place not in together]
        return list(zip(strays, holes, strict=True))

    def cost(found: list[tuple[int, int]]) -> tuple[int, int]:
        return moved_tokens(found, together, others), len(found)

    return min((moves(first) for first in range(places - width + 1)), key=cost)


def moved_tokens(moves: Collection[tuple[int, int]], together: Mapping[int, int], others: Mapping[int, int]) -> int:
    """How many tokens' state changes its place."""
    return sum(together[source] + others.get(target, 0) for source, target in moves)
