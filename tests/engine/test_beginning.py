"""Where a grammar begins in an output, however that is cut into tokens."""

from __future__ import annotations

import re
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings

from server.engine.beginning import Awaited
from server.engine.request import Beginning


def begins_at(beginning: Beginning, text: str, cuts: list[int]) -> int | None:
    """From which character on an output is held to the grammar; None where it never is."""
    awaited: Awaited | tuple[tuple[int | None, bytes], ...] = Awaited.of(beginning)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    for token, (begin, end) in enumerate(pairwise(bounds)):
        assert isinstance(awaited, Awaited)
        awaited = awaited.after(token, text[begin:end].encode())
        if not isinstance(awaited, Awaited):
            spelt = b"".join(piece for _, piece in awaited)
            assert text[:end].encode().endswith(spelt)
            assert all(one is None or one <= token for one, _ in awaited)
            return end - len(spelt.decode())
    return None


def expected(beginning: Beginning, text: str) -> int | None:
    """The same, of the whole text at once."""
    at = 0
    if beginning.behind:
        at = text.find(beginning.behind)
        if at < 0:
            return None
        at += len(beginning.behind)
    if not beginning.triggers:
        return at
    first = True
    while True:
        rest = text[at:]
        found = min((one for trigger in beginning.triggers if (one := rest.find(trigger)) >= 0), default=-1)
        if beginning.aside:
            begin, end = beginning.aside
            aside = rest.find(begin)
            leads = bool(re.match(r"\s*" + re.escape(begin), rest))
            counts = aside >= 0 and (beginning.repeats or (first and leads)) and (found < 0 or aside < found)
            if counts:
                closing = text.find(end, at + aside + len(begin))
                if closing < 0:
                    return None
                at, first = closing + len(end), False
                continue
        return at + found if found >= 0 else None


TRIGGERS = ("<aa>", "<ab", "ba<")
BEGINNINGS = st.builds(
    Beginning,
    behind=st.sampled_from(["", "<b>", "b"]),
    triggers=st.lists(st.sampled_from(TRIGGERS), max_size=3).map(tuple),
    aside=st.sampled_from([None, ("<b>", "<>"), ("aab", "b")]),
    repeats=st.booleans(),
).filter(lambda one: one.behind or one.triggers)
TEXTS = st.lists(st.sampled_from([*TRIGGERS, "<b>", "aab", "<>", "a", "b", "<", " "]), max_size=9).map("".join)


@settings(max_examples=600, deadline=None)
@given(BEGINNINGS, TEXTS, st.lists(st.integers(1, 24), max_size=24))
def test_cuts_do_not_show(beginning: Beginning, text: str, cuts: list[int]) -> None:
    assert begins_at(beginning, text, cuts) == expected(beginning, text)


def test_what_is_awaited_keeps_no_more_than_it_needs() -> None:
    awaited = Awaited.of(Beginning(triggers=("<tool_call>",), aside=("<think>", "</think>")))
    for token in range(1000):
        found = awaited.after(token, b"words ")
        assert isinstance(found, Awaited)
        awaited = found
    assert len(awaited.tail) <= 2
