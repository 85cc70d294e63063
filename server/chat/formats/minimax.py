"""MiniMax, of two generations: M1 writes lines of JSON between two tags, M2 a tag for each call and each argument.

Sources: https://huggingface.co/MiniMaxAI/MiniMax-M1-80k/blob/main/docs/function_call_guide.md and
https://huggingface.co/MiniMaxAI/MiniMax-M2/blob/main/docs/tool_calling_guide.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_call, json_object
from server.chat.formats.lark import json_calls, mark, sequence
from server.chat.formats.reader import Reader
from server.chat.formats.tagged_calls import TaggedFormat, Tags

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

LINES, LINES_END = "<tool_calls>", "</tool_calls>"
OPEN, CLOSE = "<minimax:tool_call>", "</minimax:tool_call>"
FUNCTION, ARGUMENT = '<invoke name="', '<parameter name="'


class MiniMaxM1Reader(Reader):
    """Any number of calls between the tags, with white space around them."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (yield from self.until((LINES,), self.content)):
            while (yield from json_call(self)):
                yield from self.space()
                if not (yield from self.peek("{")):
                    yield from self.closing(LINES_END)
                    break


class MiniMaxM1(ChatFormat):
    """A line of JSON for each call."""

    name = "minimax-m1"
    marks = (LINES, LINES_END, "<think>", "</think>")
    telling = ("<beginning_of_sentence>", LINES)
    reader = MiniMaxM1Reader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call on a line of its own."""
        opening, end = mark(LINES, special), mark(LINES_END, special)
        rules = sequence(r'"\n" object "\n"', r'object "\n"', end, parallel=parallel)
        return CallGrammar(opening, rules + json_calls(tools, end='"}"'), (LINES,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each call on a line of its own."""
        return f"{LINES}\n" + "".join(f"{json_object(*call)}\n" for call in calls) + LINES_END


class MiniMaxM2(TaggedFormat):
    """A tag around all calls, one for each, and one for each argument."""

    name = "minimax-m2"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = (OPEN, FUNCTION, ARGUMENT)
    tags = Tags(
        outer=(OPEN, CLOSE),
        shared=True,
        function=FUNCTION,
        named='">',
        function_end="</invoke>",
        parameter=ARGUMENT,
        text='">',
        other='">',
        parameter_end="</parameter>",
    )
