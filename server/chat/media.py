"""Images and sounds of a conversation: marks stand for them in messages' text, which templates know how to show."""

from __future__ import annotations

import re
import secrets
from bisect import bisect_left
from typing import TYPE_CHECKING, Literal

from server.engine.request import Medium
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["image", "audio"]

MOST_MEDIA = 64
"""How many one conversation may have."""

_SECRET = secrets.token_hex(8)
_MARK = re.compile(rf"<medium {_SECRET} (\d+)>")  # with a number that no text from outside can know


class Shown:
    """What a conversation shows, in the order of its marks."""

    def __init__(self) -> None:
        self._media: list[tuple[Kind, bytes | str]] = []

    def __bool__(self) -> bool:
        return bool(self._media)

    @property
    def kinds(self) -> set[Kind]:
        """Of which kinds there are any."""
        return {kind for kind, _ in self._media}

    @property
    def links(self) -> list[tuple[int, str]]:
        """Numbers and URLs of what is to be fetched and given to `fill` before `place`."""
        return [(number, data) for number, (_, data) in enumerate(self._media) if isinstance(data, str)]

    def fill(self, number: int, data: bytes) -> None:
        """Take in what has been fetched."""
        self._media[number] = (self._media[number][0], data)

    def add(self, kind: Kind, data: bytes | str) -> str:
        """Take in a file's bytes, or the URL to fetch it from; returns the mark that stands for it in a message's text.

        Raises:
            RequestError: there are too many.
        """
        if len(self._media) == MOST_MEDIA:
            raise RequestError(
                f"the conversation shows more than {MOST_MEDIA} images or sounds; send fewer", param="messages"
            )
        self._media.append((kind, data))
        return f"<medium {_SECRET} {len(self._media) - 1}>"

    def place(self, prompt: str, boundaries: Sequence[int]) -> tuple[str, list[Medium], list[int]]:
        """Take the marks out of a rendered prompt.

        Args:
            boundaries: offsets into it.

        Returns:
            The text without marks, what it shows with offsets into that text, and the boundaries as offsets into it.
        """
        text = ""
        at = 0
        media: list[Medium] = []
        ends: list[int] = []
        lengths: list[int] = []
        for mark in _MARK.finditer(prompt):
            text += prompt[at : mark.start()]
            at = mark.end()
            kind, data = self._media[int(mark[1])]
            assert isinstance(data, bytes)
            media.append(Medium(kind, data, len(text)))
            ends.append(at)
            lengths.append(at - len(text))
        gone = [0, *lengths]
        moved = [boundary - gone[bisect_left(ends, boundary + 1)] for boundary in boundaries]
        return text + prompt[at:], media, moved
