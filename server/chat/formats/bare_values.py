"""Arguments written between marks, strings bare and all else as JSON: for formats in the manner of XML."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

from server.chat.formats.notation import in_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.formats.reader import Reader

_BEGINNINGS = {'"': "string", "[": "array", "{": "object", "t": "boolean", "f": "boolean", "n": "null"}
_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_bare(
    reader: Reader,
    ends: Sequence[str],
    pass_on: Callable[[str], None],
    *,
    is_text: bool,
    parameter: Parameter | None = None,
) -> Generator[None, None, bool]:
    """Consume a value and the mark after it; False where there is none.

    Args:
        reader: at the value.
        ends: marks that the value may end with.
        pass_on: takes the value's JSON. Text streams; what may be of another type comes as a whole.
        is_text: whether it is a string for certain.
        parameter: whose value it is, where its tool has one of that name: its schema tells what looks like a number,
            but is a string.
    """
    if is_text:
        pass_on('"')
        if not (yield from reader.until(ends, lambda text: pass_on(in_json(text)))):
            return False
        pass_on('"')
        return True
    kinds = parameter.kinds if parameter else frozenset[str]()
    value = yield from _json_up_to(reader, ends, kinds)
    if value is None:
        parts: list[str] = []
        if not (yield from reader.until(ends, parts.append)):
            return False
        value = _typed("".join(parts), kinds)
    pass_on(value)
    return True


def _json_up_to(reader: Reader, ends: Sequence[str], kinds: frozenset[str]) -> Generator[None, None, str | None]:
    """Consume JSON, whose strings may hold what looks like an end, and the mark after it; or nothing."""
    before = len(reader.unsure)
    parts: list[str] = []
    if (yield from reader.json(parts.append)):
        value = "".join(parts).strip()
        yield from reader.space()
        if _fits(value, kinds) and (yield from reader.one_of(ends)):
            return value
    reader.put_back(reader.unsure[before:])
    return None


def is_text(parameters: Mapping[str, Parameter], name: str) -> bool:
    """Whether a value is a string for certain, by its tool's schema."""
    return name in parameters and parameters[name].is_text


def in_bare(value: object) -> str:
    """A value as it is written: a string bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _typed(text: str, kinds: frozenset[str]) -> str:
    """The JSON of what is no JSON: Python for what JSON can say, else a string."""
    inner = text.strip()
    value = _WORDS.get(inner) or _from_python(inner)
    return value if value and _fits(value, kinds) else json.dumps(text, ensure_ascii=False)


def _fits(value: str, kinds: frozenset[str]) -> bool:
    """Whether JSON is meant as such: what may be a string, but nothing of the JSON's own type, is a string."""
    kind = _BEGINNINGS.get(value[0], "number")
    return "string" not in kinds or kind in kinds or (kind == "number" and "integer" in kinds)


def _from_python(text: str) -> str | None:
    """The JSON of a list or an object as Python prints it, which some templates show to their models."""
    if not text.startswith(("[", "{")):
        return None
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
