"""What an endpoint works with: the models, the settings, and who is calling."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request
from msgspec import structs

from server.api.fetching import fetch_shown
from server.chat.answer import Prepared, prepare
from server.chat.task import ChatTask
from server.engine.request import Generate
from server.models.embedding import Purpose
from server.models.loading import LoadedModel
from server.models.manager import ModelManager
from server.settings import Settings

logger = logging.getLogger(__name__)

NO_TIME = 1e-3
"""Seconds that stand for a time that is over: the engine takes 0 for no bound."""


@dataclass(frozen=True)
class Context:
    """Passed to every endpoint.

    Attributes:
        manager: gives the running engine of a model.
        settings: what the server was told at its start.
        own_templates: bounds how many requests are prepared at once that bring a chat template.
        partition: the caller's cache partition.
        started_at: when the server started, in seconds since the epoch.
        held: what is let go once the answer has been sent.
        fetched: images that the request named, by their URLs.
        arrived: when the request was whole, by the monotonic clock.
    """

    manager: ModelManager
    settings: Settings
    own_templates: asyncio.Semaphore
    partition: str
    started_at: int
    held: AsyncExitStack
    fetched: dict[str, bytes] = field(default_factory=dict[str, bytes])
    arrived: float = field(default_factory=time.monotonic)

    async def model(self, name: str | None, purpose: Purpose = "text", keep_alive: float | None = None) -> LoadedModel:
        """The model that a request names, which stays loaded at least until the answer has been sent.

        Args:
            name: None or empty takes the only one there is.
            purpose: what it is wanted for.
            keep_alive: seconds after which it is unloaded when nobody uses it; None takes the server's setting.

        Raises:
            RequestError: 404 if there is no such model, 400 if a name is needed or it is not made for the purpose, 503
                if it cannot be loaded now.
        """
        return await self.held.enter_async_context(self.manager.using(name, purpose, keep_alive))

    async def prepare(self, model: LoadedModel, task: ChatTask) -> Prepared:
        """A task ready for the model's engine, with what it shows by URL fetched. Raises RequestError as these do."""
        if task.shown.links and model.info.vision:
            await fetch_shown(task.shown, self.settings.media_hosts, self.fetched)
        prepared = await prepare(model, task)
        return replace(prepared, generate=self.timed(prepared.generate))

    def timed(self, request: Generate) -> Generate:
        """A request with what is left of its time: loading its model, and whatever else came first, took some of it."""
        limit = min(request.max_time or math.inf, self.settings.max_time)
        if math.isinf(limit):
            return request
        left = limit - (time.monotonic() - self.arrived)
        return structs.replace(request, max_time=max(left, NO_TIME))

    def log_prompt(self, model: str, request: Generate) -> None:
        """Note a prompt in the log, if the user asked for that."""
        if self.settings.log_prompts:
            logger.info("prompt to %s: %s", model, request.prompt)


async def _context(request: Request) -> AsyncGenerator[Context]:
    state = request.app.state
    async with AsyncExitStack() as held:
        yield Context(
            state.manager, state.settings, state.own_templates, request.state.partition, state.started_at, held
        )


ContextOf = Annotated[Context, Depends(_context)]
