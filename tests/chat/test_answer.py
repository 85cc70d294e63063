"""What a step of the engine says, as it is told on: how much of it was reasoning."""

from __future__ import annotations

import pytest

from server.chat.answer import AnswerReader
from server.chat.formats import named
from server.engine.messages import Delta


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("abcdef", 6),
        ("abcdef</think>\n\nghijkl", 3),
        ("</think>\n\nghijkl", 0),
        ("", 6),
    ],
)
def test_tokens_of_reasoning_are_counted_where_a_step_says_both(text: str, reasoning: int) -> None:
    prompt = "<|im_start|>assistant\n<think>\n"
    reader = AnswerReader(named("hermes").parser((), prompt), reasons=True)
    assert reader.read(Delta(id=1, text=text, tokens=list(range(6)))).reasoning_tokens == reasoning
