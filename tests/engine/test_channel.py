"""What a server and a worker say to each other arrives whole and in order, and the end of either is noticed."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from server.engine import channel as channels
from server.engine.channel import ChannelFullError, ServerEnd, WorkerEnd, WorkerGoneError
from server.engine.messages import Cancel, Detokenize, Text, Tokens

if TYPE_CHECKING:
    from server.engine.messages import FromWorker


class Heard:
    """What a server has heard."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[FromWorker] = asyncio.Queue()
        self.listen = self._messages.put_nowait

    async def next(self, count: int) -> list[FromWorker]:
        return [await self._messages.get() for _ in range(count)]

    @property
    def nothing_more(self) -> bool:
        return self._messages.empty()


async def both_ends() -> tuple[ServerEnd, Heard, WorkerEnd]:
    heard = Heard()
    server = await ServerEnd.open(heard.listen)
    requests, results = (os.dup(end.fileno()) for end in server.worker_sockets)
    worker = WorkerEnd(requests, results)
    server.close_worker_sockets()
    return server, heard, worker


async def test_messages_arrive_whole_and_in_order() -> None:
    server, heard, worker = await both_ends()
    sizes = [0, 1, 70_000, 3_000_000, 5]
    asked = [Detokenize(i, list(range(size))) for i, size in enumerate(sizes)]
    for message in asked:
        server.send(message)
    assert [await asyncio.to_thread(worker.receive) for _ in asked] == asked
    told = [Text(i, "x" * size) for i, size in enumerate(sizes)]
    sending = asyncio.gather(*(asyncio.to_thread(worker.send, message) for message in told))
    messages = await heard.next(len(told))
    await sending
    assert sorted(message.id for message in messages if isinstance(message, Text)) == list(range(len(sizes)))
    assert all(message in told for message in messages)
    server.close()


async def test_threads_do_not_mix_their_messages() -> None:
    server, heard, worker = await both_ends()

    def tell(number: int) -> None:
        for _ in range(50):
            worker.send(Tokens(number, [number] * 5000))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    messages = await heard.next(200)
    assert all(isinstance(message, Tokens) and message.tokens == [message.id] * 5000 for message in messages)
    server.close()


async def test_a_server_that_is_late_misses_nothing() -> None:
    server, heard, worker = await both_ends()
    told = [Tokens(i, [i] * 20_000) for i in range(500)]
    telling = threading.Thread(target=lambda: [worker.send(message) for message in told])
    telling.start()
    time.sleep(0.3)  # the event loop stands still
    assert telling.is_alive(), "the worker is made to wait"
    assert await heard.next(500) == told
    telling.join()
    server.close()


async def test_what_was_said_before_the_end_is_heard() -> None:
    server, heard, worker = await both_ends()
    worker.send(Text(1, "last words"))
    del worker
    await server.over.wait()
    assert await heard.next(1) == [Text(1, "last words")]
    assert heard.nothing_more
    server.close()


async def test_it_is_heard_too_where_the_worker_left_requests_unread() -> None:
    server, heard, worker = await both_ends()
    server.send(Cancel(1))
    await asyncio.sleep(0)
    for i in range(30):
        worker.send(Text(i, "last words"))
    del worker
    with pytest.raises(WorkerGoneError):
        for _ in range(100):
            server.send(Cancel(2))
            await asyncio.sleep(0.01)
    await server.over.wait()
    assert await heard.next(30) == [Text(i, "last words") for i in range(30)]
    assert heard.nothing_more
    server.close()


async def test_a_worker_notices_that_its_server_is_gone() -> None:
    server, _, worker = await both_ends()
    server.send(Cancel(3))
    server.close()
    assert await asyncio.to_thread(worker.receive) == Cancel(3)
    with pytest.raises(EOFError):
        await asyncio.to_thread(worker.receive)
    worker.send(Text(1, "to nobody"))


async def test_a_worker_that_does_not_read_is_not_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_UNSENT", 100_000)
    server, _, worker = await both_ends()
    big = Detokenize(1, [70_000] * 2_000_000)
    server.send(big)
    with pytest.raises(ChannelFullError):
        server.send(big)
    server.send(Cancel(1))  # makes room
    assert await asyncio.to_thread(worker.receive) == big
    assert await asyncio.to_thread(worker.receive) == Cancel(1)
    server.close()
