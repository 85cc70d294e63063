"""One client's connection: uvicorn's HTTP/1.1 protocol, with bounds on what a client may make the server hold.

uvicorn itself waits for ever for a request that does not come whole and for a client that does not read its answer,
takes headers of any size, and knows no limit of connections that answers in JSON.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api.errors import error_body, retry_after
from server.api.request_log import HEADER
from server.errors import RequestError
from server.sizes import format_size

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

LARGEST_HEAD = 64 * 1024
"""Bytes of a request's first line and headers together, and of what may come behind its body."""
MOST_AHEAD = 8
"""Requests that a client may send before the first of them is answered; later ones are read when that is done. So is
what comes behind some that are large."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What clients may make the server hold.

    Attributes:
        timeout: seconds for a request to arrive, and for a client to go on reading.
        connections: how many may be open.
    """

    timeout: float
    connections: int


def bounded(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """A protocol class for uvicorn, with these limits."""
    return type("Connection", (_Connection,), {"limits": limits})


class _Connection(HttpToolsProtocol):
    """Runs two clocks: one while a request arrives, one while written bytes find no reader."""

    limits: ClassVar[ConnectionLimits]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._arrival: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0  # without those of bodies
        self._running: RequestResponseCycle | None = None
        self._fault = RequestError("this is not a valid HTTP request", code="invalid_http")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] -- as uvicorn has it
        """Begin, or turn the client away where too many are here."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(RequestError("too many connections are open", status=503, code="overloaded", retry_after=5))
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, and let the request know that is being answered; uvicorn tells the latest one."""
        self._stop_arrival()
        self._stop_unread()
        if self._running and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    # A request arrives

    def data_received(self, data: bytes) -> None:
        """Read on, but no more of a head, or of what follows a body, than is allowed, though it is not yet whole."""
        if self.transport.is_closing():
            return
        self._await_request()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes <= LARGEST_HEAD or self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(_head_too_large())
        else:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but not one that comes behind the body: nothing here reads it."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Weigh the head, which may have come in one piece with its body."""
        self._in_head, self._head_bytes = False, 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            self._fault = _head_too_large()
            raise ValueError(self._fault.message)  # ends the parser, and so calls send_400_response
        super().on_headers_complete()
        ahead = [len(cycle.body) for cycle, _ in self.pipeline]
        if 0 < len(ahead) <= MOST_AHEAD and sum(ahead) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # or nobody would notice that the client leaves

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_begin(self) -> None:
        """Start the clock for a request that came right behind another."""
        self._await_request()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The request is whole: stop its clock."""
        super().on_message_complete()
        self._stop_arrival()
        self._in_head, self._head_bytes = True, 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take."""
        self._refuse(self._fault)

    def _await_request(self) -> None:
        self._arrival = self._arrival or self.loop.call_later(self.limits.timeout, self._late)

    def _late(self) -> None:
        self._arrival = None
        if self.cycle and not self.cycle.response_complete:
            self._await_request()  # its endpoint limits how long it waits for the body; look again after the answer
        elif self._in_head:
            self._refuse(RequestError("the request did not arrive in time", status=408, code="request_timeout"))
        else:
            self.transport.abort()  # was answered early, and still sends its body

    def _stop_arrival(self) -> None:
        if self._arrival:
            self._arrival.cancel()
            self._arrival = None

    def _refuse(self, error: RequestError) -> None:
        """Answer without the application, which has not seen this request, and hang up."""
        self._stop_arrival()
        body = error_body(error, getattr(self, "url", b"").decode("latin-1"))
        status = HTTPStatus(error.status)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += "".join(f"{name.lower()}: {value}\r\n" for name, value in retry_after(error).items())
        head += f"content-length: {len(body)}\r\n{HEADER}: {uuid.uuid4().hex}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self._close()

    # An answer leaves

    def pause_writing(self) -> None:
        """The client does not keep up: from now on, it has so long to go on reading."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop_unread()
        super().resume_writing()
        if self.transport.is_closing():
            self._await_reader()

    def on_response_complete(self) -> None:
        """A connection that ends here has its last bytes to deliver in time, too."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Hang up on a client that asks no more."""
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._await_reader()

    def _await_reader(self) -> None:
        self._unread = self._unread or self.loop.call_later(self.limits.timeout, self.transport.abort)

    def _stop_unread(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None


def _head_too_large() -> RequestError:
    message = f"the request's first line and headers are larger than {format_size(LARGEST_HEAD)}"
    return RequestError(message, status=431, code="headers_too_large")
