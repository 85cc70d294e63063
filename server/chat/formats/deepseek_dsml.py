"""DeepSeek V3.2 and V4: DSML, tags with a mark in them that say of each argument whether it is a string.

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3.2/blob/main/encoding/encoding_dsv32.py
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from server.chat.formats.bare_values import in_bare, read_bare
from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_value, mark, separate_arguments, sequence, text_until
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool

MARK = "｜DSML｜"
OPENS = (f"<{MARK}function_calls>", f"<{MARK}tool_calls>")
CLOSES = (f"</{MARK}function_calls>", f"</{MARK}tool_calls>")
FUNCTION, FUNCTION_END = f'<{MARK}invoke name="', f"</{MARK}invoke>"
ARGUMENT, ARGUMENT_END = f'<{MARK}parameter name="', f"</{MARK}parameter>"
TEXT, JSON = '" string="true">', '" string="false">'


class DsmlReader(Reader):
    """The outer tags are named otherwise in V3.2 and V4."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning("<think>", "</think>")
        while self.tools and (yield from self.until(OPENS, self.content)):
            while (yield from self._call()):
                yield from self.space()
                if not (yield from self.peek(FUNCTION)):
                    yield from self.closing(*CLOSES)
                    break

    def _call(self) -> Generator[None, None, bool]:
        yield from self.space()
        yield from self.one_of((FUNCTION,))
        name = yield from self.name()
        if name not in self.tools or not (yield from self.one_of(('">',))):
            self.give_up()
            return False
        whole = yield from self._arguments(self.start_call(name))
        return self.conclude(started=True, whole=whole)

    def _arguments(self, pass_on: Callable[[str], None]) -> Generator[None, None, bool]:
        between = "{"
        while True:
            yield from self.space()
            tag = yield from self.one_of((ARGUMENT, FUNCTION_END))
            if tag != ARGUMENT:
                if tag:
                    pass_on("{}" if between == "{" else "}")
                return bool(tag)
            key = yield from self.name()
            kind = yield from self.one_of((TEXT, JSON))
            if not kind:
                return False
            pass_on(f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            between = ", "
            if not (yield from read_bare(self, (ARGUMENT_END,), pass_on, is_text=kind == TEXT)):
                return False


class DeepSeekV32(ChatFormat):
    """A tag around all calls, one for each, and one for each argument."""

    name = "deepseek-v3.2"
    marks = (MARK, "<think>", "</think>")
    telling = ("｜DSML｜", "function_calls")
    reader = DsmlReader
    outer = 0

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Each tag on a line of its own."""

        def argument(parameter: Parameter, rule: str) -> str:
            head = mark(f"{ARGUMENT}{parameter.name}{TEXT if parameter.is_text else JSON}", special)
            if parameter.is_text:
                text = text_until(f"{ARGUMENT_END}\n", special, parameter, f"{rule}_text")
                return f"{rule}: {head} {rule}_text\n{text}"
            return f"{rule}: {head} {json_value(parameter)} {mark(f'{ARGUMENT_END}{chr(10)}', special)}"

        def frame(tool: Tool) -> tuple[str, str, str]:
            return mark(f'{FUNCTION}{tool.name}">\n', special), '""', mark(f"{FUNCTION_END}\n", special)

        rules = sequence(r'"\n" call', "call", mark(CLOSES[self.outer], special), parallel=parallel)
        rules += separate_arguments("call", tools, argument, frame)
        return CallGrammar(mark(OPENS[self.outer], special), rules, OPENS[self.outer])

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Each tag on a line of its own."""
        inner = "".join(_written(name, json.loads(arguments)) for name, arguments in calls)
        return f"{OPENS[self.outer]}\n{inner}{CLOSES[self.outer]}"


class DeepSeekV4(DeepSeekV32):
    """The same with another outer tag."""

    name = "deepseek-v4"
    telling = ("｜DSML｜", "tool_calls>")
    outer = 1


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    inner = "".join(
        f"{ARGUMENT}{key}{TEXT if isinstance(value, str) else JSON}{in_bare(value)}{ARGUMENT_END}\n"
        for key, value in arguments.items()
    )
    return f'{FUNCTION}{name}">\n{inner}{FUNCTION_END}\n'
