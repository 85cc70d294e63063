"""Memory of states that are over is used again, never while anybody still has the state."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.spare_memory import SpareMemory, memory_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    import numpy as np


def address(state: np.ndarray) -> int:
    return state.ctypes.data


@pytest.mark.parametrize("size", [1000, 8 << 20])
def test_the_next_state_takes_the_memory_of_one_that_is_over(size: int) -> None:
    spare = SpareMemory(1 << 25)
    state = spare.take(size)
    state[:] = 5
    assert size <= memory_of(state) <= size * 9 // 8
    block = address(state)
    del state
    assert address(spare.take(size * 21 // 20)) == block, "a conversation's next state is a little longer"


def test_what_is_much_too_large_is_left_to_others() -> None:
    spare = SpareMemory(1 << 20)
    block = address(spare.take(1000))
    small = spare.take(300)
    assert address(small) != block
    assert memory_of(small) < 400
    assert address(spare.take(1000)) == block


def test_a_view_of_a_state_keeps_its_memory_from_others() -> None:
    spare = SpareMemory(1 << 20)
    state = spare.take(1000)
    state[:] = 7
    bytes_of_it = state.data
    del state
    other = spare.take(1000)
    other[:] = 9
    assert bytes(bytes_of_it) == bytes([7]) * 1000


@given(sizes=st.lists(st.integers(1, 5000), max_size=50), limit=st.integers(0, 10_000), seed=st.integers())
def test_what_lies_spare_is_bounded_and_what_is_kept_is_kept_apart(sizes: list[int], limit: int, seed: int) -> None:
    spare, chance = SpareMemory(limit), random.Random(seed)
    kept: list[tuple[np.ndarray, int]] = []
    for number, size in enumerate(sizes):
        state = spare.take(size)
        assert state.nbytes == size <= memory_of(state)
        state[:] = number % 256
        kept.append((state, number % 256))
        del state
        if chance.random() < 0.5:
            kept.pop(chance.randrange(len(kept)))
        assert spare.nbytes <= limit
        assert all((state == mark).all() for state, mark in kept)


def test_threads_may_share_it() -> None:
    spare, mixed = SpareMemory(1 << 16), threading.Event()

    def work(mark: int) -> None:
        for size in range(1, 2000):
            state = spare.take(size)
            state[:] = mark
            if not (state == mark).all():
                mixed.set()

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mixed.is_set()


def test_a_state_may_end_at_any_moment_while_another_takes_its_memory() -> None:
    for instruction in range(500):
        spare = SpareMemory(1200)
        small, fitting, ending = spare.take(200), spare.take(800), [spare.take(300)]
        del small, fitting
        with at_instruction(instruction, ending.clear):
            state = spare.take(800)
        assert state.nbytes == 800
        assert address(spare.take(800)) != address(state)


@contextmanager
def at_instruction(number: int, action: Callable[[], None]) -> Generator[None]:
    """Act before the so-manieth instruction that this thread carries out meanwhile, as a garbage collection may."""
    passed, before = itertools.count(), sys.gettrace()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and next(passed) == number:
            action()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
