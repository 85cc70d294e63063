"""The server's side of a model's worker: start it, submit requests, stream what comes back, notice when it dies.

The worker is a child process of its own (`server.engine.worker`); the two talk over `server.engine.channel`. Nothing
here imports llama.cpp.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Self

from msgspec import structs

from server.engine.channel import ChannelFullError, ServerEnd, WorkerGoneError
from server.engine.messages import (
    Cancel,
    Delta,
    Detokenize,
    Done,
    Embed,
    Embeddings,
    FromWorker,
    GetStats,
    LoadFailed,
    LoadProgress,
    Ready,
    Refused,
    Shutdown,
    Stats,
    Steps,
    Text,
    Tokenize,
    Tokens,
    ToWorker,
    Warned,
)
from server.engine.worker_process import WorkerProcess
from server.errors import LoadError, RequestError

if TYPE_CHECKING:
    from server.engine.load_spec import LoadSpec, ModelInfo
    from server.engine.request import Generate, Medium

logger = logging.getLogger(__name__)

LAST_WORDS = 1.0
"""Seconds in which what an ended worker has said is read."""

Progress = Callable[[LoadProgress], None]
Answer = Tokens | Text | Embeddings | Stats


class _Stream:
    """One request's undelivered results.

    Deltas of a choice merge while nobody reads, so that a slow reader costs no queue: only what tells more than text
    (log-probabilities, progress) stays by itself.
    """

    def __init__(self) -> None:
        self._waiting: deque[Delta | Done | RequestError] = deque()
        self._taken = 0
        self._latest: dict[int, int] = {}  # where each choice's last delta stands, counted from the first item of all
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: Delta | Done | RequestError) -> None:
        if not isinstance(item, Delta) or not self._merged(item):
            self._waiting.append(item)
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Delta | Done:
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._waiting.popleft()
        self._taken += 1
        if isinstance(item, RequestError):
            raise item
        return item

    def _merged(self, delta: Delta) -> bool:
        """Whether a delta could be put to the last one of its choice that still waits."""
        place = self._latest.get(delta.index, -1) - self._taken
        last = self._waiting[place] if place >= 0 else None
        if isinstance(last, Delta) and _may_merge(last, delta):
            self._waiting[place] = _merge(last, delta)
            return True
        self._latest[delta.index] = self._taken + len(self._waiting)
        return False


def _may_merge(first: Delta, second: Delta) -> bool:
    """Whether two deltas of a choice say no more than text. Progress stays by itself, and what has its own figures."""
    alone = second.logprobs or first.progress or second.progress
    return first.finish is None and not alone


def _merge(first: Delta, second: Delta) -> Delta:
    return structs.replace(
        second,
        text=first.text + second.text,
        tokens=first.tokens + second.tokens,
        logprobs=first.logprobs + second.logprobs,
        prompt_logprobs=first.prompt_logprobs + second.prompt_logprobs,
    )


class Engine:
    """A loaded model in a process of its own.

    Attributes:
        spec: what was asked to be loaded.
        info: what the model turned out to be.
    """

    def __init__(self, spec: LoadSpec, on_progress: Progress | None) -> None:
        self.spec = spec
        self.info: ModelInfo
        self._on_progress = on_progress
        self._loaded: asyncio.Future[ModelInfo] = asyncio.get_running_loop().create_future()
        self._process: WorkerProcess
        self._channel: ServerEnd
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._stopping = False
        self._watching: asyncio.Task[None] | None = None
        self.died = asyncio.Event()

    @classmethod
    async def start(cls, spec: LoadSpec, *, on_progress: Progress | None = None) -> Self:
        """Start a worker and load a model into it.

        Args:
            spec: the model file, its placement and its limits.
            on_progress: called with each `LoadProgress` while weights are read.

        Raises:
            LoadError: the model could not be loaded, or its worker died while loading.
        """
        engine = cls(spec, on_progress)
        engine._channel = channel = await ServerEnd.open(engine._take)
        try:
            engine._process = await WorkerProcess.start(tuple(end.fileno() for end in channel.worker_sockets))
        except BaseException:
            channel.close()
            raise
        channel.close_worker_sockets()
        try:
            await engine._load()
        except BaseException:
            await engine.kill()
            raise
        return engine

    async def _load(self) -> None:
        self._channel.send(self.spec)
        ended = asyncio.ensure_future(self._channel.over.wait())
        try:
            await asyncio.wait({self._loaded, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not self._loaded.done():
            await self._process.wait()
            message = f"{self.spec.name}: {self._process.cause_of_death}"
            raise LoadError(message, out_of_memory=self._process.ran_out_of_memory)
        self.info = self._loaded.result()
        self._watching = asyncio.create_task(self._watch())

    async def generate(self, request: Generate) -> AsyncGenerator[Delta | Done]:
        """Run a request; its id is chosen here. Yields deltas and at last one `Done`. Closing the generator cancels it.

        Raises:
            RequestError: the worker refused the request, or died while answering it.
        """
        number = next(self._ids)
        stream = self._streams[number] = _Stream()
        over = False
        try:
            self._send(structs.replace(request, id=number))
            while not over:
                item = await stream.get()
                over = isinstance(item, Done)
                yield item
        except RequestError:
            over = True
            raise
        finally:
            del self._streams[number]
            if not over and not self._process.ended:
                with contextlib.suppress(RequestError):
                    self._send(Cancel(number))

    async def tokenize(
        self,
        text: str,
        *,
        media: list[Medium] | None = None,
        add_special: bool = False,
        parse_special: bool = True,
        pieces: bool = False,
    ) -> Tokens:
        """Turn text, and what it shows, into token ids; with `pieces`, also each token's bytes."""
        number = next(self._ids)
        message = Tokenize(
            id=number,
            text=text,
            media=media or [],
            add_special=add_special,
            parse_special=parse_special,
            pieces=pieces,
        )
        answer = await self._ask(number, message)
        assert isinstance(answer, Tokens)
        return answer

    async def detokenize(self, tokens: list[int]) -> str:
        """Turn token ids into text. Raises RequestError for an id outside the vocabulary."""
        number = next(self._ids)
        answer = await self._ask(number, Detokenize(number, tokens))
        assert isinstance(answer, Text)
        return answer.text

    async def embed(
        self, inputs: Sequence[str | list[int]], *, query: str | None = None, truncate: bool = False
    ) -> Embeddings:
        """Embed texts or token lists; with `query`, score texts against it. Cancelling it cancels the work.

        Raises:
            RequestError: the model gives no embeddings, or an input is too long and not to be cut (`truncate`).
        """
        number = next(self._ids)
        answer = await self._ask(number, Embed(id=number, inputs=list(inputs), query=query, truncate=truncate))
        assert isinstance(answer, Embeddings)
        return answer

    async def stats(self) -> Stats:
        """The worker's counters, gauges and histograms, as they stand now."""
        number = next(self._ids)
        answer = await self._ask(number, GetStats(number))
        assert isinstance(answer, Stats)
        return answer

    @property
    def alive(self) -> bool:
        """Whether the worker runs and takes requests."""
        return not self._process.ended and not self._stopping

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def running(self) -> int:
        """How many requests have been submitted and are not over."""
        return len(self._streams) + len(self._answers)

    async def stop(self, grace: float = 0.0) -> None:
        """Let running requests end for at most `grace` seconds, then end the worker. Safe to call twice."""
        if self.alive:
            self._stopping = True
            with contextlib.suppress(RequestError):
                self._send(Shutdown(grace))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace + 3.0)
        await self.kill()

    async def kill(self) -> None:
        """End the worker at once and free everything that belonged to it."""
        self._stopping = True
        await self._process.kill()
        try:
            await self._hear_it_out()
        finally:
            self._fail_everything("the model was stopped")
            if self._watching:
                self._watching.cancel()
            self._process.forget_log()
            self._channel.close()

    async def _hear_it_out(self) -> None:
        """Wait for what the worker said before its end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._channel.over.wait(), LAST_WORDS)

    def _send(self, message: ToWorker) -> None:
        try:
            if self._process.ended:
                raise WorkerGoneError
            self._channel.send(message)
        except WorkerGoneError as error:
            raise _unavailable(f"the process of {self.spec.name} has ended; try again shortly") from error
        except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, which no text is
            raise RequestError("the text is not Unicode: it has half of a surrogate pair") from error
        except OverflowError as error:
            raise RequestError("a number is larger than 64 bits hold") from error
        except ChannelFullError as error:
            raise RequestError(
                "the model cannot take more requests right now; try again shortly", status=503, retry_after=1.0
            ) from error

    async def _ask(self, number: int, message: ToWorker) -> Answer:
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(message)
            return await future
        except asyncio.CancelledError:  # what is still to be read or computed for it need not be
            with contextlib.suppress(RequestError):
                self._send(Cancel(number))
            raise
        finally:
            del self._answers[number]

    def _take(self, message: FromWorker) -> None:
        """Pass on what the worker says to whom it is for."""
        match message:
            case Steps(deltas, done):
                for item in itertools.chain(deltas, done):
                    if stream := self._streams.get(item.id):
                        stream.put(item)
            case Refused():
                self._fail(message.id, _as_error(message))
            case Tokens() | Text() | Embeddings() | Stats():
                answer = self._answers.get(message.id)
                if answer and not answer.done():
                    answer.set_result(message)
            case LoadProgress():
                if self._on_progress:
                    self._on_progress(message)
            case LoadFailed(text, out_of_memory):
                if not self._stopping:
                    self._loaded.set_exception(LoadError(text, out_of_memory=out_of_memory))
            case Ready(info):
                self._loaded.set_result(info)
            case Warned(text):
                logger.warning("%s: %s", self.spec.name, text)

    def _fail(self, number: int, error: RequestError) -> None:
        if stream := self._streams.get(number):
            stream.put(error)
        answer = self._answers.get(number)
        if answer and not answer.done():
            answer.set_exception(error)

    def _fail_everything(self, message: str) -> None:
        for number in [*self._streams, *self._answers]:
            self._fail(number, _unavailable(message))

    async def _watch(self) -> None:
        await self._process.wait()
        await self._hear_it_out()
        if not self._stopping:
            self._fail_everything(
                f"the process of {self.spec.name} ended while answering: {self._process.cause_of_death}"
            )
        self.died.set()


def _unavailable(message: str) -> RequestError:
    return RequestError(message, status=503, code="model_unavailable", retry_after=1.0)


def _as_error(refused: Refused) -> RequestError:
    return RequestError(
        refused.message,
        status=refused.status,
        code=refused.code,
        param=refused.param,
        retry_after=refused.retry_after,
        figures=refused.figures,
    )
