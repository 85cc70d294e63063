"""Places for models in memory: so many may be loaded at once, and a newcomer waits for one to become free."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_WAIT = 30.0
"""Seconds that a newcomer waits while every place is taken by a model that is busy."""
RETRY_AFTER = 5.0


class Places:
    """Counts the places that are taken, and gives free ones to newcomers in the order of their coming.

    Attributes:
        limit: how many there are; lowered by each model that is to stay.
        patience: seconds that a newcomer waits.
    """

    def __init__(self, limit: int, patience: float = LONGEST_WAIT) -> None:
        self.limit = limit
        self.patience = patience
        self._taken = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def take(self, evict: Callable[[], Awaitable[bool]]) -> None:
        """Take a place, waiting for one if need be.

        Args:
            evict: makes an idle model give its place back; False where none is idle.

        Raises:
            RequestError: 503 where all places stay taken.
        """
        if self.limit <= 0:
            raise RequestError(
                "every place for a model is taken by one that stays loaded; start brim with a higher --max-models",
                status=503,
                code="no_place_for_model",
            )
        try:
            async with asyncio.timeout(self.patience), self._turn:
                while self._taken >= self.limit:
                    self._changed.clear()
                    if not await evict():
                        await self._changed.wait()
                self._taken += 1
        except TimeoutError as error:
            raise RequestError(
                f"{self._taken} loaded models are busy, and no more may be loaded at once; try again, or start brim "
                "with a higher --max-models",
                status=503,
                code="no_place_for_model",
                retry_after=RETRY_AFTER,
            ) from error

    def give_back(self) -> None:
        """A model has been unloaded."""
        assert self._taken > 0
        self._taken -= 1
        self.look_again()

    def look_again(self) -> None:
        """A model has become idle and could be evicted."""
        self._changed.set()
