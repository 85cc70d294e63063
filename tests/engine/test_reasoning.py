"""A bound on reasoning, followed token by token: what it forces, and when it leaves the choice."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.reasoning import GRACE, ReasoningBudget
from server.engine.request import ReasoningLimit

if TYPE_CHECKING:
    from collections.abc import Iterable

PIECES = [
    b"<think>",
    b"</think>",
    b"<",
    b"/think>",
    b"</",
    b"think",
    b">",
    b" ",
    b"\n",
    b"a",
    b"\xe2",
    b"\x82",
    b"\xac",
]
CLOSING = [8, 1, 8, 8]
LIMIT = ReasoningLimit(tokens=3, begin="<think>", end="</think>", closing="\n</think>\n\n")


@dataclasses.dataclass
class Follower:
    """Feeds a budget with the tokens that it is offered, or with those that it forces instead."""

    budget: ReasoningBudget
    tokens: list[int] = dataclasses.field(default_factory=list[int])

    def feed(self, offered: Iterable[int]) -> str:
        """The text that came of it."""
        for token in offered:
            self.tokens.append(token if self.budget.forced is None else self.budget.forced)
            self.budget.take(self.tokens[-1])
        return b"".join(PIECES[token] for token in self.tokens).decode()


def follower(*, tokens: int, opened: bool = False, repeats: bool = False) -> Follower:
    limit = ReasoningLimit(
        tokens=tokens, begin=LIMIT.begin, end=LIMIT.end, closing=LIMIT.closing, opened=opened, repeats=repeats
    )
    return Follower(ReasoningBudget(limit, CLOSING, PIECES.__getitem__))


def said(text: str) -> list[int]:
    """Tokens that spell a text of single letters and marks."""
    return [PIECES.index(part.encode()) for part in text.split("|")]


@pytest.mark.parametrize(
    ("tokens", "offered", "expected"),
    [
        (0, "a|a|a|a|a", "\n</think>\n\na"),
        (2, "a|a|a|a|a|a|a", "aa\n</think>\n\na"),
        (2, "a|</think>|a|a|a|a", "a</think>aaaa"),
        (3, "a|</|think|>|a|a|a|a", "a</think>aaaa"),
        (2, "a|</|think|>|a|a|a|a", "a</think>aaaa"),  # a mark that is begun may be finished
        (2, "a|</|a|a|a|a|a|a", "a</a\n</think>\n\na"),
    ],
)
def test_reasoning_that_the_prompt_begins(tokens: int, offered: str, expected: str) -> None:
    assert follower(tokens=tokens, opened=True).feed(said(offered)) == expected


@pytest.mark.parametrize(
    ("tokens", "offered", "expected"),
    [
        (0, "<think>|a|a|a|a|a", "<think>\n</think>\n\na"),
        (1, " |\n|<|think|>|a|a|a|a|a|a", " \n<think>a\n</think>\n\na"),
        (1, "a|<think>|a|a|a|a|a", "a<think>aaaaa"),  # the answer has begun: the mark is its text
        (1, "<think>|a|</think>|a|<think>|a|a|a|a", "<think>a\n</think>\n\naaa"),
        (9, "<think>|a|</think>|<think>|a|a|a|a|a|a|a|a|a", "<think>a</think><think>aaaaaaaaa"),
    ],
)
def test_reasoning_that_the_answer_begins(tokens: int, offered: str, expected: str) -> None:
    assert follower(tokens=tokens).feed(said(offered)) == expected


def test_reasoning_that_may_begin_anew_has_one_budget() -> None:
    offered = said("a|<think>|a|</think>|a|<think>|a|a|a|a|a|<think>|a|a|a|a")
    text = follower(tokens=2, repeats=True).feed(offered)
    assert text == "a<think>a</think>a<think>\n</think>\n\na<think>\n</think>\n\n"


def test_a_character_is_not_cut() -> None:
    euro = [10, 11, 12]
    assert follower(tokens=1, opened=True).feed([*euro, *said("a|a|a|a")]) == "€\n</think>\n\n"


@given(st.integers(0, 12), st.lists(st.integers(0, len(PIECES) - 1), min_size=30, max_size=40), st.booleans())
def test_whatever_is_said_reasoning_ends_in_time(tokens: int, offered: list[int], repeats: bool) -> None:
    one = follower(tokens=tokens, opened=True, repeats=repeats)
    for token in offered:
        one.tokens.append(token if one.budget.forced is None else one.budget.forced)
        one.budget.take(one.tokens[-1])
    text = b"".join(PIECES[token] for token in one.tokens[: tokens + GRACE + len(CLOSING)])
    assert LIMIT.end.encode() in text


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=20))
def test_within_its_budget_nothing_is_forced(offered: list[int]) -> None:
    one = follower(tokens=len(offered) + 1, opened=True, repeats=True)
    for token in offered:
        one.budget.take(token)
        assert one.budget.forced is None


def test_reasoning_that_was_cut_may_not_end_a_second_time() -> None:
    cut = follower(tokens=1, opened=True)
    cut.feed(said("a"))
    assert cut.budget.forbidden is None  # it is about to be forced
    cut.feed([9] * (len(CLOSING) + 1))
    assert PIECES[cut.budget.forbidden or 0] == b"</think>"
    by_itself = follower(tokens=5, opened=True)
    by_itself.feed(said("a|</think>|a|a|a|a|a|a|a"))
    assert by_itself.budget.forbidden is None
    anew = follower(tokens=1, opened=True, repeats=True)
    anew.feed([9] * (len(CLOSING) + 2))
    assert anew.budget.forbidden is None
