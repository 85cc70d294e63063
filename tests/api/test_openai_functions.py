"""`functions` and `function_call`, the older form of tools, through OpenAI's own client on a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import TypeAdapter, ValidationError

from server.api.openai.chat_messages import ChatMessage, plain_messages
from server.chat.media import Shown

if TYPE_CHECKING:
    from openai import OpenAI

QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city", "parameters": CITY}
PROBE = {"name": "launch_probe", "parameters": {**CITY, "properties": {"city": {"enum": ["moon", "mars"]}}}}
CONVERSATION = TypeAdapter(list[ChatMessage])


def _ask(client: OpenAI, *messages: Any, **options: Any) -> Any:
    create: Any = client.chat.completions.create
    return create(model="demo", messages=list(messages), temperature=0, max_tokens=200, **options)


def test_a_function_is_called_and_its_result_told(openai_client: OpenAI) -> None:
    first = _ask(openai_client, QUESTION, functions=[WEATHER]).choices[0]
    assert (first.finish_reason, first.message.content, first.message.tool_calls) == ("function_call", None, None)
    call = first.message.function_call
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"role": "function", "name": "get_weather", "content": '{"temperature": 21, "condition": "sunny"}'}
    last = _ask(openai_client, QUESTION, first.message, result, functions=[WEATHER]).choices[0]
    assert last.finish_reason == "stop"
    assert "21" in last.message.content


def test_a_streamed_call_is_the_same(openai_client: OpenAI) -> None:
    whole = _ask(openai_client, QUESTION, functions=[WEATHER]).choices[0].message.function_call
    pieces: list[int] = []
    for _ in range(8):  # a reader that is late gets several at once
        names: list[str] = []
        arguments: list[str] = []
        reasons: list[str] = []
        for chunk in _ask(openai_client, QUESTION, functions=[WEATHER], stream=True):
            choice = chunk.choices[0]
            assert choice.delta.tool_calls is None
            if call := choice.delta.function_call:
                names += [call.name] if call.name else []
                arguments.append(call.arguments)
            reasons += [choice.finish_reason] if choice.finish_reason else []
        assert (names, "".join(arguments), reasons) == ([whole.name], whole.arguments, ["function_call"])
        pieces.append(len(arguments))
    assert max(pieces) > 2, "arguments come piece by piece"


def test_function_call_says_what_is_called(openai_client: OpenAI) -> None:
    story = {"role": "user", "content": "Tell me a story."}
    named = _ask(openai_client, story, functions=[WEATHER, PROBE], function_call={"name": "launch_probe"}).choices[0]
    assert named.message.function_call.name == "launch_probe"
    assert json.loads(named.message.function_call.arguments)["city"] in ("moon", "mars")
    none = _ask(openai_client, QUESTION, functions=[WEATHER], function_call="none").choices[0]
    assert (none.finish_reason, none.message.function_call) == ("stop", None)
    assert none.message.content


def test_the_two_forms_cannot_be_mixed(openai_client: OpenAI) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    with pytest.raises(openai.BadRequestError, match="give either functions, which is the older form, or tools"):
        _ask(openai_client, QUESTION, functions=[WEATHER], tools=tools)
    with pytest.raises(openai.BadRequestError, match="give either function_call, which is the older form, or tools"):
        _ask(openai_client, QUESTION, tools=tools, function_call="auto")
    with pytest.raises(openai.BadRequestError, match="no function 'f' among functions") as caught:
        _ask(openai_client, QUESTION, functions=[WEATHER], function_call={"name": "f"})
    assert caught.value.param == "function_call"


def test_messages_become_calls_and_results_of_tools() -> None:
    given: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": "Again.", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    ]
    asked, told, again, nothing = plain_messages(CONVERSATION.validate_python(given), Shown())
    calls = [asked["tool_calls"][0], again["tool_calls"][0]]
    assert [call["function"] for call in calls] == [one["function_call"] for one in (given[0], given[2])]
    assert calls[0]["id"] != calls[1]["id"]
    assert told == {"role": "tool", "name": "f", "tool_call_id": calls[0]["id"], "content": "one"}
    assert nothing == {"role": "tool", "name": "f", "tool_call_id": calls[1]["id"], "content": ""}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "function", "content": "x"}, "role function needs name"),
        ({"role": "user", "content": "x", "function_call": {"name": "f", "arguments": ""}}, "role user cannot have"),
    ],
)
def test_a_message_at_fault_is_told_why(message: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CONVERSATION.validate_python([message])
