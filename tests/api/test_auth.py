from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from server.api.limits import Traffic
from server.app import create_app
from server.keys import KeyRing
from server.models.manager import ModelManager
from server.models.resolve import ModelSource
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeClient = Callable[..., httpx.AsyncClient]

KEYS = ("first-key", "second-key")


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer first-key"}, {"Authorization": "bearer second-key"}, {"x-api-key": "second-key"}],
)
async def test_a_known_key_lets_in(make_client: MakeClient, headers: dict[str, str]) -> None:
    assert (await make_client(api_key=KEYS).get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic first-key"}],
)
async def test_no_key_or_a_wrong_one_is_a_401(make_client: MakeClient, headers: dict[str, str]) -> None:
    answer = await make_client(api_key=KEYS).get("/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/openapi.json"])
async def test_some_paths_are_open_to_all(make_client: MakeClient, path: str) -> None:
    assert (await make_client(api_key=KEYS).get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/admin/models", "/v1/models", "/anything"])
async def test_all_else_needs_the_key(make_client: MakeClient, path: str) -> None:
    assert (await make_client(api_key=KEYS).get(path)).status_code == 401


def test_each_key_has_a_partition_of_its_own_that_does_not_tell_the_key() -> None:
    ring = KeyRing(KEYS)
    partitions = {ring.partition(key) for key in KEYS}
    assert len(partitions) == 2
    assert None not in partitions
    assert ring.partition("other") is None
    assert ring.partition(None) is None
    assert not any(key in str(partition) for key in KEYS for partition in partitions)
    assert KeyRing(KEYS[:1]).partition(KEYS[0]) == ring.partition(KEYS[0])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "127.0.0.1:99",
        "[::1]:8080",
        "192.168.0.5",
        "app.localhost",
        "LOCALHOST",
        "localhost.",
        "LocalHost.:8080",
        "[::FFFF:127.0.0.1]:80",
        "127.0.0.1:",
    ],
)
async def test_own_names_and_addresses_are_hosts(make_client: MakeClient, host: str) -> None:
    assert (await make_client().get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "localhost..",
        "evil@localhost",
        "evil.example/localhost",
        "localhost:8080:80",
        "local%68ost",
        "localhost,evil.example",
        ".",
    ],
)
async def test_other_names_are_not(make_client: MakeClient, host: str) -> None:
    answer = await make_client().get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


async def test_a_further_name_can_be_allowed_and_a_key_makes_names_unimportant(make_client: MakeClient) -> None:
    headers = {"Host": "brim.example", "Authorization": "Bearer first-key"}
    assert (await make_client(allowed_hosts=("Brim.example",)).get("/v1/models", headers=headers)).status_code == 200
    assert (await make_client(api_key=KEYS).get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "https://chat.example",
        "http://[::1]:5173",
        "https://app.localhost",
    ],
)
async def test_local_and_allowed_pages_may_call(make_client: MakeClient, origin: str) -> None:
    client = make_client(allowed_origins=("https://chat.example",))
    answer = await client.get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert (await client.options("/v1/chat/completions", headers=preflight)).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://[::1",
        "",
        "http://evil@localhost",
        "ftp://localhost",
        "http://localhost:3000.evil.example",
        "http://192.168.0.7",
        "localhost",
        "https://chat.example.evil.example",
    ],
)
async def test_other_pages_may_not_call(make_client: MakeClient, origin: str) -> None:
    answer = await make_client().get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert (await make_client().options("/v1/chat/completions", headers=preflight)).status_code == 400


async def test_a_request_needs_exactly_one_host(client: httpx.AsyncClient) -> None:
    twice = [("Host", "localhost"), ("Host", "evil.example")]
    assert (await client.get("/v1/models", headers=twice)).json()["error"]["code"] == "invalid_host"


async def test_a_page_of_the_server_itself_may_call_under_any_allowed_name(make_client: MakeClient) -> None:
    client = make_client(allowed_hosts=("brim.example",))
    headers = {"Host": "brim.example:8080", "Origin": "http://brim.example:8080"}
    assert (await client.get("/v1/models", headers=headers)).status_code == 200
    rebound = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}
    assert (await client.get("/v1/models", headers=rebound)).status_code == 403


async def test_all_origins_can_be_allowed(make_client: MakeClient) -> None:
    client = make_client(allowed_origins=("*",))
    answer = await client.get("/v1/models", headers={"Origin": "https://any.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


async def test_what_other_sites_embed_without_telling_their_origin_is_refused(client: httpx.AsyncClient) -> None:
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (await client.get("/v1/models", headers=embedded)).status_code == 403


async def test_links_on_other_sites_lead_to_what_anyone_may_see_and_no_further(client: httpx.AsyncClient) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for path in ("/", "/docs", "/health"):
        assert (await client.get(path, headers=followed)).status_code == 200
    for path in ("/v1/models", "/api/tags", "/props", "/metrics"):
        assert (await client.get(path, headers=followed)).status_code == 403
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert (await client.get("/v1/models", headers=typed)).status_code == 200


async def test_a_preflight_of_an_allowed_page_on_the_network_is_answered_in_full(make_client: MakeClient) -> None:
    preflight = {
        "Origin": "https://chat.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    client = make_client(allowed_origins=("https://chat.example",), api_key=KEYS)
    answer = await client.options("/v1/chat/completions", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_a_key_in_the_query_does_not_count(make_client: MakeClient) -> None:
    client = make_client(api_key=KEYS)
    for name in ("key", "api_key", "api-key", "token", "access_token"):
        assert (await client.get("/v1/models", params={name: "first-key"})).status_code == 401


async def test_health_names_models_only_to_those_who_may_know(tmp_path: Path) -> None:
    settings = Settings(cache_ram=0, api_key=KEYS)
    manager = ModelManager(settings, Store(tmp_path / "models"))
    manager.want(ModelSource(name="secret", path=tmp_path / "absent.gguf", digest="0" * 64))
    transport = httpx.ASGITransport(create_app(settings, manager, Traffic()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        stranger = await client.get("/health")
        friend = await client.get("/health", headers={"x-api-key": "first-key"})
    assert stranger.status_code == friend.status_code == 503
    assert "secret" not in stranger.text
    assert "secret" in friend.text
    await manager.stop()
