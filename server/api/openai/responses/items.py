"""The items that a response's input is made of.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from server.api.media import ImageUrl, locate
from server.api.strict import Off, StrictModel, refused
from server.api.tagged import tagged

if TYPE_CHECKING:
    from server.chat.media import Shown

MOST_ITEMS = 10_000

Status = Literal["in_progress", "completed", "incomplete"]
Unused = Annotated[Any, Field(exclude=True)]
"""Accepted, without effect and not kept: clients send an answer back with all that it came with, or that they added."""

_NO_MEDIA = {
    "input_file": "brim reads no files: send their text",
    "input_audio": "brim takes sounds in chat completions alone: send text",
}


class TextPart(StrictModel):
    """A piece of text, from whichever side."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Unused = None
    logprobs: Unused = None
    parsed: Unused = None
    prompt_cache_breakpoint: Unused = None


class RefusalPart(StrictModel):
    """A refusal that the assistant gave."""

    type: Literal["refusal"]
    refusal: str


class ImagePart(StrictModel):
    """An image."""

    type: Literal["input_image"]
    image_url: ImageUrl
    detail: Unused = None
    file_id: Annotated[Any, refused("brim keeps no files: send the image as a data URL in image_url")] = None


_PARTS = tagged(
    "content part",
    {
        "input_text": TextPart,
        "output_text": TextPart,
        "text": TextPart,
        "input_image": ImagePart,
        "refusal": RefusalPart,
    },
    refused=_NO_MEDIA,
)
Part = Annotated[TextPart | ImagePart | RefusalPart, _PARTS]


def read(part: Part, shown: Shown) -> str:
    """What stands for a part in a message's text."""
    match part:
        case TextPart():
            return part.text
        case ImagePart():
            return shown.add("image", locate(part.image_url))
        case RefusalPart():
            return part.refusal


class Item(StrictModel):
    """What all items have. An id is given where there is none."""

    id: str | None = None
    status: Status | None = None


class MessageItem(Item):
    """A message of either side."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: Literal["commentary", "final_answer"] | None = None
    """Accepted and without effect: it is OpenAI's own models' way to mark an answer's parts."""

    def read(self, shown: Shown) -> str:
        """The message in one piece; its images go to `shown`, and marks stand for them."""
        return self.content if isinstance(self.content, str) else "".join(read(part, shown) for part in self.content)


class FunctionCallItem(Item):
    """A call that the assistant made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None
    caller: Unused = None
    async_: Annotated[Off, Field(alias="async")] = None
    parsed_arguments: Unused = None


class FunctionOutputItem(Item):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Part]
    name: str | None = None
    namespace: str | None = None
    caller: Unused = None

    def read(self, shown: Shown) -> str:
        """What the model reads; images go to `shown`, and marks stand for them."""
        return self.output if isinstance(self.output, str) else "\n".join(read(part, shown) for part in self.output)


class ReasoningPart(StrictModel):
    """A piece of what the model thought, or of its summary."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Item):
    """What the model thought before it went on."""

    type: Literal["reasoning"]
    summary: list[ReasoningPart] = Field(default_factory=list[ReasoningPart])
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None
    """The thoughts as `encode_thoughts` wrote them, for clients that keep nothing else of them."""

    @field_validator("encrypted_content")
    @classmethod
    def _is_ours(cls, value: str | None) -> str | None:
        if value:
            decode_thoughts(value)
        return value

    @property
    def text(self) -> str:
        """The thoughts, or what there is of them."""
        if self.content:
            return "".join(part.text for part in self.content)
        if self.encrypted_content:
            return decode_thoughts(self.encrypted_content)
        return "\n\n".join(part.text for part in self.summary)


class ItemReference(StrictModel):
    """An item of a kept response, by its id."""

    type: Literal["item_reference"] | None = None
    id: str


def encode_thoughts(text: str) -> str:
    """Thoughts as `encrypted_content`: merely encoded, since they never leave for anybody but their own client."""
    return base64.b64encode(text.encode()).decode()


def decode_thoughts(encoded: str) -> str:
    """What `encode_thoughts` encoded. Raises ValueError where it is something else."""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("it was not made by brim, which cannot read it; leave the item out") from None


def _kind(value: dict[str, Any]) -> str | None:
    if "role" in value:
        return "message"
    return "item_reference" if value.keys() == {"id"} or value.keys() == {"id", "type"} else None


Known = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem
_KNOWN: dict[str, type[StrictModel]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionOutputItem,
    "reasoning": ReasoningItem,
}
KeptItem = Annotated[Known, tagged("kept item", _KNOWN)]
AnyItem = Annotated[
    Known | ItemReference, tagged("input item", {**_KNOWN, "item_reference": ItemReference}, untagged=_kind)
]
