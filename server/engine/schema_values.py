"""What the keywords of a JSON Schema may hold: checks of single values, before any schema is looked at as a whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Json = Any
"""What a JSON text says: None, bool, int, float, str, or a list or dict of such."""

_LARGEST_EXACT = 2**53
"""llguidance holds numbers as doubles: integers from here on are no longer told apart."""
_LARGEST_COUNT = 1_000_000


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


ENFORCED_FORMATS = words("date date-time duration email hostname ipv4 ipv6 time uri uuid")
ANNOTATING_FORMATS = words(
    "base64 base64url binary byte decimal directory-path double file-path float int8 int16 int32 int64 json-string "
    "password path uint8 uint16 uint32 uint64"
)
TYPES = words("null boolean integer number string array object")


def inner_values(value: Json) -> Iterable[Json]:
    """What a list or an object holds."""
    if isinstance(value, dict):
        return cast("dict[str, Json]", value).values()
    return cast("list[Json]", value) if isinstance(value, list) else ()


def _count(value: Json) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_COUNT
    return None if fits else f"must be a whole number from 0 to {_LARGEST_COUNT}"


def _number(value: Json) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "must be a number"
    return None if abs(value) < _LARGEST_EXACT else "is too large: numbers are exact below 2^53 only"


def _limit(value: Json) -> str | None:
    return None if isinstance(value, bool) else _number(value)


def _step(value: Json) -> str | None:
    return _number(value) or (None if value > 0 else "must be greater than 0")


def _text(value: Json) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _strings(value: Json) -> str | None:
    fits = isinstance(value, list) and all(isinstance(one, str) for one in cast("list[Json]", value))
    return None if fits else "must be a list of strings"


def _type(value: Json) -> str | None:
    named = cast("list[Json]", value if isinstance(value, list) else [value])
    fits = named and all(isinstance(one, str) and one in TYPES for one in named)
    return None if fits else f"must be one of {', '.join(sorted(TYPES))}, or a list of them"


def _format(value: Json) -> str | None:
    if not isinstance(value, str) or value not in ENFORCED_FORMATS | ANNOTATING_FORMATS:
        return f"is not supported as {value!r}; supported are {', '.join(sorted(ENFORCED_FORMATS))}"
    return None


def _literal(value: Json) -> str | None:
    """A constant must hold only numbers that can be told apart."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value)
    return next((fault for inner in inner_values(value) if (fault := _literal(inner))), None)


def _literals(value: Json) -> str | None:
    return _literal(value) if isinstance(value, list) and value else "must be a list, not empty"


CHECKS: dict[str, Callable[[Json], str | None]] = {
    "type": _type,
    "const": _literal,
    "enum": _literals,
    "$ref": _text,
    "$id": _text,
    "$anchor": _text,
    "required": _strings,
    "minProperties": _count,
    "maxProperties": _count,
    "minItems": _count,
    "maxItems": _count,
    "minLength": _count,
    "maxLength": _count,
    "pattern": _text,
    "format": _format,
    "minimum": _number,
    "maximum": _number,
    "exclusiveMinimum": _limit,
    "exclusiveMaximum": _limit,
    "multipleOf": _step,
}
"""For each keyword with a plain value: None where all is well, or what is wrong, as a clause."""
