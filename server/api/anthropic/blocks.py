"""The content blocks of Anthropic's messages.

Source: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import field_validator

from server.api.media import Base64, ImageUrl, decode, locate
from server.api.strict import StrictModel, refused
from server.api.tagged import tagged

if TYPE_CHECKING:
    from server.chat.media import Shown

_NO_TOOLSETS = refused("brim has no toolsets")
NO_PICTURES = "brim reads no images in documents: send them as blocks of their own"


class CacheControl(StrictModel):
    """Where to cache up to. Accepted and without effect: brim caches every prefix by itself."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Citations(StrictModel):
    """Whether answers should cite a block; they cannot."""

    enabled: bool | None = None

    @field_validator("enabled")
    @classmethod
    def _off(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("brim does not make citations; leave it false")
        return value


class CacheableBlock(StrictModel):
    """A block that may be marked for caching."""

    cache_control: CacheControl | None = None


class TextBlock(CacheableBlock):
    """A piece of text."""

    type: Literal["text"]
    text: str
    citations: Any = None
    """Accepted and without effect: clients send answers back with all that they came with."""

    def plain(self) -> str:
        """What the model reads."""
        return self.text


class Base64Source(StrictModel):
    """An image's file."""

    type: Literal["base64"]
    media_type: str
    data: Base64


class UrlSource(StrictModel):
    """Where an image's file is."""

    type: Literal["url"]
    url: ImageUrl


_IMAGE_SOURCES = tagged(
    "source of an image",
    {"base64": Base64Source, "url": UrlSource},
    refused={
        "file": "brim keeps no files: send the image as a source of type base64",
    },
)


class ImageBlock(CacheableBlock):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, _IMAGE_SOURCES]


class TextSource(StrictModel):
    """A document's text."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str

    def plain(self) -> str:
        """What the model reads."""
        return self.data


class ContentSource(StrictModel):
    """A document's text in pieces."""

    type: Literal["content"]
    content: str | list[Annotated[TextBlock, tagged("piece", {"text": TextBlock}, refused={"image": NO_PICTURES})]]

    def plain(self) -> str:
        """What the model reads."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


_SOURCES = tagged(
    "source",
    {"text": TextSource, "content": ContentSource},
    refused={
        "base64": "brim reads no PDF: send the document's text as a source of type text",
        "url": "brim fetches no documents: send the document's text as a source of type text",
        "file": "brim keeps no files: send the document's text as a source of type text",
    },
)


class DocumentBlock(CacheableBlock):
    """A document in plain text."""

    type: Literal["document"]
    source: Annotated[TextSource | ContentSource, _SOURCES]
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None

    def plain(self) -> str:
        """What the model reads: title, context and text."""
        return "\n".join(part for part in (self.title, self.context, self.source.plain()) if part)


class SearchResultBlock(CacheableBlock):
    """Something that the client's own search found."""

    type: Literal["search_result"]
    source: str
    title: str
    content: list[TextBlock]
    citations: Citations | None = None

    def plain(self) -> str:
        """What the model reads: title, source and text."""
        return "\n".join([self.title, self.source, *(part.text for part in self.content)])


def read(block: TextBlock | ImageBlock | DocumentBlock | SearchResultBlock, shown: Shown) -> str:
    """What the model reads of a block; an image goes to `shown`, and a mark stands for it."""
    if not isinstance(block, ImageBlock):
        return block.plain()
    source = block.source
    return shown.add("image", decode(source.data) if isinstance(source, Base64Source) else locate(source.url))


class ToolUseBlock(CacheableBlock):
    """A call that the assistant made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Any = None
    """Accepted and without effect: brim's tools are always called directly."""
    toolset_name: Annotated[Any, _NO_TOOLSETS] = None


_RESULTS = tagged(
    "content block of a tool's result",
    {"text": TextBlock, "image": ImageBlock, "document": DocumentBlock, "search_result": SearchResultBlock},
)


class ToolResultBlock(CacheableBlock):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Annotated[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock, _RESULTS]] = ""
    is_error: bool | None = None
    toolset_name: Annotated[Any, _NO_TOOLSETS] = None

    def read(self, shown: Shown) -> str:
        """What the model reads; templates have no other way to mark an error."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(read(part, shown) for part in content)
        return f"Error: {text}" if self.is_error else text


class ThinkingBlock(StrictModel):
    """What the assistant thought. Its signature is not checked: nothing is decided by it on one's own machine."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(StrictModel):
    """Thoughts that only Anthropic can read; left out."""

    type: Literal["redacted_thinking"]
    data: str


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
)

AnyBlock = Annotated[
    Block,
    tagged(
        "content block",
        {
            "text": TextBlock,
            "image": ImageBlock,
            "document": DocumentBlock,
            "search_result": SearchResultBlock,
            "tool_use": ToolUseBlock,
            "tool_result": ToolResultBlock,
            "thinking": ThinkingBlock,
            "redacted_thinking": RedactedThinkingBlock,
        },
    ),
]
