"""Ending an answer's reasoning, by force: when its tokens are spent, or where the answer would end within it.

One `ReasoningBudget` follows one sequence. It reads what is generated as text, since the marks around reasoning are
single tokens in one vocabulary and several in another.
Source of the idea: llama.cpp's common/reasoning-budget.h
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.engine.request import ReasoningLimit

GRACE = 4
"""Tokens that reasoning may have beyond its budget, to end a character or a mark that is begun."""


class ReasoningBudget:
    """How much longer one sequence may reason.

    Args:
        limit: the request's.
        closing: the tokens of the limit's closing text.
        piece: the bytes that a token adds to the output.
    """

    def __init__(self, limit: ReasoningLimit, closing: Sequence[int], piece: Callable[[int], bytes]) -> None:
        self._begin, self._end = limit.begin.encode(), limit.end.encode()
        self._left = limit.tokens
        self._repeats = limit.repeats
        self._closing = closing
        self._piece = piece
        self._mark = next((token for token in closing if piece(token) == self._end), None)
        self._inside = limit.opened
        self._over = False
        self._tail = b""
        self._forced: deque[int] = deque()
        self._cut = False
        self._bound()

    @property
    def forced(self) -> int | None:
        """The token that must come next; None leaves the choice."""
        return self._forced[0] if self._forced else None

    @property
    def forbidden(self) -> int | None:
        """The token that ends reasoning, once reasoning was cut: its rest, now text, must not end a second time."""
        return self._mark if self._cut and not self._forced and not self._repeats else None

    def take(self, token: int) -> None:
        """Go on by a token that has been chosen: the forced one where there is one."""
        if self._forced:
            self._cut = self._forced.popleft() == token  # a grammar goes before
            if not self._forced:
                self._leave(b"")
        elif not self._over:
            if self._left is not None:
                self._left -= self._inside
            self._tail += self._piece(token)
            self._read()
            self._bound()

    def close(self) -> None:
        """End reasoning now: `forced` says how."""
        if self._inside and not self._forced:
            self._forced.extend(self._closing)

    def _read(self) -> None:
        """Look for the mark that begins or ends reasoning."""
        if not self._inside:
            before, found, behind = self._tail.partition(self._begin)
            self._inside = bool(found)
            if found:
                self._tail = behind
            elif not self._repeats and not self._begin.startswith(before.lstrip()):
                self._over = True  # what comes first is the answer
        if self._inside:
            _, found, behind = self._tail.partition(self._end)
            if found:
                self._leave(behind)
        self._tail = self._tail[-len(self._begin + self._end) :]

    def _leave(self, behind: bytes) -> None:
        """Reasoning has ended, and the text that has come `behind` it is another's."""
        self._inside = False
        self._over = not self._repeats
        self._tail = behind

    def _bound(self) -> None:
        """Force reasoning to its end where its tokens are spent."""
        if self._left is not None and (self._left <= -GRACE or (self._left <= 0 and not self._unfinished())):
            self.close()

    def _unfinished(self) -> bool:
        """Whether the output ends within a character, or within what may become the mark that ends reasoning."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self._tail)
        return bool(decoder.getstate()[0]) or any(self._tail.endswith(self._end[:n]) for n in range(1, len(self._end)))
