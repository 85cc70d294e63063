"""Memory of states that nobody keeps any more, for the next ones.

The first write to fresh memory costs several times what the copy itself does: the system has to find and clear every
page, and on a virtual machine its host once more, above all where pages are huge. A state of 1,000 tokens took 32 ms
instead of 1, and takes 5 in small pages that are asked for at once.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from server.engine.kv_file import State

SHARE = 8
"""One part in so many of the RAM tier's memory may lie spare."""
GROWTH = 8
"""A block is larger than asked for by one part in so many: a conversation's next state is a little longer."""
WASTE = 4
"""A block may be too large by one part in so many."""
_HUGE = 4 << 20
"""Bytes from which on NumPy asks for huge pages."""

Block = npt.NDArray[np.uint8]


class SpareMemory:
    """Gives memory for states, and takes it back by itself once nothing refers to a state. For any number of threads.

    Args:
        limit: bytes that may lie spare.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._spare: list[Block] = []
        self._lock = threading.RLock()  # a state may end wherever Python collects garbage, also in here

    def take(self, size: int) -> State:
        """Memory for `size` bytes, with whatever stands there. Whoever keeps a part of it must keep the whole."""
        block = self._fitting(size)
        if block is None:
            block = _fresh(size + size // GROWTH)
        state = block[:size]
        weakref.finalize(state, self._take_back, block).atexit = False
        return state

    @property
    def nbytes(self) -> int:
        """Bytes that lie spare."""
        return sum(block.nbytes for block in self._spare)

    def _fitting(self, size: int) -> Block | None:
        """The smallest spare block that holds so much without being far too large."""
        with self._lock:
            fitting = [block for block in self._spare if size <= block.nbytes <= size + size // WASTE]
            smallest = min(fitting, key=lambda block: block.nbytes, default=None)
            # not by its place in the list, which changes wherever a state ends in here
            self._spare = [block for block in self._spare if block is not smallest]
            return smallest

    def _take_back(self, block: Block) -> None:
        with self._lock:
            self._spare.append(block)
            while self.nbytes > self.limit:
                del self._spare[0]


def _fresh(size: int) -> Block:
    """Memory in small pages, all of them there already if the system can be asked for that."""
    if size < _HUGE or not hasattr(mmap, "MAP_POPULATE"):
        return np.empty(size, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)


def memory_of(state: State) -> int:
    """Bytes of the block that a state lies in."""
    return state.nbytes if state.base is None else state.base.nbytes
