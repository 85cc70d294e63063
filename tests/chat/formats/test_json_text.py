from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.formats.json_text import JsonScanner

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def scan(text: str, cut: int) -> tuple[JsonScanner, int, str]:
    """A scanner that has read `text` in two pieces, how many characters it took, and the value's text."""
    scanner = JsonScanner()
    count, value = scanner.feed(text[:cut])
    if count == cut and not scanner.complete:
        more, rest = scanner.feed(text[cut:])
        count, value = count + more, value + rest
    return scanner, count, value


@given(VALUES, st.sampled_from([None, 2]), st.booleans(), st.integers(0, 200))
def test_a_value_ends_where_it_ends(value: Any, indent: int | None, ascii_only: bool, cut: int) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    scanner, count, read = scan(f"{text} ,1", min(cut, len(text)))
    assert scanner.complete
    assert (count, json.loads(read)) == (len(text), value)


@given(VALUES, st.integers(0, 60), st.characters(exclude_categories=["Cs"]))
def test_what_it_takes_for_a_value_is_one(value: Any, at: int, char: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    damaged = text[:at] + char + text[at + 1 :]
    scanner, _, read = scan(damaged, 0)
    scanner.end()
    if scanner.complete:
        json.loads(read)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("{a: 1}", 1), ("[1,]", 3), ('{"a" 1}', 5), ("01", 1), ("1.e5", 2), ("nul]", 3), ("[tru]", 4), ('"\\x41"', 2),
        ('{"a": 1,}', 8), ("}", 0), ('"\\u12g4"', 5), ("-", 1), ("[1 2]", 3), ('{1: 2}', 1), ("'a'", 0),
    ],
)  # fmt: skip
def test_it_breaks_where_no_value_can_come_of_it(text: str, taken: int) -> None:
    scanner, count, _ = scan(f"{text} ", 0)
    assert count == taken
    assert not scanner.complete or text == "01"


def test_line_breaks_bare_in_strings_are_escaped() -> None:
    assert scan('{"a": "b\n\tc\x00"}', 0)[2] == '{"a": "b\\n\\tc\\u0000"}'
