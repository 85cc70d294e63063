"""Regular expressions of JSON Schemas, which are ECMAScript's, as llguidance must be given them: in Rust's syntax.

Inside brackets the two read some characters differently. And llguidance 1.9 has a fault: a set of characters that has
all of U+0000 to U+001F but not the quotation mark (or not the backslash), such as `[^"]`, lets it through all the same
where it is escaped in JSON. So U+0000 is left out of every set here, which makes each string matched one that the
schema allows.
Source: https://262.ecma-international.org/#sec-patterns, https://docs.rs/regex/latest/regex/#syntax
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[xu]\{[0-9a-fA-F]+\}|[pP]\{\^?\w+\}|.)|\[\^?|.", re.DOTALL)
_IRREGULAR = re.compile(r"\(\?<?[=!]|\\[1-9bB]")
_NUL = re.compile(r"\\(?:x00|u0000|[xu]\{0+\})|\x00")
_ESCAPED_IN_SET = {"&": r"\&", "~": r"\~", "[": r"\["}


class PatternError(Exception):
    """A regular expression that cannot be enforced. The text says why."""


def is_regular(pattern: str) -> bool:
    """Whether an expression neither looks around, as word boundaries do, nor refers back: llguidance can do neither."""
    return not _IRREGULAR.search(pattern)


def for_llguidance(pattern: str) -> str:
    """The expression in Rust's syntax, matching no string that it does not match in ECMAScript.

    Raises:
        PatternError: it has U+0000 or a class of control characters, or a set that is not closed or not clear.
    """
    return "".join(_parts(pattern))


def _parts(pattern: str) -> Iterator[str]:
    parts = [found[0] for found in _PART.finditer(pattern)]
    at = 0
    while at < len(parts):
        if parts[at] in ("[", "[^"):
            end = _end_of_set(parts, at)
            yield _set(parts[at], parts[at + 1 : end])
            at = end + 1
        else:
            yield _outside_negation(parts[at])
            at += 1


def _end_of_set(parts: list[str], at: int) -> int:
    try:
        return parts.index("]", at + 1)
    except ValueError as error:
        raise PatternError("a set '[' is not closed") from error


def _set(opening: str, members: list[str]) -> str:
    if not members:
        if opening == "[":
            raise PatternError("the empty set '[]' matches nothing")
        return "(?s:.)"
    if "--" in "".join(members):
        raise PatternError("'--' in a set is not clear; write '\\-'")
    if opening == "[^":
        return f"[^\\x00{''.join(map(_escaped, members))}]"
    return f"[{''.join(_outside_negation(_escaped(member)) for member in members)}]"


def _escaped(member: str) -> str:
    return r"\[\^" if member == "[^" else _ESCAPED_IN_SET.get(member, member)


def _outside_negation(part: str) -> str:
    if _NUL.fullmatch(part) or part.startswith((r"\p{C", r"\P", r"\p{^")):
        raise PatternError(f"{part!r} is not supported here: U+0000 cannot be matched")
    return part
