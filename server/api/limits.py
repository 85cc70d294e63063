"""Bounds what a request may bring and how long it may take to, and turns requests away while the server shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from server.api.errors import error_response
from server.errors import RequestError
from server.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

STILL_ANSWERED = frozenset({"/health", "/metrics"})
UPLOADS = "/api/blobs/"
"""Where bodies are files: they are written as they come, and bounded there."""
DEEPEST_NESTING = 100
"""How deep the arrays and objects of a JSON body, and so any JSON Schema in it, may lie in each other."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
"""A JSON string, or what is left of an unfinished one: it always matches at a quote, so one pass is enough."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ROUND = bytes.maketrans(b"[]{}", b"()()")


class ClientLeftError(Exception):
    """The client hung up before its request was complete."""


class BodyLimit:
    """ASGI middleware that reads a request's body before anything else sees it.

    A body that is larger, slower or deeper than allowed is answered 413, 408 or 400 without being kept; one for which
    there is no room now, 503.

    Args:
        app: what gets the whole body.
        limit: bytes that one body may have.
        budget: bytes that the bodies of all requests being answered may have together.
        timeout: seconds that a body may take to arrive.
        traffic: says when the server shuts down: what has not come by then is not waited for.
    """

    def __init__(self, app: ASGIApp, *, limit: int, budget: int, timeout: float, traffic: Traffic) -> None:
        self._app = app
        self._limit = limit
        self._free = max(limit, budget)
        self._timeout = timeout
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on with its body."""
        if scope["type"] != "http" or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        body, held = bytearray(), 0
        try:
            headers = Headers(scope=scope)
            self._check_length(headers.get("content-length", "0"))
            await self._read(receive, body)
            _check_nesting(body)
            whole, held = bytes(body), len(body)
            body.clear()  # what follows may take long, and needs the body once
            await self._app(scope, _replay(whole, receive), send)
        except _RefusedError as refused:
            await error_response(refused.error, scope["path"], {"Connection": "close"})(scope, receive, send)
        except ClientLeftError:
            pass  # nobody is left to be answered
        finally:
            self._free += held + len(body)

    def _check_length(self, announced: str) -> None:
        if announced.isdecimal() and int(announced) > self._limit:
            raise _RefusedError(self._too_large())

    async def _read(self, receive: Receive, body: bytearray) -> None:
        """Read a body to its end, taking room for it as it grows."""
        try:
            async with asyncio.timeout(self._timeout) as patience:
                with self._traffic.unread(patience):
                    while await self._read_on(receive, body):
                        pass
        except TimeoutError as error:
            fault = shutting_down() if self._traffic.draining else _too_slow(self._timeout)
            raise _RefusedError(fault) from error

    async def _read_on(self, receive: Receive, body: bytearray) -> bool:
        """Read the next part of a body. Returns whether there is more."""
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        if len(body) + len(chunk) > self._limit:
            raise _RefusedError(self._too_large())
        if len(chunk) > self._free:
            raise _RefusedError(_no_room())
        body += chunk
        self._free -= len(chunk)
        return bool(message.get("more_body", False))

    def _too_large(self) -> RequestError:
        message = f"the body is larger than {format_size(self._limit)}"
        return RequestError(message, status=413, code="request_too_large")


class _RefusedError(Exception):
    """A request that is answered before its body was read; its connection cannot be used again."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message)
        self.error = error


def _no_room() -> RequestError:
    message = "the server holds as many requests as it has memory for; try again shortly"
    return RequestError(message, status=503, code="overloaded", retry_after=2)


def shutting_down() -> RequestError:
    """What a request is answered that comes too late."""
    return RequestError("the server is shutting down", status=503, code="shutting_down", retry_after=5)


def _too_slow(seconds: float) -> RequestError:
    return RequestError(f"the body did not arrive within {seconds:g} seconds", status=408, code="request_timeout")


def _check_nesting(body: bytes | bytearray) -> None:
    if b"[" not in body and b"{" not in body:
        return
    if nesting_exceeds(body, DEEPEST_NESTING):
        raise _RefusedError(
            RequestError(f"the body is nested more than {DEEPEST_NESTING} levels deep", code="nested_too_deep")
        )


def nesting_exceeds(text: bytes | bytearray, most: int) -> bool:
    """Whether arrays and objects lie more than `most` levels deep in a JSON text, in linear time for any input.

    Each pass takes the innermost pairs away, so a sound text of depth d is empty after d passes. Of an unsound one,
    brackets without a partner stay; it is too deep if more than `most` of them open.
    """
    brackets = _STRING.sub(b"", text).translate(_ROUND, _NOT_BRACKETS)
    for _ in range(most):
        fewer = brackets.replace(b"()", b"")
        if len(fewer) == len(brackets):
            return brackets.count(b"(") > most
        brackets = fewer
    return bool(brackets)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body first."""
    given = False

    async def replaying() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying


class Traffic:
    """Requests being answered, and whether new ones are still taken.

    Attributes:
        open: how many are being read or answered. draining: whether the server shuts down.
    """

    def __init__(self) -> None:
        self.open = 0
        self.draining = False
        self._unread: set[asyncio.Timeout] = set()

    def drain(self) -> None:
        """Take no new requests, and no longer wait for those that have not come whole."""
        self.draining = True
        for patience in self._unread:
            _end(patience)

    @contextlib.contextmanager
    def unread(self, patience: asyncio.Timeout) -> Generator[None]:
        """Have `drain` end the patience with a request for the time of the block."""
        if self.draining:
            _end(patience)
        self._unread.add(patience)
        try:
            yield
        finally:
            self._unread.discard(patience)


def _end(patience: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # it ends by itself just now
        patience.reschedule(asyncio.get_running_loop().time())


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
            await error_response(shutting_down(), scope["path"], {"Connection": "close"})(scope, receive, send)
        else:
            self._traffic.open += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._traffic.open -= 1
