"""The loop of a worker that gives embeddings: it has no answers to decode, so it needs no scheduler and no cache."""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import TYPE_CHECKING

from server.engine.cores import usable_cores
from server.engine.description import describe
from server.engine.embedder import Embedder
from server.engine.llama.backend import device_bytes
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.messages import Cancel, Embeddings, GetStats, Refused, Shutdown, Stats
from server.engine.orders import EmbedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from server.engine.channel import WorkerEnd
    from server.engine.load_spec import LoadSpec
    from server.engine.orders import Order

SEQUENCES = 64
"""Inputs that share a batch."""
SEQUENCES_WITH_STATE = 4
"""The same for models that keep a state or a window for each sequence from the start."""
CELL_PADDING = 256
IDLE_WAIT = 1.0


class _Job:
    """A request being embedded."""

    def __init__(self, request: EmbedRequest) -> None:
        self.number = request.number
        self.waiting = deque(request.inputs)
        self.lengths = [len(tokens) for tokens in request.inputs]
        self.vectors: list[npt.NDArray[np.float32]] = []

    def answer(self) -> Embeddings:
        return Embeddings(self.number, [vector.astype("<f4").tobytes() for vector in self.vectors], self.lengths)


class EmbeddingWorker:
    """A loaded model and the loop that embeds: inputs of all requests share batches, in the order of their arrival.

    Raises:
        LoadError: the model or its context could not be made.
    """

    def __init__(
        self, spec: LoadSpec, channel: WorkerEnd, orders: queue.SimpleQueue[Order], on_progress: Callable[[float], None]
    ) -> None:
        begun = time.monotonic()
        self._spec = spec
        self._channel = channel
        self._orders = orders
        self._stop_at: float | None = None
        self._jobs: deque[_Job] = deque()
        self._embedded = {"embedding_inputs_total": 0.0, "embedding_tokens_total": 0.0, "embedding_seconds_total": 0.0}
        self.model = Model(spec, on_progress)
        self.projector = None
        length = spec.context or self.model.context_train
        shape = ContextShape(
            cells=-(-length // CELL_PADDING) * CELL_PADDING,
            sequences=min(SEQUENCES if self.model.truncatable else SEQUENCES_WITH_STATE, spec.placement.n_ubatch),
            unified=True,
            batch=spec.placement.n_batch,
            ubatch=spec.placement.n_ubatch,
        )
        self._context = context = Context(self.model, spec, shape)
        threads = spec.threads or usable_cores()
        context.set_threads(threads, threads)
        self._embedder = Embedder(context)
        longest = min(length, self._embedder.longest)
        held = {"model": device_bytes()}
        self.info = describe(spec, context, longest, (threads, threads), time.monotonic() - begun, held)

    def run(self) -> None:
        """Serve until told to stop and all that waits is done, or its time is over."""
        self._context.bind_threads()  # no sooner: those that this one has started are not for one CPU
        while not self._over():
            self._take_orders()
            self._embed(self._next_batch())

    def _over(self) -> bool:
        return self._stop_at is not None and (not self._jobs or time.monotonic() >= self._stop_at)

    def _take_orders(self) -> None:
        """Carry out what has been ordered; wait for orders where there is nothing to embed."""
        while True:
            try:
                self._carry_out(self._orders.get(timeout=0.0 if self._jobs or self._stop_at else IDLE_WAIT))
            except queue.Empty:
                return

    def _carry_out(self, order: Order) -> None:
        match order:
            case EmbedRequest(number=number):
                if len(self._jobs) >= self._spec.queue_limit:
                    text = f"{self._spec.queue_limit} requests are waiting already; try again later"
                    self._channel.send(Refused(id=number, message=text, status=429, code="queue_full", retry_after=1.0))
                else:
                    self._jobs.append(_Job(order))
            case Cancel(number):
                self._jobs = deque(job for job in self._jobs if job.number != number)
            case GetStats(number):
                gauges = {"embedding_requests_waiting": float(len(self._jobs))}
                self._channel.send(Stats(id=number, counters=self._embedded, gauges=gauges))
            case Shutdown(grace):
                self._stop_at = time.monotonic() + grace
            case _:
                pass  # requests for text have been refused by the reader

    def _next_batch(self) -> list[tuple[_Job, list[int]]]:
        """The next inputs that fit into one batch; a long one goes alone."""
        batch: list[tuple[_Job, list[int]]] = []
        room = self._embedder.together
        for job in self._jobs:
            while job.waiting and len(batch) < self._embedder.sequences:
                if batch and len(job.waiting[0]) > room:
                    return batch
                batch.append((job, job.waiting.popleft()))
                room -= len(batch[-1][1])
        return batch

    def _embed(self, batch: list[tuple[_Job, list[int]]]) -> None:
        if not batch:
            return
        begun = time.monotonic()
        vectors = self._embedder.embed([tokens for _, tokens in batch])
        self._embedded["embedding_inputs_total"] += len(batch)
        self._embedded["embedding_tokens_total"] += sum(len(tokens) for _, tokens in batch)
        self._embedded["embedding_seconds_total"] += time.monotonic() - begun
        for (job, _), vector in zip(batch, vectors, strict=True):
            job.vectors.append(vector)
        while self._jobs and not self._jobs[0].waiting:
            self._channel.send(self._jobs.popleft().answer())
