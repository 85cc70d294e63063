"""The server's side of a worker: what waits for a slow reader, and what is said while the worker ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from server.engine.client import _Stream
from server.engine.messages import Cancel, Delta, Done, PromptProgress, TokenLogprob, Usage
from server.engine.request import Generate

if TYPE_CHECKING:
    import pytest

    from server.engine.messages import ToWorker
    from tests.engine.conftest import StartEngine

DONE = Done(1, Usage(prompt_tokens=1, completion_tokens=6))


async def read(stream: _Stream) -> list[Delta | Done]:
    found = [await stream.get()]
    while not isinstance(found[-1], Done):
        found.append(await stream.get())
    return found


async def test_deltas_of_each_choice_merge_while_nobody_reads() -> None:
    stream = _Stream()
    for step in range(3):
        for index in range(2):
            stream.put(Delta(id=1, index=index, text=f"{index}", tokens=[step]))
    stream.put(Delta(id=1, index=0, text="!", finish="stop"))
    assert await stream.get() == Delta(id=1, index=0, text="000!", tokens=[0, 1, 2], finish="stop")
    stream.put(Delta(id=1, index=1, text="?", finish="length"))
    stream.put(DONE)
    assert await read(stream) == [Delta(id=1, index=1, text="111?", tokens=[0, 1, 2], finish="length"), DONE]


async def test_what_tells_more_than_text_stays_by_itself() -> None:
    stream = _Stream()
    progress = Delta(id=1, progress=PromptProgress(9, 0, 9, 0.5))
    likely = [Delta(id=1, text=text, logprobs=[TokenLogprob(1, b"", -0.5)]) for text in "ab"]
    for item in (progress, *likely, DONE):
        stream.put(item)
    assert await read(stream) == [progress, *likely, DONE]


async def test_a_client_that_leaves_while_the_worker_ends_cancels_its_request(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine()
    sent: list[ToWorker] = []
    send = engine._channel.send

    def noting(message: ToWorker) -> None:
        sent.append(message)
        send(message)

    stream = engine.generate(Generate(id=0, prompt="Once", ignore_eos=True))
    await anext(stream)
    monkeypatch.setattr(engine._channel, "send", noting)
    ending = asyncio.create_task(engine.stop(grace=60.0))
    await asyncio.sleep(0)
    assert not engine.alive
    await stream.aclose()
    await ending
    assert isinstance(sent[-1], Cancel)
