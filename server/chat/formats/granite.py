"""Granite 3: a JSON list after `<|tool_call|>`, reasoning between `<think>` tags and the answer in `<response>` tags.

Granite 4 writes as Hermes does. Source: https://www.ibm.com/granite/docs/models/granite/#chat-template
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import any_mark, json_calls, sequence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

OPEN = "<|tool_call|>"
OPENS = (OPEN, "<tool_call>")


class GraniteReader(MarkedJsonReader):
    """One mark for all calls."""

    opens = OPENS
    wrapping = ("<response>", "</response>")


class Granite(ChatFormat):
    """`<|tool_call|>[{"name": ..., "arguments": {...}}]`."""

    name = "granite"
    marks = (OPEN, "<tool_call>", "<think>", "</think>")
    telling = (OPEN, "<|start_of_role|>")
    reader = GraniteReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        rules = sequence('"[" object', '", " object', '"]"', parallel=parallel)
        return CallGrammar(any_mark(OPENS, special), rules + json_calls(tools), OPENS)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(json_object(*call) for call in calls)}]"
