from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from server.engine.request import StopPause
from server.engine.text import TextStream


def stream(data: bytes, cuts: list[int], stops: list[str]) -> tuple[list[str], str | None]:
    """Push a text's bytes in pieces until a stop string comes; what was given out, and what stopped it."""
    text = TextStream(stops)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    given_out: list[str] = []
    for start, end in itertools.pairwise(edges):
        given_out.append(text.push(data[start:end]))
        if text.stopped_by is not None:
            break
    given_out.append(text.finish())
    return given_out, text.stopped_by


@given(st.text(), st.lists(st.integers(0, 400)))
def test_pieces_add_up_to_the_text(text: str, cuts: list[int]) -> None:
    given_out, stopped_by = stream(text.encode("utf-8", "replace"), cuts, [])
    assert "".join(given_out) == text.encode("utf-8", "replace").decode()
    assert stopped_by is None


@given(
    st.text("abc\N{EURO SIGN}", max_size=40),
    st.lists(st.integers(0, 100)),
    st.lists(st.text("abc\N{EURO SIGN}", min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_nothing_of_a_stop_string_is_ever_given_out(text: str, cuts: list[int], stops: list[str]) -> None:
    given_out, stopped_by = stream(text.encode(), cuts, stops)
    if stopped_by is None:
        assert "".join(given_out) == text
        assert not any(stop in text for stop in stops)
    else:
        before = "".join(given_out)
        assert text.startswith(before + stopped_by)
        assert not any(stop in before for stop in stops)


def test_a_stop_string_across_pieces() -> None:
    text = TextStream(["END"])
    assert [text.push(piece) for piece in (b"one E", b"N", b"D two")] == ["one ", "", ""]
    assert (text.stopped_by, text.finish()) == ("END", "")


def test_once_released_no_stop_string_counts() -> None:
    text = TextStream(["END"])
    assert text.push(b"one E") == "one "
    assert text.release() == "E"
    assert text.push(b"ND, END") + text.finish() == "ND, END"
    assert text.stopped_by is None


@pytest.mark.parametrize(
    ("text", "opened", "shown", "stopped_by"),
    [
        ("<think>a.b</think>c.d", False, "<think>a.b</think>c", "."),
        ("a.b</think>c.d", True, "a.b</think>c", "."),
        ("a<think.b", False, "a<think", "."),
        ("</think>.", False, "</think>", "."),
        ("<think>a.b", False, "<think>a.b", None),
        ("<think>a</think> .b", False, "<think>a</think> ", "."),
    ],
)
def test_a_stop_string_does_not_count_in_a_pause(text: str, opened: bool, shown: str, stopped_by: str | None) -> None:
    for size in range(1, len(text) + 1):
        stream = TextStream(["."], StopPause("<think>", "</think>", opened))
        given_out = ""
        for at in range(0, len(text), size):
            given_out += stream.push(text[at : at + size].encode())
            if stream.stopped_by:
                break
        assert (given_out + stream.finish(), stream.stopped_by) == (shown, stopped_by)


def test_white_space_behind_a_pause_does_not_stop() -> None:
    for size in range(1, 20):
        stream = TextStream(["\n"], StopPause("<think>", "</think>"))
        text = b"<think>a</think>\n\nb\nc"
        given_out = "".join(stream.push(text[at : at + size]) for at in range(0, len(text), size))
        assert (given_out, stream.stopped_by) == ("<think>a</think>\n\nb", "\n")


def test_half_a_character_waits_for_its_other_half() -> None:
    text = TextStream()
    assert [text.push(bytes([byte])) for byte in "é".encode()] == ["", "é"]


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    text = TextStream()
    assert text.push("é".encode()[:1]) == ""
    assert text.finish() == "\N{REPLACEMENT CHARACTER}"
