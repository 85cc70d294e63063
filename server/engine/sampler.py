"""Choosing the next token from its logits.

Greedy choices of a whole batch are one argmax. A request with a temperature, a penalty or a bias has a `Sampler` of
its own, which works on its row alone and only on the few tokens that can still be chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from server.engine.constraint import NOTHING_LEFT, ConstraintError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.request import Sampling

Row = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_BLOCK = 128


class NotANumberError(Exception):
    """Logits that are no numbers: nothing can be chosen by them."""

    def __init__(self) -> None:
        super().__init__("the model's numbers overflowed at this text: try another quantization or KV type of it")


class Mask(Protocol):
    """Which tokens may come next."""

    @property
    def begun(self) -> bool:
        """Whether many tokens are out of the question; else almost all may come, and `restrict` is not called."""
        ...

    def admits(self, token: int) -> bool:
        """Whether a token may come."""
        ...

    def vetoes(self, token: int) -> bool:
        """Whether one of the tokens that are left to choose from may not come all the same: seldom."""
        ...

    def restrict(self, row: Row) -> Indices | None:
        """The tokens that may come, at least one, ascending; or None, and all others are minus infinity in `row`."""
        ...


class Sampler:
    """The state of one sequence's sampling.

    Args:
        sampling: the request's parameters.
        banned: tokens never to be chosen.
        prompt: the prompt's tokens, which the repeat penalty counts too.
        stream: tells the choices of one request apart, so that equal seeds do not make them equal.
    """

    def __init__(
        self, sampling: Sampling, *, banned: Sequence[int] = (), prompt: Sequence[int] = (), stream: int = 0
    ) -> None:
        self._sampling = sampling
        self._generated: Counter[int] = Counter()
        self._recent = _window(list(prompt), sampling.repeat_last_n)
        self._ruled_out = frozenset(banned)
        self._banned = np.array(banned, np.intp)
        self._bias_tokens = np.array(list(sampling.logit_bias), np.intp)
        self._bias = np.array(list(sampling.logit_bias.values()), np.float32)
        self._penalises = bool(
            sampling.presence_penalty or sampling.frequency_penalty or sampling.repeat_penalty != 1.0
        )
        self._random = np.random.default_rng(None if sampling.seed is None else (sampling.seed % 2**64, stream))
        self.plain_greedy = sampling.temperature <= 0 and not self._penalises and not sampling.logit_bias
        """Whether the likeliest token is chosen, with no logit to change before."""

    def likeliest(self, row: Row) -> int:
        """The next token where it is chosen as `plain_greedy` says: the likeliest that is not banned.

        Raises NotANumberError where a logit is none.
        """
        token = int(row.argmax())  # what is no number counts as the largest
        return self.choose(row) if token in self._ruled_out or math.isnan(row[token]) else token

    def choose(self, row: Row, mask: Mask | None = None) -> int:
        """The next token.

        Args:
            row: logits [vocabulary]; penalties and bias are written into it.
            mask: forbids tokens; the others keep their proportions.

        Raises:
            ConstraintError: it forbids them all.
            NotANumberError: a logit is none.
        """
        if math.isnan(row.max()):
            raise NotANumberError
        self._adjust(row)
        if mask is None:
            return self._draw(row)
        if self._sampling.temperature <= 0 and mask.admits(token := int(row.argmax())):
            return token
        allowed = mask.restrict(row) if mask.begun else None
        token = self._draw(row, allowed)
        return self._draw_again(row, allowed, mask, token) if mask.vetoes(token) else token

    def _draw(self, row: Row, allowed: Indices | None = None) -> int:
        if self._sampling.temperature <= 0:
            return int(row.argmax() if allowed is None else allowed[row[allowed].argmax()])
        tokens, probabilities = self._distribution(row if allowed is None else row[allowed])
        cumulative = probabilities.cumsum()
        total = float(cumulative[-1])
        drawn = self._random.random() * total
        last = int(np.searchsorted(cumulative, total))  # of any weight
        token = tokens[min(int(np.searchsorted(cumulative, drawn, side="right")), last)]
        return int(token if allowed is None else allowed[token])

    def _draw_again(self, row: Row, allowed: Indices | None, mask: Mask, vetoed: int) -> int:
        """Go on drawing, with no token put back, until one may come."""
        row[vetoed] = -np.inf
        tokens = np.arange(row.size) if allowed is None else allowed
        while (tokens := tokens[row[tokens] > -np.inf]).size:
            for token in self._in_turn(row, tokens).tolist():
                if not mask.vetoes(token):
                    return token
                row[token] = -np.inf
        raise ConstraintError(NOTHING_LEFT)

    def _in_turn(self, row: Row, tokens: Indices) -> Indices:
        """Those of `tokens` that may be drawn, in the order of drawing them all.

        Adding Gumbel noise to logarithms of weights gives that order: https://arxiv.org/abs/1903.06059
        """
        if self._sampling.temperature <= 0:
            return tokens[np.argsort(-row[tokens], kind="stable")]
        drawn, weights = self._distribution(row[tokens])
        drawn, weights = drawn[weights > 0], weights[weights > 0]
        return tokens[drawn[np.argsort(-(np.log(weights) + self._random.gumbel(size=weights.size)))]]

    def observe(self, token: int) -> None:
        """Take in a token that was generated."""
        if self._penalises:
            self._generated[token] += 1
            self._recent = _window([*self._recent, token], self._sampling.repeat_last_n)

    def _adjust(self, row: Row) -> None:
        sampling = self._sampling
        if self._penalises:
            if sampling.repeat_penalty != 1.0 and self._recent:
                recent = np.unique(np.array(self._recent, np.intp))
                values = row[recent]
                row[recent] = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
            if self._generated:
                tokens = np.fromiter(self._generated.keys(), np.intp)
                counts = np.fromiter(self._generated.values(), np.float32)
                row[tokens] -= np.float32(sampling.presence_penalty) + np.float32(sampling.frequency_penalty) * counts
        if self._bias.size:
            row[self._bias_tokens] += self._bias
        if self._banned.size:
            row[self._banned] = -np.inf

    def _distribution(self, row: Row) -> tuple[Indices, npt.NDArray[np.float64]]:
        """The tokens that may be chosen, likeliest first where the order matters, and their weights."""
        sampling = self._sampling
        tokens = likeliest(row, sampling.top_k) if sampling.top_k > 0 else np.arange(row.size)
        logits = row[tokens].astype(np.float64)
        top = logits.max()
        if sampling.min_p > 0:
            keep = logits >= top + np.log(sampling.min_p)
            tokens, logits = tokens[keep], logits[keep]
        if sampling.top_p < 1:
            order = np.argsort(-logits, kind="stable")
            tokens, logits = tokens[order], logits[order]
            weights = np.exp(logits - top)
            kept = int(np.searchsorted(weights.cumsum(), sampling.top_p * float(weights.sum()))) + 1
            tokens, logits = tokens[:kept], logits[:kept]
        return tokens, np.exp((logits - top) / sampling.temperature)


def _window(tokens: list[int], last: int) -> list[int]:
    """The last so many tokens, or, where that is negative, each of them all once."""
    return list(dict.fromkeys(tokens)) if last < 0 else tokens[max(0, len(tokens) - last) :]


def likeliest(row: Row, k: int) -> Indices:
    """The `k` tokens of the highest logits, in no order.

    The k-th largest of all blocks' maxima is no larger than the k-th largest logit, so what lies below it can be left
    out before anything is sorted: on 150,000 logits this takes half the time of a partition of them all.
    """
    if k >= row.size:
        return np.arange(row.size)
    blocks = row.size // _BLOCK
    if blocks > k:
        maxima = row[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        bound = np.partition(maxima, blocks - k)[blocks - k]
        candidates = np.flatnonzero(row >= bound)
    else:
        candidates = np.arange(row.size)
    chosen = np.argpartition(row[candidates], candidates.size - k)[candidates.size - k :]
    return candidates[chosen]


def log_probabilities(row: Row, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of a token, and the `top` likeliest tokens with theirs, likeliest first.

    Args:
        row: logits [vocabulary] as the model gave them.

    Raises:
        NotANumberError: one of them is none.
    """
    peak = float(row.max())
    if math.isnan(peak):
        raise NotANumberError
    total = peak + float(np.log(np.exp(row - np.float32(peak), dtype=np.float32).sum(dtype=np.float64)))
    best = likeliest(row, top) if top else np.empty(0, np.intp)
    best = best[np.argsort(-row[best], kind="stable")]
    return float(row[token]) - total, [(int(t), float(row[t]) - total) for t in best]
