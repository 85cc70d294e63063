"""Where a sequence's tokens stand.

Text has one position a token. A medium's tokens may share positions: models with M-RoPE give an image as many as its
longer side has patches (Qwen2-VL, https://arxiv.org/abs/2409.12191), so behind it a token's index is not its position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of a prompt that stand for one medium.

    Attributes:
        start: index of the first of them. tokens: how many there are. positions: how many positions they take.
    """

    start: int
    tokens: int
    positions: int

    @property
    def end(self) -> int:
        """Index of the first token behind."""
        return self.start + self.tokens


class Positions:
    """Positions of a sequence's tokens.

    Args:
        spans: the media among them, in order; without any, index and position are the same.
    """

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._spans = tuple(spans)

    def at(self, index: int) -> int:
        """The position of the token at `index`, which is text, or a medium's first."""
        return index - sum(span.tokens - span.positions for span in self._spans if span.end <= index)

    def of(self, start: int, tokens: int) -> range:
        """The positions of so many tokens of text from `start` on."""
        first = self.at(start)
        return range(first, first + tokens)

    def whole(self, length: int) -> int:
        """The longest beginning of at most `length` tokens that parts no medium."""
        return next((span.start for span in self._spans if span.start < length < span.end), length)


TEXT = Positions()
"""Those of a sequence without media."""
