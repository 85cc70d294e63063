"""A model's process: loads the model, then decodes until told to stop.

Four threads: the intake receives, the reader tokenizes, this one decodes, and the disk tier writes. The process ends by
itself when its server is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from server.engine.channel import WorkerEnd
from server.engine.context_shape import FLASH_PIECE, PLAIN_PIECE, PLAIN_UNIT, context_shape, state_key
from server.engine.costs import Costs
from server.engine.description import describe
from server.engine.draft import DraftModel
from server.engine.embedding_worker import EmbeddingWorker
from server.engine.encoder import Encoder
from server.engine.intake import Intake
from server.engine.kv_cache import KvCache
from server.engine.kv_sources import Layout
from server.engine.kv_store import DiskStore
from server.engine.llama.backend import device_bytes
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import LoadSpec
from server.engine.messages import (
    Cancel,
    GetStats,
    LoadFailed,
    LoadProgress,
    Ready,
    Refused,
    Shutdown,
    Stats,
    Steps,
    Warned,
)
from server.engine.orders import EmbedRequest
from server.engine.outbox import Outbox
from server.engine.prefix_cache import Tier
from server.engine.projector import Projector
from server.engine.proposals import Predictions, PromptLookup, Proposer
from server.engine.reader import Reader
from server.engine.runner import Runner
from server.engine.scheduler import Limits, QueueFullError, Scheduler
from server.engine.sequence import Request
from server.engine.tuning import Tuning, tune
from server.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engine.orders import Order

IDLE_WAIT = 0.5
"""Seconds without an order after which idle states are written to disk."""
NAP = 0.005
"""Seconds between looks at what other threads do while all prompts wait for a state from disk or for an encoder."""
CACHE_CHECK_STEPS = 20_000

log = logging.getLogger("brim.worker")


def main() -> None:
    """Run a worker on the sockets whose numbers the command line gives."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = WorkerEnd(int(sys.argv[1]), int(sys.argv[2]))
    logging.getLogger("brim").addHandler(_ToServer(channel))
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_end_with_server, args=(orders,), name="parent", daemon=True).start()
    try:
        spec = channel.receive()
    except EOFError:
        return
    assert isinstance(spec, LoadSpec)
    try:
        kind = EmbeddingWorker if spec.embedding else Worker
        worker = kind(spec, channel, orders, _reporter(channel))
    except Exception as error:
        foreseen = isinstance(error, LoadError)
        if not foreseen:
            log.exception("the model could not be loaded")
        text = str(error) if foreseen else f"{spec.name} could not be loaded: {type(error).__name__}: {error}"
        channel.send(LoadFailed(text, foreseen and error.out_of_memory))
        os._exit(1)
    reader = Reader(channel, worker.model, spec, worker.info.context, orders, worker.projector)
    reader.start()
    Intake(channel, reader, orders).start()
    channel.send(Ready(worker.info))
    worker.run()
    os._exit(0)  # the intake still waits on its socket; nothing else is left to do


def _limits(spec: LoadSpec, shape: ContextShape) -> Limits:
    return Limits(
        parallel=spec.parallel,
        queue=spec.queue_limit,
        batch=shape.batch,
        ubatch=shape.ubatch,
        efficient_chunk=FLASH_PIECE if shape.flash else PLAIN_PIECE,
        chunk_unit=FLASH_PIECE if shape.flash else PLAIN_UNIT,
        mixed=spec.placement.n_gpu_layers > 0,
    )


class _ToServer(logging.Handler):
    """Puts warnings into the server's log; errors, which may repeat a part of a prompt, stay in the worker's own."""

    def __init__(self, channel: WorkerEnd) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._channel.send(Warned(record.getMessage()))


