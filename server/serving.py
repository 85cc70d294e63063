"""Runs the application on uvicorn: opens the socket, loads the models, and ends in good order on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn

from server.api.limits import Traffic
from server.app import create_app
from server.connection import ConnectionLimits, bounded
from server.errors import BrimError
from server.models.manager import ModelManager

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence

    from server.models.resolve import ModelSource
    from server.models.store import Store
    from server.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than the pools of common clients keep theirs."""
LAST_WORDS = 1
"""Seconds that connections get to send what is left once their requests have failed or ended."""
POLL = 0.05


@dataclass(frozen=True)
class Serving:
    """A server that listens: where, with which models, and the task that ends when it does."""

    url: str
    manager: ModelManager
    traffic: Traffic
    task: asyncio.Task[None]


async def serve(
    settings: Settings,
    store: Store,
    sources: Sequence[ModelSource],
    greet: Callable[[Serving], Coroutine[Any, Any, None]],
) -> None:
    """Serve until a signal comes: Ctrl-C ends it at once, SIGTERM after its requests or `settings.grace` seconds.

    Args:
        settings: where to listen, and how to load.
        store: where requests may find further models.
        sources: the models to load at the start.
        greet: runs beside the server, to wait for the models and tell the user; what it raises ends the server.

    Raises:
        BrimError: the address cannot be listened on, or a model cannot be loaded.
    """
    async with serving(settings, store, sources) as running:
        greeting = asyncio.ensure_future(greet(running))
        ending = asyncio.ensure_future(_told_to_end(running.traffic, settings.grace))
        try:
            await asyncio.wait({greeting, ending, running.task}, return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                greeting.result()
                await asyncio.wait({ending, running.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            greeting.cancel()
            ending.cancel()
            await asyncio.gather(greeting, ending, return_exceptions=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on the fastest event loop there is."""
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        return runner.run(work)


@contextlib.asynccontextmanager
async def serving(settings: Settings, store: Store, sources: Sequence[ModelSource]) -> AsyncGenerator[Serving]:
    """Listen, and begin to load models. At the end, running requests fail and everything is freed, within 5 seconds.

    Raises:
        BrimError: the address cannot be listened on, or a key or certificate is not sound.
    """
    sealed = settings.with_hashed_keys()
    tls = tls_context(settings)
    listening = open_socket(settings.host, settings.port)
    manager, traffic = ModelManager(settings, store), Traffic()
    config = uvicorn.Config(
        create_app(sealed, manager, traffic),
        http=bounded(ConnectionLimits(settings.request_timeout, settings.max_connections)),
        ws="none",
        ssl_context_factory=(lambda config, default: tls) if tls else None,
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LAST_WORDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listening]))
    try:
        for source in sources:
            manager.want(source)
        yield Serving(base_url(listening, "https" if tls else "http"), manager, traffic, task)
    finally:
        traffic.drain()
        await manager.stop()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _told_to_end(traffic: Traffic, grace: float) -> None:
    """Wait for SIGINT; or for SIGTERM and then, for at most `grace` seconds, for the running requests."""
    loop = asyncio.get_running_loop()
    interrupted, terminated = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    waits = {asyncio.ensure_future(interrupted.wait()), asyncio.ensure_future(terminated.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        traffic.drain()
        if traffic.open and not interrupted.is_set():
            logger.info("waiting up to %g seconds for %d running requests; Ctrl-C ends them", grace, traffic.open)
        deadline = loop.time() + grace
        while traffic.open and not interrupted.is_set() and loop.time() < deadline:
            await asyncio.sleep(POLL)
    finally:
        for wait in waits:
            wait.cancel()


def open_socket(host: str, port: int) -> socket.socket:
    """Bind the address to listen on; port 0 takes a free one. Raises BrimError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise BrimError(f"the host {host} is not known: {error.strerror}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise BrimError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port"
        ) from error
    return listening


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """How to encrypt connections, or None without a certificate. Raises BrimError where its files are not sound."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    for path in (settings.tls_cert, settings.tls_key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BrimError(f"the TLS file {path} cannot be read: {error.strerror}") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pair = f"the certificate {settings.tls_cert} and the key {settings.tls_key}"
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_refuse_password)
    except _EncryptedKeyError as error:
        raise BrimError(f"the key {settings.tls_key} is encrypted; give one without a password") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BrimError(f"{pair} do not belong together") from error
        raise BrimError(f"{pair} are not a sound pair of PEM files") from error
    return context


class _EncryptedKeyError(Exception):
    pass


def _refuse_password() -> str:
    raise _EncryptedKeyError  # OpenSSL would ask at the terminal


def base_url(listening: socket.socket, scheme: str) -> str:
    """The URL under which this machine reaches the server."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
