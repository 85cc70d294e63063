"""A chat template at work in a process of its own: it is a stranger's program, and may never end or take all memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE, Popen, TimeoutExpired
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

import msgspec

from server.chat.formats import detect, named
from server.chat.rendering import (
    LENGTH_BYTES,
    MOST_FRAME,
    MOST_SECONDS,
    Answer,
    Load,
    Loaded,
    Question,
    Refused,
    Render,
    Rendered,
    decode_answer,
    frame,
)
from server.chat.template import CHATML, Prompt, template_fault
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from server.chat.template import Message

LONGEST_ANSWER = 3.0 * MOST_SECONDS
"""Seconds after which a process is given up that has not even used up its time: the machine may be busy."""
LONGEST_WAIT = 30.0
"""Seconds that a request waits for others' renderings."""
FAILED_FOR = 60.0
"""Seconds for which a template that cannot be loaded is not tried again."""
LAST_WORDS = 2.0
"""Seconds for which a process that has closed its output may take to end."""
_ENVIRONMENT = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSAFEPATH", "HOME", "LD_LIBRARY_PATH", "LANG", "TZ"}
)
"""What the process is given of the server's environment, which may have keys."""


class Renderer:
    """Renders conversations with a model's chat template, one after the other.

    Args:
        source: the Jinja source; None takes ChatML.
        special_tokens: texts under the names that templates use (`bos_token`, `eos_token`, ...).
        chat_format: the name of how the model writes reasoning and calls; None tells it from the source.

    Attributes:
        source: the Jinja source.
        format: how the model writes reasoning and calls.

    The process is started when it is first needed, or by `start`, and again after a template that had to be stopped.
    """

    def __init__(
        self, source: str | None, special_tokens: Mapping[str, str] | None = None, chat_format: str | None = None
    ) -> None:
        self.source = source or CHATML
        self.format = named(chat_format) if chat_format else detect(self.source)
        self._process = Process(Load(self.source, dict(special_tokens or {}), chat_format))
        self._thread = ThreadPoolExecutor(1, "template")
        self._turn = asyncio.Lock()

    @property
    def variables(self) -> frozenset[str]:
        """What the template may be told, by name; known once it was started."""
        return self._process.variables

    async def start(self) -> None:
        """Compile the template and try it out, so that the first request need not wait; `render` tells what fails."""
        with contextlib.suppress(RequestError):
            await self._ask(None)

    async def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
        thinking: bool | None = None,
    ) -> Prompt:
        """Turn a conversation into a prompt, as `ChatTemplate.render` does.

        Raises:
            RequestError: the template does not compile, fails, takes too long, or refuses these messages; 503 where
                others keep it busy, or it cannot be run now.
        """
        question = Render(list(messages), [dict(tool) for tool in tools], dict(variables or {}), thinking)
        answer = await self._ask(question)
        if isinstance(answer, Refused):
            raise _refusal(answer)
        assert isinstance(answer, Rendered)
        return Prompt(answer.text, answer.boundaries, answer.begun)

    async def aclose(self) -> None:
        """End the process for good."""
        if not self._process.closed:
            self._process.close()
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._process.reap)
            finally:
                self._thread.shutdown(wait=False)

    async def _ask(self, question: Question | None) -> Answer | None:
        async with in_turn(self._turn):
            if self._process.closed:
                raise _unloaded()
            try:
                async with asyncio.timeout(LONGEST_ANSWER):
                    return await asyncio.get_running_loop().run_in_executor(self._thread, self._process.ask, question)
            except TimeoutError:
                self._process.stop()
                raise template_fault(f"it takes longer than {LONGEST_ANSWER:g} s") from None
            except asyncio.CancelledError:
                self._process.stop()  # or its answer would be taken for the next question's
                raise


