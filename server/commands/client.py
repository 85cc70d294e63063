"""How the commands talk to a brim server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from server.errors import BrimError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from server.settings import Settings


def configured_url(settings: Settings) -> str:
    """Where the server of these settings is found from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"


def connect(settings: Settings, url: str | None = None) -> httpx.AsyncClient:
    """A client of the server at `url`, or at the configured address."""
    headers = {"Authorization": f"Bearer {settings.api_key[0]}"} if settings.api_key else {}
    return httpx.AsyncClient(
        base_url=url or configured_url(settings),
        headers=headers,
        timeout=None,
        trust_env=False,
        verify=_trust(settings.tls_cert) if settings.tls_cert else True,
    )


def _trust(certificate: Path) -> ssl.SSLContext:
    """Trust the server's own certificate, whatever name it is for and whoever signed it, and no other.

    Raises:
        BrimError: the file holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:  # which ssl.SSLError is one of
        raise BrimError(f"the TLS file {certificate} is not a sound certificate") from error
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None, timeout: float = 10) -> Any:
    """A request to the server, and its answer's JSON. Raises BrimError with the server's own words where it refuses."""
    try:
        answer = await client.request(method, path, json=body, timeout=timeout)
    except httpx.HTTPError as error:
        raise BrimError(f"no brim server answers at {client.base_url}; `brim serve` starts one") from error
    if not answer.is_success:
        raise BrimError(_reason(answer))
    return answer.json() if answer.content else None


async def serves(client: httpx.AsyncClient, model: str, within: float) -> bool:
    """Whether a brim server tells within so many seconds that it has the model."""
    try:
        answer = await client.get("/v1/models", timeout=within)
        return answer.is_success and model in {one["id"] for one in answer.json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError):
        return False


async def events(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The events of a streamed answer. Raises BrimError with the server's words where it fails."""
    try:
        async with client.stream("POST", path, json=body) as answer:
            if not answer.is_success:
                await answer.aread()
                raise BrimError(_reason(answer))
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event: dict[str, Any] = msgspec.json.decode(line.removeprefix("data: "))
                    if "error" in event:
                        raise BrimError(event["error"]["message"])
                    yield event
    except httpx.HTTPError as error:
        raise BrimError(f"the connection to {client.base_url} broke: {error}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered with status {answer.status_code}"
