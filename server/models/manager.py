"""From a model's name to its running engine: loads at the start and on demand, and again after a crash.

A model named at the start stays. One that a request named is unloaded once nobody has used it for its `keep_alive`, or
when a place is needed for another and it is the one idle for longest. Neither ever happens while it is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from server.errors import BrimError, LoadError, RequestError
from server.models.embedding import Purpose, require
from server.models.ledger import Ledger
from server.models.loading import LoadedModel, load
from server.models.manifest import meant
from server.models.places import Places
from server.models.projector import NO_PROJECTOR
from server.models.resolve import ModelSource, from_manifest, with_projector
from server.models.slot import LONGEST_BACKOFF, ModelStatus, Slot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from server.engine.messages import LoadProgress
    from server.models.store import Store
    from server.settings import Settings

logger = logging.getLogger(__name__)

STABLE_AFTER = 60.0
"""A worker that lived this many seconds has proved itself: its next crash counts as the first."""
DEFAULT_MAX_MODELS = 3
"""As many as Ollama loads by default; those named at the start come on top."""


class ModelManager:
    """Owns the engines of all loaded models.

    Args:
        settings: how to load.
        store: where a model is looked up that a request names; paths are never taken from requests.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self.store = store
        self._slots: dict[str, Slot] = {}
        self._ledger = Ledger()
        self._places = Places(settings.max_models or DEFAULT_MAX_MODELS)
        self._retired: set[Slot] = set()
        self._endings: set[asyncio.Task[None]] = set()

    def want(self, source: ModelSource) -> None:
        """Begin to load a model, and keep it loaded.

        Raises:
            BrimError: more models are to stay than may be loaded.
        """
        slot = self._slots.setdefault(source.name, Slot(source))
        if not slot.stays:
            self._reserve(1)
            slot.stays = True
            self._vacate(slot)
        self._begin(slot)

    async def wait_until_loaded(self) -> None:
        """Wait for all that is being loaded. Raises LoadError, the first there is."""
        await asyncio.gather(*(asyncio.shield(slot.loading) for slot in self._slots.values() if slot.loading))

    @contextlib.asynccontextmanager
    async def using(
        self, name: str | None, purpose: Purpose = "text", keep_alive: float | None = None
    ) -> AsyncGenerator[LoadedModel]:
        """The model of that name, loaded if it is not, and not unloaded before the block's end.

        Args:
            name: None or empty takes the only one there is.
            purpose: what it is wanted for; the embeddings of a model that generates text come from a second engine.
            keep_alive: seconds after which it is unloaded when it is no longer used; None takes the server's setting.

        Raises:
            RequestError: 404 if there is no such model, 400 if a name is needed or it is not made for the purpose, 503
                if it cannot be loaded now.
        """
        slot = await self._find(name, purpose)
        slot.users += 1
        slot.keep_alive = self._settings.keep_alive if keep_alive is None else keep_alive
        slot.cancel_expiry()
        try:
            yield await self._loaded(slot)
        finally:
            slot.users -= 1
            slot.idle_since = time.monotonic()
            self._settle(slot)

    async def get(self, name: str | None, purpose: Purpose = "text") -> LoadedModel:
        """The model of that name, as `using` gives it, for whoever needs no promise that it stays loaded."""
        async with self.using(name, purpose) as model:
            return model

    @property
    def projector_wish(self) -> str | None:
        """`none` where models that requests name are loaded without projectors; a given file is for another model."""
        return NO_PROJECTOR if self._settings.projector == NO_PROJECTOR else None

    def statuses(self) -> list[ModelStatus]:
        """How each wanted model stands."""
        return [slot.status for slot in self._slots.values() if not slot.companion]

    def sources(self) -> list[ModelSource]:
        """The files of each wanted model."""
        return list({slot.source.name: slot.source for slot in self._slots.values()}.values())

    def loaded(self) -> list[LoadedModel]:
        """The models that can answer now."""
        return [slot.model for slot in self._slots.values() if slot.model and slot.model.engine.alive]

    async def unload(self, name: str, grace: float = 0.0) -> None:
        """End a model's engine, letting running requests end within `grace` seconds. Raises RequestError if unknown."""
        slots = self._of(name)
        if not slots:
            raise RequestError(f"the model '{name}' is not loaded", status=404, code="model_not_loaded", param="model")
        await asyncio.shield(asyncio.wait([self._start_ending(slot, grace) for slot in slots]))

    def retire(self, name: str) -> None:
        """Let requests from now on load a model anew, and unload it when the last that uses it now has ended.

        A model that stays, or is not loaded, is left as it is.
        """
        for slot in self._of(name):
            if not slot.stays:
                self._forget(slot)
                self._retired.add(slot)
                self._settle(slot)

    async def stop(self, grace: float = 0.0) -> None:
        """End all engines side by side."""
        for slot in [*self._slots.values(), *self._retired]:
            self._start_ending(slot, grace)
        await asyncio.gather(*self._endings)

    def _of(self, name: str) -> list[Slot]:
        """A model's slot, and that of its companion."""
        known = meant(name, [slot.source.name for slot in self._slots.values()])
        return [slot for slot in self._slots.values() if slot.source.name == known]

    async def _find(self, name: str | None, purpose: Purpose) -> Slot:
        source = await self._source(name)
        require(source, purpose)
        slot = Slot(source, companion=purpose == "embedding" and source.pooling is None)
        return self._slots.setdefault(slot.key, slot)

    async def _source(self, name: str | None) -> ModelSource:
        wanted = {slot.source.name: slot.source for slot in self._slots.values()}
        if not name:
            if len(wanted) == 1:
                return next(iter(wanted.values()))
            message = f"name a model: there are {', '.join(wanted)}" if wanted else "no model is loaded; name one"
            raise RequestError(message, code="missing_required_parameter", param="model")
        if known := meant(name, wanted):
            return wanted[known]
        try:
            return await asyncio.to_thread(self._from_store, name, [*wanted])
        except RequestError:
            first = next((slot.source for slot in self._slots.values() if slot.stays), None)
            if first is None or not self._settings.any_model:
                raise
            return first

    async def _loaded(self, slot: Slot) -> LoadedModel:
        """A slot's model; loaded now if it is not."""
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
        except asyncio.CancelledError:
            if not loading.cancelled():
                raise  # it is the request that was cancelled
            message = f"the model {slot.source.name} was stopped while it was loaded"
            raise RequestError(message, status=503, code="model_unavailable", retry_after=1.0) from None

    # -- loading -------------------------------------------------------------------------------------------------------

    def _begin(self, slot: Slot) -> asyncio.Task[LoadedModel]:
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load(slot))
            slot.loading.add_done_callback(_retrieve)
        return slot.loading

    async def _load(self, slot: Slot) -> LoadedModel:
        def on_progress(progress: LoadProgress) -> None:
            slot.progress = progress

        try:
            if not (slot.stays or slot.has_place):
                await self._places.take(self._evict)
                slot.has_place = True
            if self._endings:  # what is being unloaded still holds memory
                await asyncio.wait(self._endings)
            model = await load(slot.source, self._settings, on_progress, self._ledger, embedding=slot.embeds)
        except LoadError as error:
            slot.failed(str(error))
            self._vacate(slot)
            raise
        finally:
            slot.loading = None
            slot.idle_since = time.monotonic()
            self._settle(slot)
        slot.model, slot.failure = model, ""
        slot.watching = asyncio.create_task(self._watch(slot, model))
        logger.info("%s is loaded: %s", slot.key, model.engine.spec.placement.summary)
        return model

    async def _watch(self, slot: Slot, model: LoadedModel) -> None:
        """When a model's worker has died, clean up, and load one that stays again; any other, a request will."""
        await model.engine.died.wait()
        await model.kill()
        slot.model = None
        if time.monotonic() - model.loaded_at > STABLE_AFTER:
            slot.failures = 0
        slot.failed("its process ended unexpectedly")
        logger.error("the process of %s ended unexpectedly", slot.key)
        self._vacate(slot)
        if slot.stays:
            await self._load_again(slot)

    async def _load_again(self, slot: Slot) -> None:
        """Load a model that stays, however often that fails."""
        while slot.model is None:
            wait = slot.retry_at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            try:
                await asyncio.shield(self._begin(slot))
            except LoadError as error:
                logger.error("%s", error)

    # -- unloading -----------------------------------------------------------------------------------------------------

    def _settle(self, slot: Slot) -> None:
        """Once nobody uses a model, decide when it is unloaded."""
        if slot.users or slot.loading:
            return
        self._places.look_again()
        wanted = self._slots.get(slot.key) is slot
        if wanted and slot.until is None:
            return
        slot.cancel_expiry()
        wait = max(slot.until or 0.0, slot.retry_at - time.monotonic()) if wanted else 0.0
        if wait > 0:
            slot.expiry = asyncio.get_running_loop().call_later(wait, self._start_ending, slot)
        else:
            self._start_ending(slot)

    async def _evict(self) -> bool:
        """Unload the model that has been idle for longest; False where all are in use."""
        idle = [slot for slot in self._slots.values() if slot.is_idle and slot.has_place]
        if not idle:
            return False
        await asyncio.shield(self._start_ending(min(idle, key=lambda slot: slot.idle_since)))
        return True

    def _start_ending(self, slot: Slot, grace: float = 0.0) -> asyncio.Task[None]:
        """Forget a model and begin to unload it."""
        slot.cancel_expiry()
        self._forget(slot)
        if slot.ending is None:
            slot.ending = asyncio.create_task(self._end(slot, grace))
            self._endings.add(slot.ending)
            slot.ending.add_done_callback(self._endings.discard)
        return slot.ending

    def _forget(self, slot: Slot) -> None:
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if slot.stays:
                self._reserve(-1)

    async def _end(self, slot: Slot, grace: float) -> None:
        tasks: list[asyncio.Task[Any]] = [task for task in (slot.watching, slot.loading) if task]
        for task in tasks:  # all at once: one may wait for the other
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if slot.model:
            await slot.model.stop(grace)
            logger.info("%s is unloaded", slot.key)
        self._vacate(slot)
        self._retired.discard(slot)

    def _vacate(self, slot: Slot) -> None:
        """Let another have a slot's place."""
        if slot.has_place:
            slot.has_place = False
            self._places.give_back()

    def _reserve(self, count: int) -> None:
        """Take places out for good, or give them back, where their number was set: by default they come on top."""
        if self._settings.max_models is not None:
            self._places.limit -= count
        if self._places.limit < 0:
            raise BrimError(f"--max-models {self._settings.max_models} is fewer than the models to be loaded")

    def _from_store(self, name: str, wanted: list[str]) -> ModelSource:
        """A model of the store; `wanted` are the names of those that need not be looked up there. Reads files."""
        try:
            found = name in self.store
        except BrimError:  # it cannot even be a name
            found = False
        if not found:
            there = sorted({*wanted, *(manifest.name for manifest in self.store.list())})
            message = f"there is no model '{name}'" + (f"; there are {', '.join(there)}" if there else "")
            raise RequestError(message, status=404, code="model_not_found", param="model")
        return with_projector(from_manifest(self.store.get(name), self.store), self.projector_wish)


def _retrieve(task: asyncio.Task[LoadedModel]) -> None:
    """Mark a load's outcome as seen: whoever asked for the model is told, and nobody may be waiting."""
    if not task.cancelled():
        task.exception()
