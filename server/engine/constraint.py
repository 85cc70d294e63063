"""Following one output under its grammar: which tokens may come next.

A `Constraint` follows one grammar. `FormOrCalls` follows two that exclude each other: the form that was asked for the
answer's text, or that of tool calls.
Source: https://github.com/guidance-ai/llguidance/blob/main/docs/mathematical_model.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from server.engine.beginning import Awaited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llguidance import LLMatcher, LLTokenizer

    from server.engine.beginning import Spelt
    from server.engine.sampler import Indices, Row

FEW = 4
"""Tokens count as few where their bits lie in less than this part of the mask's octets."""
Bits = npt.NDArray[np.uint8]
"""A bit for each token of a vocabulary."""
NOTHING_LEFT = (
    "all that the form of the answer allows next would be read as a tool call; change the form, or leave the tools out"
)


class ConstraintError(Exception):
    """No token can be chosen: a grammar turned out too complex, or leaves nothing. The text says why."""


class Vocabulary(Protocol):
    """What is asked of a model's vocabulary; `server.engine.llama.vocab.Vocab` is one."""

    size: int
    end_tokens: frozenset[int]
    control_tokens: frozenset[int]

    def pieces(self) -> list[bytes]:
        """The bytes of every token, those of control tokens too."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """A token's bytes; a control token has none unless `special`."""
        ...


class Constraint:
    """Which tokens may come next in one sequence.

    Args:
        matcher: its own copy of a compiled grammar.
        awaited: what the output must come to contain before the grammar begins; None where it begins at once.
        visible: special tokens whose text counts as output.
        ignore_eos: whether end tokens are refused while others may come.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        tokenizer: LLTokenizer,
        vocab: Vocabulary,
        awaited: Awaited | None,
        visible: frozenset[int],
        *,
        ignore_eos: bool,
    ) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._awaited = awaited
        self._can_be_set_off = awaited is not None and bool(awaited.said.trigger or awaited.said.start)
        self._visible = visible
        self._ignore_eos = ignore_eos
        self._ahead: tuple[int, Awaited | tuple[Spelt, ...]] | None = None
        self.unwanted: Indices = np.array(sorted(vocab.end_tokens) if ignore_eos else [], np.intp)
        """Tokens that are to come only where no other may."""

    @property
    def begun(self) -> bool:
        """Whether tokens are held to the grammar yet."""
        return self._awaited is None

    @property
    def due(self) -> bool:
        """Whether it has not begun and must: the output may not end before."""
        return not self.begun and not self._can_be_set_off

    @property
    def set_off(self) -> bool:
        """Whether it has begun with something that set it off: what is said now is no text, but a call."""
        return self._can_be_set_off and self.begun

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return self.begun and self._matcher.is_stopped() and not self._matcher.is_error()

    def admits(self, token: int) -> bool:
        """Whether a token may come next. An end token under `ignore_eos` is said not to; `restrict` knows better."""
        if token in self._vocab.end_tokens:
            return not self._ignore_eos and (not self.begun or self._matcher.is_accepting())
        if self.begun:
            return self._matcher.validate_tokens([token]) == 1
        found = self._after(token)
        first = [] if isinstance(found, Awaited) else self._tokens(found)
        return not first or self._matcher.validate_tokens(first) == len(first)

    def vetoes(self, token: int) -> bool:
        """Whether one of the tokens that are left to choose from may not come: one that begins the grammar wrongly."""
        return not self.begun and not self.admits(token)

    def sets_off(self, token: int) -> bool:
        """Whether the grammar is still to begin and would with a token."""
        return not self.begun and not isinstance(self._after(token), Awaited)

    def restrict(self, row: Row) -> Indices | None:
        """Single out the tokens that may come next, once the grammar has begun; see `single_out`."""
        return single_out(self.mask(), row, self.unwanted)

    def mask(self) -> Bits:
        """The tokens that may come next, once the grammar has begun. Raises ConstraintError: llguidance gave up."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise self._error()
        return bits

    def take(self, token: int) -> None:
        """Go on by a token that has been chosen. Raises ConstraintError where llguidance gave up."""
        if self.begun:
            self._consume([token])
            return
        found, self._ahead = self._after(token), None
        if isinstance(found, Awaited):
            self._awaited = found
            return
        self._awaited = None
        self._consume(self._tokens(found))

    def _after(self, token: int) -> Awaited | tuple[Spelt, ...]:
        """What a token leaves to be awaited, or the output since the beginning; kept until one is taken."""
        assert self._awaited
        if self._ahead is None or self._ahead[0] != token:
            self._ahead = token, self._awaited.after(token, self._vocab.piece(token, special=token in self._visible))
        return self._ahead[1]

    def _consume(self, tokens: list[int]) -> None:
        if not self._matcher.consume_tokens(tokens):
            raise self._error()

    def _error(self) -> ConstraintError:
        fault = self._matcher.get_error().partition("\n")[0]
        return ConstraintError(f"the grammar became too complex to be followed: {fault}; simplify it")

    def _tokens(self, spelt: Sequence[Spelt]) -> list[int]:
        """What is spelt, in tokens: some that spell it, where it is the rest of one."""
        return [
            token
            for whole, piece in spelt
            for token in ([whole] if whole is not None else self._tokenizer.tokenize_bytes(piece))
        ]


