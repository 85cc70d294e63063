"""Who may call: API keys, and the checks of Host and Origin that keep web pages of others out of a local server.

A page from elsewhere can reach a server on 127.0.0.1 through its reader's browser, either openly (its Origin tells) or
after its own name was made to point at 127.0.0.1 (DNS rebinding: the Host header tells).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from server.api.errors import error_response
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from server.keys import KeyRing

OPEN_PATHS = frozenset({"/", "/health", "/v1/health", "/docs", "/openapi.json", "/favicon.ico"})
"""What anyone may see: nothing here tells a stranger of models, prompts or use."""

LOCAL_ORIGIN = r"https?://(localhost|[a-z0-9.-]+\.localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
"""Origins of pages that this machine serves to itself."""

_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{0,5})?")
"""RFC 3986's host and port, without what no client sends: user names and percent-encoding."""


class Guard:
    """ASGI middleware that lets a request in or answers 401 or 403.

    It leaves in the request's state `partition`, the caller's cache partition, and `admitted`, which is False for a
    caller without a key at a path that is open to all.

    Args:
        app: what is guarded.
        keys: accepted keys; none lets everyone in whose Host and Origin are in order.
        hosts: names under which the server may be addressed, beside IP addresses, localhost and this machine's name.
        origins: origins of web pages that may call it, beside local ones; `*` allows all.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app = app
        self._keys = keys
        self._hosts = {"localhost", *(_without_dot(host) for host in (socket.gethostname(), *hosts))}
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_origin(scope["path"], headers)
            partition = self._admit(scope["path"], headers)
        except RequestError as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {}).update(partition=partition or "", admitted=partition is not None)
        await self._app(scope, receive, send)

    def _admit(self, path: str, headers: Headers) -> str | None:
        if not self._keys:
            self._check_host(headers)
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
        partition = self._keys.partition(key)
        if partition is None and path not in OPEN_PATHS:
            what = "this API key is not known" if key else "an API key is needed: send Authorization: Bearer KEY"
            raise RequestError(what, status=401, code="invalid_api_key")
        return partition

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1:  # RFC 9112, section 3.2
            raise RequestError("a request needs exactly one Host header", code="invalid_host")
        name = _host_name(hosts[0])
        if not (name in self._hosts or name.endswith(".localhost") or _is_address(name)):
            raise RequestError(
                f"the Host header names '{hosts[0]}', which is not this server; allow it with BRIM_ALLOWED_HOSTS",
                status=403,
                code="host_not_allowed",
            )

    def _check_origin(self, path: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None:
            followed = headers.get("sec-fetch-mode") == "navigate" and path in OPEN_PATHS  # a link to a page
            if headers.get("sec-fetch-site") == "cross-site" and not followed:
                raise _not_allowed("another site")  # embedded there as an image, a script, a frame or the like
            return
        origin = origin.lower()
        own = headers.get("host", "").lower()
        if not (
            "*" in self._origins
            or origin in self._origins
            or re.fullmatch(LOCAL_ORIGIN, origin)
            or origin in (f"http://{own}", f"https://{own}")
        ):
            raise _not_allowed(origin)


def _not_allowed(origin: str) -> RequestError:
    return RequestError(
        f"web pages of {origin} may not call this server; allow them with BRIM_ALLOWED_ORIGINS",
        status=403,
        code="origin_not_allowed",
    )


def _host_name(host: str) -> str:
    """The name or address in a Host header, or "" if it is malformed."""
    match = _HOST.fullmatch(host.lower())
    return _without_dot(match["name"].strip("[]")) if match else ""


def _without_dot(name: str) -> str:
    """A name in lower case and without the dot that ends a fully qualified one."""
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
