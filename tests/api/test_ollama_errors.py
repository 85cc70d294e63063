"""Whatever goes wrong under /api/ leaves as Ollama's error object, with the status that its clients expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from server.api.limits import Traffic


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert list(content) == ["error"]
    assert isinstance(content["error"], str)
    return content["error"]


async def test_an_unknown_route_is_a_404(client: httpx.AsyncClient) -> None:
    assert "/api/nothing" in error_of(await client.get("/api/nothing"), 404)


async def test_an_unknown_route_elsewhere_keeps_openai_s_form(client: httpx.AsyncClient) -> None:
    assert "message" in (await client.get("/v1/nothing")).json()["error"]
    assert "message" in (await client.get("/apiary")).json()["error"]


async def test_a_missing_key_is_a_401(make_client: Callable[..., httpx.AsyncClient]) -> None:
    answer = await make_client(api_key=("secret",)).get("/api/nothing")
    assert "API key" in error_of(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_foreign_page_is_a_403(client: httpx.AsyncClient) -> None:
    assert "evil.example" in error_of(await client.get("/api/nothing", headers={"Origin": "http://evil.example"}), 403)


async def test_a_large_body_is_a_413(make_client: Callable[..., httpx.AsyncClient]) -> None:
    assert "1000 B" in error_of(await make_client(max_body=1000).post("/api/nothing", json={"prompt": "x" * 1000}), 413)


async def test_while_draining_new_requests_get_503(client: httpx.AsyncClient, traffic: Traffic) -> None:
    traffic.drain()
    answer = await client.get("/api/nothing")
    assert "shutting down" in error_of(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
