"""What brim's own models hold on the devices. They share one budget, so they are placed one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.engine.client import Engine
    from server.offload.holding import Holding


class Ledger:
    """Remembers what each engine holds, until it ends.

    Attributes:
        turn: held from before a model is planned until its memory is taken, so that the next one's plan sees it.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._entries: list[tuple[Engine, Sequence[Holding]]] = []

    def enter(self, engine: Engine, holdings: Sequence[Holding]) -> None:
        """Note what a newly loaded engine holds."""
        self._entries.append((engine, holdings))

    def held(self) -> Mapping[str, int]:
        """Bytes that the engines alive hold, what their backends take included, by llama.cpp's name of the memory."""
        self._entries = [(engine, holdings) for engine, holdings in self._entries if engine.alive]
        held: Counter[str] = Counter()
        for _, holdings in self._entries:
            for holding in holdings:
                if holding.reserved:
                    held[holding.share.buffer] += holding.reserved + holding.share.overhead
        return held

    @property
    def ram_caches(self) -> int:
        """Bytes to which the prefix caches in RAM of the engines alive may grow."""
        return sum(engine.spec.cache_ram for engine, _ in self._entries if engine.alive)
