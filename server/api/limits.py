"""Bounds a request's body while it is read, and turns requests away while the server is shutting down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from server.api.errors import error_response
from server.errors import RequestError
from server.sizes import format_size

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

STILL_ANSWERED = frozenset({"/health", "/metrics"})


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `limit` bytes, announced or not, without keeping it."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._message = f"the body is larger than {format_size(limit)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, counting its body's bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit:
            error = RequestError(self._message, status=413, code="request_too_large")
            await error_response(error, scope["path"], {"Connection": "close"})(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, self._message, {"Connection": "close"})
            return message

        await self._app(scope, counted, send)


@dataclass
class Traffic:
    """Requests being answered, and whether new ones are still taken."""

    open: int = 0
    draining: bool = False


class Gate:
    """ASGI middleware that counts the requests being answered, and answers 503 to new ones while draining."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or turn it away."""
        if scope["type"] != "http" or scope["path"] in STILL_ANSWERED:
            await self._app(scope, receive, send)
        elif self._traffic.draining:
            error = RequestError("the server is shutting down", status=503, code="shutting_down", retry_after=5)
            await error_response(error, scope["path"], {"Connection": "close"})(scope, receive, send)
        else:
            self._traffic.open += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._traffic.open -= 1
