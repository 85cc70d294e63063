"""Long texts: they hold up neither what runs nor who has left, and what is far too long is not read to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from server.engine.request import Generate
from server.errors import RequestError
from tests.engine.test_engine import PROMPT, ask, gauges

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.engine.conftest import StartEngine

T = TypeVar("T")
ENDLESS = "once upon a time " * 400_000
"""It takes seconds to tokenize."""


async def begin(question: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Send a question; returns what waits for the answer."""
    task = asyncio.create_task(question)
    await asyncio.sleep(0)
    return task


async def test_who_leaves_and_who_asks_how_it_goes_need_not_wait_for_a_text_that_is_read(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine()
    stream = engine.generate(Generate(id=0, prompt=PROMPT, ignore_eos=True))
    await anext(stream)
    reading = await begin(engine.tokenize(ENDLESS))
    assert (await gauges(engine))["requests_running"] == 1
    await stream.aclose()
    assert (await gauges(engine))["requests_running"] == 0
    assert not reading.done(), "the text is too short for this test"
    await reading


async def test_a_request_that_is_given_up_while_its_text_is_read_is_not_begun(start_engine: StartEngine) -> None:
    engine = await start_engine()
    reading = await begin(engine.tokenize(ENDLESS))
    waiting = await begin(ask(engine, PROMPT, 400))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await reading
    await ask(engine, PROMPT, 1)
    counters = (await engine.stats()).counters
    assert counters["generated_tokens_total"] == 1


async def test_a_text_far_too_long_is_refused_by_its_beginning(start_engine: StartEngine) -> None:
    engine = await start_engine()
    with pytest.raises(RequestError, match=r"the prompt has more than [0-9]+ tokens") as caught:
        await ask(engine, ENDLESS, 1)
    assert caught.value.code == "context_length_exceeded"


async def test_texts_that_wait_are_bounded(start_engine: StartEngine) -> None:
    engine = await start_engine()
    reading = [asyncio.create_task(engine.tokenize(ENDLESS)) for _ in range(11)]
    refused, others = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    assert others, "those that had to wait were refused, too"
    for task in refused:
        with pytest.raises(RequestError, match="try again later") as caught:
            await task
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_what_came_before_the_end_is_still_answered_though_it_was_not_read_yet(start_engine: StartEngine) -> None:
    engine = await start_engine()
    reading = await begin(engine.tokenize(ENDLESS))
    waiting = await begin(ask(engine, PROMPT, 5))
    await engine.stop(grace=30.0)
    assert (await waiting).usage.completion_tokens == 5
    assert await reading
