"""POST /v1/chat/completions."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.counting import prompt_tokens
from server.api.openai.chat_request import ChatRequest
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
from server.chat.answer import ChatAnswer, ChatDelta, ChatFinish, Prepared, chat_deltas, gather_chat
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.engine.messages import Done
from server.errors import RequestError
from server.models.loading import LoadedModel

router = APIRouter(tags=["OpenAI"])
encode = msgspec.json.encode


class Called(msgspec.Struct):
    """The function that is called; its arguments are JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A call that the caller is asked to make."""

    id: str
    function: Called
    type: str = "function"


class AnswerMessage(msgspec.Struct):
    """The assistant's turn."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: Called | UnsetType = UNSET
    """The older form of `tool_calls`, where the request offers `functions`."""


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: str
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
@router.post("/chat/completions", include_in_schema=False)
async def chat_completions(body: ChatRequest, request: Request, context: ContextOf) -> Response:
    """Answer with the assistant's next message, whole or as a stream of server-sent events."""
    if body.stream:
        return await stream_events(request, _stream(body, context))
    return Response(await while_connected(request, _answer(body, context)), media_type="application/json")


@router.post("/v1/chat/completions/input_tokens", summary="Count a conversation's tokens")
@router.post("/chat/completions/input_tokens", include_in_schema=False)
async def count_input_tokens(body: ChatRequest, request: Request, context: ContextOf) -> Response:
    """How many tokens the model would read: the rendered conversation's, with its tools. As in llama-server."""
    count = {"object": "response.input_tokens", "input_tokens": await while_connected(request, _count(body, context))}
    return Response(encode(count), media_type="application/json")


async def _count(body: ChatRequest, context: Context) -> int:
    return await prompt_tokens(*await _begin(body, context))


async def _begin(body: ChatRequest, context: Context) -> tuple[LoadedModel, Prepared]:
    model = await context.model(body.model)
    prepared = await context.prepare(model, body.task(model, context.partition))
    context.log_prompt(model.name, prepared.generate)
    return model, prepared


async def _answer(body: ChatRequest, context: Context) -> bytes:
    model, prepared = await _begin(body, context)
    answers, usage = await gather_chat(model.engine, prepared)
    completion = ChatCompletion(
        id=new_id("chatcmpl"),
        object="chat.completion",
        created=now(),
        model=model.name,
        system_fingerprint=fingerprint(model),
        choices=[
            ChatChoice(
                index,
                _message(answer, functions=body.calls_functions),
                _finish(answer.finish, functions=body.calls_functions),
                chat_logprobs(answer.logprobs) if body.logprobs else None,
            )
            for index, answer in enumerate(answers)
        ],
        usage=add_usage([usage], reasoning=sum(answer.reasoning_tokens for answer in answers)),
        timings=timings(usage) if body.timings else None,
    )
    return encode(completion)


def _message(answer: ChatAnswer, *, functions: bool) -> AnswerMessage:
    """An answer in OpenAI's form; with `functions` its first call in the older one."""
    called = [Called(call.name, call.arguments) for call in answer.calls]
    message = AnswerMessage(
        content=None if called and not answer.content else answer.content, reasoning_content=answer.reasoning or UNSET
    )
    if called and functions:
        message.function_call = called[0]
    elif called:
        message.tool_calls = [ToolCall(_call_id(), function) for function in called]
    return message


def _finish(reason: ChatFinish, *, functions: bool) -> Finish:
    return "function_call" if functions and reason == "tool_calls" else finish_reason(reason)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


async def _stream(body: ChatRequest, context: Context) -> AsyncGenerator[bytes]:
    model, prepared = await _begin(body, context)
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    chunks = ChunkWriter("chatcmpl", "chat.completion.chunk", model, with_usage=with_usage)
    begun = [False] * prepared.generate.n
    reasoning = 0
    sent = False
    async with aclosing(chat_deltas(model.engine, prepared)) as items:
        try:
            async for item in items:
                if isinstance(item, Done):
                    if with_usage or body.timings:
                        yield chunks.last(
                            [item.usage], with_usage=with_usage, with_timings=bool(body.timings), reasoning=reasoning
                        )
                    continue
                reasoning += item.reasoning_tokens
                if item.progress:
                    sent = True
                    yield chunks.progress(item.progress)
                    continue
                if event := _events_of(item, chunks, begin=not begun[item.index], functions=body.calls_functions):
                    begun[item.index] = True
                    yield event
        except RequestError as error:
            if not sent and not any(begun):
                raise
            yield error_event(error)
            return
    yield DONE_EVENT


def _events_of(delta: ChatDelta, chunks: ChunkWriter, *, begin: bool, functions: bool) -> bytes:
    """The server-sent events that tell of a delta: none while there is nothing to tell."""
    written: list[bytes] = []
    if begin:
        written.append(
            chunks.choice(b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null' % delta.index)
        )
    logprobs = encode(chat_logprobs(delta.logprobs)) if delta.logprobs else b"null"
    for event in delta.events:
        told = _function_delta(event) if functions else _delta(event)
        written.append(chunks.choice(b'{"index":%d,"delta":%b,"logprobs":%b' % (delta.index, told, logprobs)))
        logprobs = b"null"
    if delta.finish is not None:
        opened = b'{"index":%d,"delta":{},"logprobs":null' % delta.index
        written.append(chunks.choice(opened, _finish(delta.finish, functions=functions)))
    return b"".join(written)


def _delta(event: Event) -> bytes:
    """An event as a chunk's `delta`."""
    match event:
        case Content(text):
            return b'{"content":%b}' % encode(text)
        case Reasoning(text):
            return b'{"reasoning_content":%b}' % encode(text)
        case CallStart(index, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": _call_id(), "type": "function", "function": function}
            return encode({"tool_calls": [call]})
        case CallArguments(index, text):
            return encode({"tool_calls": [{"index": index, "function": {"arguments": text}}]})


def _function_delta(event: Event) -> bytes:
    """As `_delta`, with the first call in its older form, which knows no others."""
    match event:
        case CallStart(0, name):
            return encode({"function_call": {"name": name, "arguments": ""}})
        case CallArguments(0, text):
            return encode({"function_call": {"arguments": text}})
        case CallStart() | CallArguments():
            return b"{}"
        case _:
            return _delta(event)
