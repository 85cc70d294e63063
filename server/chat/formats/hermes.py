"""Hermes 2 and 3, Qwen 2.5, Qwen 3, QwQ and Granite 4: JSON between `<tool_call>` tags.

Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import any_mark, json_calls, mark, sequence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
OPENS = (OPEN, "<tool_calls>")


class HermesReader(MarkedJsonReader):
    """Each call has tags of its own."""

    opens = OPENS
    closes = (CLOSE, "</tool_calls>")


class Hermes(ChatFormat):
    """An object of name and arguments between tags, each on a line of its own."""

    name = "hermes"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = (OPEN, CLOSE, '"arguments": ')
    reader = HermesReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The object alone on the lines between the tags."""
        opening = mark(OPEN, special)
        rules = sequence("call", f'"\\n" {opening} call', parallel=parallel)
        rules += f'call: "\\n" object "\\n" {mark(CLOSE, special)}\n{json_calls(tools)}'
        return CallGrammar(any_mark(OPENS, special), rules, OPENS)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One pair of tags for each."""
        return "\n".join(f"{OPEN}\n{json_object(*call)}\n{CLOSE}" for call in calls)
