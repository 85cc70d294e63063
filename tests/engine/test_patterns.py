from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.engine.grammar import Grammars
from server.engine.patterns import PatternError, for_llguidance
from server.engine.request import Grammar
from server.errors import RequestError
from tests.engine.vocabulary import ByteVocabulary

if TYPE_CHECKING:
    from server.engine.constraint import OutputConstraint

VOCABULARY = ByteVocabulary()
GRAMMARS = Grammars(VOCABULARY, kept=1)


@pytest.mark.parametrize(
    ("pattern", "rust"),
    [
        ("^[a-z]+$", "^[a-z]+$"),
        ('[^"]', '[^\\x00"]'),
        ("[^]", "(?s:.)"),
        ("[^[\\]]", "[^\\x00\\[\\]]"),
        ("[[^]", "[\\[\\^]"),
        ("[a&&b~~c]", "[a\\&\\&b\\~\\~c]"),
        ("\\[^a]", "\\[^a]"),
        ("[^\\x00-\\x1f]", "[^\\x00\\x00-\\x1f]"),
        ("\\p{Lu}x\\u00e9", "\\p{Lu}x\\u00e9"),
    ],
)
def test_sets_are_written_as_rust_reads_them(pattern: str, rust: str) -> None:
    assert for_llguidance(pattern) == rust


@pytest.mark.parametrize(
    "pattern", ["[", "a[b", "[]", "[a--z]", "\\x00", "[\\x00-\\x1f]", "\\u0000", "\\p{Cc}", "\\P{L}"]
)
def test_what_is_not_clear_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        for_llguidance(pattern)


MEMBERS = st.sampled_from(
    ['"', "\\\\", "a", "b", "0-9", "\\n", "\\t", "\\d", "\\w", "\\s", "/", "^", "é", "[", "&", "~"]
)
SETS = st.tuples(st.sampled_from(["[", "[^"]), st.lists(MEMBERS, min_size=1).map("".join)).map(
    lambda set_: f"{set_[0]}{set_[1]}]"
)
ATOMS = SETS | st.sampled_from([".", "a", '"', "\\\\", "\\d", "\\D", "\\W", "\\S", "\\s", "(?:a|\\n)", "(b|[^b])"])
REPEATED = st.builds(str.__add__, ATOMS, st.sampled_from(["", "", "?", "*", "+", "{2}", "{0,2}"]))
PATTERNS = st.lists(REPEATED, min_size=1, max_size=3).map(lambda atoms: f"^{''.join(atoms)}$")
TEXTS = st.text(st.sampled_from('"\\ab0\n\t/é[&-~^ \x01\x1f\x7f'), max_size=4)


def accepts(constraint: OutputConstraint, said: bytes) -> bool:
    """Whether the bytes, one a token, may come and then the end."""
    for byte in said:
        if not constraint.admits(byte):
            return False
        constraint.take(byte)
    return constraint.complete or constraint.admits(min(VOCABULARY.end_tokens))


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # Python's re, of sets that it may read otherwise one day
@settings(max_examples=200)
@given(PATTERNS, st.lists(TEXTS, min_size=5, max_size=20))
def test_no_string_passes_that_the_pattern_excludes(pattern: str, texts: list[str]) -> None:
    # `[]` and `[^]` are sets in ECMA-262, and the beginning of one in Python
    assume("[]" not in pattern and "[^]" not in pattern)
    try:
        grammar = Grammar("json_schema", json.dumps({"type": "string", "pattern": pattern}))
        GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)
        matches = re.compile(pattern[1:-1], re.ASCII).fullmatch
    except RequestError:
        return
    for text in texts:
        constraint = GRAMMARS.constraint(grammar, frozenset(), ignore_eos=False)
        if accepts(constraint, json.dumps(text, ensure_ascii=False).encode()):
            assert matches(text), (pattern, text)
