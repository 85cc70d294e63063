"""Tools, structured output and reasoning through OpenAI's own Python client, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

if TYPE_CHECKING:
    from openai import OpenAI

MODEL = "demo"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
# Nothing that the model was trained on: only the grammar can make it right.
STRANGE: Any = {
    "type": "function",
    "function": {
        "name": "launch_probe",
        "parameters": {
            "type": "object",
            "properties": {
                "target": {"enum": ["moon", "mars"]},
                "thrust": {"type": "integer", "minimum": 1, "maximum": 9},
                "manned": {"type": "boolean"},
            },
            "required": ["target", "thrust", "manned"],
            "additionalProperties": False,
        },
    },
}


def _ask(client: OpenAI, text: str, **options: Any) -> Any:
    create: Any = client.chat.completions.create
    return create(model=MODEL, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=200, **options)


def test_a_tool_is_called_and_its_result_told(openai_client: OpenAI) -> None:
    first = _ask(openai_client, "What is the weather in Paris?", tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    (call,) = first.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    create: Any = openai_client.chat.completions.create
    last = create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            first.message,
            {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "condition": "sunny"}'},
        ],
        tools=[WEATHER],
        temperature=0,
        max_tokens=60,
    )
    assert "21" in last.choices[0].message.content


def test_streamed_calls_are_the_same(openai_client: OpenAI) -> None:
    (whole,) = _ask(openai_client, "What is the weather in Paris?", tools=[WEATHER]).choices[0].message.tool_calls
    pieces: list[int] = []
    for _ in range(8):  # a reader that is late gets several at once
        names: list[str] = []
        arguments: list[str] = []
        reasons: list[str] = []
        for chunk in _ask(openai_client, "What is the weather in Paris?", tools=[WEATHER], stream=True):
            choice = chunk.choices[0]
            reasons += [choice.finish_reason] if choice.finish_reason else []
            assert not choice.delta.content
            calls: list[Any] = choice.delta.tool_calls or []
            for call in calls:
                names += [call.function.name] if call.function.name else []
                arguments.append(call.function.arguments)
        assert names == [whole.function.name]
        assert "".join(arguments) == whole.function.arguments
        assert reasons == ["tool_calls"]
        pieces.append(len(arguments))
    assert max(pieces) > 2, "arguments come piece by piece"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "launch_probe"}}])
@pytest.mark.parametrize("temperature", [0, 2])
def test_a_call_that_must_be_made_is_made_and_fits_its_schema(
    openai_client: OpenAI, choice: Any, temperature: float
) -> None:
    create: Any = openai_client.chat.completions.create
    for seed in range(4):
        answer = create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a story."}],
            tools=[STRANGE],
            tool_choice=choice,
            parallel_tool_calls=False,
            temperature=temperature,
            seed=seed,
        ).choices[0]
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert call.function.name == "launch_probe"
        assert arguments.keys() == {"target", "thrust", "manned"}
        assert arguments["target"] in ("moon", "mars")
        assert 1 <= arguments["thrust"] <= 9


def test_no_tool_is_called_where_none_may_be(openai_client: OpenAI) -> None:
    answer = _ask(openai_client, "What is the weather in Paris?", tools=[WEATHER], tool_choice="none").choices[0]
    assert answer.message.tool_calls is None
    assert answer.message.content


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_stop_strings_do_not_cut_calls(openai_client: OpenAI, choice: str) -> None:
    stops = ["\n", "}", '"', "Paris"]
    answer = _ask(openai_client, "What is the weather in Paris?", tools=[WEATHER], tool_choice=choice, stop=stops)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


FORMS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"extra_body": {"guided_regex": r"\{[^}]{0,40}\}"}},
    {"extra_body": {"grammar": 'root ::= "{" [a-z]+ "}"'}},
]


@pytest.mark.parametrize("form", FORMS, ids=["object", "regex", "gbnf"])
def test_a_tool_may_be_called_where_the_answer_has_a_form(openai_client: OpenAI, form: Any) -> None:
    options = {"tools": [WEATHER], "stop": ["Paris", "x}"]} | form
    answer = _ask(openai_client, "What is the weather in Paris?", **options).choices[0]
    (call,) = answer.message.tool_calls
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    for seed in range(3):
        text = _ask(openai_client, "Tell me a story.", **options, seed=seed).choices[0].message
        assert text.tool_calls or re.match(r"\s*\{", text.content)


@pytest.mark.parametrize("form", FORMS, ids=["object", "regex", "gbnf"])
def test_an_answer_that_would_end_in_reasoning_has_its_form(openai_client: OpenAI, form: Any) -> None:
    options = {"tools": [WEATHER], "reasoning_effort": "low"}
    free = _ask(openai_client, "What is the weather in Paris?", **options).choices[0].message
    assert free.reasoning_content
    assert not free.content, "the demo model ends there"
    message = _ask(openai_client, "What is the weather in Paris?", **options | form).choices[0].message
    assert message.reasoning_content.startswith(free.reasoning_content)
    assert message.tool_calls or re.match(r"\s*\{", message.content)


def test_stop_strings_do_not_cut_reasoning(openai_client: OpenAI) -> None:
    free = _ask(openai_client, "What is 3 plus 4?", reasoning_effort="low").choices[0].message
    stopped = _ask(openai_client, "What is 3 plus 4?", reasoning_effort="low", stop=[".", "\n"]).choices[0].message
    assert stopped.reasoning_content == free.reasoning_content
    assert "." in free.reasoning_content
    assert stopped.content == re.split(r"[.\n]", free.content)[0]


def test_an_allowed_tool_must_be_among_those_offered(openai_client: OpenAI) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_wether"}}]}
    with pytest.raises(openai.BadRequestError, match="get_wether"):
        _ask(openai_client, "Hi", tools=[WEATHER], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})


def test_a_tool_that_is_not_offered_cannot_be_asked_for(openai_client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}
    with pytest.raises(openai.BadRequestError, match="no tool 'get_time'") as caught:
        _ask(openai_client, "What time is it?", tools=[WEATHER], tool_choice=choice)
    assert caught.value.param == "tool_choice"


class Trip(BaseModel):
    """A form that the model was never trained on."""

    city: str
    days: int
    means: Literal["train", "bus"]


def test_answers_parse_into_a_pydantic_model(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Plan a trip to Paris."}],
        response_format=Trip,
        max_tokens=300,
        seed=1,
    )
    trip = answer.choices[0].message.parsed
    assert isinstance(trip, Trip)


def test_a_json_object_is_one(openai_client: OpenAI) -> None:
    answer = _ask(
        openai_client, "What is the capital of France? Answer in JSON.", response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": {"const": "42"}},
        {"type": "json_schema", "json_schema": {"schema": {"const": "42"}}},
    ],
)
def test_a_schema_holds_in_the_forms_that_other_servers_take(openai_client: OpenAI, form: dict[str, Any]) -> None:
    answer = _ask(openai_client, "What is the capital of France?", response_format=form)
    assert answer.choices[0].message.content == '"42"'


def test_a_schema_that_cannot_hold_is_refused_by_its_keyword(openai_client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        _ask(
            openai_client,
            "Hi",
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("guided_choice", ["red", "green"], r"red|green"),
        ("guided_regex", "[0-9]{3}-[a-f]{2}", r"[0-9]{3}-[a-f]{2}"),
        ("grammar", 'root ::= "yes" | "no"', r"yes|no"),
        ("grammar", 'start: "left" | "right"', r"left|right"),
        ("guided_json", {"type": "integer", "minimum": 10, "maximum": 12}, r"1[0-2]"),
    ],
)
def test_other_constraints_hold(openai_client: OpenAI, field: str, value: Any, allowed: str) -> None:
    answer = _ask(openai_client, "What colour is the sky?", extra_body={field: value}).choices[0]
    assert re.fullmatch(allowed, answer.message.content)
    assert answer.finish_reason == "stop"


def test_reasoning_is_told_apart_from_the_answer(openai_client: OpenAI) -> None:
    options = {"reasoning_effort": "low"}
    whole = _ask(openai_client, "What is 3 plus 4?", **options)
    message = whole.choices[0].message
    assert message.reasoning_content
    assert "7" in message.content
    assert "think" not in message.content
    assert 0 < whole.usage.completion_tokens_details.reasoning_tokens < whole.usage.completion_tokens
    chunks = [chunk.choices[0].delta for chunk in _ask(openai_client, "What is 3 plus 4?", stream=True, **options)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in chunks) == message.reasoning_content
    assert "".join(delta.content or "" for delta in chunks) == message.content


def test_an_answer_goes_on_from_what_the_assistant_began(openai_client: OpenAI) -> None:
    create: Any = openai_client.chat.completions.create
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    answer = create(model=MODEL, messages=turns, temperature=0, max_tokens=10)
    assert answer.choices[0].message.content == " Paris."


def test_the_asynchronous_client_streams_side_by_side(server_url: str) -> None:
    async def ask(client: AsyncOpenAI, country: str) -> str:
        create: Any = client.chat.completions.create
        turns = [{"role": "user", "content": f"What is the capital of {country}?"}]
        stream = await create(model=MODEL, messages=turns, temperature=0, max_tokens=20, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none") as client:
            return await asyncio.gather(*(ask(client, country) for country in ("France", "Italy", "Spain")))

    answers = asyncio.run(ask_all())
    assert ["Paris" in answers[0], "Rome" in answers[1], "Madrid" in answers[2]] == [True] * 3
