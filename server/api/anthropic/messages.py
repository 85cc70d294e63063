"""POST /v1/messages and /v1/messages/count_tokens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.anthropic.errors import error_event
from server.api.anthropic.output import MessageWriter
from server.api.anthropic.request import CountTokensRequest, MessagesRequest
from server.api.context import Context, ContextOf
from server.api.counting import prompt_tokens
from server.api.streaming import stream_events, while_connected
from server.chat.answer import Prepared, chat_deltas
from server.engine.messages import Done
from server.errors import RequestError
from server.models.loading import LoadedModel

router = APIRouter(tags=["Anthropic"])


@router.post("/v1/messages", summary="Answer a conversation")
async def create_message(body: MessagesRequest, request: Request, context: ContextOf) -> Response:
    """Answer with the assistant's next message, whole or as a stream of server-sent events."""
    if body.stream:
        return await stream_events(request, _stream(body, context))
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


@router.post("/v1/messages/count_tokens", summary="Count a conversation's tokens")
async def count_tokens(body: CountTokensRequest, request: Request, context: ContextOf) -> Response:
    """How many tokens the model would read: the rendered conversation's, with its tools."""
    counted = await while_connected(request, _count(body, context))
    return Response(msgspec.json.encode({"input_tokens": counted}), media_type="application/json")


async def _count(body: CountTokensRequest, context: Context) -> int:
    model = await context.model(body.model)
    return await prompt_tokens(model, await context.prepare(model, body.task(model, context.partition)))


async def _begin(body: MessagesRequest, context: Context) -> tuple[LoadedModel, Prepared, MessageWriter]:
    model = await context.model(body.model)
    prepared = await context.prepare(model, body.task(model, context.partition))
    context.log_prompt(model.name, prepared.generate)
    writer = MessageWriter(
        model.name,
        stop_sequences=body.stop_sequences or (),
        max_tokens=body.max_tokens,
        shows_thinking=body.shows_thinking,
    )
    return model, prepared, writer


async def _answer(body: MessagesRequest, context: Context) -> bytes:
    model, prepared, writer = await _begin(body, context)
    async with aclosing(chat_deltas(model.engine, prepared)) as items:
        async for item in items:
            if isinstance(item, Done):
                writer.end(item.usage)
            else:
                writer.add(item)
    return msgspec.json.encode(writer.message)


async def _stream(body: MessagesRequest, context: Context) -> AsyncGenerator[bytes]:
    model, prepared, writer = await _begin(body, context)
    begun = False
    async with aclosing(chat_deltas(model.engine, prepared)) as items:
        try:
            async for item in items:
                if not begun:
                    yield writer.begin(await prompt_tokens(model, prepared))
                    begun = True
                events = writer.end(item.usage) if isinstance(item, Done) else writer.add(item)
                if events:
                    yield events
        except RequestError as error:
            if not begun:
                raise
            yield error_event(error)
