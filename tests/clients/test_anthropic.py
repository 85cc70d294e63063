"""Anthropic's own Python client against a real server with the demo model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anthropic
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

if TYPE_CHECKING:
    from anthropic.types import Message, MessageParam, ToolParam

MODEL = "demo"
GREEDY = {"temperature": 0}
"""Sent as an extra: the client no longer has a parameter for it."""
MESSAGES: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"enum": [1, 2, 3]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(server_url: str) -> Anthropic:
    return Anthropic(base_url=server_url, api_key="none", max_retries=0, timeout=120)


def without_id(message: Message) -> dict[str, Any]:
    """What two answers to the same request have in common: not ids, nor what was cached by then."""
    found: dict[str, Any] = message.to_dict()
    usage = found.pop("usage")
    found["tokens"] = (usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"])
    for block in found["content"]:
        block.pop("id", None)
    return {name: value for name, value in found.items() if name != "id"}


def test_a_message_is_answered(client: Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=12, messages=MESSAGES, extra_body=GREEDY)
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.model == MODEL
    assert message.role == "assistant"
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 12


def test_a_streamed_message_is_the_same_as_one_not_streamed(client: Anthropic) -> None:
    whole = client.messages.create(model=MODEL, max_tokens=24, messages=MESSAGES, extra_body=GREEDY)
    with client.messages.stream(model=MODEL, max_tokens=24, messages=MESSAGES, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert without_id(streamed) == without_id(whole)
    assert text == "".join(block.text for block in whole.content if block.type == "text")


def test_a_systems_words_reach_the_model(client: Anthropic) -> None:
    def tokens(**more: Any) -> int:
        return client.messages.count_tokens(model=MODEL, messages=MESSAGES, **more).input_tokens

    plain = tokens()
    in_one = tokens(system="Answer in one word.")
    in_blocks = tokens(system=[{"type": "text", "text": "Answer in one word.", "cache_control": {"type": "ephemeral"}}])
    assert plain < in_one == in_blocks
    assert tokens(tools=[WEATHER]) > plain


def test_counted_tokens_are_those_of_the_message(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens
    usage = client.messages.create(model=MODEL, max_tokens=1, messages=MESSAGES).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    events = list(client.messages.create(model=MODEL, max_tokens=1, messages=MESSAGES, stream=True))
    assert events[0].type == "message_start"
    assert events[0].message.usage.input_tokens == counted


def test_a_stop_sequence_ends_the_answer_and_is_named(client: Anthropic) -> None:
    free = client.messages.create(model=MODEL, max_tokens=24, messages=MESSAGES, extra_body=GREEDY)
    assert free.content[0].type == "text"
    text = free.content[0].text
    stop = text[5:9]
    cut = client.messages.create(
        model=MODEL, max_tokens=24, messages=MESSAGES, extra_body=GREEDY, stop_sequences=["never said", stop]
    )
    assert cut.content[0].type == "text"
    assert cut.content[0].text == text[: text.index(stop)]
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)


def test_an_answer_goes_on_from_what_the_assistant_began(client: Anthropic) -> None:
    begun: list[MessageParam] = [*MESSAGES, {"role": "assistant", "content": "The capital of"}]
    message = client.messages.create(model=MODEL, max_tokens=24, messages=begun, extra_body=GREEDY)
    assert message.content[0].type == "text"
    assert message.content[0].text.strip().startswith("France")


def test_thoughts_come_where_they_are_asked_for_and_can_be_sent_back(client: Anthropic) -> None:
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": MESSAGES, "extra_body": GREEDY}
    whole = cast("Message", client.messages.create(**request, thinking={"type": "enabled", "budget_tokens": 50}))
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.usage.output_tokens_details
    assert 0 < whole.usage.output_tokens_details.thinking_tokens < whole.usage.output_tokens
    with client.messages.stream(**request, thinking={"type": "enabled", "budget_tokens": 50}) as stream:
        assert without_id(stream.get_final_message()) == without_id(whole)
    without = cast("Message", client.messages.create(**request, thinking={"type": "disabled"}))
    assert [block.type for block in without.content] == ["text"]
    more: list[MessageParam] = [
        *MESSAGES,
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": "And of Italy?"},
    ]
    assert client.messages.create(model=MODEL, max_tokens=4, messages=more, extra_body=GREEDY).content


def test_a_required_tool_is_called_with_fitting_arguments(client: Anthropic) -> None:
    request: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "How is the weather in Paris?"}],
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        "extra_body": GREEDY,
    }
    whole = cast("Message", client.messages.create(**request))
    assert whole.stop_reason == "tool_use"
    (call,) = [block for block in whole.content if block.type == "tool_use"]
    assert call.name == "get_weather"
    assert isinstance(call.input["city"], str)
    assert call.input["days"] in (1, 2, 3)
    with client.messages.stream(**request) as stream:
        assert without_id(stream.get_final_message()) == without_id(whole)
    answered: list[MessageParam] = [
        *request["messages"],
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain, 12 °C."}]},
    ]
    after = client.messages.create(model=MODEL, max_tokens=24, messages=answered, tools=[WEATHER], extra_body=GREEDY)
    assert after.usage.input_tokens + (after.usage.cache_read_input_tokens or 0) > whole.usage.input_tokens


def test_an_answer_is_parsed_into_what_was_asked_for(client: Anthropic) -> None:
    class City(BaseModel):
        name: str
        large: bool

    message = client.messages.parse(
        model=MODEL, max_tokens=200, messages=MESSAGES, extra_body=GREEDY, output_format=City, timeout=240
    )
    if message.stop_reason == "end_turn":
        assert isinstance(message.parsed_output, City)
    else:
        pytest.fail(f"the answer was cut short: {message.content}")


def test_errors_are_anthropics(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is no model 'nothing'; there are demo") as missing:
        client.messages.create(model="nothing", max_tokens=1, messages=MESSAGES)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="no vision"):
        image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
        client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.BadRequestError, match="the context holds 512"):
        client.messages.create(
            model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "word " * 600}], stream=True
        )


@pytest.mark.asyncio
async def test_the_asynchronous_client_works_too(server_url: str, client: Anthropic) -> None:
    whole = client.messages.create(model=MODEL, max_tokens=8, messages=MESSAGES, extra_body=GREEDY)
    async with (
        anthropic.AsyncAnthropic(base_url=server_url, api_key="none", max_retries=0, timeout=120) as asynchronous,
        asynchronous.messages.stream(model=MODEL, max_tokens=8, messages=MESSAGES, extra_body=GREEDY) as stream,
    ):
        assert without_id(await stream.get_final_message()) == without_id(whole)
