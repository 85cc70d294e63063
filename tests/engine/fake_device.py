"""A device that computes nothing but keeps strict books: what each sequence holds, and what would come next after it.

It stands in for llama.cpp where a test wants thousands of requests: the next token is a digest of all tokens that the
sequence's state was computed from, so any mistake in sharing, cutting, copying or restoring state changes the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from server.engine.spare_memory import SpareMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

VOCABULARY = 64
END = 0


def next_token(tokens: Sequence[int]) -> int:
    """What the model says after a run of tokens; now and then the end token."""
    digest = xxhash.xxh3_64_intdigest(np.asarray(tokens, np.int32).tobytes())
    return END if digest % 41 == 0 else 1 + digest % (VOCABULARY - 1)


class FakeVocab:
    """Tokens are letters; token 0 ends a generation."""

    end_tokens = frozenset({END})
    size = VOCABULARY

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"" if token == END and not special else bytes([48 + token])


class FakeDevice:
    """Sequences of tokens in cells, as a llama.cpp context keeps them."""

    def __init__(self, sequences: int, cells: int, *, unified: bool) -> None:
        self.unified = unified
        self.capacity = cells if unified else cells // sequences
        self.held: list[list[tuple[int, object]]] = [[] for _ in range(sequences)]
        self.computed = 0
        self.spare_memory = SpareMemory(1000)
        self._rows: list[int] = []

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[int],
        *,
        generating: bool = False,
    ) -> bool:
        del generating  # concerns threads alone
        if self.unified and self._used() + len(tokens) > self.capacity:
            return False
        self._rows = []
        wanted = set(outputs)
        for i, (token, position, sequence) in enumerate(zip(tokens, positions, sequences, strict=True)):
            held = self.held[sequence]
            assert position == len(held), "a position that does not go on from the sequence's state"
            held.append((token, object()))
            assert self.unified or len(held) <= self.capacity, "a sequence beyond its buffer"
            if i in wanted:
                self._rows.append(next_token([t for t, _ in held]))
        self.computed += len(tokens)
        return True

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        assert rows == len(self._rows)
        logits = np.zeros((rows, VOCABULARY), np.float32)
        logits[np.arange(rows), self._rows] = 1.0
        return logits

    def drop(self, sequence: int, start: int = 0) -> bool:
        del self.held[sequence][start:]
        return True

    def copy(self, source: int, target: int) -> None:
        assert not self.held[target], "a copy onto a sequence that is in use"
        cells = self.held[source]
        self.held[target] = list(cells) if self.unified else [(token, object()) for token, _ in cells]

    def share(self, source: int, target: int, length: int) -> None:
        assert self.unified, "cells cannot be shared between separate buffers"
        assert not self.held[target]
        self.held[target] = self.held[source][:length]

    def save_state(self, sequence: int) -> npt.NDArray[np.uint8]:
        held = self.held[sequence]
        state = self.spare_memory.take(4 * len(held))
        state.view(np.int32)[:] = [token for token, _ in held]
        return state

    def restore_state(self, sequence: int, data: npt.NDArray[np.uint8]) -> bool:
        tokens = data.view(np.int32).tolist()
        self.held[sequence] = []
        if self.unified and self._used() + len(tokens) > self.capacity:
            return False
        self.held[sequence] = [(token, object()) for token in tokens]
        return True

    def _used(self) -> int:
        return len({id(cell) for held in self.held for _, cell in held})
