"""What an endpoint works with: a request's time begins when it arrives."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from server.api.context import NO_TIME, Context
from server.api.limits import Traffic
from server.app import create_app
from server.engine.request import Generate
from server.models.manager import ModelManager
from server.models.resolve import resolve
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from server.engine.messages import Delta, Done


def context(max_time: float, waited: float) -> Context:
    """Of a request that came so many seconds ago."""
    manager = cast("Any", None)
    settings = Settings(cache_ram=0, max_time=max_time)
    arrived = time.monotonic() - waited
    return Context(manager, settings, asyncio.Semaphore(1), "", 0, AsyncExitStack(), arrived=arrived)


def asking(**fields: Any) -> Generate:
    return Generate(id=0, prompt="Hi", **fields)


def test_without_a_bound_there_is_none_after_a_wait() -> None:
    request = asking()
    assert context(math.inf, 1000).timed(request) is request


@pytest.mark.parametrize(("own", "most"), [(500.0, math.inf), (None, 500.0), (500.0, 900.0), (900.0, 500.0)])
def test_what_came_before_the_engine_counts_towards_a_requests_time(own: float | None, most: float) -> None:
    left = context(most, 200).timed(asking(max_time=own)).max_time
    assert left
    assert NO_TIME < left <= 300


def test_a_time_that_is_over_leaves_next_to_nothing() -> None:
    assert context(500.0, 501).timed(asking()).max_time == NO_TIME


MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}),
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 1, "store": False}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 1}),
    ("/completion", {"prompt": "Hi", "n_predict": 1}),
    ("/api/chat", {"messages": MESSAGES, "options": {"num_predict": 1}, "stream": False}),
    ("/api/generate", {"prompt": "Hi", "options": {"num_predict": 1}, "stream": False}),
    ("/api/generate", {"prompt": "Hi", "options": {"num_predict": 1}, "stream": False, "raw": True}),
]


async def test_every_protocol_tells_the_engine_what_is_left_of_the_time(
    tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path))
    settings = Settings(cache_ram=0, threads=1, ctx=256, max_time=1000.0)
    store = Store.default()
    manager = ModelManager(settings, store)
    transport = httpx.ASGITransport(create_app(settings, manager, Traffic()))
    asked: list[Generate] = []
    try:
        manager.want(resolve(str(demo_gguf), store))
        engine = (await manager.get("demo")).engine
        generate = engine.generate

        def noting(request: Generate) -> AsyncGenerator[Delta | Done]:
            asked.append(request)
            return generate(request)

        monkeypatch.setattr(engine, "generate", noting)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            for path, body in BODIES:
                answer = await client.post(path, json={"model": "demo", **body})
                assert answer.status_code == 200, answer.text
    finally:
        await manager.stop()
    left = [request.max_time or 0 for request in asked]
    assert len(left) == len(BODIES)
    assert all(NO_TIME < seconds < 1000 for seconds in left)
