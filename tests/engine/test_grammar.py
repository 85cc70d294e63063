"""Grammars and constraints without a model: what a mask lets through, and that it changes nothing else."""

from __future__ import annotations

import json
import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from msgspec import structs

from server.engine.constraint import ConstraintError, OutputConstraint
from server.engine.grammar import Grammars
from server.engine.request import Beginning, Grammar, GrammarKind, Lead, Sampling
from server.engine.sampler import Indices, Row, Sampler
from server.errors import RequestError
from tests.engine.vocabulary import CONTROL, ENDS, ByteVocabulary

VOCABULARY = ByteVocabulary()
GRAMMARS = Grammars(VOCABULARY)
END = VOCABULARY.token(ENDS[0])
COLON = Beginning(behind='":')


def constraint(
    kind: GrammarKind,
    source: str,
    begins: Beginning | None = None,
    *,
    visible: frozenset[int] = frozenset(),
    ignore_eos: bool = False,
) -> OutputConstraint:
    return GRAMMARS.constraint(Grammar(kind, source, begins), visible, ignore_eos=ignore_eos)


def take(held: OutputConstraint, text: str) -> OutputConstraint:
    """Go on by a text, one byte a token."""
    for byte in text.encode():
        assert held.admits(byte), text
        held.take(byte)
    return held


def allowed(held: OutputConstraint) -> set[int]:
    """All tokens that may come, whichever way `restrict` says it."""
    row = np.zeros(VOCABULARY.size, np.float32)
    few = held.restrict(row)
    return set(np.flatnonzero(np.isfinite(row)).tolist() if few is None else few.tolist())


class FixedMask:
    """Lets fixed tokens come, told in either way, some of them only when they are asked for."""

    begun = True

    def __init__(self, tokens: list[int], *, few: bool, vetoed: tuple[int, ...] = ()) -> None:
        self._tokens = np.array(sorted(tokens), np.intp)
        self._few = few
        self._vetoed = vetoed

    def admits(self, token: int) -> bool:
        return token in self._tokens and token not in self._vetoed

    def vetoes(self, token: int) -> bool:
        return token in self._vetoed

    def restrict(self, row: Row) -> Indices | None:
        if self._few:
            return self._tokens
        row[np.setdiff1d(np.arange(row.size), self._tokens)] = -np.inf
        return None


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.9, 0.4]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    seed=st.integers(0, 2**32),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.dictionaries(st.integers(0, 30), st.floats(-5, 5), max_size=3),
)


@settings(max_examples=200)
@given(st.data(), SAMPLINGS, st.booleans())
def test_masked_sampling_is_sampling_of_the_masked_row(data: st.DataObject, sampling: Sampling, few: bool) -> None:
    values = data.draw(st.lists(st.floats(-9, 9, width=32), min_size=31, max_size=90))
    row = np.array(values, np.float32)
    tokens = data.draw(st.lists(st.integers(0, row.size - 1), min_size=1, unique=True))
    bias = Sampler(Sampling(temperature=0, logit_bias=sampling.logit_bias))
    masked = row.copy()
    bias.choose(masked)  # the bias comes before the mask
    masked[np.setdiff1d(np.arange(row.size), tokens)] = -np.inf
    held = Sampler(sampling)
    plain = Sampler(structs.replace(sampling, logit_bias={}))
    for _ in range(5):
        assert held.choose(row.copy(), FixedMask(tokens, few=few)) == plain.choose(masked.copy())


@pytest.mark.parametrize("few", [True, False])
def test_frequencies_under_a_mask_are_the_renormalised_ones(few: bool) -> None:
    row = np.array([3.0, 0.0, 1.0, 2.0, 4.0, 1.5], np.float32)
    for sampling, kept in ((Sampling(seed=3), [1, 2, 3, 5]), (Sampling(seed=3, top_k=2), [3, 5])):
        sampler = Sampler(sampling)
        mask = FixedMask([1, 2, 3, 5], few=few)
        seen = [sampler.choose(row.copy(), mask) for _ in range(4000)]
        weights = np.exp(row[kept]) / np.exp(row[kept]).sum()
        assert [seen.count(token) / 4000 for token in kept] == pytest.approx(weights, abs=0.03)


