"""Proposing tokens that several positions of one batch can verify at once.

Prompt lookup needs no second model: where the last few tokens have occurred before in the same sequence, what
followed them then is proposed now. A small draft model proposes where lookup has nothing. How many to propose is
decided from measurements: a proposal costs what a wider batch takes longer, and what drafting takes, and gains what
the sequence's own acceptance promises.

Source: Saxena, Prompt Lookup Decoding (2023); Leviathan et al., Fast Inference from Transformers via Speculative
Decoding (2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.engine.costs import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

NGRAM = 3
LONGEST = 12
_PROBE_EVERY = 32
_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


class Lookup:
    """Finds what followed the last occurrence of a sequence's latest n-gram."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._followed: dict[tuple[int, ...], int] = {}
        self._tokens: list[int] = []
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to the sequence."""
        for token in tokens:
            if len(self._tokens) >= NGRAM:
                self._followed[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
            self._tokens.append(token)

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where the latest n-gram is new."""
        at = self._followed.get(tuple(self._tokens[-NGRAM:])) if most > 0 else None
        if at is None:
            return []
        proposed: list[int] = []
        while len(proposed) < most:  # a repetition may run into its own proposal
            proposed.append(self._tokens[at] if at < len(self._tokens) else proposed[at - len(self._tokens)])
            at += 1
        return proposed


@dataclass(slots=True)
class Acceptance:
    """How well a sequence's proposals have done."""

    rate: float = 0.7
    drafted: int = 0
    accepted: int = 0
    _since_probe: int = 0

    def learn(self, drafted: int, accepted: int) -> None:
        """Take in that `accepted` of `drafted` tokens proved right."""
        self.drafted += drafted
        self.accepted += accepted
        tried = min(drafted, accepted + 1)
        if tried:
            self.rate += (1 - 0.85**tried) * (accepted / tried - self.rate)

    def probe(self) -> bool:
        """Whether to try once more although it did not pay lately."""
        self._since_probe += 1
        if self._since_probe < _PROBE_EVERY:
            return False
        self._since_probe = 0
        return True


@dataclass(slots=True)
class StepTimes:
    """How long a decoding step takes by the number of its tokens, as measured."""

    _by_width: dict[int, Rate] = field(default_factory=dict[int, Rate])

    def learn(self, width: int, seconds: float) -> None:
        """Take in a step of `width` tokens."""
        if width <= _WIDTHS[-1]:
            self._by_width.setdefault(_bucket(width), Rate(0.0, weight=0.1)).learn(_bucket(width), seconds)

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return bool(self._by_width)

    def seconds(self, width: int) -> float:
        """What a step of `width` tokens takes; a straight line between measurements, in proportion beyond the last."""
        known = sorted((w, w / rate.value) for w, rate in self._by_width.items())
        if not known:
            return float(width)
        below = [item for item in known if item[0] <= width]
        above = [item for item in known if item[0] >= width]
        if not below:
            return above[0][1]
        if not above:
            last_width, last_time = below[-1]
            return last_time * width / last_width
        (w0, t0), (w1, t1) = below[-1], above[0]
        return t0 if w0 == w1 else t0 + (t1 - t0) * (width - w0) / (w1 - w0)


def _bucket(width: int) -> int:
    return max(w for w in _WIDTHS if w <= width)


def draft_length(acceptance: Acceptance, times: StepTimes, width: int, cost: float = 0.0) -> int:
    """How many tokens to propose for one sequence beside a batch of `width` tokens.

    Maximises the expected tokens of the whole batch per second of the step; 0 where no proposal pays.

    Args:
        cost: seconds that drafting one token takes.
    """
    rate = min(acceptance.rate, 0.98)
    best, best_speed = 0, width / times.seconds(width)
    expected = float(width)
    for k in range(1, LONGEST + 1):
        expected += rate**k
        speed = expected / (times.seconds(width + k) + k * cost)
        if speed > best_speed:
            best, best_speed = k, speed
    if best == 0 and acceptance.probe():
        return 1
    return best
