"""The thread that turns prompts' images and sounds into embeddings, so that generations go on meanwhile."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engine.projector import Chunk, Embeddings, Projector

KEPT_BYTES = 256 * 2**20
"""Embeddings that are kept for a prompt that shows the same again."""


class Encoder:
    """Encodes chunks one after the other, and keeps the latest ones' embeddings.

    Args:
        on_failure: called on the encoder's thread with a request's number and what went wrong.
    """

    def __init__(self, projector: Projector, on_failure: Callable[[int, str], None]) -> None:
        self.projector = projector
        self._on_failure = on_failure
        self._wanted: queue.SimpleQueue[tuple[int, Chunk]] = queue.SimpleQueue()
        self._asked: set[Chunk] = set()
        self._kept: OrderedDict[str, Embeddings] = OrderedDict()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="encoder", daemon=True).start()

    def ready(self, number: int, chunk: Chunk) -> bool:
        """Whether a chunk can be decoded; if not, its embeddings are on their way. `number` is its request's."""
        if chunk.embeddings is not None:
            return True
        with self._lock:
            chunk.embeddings = self._kept.get(chunk.key)
        if chunk.embeddings is None and chunk not in self._asked:
            self._asked.add(chunk)
            self._wanted.put((number, chunk))
        return chunk.embeddings is not None

    def forget(self, chunk: Chunk) -> None:
        """Note that a chunk's request has ended."""
        self._asked.discard(chunk)

    def _run(self) -> None:
        while True:
            number, chunk = self._wanted.get()
            if chunk not in self._asked:
                continue
            try:
                chunk.embeddings = self.projector.encode(chunk)
            except Exception as error:  # whoever waits for an answer must get one, and others theirs
                self._on_failure(number, str(error) or type(error).__name__)
            else:
                self._keep(chunk.key, chunk.embeddings)

    def _keep(self, key: str, embeddings: Embeddings) -> None:
        with self._lock:
            self._kept[key] = embeddings
            self._kept.move_to_end(key)
            while sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
