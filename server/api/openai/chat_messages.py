"""The messages of a chat request, and how chat templates know them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from server.api.openai.fields import StrictModel, refused


class TextPart(StrictModel):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


class RefusalPart(StrictModel):
    """A piece of a refusal that the assistant gave."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What the assistant said."""
        return self.refusal


class MediaPart(StrictModel):
    """An image, a sound or a file: known, so that it can be refused in words that help."""

    type: Literal["image_url", "input_audio", "file", "video_url"]
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    video_url: Any = None

    @model_validator(mode="after")
    def _refuse(self) -> MediaPart:
        what = {"image_url": "vision", "video_url": "vision", "input_audio": "hearing"}.get(self.type)
        reason = f"no model here has {what}" if what else "files cannot be read"
        raise ValueError(f"{reason}; leave out the content part of type {self.type}")

    @property
    def text(self) -> str:
        """There is none."""
        return ""


Part = Annotated[TextPart | RefusalPart | MediaPart, Field(discriminator="type")]


class CalledFunction(StrictModel):
    """What a call called; the arguments are JSON text."""

    name: str
    arguments: str


class ToolCallMessage(StrictModel):
    """A call that the assistant made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """Accepted and without effect: clients that joined a stream leave it in."""


class ChatMessage(StrictModel):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallMessage] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: Any = None
    """Accepted and without effect: clients send an answer back with all that it came with."""
    provider_specific_fields: Any = None
    """Accepted and without effect: LiteLLM adds it to answers, and sends it back with them."""
    function_call: CalledFunction | None = None
    """The older form of `tool_calls`: a message of role `function` has its result."""
    audio: Annotated[Any, refused("no model here hears")] = None

    @model_validator(mode="after")
    def _is_whole(self) -> ChatMessage:
        if self.content is None and self.role not in ("assistant", "function"):
            raise ValueError(f"a message of role {self.role} needs content")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of role tool needs tool_call_id")
        if self.role == "function" and self.name is None:
            raise ValueError("a message of role function needs name, that of the function that was called")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} cannot have tool_calls")
        if self.function_call and (self.role != "assistant" or self.tool_calls):
            beside = f"a message of role {self.role}" if self.role != "assistant" else "a message with tool_calls"
            raise ValueError(f"{beside} cannot have function_call")
        return self

    def _text(self) -> str:
        content = self.content if self.content is not None else self.refusal or ""
        return content if isinstance(content, str) else "".join(part.text for part in content)

    def plain(self, called: dict[str, str]) -> dict[str, Any]:
        """The message as chat templates know it: its text in one piece, and no key without a value.

        Args:
            called: the functions called so far by their calls' ids; this message's are added.
        """
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text(),
        }
        if self.name is not None:
            message["name"] = self.name
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            called |= {call.id: call.function.name for call in self.tool_calls}
            message["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        if self.function_call:
            call_id = f"function_call_{len(called)}"
            called[call_id] = self.function_call.name
            function = self.function_call.model_dump()
            message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        if self.role == "function":
            message["role"] = "tool"
            message["tool_call_id"] = next((one for one in reversed(called) if called[one] == self.name), self.name)
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
            message.setdefault("name", called.get(self.tool_call_id, ""))
        return message


def plain_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """A conversation as chat templates know it. Raises RequestError where a part is no text."""
    called: dict[str, str] = {}
    return [message.plain(called) for message in messages]
