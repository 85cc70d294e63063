"""LiteLLM against a real server. It runs in an environment of its own, through litellm/bridge.py."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.environments import python_with

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "litellm"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER_QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "means": {"enum": ["train", "bus"]}},
    "required": ["city", "means"],
    "additionalProperties": False,
}


@dataclass
class Litellm:
    """Calls LiteLLM's functions for the server's one model."""

    process: subprocess.Popen[str]
    url: str

    def told(self, function: str, **arguments: Any) -> Any:
        """What the bridge says of a call."""
        assert self.process.stdin
        assert self.process.stdout
        fixed = {"model": "openai/demo", "api_base": f"{self.url}/v1", "api_key": "none", "timeout": 120}
        self.process.stdin.write(json.dumps({"function": function, "arguments": fixed | arguments}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def call(self, function: str, **arguments: Any) -> Any:
        told = self.told(function, **arguments)
        assert "answer" in told, told
        return told["answer"]

    def complete(self, **arguments: Any) -> Any:
        return self.call("completion", **{"temperature": 0, "max_tokens": 200, "messages": CAPITAL, **arguments})


@pytest.fixture(scope="module")
def litellm(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litellm]:
    log = tmp_path_factory.mktemp("litellm") / "log"
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it fetches a list of prices
    command = [str(python_with(HERE / "requirements.txt")), str(HERE / "bridge.py")]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, **local},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:  # closes its stdin, which ends it
        yield Litellm(process, server_url)


def joined_arguments(chunks: list[Any]) -> str:
    """The arguments of the one call that a stream makes."""
    deltas: list[dict[str, Any]] = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls: list[Any] = []
    for delta in deltas:
        calls += delta.get("tool_calls") or []
    return "".join(call["function"]["arguments"] for call in calls)


def test_a_streamed_answer_is_the_same_as_one_not_streamed(litellm: Litellm) -> None:
    (capital,) = litellm.complete()["choices"]
    assert "Paris" in capital["message"]["content"]
    assert capital["finish_reason"] == "stop"
    story = {"messages": [{"role": "user", "content": "Tell me a story."}]}
    whole = litellm.complete(**story)
    chunks = litellm.complete(stream=True, stream_options={"include_usage": True}, **story)
    (choice,) = whole["choices"]
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert len([text for text in texts if text]) > 1
    assert "".join(text or "" for text in texts) == choice["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("provider", ["hosted_vllm", "lm_studio"])
def test_its_providers_of_local_servers_work_too(litellm: Litellm, provider: str) -> None:
    assert "Paris" in litellm.complete(model=f"{provider}/demo")["choices"][0]["message"]["content"]


def test_a_tool_is_called_and_its_result_told(litellm: Litellm) -> None:
    first = litellm.complete(messages=[WEATHER_QUESTION], tools=[WEATHER])["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    (call,) = first["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"temperature": 21, "condition": "sunny"}'}
    messages = [WEATHER_QUESTION, first["message"], result]
    last = litellm.complete(messages=messages, tools=[WEATHER])["choices"][0]
    assert "21" in last["message"]["content"]


def test_a_streamed_call_is_the_same(litellm: Litellm) -> None:
    chunks = litellm.complete(messages=[WEATHER_QUESTION], tools=[WEATHER], stream=True)
    assert json.loads(joined_arguments(chunks)) == {"city": "Paris"}
    assert [reason for chunk in chunks if (reason := chunk["choices"][0]["finish_reason"])] == ["tool_calls"]


def test_a_call_that_must_be_made_is_made(litellm: Litellm) -> None:
    story = [{"role": "user", "content": "Tell me a story."}]
    message = litellm.complete(messages=story, tools=[WEATHER], tool_choice="required")["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]


def test_an_answer_fits_its_schema(litellm: Litellm) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
    trip = [{"role": "user", "content": "Plan a trip to Paris."}]
    answer = json.loads(litellm.complete(messages=trip, response_format=form)["choices"][0]["message"]["content"])
    assert answer.keys() == {"city", "means"}
    assert len(answer["city"]) <= 12


def test_reasoning_is_told_apart_and_taken_back(litellm: Litellm) -> None:
    sum_ = {"role": "user", "content": "What is 3 plus 4?"}
    efforts = {"reasoning_effort": "low", "allowed_openai_params": ["reasoning_effort"]}
    message = litellm.complete(messages=[sum_], **efforts)["choices"][0]["message"]
    assert message["reasoning_content"]
    assert "7" in message["content"]
    assert "Paris" in litellm.complete(messages=[sum_, message, *CAPITAL])["choices"][0]["message"]["content"]
    chunks = litellm.complete(messages=[sum_], stream=True, **efforts)
    reasoning = [chunk["choices"][0]["delta"].get("reasoning_content") or "" for chunk in chunks]
    assert "".join(reasoning) == message["reasoning_content"]


def test_a_text_is_completed(litellm: Litellm) -> None:
    asked = {"model": "text-completion-openai/demo", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    whole = litellm.call("text_completion", **asked)
    assert whole["choices"][0]["text"]
    chunks = litellm.call("text_completion", **asked, stream=True)
    assert "".join(chunk["choices"][0]["text"] or "" for chunk in chunks) == whole["choices"][0]["text"]


def test_texts_are_embedded(litellm: Litellm) -> None:
    answer = litellm.call("embedding", input=["a cat sat.", "9 dogs"])
    vectors = [one["embedding"] for one in answer["data"]]
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-3)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)


def test_responses_answer(litellm: Litellm) -> None:
    answer = litellm.call("responses", input=CAPITAL[0]["content"], temperature=0)
    assert "Paris" in answer["output"][0]["content"][0]["text"]


def test_the_protocol_of_anthropic_works_too(litellm: Litellm) -> None:
    anthropic = {"model": "anthropic/demo", "api_base": litellm.url}
    assert "Paris" in litellm.complete(**anthropic)["choices"][0]["message"]["content"]
    asked = {"messages": [WEATHER_QUESTION], "tools": [WEATHER], **anthropic}
    assert json.loads(joined_arguments(litellm.complete(**asked, stream=True))) == {"city": "Paris"}


def test_a_refusal_is_of_its_kind(litellm: Litellm) -> None:
    long = [{"role": "user", "content": "word " * 600}]
    kind, message = litellm.told("completion", messages=long, max_retries=0)["error"]
    assert (kind, "the context holds 512" in message) == ("ContextWindowExceededError", True)
    kind, message = litellm.told("completion", messages=CAPITAL, model="openai/absent", max_retries=0)["error"]
    assert (kind, "there is no model 'absent'" in message) == ("NotFoundError", True)
