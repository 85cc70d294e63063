"""A client that hangs up frees its sequence at once, streaming or not, running or waiting."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from server.api.limits import Traffic
from server.app import CLIENT_GONE, create_app
from server.models.manager import ModelManager
from server.models.store import Store
from server.settings import Settings
from tests.conftest import CLIENT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from starlette.types import Message

    from server.models.embedding import Purpose
    from server.models.loading import LoadedModel
    from tests.conftest import RunningServer, StartServer

SEQUENCES = 8
ENDLESS: dict[str, Any] = {"prompt": "Once upon a time", "n": SEQUENCES, "max_tokens": 2000, "ignore_eos": True}
"""Takes every sequence of the server for much longer than a test looks."""
SOON = 60.0


@pytest.fixture(scope="module")
def server(start_server: StartServer, demo_gguf: Path) -> RunningServer:
    return start_server(demo_gguf, "--ctx", "2048", "--parallel", str(SEQUENCES))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_idle(server: RunningServer) -> bool:
    return server.gauge("brim_requests_running") == server.gauge("brim_requests_waiting") == 0


def generated(server: RunningServer) -> float:
    return server.gauge("brim_generated_tokens_total")


def hang_up_after(server: RunningServer, body: dict[str, Any], seconds: float) -> None:
    with pytest.raises(httpx.ReadTimeout):
        CLIENT.post(f"{server.url}/v1/completions", json=body, timeout=seconds)


def test_a_client_that_leaves_its_stream_frees_its_sequence(server: RunningServer) -> None:
    before = generated(server)
    url = f"{server.url}/v1/completions"
    with CLIENT.stream("POST", url, json={**ENDLESS, "stream": True}, timeout=SOON) as answer:
        events = answer.iter_bytes()  # kept: to drop it is to hang up
        next(events)
        assert server.gauge("brim_requests_running") > 0
    wait_until(lambda: is_idle(server))
    assert generated(server) - before < SEQUENCES * ENDLESS["max_tokens"]


def test_a_client_that_does_not_wait_for_its_answer_frees_its_sequence(server: RunningServer) -> None:
    before = generated(server)
    hang_up_after(server, ENDLESS, 0.3)
    wait_until(lambda: is_idle(server))
    assert generated(server) - before < SEQUENCES * ENDLESS["max_tokens"]


def test_a_client_that_leaves_the_queue_is_taken_out_of_it(server: RunningServer) -> None:
    url = f"{server.url}/v1/completions"
    with CLIENT.stream("POST", url, json={**ENDLESS, "stream": True}, timeout=SOON) as answer:
        events = answer.iter_bytes()  # kept: to drop it is to hang up
        next(events)
        hang_up_after(server, {**ENDLESS, "stream": True}, 0.3)
        wait_until(lambda: server.gauge("brim_requests_waiting") == 0)
    wait_until(lambda: is_idle(server))


def test_a_client_that_has_sent_another_request_ahead_is_missed_no_less(server: RunningServer) -> None:
    before = generated(server)
    content = json.dumps(ENDLESS).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.gauge("brim_requests_running") > 0)
    wait_until(lambda: is_idle(server))
    assert generated(server) - before < SEQUENCES * ENDLESS["max_tokens"]


def test_after_all_that_the_next_request_is_answered(server: RunningServer) -> None:
    answer = server.post("/v1/completions", {**ENDLESS, "n": 1, "max_tokens": 2})
    assert answer.json()["usage"]["completion_tokens"] == 2


# A model that never gets loaded, in this process


class EndlesslyLoading(ModelManager):
    """Counts who waits for a model."""

    waiting = 0

    @asynccontextmanager
    async def using(
        self, name: str | None, purpose: Purpose = "text", keep_alive: float | None = None
    ) -> AsyncGenerator[LoadedModel]:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
            async with super().using(name, purpose, keep_alive) as model:
                yield model
        finally:
            self.waiting -= 1


MESSAGES = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions/input_tokens", MESSAGES),
        ("/v1/messages/count_tokens", MESSAGES),
        ("/v1/responses/input_tokens", {"input": "Hi"}),
        ("/tokenize", {"content": "Hi"}),
        ("/detokenize", {"tokens": [5]}),
        ("/apply-template", MESSAGES),
        ("/completion", {"prompt": "Hi"}),
        ("/completion", {"prompt": "Hi", "stream": True}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
    ],
)
async def test_a_client_that_leaves_waits_for_no_model(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    settings = Settings(cache_ram=0, responses_file=tmp_path / "responses.db")
    manager = EndlesslyLoading(settings, Store(tmp_path / "models"))
    content = json.dumps(body).encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    received: list[Message] = [{"type": "http.request", "body": content}]
    sent: list[Message] = []

    async def receive() -> Message:
        if received:
            return received.pop()
        while not manager.waiting:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(SOON):
        await create_app(settings, manager, Traffic())(scope, receive, send)
    assert sent[0]["status"] == CLIENT_GONE
    assert manager.waiting == 0
