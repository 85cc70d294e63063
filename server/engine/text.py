"""From tokens' bytes to text that may be shown: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engine.request import StopPause


class TextStream:
    """The text of one generation as it grows.

    Args:
        stops: strings that end it; neither they nor their beginnings are ever given out while they may still come true.
        pause: stretches in which they do not count, nor in the white space behind.
    """

    def __init__(self, stops: Sequence[str] = (), pause: StopPause | None = None) -> None:
        self._stops = [stop for stop in stops if stop]
        self._pause = pause
        self._pausing = pause is not None and pause.opened
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._tail = ""
        self._leading = False
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Add a token's bytes; returns the text that is certain now. After a stop string, `stopped_by` is set."""
        return self._release(self._decoder.decode(piece))

    def release(self) -> str:
        """From here on no stop string counts; returns what was held back."""
        self._stops = []
        return self._flush()

    def finish(self) -> str:
        """No more tokens will come: returns what was held back."""
        return self._release(self._decoder.decode(b"", final=True)) + self._flush()

    def _flush(self) -> str:
        held, self._held = self._held, ""
        return "" if self.stopped_by else held

    def _release(self, text: str) -> str:
        if not self._stops:
            return text
        released = ""
        while text and not self.stopped_by:
            more, text = self._paused(text) if self._pausing else self._watched(text)
            released += more
        return released

    def _paused(self, text: str) -> tuple[str, str]:
        """Within a pause: what can be given out, and what is left of the text behind it."""
        assert self._pause
        end = self._pause.end
        seen = self._tail + text
        at = seen.find(end)
        if at < 0:
            self._tail = seen[max(0, len(seen) - len(end) + 1) :]
            return text, ""
        cut = at + len(end) - len(self._tail)
        self._pausing, self._tail, self._leading = False, "", True
        return text[:cut], text[cut:]

    def _watched(self, text: str) -> tuple[str, str]:
        """Outside of pauses: what is certain not to be of a stop string, and what is left of the text behind it."""
        if self._leading:  # white space behind a pause belongs to it
            rest = text.lstrip()
            self._leading = not rest
            if len(rest) < len(text):
                return text[: len(text) - len(rest)], rest
        text, self._held = self._held + text, ""
        marks = [*self._stops, self._pause.begin] if self._pause else self._stops
        found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
        if not found:
            keep = max(_overlap(text, mark) for mark in marks)
            self._held = text[len(text) - keep :]
            return text[: len(text) - keep], ""
        at, mark = min(found)
        if mark in self._stops:
            self.stopped_by = mark
            return text[:at], ""
        self._pausing = True
        return text[: at + len(mark)], text[at + len(mark) :]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
