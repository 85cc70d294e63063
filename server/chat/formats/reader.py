"""Machinery that the formats' parsers share: reading an answer as if it were all there, while it still grows."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING

from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.chat.formats.base import OutputParser
from server.chat.formats.json_text import JsonScanner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from server.chat.tools import Tool


MAX_HEAD = 250
"""How many characters the beginning of a call may have that no mark announces, up to its tool's name."""


class Reader(OutputParser):
    """A parser written as one generator, `read`, that waits wherever it needs text that is not there yet.

    Steps (`yield from self.one_of(...)`) decide only what no further text can change, which is why the cuts between
    pieces never show in the events. What is consumed but not yet understood stays in `_unsure`: `settle` drops it,
    `give_up` makes it content, so that no text is ever lost.
    """

    def __init__(self, tools: Sequence[Tool], *, reasons: bool) -> None:
        self.reasons = reasons
        self.tools = {tool.name: tool for tool in tools}
        self._rest = ""
        self._over = False
        self._unsure = ""
        self._space = ""
        self._events: list[Event] = []
        self._call_count = 0
        self._steps = self._run()
        self.depth = 0
        """How deep the value that is being read is nested in others."""

    @abstractmethod
    def read(self) -> Generator[None, None, None]:
        """Read the answer. What it leaves unread is content."""

    def push(self, text: str) -> list[Event]:
        """Go on reading with this text too."""
        self._rest += text
        return self._advance()

    def finish(self) -> list[Event]:
        """Read to the end, whatever was waited for."""
        self._over = True
        return self._advance()

    def _advance(self) -> list[Event]:
        next(self._steps, None)
        events, self._events = self._events, []
        return events

    def _run(self) -> Generator[None, None, None]:
        yield from self.read()
        self.give_up()
        yield from self.until((), self.content)
        if self._space:
            self._events.append(Content(self._space))

    # What is said

    def content(self, text: str) -> None:
        """More content. White space at its end waits: before a call it is no part of the answer."""
        text = self._space + text
        body = text.rstrip()
        self._space = text[len(body) :]
        if body:
            self._events.append(Content(body))

    @property
    def cut_short(self) -> bool:
        """Whether the text is over, all of it consumed."""
        return self._over and not self._rest

    @property
    def unsure(self) -> str:
        """What was consumed and is not yet understood."""
        return self._unsure

    @property
    def lost(self) -> bool:
        """Whether more was consumed, and is not yet understood, than a call without a mark may begin with."""
        return len(self._unsure) > MAX_HEAD

    def keep(self, text: str) -> None:
        """What is passed on here is consumed, but not yet understood."""
        self._unsure += text

    def settle(self) -> None:
        """What was consumed is understood."""
        self._unsure = ""

    def give_up(self) -> None:
        """What was consumed is no call: it is content."""
        text, self._unsure = self._unsure, ""
        if text:
            self.content(text)

    def conclude(self, *, started: bool, whole: bool) -> bool:
        """A call is read as far as it goes: what remains unsure is content, unless it is whole or cut short.

        Returns:
            Whether it was a call, and a whole one.
        """
        if started and (whole or self.cut_short):
            self.settle()
        else:
            self.give_up()
        return started and whole

    def start_call(self, name: str) -> Callable[[str], None]:
        """A call begins for certain; returns what takes its arguments' text, which settles what was consumed."""
        self.settle()
        self._space = ""
        self.depth = 0
        index = self._call_count
        self._call_count += 1
        self._events.append(CallStart(index, name))

        def pass_on(text: str) -> None:
            self.settle()
            if text:
                self._events.append(CallArguments(index, text))

        return pass_on

    # Steps

    def more(self) -> Generator[None, None, bool]:
        """Wait for more text; False when there will be none."""
        if self._over:
            return False
        yield
        return True

    def at_end(self) -> Generator[None, None, bool]:
        """Whether there is no more text to come."""
        while not self._rest:
            if not (yield from self.more()):
                return True
        return False

    def take(self, count: int) -> str:
        """Consume that many characters."""
        text, self._rest = self._rest[:count], self._rest[count:]
        self._unsure += text
        return text

    def put_back(self, text: str) -> None:
        """Have what was just consumed be read again."""
        self._rest = text + self._rest
        self._unsure = self._unsure.removesuffix(text)

    def until(self, marks: Sequence[str], pass_on: Callable[[str], None]) -> Generator[None, None, str]:
        """Pass on the text before the first of `marks` and consume the mark; returns it, or "" at the text's end."""
        marks = tuple(marks)
        while True:
            found = _pattern(marks).search(self._rest) if marks else None
            held = len(self._rest) if self._over else _possible_mark(self._rest, marks)
            if found and found.start() < held:
                self._pass_on(found.start(), pass_on)
                return self.take(len(found.group()))
            self._pass_on(held, pass_on)
            if not (yield from self.more()):
                return ""

    def _pass_on(self, count: int, pass_on: Callable[[str], None]) -> None:
        text, self._rest = self._rest[:count], self._rest[count:]
        if text:
            pass_on(text)

    def one_of(self, marks: Sequence[str]) -> Generator[None, None, str]:
        """Consume the longest of `marks` that the text goes on with; returns it, or "" and consumes nothing."""
        while any(len(mark) > len(self._rest) and mark.startswith(self._rest) for mark in marks):
            if not (yield from self.more()):
                break
        fitting = [mark for mark in marks if self._rest.startswith(mark)]
        return self.take(len(max(fitting, key=len))) if fitting else ""

    def characters(self, count: int) -> Generator[None, None, str]:
        """Consume that many characters; fewer where the text ends."""
        while len(self._rest) < count and (yield from self.more()):
            pass
        return self.take(count)

    def matching(self, characters: re.Pattern[str]) -> Generator[None, None, str]:
        """Consume characters as long as each matches `characters`; returns them."""
        taken = ""
        while True:
            count = next((at for at, char in enumerate(self._rest) if not characters.match(char)), len(self._rest))
            taken += self.take(count)
            if self._rest or not (yield from self.more()):
                return taken

    def space(self) -> Generator[None, None, str]:
        """Consume white space."""
        return (yield from self.matching(_SPACE))

    def json(self, pass_on: Callable[[str], None]) -> Generator[None, None, bool]:
        """Consume a JSON value, passed on as it grows; False where it breaks or the text ends within."""
        scanner = JsonScanner()
        while True:
            count, value = scanner.feed(self._rest)
            self.take(count)
            if value:
                pass_on(value)
            if scanner.complete or scanner.broken:
                return scanner.complete
            if not (yield from self.more()):
                scanner.end()
                return scanner.complete

    def json_string(self) -> Generator[None, None, str | None]:
        """Consume a JSON string; returns what it says, None where there is none or it has escapes: names have none."""
        parts: list[str] = []
        yield from self.space()
        if not (yield from self.peek('"')) or not (yield from self.json(parts.append)):
            return None
        text = "".join(parts)
        return None if "\\" in text else json.loads(text)

    def peek(self, mark: str) -> Generator[None, None, bool]:
        """Whether the text goes on with `mark`; consumes nothing."""
        while len(self._rest) < len(mark) and mark.startswith(self._rest):
            if not (yield from self.more()):
                return False
        return self._rest.startswith(mark)

    # Parts that many formats have

    def reasoning(self, begin: str, end: str, *opens: str) -> Generator[None, None, None]:
        """Read what the model thinks at its answer's start, between `begin` and `end`. Each of `opens` ends it too."""
        yield from self.space()
        if not self.reasons and not (yield from self.one_of((begin,))):
            self.give_up()
            return
        self.settle()
        found = yield from self.thoughts((end, *opens))
        if found in opens:
            self.put_back(found)
            return
        yield from self.space()
        self.settle()

    def thoughts(self, ends: Sequence[str]) -> Generator[None, None, str]:
        """Read reasoning up to one of `ends`, without the white space around it; returns the mark it ended with."""
        held = ""
        begun = False

        def pass_on(text: str) -> None:
            nonlocal held, begun
            text = held + text
            text = text if begun else text.lstrip()
            body = text.rstrip()
            held = text[len(body) :]
            if body:
                begun = True
                self._events.append(Reasoning(body))

        end = yield from self.until(ends, pass_on)
        self.settle()
        return end

    def closing(self, *marks: str) -> Generator[None, None, None]:
        """Consume the marks after a call, with the white space around them; they may be missing or cut short."""
        yield from self.space()
        for mark in marks:
            if (yield from self.one_of((mark,))):
                yield from self.space()
            elif self._over and mark.startswith(self._rest):
                self.take(len(self._rest))
        self.settle()

    def name(self) -> Generator[None, None, str]:
        """Consume a function's name."""
        return (yield from self.matching(_NAME))


_SPACE = re.compile(r"\s")
_NAME = re.compile(r"[\w.-]")


@lru_cache
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))


def _possible_mark(text: str, marks: tuple[str, ...]) -> int:
    """Where in `text` an ending begins that one of `marks` may grow from; the text's length if nowhere."""
    longest = max((len(mark) for mark in marks), default=0)
    for start in range(max(0, len(text) - longest + 1), len(text)):
        if any(mark.startswith(text[start:]) and len(mark) > len(text) - start for mark in marks):
            return start
    return len(text)