def _end_with_server(orders: queue.SimpleQueue[Order]) -> None:
    """Wait for the end of standard input, which the server holds open, and then leave, even where a step hangs."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    orders.put(Shutdown(0.0))
    time.sleep(5.0)
    os._exit(1)


class Worker:
    """A loaded model and the loop that serves it.

    Raises:
        LoadError: the model or its context could not be made.
    """

    def __init__(
        self, spec: LoadSpec, channel: WorkerEnd, orders: queue.SimpleQueue[Order], on_progress: Callable[[float], None]
    ) -> None:
        begun = time.monotonic()
        self._spec = spec
        self._channel = channel
        self._outbox = Outbox(channel.send, spec.stream_interval, time.monotonic)
        self._orders = orders
        self._stop_at: float | None = None
        self._stalled = False
        self._worked_at = time.monotonic()
        self.model = Model(spec, on_progress)
        context_length = spec.context or self.model.context_train
        shape = context_shape(spec, self.model, context_length)
        self._context = Context(self.model, spec, shape)
        channel.send(LoadProgress(1.0, "measuring"))
        tuning = tune(self._context, spec)
        self._cache = self._make_cache(shape, tuning)
        held = {"model": device_bytes()}
        self.projector = Projector(self.model, spec, tuning.threads_batch) if spec.projector_path else None
        if self.projector:
            held["projector"] = self.projector.device_bytes
        encoder = Encoder(self.projector, self._refuse) if self.projector else None
        proposers = self._proposers(context_length, tuning)
        for proposer in proposers:
            if isinstance(proposer, DraftModel):
                held["draft"] = proposer.device_bytes
        self._scheduler = Scheduler(self._cache, _limits(spec, shape), proposers, encoder)
        for width, seconds in tuning.step_seconds.items():
            self._scheduler.times.learn(width, seconds)
        self._runner = Runner(
            self._context,
            self.model.vocab,
            self._scheduler,
            self._cache,
            helpers=min(tuning.threads, spec.parallel),
            encoder=encoder,
            before_prompts=self._outbox.flush,
        )
        threads = (tuning.threads, tuning.threads_batch)
        seconds = time.monotonic() - begun
        self.info = describe(spec, self._context, context_length, threads, seconds, held, self.projector)

    def _make_cache(self, shape: ContextShape, tuning: Tuning) -> KvCache:
        spec = self._spec
        layout = Layout(
            sequences=shape.sequences,
            cells=shape.cells,
            unified=shape.unified,
            truncatable=self.model.truncatable,
            copied_bytes=0 if shape.unified else self._bytes_per_token(),
        )
        costs = Costs()
        costs.prefill.learn(tuning.prefill_rate, 1.0)
        spare = self._context.spare_memory
        disk = None
        if spec.cache_disk:
            try:
                disk = DiskStore(Path(spec.cache_dir), state_key(spec, shape, self.model), spec.cache_disk, spare)
            except OSError as error:
                log.warning("nothing is cached on disk: %s", error)
        ram_limit = spec.cache_ram - spare.limit - (2 * disk.room if disk else 0)
        return KvCache(self._context, layout, ram_limit=ram_limit, disk=disk, costs=costs, clock=time.monotonic)

    def _proposers(self, context: int, tuning: Tuning) -> list[Proposer]:
        proposers: list[Proposer] = [Predictions(), PromptLookup()] if self._spec.lookup else []
        if self._spec.draft_path:
            draft = DraftModel(self._spec, self.model.vocab, context)
            draft.set_threads(tuning.threads, tuning.threads_batch)
            proposers.append(draft)
        return proposers

    def _bytes_per_token(self) -> int:
        """Bytes of state that one token adds, from two short sequences."""
        sizes: list[int] = []
        for length in (1, 9):
            self._context.drop(0)
            self._context.decode([0] * length, range(length), [0] * length, [length - 1])
            sizes.append(self._context.state_size(0))
        self._context.drop(0)
        return max((sizes[1] - sizes[0]) // 8, 1)

    def run(self) -> None:
        """Serve until told to stop and all that runs has ended, or its time is over."""
        self._context.bind_threads()  # no sooner: those that this one has started are not for one CPU
        checked = 0
        while not self._over():
            self._take_orders()
            if self._cache.lower.collect():
                continue
            if expired := self._runner.expire(time.monotonic()):
                self._outbox.put(expired, hurry=True)
            steps = self._step()
            self._stalled = steps is None
            if steps is None:
                self._outbox.flush()
            else:
                self._worked_at = time.monotonic()
                self._tell(steps)
            for refused in self._runner.take_refusals():
                self._outbox.flush()
                self._channel.send(refused)
            if self._runner.metrics.steps - checked >= CACHE_CHECK_STEPS:
                checked = self._runner.metrics.steps
                self._cache.check()
        self._outbox.flush()
        wait = max(2.0, (self._stop_at or 0.0) - time.monotonic())
        self._cache.lower.shut_down(wait)

    def _tell(self, steps: Steps) -> None:
        """Send what a step gave. It takes the longer since the server, which that wakes, may be given this core."""
        begun, computed = time.monotonic(), time.thread_time()
        self._outbox.put(steps, hurry=not self._runner.generating)
        self._runner.metrics.busy_seconds += time.monotonic() - begun
        self._runner.metrics.own_cpu_seconds += time.thread_time() - computed

    def _step(self) -> Steps | None:
        try:
            return self._runner.step()
        except RuntimeError as error:
            for refused in self._runner.fail(str(error)):
                self._channel.send(refused)
            raise

    def _over(self) -> bool:
        if self._stop_at is None:
            return False
        return not self._runner.requests or time.monotonic() >= self._stop_at

    def _take_orders(self) -> None:
        """Carry out what has been ordered; wait for orders where there is nothing to decode."""
        while True:
            patience = self._patience()
            if not patience and self._orders.empty():
                return
            try:
                order = self._orders.get(timeout=patience)
            except queue.Empty:
                self._use_leisure()
                return
            self._carry_out(order)
            self._stalled = False
            self._use_leisure()  # questions about statistics must not keep it from its duty

    def _use_leisure(self) -> None:
        """Tidy the cache up where nothing has been computed for a while."""
        self._cache.lower.collect()  # as before every step: what the disk has taken may have to make room
        if not self._runner.requests and time.monotonic() - self._worked_at >= IDLE_WAIT:
            self._cache.lower.tidy()

    def _patience(self) -> float:
        if self._scheduler.running or self._scheduler.waiting or self._stop_at is not None:
            return NAP if self._stalled else 0.0
        return IDLE_WAIT

    def _carry_out(self, order: Order) -> None:
        match order:
            case Request():
                self._submit(order)
            case Cancel(number):
                self._runner.cancel(number)
            case GetStats(number):
                self._channel.send(self._stats(number))
            case Shutdown(grace):
                self._stop_at = time.monotonic() + grace
            case EmbedRequest():
                pass  # the reader has refused it

    def _refuse(self, number: int, fault: str) -> None:
        """End a request whose image or sound could not be encoded; called on the encoder's thread."""
        self._channel.send(Refused(id=number, message=f"{fault}; send another", param="messages"))
        self._orders.put(Cancel(number))

    def _submit(self, request: Request) -> None:
        number = request.ask.id
        if self._stop_at is not None:
            text = "the server is shutting down; try again in a moment"
            self._channel.send(Refused(id=number, message=text, status=503, code="shutting_down", retry_after=5.0))
            return
        try:
            self._runner.submit(request)
        except QueueFullError:
            text = f"{self._spec.queue_limit} requests are waiting already; try again later"
            retry = max(1.0, len(self._scheduler.waiting) / max(1, self._spec.parallel))
            self._channel.send(Refused(id=number, message=text, status=429, code="queue_full", retry_after=retry))

    def _stats(self, number: int) -> Stats:
        cache, scheduler = self._cache, self._scheduler
        counters = self._runner.metrics.counters() | {"preemptions_total": float(scheduler.preemptions)}
        for tier in Tier:
            label = f'{{tier="{tier.name.lower()}"}}'
            counters[f"prefix_cache_hits_total{label}"] = cache.hits[tier]
            counters[f"prefix_cache_tokens_saved_total{label}"] = cache.tokens_saved[tier]
            counters[f"prefix_cache_evictions_total{label}"] = cache.evictions[tier]
        gauges = {
            "requests_running": len(scheduler.running),
            "requests_waiting": len(scheduler.waiting),
            "kv_cells_used": cache.device_tokens,
            "kv_cells": cache.layout.cells,
            'prefix_cache_bytes{tier="ram"}': cache.lower.ram_bytes,
            'prefix_cache_bytes{tier="disk"}': cache.lower.disk_bytes,
            "prefill_tokens_per_second": cache.costs.prefill.value,
            "resident_bytes": psutil.Process().memory_info().rss,
        }
        return Stats(id=number, counters=counters, gauges=gauges, histograms=self._runner.metrics.histograms())


def _reporter(channel: WorkerEnd) -> Callable[[float], None]:
    """Passes on how much has been read, one percent at a time."""
    last = -1

    def report(fraction: float) -> None:
        nonlocal last
        percent = int(fraction * 100)
        if percent > last:
            last = percent
            channel.send(LoadProgress(fraction))

    return report


if __name__ == "__main__":
    main()
