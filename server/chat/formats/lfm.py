"""LFM2 and LFM2.5: a list of calls in Python's notation between `<|tool_call_start|>` and `<|tool_call_end|>`.

Source: https://docs.liquid.ai/lfm/key-concepts/tool-use
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_call_list
from server.chat.formats.lark import json_calls, mark
from server.chat.formats.pythonic import in_python, python_call_list, python_calls
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_LISTS = ("List of tools: <|tool_list_start|>[", "List of tools: [")
"""How templates show tools: those of LFM2, of which most have no form for calls, and those of LFM2.5."""


class LfmReader(Reader):
    """A system message can have the models write JSON between the same marks."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (yield from self.until((OPEN,), self.content)):
            yield from self.space()
            bracket = yield from self.one_of(("[",))
            space = yield from self.space()
            if not (yield from self.peek("{")):
                yield from python_call_list(self, CLOSE)
                continue
            self.put_back(bracket + space)
            if (yield from json_call_list(self)):
                yield from self.closing(CLOSE)


class Lfm(ChatFormat):
    """`<|tool_call_start|>[name(key="value", ...), ...]<|tool_call_end|>`."""

    name = "lfm"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    reader = LfmReader

    def recognises(self, template: str) -> bool:
        """Whether it lists tools as these models' templates do."""
        return "<|im_start|>" in template and any(shown in template for shown in _LISTS)

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel. It may be in JSON, for models that are told so."""

        def some(rule: str) -> str:
            return f"{rule} (comma {rule})*" if parallel else rule

        rules = f"calls: open ({some('call')} | {some('object')}) close {mark(CLOSE, special)}\n"
        return CallGrammar(mark(OPEN, special), rules + python_calls(tools) + json_calls(tools), (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(in_python(*call) for call in calls)}]{CLOSE}"
