"""FunctionGemma and Gemma 4: a name and braces, with strings between marks.

Sources: https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices and
https://ai.google.dev/gemma/docs/capabilities/text/function-calling-gemma4
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, cast

from msgspec import Struct, structs

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.lark import json_value, literal, mark, separate_arguments, sequence, text_until
from server.chat.formats.notation import Notation, read_members
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool


class Dialect(Struct, frozen=True):
    """The marks before and after a call, and around strings."""

    opens: str
    closes: str
    quote: str


FUNCTION_GEMMA = Dialect("<start_function_call>", "<end_function_call>", "<escape>")
GEMMA_4 = Dialect("<|tool_call>", "<tool_call|>", '<|"|>')
THINK, THOUGHT = "<|channel>thought", "<channel|>"


class FunctionGemmaReader(Reader):
    """Reads `call:name{key:value}` between marks."""

    dialect: ClassVar = FUNCTION_GEMMA

    def read(self) -> Generator[None, None, None]:
        """Content with calls in it."""
        notation = Notation(raw_quotes=(self.dialect.quote,))
        while self.tools and (yield from self.until((self.dialect.opens,), self.content)):
            yield from self.space()
            yield from self.one_of(("call:",))
            name = yield from self.name()
            if name not in self.tools or not (yield from self.one_of(("{",))):
                self.give_up()
                continue
            whole = yield from read_members(self, notation, self.start_call(name))
            if self.conclude(started=True, whole=whole):
                yield from self.closing(self.dialect.closes)


class Gemma4Reader(FunctionGemmaReader):
    """The same with other marks, and with channels, of which `thought` is the reasoning."""

    dialect: ClassVar = GEMMA_4

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        yield from self.reasoning(THINK, THOUGHT)
        yield from super().read()


class FunctionGemma(ChatFormat):
    """`<start_function_call>call:name{key:<escape>text<escape>,other:1}<end_function_call>`."""

    name = "functiongemma"
    marks = structs.astuple(FUNCTION_GEMMA)
    telling = (FUNCTION_GEMMA.opens,)
    reasoning = None
    reader = FunctionGemmaReader
    dialect: ClassVar = FUNCTION_GEMMA

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """Calls that follow each other at once. Lists and objects are held to JSON, which the reader takes too."""
        opening, closing, quote = (
            mark(text, special) for text in (self.dialect.opens, self.dialect.closes, self.dialect.quote)
        )

        def argument(parameter: Parameter, rule: str) -> str:
            key = literal(parameter.name + ":")
            if parameter.is_text:
                text = text_until(self.dialect.quote, special, parameter, f"{rule}_text")
                return f"{rule}: {key} {quote} {rule}_text\n{text}"
            return f"{rule}: {key} {json_value(parameter)}"

        rules = sequence("call", f"{opening} call", parallel=parallel)
        rules += separate_arguments(
            "call", tools, argument, lambda tool: (literal(f"call:{tool.name}{{"), '","', f'"}}" {closing}')
        )
        return CallGrammar(opening, rules, (self.dialect.opens,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls that follow each other at once."""
        return "".join(
            f"{self.dialect.opens}call:{name}{self._value(json.loads(arguments))}{self.dialect.closes}"
            for name, arguments in calls
        )

    def _value(self, value: Any) -> str:
        if isinstance(value, str):
            return self.dialect.quote + value + self.dialect.quote
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value).items()
            return "{" + ",".join(f"{key}:{self._value(inner)}" for key, inner in members) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._value(inner) for inner in cast("list[Any]", value)) + "]"
        return json.dumps(value)


class Gemma4(FunctionGemma):
    """`<|tool_call>call:name{key:<|"|>text<|"|>,other:1}<tool_call|>`, reasoning in a channel."""

    name = "gemma4"
    marks = (*structs.astuple(GEMMA_4), "<|channel>", THOUGHT)
    telling = (GEMMA_4.opens, GEMMA_4.closes)
    reasoning = (THINK, THOUGHT)
    reader = Gemma4Reader
    dialect: ClassVar = GEMMA_4
