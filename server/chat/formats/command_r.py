"""Command R, of two generations: a JSON list in a fenced block, or between marks of its own.

Sources: https://docs.cohere.com/docs/command-r-plus-hf and https://docs.cohere.com/docs/command-r7b-hf
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.beginnings import any_text, json_begun
from server.chat.formats.json_calls import MarkedJsonReader, json_call, json_object
from server.chat.formats.lark import LOOSE, any_mark, json_calls, mark, sequence, spaced_calls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

KEYS = ("tool_name", "parameters")
BLOCK = "Action:\n```json"
BLOCKS = (BLOCK, "Action: ```json")
OPEN, CLOSE = "<|START_ACTION|>", "<|END_ACTION|>"
THINK, THOUGHT = "<|START_THINKING|>", "<|END_THINKING|>"
WRAPPING = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")


class CommandRReader(MarkedJsonReader):
    """Calls follow the heading `Action:`, as does the word that there is none: `directly_answer`."""

    opens = BLOCKS
    closes = ("```",)
    thinking = None
    call = staticmethod(partial(json_call, named_first=True))


class CommandR(ChatFormat):
    """A list of calls in a fenced block of JSON."""

    name = "command-r"
    marks = ()
    telling = ("Action:\\n```json", "<|START_OF_TURN_TOKEN|>")
    reasoning = None
    reader = CommandRReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel, spaced as a model likes: some indent it deeply."""
        rules = sequence("WS? open object", "comma object", 'close WS? "```"', parallel=parallel)
        rules += LOOSE + spaced_calls(tools, KEYS[0], KEYS[1:])
        trigger = rf"{any_text(BLOCKS)}\s*{json_begun(tools)}"
        return CallGrammar(any_mark(BLOCKS, {}), rules, BLOCKS, trigger)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{BLOCK}\n[\n    " + ",\n    ".join(json_object(*call, keys=KEYS) for call in calls) + "\n]```"


class CommandR7BReader(MarkedJsonReader):
    """Calls, reasoning and the answer's text have marks of their own."""

    opens = (OPEN,)
    closes = (CLOSE,)
    thinking = (THINK, THOUGHT)
    wrapping = WRAPPING


class CommandR7B(ChatFormat):
    """Command R7B, Command A and their successors: calls are numbered."""

    name = "command-r7b"
    marks = (OPEN, CLOSE, THINK, THOUGHT, *WRAPPING)
    telling = (OPEN, CLOSE)
    reasoning = (THINK, THOUGHT)
    reader = CommandR7BReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        number = r'"{\"tool_call_id\": \"" /[0-9]{1,2}/ "\", "'
        end = rf'"\n]" {mark(CLOSE, special)}'
        rules = sequence(rf'"[\n    " {number} object', rf'",\n    " {number} object', end, parallel=parallel)
        return CallGrammar(mark(OPEN, special), rules + json_calls(tools, keys=KEYS, begin=""), (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        items = (
            f'{{"tool_call_id": "{index}", "tool_name": {json.dumps(name)}, "parameters": {arguments}}}'
            for index, (name, arguments) in enumerate(calls)
        )
        return f"{OPEN}[\n    " + ",\n    ".join(items) + f"\n]{CLOSE}"
