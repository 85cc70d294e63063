"""Ollama's streams: a JSON object a line, the last of which tells of a failure if there is one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from server.api.ollama.errors import ollama_error
from server.api.streaming import stream_events
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import Request
    from starlette.responses import Response

    from server.models.create import Progress

MEDIA_TYPE = "application/x-ndjson"


class Abandoned(Exception):  # noqa: N818 -- not an error: nobody waits for the work any more
    """Ends work whose client has gone."""


def line(content: Any) -> bytes:
    """One object of a stream."""
    return msgspec.json.encode(content) + b"\n"


async def stream_lines(request: Request, lines: AsyncGenerator[bytes]) -> Response:
    """Answer with a stream of lines. What goes wrong before the first one is raised, to get a status of its own."""
    return await stream_events(request, _telling_of_failure(lines), MEDIA_TYPE)


async def _telling_of_failure(lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    begun = False
    async with aclosing(lines):
        try:
            async for one in lines:
                begun = True
                yield one
        except RequestError as error:
            if not begun:
                raise
            yield ollama_error(error) + b"\n"


async def finish(lines: AsyncGenerator[bytes]) -> None:
    """Have work done whose stream nobody reads."""
    async with aclosing(lines):
        async for _ in lines:
            pass


async def progress(work: Callable[[Progress], object], **facts: str) -> AsyncGenerator[bytes]:
    """Run long work in a thread, and tell how it comes along; closing the generator ends the work at its next report.

    Args:
        work: called with what to report to.
        facts: further fields of each line.

    Raises:
        BrimError: whatever `work` raises.
    """
    loop = asyncio.get_running_loop()
    latest: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=1)
    abandoned = threading.Event()

    def tell(news: dict[str, Any] | None) -> None:
        if latest.full():
            latest.get_nowait()  # a slow reader misses what has passed
        latest.put_nowait(news)

    def report(stage: str, done: int, total: int) -> None:
        if abandoned.is_set():
            raise Abandoned
        loop.call_soon_threadsafe(tell, {"status": stage, **facts, "completed": done, "total": total})

    def over(working: asyncio.Task[object]) -> None:
        if not working.cancelled():
            working.exception()  # seen, also where nobody waits any more
        tell(None)

    working = asyncio.create_task(asyncio.to_thread(work, report))
    working.add_done_callback(over)
    try:
        while (told := await latest.get()) is not None:
            yield line(told)
        await working
        yield line({"status": "success"})
    finally:
        abandoned.set()
