"""Marks that stand for images and sounds: whatever a prompt becomes, each medium is found where its mark was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.media import MOST_MEDIA, Shown
from server.errors import RequestError

PIECES = st.lists(st.one_of(st.text(), st.binary(min_size=1)), max_size=8)


@given(pieces=PIECES, data=st.data())
def test_media_are_taken_out_where_they_stand(pieces: list[str | bytes], data: st.DataObject) -> None:
    shown = Shown()
    prompt, plain = "", ""
    places: list[tuple[bytes, int]] = []
    offsets = {0: 0}
    for piece in pieces:
        if isinstance(piece, bytes):
            prompt += shown.add("image", piece)
            places.append((piece, len(plain)))
        else:
            prompt += piece
            plain += piece
        offsets[len(prompt)] = len(plain)
    boundaries = data.draw(st.lists(st.sampled_from(sorted(offsets)), max_size=3))
    text, media, moved = shown.place(prompt, boundaries)
    assert text == plain
    assert [(medium.data, medium.at) for medium in media] == places
    assert moved == [offsets[boundary] for boundary in boundaries]


def test_a_mark_written_by_a_user_is_text() -> None:
    shown = Shown()
    mark = shown.add("image", b"a picture")
    forged = mark.replace(mark.split()[1], "0" * 16)
    text, media, _ = shown.place(f"{forged}{mark}", [])
    assert text == forged
    assert len(media) == 1


def test_the_same_picture_may_be_shown_twice() -> None:
    shown = Shown()
    mark = shown.add("image", b"a picture")
    _, media, _ = shown.place(f"one {mark} two {mark} three", [])
    assert [medium.at for medium in media] == [4, 9]


def test_there_is_a_bound() -> None:
    shown = Shown()
    for _ in range(MOST_MEDIA):
        shown.add("image", b"a picture")
    with pytest.raises(RequestError, match="more than 64 images or sounds; send fewer"):
        shown.add("image", b"a picture")
