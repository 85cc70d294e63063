"""Where a model may call but need not, no call that is read breaks its schema, whatever the weights."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest

from server.chat.constraint import constrain, head_of
from server.chat.formats import named
from server.chat.task import ChatTask
from server.chat.template import Prompt
from server.chat.tools import Tool
from server.engine.grammar import Constraint, Grammars
from server.engine.request import Generate
from tests.chat.formats import reading
from tests.chat.formats.examples import CALLING, EXAMPLES
from tests.chat.formats.reading import Call, Example, read
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
SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
SHARDS = (
    "get_weather",
    "now",
    '{"name": "',
    '", "parameters": {',
    '"arguments": {',
    "{}",
    "}",
    "]",
    "[",
    "(",
    ")",
    "\n",
)
CLOSING = b'"}])<`;\n'
LENGTH = 300
SEEDS = 12


class Walk:
    """An answer that is put together from parts of what its format writes, as far as each token may come.

    Args:
        style: the format.
        tokens: whether its marks are special tokens.
        prompt: what the answer follows.
    """

    def __init__(self, style: ChatFormat, prompt: str, seed: int, *, tokens: bool) -> None:
        marks = tuple(dict.fromkeys(style.marks)) if tokens else ()
        self._vocabulary = ByteVocabulary(control=marks)
        self._special = {mark: self._vocabulary.token(mark) for mark in marks}
        self._parts = [*(one.text for one in EXAMPLES[style.name] if one.text), *SHARDS, *style.marks]
        self._held = self._constraint(style, prompt)
        self._chance = random.Random(seed)
        self._said = bytearray()

    def _constraint(self, style: ChatFormat, prompt: str) -> Constraint:
        task = ChatTask(messages=[], tools=TOOLS, generate=Generate(id=0, prompt=""))
        head = head_of(task, style, self._special, Prompt(prompt, []))
        grammar = constrain(task, style, self._special, head).grammar
        assert grammar
        return Grammars(self._vocabulary).constraint(grammar, self._vocabulary.control_tokens, ignore_eos=False)

    def answer(self) -> str | None:
        """The whole answer; None where it found no end."""
        while not self._held.complete and len(self._said) < (3 * LENGTH if self._held.begun else LENGTH):
            for token in self._part():
                if self._held.complete or not self._held.admits(token):
                    break
                self._say(token)
            if self._held.begun and not self._held.complete and self._chance.random() < 0.8 and self._any():
                return self._said.decode(errors="replace")
        return self._said.decode(errors="replace") if self._held.complete or not self._held.begun else None

    def _part(self) -> list[int]:
        text = self._chance.choice(self._parts)
        if self._chance.random() < 0.5:
            begin = self._chance.randrange(len(text))
            text = text[begin : begin + self._chance.choice([4, 20, 200])]
        return self._tokens(text)

    def _tokens(self, text: str) -> list[int]:
        for mark, token in self._special.items():
            before, found, after = text.partition(mark)
            if found:
                return [*self._tokens(before), token, *self._tokens(after)]
        return list(text.encode())

    def _any(self) -> bool:
        """Say any token that may come; whether it was the end."""
        ends = self._vocabulary.end_tokens
        row = np.zeros(self._vocabulary.size, np.float32)
        few = self._held.restrict(row)
        tokens = {*(np.flatnonzero(np.isfinite(row)) if few is None else few).tolist()}
        if tokens <= ends or (tokens & ends and self._chance.random() < 0.3):
            return True
        closing = tokens.intersection(CLOSING)
        self._say(self._chance.choice(sorted(closing if closing and self._chance.random() < 0.4 else tokens - ends)))
        return False

    def _say(self, token: int) -> None:
        self._held.take(token)
        self._said += self._vocabulary.piece(token, special=True)


PROMPTS = [
    pytest.param(style, prompt, id=f"{style}{'-reasoning' * bool(prompt)}")
    for style in CALLING
    for prompt in ("", *(named(style).reasoning or ())[:1])
]


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize(("style", "prompt"), PROMPTS)
def test_calls_that_are_read_validate(style: str, prompt: str, tokens: bool) -> None:
    for seed in range(SEEDS):
        text = Walk(named(style), prompt, seed, tokens=tokens).answer()
        said = read(named(style), Example(text or "", (), prompt, TOOLS))
        for call in (one for one in said if isinstance(one, Call)):
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
