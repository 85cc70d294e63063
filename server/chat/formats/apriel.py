"""Apriel 1.5 and 1.6: a JSON list of calls between `<tool_calls>` tags, and reasoning that is told by its first words.

Source: https://huggingface.co/ServiceNow-AI/Apriel-1.6-15b-Thinker/blob/main/chat_template.jinja
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import json_calls, mark, sequence

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<tool_calls>", "</tool_calls>"
LISTED = f"{OPEN}["
"""The tag alone may be spoken of."""
THINK, THOUGHT = "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"
ANSWERED = "[END FINAL RESPONSE]"


class AprielReader(MarkedJsonReader):
    """Version 1.5 ends its answers with a mark too. A call may come straight out of reasoning."""

    opens = (LISTED,)
    closes = (CLOSE, ANSWERED)
    thinking = (THINK, THOUGHT)
    wrapping = (ANSWERED,)

    def reasoning(self, begin: str, end: str, *opens: str) -> Generator[None, None, None]:
        """Read what the model thinks, up to its answer or to its calls."""
        yield from super().reasoning(begin, end, *opens, *(self.opens if self.tools else ()))


class Apriel(ChatFormat):
    """`<tool_calls>[{"name": ..., "arguments": {...}}]</tool_calls>`."""

    name = "apriel"
    marks = (OPEN, CLOSE, THOUGHT, ANSWERED)
    telling = (LISTED, "[BEGIN FINAL RESPONSE]")
    reasoning = (THINK, THOUGHT)
    calls_end_reasoning = True
    reader = AprielReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        rules = sequence("object", '", " object', f'"]" {mark(CLOSE, special)}', parallel=parallel)
        return CallGrammar(mark(LISTED, special), rules + json_calls(tools), (LISTED,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(json_object(*call) for call in calls)}]{CLOSE}"
