"""GigaChat 3.1: a call in JSON after `<|function_call|>`, one at a time.

Source: https://huggingface.co/ai-sage/GigaChat3.1-10B-A1.8B/blob/main/chat_template.jinja
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import json_calls, mark, sequence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

OPEN = "<|function_call|>"


class GigaChatReader(MarkedJsonReader):
    """The turn ends with the call."""

    opens = (OPEN,)


class GigaChat(ChatFormat):
    """`<|function_call|>{"name": ..., "arguments": {...}}`."""

    name = "gigachat"
    marks = (OPEN, "<think>", "</think>")
    telling = (OPEN, "<|role_sep|>")
    reader = GigaChatReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call has a mark of its own."""
        opening = mark(OPEN, special)
        return CallGrammar(
            opening, sequence("object", f"{opening} object", parallel=parallel) + json_calls(tools), (OPEN,)
        )

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One mark for each."""
        return "".join(OPEN + json_object(*call) for call in calls)
