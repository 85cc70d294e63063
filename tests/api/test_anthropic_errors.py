"""Every error under /v1/messages leaves in Anthropic's form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from server.api.limits import Traffic

ASK: dict[str, Any] = {"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}


async def error(
    client: httpx.AsyncClient,
    status: int,
    path: str = "/v1/messages",
    body: dict[str, Any] = ASK,
    headers: dict[str, str] | None = None,
) -> tuple[str, str]:
    """The type and the message of the error that a request gives."""
    content = json.dumps(body)  # which spells halves of surrogate pairs as they are
    reply = await client.post(path, content=content, headers={"content-type": "application/json", **(headers or {})})
    assert reply.status_code == status
    found = reply.json()
    assert found.keys() == {"type", "error"}
    assert found["type"] == "error"
    assert found["error"].keys() == {"type", "message"}
    return found["error"]["type"], found["error"]["message"]


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        request = {name: value for name, value in ASK.items() if path == "/v1/messages" or name != "max_tokens"}
        assert await error(client, 404, path, request) == ("not_found_error", "there is no model 'demo'")


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    kind, message = await error(client, 404, "/v1/messages/batches")
    assert kind == "not_found_error"
    assert "there is nothing at /v1/messages/batches" in message


async def test_a_wrong_key_is_an_authentication_error(make_client: Callable[..., httpx.AsyncClient]) -> None:
    client = make_client(api_key=("right",))
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
        kind, _ = await error(client, 401, headers=headers)
        assert kind == "authentication_error"
    kind, _ = await error(client, 404, headers={"x-api-key": "right"})
    assert kind == "not_found_error"


async def test_a_large_body_is_too_large(make_client: Callable[..., httpx.AsyncClient]) -> None:
    kind, message = await error(make_client(max_body=100), 413, body={**ASK, "system": "x" * 200})
    assert kind == "request_too_large"
    assert "larger than" in message


async def test_a_server_that_shuts_down_is_overloaded(client: httpx.AsyncClient, traffic: Traffic) -> None:
    traffic.drain()
    assert (await error(client, 503))[0] == "overloaded_error"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "'colour' is not a known field of this request"),
    ({"max_tokens": None}, "'max_tokens': it should be a valid integer"),
    ({"messages": []}, "'messages': "),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "'messages[0].content[0].source.data': it should be base64"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "'messages[0].content[0].text' is missing"),
    ({"messages": [{"role": "user", "content": [{"type": "cat"}]}]}, "brim takes no content block of type 'cat'"),
    ({"messages": [{"role": "user", "content": [{}]}]}, "a content block needs a type; there are text, "),
    (
        {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "", "signature": ""}]}]},
        "'messages[0]': a message of role user cannot have a block of type thinking",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": ""}}]}]},
        "'messages[0].content[0].source': brim fetches no documents",
    ),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'tools[0]': brim has no tool web_search"),
    ({"tool_choice": {"type": "tool"}}, "'tool_choice': a tool_choice of type tool needs the tool's name"),
    ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "max_tokens must be greater than thinking.budget_tok"),
    (
        {"tools": [{"name": "a", "input_schema": {"description": "\ud800"}}]},
        "the body holds text that is not Unicode",
    ),
    ({"output_config": {"format": {"type": "json_schema"}}}, "'output_config.format.schema' is missing"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, change: dict[str, Any], message: str) -> None:
    kind, found = await error(client, 400, body={**ASK, **change})
    assert kind == "invalid_request_error"
    assert message in found
