"""From tokens' bytes to text that may be shown: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextStream:
    """The text of one generation as it grows.

    Args:
        stops: strings that end it; neither they nor their beginnings are ever given out while they may still come true.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Add a token's bytes; returns the text that is certain now. After a stop string, `stopped_by` is set."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """No more tokens will come: returns what was held back."""
        return self._release(self._decoder.decode(b"", final=True)) + self._flush()

    def _flush(self) -> str:
        held, self._held = self._held, ""
        return "" if self.stopped_by else held

    def _release(self, text: str) -> str:
        if not self._stops or self.stopped_by:
            return "" if self.stopped_by else text
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
