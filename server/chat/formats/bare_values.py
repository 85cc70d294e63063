"""Arguments written between marks, strings bare and all else as JSON: for formats in the manner of XML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from server.chat.formats.notation import in_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from server.chat.formats.parameters import Parameter
    from server.chat.formats.reader import Reader

_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_bare(
    reader: Reader, ends: Sequence[str], pass_on: Callable[[str], None], *, is_text: bool
) -> Generator[None, None, bool]:
    """Consume a value and the mark after it; False where there is none.

    Args:
        reader: at the value.
        ends: marks that the value may end with.
        pass_on: takes the value's JSON. Text streams; what may be of another type comes as a whole.
        is_text: whether it is a string for certain.
    """
    if is_text:
        pass_on('"')
        if not (yield from reader.until(ends, lambda text: pass_on(in_json(text)))):
            return False
        pass_on('"')
        return True
    parts: list[str] = []
    if not (yield from reader.until(ends, parts.append)):
        return False
    pass_on(_typed("".join(parts)))
    return True


def is_text(parameters: Mapping[str, Parameter], name: str) -> bool:
    """Whether a value is a string for certain, by its tool's schema."""
    return name in parameters and parameters[name].is_text


def in_bare(value: object) -> str:
    """A value as it is written: a string bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _typed(text: str) -> str:
    """A value's JSON: itself where it is JSON or one of Python's words, else a string."""
    try:
        json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return _WORDS.get(text.strip()) or json.dumps(text, ensure_ascii=False)
    return text.strip()


def _not_json(word: str) -> None:
    raise ValueError(word)
