"""A request's id, in and out, and its line in the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from server.logs import request_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

HEADER = "x-request-id"
_SANE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestLog:
    """ASGI middleware that gives each request an id, sends it back, and notes the request in the log while debugging.

    The id is the client's own `x-request-id` if that is visible ASCII of at most 128 characters, else a new one. What
    is noted is method, path, status and time: neither query nor headers, which may hold what is not for a log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        number = given if _SANE.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def marking(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = number
                headers.setdefault("x-content-type-options", "nosniff")
            await send(message)

        token = request_id.set(number)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, marking)
        finally:
            took = (time.perf_counter() - started) * 1000
            logger.debug("%s %s %s in %.0f ms", scope["method"], scope["path"], status or "unanswered", took)
            request_id.reset(token)
