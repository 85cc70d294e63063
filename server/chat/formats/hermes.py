"""Hermes 2 and 3, Qwen 2.5, Qwen 3 and QwQ: JSON between `<tool_call>` tags, reasoning between `<think>` tags.

Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_calls, mark
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, THOUGHT = "<think>", "</think>"


class HermesReader(Reader):
    """Each call has tags of its own."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning(THINK, THOUGHT)
        while self.tools and (yield from self.until((OPEN,), self.content)):
            if (yield from self.json_call()):
                yield from self.closing(CLOSE)


class Hermes(ChatFormat):
    """An object of name and arguments between tags, each on a line of its own."""

    name = "hermes"
    marks = (OPEN, CLOSE, THINK, THOUGHT)
    telling = (OPEN, CLOSE)
    reader = HermesReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The object alone on the lines between the tags."""
        opening = mark(OPEN, special)
        again = f' ("\\n" {opening} call)*' if parallel else ""
        rules = f'calls: call{again}\ncall: "\\n" object "\\n" {mark(CLOSE, special)}\n{json_calls(tools)}'
        return CallGrammar(opening, rules, OPEN)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One pair of tags for each."""
        return "\n".join(
            f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{CLOSE}' for name, arguments in calls
        )