class FormOrCalls:
    """Which tokens may come next in a sequence that either has the form that was asked for or calls tools.

    In what has the form nothing may begin a call, or what the form allows any text to be would be a way around the
    tools' schemas.

    Args:
        form: of an answer in text.
        first: of an answer that calls tools and has no text. Like the form, it holds from the answer's beginning.
        calls: of calls from where they begin, wherever that is.
    """

    def __init__(self, form: Constraint, first: Constraint, calls: Constraint) -> None:
        self._ways = [form, first]
        self._first = first
        self._calls = calls

    @property
    def begun(self) -> bool:
        """Whether tokens are held to a grammar yet."""
        return self.set_off or all(way.begun for way in self._ways)

    @property
    def due(self) -> bool:
        """Whether neither has begun and one must."""
        return not self.begun and all(way.due for way in self._ways)

    @property
    def set_off(self) -> bool:
        """Whether a call has begun: nothing said from there on is text."""
        return self._calls.begun

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._calls.complete if self.set_off else all(way.complete for way in self._ways)

    def admits(self, token: int) -> bool:
        """Whether a token may come next. An end token under `ignore_eos` is said not to; `restrict` knows better."""
        if self.set_off:
            return self._calls.admits(token)
        return any(way.admits(token) for way in self._ways) and not self._clashes(token)

    def vetoes(self, token: int) -> bool:
        """Whether one of the tokens that are left to choose from may not come: one that begins a call wrongly."""
        if self.set_off:
            return False
        return self._clashes(token) if self.begun else not self.admits(token)

    def restrict(self, row: Row) -> Indices | None:
        """Single out the tokens that either grammar allows next, once both have begun; see `single_out`."""
        if self.set_off:
            return self._calls.restrict(row)
        masks = [way.mask() for way in self._ways]
        return single_out(np.bitwise_or.reduce(masks), row, self._calls.unwanted)

    def take(self, token: int) -> None:
        """Go on by a token that has been chosen. Raises ConstraintError where llguidance gave up."""
        self._calls.take(token)
        if self.set_off:
            return
        self._ways = [way for way in self._ways if way.admits(token)] or self._ways
        for way in self._ways:
            way.take(token)

    def _clashes(self, token: int) -> bool:
        """Whether a token would begin a call where there is text, or begin it wrongly."""
        if not self._calls.sets_off(token):
            return False
        return self._first not in self._ways or not self._first.admits(token) or not self._calls.admits(token)


OutputConstraint = Constraint | FormOrCalls


def single_out(bits: Bits, row: Row, unwanted: Indices) -> Indices | None:
    """The tokens of a mask, in the way that leaves the least to do.

    Args:
        bits: of the tokens that may come, [vocabulary / 8], the lowest first.
        row: logits [vocabulary]. Where most tokens may come, those that may not are set to minus infinity.
        unwanted: tokens that are to come only where no other may.

    Returns:
        Where few tokens may come, these, ascending, and `row` is as it was.
    """
    octets = np.flatnonzero(bits != 0)
    if octets.size > bits.size // FEW:
        row[np.flatnonzero(np.unpackbits(~bits, count=row.size, bitorder="little").view(np.bool_))] = -np.inf
        row[unwanted] = -np.inf
        return None
    set_bits = np.flatnonzero(np.unpackbits(bits[octets], bitorder="little").view(np.bool_))
    tokens = octets[set_bits >> 3] * 8 + (set_bits & 7)
    others = tokens[~np.isin(tokens, unwanted)] if unwanted.size else tokens
    return others if others.size else tokens
