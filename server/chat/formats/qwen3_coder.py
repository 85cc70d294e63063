"""Qwen3-Coder, Qwen 3.5 and Nemotron 3: tags for the function and for each argument, whose values are bare text.

Source: https://huggingface.co/Qwen/Qwen3-Coder-480B-A35B-Instruct/blob/main/qwen3coder_tool_parser.py
"""

from __future__ import annotations

import json
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
FUNCTION, FUNCTION_END = "<function=", "</function>"
ARGUMENT, ARGUMENT_END = "<parameter=", "</parameter>"


class Qwen3CoderReader(Reader):
    """The model sometimes forgets the outer tag."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (mark := (yield from self.until((OPEN, FUNCTION), self.content))):
            yield from self.space()
            if mark == FUNCTION or (yield from self.one_of((FUNCTION,))):
                yield from self._call()
            else:
                self.give_up()

    def _call(self) -> Generator[None, None, None]:
        name = yield from self.name()
        if name not in self.tools or not (yield from self.one_of((">",))):
            self.give_up()
            return
        pass_on = self.start_call(name)
        parameters = {parameter.name: parameter for parameter in declared(self.tools[name])}
        whole = yield from self._arguments(parameters, pass_on)
        if self.conclude(started=True, whole=whole):
            yield from self.closing(CLOSE)

    def _arguments(
        self, parameters: Mapping[str, Parameter], pass_on: Callable[[str], None]
    ) -> Generator[None, None, bool]:
        between = "{"
        while True:
            yield from self.space()
            tag = yield from self.one_of((ARGUMENT, FUNCTION_END))
            if tag != ARGUMENT:
                if tag:
                    pass_on("{}" if between == "{" else "}")
                return bool(tag)
            key = yield from self.name()
            if not key or not (yield from self.one_of((">",))):
                return False
            pass_on(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            yield from self.one_of(("\n",))
            ends = ("\n" + ARGUMENT_END, ARGUMENT_END)
            if not (yield from read_bare(self, ends, pass_on, is_text=is_text(parameters, key))):
                return False


class Qwen3Coder(ChatFormat):
    """One pair of tags for the call, one for the function, one for each argument."""

    name = "qwen3-coder"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = (OPEN, FUNCTION, ARGUMENT)
    reader = Qwen3CoderReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each tag and each value on lines of their own."""
        opening, closing = mark(OPEN, special), mark(CLOSE, special)

        def argument(parameter: Parameter, rule: str) -> str:
            head = literal(f"{ARGUMENT}{parameter.name}>\n")
            end = f"\n{ARGUMENT_END}\n"
            if parameter.is_text:
                return f"{rule}: {head} {rule}_text\n" + text_until(end, special, parameter, f"{rule}_text")
            return f"{rule}: {head} {json_value(parameter)} {literal(end)}"

        def frame(tool: Tool) -> tuple[str, str, str]:
            return rf'"\n" {literal(f"{FUNCTION}{tool.name}>{chr(10)}")}', '""', rf'"{FUNCTION_END}\n" {closing}'

        rules = sequence("call", rf'"\n" {opening} call', parallel=parallel)
        return CallGrammar(opening, rules + separate_arguments("call", tools, argument, frame), OPEN)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each tag and each value on lines of their own."""
        return "\n".join(_written(name, json.loads(arguments)) for name, arguments in calls)


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    inner = "".join(f"{ARGUMENT}{key}>\n{in_bare(value)}\n{ARGUMENT_END}\n" for key, value in arguments.items())
    return f"{OPEN}\n{FUNCTION}{name}>\n{inner}{FUNCTION_END}\n{CLOSE}"
