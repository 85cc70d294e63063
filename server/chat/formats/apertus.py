"""Apertus: between two marks a JSON list of objects whose one key is the function's name.

Source: https://huggingface.co/swiss-ai/Apertus-8B-Instruct-2509/blob/main/chat_template.jinja
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_arguments, json_call_list
from server.chat.formats.lark import any_of, literal, mark, sequence
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<|tools_prefix|>", "<|tools_suffix|>"
THINK, THOUGHT = "<|inner_prefix|>", "<|inner_suffix|>"


class ApertusReader(Reader):
    """One pair of marks for all calls."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning(THINK, THOUGHT)
        while self.tools and (yield from self.until((OPEN,), self.content)):
            if (yield from json_call_list(self, _keyed_call)):
                yield from self.closing(CLOSE)


def _keyed_call(reader: Reader) -> Generator[None, None, bool]:
    """Read `{"name": {...}}`; whether it was a whole call."""
    yield from reader.space()
    name = (yield from reader.json_string()) if (yield from reader.one_of(("{",))) else None
    yield from reader.space()
    if name is None or name not in reader.tools or not (yield from reader.one_of((":",))):
        reader.give_up()
        return False
    if not (yield from json_arguments(reader, name)):
        return False
    yield from reader.space()
    return reader.conclude(started=True, whole=bool((yield from reader.one_of(("}",)))))


class Apertus(ChatFormat):
    """`<|tools_prefix|>[{"name": {...}}]<|tools_suffix|>`."""

    name = "apertus"
    marks = (OPEN, CLOSE, THINK, THOUGHT)
    telling = (OPEN, CLOSE)
    reasoning = (THINK, THOUGHT)
    reader = ApertusReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        rules = sequence('"[" call', '", " call', f'"]" {mark(CLOSE, special)}', parallel=parallel)
        rules += any_of(
            "call", tools, lambda tool, arguments: f'{literal("{" + json.dumps(tool.name) + ": ")} {arguments} "}}"'
        )
        return CallGrammar(mark(OPEN, special), rules, (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        written = (f"{{{json.dumps(name)}: {arguments}}}" for name, arguments in calls)
        return f"{OPEN}[{', '.join(written)}]{CLOSE}"
