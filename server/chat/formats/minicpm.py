"""MiniCPM5: a tag for the function and one for each argument, with text in a CDATA section where XML would need one.

Source: https://huggingface.co/openbmb/MiniCPM5-1B/blob/main/chat_template.jinja
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from server.chat.formats.bare_values import in_bare, is_text, read_bare
from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_value, mark, separate_arguments, sequence, text_until
from server.chat.formats.parameters import declared
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool

FUNCTION, FUNCTION_END = '<function name="', "</function>"
ARGUMENT, ARGUMENT_END = '<param name="', "</param>"
CDATA, CDATA_END = "<![CDATA[", "]]>"

_KEY = re.compile(r'[^"<>]')
_MARKUP = re.compile(r"[<&\n]")


class MiniCpmReader(Reader):
    """The tags may stand on lines of their own."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (yield from self.until((FUNCTION,), self.content)):
            name = yield from self.name()
            if name not in self.tools or not (yield from self.one_of(('">',))):
                self.give_up()
                continue
            parameters = {parameter.name: parameter for parameter in declared(self.tools[name])}
            if self.conclude(started=True, whole=(yield from self._arguments(parameters, self.start_call(name)))):
                yield from self.closing()

    def _arguments(
        self, parameters: Mapping[str, Parameter], pass_on: Callable[[str], None]
    ) -> Generator[None, None, bool]:
        between = "{"
        yield from self.space()
        while (tag := (yield from self.one_of((ARGUMENT, FUNCTION_END)))) == ARGUMENT:
            key = yield from self.matching(_KEY)
            if not key or not (yield from self.one_of(('">',))):
                return False
            pass_on(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            quoted = yield from self.one_of((CDATA,))
            ends = (CDATA_END + ARGUMENT_END,) if quoted else (ARGUMENT_END,)
            text, own = is_text(parameters, key), parameters.get(key)
            if not (yield from read_bare(self, ends, pass_on, is_text=text, parameter=own)):
                return False
            yield from self.space()
        if tag:
            pass_on("{}" if between == "{" else "}")
        return bool(tag)


class MiniCpm(ChatFormat):
    """`<function name="name"><param name="key">value</param></function>`, once for each call."""

    name = "minicpm"
    marks = ("<function", FUNCTION_END, "<param", ARGUMENT_END, "<think>", "</think>")
    telling = (FUNCTION, ARGUMENT, CDATA)
    reader = MiniCpmReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each call on a line. Text is bare or in a CDATA section."""
        opening = mark(FUNCTION, special)

        def argument(parameter: Parameter, rule: str) -> str:
            head = mark(f'{ARGUMENT}{parameter.name}">', special)
            if not parameter.is_text:
                return f"{rule}: {head} {json_value(parameter)} {mark(ARGUMENT_END, special)}"
            bare = text_until(ARGUMENT_END, special, parameter, f"{rule}_bare", without_tags=True)
            quoted = text_until(CDATA_END + ARGUMENT_END, special, parameter, f"{rule}_quoted")
            return f'{rule}: {head} ({rule}_bare | "{CDATA}" {rule}_quoted)\n{bare}\n{quoted}'

        def frame(tool: Tool) -> tuple[str, str, str]:
            return mark(f'{tool.name}">', special), '""', mark(FUNCTION_END, special)

        rules = sequence("call", rf'"\n" {opening} call', parallel=parallel)
        marks = tuple(f'{FUNCTION}{tool.name}">' for tool in tools)
        return CallGrammar(opening, rules + separate_arguments("call", tools, argument, frame), marks)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each call on a line."""
        return "\n".join(_written(name, json.loads(arguments)) for name, arguments in calls)


def _written(name: str, arguments: Mapping[str, object]) -> str:
    inner = "".join(f'{ARGUMENT}{key}">{_value(value)}{ARGUMENT_END}' for key, value in arguments.items())
    return f'{FUNCTION}{name}">{inner}{FUNCTION_END}'


def _value(value: object) -> str:
    """A value as it is written: text that could be taken for markup in a CDATA section."""
    text = in_bare(value)
    quoted = isinstance(value, str) and _MARKUP.search(text) and CDATA_END not in text
    return f"{CDATA}{text}{CDATA_END}" if quoted else text
