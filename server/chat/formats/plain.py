"""No calls: text, and before it reasoning between `<think>` tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from server.chat.formats.base import ChatFormat
from server.chat.formats.reader import Reader
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool


class PlainReader(Reader):
    """All is content but what comes first in tags."""

    def read(self) -> Generator[None, None, None]:
        """Reasoning; the rest is content."""
        yield from self.reasoning("<think>", "</think>")


class Plain(ChatFormat):
    """For a model that is not to call tools. No template is recognised as such: it can only be chosen."""

    name = "plain"
    marks = ("<think>", "</think>")
    reader = PlainReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> NoReturn:
        """There is none."""
        raise RequestError(
            "the model's chat format is set to 'plain', which has no tool calls; leave out tools", param="tools"
        )

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Nothing: calls have no form here."""
        return ""