@pytest.mark.parametrize("few", [True, False])
def test_after_a_veto_the_others_keep_their_proportions(few: bool) -> None:
    row = np.array([3.0, 0.0, 1.0, 2.0, 4.0, 1.5], np.float32)
    for sampling, kept in (
        (Sampling(seed=3), [1, 2, 3]),
        (Sampling(seed=3, top_k=1), [3]),
        (Sampling(temperature=0), [3]),
    ):
        sampler = Sampler(sampling)
        mask = FixedMask([1, 2, 3, 4, 5], few=few, vetoed=(4, 5))
        seen = [sampler.choose(row.copy(), mask) for _ in range(4000)]
        weights = np.exp(row[kept]) / np.exp(row[kept]).sum()
        assert [seen.count(token) / 4000 for token in kept] == pytest.approx(weights, abs=0.03)


def test_a_mask_of_many_and_one_of_few_say_the_same_as_admits() -> None:
    for source in ("(?s:.*)", "[a-c]{2}", "x*", "[^ab]+"):
        for ignore_eos in (False, True):
            held = constraint("regex", source, ignore_eos=ignore_eos)
            assert allowed(held) == {token for token in range(VOCABULARY.size) if held.admits(token)}


def test_only_the_end_may_follow_a_whole() -> None:
    for ignore_eos in (False, True):
        held = take(constraint("choice", '["ab", "abc"]', ignore_eos=ignore_eos), "ab")
        assert not held.complete
        assert allowed(held) == {VOCABULARY.token("c")} | (set() if ignore_eos else VOCABULARY.end_tokens)
        assert take(held, "c").complete
    assert allowed(constraint("choice", '[""]', ignore_eos=True)) == VOCABULARY.end_tokens


def test_control_tokens_match_as_tokens_and_never_by_their_bytes() -> None:
    mark = VOCABULARY.token(CONTROL[0])
    for source in (f"start: {CONTROL[0]}", f"start: <[{mark}]>"):
        assert allowed(constraint("lark", source)) == {mark}
    assert mark not in allowed(constraint("regex", "(?s:.*)"))
    assert mark not in allowed(constraint("lark", f'start: "{CONTROL[0]}"'))
    tool = VOCABULARY.token("<tool>")  # an ordinary token: both ways
    assert allowed(constraint("lark", f"start: <[{tool}]>")) == {tool}
    assert tool in allowed(constraint("lark", 'start: "<tool>"'))


def test_inline_schemas_of_a_lark_grammar_are_held_to_the_same_rules() -> None:
    source = 'start: "<" call ">"\ncall: %json {"type": "object", "properties": {"a": {"const": 1}}, "x-any": 2}'
    assert take(constraint("lark", source), '<{"a": 1}>').complete
    with pytest.raises(RequestError, match="'not' at '#/properties/a'"):
        constraint("lark", 'start: "a" | %json {"properties": {"a": {"not": {}}}}')
    with pytest.raises(RequestError, match="line 2: what follows %json is no JSON"):
        constraint("lark", 'start: a\na: %json {"type": }')


def test_any_grammar_may_have_something_before_it() -> None:
    lead = Lead("LEAD ", "LEAD: /x{0,2}/\n")
    grammars: list[tuple[GrammarKind, str]] = [
        ("lark", 'start: LEAD\nLEAD: "abc"'),
        ("gbnf", 'root ::= "abc"'),
        ("choice", '["abc"]'),
    ]
    for kind, source in grammars:
        held = GRAMMARS.constraint(Grammar(kind, source, lead=lead), frozenset(), ignore_eos=False)
        assert allowed(held) == {VOCABULARY.token(text) for text in ("x", "a", "ab", "abc")}
        assert take(held, "xxabc").complete
    with pytest.raises(RequestError, match="line 2"):
        GRAMMARS.constraint(Grammar("lark", 'start: "a"\nb: ]', lead=lead), frozenset(), ignore_eos=False)


def test_the_text_before_may_be_spread_over_tokens_and_end_within_one() -> None:
    held = take(constraint("regex", "[0-9]+", COLON), 'text "\' "')
    assert not held.begun
    assert held.admits(VOCABULARY.token(": "[0]))
    held.take(VOCABULARY.token(":"))
    assert held.begun
    assert allowed(held) == {token for token in range(256) if chr(token) in "0123456789"} | {
        VOCABULARY.token("12"),
        VOCABULARY.token("00"),
    }
    spaced = constraint("regex", " [0-9]", COLON)
    whole = VOCABULARY.token('": ')
    assert spaced.admits(whole)
    spaced.take(whole)
    assert take(spaced, "7").complete
    assert not constraint("regex", "[0-9]", COLON).admits(whole)


