"""Images that requests name by URL: fetched only from hosts that the user trusts, and never from private addresses.

The address that was checked is the one connected to, so a name that is resolved again cannot lead elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from server.chat.media import Shown

    Resolve = Callable[[str, int], Awaitable[list[str]]]

MOST_BYTES = 20 * 1024**2
MOST_TOGETHER = 64 * 1024**2
"""What all images of a conversation may have."""
SECONDS = 15.0


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises OSError where there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def fetch_shown(shown: Shown, hosts: Collection[str], fetched: dict[str, bytes]) -> None:
    """Fetch what a conversation shows by URL and `fetched` does not have yet. Raises RequestError as `fetch` does."""
    for number, url in shown.links:
        if url not in fetched:
            fetched[url] = await fetch(url, hosts)
            if sum(map(len, fetched.values())) > MOST_TOGETHER:
                raise RequestError(
                    f"the images that the conversation names by URL have more than {MOST_TOGETHER // 1024**2} MiB "
                    "together; send fewer or smaller ones",
                    param="messages",
                )
        shown.fill(number, fetched[url])


async def fetch(
    url: str,
    hosts: Collection[str],
    *,
    resolve: Resolve = _resolve,
    transport: httpx.AsyncBaseTransport | None = None,
) -> bytes:
    """The file at a URL.

    Args:
        hosts: names of the hosts that may be asked.
        resolve: gives a host's addresses.
        transport: what to send through instead of the network.

    Raises:
        RequestError: the host may not be asked, has a private address, or does not give the file.
    """
    try:
        link = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _fault(f"{url[:80]} is no URL") from error
    if link.scheme not in ("http", "https") or link.host not in hosts:
        raise _fault(
            f"brim fetches images only from hosts that BRIM_MEDIA_HOSTS names, and '{link.host}' is none of them"
        )
    try:
        async with asyncio.timeout(SECONDS):
            addresses = await resolve(link.host, link.port or (443 if link.scheme == "https" else 80))
            if not addresses or not all(ipaddress.ip_address(address).is_global for address in addresses):
                raise _fault(f"{link.host} has an address that is not public")
            async with (
                httpx.AsyncClient(transport=transport, trust_env=False) as client,
                client.stream(
                    "GET",
                    link.copy_with(host=addresses[0]),
                    headers={"Host": link.netloc.decode()},
                    extensions={"sni_hostname": link.host},
                ) as response,
            ):
                return await _read(response, link.host)
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        raise _fault(f"{link.host} did not give the image within {SECONDS:g} seconds") from error


async def _read(response: httpx.Response, host: str) -> bytes:
    if response.status_code != HTTPStatus.OK:
        raise _fault(f"{host} answered with status {response.status_code}")
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > MOST_BYTES:
            raise _fault(f"{host} gives more than {MOST_BYTES // 1024**2} MiB")
    return bytes(data)


def _fault(what: str) -> RequestError:
    return RequestError(f"{what}; send the image itself, as a data URL (data:...;base64,...)", param="messages")
