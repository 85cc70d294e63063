"""Functionary 3.1, whose calls are tags around arguments, and 3.2, whose answers are messages to recipients.

Source: https://github.com/MeetKai/functionary/tree/main/functionary/prompt_template
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.beginnings import any_name
from server.chat.formats.json_calls import json_arguments
from server.chat.formats.lark import any_of, literal, sequence
from server.chat.formats.reader import Reader
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<function=", "</function>"
TO, EVERYONE = ">>>", "all"


class Functionary31Reader(Reader):
    """The opening tag has the name."""

    def read(self) -> Generator[None, None, None]:
        """Content with calls in it."""
        while self.tools and (yield from self.until((OPEN,), self.content)):
            name = yield from self.name()
            if name in self.tools and (yield from self.one_of((">",))):
                if (yield from json_arguments(self, name)):
                    yield from self.closing(CLOSE)
            else:
                self.give_up()


class Functionary31(ChatFormat):
    """`<function=name>{...}</function>`, once for each call."""

    name = "functionary-v3.1"
    telling = ("<function=", "</function>", "<|python_tag|>")
    reasoning = None
    reader = Functionary31Reader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Calls that follow each other at once."""
        rules = sequence("call", rf'"\n"? {literal(OPEN)} call', parallel=parallel)
        rules += any_of(
            "call", tools, lambda tool, arguments: f"{literal(tool.name + '>')} {arguments} {literal(CLOSE)}"
        )
        return CallGrammar(literal(OPEN), rules, tuple(f"{OPEN}{tool.name}>" for tool in tools))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls that follow each other at once."""
        return "".join(f"{OPEN}{name}>{arguments}{CLOSE}" for name, arguments in calls)


class Functionary32Reader(Reader):
    """The prompt ends with `>>>`: the answer begins with its first recipient."""

    def read(self) -> Generator[None, None, None]:
        """Messages to everyone, which are content, and to tools."""
        recipients = [f"{name}\n" for name in (EVERYONE, *self.tools)]
        marks = [TO + recipient for recipient in recipients]
        yield from self.space()
        found = yield from self.one_of((*recipients, *marks))
        while found or (found := (yield from self.until(marks, self.content))):
            recipient, found = found.removeprefix(TO).rstrip(), ""
            if recipient == EVERYONE:
                self.settle()
            else:
                yield from json_arguments(self, recipient)


class Functionary32(ChatFormat):
    """`>>>name` and on the next line the arguments; text goes to `all`."""

    name = "functionary-v3.2"
    text_opening = f"{EVERYONE}\n"
    telling = (">>>all", ">>>${recipient}")
    reasoning = None
    reader = Functionary32Reader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The first call follows the mark that the prompt ends with. Raises RequestError for a tool called `all`."""
        if any(tool.name == EVERYONE for tool in tools):
            raise RequestError(
                f"a tool cannot be named '{EVERYONE}' with this model, whose text goes to it", param="tools"
            )
        rules = sequence("call", f"{literal(TO)} call", parallel=parallel)
        rules += any_of("call", tools, lambda tool, arguments: f"{literal(f'{tool.name}{chr(10)}')} {arguments}")
        marks = tuple(f"{TO}{tool.name}\n" for tool in tools)
        return CallGrammar(f"{literal(TO)}?", rules, marks, start=rf"{any_name(tools)}\n")

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The first call follows the mark that the prompt ends with."""
        return TO.join(f"{name}\n{arguments}" for name, arguments in calls)
