"""/v1/responses: make a response, and look at, list, cancel or delete those that were kept."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.counting import prompt_tokens
from server.api.openai.responses.history import earlier_items, listed, own_items
from server.api.openai.responses.items import Known
from server.api.openai.responses.options import namespaces
from server.api.openai.responses.output import ResponseWriter
from server.api.openai.responses.request import InputTokensRequest, ResponseRequest
from server.api.openai.responses.store import Kept, ResponseStore
from server.api.openai.responses.truncation import truncated
from server.api.streaming import stream_events, while_connected
from server.chat.answer import Prepared, chat_deltas
from server.engine.messages import Done
from server.errors import RequestError
from server.models.loading import LoadedModel

logger = logging.getLogger(__name__)
router = APIRouter(tags=["OpenAI"])


def _store(context: ContextOf) -> ResponseStore:
    settings = context.settings
    return ResponseStore(settings.responses_file, days=settings.responses_days, most_bytes=settings.responses_max)


StoreOf = Annotated[ResponseStore, Depends(_store)]


@dataclass(frozen=True)
class _Job:
    """A request on its way to its answer."""

    model: LoadedModel
    prepared: Prepared
    writer: ResponseWriter
    own: list[Known]
    store: ResponseStore
    partition: str

    async def keep(self) -> None:
        """Keep the response, if that was asked for. An answer is not lost because it could not be kept: it says so."""
        if not self.writer.body["store"]:
            return
        kept = Kept(self.writer.body, listed(self.own), msgspec.to_builtins(self.writer.output))
        try:
            await asyncio.to_thread(self.store.save, kept, self.partition)
        except RequestError as error:
            logger.error("a response was not kept: %s", error)
            self.writer.body["store"] = False


@router.post("/v1/responses", summary="Answer a list of items")
@router.post("/responses", include_in_schema=False)
async def create_response(body: ResponseRequest, request: Request, context: ContextOf, store: StoreOf) -> Response:
    """Answer with the items that come next, whole or as a stream of server-sent events."""
    if body.stream:
        return await stream_events(request, _stream(body, context, store))
    return Response(await while_connected(request, _answer(body, context, store)), media_type="application/json")


async def _prepare(
    body: InputTokensRequest, context: Context, store: ResponseStore
) -> tuple[LoadedModel, Prepared, list[Known]]:
    """The model, what it is to answer, and the request's own items."""
    own = await own_items(body, store, context.partition)
    items: Sequence[Known] = await earlier_items(body, store, context.partition) + own
    model = await context.model(body.model)

    async def prepared(items: Sequence[Known]) -> Prepared:
        return await context.prepare(model, body.task(items, model, context.partition))

    async def fits(items: Sequence[Known]) -> bool:
        return await prompt_tokens(model, await prepared(items)) + body.room(model.info.context) <= model.info.context

    if body.truncation == "auto":
        items = await truncated(items, fits)
    return model, await prepared(items), own


async def _begin(body: ResponseRequest, context: Context, store: ResponseStore) -> _Job:
    model, prepared, own = await _prepare(body, context, store)
    context.log_prompt(model.name, prepared.generate)
    writer = ResponseWriter(
        model.name, body.describe(), encrypted=body.with_encrypted, namespaces=namespaces(body.tools)
    )
    return _Job(model, prepared, writer, own, store, context.partition)


async def _answer(body: ResponseRequest, context: Context, store: ResponseStore) -> bytes:
    job = await _begin(body, context, store)
    async with aclosing(chat_deltas(job.model.engine, job.prepared)) as items:
        async for item in items:
            if isinstance(item, Done):
                job.writer.complete(item.usage)
            else:
                job.writer.add(item)
    await job.keep()
    return msgspec.json.encode(job.writer.response)


async def _stream(body: ResponseRequest, context: Context, store: ResponseStore) -> AsyncGenerator[bytes]:
    job = await _begin(body, context, store)
    begun = False
    async with aclosing(chat_deltas(job.model.engine, job.prepared)) as items:
        try:
            async for item in items:
                if not begun:
                    yield job.writer.begin()
                    begun = True
                if isinstance(item, Done):
                    job.writer.complete(item.usage)
                elif events := job.writer.add(item):
                    yield events
        except RequestError as error:
            if not begun:
                raise
            yield job.writer.fail(error)
            return
    await job.keep()
    yield job.writer.end()


@router.post("/v1/responses/input_tokens", summary="Count a conversation's tokens")
@router.post("/responses/input_tokens", include_in_schema=False)
async def count_input_tokens(
    body: InputTokensRequest, request: Request, context: ContextOf, store: StoreOf
) -> Response:
    """How many tokens the model would read: the rendered conversation's, with its tools."""
    counted = await while_connected(request, _count(body, context, store))
    return _json({"object": "response.input_tokens", "input_tokens": counted})


async def _count(body: InputTokensRequest, context: Context, store: ResponseStore) -> int:
    model, prepared, _ = await _prepare(body, context, store)
    return await prompt_tokens(model, prepared)


@router.get("/v1/responses/{response_id}", summary="Look at a kept response")
async def get_response(
    response_id: str, context: ContextOf, store: StoreOf, stream: bool = False, starting_after: int | None = None
) -> Response:
    """The response as it was given."""
    if stream or starting_after is not None:
        raise RequestError("a kept response cannot be streamed; leave out 'stream'", param="stream")
    kept = await asyncio.to_thread(store.load, response_id, context.partition)
    return _json({**kept.body, "output": kept.output})


@router.get("/v1/responses/{response_id}/input_items", summary="List a kept response's input")
async def list_input_items(
    response_id: str,
    context: ContextOf,
    store: StoreOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """The items that the request brought, the last one first unless told otherwise."""
    kept = await asyncio.to_thread(store.load, response_id, context.partition)
    items = kept.input if order == "asc" else kept.input[::-1]
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise RequestError(f"there is no item '{after}' in the response's input", param="after")
        items = items[places[0] + 1 :]
    page = items[:limit]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > limit,
        }
    )


@router.delete("/v1/responses/{response_id}", summary="Delete a kept response")
async def delete_response(response_id: str, context: ContextOf, store: StoreOf) -> Response:
    """Remove it for good."""
    await asyncio.to_thread(store.delete, response_id, context.partition)
    return _json({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel", summary="Cancel a response made in the background")
async def cancel_response(response_id: str, context: ContextOf, store: StoreOf) -> Response:
    """Always refused: brim makes no response in the background, and whoever hangs up ends any other."""
    await asyncio.to_thread(store.load, response_id, context.partition)
    raise RequestError(
        f"the response '{response_id}' was not made in the background and cannot be cancelled; to end a response, "
        "close its connection"
    )


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
