"""A client that hangs up frees its sequence at once, streaming or not, running or waiting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import CLIENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def test_after_all_that_the_next_request_is_answered(server: RunningServer) -> None:
    answer = server.post("/v1/completions", {**ENDLESS, "n": 1, "max_tokens": 2})
    assert answer.json()["usage"]["completion_tokens"] == 2
