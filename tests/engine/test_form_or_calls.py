"""An answer that has a form or calls: either way as far as it goes, and no call begins within what has the form."""

from __future__ import annotations

import numpy as np
import pytest

from server.engine.constraint import ConstraintError, FormOrCalls
from server.engine.grammar import Grammars
from server.engine.request import Beginning, Grammar, OptionalCalls, Sampling
from server.engine.sampler import Sampler
from tests.engine.test_grammar import allowed
from tests.engine.vocabulary import ENDS, ByteVocabulary

VOCABULARY = ByteVocabulary()
GRAMMARS = Grammars(VOCABULARY)
END = VOCABULARY.token(ENDS[0])
CALL = 'start: "(tool:" /[0-9]/'


def either(form: str, *, behind: str = "", ignore_eos: bool = False) -> FormOrCalls:
    """Text that a regex describes, or a call."""
    begins = Beginning(behind=behind) if behind else None
    calls = OptionalCalls(Grammar("lark", CALL, begins), Grammar("lark", CALL, Beginning(trigger=r"\(tool:")))
    held = GRAMMARS.constraint(Grammar("regex", form, begins, calls=calls), frozenset(), ignore_eos=ignore_eos)
    assert isinstance(held, FormOrCalls)
    return held


def admitted(held: FormOrCalls, text: str) -> str:
    """As much of a text as may come, one byte a token."""
    for index, byte in enumerate(text.encode()):
        if held.complete or not held.admits(byte):
            return text[:index]
        held.take(byte)
    return text


def left(held: FormOrCalls) -> set[int]:
    """All tokens that may come, as a sampler finds out."""
    return {token for token in allowed(held) if not held.vetoes(token)}


@pytest.mark.parametrize("form", ["[^0-9]*", "(?s:.*)", "[(a-z]{3,40}:*"])
def test_it_is_one_or_the_other(form: str) -> None:
    assert admitted(either(form), "(tool and (another)") in ("(tool", "(tool and (another)")
    call = either(form)
    assert admitted(call, "(tool:12") == "(tool:1"
    assert call.complete
    assert call.set_off
    for text in ("so(tool:", "((tool:"):
        held = either(form)
        assert admitted(held, text) == text[:-1]
        assert not held.set_off
        assert held.admits(END)


@pytest.mark.parametrize("form", ["[^0-9]*", "(?s:.*)", "[a(]{2}tool[:x]", "abc"])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_what_is_left_to_a_sampler_is_what_may_come(form: str, ignore_eos: bool) -> None:
    for said in ("", "(", "a(tool", "(tool:", "ab"):
        held = either(form, ignore_eos=ignore_eos)
        if admitted(held, said) == said:
            assert left(held) == {token for token in range(VOCABULARY.size) if held.admits(token)}


def test_an_ignored_end_comes_where_nothing_else_may() -> None:
    assert left(either("", ignore_eos=True)) == {VOCABULARY.token("(")}
    assert VOCABULARY.end_tokens < left(either(""))


def test_a_token_that_would_begin_a_call_in_text_is_drawn_again() -> None:
    held = either("(?s:.*)")
    admitted(held, "a(tool")
    row = np.zeros(VOCABULARY.size, np.float32)
    row[VOCABULARY.token(":")], row[VOCABULARY.token("ab")] = 9, 5
    assert Sampler(Sampling(temperature=0)).choose(row.copy(), held) == VOCABULARY.token("ab")
    drawn = {Sampler(Sampling(seed=seed)).choose(row.copy(), held) for seed in range(20)}
    assert VOCABULARY.token(":") not in drawn


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_form_that_asks_for_a_call_as_text_is_told_so(temperature: float) -> None:
    held = either(r"a\(tool:")
    admitted(held, "a(tool")
    with pytest.raises(ConstraintError, match="read as a tool call"):
        Sampler(Sampling(temperature=temperature)).choose(np.zeros(VOCABULARY.size, np.float32), held)


def test_calls_may_begin_before_either_grammar_does() -> None:
    held = either("[a-z]+", behind="!")
    assert not held.begun
    assert admitted(held, "hm (tool:3") == "hm (tool:3"
    assert held.complete
    reasoned = either("[a-z]+", behind="!")
    assert admitted(reasoned, "hm (tool!abc(tool:") == "hm (tool!abc"
    assert reasoned.begun
