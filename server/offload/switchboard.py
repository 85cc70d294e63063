"""Lets several clients use one machine's devices at a time.

llama.cpp's RPC server serves one client after another: while a model is loaded over it, nobody else gets an answer. So
each client is put through to a server of its own, all of them in this process and on the same devices. A server whose
client has gone waits for the next.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 1 << 18
"""Bytes passed on at a time, at most."""
START_WITHIN = 60.0
"""Seconds that a new server may take to open its devices."""


class Switchboard:
    """Puts clients through to servers.

    Args:
        serve: serves RPC clients one after another at HOST:PORT; returns only where it cannot.
    """

    def __init__(self, serve: Callable[[str], None]) -> None:
        self._serve = serve
        self._idle: list[int] = []

    def run(self, host: str, port: int) -> None:
        """Take calls until the process is ended. Raises OSError where the address cannot be listened on."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as listener:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._put_through, args=(client,), daemon=True).start()

    def _put_through(self, client: socket.socket) -> None:
        with client:
            try:
                port = self._idle.pop()
            except IndexError:
                port = self._start_server()
            with contextlib.suppress(OSError), _connect(port) as server:
                answers = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                answers.start()
                _pass_on(client, server)
                answers.join()
            self._idle.append(port)

    def _start_server(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        threading.Thread(target=self._serve, args=(f"127.0.0.1:{port}",), daemon=True).start()
        return port


def _connect(port: int) -> socket.socket:
    """A connection to a server that may only just be starting. Raises OSError where it does not."""
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until one side closes, then close the other side's way too."""
    for one in (source, sink):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    piece = memoryview(bytearray(PIECE))
    with contextlib.suppress(OSError):
        while count := source.recv_into(piece):
            sink.sendall(piece[:count])
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
