"""OpenAI's own Python client asking for responses from a real server with the demo model."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, cast

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

if TYPE_CHECKING:
    from pathlib import Path

    from openai.types.responses import FunctionToolParam, Response

    from tests.conftest import RunningServer, StartServer

MODEL = "demo"
QUESTION = "What is the capital of France?"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"enum": [1, 2, 3]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


def without_ids(response: Response) -> dict[str, Any]:
    """What two answers to the same request have in common: not ids and times, nor what was cached by then."""
    found: dict[str, Any] = response.to_dict()
    for item in found["output"]:
        item.pop("id")
        item.pop("call_id", None)
    found["usage"].pop("input_tokens_details")
    return {name: value for name, value in found.items() if name not in ("id", "created_at", "completed_at")}


def test_a_response_is_given(openai_client: OpenAI) -> None:
    response = openai_client.responses.create(
        model=MODEL, input=QUESTION, max_output_tokens=24, temperature=0, metadata={"of": "mine"}
    )
    assert response.object == "response"
    assert response.status == "completed"
    assert response.output_text
    assert response.model == MODEL
    assert response.metadata == {"of": "mine"}
    assert response.usage
    assert 0 < response.usage.output_tokens <= 24
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_streamed_response_is_the_same_as_one_not_streamed(openai_client: OpenAI) -> None:
    whole = openai_client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=24, temperature=0)
    with openai_client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=24, temperature=0) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == streamed.output_text == whole.output_text
    raw = list(
        openai_client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=24, temperature=0, stream=True)
    )
    assert [event.sequence_number for event in raw] == list(range(len(raw)))
    assert raw[-1].type == "response.completed"
    assert without_ids(raw[-1].response) == without_ids(whole)


def test_a_conversation_goes_on_from_a_kept_response(openai_client: OpenAI) -> None:
    first = openai_client.responses.create(
        model=MODEL, input=QUESTION, instructions="Be brief.", max_output_tokens=24, temperature=0
    )
    second = openai_client.responses.create(
        model=MODEL, input="And of Italy?", previous_response_id=first.id, max_output_tokens=24, temperature=0
    )
    by_hand = openai_client.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And of Italy?"},
        ],
        max_output_tokens=24,
        temperature=0,
        store=False,
    )
    assert second.previous_response_id == first.id
    assert second.output_text == by_hand.output_text
    assert second.usage
    assert by_hand.usage
    assert second.usage.input_tokens == by_hand.usage.input_tokens
    counted = openai_client.responses.input_tokens.count(
        model=MODEL, input="And of Italy?", previous_response_id=first.id
    )
    assert counted.input_tokens == second.usage.input_tokens


def ask(client: OpenAI, **request: Any) -> Response:
    """A response to a request of which the types are left to the server."""
    return cast("Response", client.responses.create(**request))


def test_items_can_be_sent_back_and_referred_to(openai_client: OpenAI) -> None:
    request: dict[str, Any] = {"model": MODEL, "max_output_tokens": 24, "temperature": 0}
    first = ask(openai_client, input=QUESTION, **request)
    question, more = {"role": "user", "content": QUESTION}, {"role": "user", "content": "And of Italy?"}
    sent = ask(openai_client, input=[question, *(item.to_dict() for item in first.output), more], **request)
    reference = {"type": "item_reference", "id": first.output[0].id}
    referred = ask(openai_client, input=[question, reference, more], **request)
    assert sent.output_text == referred.output_text
    assert sent.usage
    assert referred.usage
    assert sent.usage.input_tokens == referred.usage.input_tokens


def test_kept_responses_are_looked_at_listed_and_deleted(openai_client: OpenAI) -> None:
    made = openai_client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "One"}, {"role": "user", "content": "Two"}],
        max_output_tokens=4,
        temperature=0,
    )
    found = openai_client.responses.retrieve(made.id)
    assert found.to_dict() == made.to_dict()
    items = openai_client.responses.input_items.list(made.id, order="asc", limit=1)
    contents = [item.to_dict()["content"] for item in items]  # both, a page after the other
    assert [content[0]["text"] for content in contents] == ["One", "Two"]  # type: ignore[index]
    with pytest.raises(openai.BadRequestError, match="not made in the background"):
        openai_client.responses.cancel(made.id)
    openai_client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        openai_client.responses.retrieve(made.id)
    unkept = openai_client.responses.create(model=MODEL, input="Hi", max_output_tokens=2, store=False)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(unkept.id)


def test_a_required_tool_is_called_and_its_result_read(openai_client: OpenAI) -> None:
    request: dict[str, Any] = {
        "model": MODEL,
        "input": "How is the weather in Paris?",
        "tool_choice": {"type": "function", "name": "get_weather"},
        "tools": [WEATHER],
        "max_output_tokens": 100,
        "temperature": 0,
    }
    whole = ask(openai_client, **request)
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert call.name == "get_weather"
    with openai_client.responses.stream(**request) as stream:
        (streamed,) = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert streamed.arguments == call.arguments

    class Arguments(BaseModel):
        city: str
        days: int

    assert Arguments.model_validate_json(call.arguments).days in (1, 2, 3)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain, 12 °C."}
    after = ask(
        openai_client, **{**request, "input": [result], "tool_choice": "auto", "previous_response_id": whole.id}
    )
    assert after.status in ("completed", "incomplete")
    assert whole.usage
    assert after.usage
    assert after.usage.input_tokens > whole.usage.input_tokens


def test_reasoning_comes_where_it_is_asked_for_and_can_be_sent_back(openai_client: OpenAI) -> None:
    request: dict[str, Any] = {"model": MODEL, "max_output_tokens": 100, "temperature": 0}
    encrypted = "reasoning.encrypted_content"
    whole = ask(openai_client, input=QUESTION, reasoning={"effort": "high"}, include=[encrypted], **request)
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.usage
    assert 0 < whole.usage.output_tokens_details.reasoning_tokens < whole.usage.output_tokens
    with openai_client.responses.stream(input=QUESTION, reasoning={"effort": "high"}, **request) as stream:
        assert stream.get_final_response().output_text == whole.output_text
    without = ask(openai_client, input=QUESTION, reasoning={"effort": "none"}, **request)
    assert [item.type for item in without.output] == ["message"]
    question, more = {"role": "user", "content": QUESTION}, {"role": "user", "content": "And of Italy?"}
    taken_along = [item.to_dict() for item in whole.output]
    taken_along[0].pop("content")  # what a client keeps that only has the encrypted content
    assert ask(openai_client, input=[question, *taken_along, more], **request).output_text


def test_an_answer_is_parsed_into_what_was_asked_for(openai_client: OpenAI) -> None:
    class City(BaseModel):
        name: str
        large: bool

    response = openai_client.responses.parse(
        model=MODEL, input=QUESTION, text_format=City, max_output_tokens=200, temperature=0
    )
    assert response.status == "completed", response.output_text
    assert isinstance(response.output_parsed, City)


def test_log_probabilities_come_with_the_text(openai_client: OpenAI) -> None:
    response = openai_client.responses.create(
        model=MODEL,
        input=QUESTION,
        max_output_tokens=6,
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    message = response.output[0]
    assert message.type == "message"
    text = message.content[0]
    assert text.type == "output_text"
    assert text.logprobs
    assert "".join(token.token for token in text.logprobs).startswith(text.text)
    assert all(len(token.top_logprobs) == 2 for token in text.logprobs)


def test_a_conversation_that_is_too_long_loses_its_first_turns_where_asked(openai_client: OpenAI) -> None:
    long = [{"role": "user" if turn % 2 else "assistant", "content": "a few words of talk " * 9} for turn in range(20)]
    question = {"role": "user", "content": QUESTION}
    request: dict[str, Any] = {"model": MODEL, "input": [*long, question], "max_output_tokens": 24, "temperature": 0}
    with pytest.raises(openai.BadRequestError, match="the context holds 512"):
        ask(openai_client, **request)
    shortened = ask(openai_client, truncation="auto", **request)
    assert shortened.usage
    assert 200 < shortened.usage.input_tokens <= 512 - 24


def test_errors_name_what_is_wrong(openai_client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'nothing'; there are demo"):
        openai_client.responses.create(model="nothing", input="Hi")
    with pytest.raises(openai.NotFoundError, match="there is no response 'resp_x'"):
        openai_client.responses.create(model=MODEL, input="Hi", previous_response_id="resp_x")
    with pytest.raises(openai.BadRequestError, match="brim takes no tool of type 'file_search'"):
        openai_client.responses.create(
            model=MODEL, input="Hi", tools=[{"type": "file_search", "vector_store_ids": ["v"]}]
        )
    with pytest.raises(openai.BadRequestError, match="brim searches no web"):
        openai_client.responses.create(model=MODEL, input="Hi", tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError, match="background"):
        openai_client.responses.create(model=MODEL, input="Hi", background=True)
    with pytest.raises(openai.BadRequestError, match="the context holds 512"):
        openai_client.responses.create(model=MODEL, input="word " * 600, stream=True)


@pytest.mark.asyncio
async def test_the_asynchronous_client_works_too(server_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        whole = await client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=8, temperature=0)
        async with client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=8, temperature=0) as stream:
            events = [event async for event in stream]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text


@pytest.mark.slow
def test_responses_outlive_the_server_and_belong_to_their_key(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path
) -> None:
    def start() -> RunningServer:
        return start_server(
            demo_gguf, "--ctx", "256", BRIM_RESPONSES_FILE=str(tmp_path / "kept.db"), BRIM_API_KEY="ours,theirs"
        )

    before = start()
    made = OpenAI(base_url=f"{before.url}/v1", api_key="ours", max_retries=0).responses.create(
        model=MODEL, input="Hi", max_output_tokens=4
    )
    before.signal_and_wait(signal.SIGTERM)
    after = start()
    ours = OpenAI(base_url=f"{after.url}/v1", api_key="ours", max_retries=0)
    theirs = OpenAI(base_url=f"{after.url}/v1", api_key="theirs", max_retries=0)
    assert ours.responses.retrieve(made.id).output_text == made.output_text
    with pytest.raises(openai.NotFoundError):
        theirs.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        theirs.responses.create(model=MODEL, input="And?", previous_response_id=made.id)
