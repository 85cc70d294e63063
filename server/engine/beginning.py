"""Where in an output a grammar begins: at once, behind a text, or with what calls begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import structs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.request import Beginning

REACH = 1024
"""How many bytes back from the last token something that sets a grammar off may begin."""

Spelt = tuple[int | None, bytes]
"""A token and its bytes; no token where it is the rest of one."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """What an output must still come to contain before a grammar begins.

    Attributes:
        said: what sets the grammar off.
        behind: the text that must come first; empty where it has.
        fresh: whether the tail is all that has come of the answer.
        tail, text: the end of the output, in which something may be begun, in tokens and as it reads.
    """

    said: Beginning
    behind: bytes
    fresh: bool = True
    tail: tuple[Spelt, ...] = ()
    text: bytes = b""

    @classmethod
    def of(cls, beginning: Beginning) -> Awaited:
        """All that a beginning says."""
        return cls(beginning, beginning.behind.encode())

    def after(self, token: int, piece: bytes) -> Awaited | tuple[Spelt, ...]:
        """What is still awaited when a token has come, or the output since the grammar's beginning."""
        return self._read((*self.tail, (token, piece)), self.text + piece) if piece else self

    def _read(self, tail: tuple[Spelt, ...], text: bytes) -> Awaited | tuple[Spelt, ...]:
        if self.behind:
            at = text.find(self.behind)
            if at < 0:
                return self._keeping(tail, text, len(self.behind) - 1)
            rest, at = _cut(tail, at + len(self.behind)), at + len(self.behind)
            return replace(self, behind=b"")._read(rest, text[at:]) if self.said.trigger or self.said.start else rest
        return self._watch(tail, text)

    def _watch(self, tail: tuple[Spelt, ...], text: bytes) -> Awaited | tuple[Spelt, ...]:
        """Look for what sets the grammar off, and for what is set aside before it."""
        seen = text.decode(errors="surrogateescape")
        at, aside = self._set_off(seen), self._aside(seen)
        if aside is not None and (at is None or aside < at):
            assert self.said.aside
            begin, end = self.said.aside
            said = self.said if self.said.repeats else structs.replace(self.said, aside=None)
            inside = len(_bytes(seen[:aside] + begin))
            return Awaited(said, end.encode())._read(_cut(tail, inside), text[inside:])
        if at is not None:
            return _cut(tail, len(_bytes(seen[:at])))
        if self.fresh and len(text) < REACH:
            return replace(self, tail=tail, text=text) if seen.strip() else replace(self, tail=(), text=b"")
        return replace(self, fresh=False)._keeping(tail, text, REACH)

    def _keeping(self, tail: tuple[Spelt, ...], text: bytes, count: int) -> Awaited:
        """The same with the last tokens that spell so many bytes, or more."""
        first = 0
        while first < len(tail) and len(text) - len(tail[first][1]) >= count:
            text = text[len(tail[first][1]) :]
            first += 1
        return replace(self, tail=tail[first:], text=text)

    def _set_off(self, text: str) -> int | None:
        """Where the grammar begins in a text."""
        found = None
        if self.said.start and self.fresh:
            found = _pattern(self.said.start).match(text, len(text) - len(text.lstrip()))
        if self.said.trigger and not found:
            found = _pattern(self.said.trigger).search(text)
        return found.start(found.re.groups and 1) if found else None

    def _aside(self, text: str) -> int | None:
        """Where a mark stands behind which nothing counts."""
        if not self.said.aside or not (self.fresh or self.said.repeats):
            return None
        at = text.find(self.said.aside[0])
        return at if at >= 0 and (self.said.repeats or not text[:at].strip()) else None


@lru_cache
def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.DOTALL)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _cut(spelt: Sequence[Spelt], at: int) -> tuple[Spelt, ...]:
    """What is spelt from a byte on."""
    ends = accumulate(len(piece) for _, piece in spelt)
    return tuple(
        (token, piece) if end - len(piece) >= at else (None, piece[at - end :])
        for (token, piece), end in zip(spelt, ends, strict=True)
        if end > at
    )
