"""What a client may make the server hold, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.limits import DEEPEST_NESTING, BodyLimit, Traffic, nesting_exceeds
from server.connection import LARGEST_HEAD, MOST_AHEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import httpx
    from starlette.types import Message, Receive, Scope, Send

    from tests.conftest import RunningServer, StartServer

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
TIMEOUT = 2.0
CONNECTIONS = 12
WITHIN = 60.0

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)  # pyright: ignore[reportUnknownArgumentType]
    return 0


@given(values, st.integers(0, 6), st.booleans())
def test_nesting_is_measured_exactly_whatever_strings_hold(value: Any, most: int, ascii_only: bool) -> None:
    assert nesting_exceeds(json.dumps(value, ensure_ascii=ascii_only).encode(), most) == (depth(value) > most)


@given(st.binary())
def test_any_bytes_can_be_measured(text: bytes) -> None:
    assert not nesting_exceeds(text, max(1, len(text)))


@pytest.mark.parametrize("text", [b"[" * 10**6, b'{"a":' * 10**5, b'"a"' + b"[" * 101])
def test_what_opens_too_often_is_too_deep_though_it_never_closes(text: bytes) -> None:
    assert nesting_exceeds(text, DEEPEST_NESTING)


@pytest.mark.parametrize(
    "text", [b'"' + b'\\"' * 10**6, b"[]" * 10**6, b"][" * 10**5, b'"\\' * 10**5, b'"' + b"[" * 10**6]
)
def test_hostile_texts_that_are_flat_are_measured_in_passing(text: bytes) -> None:
    assert not nesting_exceeds(text, DEEPEST_NESTING)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_a_body_nested_too_deep_is_refused(client: httpx.AsyncClient, opening: bytes) -> None:
    answer = await client.post(CHAT, content=opening * 100_000, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "nested_too_deep")


async def test_a_schema_as_deep_as_is_allowed_passes_this_check(client: httpx.AsyncClient) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    body = {"model": "absent", "messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": schema}
    assert (await client.post(CHAT, json=body)).json()["error"]["code"] == "model_not_found"


async def test_a_body_that_trickles_is_a_408(make_client: Callable[..., httpx.AsyncClient]) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(WITHIN)  # is cancelled
        yield b"}"

    answer = await make_client(request_timeout=0.05).post(CHAT, content=trickle(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")


async def test_bodies_beyond_the_budget_of_all_are_told_to_come_back(
    make_client: Callable[..., httpx.AsyncClient],
) -> None:
    client = make_client(max_body=1000, body_budget=1500)
    body = b"x" * 900
    replies: list[httpx.Response] = []

    async def while_another_is_read() -> AsyncIterator[bytes]:
        yield body
        replies.append(await client.post(CHAT, content=body, headers=JSON))

    assert (await client.post(CHAT, content=while_another_is_read(), headers=JSON)).status_code == 400
    assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (503, "overloaded")
    assert "retry-after" in replies[0].headers
    assert (await client.post(CHAT, content=body, headers=JSON)).status_code == 400  # the room is free again


async def test_a_body_is_held_once_while_it_is_answered() -> None:
    body = b"x" * 4_000_000
    held: list[int] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        held.append(tracemalloc.get_traced_memory()[0])

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        pytest.fail(f"{message} was sent")

    limit = BodyLimit(answering, limit=len(body), budget=len(body), timeout=WITHIN, traffic=Traffic())
    tracemalloc.start()
    try:
        await limit({"type": "http", "path": "/", "headers": []}, receive, send)
    finally:
        tracemalloc.stop()
    assert held[0] < 1.5 * len(body)


# Real sockets, against a real server


@pytest.fixture(scope="module")
def server(start_server: StartServer, demo_gguf: Path) -> RunningServer:
    limits = ("--request-timeout", TIMEOUT, "--max-connections", CONNECTIONS)
    return start_server(demo_gguf, "--ctx", "4096", "--parallel", "8", *map(str, limits))


class Client:
    """A client that says just what it is told to, and reads only then."""

    def __init__(self, server: RunningServer, receive_buffer: int | None = None) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WITHIN)
        self.socket.connect((host, int(port)))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_to_end(self) -> bytes:
        """All that comes until the server hangs up."""
        received = b""
        try:
            while piece := self.socket.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> dict[str, Any]:
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


def post(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def test_a_client_that_says_nothing_is_hung_up_on(server: RunningServer) -> None:
    with Client(server) as client:
        answer = client.read_to_end()
        assert status_of(answer) == 408
        assert b"x-request-id: " in answer


def test_headers_that_trickle_do_not_hold_a_connection(server: RunningServer) -> None:
    with Client(server) as client:
        done = threading.Event()

        def trickle() -> None:
            client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            while not done.wait(0.2):
                try:
                    client.send(b"a: b\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = client.read_to_end()
        done.set()
        thread.join()
        assert status_of(answer) == 408


def test_a_body_that_trickles_is_answered_408_and_its_connection_closed(server: RunningServer) -> None:
    with Client(server) as client:
        client.send(post(CHAT, {})[:-1])
        answer = client.read_to_end()
        assert (status_of(answer), error_of(answer)["code"]) == (408, "request_timeout")


def test_a_body_that_goes_on_after_its_answer_does_not_hold_the_connection(server: RunningServer) -> None:
    with Client(server) as client:
        client.send(b"POST /v1/models HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000\r\n\r\n")
        assert status_of(client.read_to_end()) == 403


@pytest.mark.parametrize("headers", [b"a: " + b"b" * LARGEST_HEAD, b"a: b\r\n" * LARGEST_HEAD])
@pytest.mark.parametrize("ending", [b"", b"\r\n\r\n"])
def test_headers_have_a_bound(server: RunningServer, headers: bytes, ending: bytes) -> None:
    with Client(server) as client:
        try:
            client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + headers + ending)
        except ConnectionError:
            return  # it hung up while we were still sending
        answer = client.read_to_end()
        assert not answer or status_of(answer) == 431


CHUNKED = b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def test_what_follows_a_body_has_a_bound(server: RunningServer) -> None:
    with Client(server) as client:
        client.send(CHUNKED + b"1\r\nx\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                client.send(b"a: " + b"b" * LARGEST_HEAD + b"\r\n")
        assert client.read_to_end() == b""


def test_a_header_behind_a_body_counts_for_nothing(server: RunningServer) -> None:
    with Client(server) as client:
        client.send(CHUNKED + b"1\r\nx\r\n0\r\nAccept: text/html\r\n\r\n")
        answer = client.read_to_end()
        assert status_of(answer) == 200
        assert b"Ollama is running" in answer


def test_requests_sent_ahead_are_answered_one_after_the_other(server: RunningServer) -> None:
    ahead = 3 * MOST_AHEAD
    with Client(server) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * ahead)
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = client.read_to_end()
        assert answers.count(b"HTTP/1.1 200 OK") == ahead + 1
        assert answers.endswith(b"Ollama is running")


def test_what_is_not_http_is_refused_in_json(server: RunningServer) -> None:
    with Client(server) as client:
        client.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert error_of(client.read_to_end())["code"] == "invalid_http"


def test_one_connection_more_than_allowed_is_refused_and_the_next_after_one_left_is_not(server: RunningServer) -> None:
    clients = [Client(server) for _ in range(CONNECTIONS)]
    try:
        with Client(server) as refused:
            answer = refused.read_to_end()
            assert status_of(answer) == 503
            assert b"\r\nretry-after: 5\r\n" in answer
    finally:
        for client in clients:
            client.socket.close()
    deadline = time.monotonic() + WITHIN
    while server.get("/health").status_code != 200:
        assert time.monotonic() < deadline


def test_a_client_that_never_reads_its_stream_is_hung_up_on_and_costs_no_memory(server: RunningServer) -> None:
    process = psutil.Process(server.process.pid)
    endless = {
        "prompt": "Once upon a time",
        "n": 8,
        "max_tokens": 3000,
        "ignore_eos": True,
        "stream": True,
        "logprobs": 20,
    }  # some 2 KB a token: far more than what sockets hold
    before = process.memory_info().rss
    with Client(server, receive_buffer=4096) as client:
        client.send(post("/v1/completions", endless))
        deadline = time.monotonic() + WITHIN
        while server.gauge("brim_requests_running") == 0:
            assert time.monotonic() < deadline
        while server.gauge("brim_requests_running") > 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        grown = process.memory_info().rss - before
        received = client.read_to_end()
    assert b"[DONE]" not in received
    assert server.gauge("brim_generated_tokens_total") < 8 * 3000
    assert grown < 64 * 1024**2
    assert server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2}).status_code == 200


def test_when_its_time_is_over_a_request_gives_no_more_choices_than_asked_for(server: RunningServer) -> None:
    body = {"prompt": "Once upon a time", "best_of": 3, "n": 2, "max_tokens": 3000, "ignore_eos": True, "max_time": 0.2}
    choices = server.post("/v1/completions", body).json()["choices"]
    assert [(choice["index"], choice["finish_reason"]) for choice in choices] == [(0, "length"), (1, "length")]
    assert all(choice["text"] for choice in choices)
