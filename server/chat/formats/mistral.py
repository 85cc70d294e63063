"""Mistral, of two generations: a JSON list after `[TOOL_CALLS]`, or for each call its name, `[ARGS]` and arguments.

Source: https://github.com/mistralai/mistral-common/blob/main/src/mistral_common/tokens/tokenizers/instruct.py
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_arguments, json_call_list, json_object
from server.chat.formats.lark import any_of, json_calls, literal, mark, sequence
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
THINK, THOUGHT = "[THINK]", "[/THINK]"

_ID = re.compile(r"\w")


class MistralReader(Reader):
    """Reads both generations: what follows the mark tells them apart."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning(THINK, THOUGHT)
        while self.tools and (yield from self.until((OPEN,), self.content)):
            yield from self.space()
            if (yield from self.peek("[")) or (yield from self.peek("{")):
                yield from json_call_list(self)
            else:
                yield from self._named_call()

    def _named_call(self) -> Generator[None, None, None]:
        name = yield from self.name()
        if (yield from self.one_of((CALL_ID,))):
            yield from self.matching(_ID)
        if name not in self.tools:
            self.give_up()
        else:
            yield from self.one_of((ARGUMENTS,))
            yield from json_arguments(self, name)


class MistralNemo(ChatFormat):
    """Up to 2024: `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": "123456789"}]`."""

    name = "mistral-nemo"
    marks = (OPEN, THINK, THOUGHT)
    telling = (OPEN,)
    reasoning = (THINK, THOUGHT)
    reader = MistralReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel. The model may number its calls."""
        rules = sequence('"[" object', '", " object', '"]"', parallel=parallel)
        rules += json_calls(tools, end=r'(", \"id\": \"" /[a-zA-Z0-9]{9}/ "\"")? "}"')
        return CallGrammar(mark(OPEN, special), rules, (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(json_object(*call) for call in calls)}]"


class Mistral(ChatFormat):
    """Since 2025: `[TOOL_CALLS]name[ARGS]{...}`, once for each call."""

    name = "mistral"
    marks = (OPEN, ARGUMENTS, CALL_ID, THINK, THOUGHT)
    telling = (OPEN, ARGUMENTS)
    reasoning = (THINK, THOUGHT)
    reader = MistralReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call has a mark of its own."""
        opening = mark(OPEN, special)
        rules = sequence("call", f"{opening} call", parallel=parallel)
        rules += any_of(
            "call", tools, lambda tool, arguments: f"{literal(tool.name)} {mark(ARGUMENTS, special)} {arguments}"
        )
        return CallGrammar(opening, rules, (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One mark for each."""
        return "".join(f"{OPEN}{name}{ARGUMENTS}{arguments}" for name, arguments in calls)
