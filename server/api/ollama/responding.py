"""Responds with an answer whole or as it comes, whichever was asked for."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from server.api.ollama.lines import stream_lines
from server.api.streaming import while_connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from fastapi import Request

    from server.api.ollama.output import Answering

    Begin = Callable[[], Awaitable[Answering]]
    """Loads the model and puts the request to it."""


async def respond(request: Request, begin: Begin, *, stream: bool) -> Response:
    """Answer a request: a stream of lines, or one object. Raises RequestError as `begin` and the engine do."""
    if stream:
        return await stream_lines(request, _lines(begin))
    return Response(await while_connected(request, _whole(begin)), media_type="application/json")


async def _whole(begin: Begin) -> bytes:
    return await (await begin()).whole()


async def _lines(begin: Begin) -> AsyncGenerator[bytes]:
    async with aclosing((await begin()).lines()) as lines:
        async for line in lines:
            yield line