def test_a_trigger_counts_only_behind_the_text_it_must_follow() -> None:
    grammar = Grammar("regex", "![0-9]", Beginning(behind="so:", trigger="!"))
    held = GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)
    assert not take(held, "well! so: x").begun
    assert take(held, "!").begun
    assert take(held, "7").complete


def test_a_token_that_would_break_the_grammar_at_its_beginning_is_drawn_again() -> None:
    held = constraint("regex", "[0-9]", COLON)
    row = np.zeros(VOCABULARY.size, np.float32)
    row[VOCABULARY.token('": ')] = 9
    row[VOCABULARY.token('":')] = 5
    assert Sampler(Sampling(temperature=0)).choose(row, held) == VOCABULARY.token('":')


def test_before_the_beginning_ignored_ends_do_not_come() -> None:
    begins = Beginning(behind="!")
    assert constraint("regex", "x", begins).admits(END)
    assert not constraint("regex", "x", begins, ignore_eos=True).admits(END)


def test_the_grammar_speaks_of_the_trigger_too_in_the_tokens_that_it_came_in() -> None:
    mark = VOCABULARY.token(CONTROL[0])
    begins = Beginning(trigger=rf"{re.escape(CONTROL[0])}|\(tool:")
    source = f'start: (<[{mark}]> | "(") "tool:" /[0-9]/'
    seen = constraint("lark", source, begins, visible=frozenset({mark}))
    seen.take(mark)
    assert seen.begun
    assert take(seen, "tool:7").complete
    assert take(constraint("lark", source, begins), "what: ((tool:7").complete
    spelt = take(constraint("lark", f"start: <[{mark}]>", begins), CONTROL[0][:-1])
    assert not spelt.admits(VOCABULARY.token(CONTROL[0][-1]))  # a token's text is not the token
    hidden = constraint("lark", source, begins)
    hidden.take(mark)
    assert not hidden.begun


def test_copies_are_independent_and_the_cache_is_bounded() -> None:
    grammars = Grammars(VOCABULARY, kept=2)
    first = grammars.constraint(Grammar("regex", "[ab]{2}"), frozenset(), ignore_eos=False)
    other = grammars.constraint(Grammar("regex", "[ab]{2}"), frozenset(), ignore_eos=False)
    take(first, "ab")
    assert first.complete
    assert take(other, "b").admits(VOCABULARY.token("a"))
    for source in ("x", "y", "z", "x"):
        assert take(grammars.constraint(Grammar("regex", source), frozenset(), ignore_eos=False), source).complete


def test_an_object_may_have_many_optional_properties() -> None:
    schema = {"type": "object", "properties": {f"property_{i}": {"type": "integer"} for i in range(400)}}
    held = constraint("json_schema", json.dumps(schema | {"additionalProperties": False}))
    assert take(held, '{"property_7": 1, "property_399": 2}').complete


def test_a_grammar_that_becomes_too_complex_says_so() -> None:
    held = constraint("lark", 'start: a\na: "x" a "x" | "x" a "y" | "x"')
    with pytest.raises(ConstraintError, match="items") as failed:
        for _ in range(4000):
            held.take(VOCABULARY.token("x"))
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("kind", "source", "says"),
    [
        ("lark", 'start: "a"\nb: ]', "line 2"),
        ("lark", "start: missing", 'unknown name: "missing"'),
        ("lark", 'other: "a"', "start"),
        ("lark", "", "start"),
        ("gbnf", 'root ::= "a', "line 1"),
        ("gbnf", 'top ::= "a"', "root"),
        ("gbnf", "root ::= (", "line 1"),
        ("gbnf", "root ::= missing", "missing"),
        ("regex", "a(", "unclosed group"),
        ("regex", "(?=a)", "look-around"),
        ("choice", "[]", "not empty"),
        ("choice", '["a", 1]', "strings"),
        ("choice", "yes", "JSON"),
        ("json_schema", "{", "no JSON"),
        ("json_schema", "x" * 300_000, "characters"),
        ("lark", "x" * 300_000, "characters"),
    ],
)
def test_what_does_not_parse_is_refused_with_its_reason(kind: GrammarKind, source: str, says: str) -> None:
    with pytest.raises(RequestError, match=re.escape(says)) as refused:
        constraint(kind, source)
    assert refused.value.status == 400
    assert "\n" not in refused.value.message


@given(st.lists(st.text(max_size=6), min_size=1, max_size=6))
def test_any_strings_can_be_choices(choices: list[str]) -> None:
    source = json.dumps(choices)
    for choice in choices:
        held = take(constraint("choice", source), choice)
        assert held.complete or held.admits(END)
