"""Proposing tokens that several positions of one batch can verify at once.

Prompt lookup needs no second model: where the last few tokens have occurred before in the same sequence, what
followed them then is proposed now. A small draft model proposes where lookup has nothing. How many to propose is
decided from measurements: a proposal costs what a wider batch takes longer, and what drafting takes, and gains what
the sequence's own acceptance promises. The more tokens agree with those before, the likelier do the next ones: after
three in common a proposal is a guess, after twelve a quotation. So grades of agreement have acceptances of their own.

Source: Saxena, Prompt Lookup Decoding (2023); Leviathan et al., Fast Inference from Transformers via Speculative
Decoding (2022); Oliaro et al., SuffixDecoding (2024), for lengths that follow from how much agrees.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from server.engine.costs import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

NGRAM = 3
LONGEST = 12
GRADES = (6, 12)
"""Tokens that agree from which on a proposal is of a higher grade."""
_EXPECTED = (0.7, 0.85, 0.95)
"""Acceptance of each grade, as long as nothing has been seen of it."""
_PROBE_EVERY = 32
_USUAL_WEIGHT = 0.2
_WIDEST = 128
_NEARBY = 0.35
"""How far a measurement's say reaches, in doublings of the width."""
_MOST_SAY = 20
"""Measurements of one width after which more of them give it no more weight."""
_TABLE_EVERY = 64
"""Measurements after which the table of step times is made anew."""


class Kind(NamedTuple):
    """Proposals that do about as well as each other: whose they are, and how much agrees with what they go by."""

    proposer: str
    grade: int = 0


def grade(agreeing: int) -> int:
    """The grade of a proposal behind so many tokens that agree with what it goes by."""
    return bisect_right(GRADES, agreeing)


class Lookup:
    """Finds what followed the last occurrence of a sequence's latest n-gram."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._followed: dict[tuple[int, ...], int] = {}
        self._followed_before: dict[tuple[int, ...], int] = {}
        self._tokens: list[int] = []
        self.extend(tokens)

    def fork(self) -> Lookup:
        """One for a sequence that goes on from this one's tokens. It shares the index, which must not grow any more."""
        fork = Lookup(())
        fork._followed_before = self._followed
        fork._tokens = self._tokens.copy()
        return fork

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to the sequence."""
        for token in tokens:
            if len(self._tokens) >= NGRAM:
                self._followed[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
            self._tokens.append(token)

    @property
    def hit(self) -> bool:
        """Whether the latest n-gram has occurred before."""
        return self._followed_at is not None

    @property
    def _followed_at(self) -> int | None:
        """Where what followed the latest n-gram begins, if that has occurred before."""
        ngram = tuple(self._tokens[-NGRAM:])
        return self._followed.get(ngram, self._followed_before.get(ngram))

    @property
    def agreeing(self) -> int:
        """How many of the latest tokens are those before the place that is proposed from, up to the highest grade."""
        tokens = self._tokens
        at = self._followed_at or 0
        most = min(at, GRADES[-1])
        return next((n for n in range(most) if tokens[at - 1 - n] != tokens[-1 - n]), most)

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where the latest n-gram is new."""
        at = self._followed_at if most > 0 else None
        if at is None:
            return []
        proposed: list[int] = []
        while len(proposed) < most:  # a repetition may run into its own proposal
            proposed.append(self._tokens[at] if at < len(self._tokens) else proposed[at - len(self._tokens)])
            at += 1
        return proposed


