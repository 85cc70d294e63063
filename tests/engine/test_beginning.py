"""Where a grammar begins in an output, however that is cut into tokens."""

from __future__ import annotations

import re
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings
from msgspec import structs

from server.engine.beginning import REACH, Awaited
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


def expected(said: Beginning, text: str) -> int | None:
    """The same, of the whole text at once."""
    at = 0
    if said.behind:
        at = text.find(said.behind)
        if at < 0:
            return None
        at += len(said.behind)
    if not said.trigger and not said.start:
        return at
    first = True
    while True:
        rest = text[at:]
        lead = len(rest) - len(rest.lstrip())
        started = re.compile(said.start).match(rest, lead) if said.start and first else None
        found = started or (re.search(said.trigger, rest) if said.trigger else None)
        if said.aside:
            begin, end = said.aside
            aside = rest.find(begin)
            counts = (aside == lead and first) or (aside >= 0 and said.repeats)
            if counts and (not found or aside < found.start()):
                closing = text.find(end, at + aside + len(begin))
                if closing < 0:
                    return None
                at, first = closing + len(end), True
                said = said if said.repeats else structs.replace(said, aside=None)
                continue
        return at + found.start() if found else None


PARTS = ("<aa>", "<bb>", "now(", "{ 'now'", "<c>", "</c>", "a", "<", " ", "é")
BEGINNINGS = st.builds(
    Beginning,
    behind=st.sampled_from(["", "</c>"]),
    trigger=st.sampled_from(["", "<aa>", "<aa>|<bb>", r"<aa>\s*now\("]),
    start=st.sampled_from(["", r"now\(", r"\{\s*'now'"]),
    aside=st.sampled_from([None, ("<c>", "</c>")]),
    repeats=st.booleans(),
).filter(lambda one: bool(one.behind or one.trigger or one.start))
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


@settings(max_examples=600, deadline=None)
@given(BEGINNINGS, TEXTS, st.lists(st.integers(1, 40), max_size=40))
def test_cuts_do_not_show(beginning: Beginning, text: str, cuts: list[int]) -> None:
    assert begins_at(beginning, text, cuts) == expected(beginning, text)


def test_characters_may_be_cut() -> None:
    beginning = Beginning(trigger="(?<=é)<aa>")
    awaited = Awaited.of(beginning)
    for token, byte in enumerate("é<aa".encode()):
        found = awaited.after(token, bytes([byte]))
        assert isinstance(found, Awaited)
        awaited = found
    assert awaited.after(9, b">") == tuple(zip((2, 3, 4, 9), (b"<", b"a", b"a", b">"), strict=False))


def test_a_group_is_where_the_grammar_begins() -> None:
    awaited = Awaited.of(Beginning(trigger=r"head[^!]*(to=\w+)"))
    assert awaited.after(7, b"the head of to=x") == ((None, b"to=x"),)


def test_what_is_awaited_keeps_no_more_than_it_needs() -> None:
    awaited = Awaited.of(Beginning(trigger="<tool_call>", start="x", aside=("<think>", "</think>")))
    for piece, most in ((b"  \n", 0), (b"words ", REACH // 6 + 1)):
        for token in range(1000):
            found = awaited.after(token, piece)
            assert isinstance(found, Awaited)
            awaited = found
        assert len(awaited.tail) <= most
