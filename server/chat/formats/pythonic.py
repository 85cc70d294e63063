"""Calls written as in Python: Llama 3.2 and 4 in a list, Gemma 3 in a block of code.

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama4/prompt_format.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.beginnings import any_name
from server.chat.formats.lark import LOOSE, json_value, literal, mark, separate_arguments, sequence
from server.chat.formats.notation import PYTHON, read_items, read_value
from server.chat.formats.parameters import declared
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.tools import Tool

QUOTED = r"""QUOTED: /'([^'\\\n]|\\[\\'"n])*'/
"""
PLAIN = frozenset({"type", "title", "description", "default", "examples"})
"""Keywords that allow any string."""
START, END = "<|python_start|>", "<|python_end|>"
TAG = "<|python_tag|>"


def python_call(reader: Reader) -> Generator[None, None, bool]:
    """Read `name(key=value, ...)`; whether it was a whole call. Arguments without a key are named in order."""
    yield from reader.space()
    name = yield from reader.name()
    if name not in reader.tools:
        name = name.removesuffix(".call")
    if name not in reader.tools or reader.lost or not (yield from reader.one_of(("(",))):
        reader.give_up()
        return False
    pass_on = reader.start_call(name)
    names = [parameter.name for parameter in declared(reader.tools[name])]
    whole = yield from read_items(reader, ")", "{}", pass_on, _argument(names))
    return reader.conclude(started=True, whole=whole)


def python_call_list(reader: Reader, end: str) -> Generator[None, None, None]:
    """Read calls with commas between them, up to and with a closing bracket and the mark `end`."""
    while (yield from python_call(reader)):
        yield from reader.space()
        if not (yield from reader.one_of((",",))):
            yield from reader.closing("]", end)
            return


def _argument(names: Sequence[str]) -> Callable[[Reader, int, Callable[[str], None]], Generator[None, None, bool]]:
    known = [f"{name}=" for name in names]

    def read(reader: Reader, index: int, pass_on: Callable[[str], None]) -> Generator[None, None, bool]:
        found = yield from reader.one_of(known)  # a schema's names need not be Python's
        key = found[:-1] or (yield from reader.name())
        if found or (key and (yield from reader.one_of(("=",)))):
            pass_on(json.dumps(key, ensure_ascii=False) + ": ")
            return (yield from read_value(reader, PYTHON, pass_on))
        if index >= len(names):
            return False
        reader.put_back(key)
        pass_on(json.dumps(names[index], ensure_ascii=False) + ": ")
        return (yield from read_value(reader, PYTHON, pass_on))

    return read


class PythonicReader(Reader):
    """Without a mark, only an answer that begins as a list of calls is one."""

    def read(self) -> Generator[None, None, None]:
        """Calls at the beginning or after a mark."""
        yield from self.reasoning("<think>", "</think>")
        if self.tools:
            yield from self._calls()
            while (yield from self.until((START, TAG), self.content)):
                yield from self._calls()

    def _calls(self) -> Generator[None, None, None]:
        yield from self.space()
        yield from self.one_of((START, TAG))
        if (yield from self.one_of(("[",))):
            yield from python_call_list(self, END)
        else:
            self.give_up()


class Pythonic(ChatFormat):
    """`[name(key=value, ...), ...]`."""

    name = "pythonic"
    marks = (START, END, TAG, "<think>", "</think>")
    telling = ("[func_name1(",)
    reader = PythonicReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel. Marks may stand around it."""
        opening, end = f"({mark(START, special)} | {mark(TAG, special)})?", f"close WS? {mark(END, special)}?"
        rules = sequence("open call", "comma call", end, parallel=parallel) + python_calls(tools)
        return CallGrammar(opening, rules, (START, TAG), start=rf"\[\s*{any_name(tools)}(?:\.call)?\(")

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"[{', '.join(in_python(*call) for call in calls)}]"


def python_calls(tools: Sequence[Tool]) -> str:
    """Rules of which `call` is a call in Python's notation, spaced as a model likes; `LOOSE` is among them."""

    def argument(parameter: Parameter, rule: str) -> str:
        return f"{rule}: {literal(parameter.name + '=')} ({' | '.join(_python_values(parameter))})"

    def frame(tool: Tool) -> tuple[str, str, str]:
        return f'{literal(tool.name)} ".call"? "(" WS?', "comma", 'WS? ")"'

    return f"{LOOSE}{QUOTED}{separate_arguments('call', tools, argument, frame)}"


def _python_values(parameter: Parameter) -> list[str]:
    """Expressions for a value: as JSON, which is good Python but for its words, and with Python's words and quotes."""
    schema = parameter.schema
    if parameter.is_text and "enum" in schema:
        return [json_value(parameter), *(literal(f"'{choice}'") for choice in schema["enum"] if choice.isalnum())]
    if schema.keys() & {"enum", "const"}:
        return [json_value(parameter)]
    words = ['"True"', '"False"'] if "boolean" in parameter.kinds and "type" in schema else []
    if schema.get("type") == "boolean":
        return words
    if "null" in parameter.kinds and "type" in schema:
        words.append('"None"')
    if parameter.is_text and schema.keys() <= PLAIN:
        words.append("QUOTED")
    return [json_value(parameter), *words]


def in_python(name: str, arguments: str) -> str:
    """A call as Python writes it; `arguments` is JSON text."""
    values: dict[str, Any] = json.loads(arguments)
    return f"{name}({', '.join(f'{key}={_literal(value)}' for key, value in values.items())})"


def _literal(value: Any) -> str:
    """A value as Python writes it, its strings in the double quotes that all these models were shown."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(_literal(inner) for inner in cast('list[Any]', value))}]"
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in members) + "}"
    return repr(value)
