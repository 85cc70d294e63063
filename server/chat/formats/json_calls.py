"""Calls written as JSON objects of a name and arguments: most formats have these, between marks of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    ReadCall = Callable[[Reader], Generator[None, None, bool]]

_NAME = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_OTHER = ("id", "call_id", "tool_call_id", "type")


def json_call(reader: Reader, *, named_first: bool = False) -> Generator[None, None, bool]:
    """Read `{"name": ..., "arguments": {...}}`, its members in any order and spacing.

    Args:
        reader: of the answer.
        named_first: whether it is a call only if its name comes first, or behind `"type": "function"`: where no mark
            tells it from other JSON.

    Returns:
        Whether it was a whole call. What cannot be one (broken JSON, other members, a tool that is not offered) becomes
        content; once its arguments have begun to be passed on, only what follows the fault does.
    """
    call = _Call(reader)
    yield from reader.space()
    whole = bool((yield from reader.one_of(("{",)))) and (yield from _members(reader, call, named_first=named_first))
    if whole and call.lacks_arguments:
        call.start("{}")
    return reader.conclude(started=call.started, whole=whole)


def json_call_list(reader: Reader, call: ReadCall = json_call) -> Generator[None, None, bool]:
    """Read a JSON list of calls, or one without the brackets, each with `call`; whether all were whole."""
    yield from reader.space()
    if not (yield from reader.one_of(("[",))):
        return (yield from call(reader))
    while (yield from call(reader)):
        yield from reader.space()
        if not (yield from reader.one_of((",",))):
            ended = yield from reader.one_of(("]",))
            return reader.conclude(started=True, whole=bool(ended))
    return False


def json_arguments(reader: Reader, name: str) -> Generator[None, None, bool]:
    """Read the arguments alone, for a call whose name came before; as `json_call`."""
    call = _Call(reader)
    call.named(name)
    yield from reader.space()
    whole = (yield from reader.peek("{")) and (yield from reader.json(call.take))
    return reader.conclude(started=call.started, whole=whole)


class MarkedJsonReader(Reader):
    """For formats that announce a call, or a list of calls, by a mark.

    Attributes:
        opens: marks that calls follow; one may end with the brackets that they begin with.
        closes: marks that follow calls.
        call: what reads one of them.
        thinking: marks around reasoning, if there is any.
        wrapping: marks around the answer's text, which are no part of it.
    """

    opens: ClassVar[tuple[str, ...]]
    closes: ClassVar[tuple[str, ...]] = ()
    call: ClassVar[ReadCall] = staticmethod(json_call)
    thinking: ClassVar[tuple[str, str] | None] = ("<think>", "</think>")
    wrapping: ClassVar[tuple[str, ...]] = ()

    def read(self) -> Generator[None, None, None]:
        """Reasoning, then content with calls in it."""
        if self.thinking:
            yield from self.reasoning(*self.thinking)
        marks = (*self.wrapping, *(self.opens if self.tools else ()))
        while mark := (yield from self.until(marks, self.content)):
            if mark in self.wrapping:
                self.settle()
                continue
            self.put_back(mark[len(mark.rstrip("[{")) :])
            if (yield from json_call_list(self, type(self).call)):
                yield from self.closing(*self.closes)


def _members(reader: Reader, call: _Call, *, named_first: bool) -> Generator[None, None, bool]:
    """Read an object's members after its opening brace, up to and with the closing one."""
    while True:
        key = yield from reader.json_string()
        yield from reader.space()
        if key is None or not (yield from reader.one_of((":",))):
            return False
        yield from reader.space()
        if key in _NAME:
            name = yield from reader.json_string()
            if name is None or name not in reader.tools or (named_first and reader.lost):
                return False
            call.named(name)
        elif named_first and not call.name:
            if key != "type" or (yield from reader.json_string()) != "function":
                return False
        elif key in _ARGUMENTS:
            if not (yield from reader.json(call.take)):
                return False
        elif key not in _OTHER or not (yield from reader.json(_ignore)):
            return False
        yield from reader.space()
        end = yield from reader.one_of((",", "}"))
        if end != ",":
            return end == "}"


class _Call:
    """A call as far as it was read: arguments wait until the name is known and they are an object."""

    def __init__(self, reader: Reader) -> None:
        self.name = ""
        self._reader = reader
        self._arguments = ""
        self._pass_on: Callable[[str], None] | None = None

    @property
    def started(self) -> bool:
        return self._pass_on is not None

    @property
    def lacks_arguments(self) -> bool:
        return not self.started and self.name != "" and self._arguments.strip() in ("", "null")

    def named(self, name: str) -> None:
        self.name = name
        self.take("")

    def take(self, text: str) -> None:
        if self._pass_on:
            self._pass_on(text)
            return
        self._arguments += text
        if self.name and self._arguments.lstrip().startswith("{"):
            self.start(self._arguments.lstrip())

    def start(self, arguments: str) -> None:
        self._pass_on = self._reader.start_call(self.name)
        self._pass_on(arguments)


def _ignore(_: str) -> None:
    pass


def json_object(name: str, arguments: str, *, keys: tuple[str, str] = ("name", "arguments")) -> str:
    """A call as a JSON object's text; `arguments` is JSON text too."""
    return f'{{"{keys[0]}": {json.dumps(name, ensure_ascii=False)}, "{keys[1]}": {arguments}}}'
