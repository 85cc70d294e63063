"""gpt-oss: Harmony, in which an answer is messages with channels and recipients.

The package openai-harmony is not used: its encoding is fetched from the network, and it reads tokens, not text.
Source: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.beginnings import any_name, any_text
from server.chat.formats.json_calls import json_arguments
from server.chat.formats.lark import any_of, literal, mark
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
TO = "to=functions."
TO_TOOL = f"commentary {TO}"

_RECIPIENT = re.compile(re.escape(TO) + r"([\w.-]+)|to=[\w.-]+")
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
_HEADER_SO_FAR = re.compile(r"[\w<|>=.\s-]*")


class HarmonyReader(Reader):
    """The prompt ends within the first message's header."""

    def read(self) -> Generator[None, None, None]:
        """Message by message."""
        if self.reasons:
            yield from self._thoughts()
        while not (yield from self.at_end()):
            yield from self.space()
            if (yield from self.one_of((START, CHANNEL, TO, MESSAGE))):
                yield from self._message()
            else:
                self.give_up()
                yield from self._text()

    def _message(self) -> Generator[None, None, None]:
        """Read a message whose header is begun."""
        if not self.unsure.endswith(MESSAGE) and not (yield from self.until((MESSAGE,), self.keep)):
            if _HEADER_SO_FAR.fullmatch(self.unsure):
                self.settle()  # the answer ends within a header
            self.give_up()
            return
        channel = _CHANNEL.search(self.unsure)
        recipient = None if self.lost else _RECIPIENT.search(self.unsure)
        if recipient and recipient[1] in self.tools:
            if (yield from json_arguments(self, recipient[1])):
                yield from self.closing(*ENDS)
        elif recipient:
            self.give_up()
            yield from self._text()
        elif channel and channel[1] == "analysis":
            self.settle()
            yield from self._thoughts()
        else:
            self.settle()
            yield from self._text()

    def _thoughts(self) -> Generator[None, None, None]:
        """Read reasoning up to the message's end, as content."""
        if (yield from self.thoughts((*ENDS, START))) == START:
            self.put_back(START)

    def _text(self) -> Generator[None, None, None]:
        """Read content up to the message's end, which a following message's beginning is too."""
        end = yield from self.until((*ENDS, START), self.content)
        self.settle()
        if end == START:
            self.put_back(START)


class Harmony(ChatFormat):
    """`<|channel|>commentary to=functions.name <|constrain|>json<|message|>{...}<|call|>`, one call an answer."""

    name = "harmony"
    marks = (START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS)
    text_opening = f"{CHANNEL}final{MESSAGE}"
    reasoning_joint = f"{START}assistant"
    reasoning_cuts = (START, *ENDS[1:])
    telling = (CHANNEL, MESSAGE)
    reasoning = (f"{CHANNEL}analysis{MESSAGE}", ENDS[0])
    calls_end_reasoning = True
    reader = HarmonyReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """One call: the mark after it ends the answer. Its recipient may stand before the channel."""
        channel, constrain, message, end = (mark(text, special) for text in (CHANNEL, CONSTRAIN, MESSAGE, "<|call|>"))
        middle = f'({channel} "commentary")? (" "? {constrain} " "? "json" | " json" | " code")? {message}'
        rules = "calls: call\n" + any_of(
            "call", tools, lambda tool, arguments: f"{literal(tool.name)} {middle} {arguments} {end}"
        )
        opening = f'(({channel} "commentary ")? {literal(TO)} | {literal(" " + TO)})'
        header = rf"(?:(?!{re.escape(MESSAGE)}|to=[\w.-]).)*?({re.escape(TO)}{any_name(tools)})(?![\w.-])"
        begun = f"(?={any_text((CHANNEL, TO, MESSAGE))})"
        after = rf"{any_text(ENDS)}\s*{begun}"
        trigger = f"(?:{re.escape(START)}|{after}){header}"
        return CallGrammar(opening, rules, tuple(TO + tool.name for tool in tools), trigger, begun + header)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """A message for each; a model makes one at a time."""
        header = f"{CHANNEL}{TO_TOOL}"
        return f"{START}assistant".join(
            f"{header}{name} {CONSTRAIN}json{MESSAGE}{arguments}<|call|>" for name, arguments in calls
        )
