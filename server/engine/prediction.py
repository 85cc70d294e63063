"""Proposing from a text that the caller expects the answer to be much like, as when a file is edited.

As long as the answer goes as predicted, what comes next in the prediction is proposed. Where it departs, the prediction
is taken up again behind the answer's last few tokens, at their occurrence nearest behind the place that was left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from server.engine.speculation import GRADES, NGRAM


class Prediction:
    """Follows one answer through a predicted text.

    Args:
        tokens: of the text.
    """

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._behind: dict[tuple[int, ...], list[int]] = {}
        for at in range(NGRAM, len(tokens) + 1):
            self._behind.setdefault(tuple(tokens[at - NGRAM : at]), []).append(at)
        self._latest: deque[int] = deque(maxlen=NGRAM)
        self._at = 0
        self._followed = True
        self.agreeing = GRADES[0]
        """How many of the latest tokens are as predicted; a text is expected to begin as predicted."""

    def take(self, token: int) -> None:
        """The answer goes on by a token."""
        self._latest.append(token)
        if self._followed and self._at < len(self._tokens) and self._tokens[self._at] == token:
            self._at += 1
            self.agreeing += 1
            return
        places = self._behind.get(tuple(self._latest), [])
        self._followed = bool(places)
        self.agreeing = NGRAM
        if places:
            self._at = places[min(bisect_left(places, self._at), len(places) - 1)]

    @property
    def hit(self) -> bool:
        """Whether the answer is at a place of the prediction that more follows."""
        return self._followed and self._at < len(self._tokens)

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next."""
        return self._tokens[self._at : self._at + most] if self.hit else []
