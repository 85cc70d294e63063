"""What a server and a worker say to each other arrives whole and in order, and the end of either is noticed."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from server.engine import channel as channels
from server.engine.channel import ChannelFullError, ServerEnd, WorkerEnd, WorkerGoneError
from server.engine.messages import Cancel, Detokenize, Text, Tokens


async def both_ends() -> tuple[ServerEnd, WorkerEnd]:
    server = await ServerEnd.open()
    requests, results = (os.dup(end.fileno()) for end in server.worker_sockets)
    worker = WorkerEnd(requests, results)
    server.close_worker_sockets()
    return server, worker


async def test_messages_arrive_whole_and_in_order() -> None:
    server, worker = await both_ends()
    sizes = [0, 1, 70_000, 3_000_000, 5]
    asked = [Detokenize(i, list(range(size))) for i, size in enumerate(sizes)]
    for message in asked:
        server.send(message)
    assert [await asyncio.to_thread(worker.receive) for _ in asked] == asked
    told = [Text(i, "x" * size) for i, size in enumerate(sizes)]
    sending = asyncio.gather(*(asyncio.to_thread(worker.send, message) for message in told))
    heard = [await server.receive() for _ in told]
    await sending
    assert sorted(message.id for message in heard if isinstance(message, Text)) == list(range(len(sizes)))
    assert all(message in told for message in heard)
    server.close()


async def test_threads_do_not_mix_their_messages() -> None:
    server, worker = await both_ends()

    def tell(number: int) -> None:
        for _ in range(50):
            worker.send(Tokens(number, [number] * 5000))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    heard = [await server.receive() for _ in range(200)]
    assert all(isinstance(message, Tokens) and message.tokens == [message.id] * 5000 for message in heard)
    server.close()


async def test_a_reader_that_is_late_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_UNREAD", 3)
    server, worker = await both_ends()
    told = [Tokens(i, [i] * 20_000) for i in range(500)]
    telling = asyncio.create_task(asyncio.to_thread(lambda: [worker.send(message) for message in told]))
    await asyncio.sleep(0.2)
    assert not telling.done(), "the worker is made to wait"
    assert [await server.receive() for _ in told] == told
    await telling
    server.close()


async def test_what_was_said_before_the_end_is_heard() -> None:
    server, worker = await both_ends()
    worker.send(Text(1, "last words"))
    del worker
    assert await server.receive() == Text(1, "last words")
    with pytest.raises(WorkerGoneError):
        await server.receive()
    server.close()


async def test_it_is_heard_too_where_the_worker_left_requests_unread() -> None:
    server, worker = await both_ends()
    server.send(Cancel(1))
    await asyncio.sleep(0)
    for i in range(30):
        worker.send(Text(i, "last words"))
    del worker
    with pytest.raises(WorkerGoneError):
        for _ in range(100):
            server.send(Cancel(2))
            await asyncio.sleep(0.01)
    assert [await server.receive() for _ in range(30)] == [Text(i, "last words") for i in range(30)]
    with pytest.raises(WorkerGoneError):
        await server.receive()
    server.close()


async def test_a_worker_notices_that_its_server_is_gone() -> None:
    server, worker = await both_ends()
    server.send(Cancel(3))
    server.close()
    assert await asyncio.to_thread(worker.receive) == Cancel(3)
    with pytest.raises(EOFError):
        await asyncio.to_thread(worker.receive)
    worker.send(Text(1, "to nobody"))


async def test_a_worker_that_does_not_read_is_not_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_UNSENT", 100_000)
    server, worker = await both_ends()
    big = Detokenize(1, [70_000] * 2_000_000)
    server.send(big)
    with pytest.raises(ChannelFullError):
        server.send(big)
    assert await asyncio.to_thread(worker.receive) == big
    server.close()
