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

from server.engine.messages import decode_from_worker, decode_to_worker, encode

if TYPE_CHECKING:
    from server.engine.messages import FromWorker, ToWorker

MOST_UNSENT = 256 << 20
"""Bytes that may wait for a worker that does not read."""
_LENGTH = struct.Struct("<I")
_KERNEL_BUFFER = 1 << 20
"""Bytes that a worker may be ahead of the server's event loop before it has to wait."""


class WorkerGoneError(Exception):
    """The worker has ended, and all that it had to say has been read."""


class ChannelFullError(Exception):
    """The worker does not read what it is sent."""


class ServerEnd:
    """The server's end, for one event loop.

    Each direction has a pair of its own: where the worker no longer takes requests, what it said can still be read.

    Attributes:
        worker_sockets: for requests and results, to be inherited by the worker and closed here once it runs.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        worker_sockets: tuple[socket.socket, socket.socket],
    ) -> None:
        self._reader = reader
        self._writers = writers
        self.worker_sockets = worker_sockets

    @classmethod
    async def open(cls) -> Self:
        """Make both ends."""
        own_requests, requests = socket.socketpair()
        own_results, results = socket.socketpair()
        for end in (own_requests, results):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        _, writer = await asyncio.open_unix_connection(sock=own_requests)
        reader, other = await asyncio.open_unix_connection(sock=own_results)
        return cls(reader, (writer, other), (requests, results))

    def send(self, message: ToWorker) -> None:
        """Send a message, in the background where the worker is busy.

        Raises:
            WorkerGoneError: nobody will read it.
            ChannelFullError: too much waits already.
            UnicodeEncodeError, OverflowError: the message cannot be put into MessagePack.
        """
        data = encode(message)
        writer = self._writers[0]
        if writer.is_closing():
            raise WorkerGoneError
        if writer.transport.get_write_buffer_size() > MOST_UNSENT:
            raise ChannelFullError
        writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> FromWorker:
        """The worker's next message; to be awaited to its end. Raises WorkerGoneError after the last."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return decode_from_worker(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerGoneError from error

    def close_worker_sockets(self) -> None:
        """Close the worker's sockets here, so that they close with the worker."""
        for end in self.worker_sockets:
            end.close()

    def close(self) -> None:
        """Close both ends."""
        self.close_worker_sockets()
        for writer in self._writers:
            writer.close()


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
