"""GLM 4.5 and later: the name and then each argument's key and value between tags of their own.

Source: https://huggingface.co/zai-org/GLM-4.6/blob/main/chat_template.jinja
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from server.chat.formats.bare_values import in_bare, is_text, read_bare
from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_value, literal, mark, separate_arguments, sequence, text_until
from server.chat.formats.parameters import declared
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_END = "<arg_key>", "</arg_key>"
VALUE, VALUE_END = "<arg_value>", "</arg_value>"

_KEY = re.compile(r"[^<\n]")


class GlmReader(Reader):
    """The tags may stand on lines of their own."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (yield from self.until((OPEN,), self.content)):
            yield from self.space()
            name = yield from self.name()
            yield from self.space()
            tag = yield from self.one_of((KEY, CLOSE))
            if name not in self.tools or not tag:
                self.give_up()
                continue
            pass_on = self.start_call(name)
            parameters = {parameter.name: parameter for parameter in declared(self.tools[name])}
            if self.conclude(started=True, whole=(yield from self._arguments(tag, parameters, pass_on))):
                yield from self.closing()

    def _arguments(
        self, tag: str, parameters: Mapping[str, Parameter], pass_on: Callable[[str], None]
    ) -> Generator[None, None, bool]:
        """Read arguments, of which the first tag is consumed."""
        between = "{"
        while tag == KEY:
            key = (yield from self.matching(_KEY)).strip()
            if not (yield from self.one_of((KEY_END,))):
                return False
            yield from self.space()
            if not (yield from self.one_of((VALUE,))):
                return False
            pass_on(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            text, own = is_text(parameters, key), parameters.get(key)
            if not (yield from read_bare(self, (VALUE_END,), pass_on, is_text=text, parameter=own)):
                return False
            yield from self.space()
            tag = yield from self.one_of((KEY, CLOSE))
        if tag:
            pass_on("{}" if between == "{" else "}")
        return bool(tag)


class Glm(ChatFormat):
    """`<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`."""

    name = "glm"
    marks = (OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END, "<think>", "</think>")
    telling = (OPEN, KEY, VALUE)
    reader = GlmReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Line breaks stand between tags in some versions."""
        opening, line = mark(OPEN, special), r'"\n"?'

        def argument(parameter: Parameter, rule: str) -> str:
            before, between, after = (mark(tag, special) for tag in (KEY, KEY_END, VALUE))
            head = f"{before} {literal(parameter.name)} {between} {line} {after}"
            if parameter.is_text:
                text = text_until(VALUE_END, special, parameter, f"{rule}_text")
                return f"{rule}: {head} {rule}_text {line}\n{text}"
            return f"{rule}: {head} {json_value(parameter)} {mark(VALUE_END, special)} {line}"

        rules = sequence("call", f"{line} {opening} call", parallel=parallel)
        rules += separate_arguments(
            "call", tools, argument, lambda tool: (f"{literal(tool.name)} {line}", '""', mark(CLOSE, special))
        )
        return CallGrammar(opening, rules, (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each tag on a line of its own."""
        return "\n".join(_written(name, json.loads(arguments)) for name, arguments in calls)


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    inner = "".join(f"{KEY}{key}{KEY_END}\n{VALUE}{in_bare(value)}{VALUE_END}\n" for key, value in arguments.items())
    return f"{OPEN}{name}\n{inner}{CLOSE}"
