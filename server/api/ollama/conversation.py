"""Ollama's messages and tools, and how chat templates know them.

Its calls have no ids and its tool messages name the tool at most; templates want both to be matched by id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field, model_validator

from server.api.media import decode
from server.api.ollama.options import Images  # noqa: TC001 -- Pydantic reads it
from server.api.openai.chat_tools import Function  # noqa: TC001 -- Pydantic reads it
from server.api.strict import StrictModel
from server.chat.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.chat.media import Shown


class OfferedTool(StrictModel):
    """A function that may be called."""

    type: Literal["function"] = "function"
    function: Function

    def tool(self) -> Tool:
        """The tool as all protocols share it."""
        function = self.function
        if function.parameters is None:
            return Tool(function.name, function.description or "")
        return Tool(function.name, function.description or "", function.parameters, strict=bool(function.strict))


class CalledFunction(StrictModel):
    """What a call called."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    description: str | None = None
    """Without effect, as is the next: clients send back what they got."""
    index: int | None = None


class MadeCall(StrictModel):
    """A call that the assistant made."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class ChatMessage(StrictModel):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images = None
    tool_calls: list[MadeCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} cannot have tool_calls")
        return self


def to_messages(given: Iterable[ChatMessage], shown: Shown) -> list[dict[str, Any]]:
    """A conversation in the form that all protocols share: each tool's message belongs to the first call it fits.

    Args:
        shown: takes in the messages' images, which come before their texts.
    """
    found: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    made = 0
    for message in given:
        one: dict[str, Any] = {"role": message.role, "content": show(message.images, shown) + (message.content or "")}
        if message.thinking:
            one["reasoning_content"] = message.thinking
        if message.tool_calls:
            one["tool_calls"] = [_plain_call(call, made + number) for number, call in enumerate(message.tool_calls)]
            made += len(message.tool_calls)
            open_calls += one["tool_calls"]
        if message.role == "tool":
            one |= _answered(message, open_calls)
        found.append(one)
    return found


def show(images: Images, shown: Shown) -> str:
    """What stands for images in a text."""
    return "".join(shown.add("image", decode(image)) for image in images or ())


def _plain_call(call: MadeCall, number: int) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.function.arguments).decode()
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or f"call{number:05}", "type": "function", "function": function}


def _answered(message: ChatMessage, open_calls: list[dict[str, Any]]) -> dict[str, str]:
    """Which call a tool's message answers; it is open no longer."""
    for call in open_calls:
        if message.tool_call_id in (None, call["id"]) and message.tool_name in (None, "", call["function"]["name"]):
            open_calls.remove(call)
            return {"tool_call_id": call["id"], "name": call["function"]["name"]}
    return {"tool_call_id": message.tool_call_id or "", "name": message.tool_name or ""}
