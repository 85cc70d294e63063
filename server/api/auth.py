"""Who may call: API keys, and the checks of Host and Origin that keep web pages of others out of a local server.

A page from elsewhere can reach a server on 127.0.0.1 through its reader's browser, either openly (its Origin tells) or
after its own name was made to point at 127.0.0.1 (DNS rebinding: the Host header tells).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from server.api.errors import error_response
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json", "/favicon.ico"})
"""What anyone may see: nothing here tells of models, prompts or use."""

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
LOCAL_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


class KeyRing:
    """The API keys, kept as hashes."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def partition(self, key: str | None) -> str | None:
        """The cache partition of a key, or None if the key is not one of ours. Any wrong key takes equally long."""
        given = _hash(key or "")
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return hashlib.sha256(b"partition" + given).hexdigest()[:32] if any(matches) else None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Guard:
    """ASGI middleware that lets a request in, noting its cache partition in `state.partition`, or answers 401 or 403.

    Args:
        app: what is guarded.
        keys: accepted keys; none lets everyone in whose Host and Origin are in order.
        hosts: names under which the server may be addressed, beside IP addresses, localhost and this machine's name.
        origins: origins of web pages that may call it, beside local ones.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app = app
        self._keys = keys
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_origin(headers)
            partition = self._admit(scope["path"], headers)
        except RequestError as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["partition"] = partition
        await self._app(scope, receive, send)

    def _admit(self, path: str, headers: Headers) -> str:
        if not self._keys:
            self._check_host(headers)
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
        partition = self._keys.partition(key)
        if partition is None and path not in OPEN_PATHS:
            what = "this API key is not known" if key else "an API key is needed: send Authorization: Bearer KEY"
            raise RequestError(what, status=401, code="invalid_api_key")
        return partition or ""

    def _check_host(self, headers: Headers) -> None:
        name = _host_name(headers.get("host", ""))
        if not (name in self._hosts or name.endswith(".localhost") or _is_address(name)):
            raise RequestError(
                f"the Host header names '{name}', which is not this server; allow it with BRIM_ALLOWED_HOSTS",
                status=403,
                code="host_not_allowed",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        site = origin.partition("://")[2]
        if not site or (site != headers.get("host") and _host_name(site) not in LOCAL_NAMES):
            raise RequestError(
                f"web pages of {origin} may not call this server; allow them with BRIM_ALLOWED_ORIGINS",
                status=403,
                code="origin_not_allowed",
            )


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
