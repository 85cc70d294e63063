"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.openai.chat_request import ChatRequest
from server.api.openai.generation import gather_choices
from server.api.openai.output import (
    ChatLogprobs,
    ChunkWriter,
    Finish,
    UsageObject,
    add_usage,
    chat_logprobs,
    fingerprint,
    finish_reason,
    new_id,
    now,
    timings,
)
from server.api.streaming import DONE_EVENT, error_event, stream_events, while_connected
from server.engine.messages import Delta, Done
from server.errors import RequestError

router = APIRouter(tags=["OpenAI"])
encode = msgspec.json.encode


class AnswerMessage(msgspec.Struct):
    """The assistant's turn."""

    content: str
    role: str = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Finish
    logprobs: ChatLogprobs | None


class ChatCompletion(msgspec.Struct, omit_defaults=True):
    """The whole answer of a request that does not stream."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageObject
    timings: dict[str, Any] | None = None


@router.post("/v1/chat/completions", summary="Answer a conversation")
async def chat_completions(body: ChatRequest, request: Request, context: ContextOf) -> Response:
    """Answer with the assistant's next message, whole or as a stream of server-sent events."""
    if body.stream:
        return await stream_events(request, _stream(body, context))
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


async def _answer(body: ChatRequest, context: Context) -> bytes:
    model = await context.manager.get(body.model)
    request = body.generate(model, context.partition)
    context.log_prompt(model.name, request)
    choices, usage = await gather_choices(model.engine, request)
    completion = ChatCompletion(
        id=new_id("chatcmpl"),
        object="chat.completion",
        created=now(),
        model=model.name,
        system_fingerprint=fingerprint(model),
        choices=[
            ChatChoice(
                index,
                AnswerMessage(choice.text),
                finish_reason(choice.finish),
                chat_logprobs(choice.logprobs) if body.logprobs else None,
            )
            for index, choice in enumerate(choices)
        ],
        usage=add_usage([usage]),
        timings=timings(usage) if body.timings else None,
    )
    return encode(completion)


async def _stream(body: ChatRequest, context: Context) -> AsyncGenerator[bytes]:
    model = await context.manager.get(body.model)
    request = body.generate(model, context.partition)
    context.log_prompt(model.name, request)
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    chunks = ChunkWriter("chatcmpl", "chat.completion.chunk", model, with_usage=with_usage)
    begun = [False] * request.n
    async with aclosing(model.engine.generate(request)) as items:
        try:
            async for item in items:
                if isinstance(item, Done):
                    if with_usage or body.timings:
                        yield chunks.last([item.usage], with_usage=with_usage, with_timings=bool(body.timings))
                    continue
                if event := _events_of(item, chunks, begin=not begun[item.index]):
                    begun[item.index] = True
                    yield event
        except RequestError as error:
            if not any(begun):
                raise
            yield error_event(error)
            return
    yield DONE_EVENT


def _events_of(delta: Delta, chunks: ChunkWriter, *, begin: bool) -> bytes:
    """The events that tell of a delta: none while it holds nothing to tell, up to three at a choice's begin and end."""
    events = b""
    if begin:
        events += chunks.choice(b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null' % delta.index)
    if delta.text or delta.logprobs:
        logprobs = encode(chat_logprobs(delta.logprobs)) if delta.logprobs else b"null"
        content = encode(delta.text)
        events += chunks.choice(b'{"index":%d,"delta":{"content":%b},"logprobs":%b' % (delta.index, content, logprobs))
    if delta.finish is not None:
        events += chunks.choice(b'{"index":%d,"delta":{},"logprobs":null' % delta.index, finish_reason(delta.finish))
    return events
