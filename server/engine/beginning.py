"""Where in an output a grammar begins: at once, behind a text, or with the first of some texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.request import Beginning

Spelt = tuple[int | None, bytes]
"""A token and its bytes; no token where it is the rest of one."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """What an output must still come to contain before a grammar begins; the fields are those of `Beginning`.

    Attributes:
        tail: the end of the output, in which one of the texts may be begun.
    """

    behind: bytes
    triggers: tuple[bytes, ...]
    aside: tuple[bytes, bytes] | None = None
    repeats: bool = False
    tail: tuple[Spelt, ...] = ()

    @classmethod
    def of(cls, beginning: Beginning) -> Awaited:
        """All that a beginning says."""
        triggers = tuple(text.encode() for text in beginning.triggers)
        aside = (beginning.aside[0].encode(), beginning.aside[1].encode()) if beginning.aside else None
        return cls(beginning.behind.encode(), triggers, aside, beginning.repeats)

    def after(self, token: int, piece: bytes) -> Awaited | tuple[Spelt, ...]:
        """What is still awaited when a token has come, or the output since the grammar's beginning."""
        return self._read((*self.tail, (token, piece)) if piece else self.tail)

    def _read(self, tail: tuple[Spelt, ...]) -> Awaited | tuple[Spelt, ...]:
        text = b"".join(piece for _, piece in tail)
        if self.behind:
            at = text.find(self.behind)
            if at < 0:
                return replace(self, tail=_end(tail, len(self.behind) - 1))
            rest = _cut(tail, at + len(self.behind))
            return replace(self, behind=b"")._read(rest) if self.triggers else rest
        if self.aside and not self.repeats:
            begun = text.lstrip()
            if not begun.startswith(self.aside[0]):
                undecided = self.aside[0].startswith(begun)
                return replace(self, tail=tail) if undecided else replace(self, aside=None)._read(tail)
        return self._watch(text, tail)

    def _watch(self, text: bytes, tail: tuple[Spelt, ...]) -> Awaited | tuple[Spelt, ...]:
        """Look for the first trigger, and for what is set aside before it."""
        at = min((found for trigger in self.triggers if (found := text.find(trigger)) >= 0), default=len(text))
        if self.aside and 0 <= (begin := text.find(self.aside[0])) < at:
            kept = self.aside if self.repeats else None
            inside = replace(self, behind=self.aside[1], aside=kept)
            return inside._read(_cut(tail, begin + len(self.aside[0])))
        if at < len(text):
            return _cut(tail, at)
        marks = (*self.triggers, self.aside[0]) if self.aside else self.triggers
        return replace(self, tail=_end(tail, max(map(len, marks)) - 1))


def _cut(spelt: Sequence[Spelt], at: int) -> tuple[Spelt, ...]:
    """What is spelt from a byte on."""
    ends = accumulate(len(piece) for _, piece in spelt)
    return tuple(
        (token, piece) if end - len(piece) >= at else (None, piece[at - end :])
        for (token, piece), end in zip(spelt, ends, strict=True)
        if end > at
    )


def _end(spelt: Sequence[Spelt], count: int) -> tuple[Spelt, ...]:
    """The last tokens that spell so many bytes, or more."""
    kept = len(spelt)
    while kept and count > 0:
        kept -= 1
        count -= len(spelt[kept][1])
    return tuple(spelt[kept:])
