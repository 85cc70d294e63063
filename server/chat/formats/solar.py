"""Solar Open: an answer is messages for reasoning, text and calls; a call is an id, a name and JSON between marks.

Source: https://huggingface.co/upstage/Solar-Open-100B/blob/main/chat_template.jinja
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

BEGIN, END = "<|begin|>", "<|end|>"
THINK, CONTENT = "<|think|>", "<|content|>"
CALLS, CALLS_END = "<|tool_calls|>", "<|calls|>"
OPEN, NAME, ARGUMENTS, CLOSE = "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"
FRAME = (f"{BEGIN}assistant", CONTENT, CALLS, END, CALLS_END)
"""Around messages: no part of what they say."""

_ID = re.compile(r"[\w-]")


class SolarReader(Reader):
    """The prompt ends within the first message's header."""

    def read(self) -> Generator[None, None, None]:
        """Message by message."""
        if self.reasons:
            yield from self.thoughts((END,))
        marks = (*FRAME, THINK, OPEN) if self.tools else (*FRAME, THINK)
        while found := (yield from self.until(marks, self.content)):
            if found == OPEN:
                yield from self._call()
                continue
            self.settle()
            if found == THINK:
                yield from self.thoughts((END,))

    def _call(self) -> Generator[None, None, None]:
        """Read a call whose first mark is consumed."""
        yield from self.matching(_ID)
        name = (yield from self.name()) if (yield from self.one_of((NAME,))) else ""
        if name not in self.tools or not (yield from self.one_of((ARGUMENTS,))):
            self.give_up()
        elif (yield from json_arguments(self, name)):
            yield from self.closing(CLOSE)


class SolarOpen(ChatFormat):
    """Calls have ids of ten letters and digits, which the model makes up."""

    name = "solar-open"
    marks = (BEGIN, END, THINK, CONTENT, CALLS, CALLS_END, OPEN, NAME, ARGUMENTS, CLOSE)
    text_opening = CONTENT
    reasoning_joint = f"{BEGIN}assistant"
    telling = (CALLS, OPEN, ARGUMENTS)
    reasoning = (THINK, END)
    reader = SolarReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """One message for all calls."""
        opening, middle, arguments_mark, close = (mark(text, special) for text in (OPEN, NAME, ARGUMENTS, CLOSE))
        rules = sequence("call", "call", mark(CALLS_END, special), parallel=parallel)
        rules += any_of(
            "call",
            tools,
            lambda tool, arguments: (
                f"{opening} /[a-z0-9]{{10}}/ {middle} {literal(tool.name)} {arguments_mark} {arguments} {close}"
            ),
        )
        return CallGrammar(f"{mark(CALLS, special)}?", rules, (CALLS, OPEN))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One message for all calls."""
        written = (
            f"{OPEN}call{index:06}{NAME}{name}{ARGUMENTS}{arguments}{CLOSE}"
            for index, (name, arguments) in enumerate(calls)
        )
        return CALLS + "".join(written) + CALLS_END