class Process:
    """The process of one template. To be used from one thread at a time, but for `stop` and `close`.

    Attributes:
        variables: what the template may be told, by name; known once the process was started.
        closed: whether it has been ended for good.
    """

    def __init__(self, load: Load) -> None:
        self.variables: frozenset[str] = frozenset()
        self.closed = False
        self._load = load
        self._running: Popen[bytes] | None = None
        self._guard = Lock()
        self._stopped = False
        self._fault: RequestError | None = None
        self._failed_at = 0.0

    def ask(self, question: Question | None) -> Answer | None:
        """Ask it something, after it was started if need be; None only starts it. Raises RequestError."""
        process = self._running
        if process is None or self._stopped or process.poll() is not None:
            process = self._start()
        return None if question is None else self._exchange(process, question)

    def stop(self) -> None:
        """End it now, whatever it does; the next question starts another."""
        with self._guard:
            self._stopped = True
            if self._running:
                self._running.kill()

    def close(self) -> None:
        """End it for good."""
        self.closed = True
        self.stop()

    def _start(self) -> Popen[bytes]:
        self.reap()
        if self._fault and time.monotonic() - self._failed_at < FAILED_FOR:
            raise self._fault
        with self._guard:
            if self.closed:
                raise _unloaded()
            self._stopped = False
            self._running = process = _spawn()
        try:
            loaded = self._exchange(process, self._load)
        except RequestError as error:
            if not self._stopped:  # it is the template's own fault
                self._fault, self._failed_at = error, time.monotonic()
            raise
        assert isinstance(loaded, Loaded)
        self.variables = frozenset(loaded.variables)
        return process

    def _exchange(self, process: Popen[bytes], question: Question) -> Answer:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(frame(question))
            process.stdin.flush()
            length = int.from_bytes(_exactly(process.stdout, LENGTH_BYTES))
            if length > MOST_FRAME:
                raise EOFError
            return decode_answer(_exactly(process.stdout, length))
        except (EOFError, OSError, msgspec.DecodeError) as error:
            raise self._cause_of_death() from error

    def _cause_of_death(self) -> RequestError:
        status = self.reap()
        if self.closed:
            return _unloaded()
        if sys.platform != "win32" and status == -signal.SIGPROF:
            return template_fault(f"it takes longer than {MOST_SECONDS} s")
        if status > 0:
            return _unavailable(f"the process of the model's chat template ended with status {status}")
        return template_fault("its process crashed")

    def reap(self) -> int:
        """Let go of a process that has ended, or does so now. Returns its status."""
        with self._guard:
            process, self._running = self._running, None
        if process is None:
            return 0
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        try:
            return process.wait(LAST_WORDS)
        except TimeoutExpired:
            process.kill()
            return process.wait()


def _spawn() -> Popen[bytes]:
    try:
        return Popen(
            [sys.executable, "-m", "server.chat.rendering"],
            stdin=PIPE,  # its end ends the process when the server is gone
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is the server's to handle
            env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
        )
    except OSError as error:
        raise _unavailable(f"no process for the model's chat template could be started: {error}") from error


def _exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise EOFError
    return data


@contextlib.asynccontextmanager
async def in_turn(gate: asyncio.Lock | asyncio.Semaphore) -> AsyncGenerator[None]:
    """Hold `gate` for the block. Raises RequestError, a 503, where it is not had within `LONGEST_WAIT` seconds."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await gate.acquire()
    except TimeoutError:
        raise _unavailable("chat templates are busy with other requests; try again shortly") from None
    try:
        yield
    finally:
        gate.release()


def check(source: str) -> None:
    """Try a template on a short conversation, blocking. Raises RequestError where it does not compile, or fails."""
    process = Process(Load(source, {}, None))
    try:
        answer = process.ask(Render([{"role": "user", "content": "Hello"}], [], {}, None))
    finally:
        process.close()
        process.reap()
    if isinstance(answer, Refused):
        raise _refusal(answer)


def _refusal(answer: Refused) -> RequestError:
    return RequestError(answer.message, status=answer.status, code=answer.code, param=answer.param)


def _unloaded() -> RequestError:
    return _unavailable("the model was unloaded meanwhile")


def _unavailable(message: str) -> RequestError:
    return RequestError(message, status=503, code="model_unavailable", retry_after=1.0)