@dataclass(slots=True)
class Acceptance:
    """How well a sequence's proposals of one kind have done.

    Attributes:
        rate: the share of its latest ones that were right, of those that were put to the test.
        drafted: tokens proposed. tried: those of them that all before in their proposal were right. accepted: the
            right ones.
    """

    rate: float = 0.7
    drafted: int = 0
    tried: int = 0
    accepted: int = 0
    _since_probe: int = 0

    def learn(self, drafted: int, accepted: int) -> None:
        """Take in that `accepted` of `drafted` tokens proved right."""
        self.drafted += drafted
        self.accepted += accepted
        tried = min(drafted, accepted + 1)
        self.tried += tried
        if tried:
            self.rate += (1 - 0.85**tried) * (accepted / tried - self.rate)

    def probe(self) -> bool:
        """Whether to try once more although it did not pay lately."""
        self._since_probe += 1
        if self._since_probe < _PROBE_EVERY:
            return False
        self._since_probe = 0
        return True


class Experience:
    """How often proposals of each kind are right as a rule: what a new sequence expects of them."""

    def __init__(self) -> None:
        self._rates: dict[Kind, float] = {}

    def begin(self, kind: Kind) -> Acceptance:
        """What a sequence starts from."""
        return Acceptance(self._rates.get(kind, _EXPECTED[kind.grade]))

    def learn(self, kind: Kind, acceptance: Acceptance) -> None:
        """Take in how a finished sequence's proposals did."""
        if acceptance.tried:
            rate = self.begin(kind).rate
            self._rates[kind] = rate + _USUAL_WEIGHT * (acceptance.accepted / acceptance.tried - rate)


class StepTimes:
    """How long a decoding step takes by the number of its tokens, as measured.

    Measurements are noisy, and of many widths: each width's time is a mean over the times per token of widths nearby,
    so that no lucky measurement makes a wider batch look free.
    """

    def __init__(self) -> None:
        self._measured: dict[int, Rate] = {}
        self._counts: Counter[int] = Counter()
        self._table: list[float] = [float(width) for width in range(_WIDEST + 1)]
        self._untold = 0

    def learn(self, width: int, seconds: float) -> None:
        """Take in a step of `width` tokens."""
        if not 0 < width <= _WIDEST:
            return
        known = width in self._measured
        self._measured.setdefault(width, Rate(0.0, weight=0.1)).learn(width, seconds)
        self._counts[width] += 1
        self._untold += 1
        if not known or self._untold >= _TABLE_EVERY:
            self._untold = 0
            self._table = self._smoothed()

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return bool(self._measured)

    def seconds(self, width: int) -> float:
        """What a step of `width` tokens takes."""
        if width <= _WIDEST:
            return self._table[width]
        return self._table[_WIDEST] * width / _WIDEST

    def _smoothed(self) -> list[float]:
        """All widths; a wider batch never takes less time than a narrower one."""
        known = np.array(sorted(self._measured), np.float64)
        per_token = np.array([1 / self._measured[int(width)].value for width in known])
        say = np.array([min(self._counts[int(width)], _MOST_SAY) for width in known])
        widths = np.arange(1, _WIDEST + 1)
        distance = np.abs(np.log2(widths)[:, None] - np.log2(known)[None, :]) / _NEARBY
        weights = say * np.exp(-((distance - distance.min(axis=1, keepdims=True)) ** 2))
        seconds = widths * (weights @ per_token) / weights.sum(axis=1)
        return [0.0, *np.maximum.accumulate(seconds).tolist()]


def draft_length(
    acceptance: Acceptance, times: StepTimes, width: int, cost: float = 0.0, *, apart: bool = False
) -> int:
    """How many tokens to propose for one sequence beside a batch of `width` tokens.

    Maximises the expected tokens of the whole batch per second of the step; 0 where no proposal pays.

    Args:
        cost: seconds that drafting one token takes.
        apart: whether proposals are computed after the batch instead of in it.
    """
    rate = min(acceptance.rate, 0.98)
    best, best_speed = 0, width / times.seconds(width)
    expected = float(width)
    for k in range(1, LONGEST + 1):
        expected += rate**k
        step = times.seconds(width) + times.seconds(k) if apart else times.seconds(width + k)
        speed = expected / (step + k * cost)
        if speed > best_speed:
            best, best_speed = k, speed
    if best == 0 and acceptance.probe():
        return 1
    return best
