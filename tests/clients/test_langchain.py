"""LangChain's `ChatOpenAI` and `OpenAIEmbeddings` against a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field, SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

    Chat = Callable[..., Any]  # ChatOpenAI, whose methods' types are known only in part

MODEL = "demo"
WEATHER_QUESTION = "What is the weather in Paris?"


@pytest.fixture(scope="module", autouse=True)
def no_tracing() -> Any:
    """LangSmith is told of nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2"):
            patch.setenv(name, "false")
        yield


@pytest.fixture(scope="module")
def chat(server_url: str) -> Chat:
    """Makes a chat model with further options."""

    def make(**options: Any) -> ChatOpenAI:
        fixed = {"model": MODEL, "base_url": f"{server_url}/v1", "max_retries": 0, "timeout": 120}
        given: dict[str, Any] = {"temperature": 0, "max_completion_tokens": 200, **options}
        return ChatOpenAI(api_key=SecretStr("none"), **fixed, **given)

    return make


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return json.dumps({"temperature": 21, "condition": "sunny" if city == "Paris" else "rainy"})


class Trip(BaseModel):
    """A trip. The model was never trained on this form."""

    city: Annotated[str, Field(max_length=12)]
    nights: Literal[1, 2, 3]
    means: Literal["train", "bus"]


def test_a_conversation_is_answered(chat: Chat) -> None:
    answer = chat().invoke(
        [SystemMessage("You are a helpful assistant."), HumanMessage("What is the capital of France?")]
    )
    assert "Paris" in answer.text
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.response_metadata["finish_reason"] == "stop"
    usage = answer.usage_metadata
    assert usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_streamed_answer_is_the_same_and_its_tokens_are_counted(chat: Chat) -> None:
    question = "Tell me a story."
    whole = chat().invoke(question)
    chunks = list(chat(stream_usage=True).stream(question))
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    joined = joined_chunks(chunks)
    assert joined.text == whole.text
    assert joined.usage_metadata
    assert whole.usage_metadata
    assert joined.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


async def test_a_chain_streams_asynchronously(chat: Chat) -> None:
    chain = ChatPromptTemplate.from_messages([("human", "What is the capital of {country}?")]) | chat()
    text = "".join([chunk.text async for chunk in chain.astream({"country": "Italy"})])
    assert "Rome" in text


def test_conversations_are_answered_side_by_side(chat: Chat) -> None:
    answers = chat().batch([f"What is the capital of {country}?" for country in ("France", "Spain")])
    assert ["Paris" in answers[0].text, "Madrid" in answers[1].text] == [True, True]


def test_a_bound_tool_is_called_and_its_result_told(chat: Chat) -> None:
    model = chat().bind_tools([get_weather])
    asked = HumanMessage(WEATHER_QUESTION)
    calling = model.invoke([asked])
    assert calling.response_metadata["finish_reason"] == "tool_calls"
    (call,) = calling.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = model.invoke([asked, calling, result])
    assert not answer.tool_calls
    assert "21" in answer.text


def test_a_streamed_call_is_joined_into_the_same(chat: Chat) -> None:
    chunks = list(chat().bind_tools([get_weather]).stream(WEATHER_QUESTION))
    joined = joined_chunks(chunks)
    assert isinstance(joined, AIMessage)
    (call,) = joined.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    assert not joined.invalid_tool_calls


@pytest.mark.parametrize("choice", ["any", "get_weather"])
def test_a_call_that_must_be_made_is_made(chat: Chat, choice: str) -> None:
    answer = chat().bind_tools([get_weather], tool_choice=choice, strict=True).invoke("Tell me a story.")
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert answer.tool_calls[0]["args"].keys() == {"city"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_output_has_the_structure_asked_for(chat: Chat, method: Literal["json_schema", "function_calling"]) -> None:
    model = chat(temperature=1, seed=3, max_completion_tokens=300).with_structured_output(Trip, method=method)
    assert isinstance(model.invoke("Plan a trip to Paris."), Trip)


def test_structured_output_streams(chat: Chat) -> None:
    model = chat(max_completion_tokens=300).with_structured_output(Trip.model_json_schema())
    parts = list(model.stream("Plan a trip to Paris."))
    Trip.model_validate(parts[-1])


def test_the_raw_answer_comes_beside_the_parsed(chat: Chat) -> None:
    model = chat(max_completion_tokens=300).with_structured_output(Trip, include_raw=True, strict=True)
    found: Any = model.invoke("Plan a trip to Paris.")
    assert found["parsing_error"] is None
    assert Trip.model_validate_json(found["raw"].text) == found["parsed"]


def test_json_mode_gives_an_object(chat: Chat) -> None:
    model = chat().with_structured_output(None, method="json_mode")
    assert isinstance(model.invoke("What is the capital of France? Answer in JSON."), dict)


def test_reasoning_effort_and_log_probabilities(chat: Chat) -> None:
    answer = chat(reasoning_effort="low").invoke("What is 3 plus 4?")
    assert "7" in answer.text
    assert answer.usage_metadata
    assert answer.usage_metadata.get("output_token_details", {}).get("reasoning", 0) > 0
    told = chat(logprobs=True, top_logprobs=2).invoke("What is the capital of France?")
    tokens = told.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(told.text)
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


def test_the_responses_protocol_calls_tools_and_streams(chat: Chat) -> None:
    model = chat(use_responses_api=True)
    assert "Paris" in "".join(chunk.text for chunk in model.stream("What is the capital of France?"))
    with_tools = model.bind_tools([get_weather])
    asked = HumanMessage(WEATHER_QUESTION)
    calling = with_tools.invoke([asked])
    (call,) = calling.tool_calls
    assert call["args"] == {"city": "Paris"}
    assert "21" in with_tools.invoke([asked, calling, get_weather.invoke(call)]).text


def test_responses_have_the_structure_asked_for(chat: Chat) -> None:
    model = chat(use_responses_api=True, max_completion_tokens=300).with_structured_output(Trip)
    assert isinstance(model.invoke("Plan a trip to Paris."), Trip)


def test_a_refusal_reaches_the_caller(chat: Chat) -> None:
    with pytest.raises(openai.BadRequestError, match="vision"):
        chat().invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])])
    with pytest.raises(openai.BadRequestError, match="the context holds 512"):
        chat().invoke("word " * 600)


def test_texts_are_embedded(server_url: str) -> None:
    embeddings = OpenAIEmbeddings(
        model=MODEL,
        base_url=f"{server_url}/v1",
        api_key=SecretStr("none"),
        check_embedding_ctx_length=False,  # else it splits long texts by a tokenizer that it fetches from elsewhere
        max_retries=0,
    )
    one, two = embeddings.embed_documents(["a cat sat.", "9 dogs"])
    assert embeddings.embed_query("a cat sat.") == pytest.approx(one, abs=1e-3)
    assert one != pytest.approx(two, abs=1e-3)


def joined_chunks(chunks: list[Any]) -> Any:
    """The message that a stream's chunks add up to."""
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    return joined
