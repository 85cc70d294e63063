"""What joins a server and a worker: a pair of Unix sockets that no other process can reach, and frames on them.

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

    Attributes:
        worker_socket: the other end, to be inherited by the worker and closed here once it runs.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, worker_socket: socket.socket
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.worker_socket = worker_socket

    @classmethod
    async def open(cls) -> Self:
        """Make both ends."""
        own, workers = socket.socketpair()
        for end in (own, workers):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        reader, writer = await asyncio.open_unix_connection(sock=own)
        return cls(reader, writer, workers)

    def send(self, message: ToWorker) -> None:
        """Send a message, in the background where the worker is busy.

        Raises:
            ChannelFullError: too much waits already.
            UnicodeEncodeError, OverflowError: the message cannot be put into MessagePack.
        """
        data = encode(message)
        if self._writer.transport.get_write_buffer_size() > MOST_UNSENT:
            raise ChannelFullError
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> FromWorker:
        """The worker's next message. Raises WorkerGoneError."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return decode_from_worker(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerGoneError from error

    def close(self) -> None:
        """Close both ends."""
        self.worker_socket.close()
        self._writer.close()


class WorkerEnd:
    """The worker's end. All of its threads may send; one receives.

    Args:
        descriptor: the number of the inherited socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._reader = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send a message; it is lost where the server is gone, as this process will be soon."""
        data = encode(message)
        with self._lock, contextlib.suppress(ConnectionError):
            self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> ToWorker:
        """Wait for the server's next message. Raises EOFError where the server is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return decode_to_worker(self._read(length))

    def _read(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise EOFError
        return data
