"""Answering for as long as somebody listens: a response that streams, and work that ends with its client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import Response

from server.api.errors import openai_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence
    from typing import Any

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from server.errors import RequestError

T = TypeVar("T")

DONE_EVENT = b"data: [DONE]\n\n"

SERVER_SENT_EVENTS = "text/event-stream; charset=utf-8"

_PARTS = "brim.send_parts"
"""Where a request's scope has what the parts of a stream are sent with."""

_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise hold events back
]


class ClientGoneError(Exception):
    """The client hung up before its answer was ready; nobody is left to be told."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, cancelling it as soon as the client disconnects. The request's body must have been read before.

    Raises:
        ClientGoneError: the client disconnected first.
    """
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        await _cancel(working, listening)


class PartsGoStraight:
    """ASGI middleware, the outermost: lets the parts of a stream pass by all the others.

    Those look at how a response starts, and at nothing of what follows; but for each part, so for each token, all of
    them would be called.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        scope[_PARTS] = send
        await self._app(scope, receive, send)


class EventStream(Response):
    """Sends events as they come and closes their generator at once when the client disconnects or the response ends."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes], media_type: str) -> None:
        super().__init__(media_type=media_type)
        self.media_type: str = media_type
        self._first = first
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client stays for."""
        sending = asyncio.ensure_future(self._send_all(send, scope[_PARTS]))
        listening = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            await _cancel(sending, listening)
            await self._events.aclose()

    async def _send_all(self, send: Send, send_part: Send) -> None:
        headers = [(b"content-type", self.media_type.encode()), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send_part({"type": "http.response.body", "body": self._first, "more_body": True})
        async for event in self._events:
            await send_part({"type": "http.response.body", "body": event, "more_body": True})
        await send_part({"type": "http.response.body", "body": b"", "more_body": False})


async def stream_events(
    request: Request, events: AsyncGenerator[bytes], media_type: str = SERVER_SENT_EVENTS
) -> Response:
    """Answer with a stream of events. What goes wrong before the first one is raised, to get a status of its own."""
    try:
        first = await while_connected(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events, media_type)


def error_event(error: RequestError) -> bytes:
    """The event that tells of a failure after one of OpenAI's streams began; nothing follows it."""
    return b"data: " + openai_error(error) + b"\n\n"


async def merge(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """Run generators side by side and yield what each gives together with its index. All end when this one is closed.

    Raises:
        Exception: the first that any of them raises.
    """
    if len(streams) == 1:  # nothing to merge: each item would cost a task's turn
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    ready: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(maxsize=1)

    async def pump(index: int, stream: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    await ready.put((index, item))
            await ready.put(None)
        except Exception as error:
            await ready.put(error)

    tasks = [asyncio.ensure_future(pump(index, stream)) for index, stream in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            item = await ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        await _cancel(*tasks)


async def gather(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all side by side. When one fails or the wait is cancelled, the others are cancelled first."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(*tasks)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
