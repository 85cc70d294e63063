"""DeepSeek R1 and V3, and V3.1: calls between marks, their arguments in a fenced block or bare.

Sources: https://huggingface.co/deepseek-ai/DeepSeek-R1 and https://huggingface.co/deepseek-ai/DeepSeek-V3.1#toolcall
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_arguments
from server.chat.formats.lark import any_of, literal, mark, sequence
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
OPEN, CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
MARKS = (BEGIN, END, OPEN, CLOSE, SEPARATOR, "<think>", "</think>")


class DeepSeekReader(Reader):
    """Reads both generations: after the separator comes the name, or at once the arguments."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (mark := (yield from self.until((BEGIN, OPEN), self.content))):
            yield from self.space()
            if mark == OPEN or (yield from self.one_of((OPEN,))):
                if (yield from self._call()):
                    yield from self.closing("```", CLOSE, END)
            else:
                self.give_up()

    def _call(self) -> Generator[None, None, bool]:
        name = yield from self.name()
        yield from self.one_of((SEPARATOR,))
        yield from self.space()
        if not (yield from self.peek("{")):
            name = yield from self.name()
            yield from self.space()
            yield from self.one_of(("```json", "```"))
        if name not in self.tools:
            self.give_up()
            return False
        return (yield from json_arguments(self, name))


class DeepSeekR1(ChatFormat):
    """The name on a line of its own, then the arguments in a fenced block of JSON."""

    name = "deepseek-r1"
    marks = MARKS
    telling = (BEGIN, "```json")
    reader = DeepSeekReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call between marks, and marks around all."""
        head, close = f'{mark(OPEN, special)} "function" {mark(SEPARATOR, special)}', mark(CLOSE, special)
        rules = sequence("call", r'"\n" call', mark(END, special), parallel=parallel)
        rules += any_of(
            "call",
            tools,
            lambda tool, arguments: rf'{head} {literal(tool.name)} "\n```json\n" {arguments} "\n```" {close}',
        )
        return CallGrammar(f"{mark(BEGIN, special)}?", rules, (BEGIN, OPEN))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each call between marks, and marks around all."""
        return (
            BEGIN
            + "\n".join(
                f"{OPEN}function{SEPARATOR}{name}\n```json\n{arguments}\n```{CLOSE}" for name, arguments in calls
            )
            + END
        )


class DeepSeekV31(ChatFormat):
    """Name, separator and arguments, without more."""

    name = "deepseek-v3.1"
    marks = MARKS
    telling = (BEGIN,)
    reader = DeepSeekReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call between marks, and marks around all."""
        opening, separator, close = (mark(text, special) for text in (OPEN, SEPARATOR, CLOSE))
        rules = sequence("call", "call", mark(END, special), parallel=parallel)
        rules += any_of(
            "call", tools, lambda tool, arguments: f"{opening} {literal(tool.name)} {separator} {arguments} {close}"
        )
        return CallGrammar(f"{mark(BEGIN, special)}?", rules, (BEGIN, OPEN))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each call between marks, and marks around all."""
        return BEGIN + "".join(f"{OPEN}{name}{SEPARATOR}{arguments}{CLOSE}" for name, arguments in calls) + END
