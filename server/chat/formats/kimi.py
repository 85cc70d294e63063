"""Kimi K2: calls between marks, named by an id that counts them: `functions.name:0`.

Source: https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/docs/tool_call_guidance.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_arguments
from server.chat.formats.lark import any_of, literal, mark, sequence
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

BEGIN, END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
OPEN, CLOSE = "<|tool_call_begin|>", "<|tool_call_end|>"
ARGUMENTS = "<|tool_call_argument_begin|>"
SPACE = "functions."

_COUNT = re.compile(r"[:\d]")


class KimiReader(Reader):
    """The marks around all calls may be missing, and so may the mark that ends reasoning before them."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>", *((BEGIN, OPEN) if self.tools else ()))
        while self.tools and (found := (yield from self.until((BEGIN, OPEN), self.content))):
            if found == OPEN:
                self.put_back(OPEN)
            while (yield from self._call()):
                yield from self.closing(CLOSE)
                if not (yield from self.peek(OPEN)):
                    yield from self.closing(END)
                    break

    def _call(self) -> Generator[None, None, bool]:
        yield from self.space()
        yield from self.one_of((OPEN,))
        yield from self.space()
        name = (yield from self.name()).removeprefix(SPACE)
        yield from self.matching(_COUNT)
        yield from self.space()
        if name not in self.tools or not (yield from self.one_of((ARGUMENTS,))):
            self.give_up()
            return False
        return (yield from json_arguments(self, name))


class KimiK2(ChatFormat):
    """The model counts its calls through the conversation."""

    name = "kimi-k2"
    marks = (BEGIN, END, OPEN, CLOSE, ARGUMENTS, "<think>", "</think>")
    telling = (OPEN, ARGUMENTS)
    calls_end_reasoning = True
    reader = KimiReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call between marks, and marks around all."""
        opening, middle, close = (mark(text, special) for text in (OPEN, ARGUMENTS, CLOSE))
        rules = sequence("call", "call", mark(END, special), parallel=parallel)
        rules += any_of(
            "call",
            tools,
            lambda tool, arguments: (
                f"{opening} {literal(f'{SPACE}{tool.name}:')} /[0-9]+/ {middle} {arguments} {close}"
            ),
        )
        return CallGrammar(f"{mark(BEGIN, special)}?", rules, (BEGIN, OPEN))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each call between marks, and marks around all."""
        written = (
            f"{OPEN}{SPACE}{name}:{index}{ARGUMENTS}{arguments}{CLOSE}" for index, (name, arguments) in enumerate(calls)
        )
        return BEGIN + "".join(written) + END
