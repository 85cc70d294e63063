"""An answer that may call tools, as far as it has come, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.chat.constraint import constrain, head_of
from server.chat.task import ChatTask
from server.chat.template import Prompt
from server.chat.tools import Tool
from server.engine.grammar import Grammars
from server.engine.request import Beginning, Generate, Grammar
from tests.chat.formats import reading
from tests.engine.vocabulary import ByteVocabulary

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat

NOTE = Tool(
    "note",
    "Keeps a text.",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 2, "maxLength": 9},
            "tag": {"type": "string", "pattern": "^[a-z]{2,4}$"},
            "more": {"type": ["number", "string", "array"]},
        },
        "required": ["text"],
        "additionalProperties": False,
    },
)
TOOLS = (*reading.TOOLS, NOTE)


@dataclass
class Free:
    """A format's answers where calls are allowed, and one as far as it has come.

    Args:
        style: the format.
        prompt: what the answer follows.
        tokens: whether its marks are special tokens.
        answer: the form of its text.
        thinking: whether it is asked to reason.
    """

    style: ChatFormat
    prompt: str
    tokens: bool
    answer: Grammar | None = None
    thinking: bool | None = None

    def __post_init__(self) -> None:
        marks = tuple(dict.fromkeys(self.style.marks)) if self.tokens else ()
        self.vocabulary = ByteVocabulary(control=marks)
        self._special = {mark: self.vocabulary.token(mark) for mark in marks}
        ask = Generate(id=0, prompt="")
        task = ChatTask(messages=[], tools=TOOLS, generate=ask, answer=self.answer, thinking=self.thinking)
        head = head_of(task, self.style, self._special, Prompt(self.prompt, []))
        grammar = constrain(task, self.style, self._special, head).grammar
        assert grammar
        self.begins = (grammar.calls.begun if grammar.calls else grammar).begins or Beginning()
        self.held = Grammars(self.vocabulary).constraint(grammar, self.vocabulary.control_tokens, ignore_eos=False)
        self.said = bytearray()

    def spelt(self, text: str) -> list[int]:
        """A text in tokens."""
        for mark, token in self._special.items():
            before, found, after = text.partition(mark)
            if found:
                return [*self.spelt(before), token, *self.spelt(after)]
        return list(text.encode())

    def say(self, token: int) -> None:
        """Go on by a token."""
        self.held.take(token)
        self.said += self.vocabulary.piece(token, special=True)

    def admitted(self, text: str) -> str:
        """How far a text may come."""
        for token in self.spelt(text):
            if self.held.complete or not self.held.admits(token):
                break
            self.say(token)
        return self.said.decode(errors="replace")

    @property
    def may_end(self) -> bool:
        """Whether the answer may end here."""
        return self.held.complete or any(self.held.admits(end) for end in self.vocabulary.end_tokens)
