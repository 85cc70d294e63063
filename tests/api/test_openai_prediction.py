"""`prediction` of a chat request on a real server: the same answer, with figures that add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import OpenAI


def _ask(client: OpenAI, **options: Any) -> Any:
    create: Any = client.chat.completions.create
    messages = [{"role": "user", "content": "Tell me a story."}]
    return create(model="demo", messages=messages, temperature=0, max_tokens=200, **options)


def test_what_was_predicted_is_accepted(openai_client: OpenAI) -> None:
    without = _ask(openai_client)
    text = without.choices[0].message.content
    details = without.usage.completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (0, 0)
    accepted = 0
    for _ in range(8):  # a server learns what proposals cost, and that they come true
        right = _ask(openai_client, prediction={"type": "content", "content": text})
        details = right.usage.completion_tokens_details
        accepted += details.accepted_prediction_tokens
        assert right.choices[0].message.content == text
        assert right.usage.completion_tokens == without.usage.completion_tokens
        assert details.rejected_prediction_tokens <= 1, "the end is no part of the text"
    assert accepted > 0


def test_a_prediction_that_is_wrong_costs_no_tokens(openai_client: OpenAI) -> None:
    without = _ask(openai_client)
    parts = [{"type": "text", "text": without.choices[0].message.content[:40]}, {"type": "text", "text": " quite else"}]
    wrong = _ask(openai_client, prediction={"type": "content", "content": parts})
    assert wrong.choices[0].message.content == without.choices[0].message.content
    assert wrong.usage.completion_tokens == without.usage.completion_tokens
