"""Every refusal is one sentence in OpenAI's error object, with the field at fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx

    from server.api.limits import Traffic

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["message"]
    return content["error"]


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"messages": 5}, "messages", "list"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": ["x"]}, "messages[0]", "dictionary"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing"),
        ({"messages": [*MESSAGES, {"role": "user", "content": 5}]}, "messages[1].content", "string, or it should be"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "needs content"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "'assistant'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url.url",
            "base64 text or a data URL",
        ),
        ({"model": 5}, "model", "string"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": 0}, "max_tokens", "at least 1, or -1"),
        ({"max_completion_tokens": True}, "max_completion_tokens", "integer"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stop": ["1", "2", "3", "4", "5"]}, "stop", "at most 4"),
        ({"stop": [""]}, "stop[0]", "at least 1 character"),
        ({"stop": 5}, "stop", "list"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include": True}}, "stream_options.include", "not a known field"),
        ({"logit_bias": {"the": 1}}, "logit_bias", "'the' is not one"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
        ({"logit_bias": {"1" * 5000: 1}}, "logit_bias", "is not one"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "less than or equal to 20"),
        ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
        ({"frobnicate": 1}, "frobnicate", "not a known field"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type", "'function'"),
        ({"tool_choice": "sometimes"}, "tool_choice", "'required'"),
        ({"response_format": {"type": "yaml"}}, "response_format", "'json_schema'"),
        ({"top_k": 2**31}, "top_k", "less than or equal to 2147483647"),
        ({"max_tokens": 10**12}, "max_tokens", "less than or equal to 2147483647"),
        ({"modalities": ["audio"]}, "modalities[0]", "'text'"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "'high'"),
        ({"functions": [{"name": ""}]}, "functions[0].name", "at least 1 character"),
        ({"function_call": "required"}, "function_call", "'auto'"),
        ({"web_search_options": {}}, "web_search_options", "nothing here searches the web"),
    ],
)
async def test_a_field_at_fault_is_named(
    client: httpx.AsyncClient, changed: dict[str, Any], param: str, words: str
) -> None:
    error = error_of(await client.post(CHAT, json={"messages": MESSAGES, **changed}), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert "\n" not in error["message"]


COMPLETION_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": 5}, "prompt", "list of token ids"),
    ({"prompt": []}, "prompt", "list of token ids"),
    ({"prompt": None}, "prompt", "list of token ids"),
    ({"prompt": [[]]}, "prompt[0]", ""),
    ({"prompt": [-1]}, "prompt[0]", "greater than or equal to 0"),
    ({"logprobs": True}, "logprobs", "integer"),
    ({"best_of": 0}, "best_of", "greater than or equal to 1"),
    ({"messages": []}, "messages", "not a known field"),
]


@pytest.mark.parametrize(("changed", "param", "words"), COMPLETION_FAULTS)
async def test_a_field_at_fault_is_named_in_completions_too(
    client: httpx.AsyncClient, changed: dict[str, Any], param: str, words: str
) -> None:
    error = error_of(await client.post(TEXT, json={"prompt": "x", **changed}), 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs needs logprobs"),
        (TEXT, {"prompt": "x", "n": 3, "best_of": 2}, "best_of must not be less than n"),
        (TEXT, {"prompt": "x", "best_of": 2, "stream": True}, "best_of cannot be streamed"),
        (TEXT, {"prompt": "x", "max_tokens": 0}, "only with echo"),
    ],
)
async def test_fields_that_do_not_fit_together_are_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], words: str
) -> None:
    assert words in error_of(await client.post(path, json=body), 400)["message"]


async def test_a_missing_field_is_named(client: httpx.AsyncClient) -> None:
    error = error_of(await client.post(CHAT, json={"model": "x"}), 400)
    assert (error["param"], error["code"]) == ("messages", "missing_required_parameter")


@pytest.mark.parametrize("body", ['{"messages": [', "{'a': 1}", "", "nonsense", '{"a": 1}}', b"\xff\xfe"])
async def test_malformed_json_is_a_400(client: httpx.AsyncClient, body: str | bytes) -> None:
    answer = await client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    error_of(answer, 400)


async def test_malformed_json_is_shown_where_it_breaks(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, content='{"n": x}', headers={"Content-Type": "application/json"})
    error = error_of(answer, 400)
    assert error["code"] == "invalid_json"
    assert "character 6" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": MESSAGES, "model": "\ud800"}),
        (CHAT, {"messages": MESSAGES, "guided_choice": ["\ud800"]}),
        (CHAT, {"messages": MESSAGES, "cache_salt": "\ud800"}),
        (TEXT, {"prompt": "x", "guided_json": {"const": "\ud800"}}),
        ("/v1/embeddings", {"input": "x", "model": "\ud800"}),
        ("/v1/rerank", {"query": "x", "documents": ["\ud800"]}),
        ("/completion", {"prompt": "x", "json_schema": {"const": "\ud800"}}),
        ("/tokenize", {"content": "\ud800"}),
        ("/detokenize", {"tokens": [1], "model": "\ud800"}),
        ("/embedding", {"content": "x", "model": "\ud800"}),
    ],
)
async def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert "surrogate" in error_of(answer, 400)["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient, number: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "x"}}], "temperature": {number}}}'
    answer = await client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert error_of(answer, 400)["param"] == "temperature"


@pytest.mark.parametrize("body", [[1], 5, "text", None])
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, body: Any) -> None:
    assert "JSON object" in error_of(await client.post(CHAT, json=body), 400)["message"]


async def test_a_body_that_is_not_declared_as_json_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, content='{"messages": []}', headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in error_of(answer, 400)["message"]


async def test_fields_without_meaning_here_pass(client: httpx.AsyncClient) -> None:
    passing = {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "tools": None}
    answer = await client.post(CHAT, json={"messages": MESSAGES, "model": "absent", **passing})
    assert error_of(answer, 404)["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["absent", "no/name", "../../etc/passwd", "/etc/passwd", "a b", "gpt-4:latest"])
@pytest.mark.parametrize(("path", "body"), [(CHAT, {"messages": MESSAGES}), (TEXT, {"prompt": "x"})])
async def test_an_unknown_model_is_a_404(client: httpx.AsyncClient, path: str, body: Any, name: str) -> None:
    error = error_of(await client.post(path, json={**body, "model": name}), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert name in error["message"]
    streamed = await client.post(path, json={**body, "model": name, "stream": True})
    assert error_of(streamed, 404) == error


async def test_where_nothing_is_loaded_a_model_must_be_named(client: httpx.AsyncClient) -> None:
    assert error_of(await client.post(CHAT, json={"messages": MESSAGES}), 400)["param"] == "model"


async def test_an_unknown_model_cannot_be_described(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get("/v1/models/absent"), 404)["code"] == "model_not_found"


async def test_an_unknown_route_is_a_404(client: httpx.AsyncClient) -> None:
    assert "/v1/nothing" in error_of(await client.get("/v1/nothing"), 404)["message"]


async def test_a_wrong_method_is_a_405(client: httpx.AsyncClient) -> None:
    answer = await client.get(CHAT)
    assert "GET" in error_of(answer, 405)["message"]
    assert answer.headers["allow"] == "POST"


async def test_a_large_body_is_refused_by_its_announced_length(make_client: Callable[..., httpx.AsyncClient]) -> None:
    answer = await make_client(max_body=1000).post(TEXT, json={"prompt": "x" * 1000})
    assert "1000 B" in error_of(answer, 413)["message"]


async def test_a_large_body_is_refused_while_it_is_read(make_client: Callable[..., httpx.AsyncClient]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    headers = {"Content-Type": "application/json"}
    error_of(await make_client(max_body=1000).post(TEXT, content=chunks(), headers=headers), 413)


async def test_while_draining_new_requests_get_503(client: httpx.AsyncClient, traffic: Traffic) -> None:
    traffic.drain()
    answer = await client.post(CHAT, json={"messages": MESSAGES})
    assert error_of(answer, 503)["code"] == "shutting_down"
    assert int(answer.headers["retry-after"]) > 0
    health = await client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "shutting down")


async def test_a_fault_of_our_own_is_a_500_without_its_insides(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.models.manager import ModelManager

    def broken(manager: ModelManager, *wanted: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(ModelManager, "using", broken)
    error = error_of(await client.post(CHAT, json={"messages": MESSAGES}), 500)
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]
