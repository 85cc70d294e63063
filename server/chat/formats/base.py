"""What a chat format is: how a family of models writes reasoning and tool calls, read back and enforced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.events import Event
    from server.chat.tools import Tool


class OutputParser(ABC):
    """Reads one answer's text as it grows.

    However the text is cut into pieces, the events joined are the same. Text that may still turn out to be a mark is
    held back until it is certain.

    Args:
        tools: those offered; empty means that nothing is to be read as a call.
        reasons: whether the answer begins inside reasoning.
    """

    @abstractmethod
    def __init__(self, tools: Sequence[Tool], *, reasons: bool) -> None: ...

    @abstractmethod
    def push(self, text: str) -> list[Event]:
        """Take in more of the text; returns what is certain now."""

    @abstractmethod
    def finish(self) -> list[Event]:
        """The text is over: returns what was held back. A call cut short stays as far as it came."""


class CallGrammar(Struct, frozen=True):
    """How calls must be written, for llguidance.

    Where calls are only allowed, all that the format's parser would read as the beginning of one must be found by
    `trigger` or `start`, regular expressions as in `server.engine.request.Beginning`.

    Attributes:
        opening: an expression in Lark that opens the first call: `"<tool_call>"`, `<[151657]>`, a rule of `rules`.
        rules: a Lark grammar's rules, of which `calls` describes all that follows the opening up to the turn's end.
        marks: texts that calls follow.
        trigger: what begins calls wherever it shows in the output, the first with a letter of the opening; where it is
            empty, any of the marks.
        start: what begins calls only where the answer begins.
    """

    opening: str
    rules: str
    marks: tuple[str, ...] = ()
    trigger: str = ""
    start: str = ""


class ChatFormat(ABC):
    """A format. It has no state: one object serves all requests."""

    name: ClassVar[str]
    """What a Modelfile calls it."""
    marks: ClassVar[tuple[str, ...]] = ()
    """Special tokens, by their text, that must show in the output for it to be read."""
    reasoning: ClassVar[tuple[str, str] | None] = ("<think>", "</think>")
    """The marks around reasoning, where the format has any."""

    calls_end_reasoning: ClassVar[bool] = False
    """Whether calls are read in reasoning too, which they end."""

    text_opening: ClassVar[str] = ""
    """What stands between the prompt and an answer's text, where the model itself would have to write it."""
    reasoning_cuts: ClassVar[tuple[str, ...]] = ()
    """Other marks with which reasoning is over for who reads it; a grammar keeps them out of it."""
    reasoning_joint: ClassVar[str] = ""
    """What stands between reasoning and what follows it, where the model itself would have to write it."""
    telling: ClassVar[tuple[str, ...]] = ()
    """What is found in the chat templates that are written for this format: all of it."""
    reader: ClassVar[type[OutputParser]]
    """What reads its answers."""

    def recognises(self, template: str) -> bool:
        """Whether a chat template's source is written for this format."""
        plain = template.replace('\\"', '"')
        return bool(self.telling) and all(text in plain for text in self.telling)

    def open_reasoning(self, prompt: str) -> str | None:
        """The mark that ends the reasoning in which a prompt leaves the answer to begin; None where it does not."""
        if self.reasoning is None:
            return None
        begin, end = self.reasoning
        return end if prompt.rstrip().endswith(begin) else None

    def parser(self, tools: Sequence[Tool], prompt: str) -> OutputParser:
        """A parser for one answer.

        Args:
            tools: those offered; empty means that nothing is to be read as a call.
            prompt: the rendered prompt; how it ends tells whether the answer begins inside reasoning.
        """
        return self.reader(tools, reasons=self.open_reasoning(prompt) is not None)

    @abstractmethod
    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The grammar under which an answer calls one of `tools`, or several where `parallel`.

        Args:
            tools: at least one.
            special: the model's special tokens by their text: a mark among them is written `<[id]>`, any other as a
                literal.
            parallel: whether more than one call is allowed.
        """

    @abstractmethod
    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """An answer's text that makes these calls (name, arguments as JSON text): `parser` reads it back.

        Conversations show it to models whose own template has no form for calls.
        """
