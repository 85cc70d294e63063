"""Calls written in the manner of XML: a tag with the function's name, in it a tag for each argument with its name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from server.chat.formats.bare_values import in_bare, is_text, read_bare
from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_value, mark, separate_arguments, text_until
from server.chat.formats.parameters import declared
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool

_KEY = re.compile(r'[^<>"\n]')


class Tags(Struct, frozen=True, kw_only=True):
    """What stands around calls, names and values.

    Attributes:
        outer: the tags around a call, or around all of an answer's.
        shared: whether all of an answer's calls stand between the same two outer tags.
        function: before a function's name.
        named: after a function's name.
        function_end: after a call's last argument.
        parameter: before a parameter's name.
        text: after the name of a parameter whose value is a string.
        other: after the name of any other parameter.
        parameter_end: after a value.
        padding: between a value and the tags around it: a line break where values have lines of their own.
    """

    outer: tuple[str, str]
    shared: bool
    function: str
    named: str
    function_end: str
    parameter: str
    text: str
    other: str
    parameter_end: str
    padding: str = ""


class TaggedFormat(ChatFormat):
    """A format that is told by its tags. Strings are written bare, all else as JSON."""

    tags: ClassVar[Tags]

    def parser(self, tools: Sequence[Tool], prompt: str) -> TaggedReader:
        """A parser for one answer, as in every format."""
        assert self.reasoning
        reasons = self.open_reasoning(prompt) is not None
        return TaggedReader(tools, reasons=reasons, tags=self.tags, thinking=self.reasoning)

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each tag on a line of its own."""
        tags = self.tags
        opening, closing = (mark(text, special) for text in tags.outer)

        def argument(parameter: Parameter, rule: str) -> str:
            kind = tags.text if parameter.is_text else tags.other
            head = mark(f"{tags.parameter}{parameter.name}{kind}{tags.padding}", special)
            if parameter.is_text:
                end, padding = tags.parameter_end, tags.padding
                text = text_until(end, special, parameter, f"{rule}_text", padding=padding)
                return f'{rule}: {head} {rule}_text "\\n"\n{text}'
            end = f"{tags.padding}{tags.parameter_end}\n"
            return f"{rule}: {head} {json_value(parameter)} {mark(end, special)}"

        def frame(tool: Tool) -> tuple[str, str, str]:
            head = f"{tags.function}{tool.name}{tags.named}\n"
            return mark(head, special), '""', mark(f"{tags.function_end}\n", special)

        begun, ended = rf'{opening} "\n"', rf'{closing} "\n"'
        other = "call" if tags.shared else f"{ended} {begun} call"
        inside, bare = (f"({other})*", "call*") if parallel else ("", "")
        rules = f"calls: {begun} call {inside} {closing} | call {bare} {closing}?\n"
        rules += separate_arguments("call", tools, argument, frame)
        functions = (f"{tags.function}{tool.name}{tags.named}" for tool in tools)
        return CallGrammar("", rules, (tags.outer[0], *functions))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each tag on a line of its own."""
        begin, end = self.tags.outer
        written = [self._written(name, json.loads(arguments)) for name, arguments in calls]
        groups = ["".join(written)] if self.tags.shared else written
        return "\n".join(f"{begin}\n{group}{end}" for group in groups)

    def _written(self, name: str, arguments: Mapping[str, object]) -> str:
        tags = self.tags
        inner = "".join(
            f"{tags.parameter}{key}{tags.text if isinstance(value, str) else tags.other}"
            f"{tags.padding}{in_bare(value)}{tags.padding}{tags.parameter_end}\n"
            for key, value in arguments.items()
        )
        return f"{tags.function}{name}{tags.named}\n{inner}{tags.function_end}\n"


class TaggedReader(Reader):
    """Reads what a `TaggedFormat` writes, however it is spaced. Models sometimes forget the outer tags.

    Args:
        tools: those offered; empty means that nothing is to be read as a call.
        reasons: whether the answer begins inside reasoning.
        tags: those of the format.
        thinking: its marks around reasoning.
    """

    def __init__(self, tools: Sequence[Tool], *, reasons: bool, tags: Tags, thinking: tuple[str, str]) -> None:
        super().__init__(tools, reasons=reasons)
        self._tags = tags
        self._thinking = thinking

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        begin, end = self._tags.outer
        function = self._tags.function
        yield from self.reasoning(*self._thinking)
        while self.tools and (found := (yield from self.until((begin, function), self.content))):
            if found == function:
                self.put_back(function)
            while (yield from self._call()):
                yield from self.space()
                if not (yield from self.peek(function)):
                    yield from self.closing(end)
                    break

    def _call(self) -> Generator[None, None, bool]:
        yield from self.space()
        name = (yield from self.name()) if (yield from self.one_of((self._tags.function,))) else ""
        if name not in self.tools or not (yield from self.one_of((self._tags.named,))):
            self.give_up()
            return False
        whole = yield from self._arguments(self.tools[name], self.start_call(name))
        return self.conclude(started=True, whole=whole)

    def _arguments(self, tool: Tool, pass_on: Callable[[str], None]) -> Generator[None, None, bool]:
        """Read arguments and the tag after the last; False where they break off."""
        tags = self._tags
        known = {parameter.name: parameter for parameter in declared(tool)}
        between = "{"
        yield from self.space()
        while (tag := (yield from self.one_of((tags.parameter, tags.function_end)))) == tags.parameter:
            key = yield from self.matching(_KEY)
            kind = yield from self.one_of((tags.text, tags.other))
            if not key or not kind:
                return False
            pass_on(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            yield from self.one_of((tags.padding,))
            text = kind == tags.text if tags.text != tags.other else is_text(known, key)
            ends = (tags.padding + tags.parameter_end, tags.parameter_end)
            if not (yield from read_bare(self, ends, pass_on, is_text=text, parameter=known.get(key))):
                return False
            yield from self.space()
        if tag:
            pass_on("{}" if between == "{" else "}")
        return bool(tag)
