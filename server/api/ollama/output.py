"""Ollama's answers: a line for each step and a last one with the figures, or all in one."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from server.api.ollama.wire import nanoseconds, timestamp
from server.api.openai.output import ChatLogprob, chat_logprobs
from server.chat.answer import Call, ChatAnswer
from server.chat.events import CallArguments, CallStart, Content, Reasoning
from server.engine.messages import Done, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from server.chat.answer import ChatDelta, ChatFinish
    from server.chat.events import Event


encode = msgspec.json.encode


class CalledFunction(Struct):
    """What a call calls."""

    name: str
    arguments: dict[str, Any]
    index: int


class ToolCall(Struct):
    """A whole call."""

    function: CalledFunction


class Answer(Struct, kw_only=True, omit_defaults=True):
    """What every answer and each of its parts tell. The last part is `done` and has the figures; times are in ns."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    logprobs: list[ChatLogprob] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    context: list[int] | None = None
    """The tokens of prompt and answer, for a request that goes on from there."""


@dataclass(frozen=True)
class Said:
    """What the model said, in one step or in all."""

    content: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.calls)


@dataclass(frozen=True)
class Answering:
    """A request on its way to being answered.

    Attributes:
        model: its name, as it was asked for.
        form: makes the protocol's object out of what was said and the fields of `Answer`.
        deltas: what the model says.
        started: when the request came, by the performance counter.
        loaded: when its model was there.
        prompt: its tokens, where they are to be told with those of the answer.
        tokens: those of the answer, as far as it has come.
    """

    model: str
    form: Callable[..., Answer]
    deltas: AsyncGenerator[ChatDelta | Done]
    started: float
    loaded: float
    prompt: list[int] | None = None
    tokens: list[int] = field(default_factory=list[int])

    async def whole(self) -> bytes:
        """The answer in one object. Raises RequestError as the engine does."""
        answer, usage = ChatAnswer(), Usage(prompt_tokens=0, completion_tokens=0)
        async with aclosing(self.deltas) as deltas:
            async for delta in deltas:
                if isinstance(delta, Done):
                    usage = delta.usage
                else:
                    answer.add(delta)
                    self.tokens.extend(delta.tokens)
        said = Said(answer.content, answer.reasoning, _whole_calls(answer.calls))
        logprobs = chat_logprobs(answer.logprobs).content or None
        return encode(self._last(said, answer.finish, usage, logprobs))

    async def lines(self) -> AsyncGenerator[bytes]:
        """The answer as it comes, an object a line. Raises RequestError as the engine does."""
        calls = CallReader()
        finish: ChatFinish = "stop"
        async with aclosing(self.deltas) as deltas:
            async for delta in deltas:
                if isinstance(delta, Done):
                    yield encode(self._last(Said(), finish, delta.usage, None)) + b"\n"
                    return
                finish = delta.finish or finish
                self.tokens.extend(delta.tokens)
                said = _said(delta, calls)
                if said:
                    logprobs = chat_logprobs(delta.logprobs).content or None
                    yield encode(self._object(said, done=False, logprobs=logprobs)) + b"\n"

    def _object(self, said: Said, **fields: Any) -> Answer:
        return self.form(said, model=self.model, created_at=timestamp(), **fields)

    def _last(self, said: Said, finish: ChatFinish, usage: Usage, logprobs: list[ChatLogprob] | None) -> Answer:
        return self._object(
            said,
            done=True,
            done_reason="length" if finish in ("length", "time") else "stop",
            logprobs=logprobs,
            total_duration=nanoseconds(time.perf_counter() - self.started),
            load_duration=nanoseconds(self.loaded - self.started),
            prompt_eval_count=usage.prompt_tokens,
            prompt_eval_duration=nanoseconds(usage.prompt_seconds),
            eval_count=usage.completion_tokens,
            eval_duration=nanoseconds(usage.generation_seconds),
            context=None if self.prompt is None else self.prompt + self.tokens,
        )


class CallReader:
    """Gathers calls from their pieces: Ollama's clients get each as a whole. One cut short is left out."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._given = 0

    def read(self, events: Iterable[Event], *, over: bool) -> list[ToolCall]:
        """Take in events; returns the calls that are whole now, which all are where the answer is `over`."""
        for event in events:
            match event:
                case CallStart(_, name):
                    self._calls.append(Call(name))
                case CallArguments(index, text):
                    self._calls[index].arguments += text
                case _:
                    pass
        end = len(self._calls) if over else max(len(self._calls) - 1, self._given)
        found = _whole_calls(self._calls[self._given : end], self._given)
        self._given = end
        return found


def _said(delta: ChatDelta, calls: CallReader) -> Said:
    return Said(
        "".join(event.text for event in delta.events if isinstance(event, Content)),
        "".join(event.text for event in delta.events if isinstance(event, Reasoning)),
        calls.read(delta.events, over=delta.finish is not None),
    )


def _whole_calls(calls: Iterable[Call], first: int = 0) -> list[ToolCall]:
    found: list[ToolCall] = []
    for index, call in enumerate(calls, first):
        try:
            arguments = msgspec.json.decode(call.arguments, type=dict[str, Any])
        except msgspec.MsgspecError:
            continue  # cut short by a limit
        found.append(ToolCall(CalledFunction(call.name, arguments, index)))
    return found
