from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from server.chat.formats.notation import PYTHON, read_value
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


class ValueReader(Reader):
    """Reads nothing but a value in Python's notation."""

    json_text = ""
    whole = False

    def read(self) -> Generator[None, None, None]:
        """Keep the value's JSON text."""
        self.whole = yield from read_value(self, PYTHON, self._add)

    def _add(self, text: str) -> None:
        self.json_text += text


@given(VALUES, st.integers(0, 100))
def test_what_python_prints_is_read(value: Any, cut: int) -> None:
    reader = ValueReader((), reasons=False)
    text = repr(value)
    reader.push(text[:cut])
    reader.push(text[cut:])
    reader.finish()
    assert reader.whole
    assert json.loads(reader.json_text) == value


def test_tuples_and_other_spellings_are_read() -> None:
    spellings = {
        "(1, 2)": [1, 2],
        '"""a "b"\n"""': 'a "b"\n',
        "'''it's'''": "it's",
        "'it's'": "it's",
        "{'it's': ['l'an 'x' '] }": {"it's": ["l'an 'x' "]},
        "'\\x41\\u00e9\\U0001f600\\'\\\n'": "Aé😀'",
        "'\\ud83d\\ude00'": "😀",
        "1_000": 1000,
        ".5": 0.5,
        "+3": 3,
        "[1, 2, ]": [1, 2],
        "{'a': {'b': None}}": {"a": {"b": None}},
        "true": True,
    }
    for text, value in spellings.items():
        reader = ValueReader((), reasons=False)
        reader.push(text)
        reader.finish()
        assert (reader.whole, json.loads(reader.json_text)) == (True, value), text
