"""An answer as Anthropic's content blocks, and the events of the stream that tells of them.

Source: https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field
from pydantic_core import from_json

from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning

if TYPE_CHECKING:
    from collections.abc import Collection

    from server.chat.answer import ChatDelta, ChatFinish
    from server.engine.messages import Usage

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class Text(Struct, tag_field="type", tag="text"):
    """A piece of the answer's text."""

    text: str = ""
    citations: None = None


class Thoughts(Struct, tag_field="type", tag="thinking"):
    """What the model thought. The signature is a digest of it."""

    thinking: str = ""
    signature: str = ""


class ToolUse(Struct, tag_field="type", tag="tool_use"):
    """A call that the client is asked to make."""

    id: str
    name: str
    input: dict[str, Any] = field(default_factory=dict[str, Any])


OutputBlock = Text | Thoughts | ToolUse


class OutputDetails(Struct):
    """How many of the generated tokens were thoughts."""

    thinking_tokens: int = 0


class UsageObject(Struct):
    """Anthropic's `usage`: `input_tokens` are those not found in the cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens_details: OutputDetails = field(default_factory=OutputDetails)


class MessageObject(Struct):
    """The whole answer."""

    id: str
    model: str
    content: list[OutputBlock]
    usage: UsageObject
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    type: str = "message"
    role: str = "assistant"


class MessageWriter:
    """Orders what an answer's deltas bring into content blocks, and writes the events that tell of it.

    Args:
        model: who answers.
        stop_sequences: those of the request: only these are named as what ended the answer.
        max_tokens: the request's.
        shows_thinking: whether thoughts are sent; otherwise their block is empty.
    """

    def __init__(self, model: str, *, stop_sequences: Collection[str], max_tokens: int, shows_thinking: bool) -> None:
        self.message = MessageObject(f"msg_{secrets.token_hex(12)}", model, [], UsageObject(0, 0))
        self._stop_sequences = stop_sequences
        self._max_tokens = max_tokens
        self._shows_thinking = shows_thinking
        self._open: OutputBlock | None = None
        self._pieces: list[str] = []
        self._thinking_tokens = 0
        self._pinged = False
        self._finish: ChatFinish | None = None

    def begin(self, prompt_tokens: int) -> bytes:
        """The stream's first event. How many of the prompt's tokens are cached is only known at its end."""
        self.message.usage = UsageObject(prompt_tokens, 0)
        return _event("message_start", message=self.message)

    def add(self, delta: ChatDelta) -> bytes:
        """Take in what comes next; returns the events that tell of it, which may be none."""
        self._thinking_tokens += delta.reasoning_tokens
        events = b"".join(self._take(event) for event in delta.events)
        if delta.finish is not None:
            events += self._close()
            self._finish = delta.finish
            self.message.stop_reason = self._stop_reason(delta)
            if self.message.stop_reason == "stop_sequence":
                self.message.stop_sequence = delta.stop_string
        return events

    def end(self, usage: Usage) -> bytes:
        """The stream's last events."""
        self.message.usage = UsageObject(
            input_tokens=usage.prompt_tokens - usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_input_tokens=usage.cached_tokens,
            output_tokens_details=OutputDetails(self._thinking_tokens),
        )
        if self._finish == "length" and usage.completion_tokens < self._max_tokens:
            self.message.stop_reason = "model_context_window_exceeded"
        delta = {"stop_reason": self.message.stop_reason, "stop_sequence": self.message.stop_sequence}
        return _event("message_delta", delta=delta, usage=self.message.usage) + _event("message_stop")

    def _stop_reason(self, delta: ChatDelta) -> StopReason:
        if delta.finish in ("length", "time"):
            return "max_tokens"
        if delta.finish == "tool_calls":
            return "tool_use"
        return "stop_sequence" if delta.stop_string in self._stop_sequences else "end_turn"

    def _take(self, event: Event) -> bytes:
        match event:
            case Content(text):
                begin = b"" if isinstance(self._open, Text) else self._begin(Text())
                return begin + self._more(text, {"type": "text_delta", "text": text})
            case Reasoning(text):
                begin = b"" if isinstance(self._open, Thoughts) else self._begin(Thoughts())
                if not self._shows_thinking:
                    return begin
                return begin + self._more(text, {"type": "thinking_delta", "thinking": text})
            case CallStart(_, name):
                return self._begin(ToolUse(f"toolu_{secrets.token_hex(12)}", name))
            case CallArguments(_, text):
                return self._more(text, {"type": "input_json_delta", "partial_json": text})

    def _begin(self, block: OutputBlock) -> bytes:
        events = self._close()
        events += _event("content_block_start", index=len(self.message.content), content_block=block)
        if not self._pinged:
            events += _event("ping")
            self._pinged = True
        self._open = block
        self.message.content.append(block)
        return events

    def _more(self, text: str, delta: dict[str, str]) -> bytes:
        self._pieces.append(text)
        return _event("content_block_delta", index=len(self.message.content) - 1, delta=delta)

    def _close(self) -> bytes:
        """End the open block, if there is one: only now is it whole."""
        block, text = self._open, "".join(self._pieces)
        self._open, self._pieces = None, []
        index = len(self.message.content) - 1
        signed = b""
        match block:
            case None:
                return b""
            case Text():
                block.text = text
            case Thoughts():
                block.thinking = text
                block.signature = hashlib.sha256(text.encode()).hexdigest()
                delta = {"type": "signature_delta", "signature": block.signature}
                signed = _event("content_block_delta", index=index, delta=delta)
            case ToolUse():
                block.input = _object(text)
        return signed + _event("content_block_stop", index=index)


def _object(text: str) -> dict[str, Any]:
    """A call's arguments; of a call that was cut short, those that are whole."""
    try:
        found = from_json(text, allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _event(name: str, **content: Any) -> bytes:
    body = msgspec.json.encode({"type": name, **content})
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body)
