"""A model that is wanted: its files, its engine once there is one, who uses it, and how its loading fares."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from server.engine.messages import LoadProgress
from server.models.embedding import companion_name

if TYPE_CHECKING:
    import asyncio

    from server.models.loading import LoadedModel
    from server.models.resolve import ModelSource

LONGEST_BACKOFF = 30.0
"""Seconds between two attempts at loading, at most."""
MOST_DOUBLINGS = 10
"""Of a second; more come to the same, and a thousand to more than a number holds."""

State = Literal["loading", "ready", "failed", "waiting"]


@dataclass(frozen=True)
class ModelStatus:
    """How a model stands, for people and monitors.

    Attributes:
        stays: whether it was named at the start.
        progress: of loading, from 0 to 1.
        until: seconds until it is unloaded if nobody uses it meanwhile; None where it stays.
    """

    name: str
    stays: bool
    state: State
    stage: str
    progress: float
    model: LoadedModel | None
    until: float | None


@dataclass(eq=False)
class Slot:
    """A model that is wanted: being loaded, ready, or waiting for its next attempt after a failure.

    Attributes:
        source: its files.
        companion: whether this is the second engine of a model that generates text, which gives its embeddings.
        stays: whether it was named at the start, so that it is never unloaded for want of use.
        keep_alive: seconds after its last use until it is unloaded.
        users: how many use it now.
        idle_since: when the last one left, by the monotonic clock.
        has_place: whether it takes one of the places for models loaded on demand.
        expiry: fires when it is to be unloaded.
        ending: its unloading, once that has begun.
    """

    source: ModelSource
    companion: bool = False
    stays: bool = False
    keep_alive: float = math.inf
    users: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    has_place: bool = False
    model: LoadedModel | None = None
    loading: asyncio.Task[LoadedModel] | None = None
    watching: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None
    ending: asyncio.Task[None] | None = None
    progress: LoadProgress = field(default_factory=lambda: LoadProgress(0.0, "starting"))
    failure: str = ""
    failures: int = 0
    retry_at: float = 0.0

    @property
    def key(self) -> str:
        """What it is called among the slots."""
        return companion_name(self.source.name) if self.companion else self.source.name

    def failed(self, reason: str) -> None:
        """Note a failure; each in a row doubles the wait for the next attempt, and the first waits not at all."""
        self.failure = reason
        doublings = min(self.failures - 1, MOST_DOUBLINGS)
        wait = 0.0 if self.failures == 0 else min(2.0**doublings, LONGEST_BACKOFF)
        self.failures += 1
        self.retry_at = time.monotonic() + wait

    @property
    def embeds(self) -> bool:
        """Whether its engine gives embeddings instead of text."""
        return self.companion or self.source.pooling is not None

    def cancel_expiry(self) -> None:
        """Keep it loaded: somebody uses it, or it is being unloaded already."""
        if self.expiry:
            self.expiry.cancel()
            self.expiry = None

    @property
    def is_idle(self) -> bool:
        """Whether it could be unloaded to make room."""
        return not (self.stays or self.users or self.loading)

    @property
    def until(self) -> float | None:
        """Seconds until it is unloaded if nobody uses it meanwhile; None where it stays."""
        if self.stays or math.isinf(self.keep_alive):
            return None
        idle = 0.0 if self.users else time.monotonic() - self.idle_since
        return max(0.0, self.keep_alive - idle)

    @property
    def status(self) -> ModelStatus:
        """How it stands."""
        state, stage, progress = self._state()
        return ModelStatus(self.source.name, self.stays, state, stage, progress, self.model, self.until)

    def _state(self) -> tuple[State, str, float]:
        if self.model:
            return "ready", "ready", 1.0
        if self.loading:
            return "loading", self.progress.stage, self.progress.fraction
        return ("failed", self.failure, 0.0) if self.failure else ("waiting", "not loaded", 0.0)
