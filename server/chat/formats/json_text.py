"""Follows JSON text as it grows: where a value ends, and where it stops being one."""

from __future__ import annotations

import re

_SPACE = " \t\n\r"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NUMBER_SO_FAR = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?((?<=[0-9])[eE][+-]?[0-9]*)?)?")
_LITERALS = ("true", "false", "null")
_CLOSERS = {"{": "}", "[": "]"}


class JsonScanner:
    """Reads one JSON value, character by character.

    Models often write line breaks and tabs bare in strings, which JSON forbids: they are passed on escaped.

    Attributes:
        complete: the value has ended.
        broken: the text can no longer become a value.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False
        self._closers: list[str] = []
        self._expects = "value"
        self._scalar = ""
        self._string = False
        self._escape = ""

    def feed(self, text: str) -> tuple[int, str]:
        """Take in more text.

        Returns:
            How many of its characters belong to the value, and the value's text that they make. Leading white space
            belongs to it, what follows its end does not.
        """
        out: list[str] = []
        for at, char in enumerate(text):
            if self._string:
                piece = self._in_string(char)
            elif self._scalar:
                piece = self._in_scalar(char)
            else:
                piece = self._between(char)
            if piece is None:
                return at, "".join(out)
            out.append(piece)
            if self.complete:
                return at + 1, "".join(out)
        return len(text), "".join(out)

    def end(self) -> None:
        """The text is over: a number is complete only now."""
        if self._scalar and not self._closers and _is_scalar(self._scalar):
            self._scalar = ""
            self._value_ended()

    def _in_string(self, char: str) -> str | None:
        if self._escape:
            self._escape += char
            if self._escape[1] == "u":
                if len(self._escape) > 2 and char not in "0123456789abcdefABCDEF":
                    return self._break()
                if len(self._escape) == 6:
                    self._escape = ""
            elif char in '"\\/bfnrt':
                self._escape = ""
            else:
                return self._break()
            return char
        if char == "\\":
            self._escape = char
        elif char == '"':
            self._string = False
            if self._expects == "key":
                self._expects = "colon"
            else:
                self._value_ended()
        elif char < " ":
            return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\u{ord(char):04x}")
        return char

    def _in_scalar(self, char: str) -> str | None:
        if _is_scalar_so_far(self._scalar + char):
            self._scalar += char
            return char
        if not _is_scalar(self._scalar):
            return self._break()
        self._scalar = ""
        self._value_ended()
        return None if self.complete else self._between(char)

    def _between(self, char: str) -> str | None:
        if char in _SPACE:
            return char
        expects = self._expects
        if char == '"' and expects in ("value", "value or end", "key", "key or end"):
            self._string = True
            self._expects = "key" if expects.startswith("key") else "value"
        elif expects == "colon" and char == ":":
            self._expects = "value"
        elif expects == "comma or end" and char == ",":
            self._expects = "key" if self._closers[-1] == "}" else "value"
        elif expects.endswith("or end") and char == self._closers[-1]:
            self._closers.pop()
            self._value_ended()
        elif expects.startswith("value") and char in _CLOSERS:
            self._closers.append(_CLOSERS[char])
            self._expects = "key or end" if char == "{" else "value or end"
        elif expects.startswith("value") and _is_scalar_so_far(char):
            self._scalar = char
        else:
            return self._break()
        return char

    def _value_ended(self) -> None:
        self._expects = "comma or end"
        self.complete = not self._closers

    def _break(self) -> None:
        self.broken = True


def _is_scalar(text: str) -> bool:
    return text in _LITERALS or _NUMBER.fullmatch(text) is not None


def _is_scalar_so_far(text: str) -> bool:
    return any(literal.startswith(text) for literal in _LITERALS) or _NUMBER_SO_FAR.fullmatch(text) is not None
