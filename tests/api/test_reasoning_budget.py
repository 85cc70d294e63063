"""A bound on reasoning through the protocols, against a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from anthropic.types import MessageParam
    from openai import OpenAI

    from tests.conftest import RunningServer

SUM: Any = {"role": "user", "content": "What is 3 plus 4?"}
NAMES = ["reasoning_budget_tokens", "thinking_budget_tokens", "thinking_token_budget"]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def _ask(client: OpenAI, beside: dict[str, Any], **options: Any) -> Any:
    create: Any = client.chat.completions.create
    defaults: dict[str, Any] = {"messages": [SUM], "temperature": 0, "max_tokens": 200, "reasoning_effort": "low"}
    return create(model="demo", extra_body=beside, **(defaults | options))


@pytest.mark.parametrize("name", NAMES)
def test_reasoning_lasts_as_long_as_it_may(openai_client: OpenAI, name: str) -> None:
    free = _ask(openai_client, {}).choices[0].message
    cut = _ask(openai_client, {name: 3})
    message = cut.choices[0].message
    assert free.reasoning_content.startswith(message.reasoning_content)
    assert 0 < len(message.reasoning_content) < len(free.reasoning_content)
    assert message.content
    assert "think>" not in message.content
    assert 3 <= cut.usage.completion_tokens_details.reasoning_tokens < cut.usage.completion_tokens
    assert _ask(openai_client, {name: -1}).choices[0].message.reasoning_content == free.reasoning_content
    assert _ask(openai_client, {name: 150}).choices[0].message.content == free.content


def test_no_budget_ends_reasoning_at_once(openai_client: OpenAI) -> None:
    message = _ask(openai_client, {"reasoning_budget_tokens": 0}).choices[0].message
    assert getattr(message, "reasoning_content", None) is None
    assert message.content


def test_a_message_ends_what_is_cut(openai_client: OpenAI) -> None:
    beside = {"reasoning_budget_tokens": 2, "reasoning_budget_message": " I must answer now."}
    assert _ask(openai_client, beside).choices[0].message.reasoning_content.endswith(" I must answer now.")


def test_a_stream_is_the_same(openai_client: OpenAI) -> None:
    beside = {"reasoning_budget_tokens": 4}
    whole = _ask(openai_client, beside).choices[0].message
    deltas = [chunk.choices[0].delta for chunk in _ask(openai_client, beside, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == whole.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == whole.content


@pytest.mark.parametrize(
    "form",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}},
        {"grammar": 'root ::= "{\\"name\\": \\"" [a-z]+ "\\", \\"age\\": 7}"'},
    ],
    ids=["schema", "gbnf"],
)
@pytest.mark.parametrize("budget", [0, 5])
def test_a_form_holds_behind_reasoning_that_was_ended(openai_client: OpenAI, form: Any, budget: int) -> None:
    answer = _ask(openai_client, {"reasoning_budget_tokens": budget, **form}, temperature=1, seed=5).choices[0]
    assert answer.finish_reason == "stop"
    assert json.loads(answer.message.content).keys() == {"name", "age"}


def test_a_tool_is_called_behind_reasoning_that_was_ended(openai_client: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "make_person", "parameters": PERSON}}
    beside = {"reasoning_budget_tokens": 4}
    message = _ask(openai_client, beside, tools=[tool], tool_choice="required", seed=3).choices[0].message
    assert message.reasoning_content
    assert json.loads(message.tool_calls[0].function.arguments).keys() == {"name", "age"}


def test_anthropic_budgets_bound_thoughts(demo_server: RunningServer) -> None:
    turns: list[MessageParam] = [SUM]

    def thoughts(budget: int) -> str:
        body = {"model": "demo", "max_tokens": 200, "messages": turns, "temperature": 0}
        thinking = {"type": "enabled", "budget_tokens": budget}
        content = demo_server.post("/v1/messages", body | {"thinking": thinking}).json()["content"]
        assert [block["type"] for block in content] == ["thinking", "text"]
        return content[0]["thinking"]

    short, long = thoughts(3), thoughts(100)
    assert long.startswith(short)
    assert len(short) < len(long)


def test_a_budget_that_is_none_is_refused_by_name(demo_server: RunningServer) -> None:
    for name in NAMES:
        reply = demo_server.post("/v1/chat/completions", {"messages": [SUM], name: -2})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)
    both = {"messages": [SUM], NAMES[0]: 4, NAMES[1]: 4}
    reply = demo_server.post("/v1/chat/completions", both)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, NAMES[1])
