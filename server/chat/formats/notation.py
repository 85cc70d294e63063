"""Values that are written otherwise than in JSON, read into JSON text as they grow: Python's literals, Gemma's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from server.chat.formats.reader import Reader

    PassOn = Callable[[str], None]
    Step = Generator[None, None, bool]

_BEHIND_VALUES = (",", ")", "]", "}", ":")
_MOST_NESTED = 64
"""Steps within steps are frames within frames, which Python allows some hundreds of."""
_WORD = re.compile(r"[\w.+-]")
_KEY = re.compile(r"[^\n:,{}\[\]\"'<>]")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which text cannot hold but JSON's escapes can."""
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "/": "/"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class Notation:
    """How values are written.

    Attributes:
        quotes: marks that a string begins and ends with, in which a backslash escapes.
        raw_quotes: marks that a string begins and ends with, in which nothing escapes.
    """

    quotes: tuple[str, ...] = ('"',)
    raw_quotes: tuple[str, ...] = ()


PYTHON = Notation(quotes=('"', "'", '"""', "'''"))


def read_value(reader: Reader, notation: Notation, pass_on: PassOn) -> Step:
    """Consume a value and pass on what it is in JSON; False where it breaks or the text ends within."""
    if reader.depth > _MOST_NESTED:
        return False
    yield from reader.space()
    opening = yield from reader.one_of((*notation.quotes, *notation.raw_quotes, "[", "(", "{"))
    if opening in ("[", "("):
        return (yield from read_items(reader, "]" if opening == "[" else ")", "[]", pass_on, _element(notation)))
    if opening == "{":
        return (yield from read_members(reader, notation, pass_on))
    if opening:
        return (yield from _string(reader, opening, pass_on, raw=opening in notation.raw_quotes))
    word = yield from reader.matching(_WORD)
    value = _WORDS.get(word) or (word if _NUMBER.fullmatch(word) else _plain_number(word))
    if value is None:
        return False
    pass_on(value)
    return True


def read_members(reader: Reader, notation: Notation, pass_on: PassOn) -> Step:
    """Consume an object's members after its opening brace, whose keys may be bare words; as `read_value`."""
    return (yield from read_items(reader, "}", "{}", pass_on, _member(notation)))


def read_items(
    reader: Reader,
    closer: str,
    brackets: str,
    pass_on: PassOn,
    item: Callable[[Reader, int, PassOn], Step],
) -> Step:
    """Consume items with commas between them, up to and with `closer`; False where that breaks.

    Args:
        reader: at the first item.
        closer: what ends the items.
        brackets: what to pass on before and after them.
        pass_on: takes the JSON text.
        item: reads one, given its index.
    """
    pass_on(brackets[0])
    reader.depth += 1
    count = 0
    comma = True
    while True:
        yield from reader.space()
        if (yield from reader.one_of((closer,))):
            pass_on(brackets[1])
            reader.depth -= 1
            return True
        if not comma:
            return False
        if count:
            pass_on(", ")
        if not (yield from item(reader, count, pass_on)):
            return False
        count += 1
        yield from reader.space()
        comma = bool((yield from reader.one_of((",",))))


def _element(notation: Notation) -> Callable[[Reader, int, PassOn], Step]:
    return lambda reader, _, pass_on: read_value(reader, notation, pass_on)


def _member(notation: Notation) -> Callable[[Reader, int, PassOn], Step]:
    def read(reader: Reader, _: int, pass_on: PassOn) -> Step:
        key: list[str] = []
        quote = yield from reader.one_of((*notation.quotes, *notation.raw_quotes))
        if quote and not (yield from _string(reader, quote, key.append, raw=quote in notation.raw_quotes)):
            return False
        bare = "" if quote else (yield from reader.matching(_KEY)).strip()
        yield from reader.space()
        if not (key or bare) or not (yield from reader.one_of((":",))):
            return False
        pass_on(("".join(key) if quote else json.dumps(bare, ensure_ascii=False)) + ": ")
        return (yield from read_value(reader, notation, pass_on))

    return read


def _string(reader: Reader, quote: str, pass_on: PassOn, *, raw: bool) -> Step:
    """Consume a string after its opening quote."""
    pass_on('"')
    while mark := (yield from reader.until((quote,) if raw else (quote, "\\"), lambda text: pass_on(in_json(text)))):
        if mark == quote:
            if raw or (yield from _closes(reader)):
                pass_on('"')
                return True
            pass_on(in_json(quote))
            continue
        char = yield from _escaped(reader)
        pass_on(json.dumps(char)[1:-1] if _HALVES.fullmatch(char) else in_json(char))
    return False


def _closes(reader: Reader) -> Step:
    """Whether a quote ends its string, by what follows: models leave those within unescaped, as some templates do."""
    space = yield from reader.space()
    mark = yield from reader.one_of(_BEHIND_VALUES)
    over = not mark and (yield from reader.at_end())
    reader.put_back(space + mark)
    return over or bool(mark)


def _escaped(reader: Reader) -> Generator[None, None, str]:
    """Consume what follows a backslash; returns what it stands for."""
    char = yield from reader.characters(1)
    if char in _HEX_DIGITS:
        digits = yield from reader.characters(_HEX_DIGITS[char])
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            return "\\" + char + digits
    return _ESCAPES.get(char, char if char in "\"'\\" else "\\" + char)


def in_json(text: str) -> str:
    """Text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _plain_number(word: str) -> str | None:
    """A number of Python's in JSON's notation: `1_000`, `.5`, `5.`, `+1`."""
    try:
        value = float(word)
        return json.dumps(int(word) if word.lstrip("+-").replace("_", "").isdigit() else value, allow_nan=False)
    except ValueError:
        return None
