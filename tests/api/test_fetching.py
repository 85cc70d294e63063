"""Images that requests name by URL come from allowed hosts with public addresses, and from nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from server.api import fetching
from server.api.fetching import MOST_BYTES, fetch, fetch_shown
from server.chat.media import Shown
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://images.example/cat.png?size=2"
HOSTS = ("images.example",)
PUBLIC = "93.184.216.34"


async def got(handler: Callable[[httpx.Request], httpx.Response], *addresses: str, url: str = URL) -> bytes:
    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("images.example", 443 if url.startswith("https") else 80)
        return list(addresses) or [PUBLIC]

    return await fetch(url, HOSTS, resolve=resolve, transport=httpx.MockTransport(handler))


def never(request: httpx.Request) -> httpx.Response:
    pytest.fail(f"{request.url} was asked")


async def test_the_address_that_was_checked_is_the_one_asked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.url.host, request.url.path, request.url.query) == (PUBLIC, "/cat.png", b"size=2")
        assert request.headers["host"] == "images.example"
        assert request.extensions["sni_hostname"] == "images.example"
        return httpx.Response(200, content=b"a picture")

    assert await got(answer) == b"a picture"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.8", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fd00::1"]
)
async def test_private_addresses_are_not_asked(address: str) -> None:
    for addresses in ([address], [PUBLIC, address]):
        with pytest.raises(RequestError, match=r"images\.example has an address that is not public; send"):
            await got(never, *addresses)


@pytest.mark.parametrize("url", ["https://other.example/cat.png", "ftp://images.example/cat.png", "https:///cat.png"])
async def test_other_hosts_are_not_asked(url: str) -> None:
    with pytest.raises(RequestError, match="only from hosts that BRIM_MEDIA_HOSTS names"):
        await got(never, url=url)


async def test_another_place_is_not_followed_to() -> None:
    with pytest.raises(RequestError, match="answered with status 302"):
        await got(lambda _: httpx.Response(302, headers={"location": "http://127.0.0.1/"}))


async def test_there_is_a_largest_image() -> None:
    with pytest.raises(RequestError, match="gives more than 20 MiB"):
        await got(lambda _: httpx.Response(200, content=bytes(MOST_BYTES + 1)))


async def test_a_host_that_does_not_answer_is_named() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(RequestError, match=r"images\.example did not give the image"):
        await got(fail)


async def test_a_name_that_takes_too_long_to_resolve_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return [PUBLIC]

    monkeypatch.setattr(fetching, "SECONDS", 0.01)
    async with asyncio.timeout(60):
        with pytest.raises(RequestError, match=r"images\.example did not give the image"):
            await fetch(URL, HOSTS, resolve=resolve, transport=httpx.MockTransport(never))


async def test_what_was_fetched_is_not_fetched_again() -> None:
    shown = Shown()
    marks = shown.add("image", URL) + shown.add("image", b"own")
    await fetch_shown(shown, (), {URL: b"a picture"})
    assert [medium.data for medium in shown.place(marks, [])[1]] == [b"a picture", b"own"]


async def test_there_is_a_bound_for_all_images_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ten_bytes(url: str, hosts: object) -> bytes:
        return b"0123456789"

    monkeypatch.setattr(fetching, "fetch", ten_bytes)
    monkeypatch.setattr(fetching, "MOST_TOGETHER", 25)
    shown = Shown()
    for number in range(2):
        shown.add("image", f"{URL}{number}")
    await fetch_shown(shown, HOSTS, {})
    shown.add("image", f"{URL}2")
    with pytest.raises(RequestError, match="by URL have more than 0 MiB together; send fewer"):
        await fetch_shown(shown, HOSTS, {f"{URL}0": b"0123456789", f"{URL}1": b"0123456789"})
