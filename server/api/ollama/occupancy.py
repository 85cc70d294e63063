"""Requests that only load a model or unload it: those without messages or prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from server.api.ollama.known import known_model
from server.errors import RequestError
from server.models.manifest import meant

if TYPE_CHECKING:
    from server.api.context import Context
    from server.models.manager import ModelManager


async def load_or_unload(name: str, keep_alive: float | None, context: Context) -> Literal["load", "unload"]:
    """Load a model, or unload it where it is to be kept for no time; it goes when requests that use it have ended.

    Returns:
        Which of the two was done, as `done_reason` tells it.

    Raises:
        RequestError: 404 if there is no such model, 409 if it is to be unloaded but was named at the start, 503 if it
            cannot be loaded now.
    """
    if keep_alive != 0:
        await context.model(name, keep_alive=keep_alive)
        return "load"
    known = await known_model(context.manager, name)
    require_leaving(context.manager, name)
    context.manager.retire(known.name)
    return "unload"


def require_leaving(manager: ModelManager, name: str) -> None:
    """Raises RequestError: 409 for a model that was named at the start."""
    if meant(name, [status.name for status in manager.statuses() if status.stays]):
        raise RequestError(
            f"'{name}' was named at brim's start and is in use; end it first, with brim stop", status=409, param="model"
        )
