"""The messages of a chat request, and how chat templates know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import model_validator

from server.api.media import Base64, ImageUrl, decode, locate
from server.api.strict import StrictModel, refused
from server.api.tagged import tagged

if TYPE_CHECKING:
    from server.chat.media import Shown


class TextPart(StrictModel):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str

    def read(self, shown: Shown) -> str:
        """What stands for it in the message's text."""
        return self.text


class RefusalPart(StrictModel):
    """A piece of a refusal that the assistant gave."""

    type: Literal["refusal"]
    refusal: str

    def read(self, shown: Shown) -> str:
        """What stands for it in the message's text."""
        return self.refusal


class ImageLocation(StrictModel):
    """Where an image is: in the URL itself, or on a host that may be asked for it."""

    url: ImageUrl
    detail: Literal["auto", "low", "high"] | None = None
    """Accepted and without effect: the model's own projector decides how finely an image is looked at."""


class ImagePart(StrictModel):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageLocation

    @model_validator(mode="before")
    @classmethod
    def _as_object(cls, value: Any) -> Any:
        """Some clients give the URL alone."""
        if isinstance(value, dict) and isinstance(url := cast("dict[str, Any]", value).get("image_url"), str):
            return {**cast("dict[str, Any]", value), "image_url": {"url": url}}
        return cast("Any", value)

    def read(self, shown: Shown) -> str:
        """What stands for it in the message's text."""
        return shown.add("image", locate(self.image_url.url))


class InputAudio(StrictModel):
    """A sound's file as base64."""

    data: Base64
    format: Literal["wav", "mp3", "flac"] | None = None


class AudioPart(StrictModel):
    """A sound."""

    type: Literal["input_audio"]
    input_audio: InputAudio

    def read(self, shown: Shown) -> str:
        """What stands for it in the message's text."""
        return shown.add("audio", decode(self.input_audio.data))


Part = Annotated[
    TextPart | RefusalPart | ImagePart | AudioPart,
    tagged(
        "content part",
        {"text": TextPart, "refusal": RefusalPart, "image_url": ImagePart, "input_audio": AudioPart},
        refused={
            "file": "brim reads no files: send their text",
            "video_url": "brim reads no videos: send pictures of them",
        },
    ),
]


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

    def _text(self, shown: Shown) -> str:
        content = self.content if self.content is not None else self.refusal or ""
        return content if isinstance(content, str) else "".join(part.read(shown) for part in content)

    def plain(self, called: dict[str, str], shown: Shown) -> dict[str, Any]:
        """The message as chat templates know it: its text in one piece, and no key without a value.

        Args:
            called: the functions called so far by their calls' ids; this message's are added.
            shown: takes in its images and sounds.
        """
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text(shown),
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


def plain_messages(messages: list[ChatMessage], shown: Shown) -> list[dict[str, Any]]:
    """A conversation as chat templates know it; its images and sounds go to `shown`."""
    called: dict[str, str] = {}
    return [message.plain(called, shown) for message in messages]
