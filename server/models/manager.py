"""From a model's name to its running engine: loads on start and on demand, and again after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from server.engine.messages import LoadProgress
from server.errors import BrimError, LoadError, RequestError
from server.models.loading import LoadedModel, load
from server.models.resolve import ModelSource, from_manifest

if TYPE_CHECKING:
    from server.models.store import Store
    from server.settings import Settings

logger = logging.getLogger(__name__)

STABLE_AFTER = 60.0
"""A worker that lived this many seconds has proved itself: its next crash counts as the first."""
LONGEST_BACKOFF = 30.0

State = Literal["loading", "ready", "failed", "waiting"]


@dataclass(frozen=True)
class ModelStatus:
    """How a model stands, for people and monitors. `progress` runs from 0 to 1."""

    name: str
    state: State
    stage: str
    progress: float
    model: LoadedModel | None


@dataclass
class _Slot:
    """A model that is wanted: being loaded, ready, or waiting for its next attempt after a failure."""

    source: ModelSource
    model: LoadedModel | None = None
    loading: asyncio.Task[LoadedModel] | None = None
    watching: asyncio.Task[None] | None = None
    progress: LoadProgress = field(default_factory=lambda: LoadProgress(0.0, "starting"))
    failure: str = ""
    failures: int = 0
    retry_at: float = 0.0

    def failed(self, reason: str) -> None:
        """Note a failure; each in a row doubles the wait for the next attempt, and the first waits not at all."""
        self.failure = reason
        wait = 0.0 if self.failures == 0 else min(2.0 ** (self.failures - 1), LONGEST_BACKOFF)
        self.failures += 1
        self.retry_at = time.monotonic() + wait

    @property
    def status(self) -> ModelStatus:
        name = self.source.name
        if self.model:
            return ModelStatus(name, "ready", "ready", 1.0, self.model)
        if self.loading:
            return ModelStatus(name, "loading", self.progress.stage, self.progress.fraction, None)
        return ModelStatus(name, "failed" if self.failure else "waiting", self.failure or "not loaded", 0.0, None)


class ModelManager:
    """Owns the engines of all loaded models.

    Args:
        settings: how to load.
        store: where a model is looked up that a request names; paths are never taken from requests.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self.store = store
        self._slots: dict[str, _Slot] = {}

    def want(self, source: ModelSource) -> None:
        """Begin to load a model, and keep it loaded."""
        slot = self._slots.setdefault(source.name, _Slot(source))
        self._begin(slot)

    async def wait_until_loaded(self) -> None:
        """Wait for all that is being loaded. Raises LoadError, the first there is."""
        await asyncio.gather(*(asyncio.shield(slot.loading) for slot in self._slots.values() if slot.loading))

    async def get(self, name: str | None) -> LoadedModel:
        """The model of that name, loaded if it is not; the only one where no name is given.

        Raises:
            RequestError: 404 if there is no such model, 400 if a name is needed, 503 if it cannot be loaded now.
        """
        slot = await self._find(name)
        if slot.model and slot.model.engine.alive:
            return slot.model
        wait = slot.retry_at - time.monotonic()
        if slot.model or (slot.loading is None and wait > 0):
            message = f"the model {slot.source.name} is not available: {slot.failure or 'its process ended'}"
            raise RequestError(message, status=503, code="model_unavailable", retry_after=max(wait, 1.0))
        loading = self._begin(slot)
        try:
            return await asyncio.shield(loading)
        except LoadError as error:
            logger.error("%s", error)
            raise RequestError(str(error), status=503, code="model_unavailable", retry_after=LONGEST_BACKOFF) from error

    def statuses(self) -> list[ModelStatus]:
        """How each wanted model stands."""
        return [slot.status for slot in self._slots.values()]

    def loaded(self) -> list[LoadedModel]:
        """The models that can answer now."""
        return [slot.model for slot in self._slots.values() if slot.model and slot.model.engine.alive]

    async def unload(self, name: str, grace: float = 0.0) -> None:
        """End a model's engine, letting running requests end within `grace` seconds. Raises RequestError if unknown."""
        slot = self._slots.pop(name, None)
        if slot is None:
            raise RequestError(f"the model '{name}' is not loaded", status=404, code="model_not_loaded", param="model")
        await _end(slot, grace)

    async def stop(self, grace: float = 0.0) -> None:
        """End all engines side by side."""
        await asyncio.gather(*(_end(slot, grace) for slot in self._slots.values()))
        self._slots.clear()

    async def _find(self, name: str | None) -> _Slot:
        if not name:
            if len(self._slots) == 1:
                return next(iter(self._slots.values()))
            message = (
                f"name a model: there are {', '.join(self._slots)}" if self._slots else "no model is loaded; name one"
            )
            raise RequestError(message, code="missing_required_parameter", param="model")
        if slot := self._slots.get(name):
            return slot
        source = await asyncio.to_thread(self._from_store, name)
        return self._slots.setdefault(source.name, _Slot(source))

    def _begin(self, slot: _Slot) -> asyncio.Task[LoadedModel]:
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load(slot))
            slot.loading.add_done_callback(_retrieve)
        return slot.loading

    async def _load(self, slot: _Slot) -> LoadedModel:
        name = slot.source.name

        def on_progress(progress: LoadProgress) -> None:
            slot.progress = progress

        try:
            model = await load(slot.source, self._settings, on_progress)
        except LoadError as error:
            slot.failed(str(error))
            raise
        finally:
            slot.loading = None
        slot.model, slot.failure = model, ""
        slot.watching = asyncio.create_task(self._watch(slot, model))
        logger.info("%s is loaded: %s", name, model.engine.spec.placement.summary)
        return model

    async def _watch(self, slot: _Slot, model: LoadedModel) -> None:
        """Load a model again when its worker has died."""
        await model.engine.died.wait()
        slot.model = None
        if time.monotonic() - model.loaded_at > STABLE_AFTER:
            slot.failures = 0
        slot.failed("its process ended unexpectedly and is being restarted")
        logger.error("the process of %s ended unexpectedly; it is loaded again", slot.source.name)
        await model.engine.kill()
        await asyncio.sleep(max(0.0, slot.retry_at - time.monotonic()))
        self._begin(slot)

    def _from_store(self, name: str) -> ModelSource:
        try:
            found = name in self.store
        except BrimError:  # it cannot even be a name
            found = False
        if not found:
            there = sorted({*self._slots, *(manifest.name for manifest in self.store.list())})
            message = f"there is no model '{name}'" + (f"; there are {', '.join(there)}" if there else "")
            raise RequestError(message, status=404, code="model_not_found", param="model")
        return from_manifest(self.store.get(name), self.store)


async def _end(slot: _Slot, grace: float) -> None:
    for task in (slot.watching, slot.loading):
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LoadError):
                await task
    if slot.model:
        await slot.model.engine.stop(grace)


def _retrieve(task: asyncio.Task[LoadedModel]) -> None:
    """Mark a load's outcome as seen: whoever asked for the model is told, and nobody may be waiting."""
    if not task.cancelled():
        task.exception()
