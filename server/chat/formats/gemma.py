"""Gemma 2 and 3: Python in a block of code. The models have no form of their own and take what they are told.

Source: https://ai.google.dev/gemma/docs/capabilities/function-calling
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import literal, sequence
from server.chat.formats.pythonic import in_python, python_call, python_calls
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "```tool_code\n", "```"


class GemmaReader(Reader):
    """One call a line; the model may print it."""

    def read(self) -> Generator[None, None, None]:
        """Content with blocks of calls in it."""
        while self.tools and (yield from self.until((OPEN,), self.content)):
            while (yield from self._line()):
                yield from self.space()
                if (yield from self.peek(CLOSE)):
                    yield from self.closing(CLOSE)
                    break

    def _line(self) -> Generator[None, None, bool]:
        printed = "" if "print" in self.tools else (yield from self.one_of(("print(",)))
        if not (yield from python_call(self)):
            return False
        if printed:
            yield from self.closing(")")
        return True


class Gemma(ChatFormat):
    """A fenced block of calls, one a line."""

    name = "gemma"
    telling = ("<start_of_turn>",)
    reasoning = None
    reader = GemmaReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The lines, and the fence that ends them."""
        rules = sequence("call", r'"\n" call', r'"\n```"', parallel=parallel) + python_calls(tools)
        return CallGrammar(literal(OPEN), rules, (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One block for all."""
        return OPEN + "\n".join(in_python(*call) for call in calls) + "\n" + CLOSE
