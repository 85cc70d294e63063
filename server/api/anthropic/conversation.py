"""Anthropic's turns of content blocks, as messages that chat templates know: OpenAI's form."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from server.api.anthropic.blocks import (
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from server.api.anthropic.blocks import Block
    from server.chat.media import Shown
    from server.chat.template import Message

_BILLING = "x-anthropic-billing-header:"
"""How a system block begins in which Claude Code speaks to Anthropic's billing. Its value differs from request to
request, so that no prefix after it would ever be found in the cache."""


def to_messages(
    system: str | Sequence[TextBlock] | None, turns: Iterable[tuple[str, str | Sequence[Block]]], shown: Shown
) -> list[Message]:
    """Translate a conversation.

    Consecutive turns of one role count as one. Pieces of what a model reads are joined by a line break, pieces that
    it wrote itself by nothing, as it wrote them. A tool's result becomes a message of its own.

    Args:
        system: the system prompt.
        turns: roles (`user`, `assistant`, `system`) and contents.
        shown: takes in the images.
    """
    blocks = [TextBlock(type="text", text=system)] if isinstance(system, str) else system or ()
    messages = _system([block for block in blocks if not block.text.startswith(_BILLING)])
    for role, same in groupby(turns, key=lambda turn: turn[0]):
        content = [block for _, given in same for block in _as_blocks(given)]
        if role == "assistant":
            messages.append(_assistant(content))
        elif role == "system":
            messages += _system(content)
        else:
            messages += _user(content, shown)
    return messages


def _as_blocks(content: str | Sequence[Block]) -> Sequence[Block]:
    return [TextBlock(type="text", text=content)] if isinstance(content, str) else content


def _system(blocks: Sequence[Block]) -> list[Message]:
    text = "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
    return [{"role": "system", "content": text}] if text else []


def _user(blocks: Sequence[Block], shown: Shown) -> list[Message]:
    """A user's turn: messages of text and of tools' results in the order given."""
    messages: list[Message] = []
    for results, same in groupby(blocks, key=lambda block: isinstance(block, ToolResultBlock)):
        if results:
            messages += [_result(block, shown) for block in same if isinstance(block, ToolResultBlock)]
        else:
            readable = [
                read(block, shown)
                for block in same
                if not isinstance(block, ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock)
            ]
            messages.append({"role": "user", "content": "\n".join(readable)})
    return messages or [{"role": "user", "content": ""}]


def _result(block: ToolResultBlock, shown: Shown) -> Message:
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": block.read(shown)}


def _assistant(blocks: Sequence[Block]) -> Message:
    message: Message = {
        "role": "assistant",
        "content": "".join(block.text for block in blocks if isinstance(block, TextBlock)),
    }
    if thoughts := "".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock)):
        message["reasoning_content"] = thoughts
    calls: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": msgspec.json.encode(block.input).decode()}
            calls.append({"id": block.id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    return message
