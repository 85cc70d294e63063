"""What joins a server and a worker: two pairs of Unix sockets that no other process can reach, and frames on them.

A frame is the length of a message and the message in MessagePack. Nothing but the two processes takes part in passing
one on: a message library's own threads, woken for each token, took up to a third of a small model's speed on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from server.engine.messages import Cancel, decode_from_worker, decode_to_worker, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engine.messages import FromWorker, ToWorker

MOST_UNSENT = 256 << 20
"""Bytes that may wait for a worker that does not read."""
_LENGTH = struct.Struct("<I")
_KERNEL_BUFFER = 1 << 20
"""Bytes that a worker may be ahead of the server's event loop before it has to wait."""


class WorkerGoneError(Exception):
    """The worker has ended and takes no messages."""


class ChannelFullError(Exception):
    """The worker does not read what it is sent."""


class ServerEnd:
    """The server's end, for one event loop.

    Each direction has a pair of its own: where the worker no longer takes requests, what it said can still be read.

    Attributes:
        worker_sockets: for requests and results, to be inherited by the worker and closed here once it runs.
        over: set once the worker has ended, and all that it had to say has been passed on.
    """

    def __init__(
        self,
        requests: asyncio.WriteTransport,
        results: asyncio.BaseTransport,
        over: asyncio.Event,
        worker_sockets: tuple[socket.socket, socket.socket],
    ) -> None:
        self._requests = requests
        self._results = results
        self.over = over
        self.worker_sockets = worker_sockets

    @classmethod
    async def open(cls, listener: Callable[[FromWorker], None]) -> Self:
        """Make both ends.

        Args:
            listener: called with each of the worker's messages as it comes. It does not wait, and raises nothing.
        """
        own_requests, requests = socket.socketpair()
        own_results, results = socket.socketpair()
        for end in (own_requests, results):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        loop = asyncio.get_running_loop()
        sending, _ = await loop.create_unix_connection(asyncio.Protocol, sock=own_requests)
        receiving, inbox = await loop.create_unix_connection(lambda: _Inbox(listener), sock=own_results)
        return cls(sending, receiving, inbox.over, (requests, results))

    def send(self, message: ToWorker) -> None:
        """Send a message, in the background where the worker is busy.

        Raises:
            WorkerGoneError: nobody will read it.
            ChannelFullError: too much waits already; a `Cancel`, which is small and makes room, is sent all the same.
            UnicodeEncodeError, OverflowError: the message cannot be put into MessagePack.
        """
        data = encode(message)
        if self._requests.is_closing():
            raise WorkerGoneError
        if self._requests.get_write_buffer_size() > MOST_UNSENT and not isinstance(message, Cancel):
            raise ChannelFullError
        self._requests.write(_LENGTH.pack(len(data)) + data)

    def close_worker_sockets(self) -> None:
        """Close the worker's sockets here, so that they close with the worker."""
        for end in self.worker_sockets:
            end.close()

    def close(self) -> None:
        """Close both ends."""
        self.close_worker_sockets()
        self._requests.close()
        self._results.close()


class _Inbox(asyncio.Protocol):
    """Cuts what comes into messages, and passes each on by a plain call: a task to wake would cost as much again."""

    def __init__(self, listener: Callable[[FromWorker], None]) -> None:
        self._listener = listener
        self._data = bytearray()
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._data += data
        at = 0
        while len(self._data) >= at + _LENGTH.size:
            begin = at + _LENGTH.size
            end = begin + _LENGTH.unpack_from(self._data, at)[0]
            if end > len(self._data):
                break
            self._listener(decode_from_worker(self._data[begin:end]))
            at = end
        del self._data[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


class WorkerEnd:
    """The worker's end. All of its threads may send; one receives.

    Args:
        requests, results: the numbers of the inherited sockets.
    """

    def __init__(self, requests: int, results: int) -> None:
        self._results = socket.socket(fileno=results)
        self._requests = socket.socket(fileno=requests)
        for end in (self._requests, self._results):
            end.set_inheritable(False)
        self._reader = self._requests.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send a message; it is lost where the server is gone, as this process will be soon."""
        data = encode(message)
        with self._lock, contextlib.suppress(ConnectionError):
            self._results.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> ToWorker:
        """Wait for the server's next message. Raises EOFError where the server is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return decode_to_worker(self._read(length))

    def _read(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise EOFError
        return data
