from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.api.auth import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

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
    "host", ["localhost", "localhost:8080", "127.0.0.1:99", "[::1]:8080", "192.168.0.5", "app.localhost", "LOCALHOST"]
)
async def test_own_names_and_addresses_are_hosts(make_client: MakeClient, host: str) -> None:
    assert (await make_client().get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"])
async def test_other_names_are_not(make_client: MakeClient, host: str) -> None:
    answer = await make_client().get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


async def test_a_further_name_can_be_allowed_and_a_key_makes_names_unimportant(make_client: MakeClient) -> None:
    headers = {"Host": "brim.example", "Authorization": "Bearer first-key"}
    assert (await make_client(allowed_hosts=("Brim.example",)).get("/v1/models", headers=headers)).status_code == 200
    assert (await make_client(api_key=KEYS).get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8080", "https://chat.example"])
async def test_local_and_allowed_pages_may_call(make_client: MakeClient, origin: str) -> None:
    client = make_client(allowed_origins=("https://chat.example",))
    answer = await client.get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert (await client.options("/v1/chat/completions", headers=preflight)).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[::1"])
async def test_other_pages_may_not_call(make_client: MakeClient, origin: str) -> None:
    answer = await make_client().get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert (await make_client().options("/v1/chat/completions", headers=preflight)).status_code == 400
