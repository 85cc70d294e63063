"""The encoder's thread: one picture that fails is not the end of the others."""

from __future__ import annotations

import queue
from typing import Any, cast

import numpy as np
import pytest

from server.engine.encoder import Encoder
from server.engine.positions import Span
from server.engine.projector import Chunk, Embeddings


def chunk(key: str) -> Chunk:
    return Chunk(key, Span(0, 1, 1), whole=False, pointer=None)


class FailingOnce:
    """Stands in for a projector: no picture makes llama.cpp's run out of memory at will."""

    def __init__(self, error: Exception) -> None:
        self._errors = [error]

    def encode(self, chunk: Chunk) -> Embeddings:
        del chunk
        if self._errors:
            raise self._errors.pop()
        return np.zeros((1, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("it failed"), "it failed"), (ValueError("it failed"), "it failed"), (MemoryError(), "MemoryError")],
)
def test_whatever_goes_wrong_is_told_to_its_request_and_the_next_goes_on(error: Exception, told: str) -> None:
    told_to: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    encoder = Encoder(cast("Any", FailingOnce(error)), lambda number, fault: told_to.put((number, fault)))
    first, second = chunk("first"), chunk("second")
    encoder.ready(1, first)
    assert told_to.get(timeout=20) == (1, told)
    while not encoder.ready(2, second):
        assert told_to.empty()
    assert second.embeddings is not None
