"""POST /api/copy and /api/pull, DELETE /api/delete; pushing, which brim does not do."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.ollama.lines import finish, line, progress, stream_lines
from server.api.ollama.occupancy import require_leaving
from server.api.ollama.wire import JsonRoute, Name, NamedModel, json_response
from server.api.streaming import while_connected
from server.api.whole_text import WholeTextRequest
from server.errors import BrimError, RequestError
from server.models.create import Progress
from server.models.manager import ModelManager
from server.models.manifest import Manifest, names_repository
from server.models.store import Store

if TYPE_CHECKING:
    from server.models.pull import Order

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)


class CopyRequest(WholeTextRequest):
    """Which model gets which second name."""

    source: Name
    destination: Name


class DeleteRequest(NamedModel):
    """Which model to remove."""


class PullRequest(NamedModel):
    """Which model to fetch; what only serves to reach a registry has no effect."""

    stream: bool = True
    insecure: bool | None = None
    username: str | None = None
    password: str | None = None


@router.post("/copy", summary="Give a model a second name")
async def copy(body: CopyRequest, context: ContextOf) -> Response:
    """Give a model in the store a second name; its files are shared."""
    await asyncio.to_thread(_copy, context.manager, body.source, body.destination)
    context.manager.retire(body.destination)
    return Response(status_code=200)


@router.delete("/delete", summary="Remove a model")
async def delete(body: DeleteRequest, context: ContextOf) -> Response:
    """Remove a name from the store, and the files that no other name has. Requests that run may end."""
    require_leaving(context.manager, body.model)
    await asyncio.to_thread(_remove, context.manager, body.model)
    context.manager.retire(body.model)
    return Response(status_code=200)


@router.post("/pull", summary="Fetch a model")
async def pull(body: PullRequest, request: Request, context: ContextOf) -> Response:
    """Fetch a model from the Hugging Face hub, telling how it comes along; succeed for any other that is there.

    A pull whose client goes is interrupted; the next one goes on where it ended.
    """
    if names_repository(body.model):
        lines = _pull(body.model, context)
    else:
        await asyncio.to_thread(_require_present, context.manager, body.model)
        lines = _done()
    if body.stream:
        return await stream_lines(request, lines)
    await while_connected(request, finish(lines))
    return json_response({"status": "success"})


@router.post("/push", include_in_schema=False)
async def push() -> Response:
    """Refuse: brim publishes nothing."""
    raise RequestError("brim does not push models to a registry", status=501, code="not_supported")


async def _pull(name: str, context: Context) -> AsyncGenerator[bytes]:
    loop = asyncio.get_running_loop()
    order = await asyncio.to_thread(_look_up, name)
    yield line({"status": "pulling manifest"})

    def work(report: Progress) -> None:
        manifest = _fetch(context.manager.store, order, report)
        loop.call_soon_threadsafe(context.manager.retire, manifest.name)

    async with aclosing(progress(work, digest=order.digest)) as lines:
        async for one in lines:
            yield one


async def _done() -> AsyncGenerator[bytes]:
    yield line({"status": "success"})


# The hub's library takes a second to import: these two run in threads, and only when somebody pulls.


def _look_up(name: str) -> "Order":
    from server.models.pull import look_up

    with _refusing():
        return look_up(name)


def _fetch(store: Store, order: "Order", report: Progress) -> Manifest:
    from server.models.pull import pull

    with _refusing():
        return pull(store, order, report)


@contextmanager
def _refusing() -> Generator[None]:
    """What the hub does not give, as a request's error."""
    from server.models.hub import HubError

    try:
        yield
    except HubError as error:
        raise RequestError(str(error), status=404 if error.missing else 502, param="model") from error
    except BrimError as error:
        raise RequestError(str(error), param="model") from error


def _copy(manager: ModelManager, source: str, destination: str) -> None:
    _require_present(manager, source)
    try:
        manager.store.copy(source, destination)
    except BrimError as error:
        raise RequestError(str(error), param="destination") from error


def _remove(manager: ModelManager, name: str) -> None:
    _require_present(manager, name)
    manager.store.remove(name)


def _require_present(manager: ModelManager, name: str) -> None:
    """Raises RequestError: 404 where the store has no such model."""
    try:
        found = name in manager.store
    except BrimError:  # it cannot even be a name
        found = False
    if not found:
        raise RequestError(
            f"model '{name}' not found in the store; brim fetches none from Ollama's library: "
            "pull hf.co/OWNER/REPOSITORY, or bring it in on the server, with brim create",
            status=404,
            code="model_not_found",
            param="model",
        )
