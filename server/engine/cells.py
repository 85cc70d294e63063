"""Which KV cells of a unified context are in use: a ledger of who shares what.

llama.cpp counts its cells itself but tells nobody, so the same bookkeeping is kept here: a cell is used while at
least one sequence holds it. The numbers stand for cells; they are not llama.cpp's own places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Cells:
    """A pool of `capacity` cells, each with a count of its holders."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._holders: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._held: dict[int, list[int]] = {}

    @property
    def free(self) -> int:
        """Cells that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Cells that somebody holds."""
        return self.capacity - len(self._free)

    def held(self, sequence: int) -> int:
        """How many cells a sequence holds, shared ones included."""
        return len(self._held.get(sequence, ()))

    def take(self, sequence: int, n: int) -> None:
        """Give `n` free cells to a sequence."""
        assert n <= self.free
        if n:
            taken = self._free[-n:]
            del self._free[-n:]
            self._holders[taken] = 1
            self._held.setdefault(sequence, []).extend(taken)

    def share(self, source: int, target: int, n: int) -> None:
        """Let `target`, which holds none, hold the first `n` cells of `source` too."""
        assert not self.held(target)
        shared = self._held.get(source, [])[:n]
        self._holders[shared] += 1
        self._held[target] = shared

    def drop(self, sequence: int, start: int = 0) -> None:
        """Let a sequence give up its cells from the `start`-th on."""
        held = self._held.get(sequence)
        if held is None:
            return
        dropped = held[start:]
        if dropped:
            self._holders[dropped] -= 1
            self._free.extend(cell for cell in dropped if self._holders[cell] == 0)
            del held[start:]
        if not held:
            del self._held[sequence]

    def check(self) -> None:
        """Assert that every cell is either free or held as often as its count says."""
        counts = np.zeros(self.capacity, np.int32)
        for held in self._held.values():
            np.add.at(counts, held, 1)
        assert (counts == self._holders).all()
        assert len(self._free) == int((counts == 0).sum())
