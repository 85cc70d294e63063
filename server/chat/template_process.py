"""The process in which a chat template is at work: it is a stranger's program, and may never end or take all memory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from subprocess import PIPE, Popen, TimeoutExpired
from threading import Lock
from typing import IO, TYPE_CHECKING

import msgspec

from server.chat.rendering import (
    LENGTH_BYTES,
    MOST_FRAME,
    MOST_SECONDS,
    Load,
    Loaded,
    Refused,
    Render,
    decode_answer,
    frame,
)
from server.chat.template import template_fault
from server.errors import RequestError

if TYPE_CHECKING:
    from server.chat.rendering import Answer, Question

FAILED_FOR = 60.0
"""Seconds for which a template that cannot be loaded is not tried again."""
LAST_WORDS = 2.0
"""Seconds for which a process that has closed its output may take to end."""
_ENVIRONMENT = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSAFEPATH", "HOME", "LD_LIBRARY_PATH", "LANG", "TZ"}
)
"""What the process is given of the server's environment, which may have keys."""


class TemplateProcess:
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
                raise unloaded()
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
            return unloaded()
        if sys.platform != "win32" and status == -signal.SIGPROF:
            return template_fault(f"it takes longer than {MOST_SECONDS} s")
        if status > 0:
            return unavailable(f"the process of the model's chat template ended with status {status}")
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
            [sys.executable, "-P", "-m", "server.chat.rendering"],
            stdin=PIPE,  # its end ends the process when the server is gone
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is the server's to handle
            env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
        )
    except OSError as error:
        raise unavailable(f"no process for the model's chat template could be started: {error}") from error


def _exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise EOFError
    return data


def check(source: str) -> None:
    """Try a template on a short conversation, blocking. Raises RequestError where it does not compile, or fails."""
    process = TemplateProcess(Load(source, {}, None))
    try:
        answer = process.ask(Render([{"role": "user", "content": "Hello"}], [], {}, None))
    finally:
        process.close()
        process.reap()
    if isinstance(answer, Refused):
        raise refusal(answer)


def refusal(answer: Refused) -> RequestError:
    """What a template refused, as an error of the request."""
    return RequestError(answer.message, status=answer.status, code=answer.code, param=answer.param)


def unloaded() -> RequestError:
    """The error where a model is gone."""
    return unavailable("the model was unloaded meanwhile")


def unavailable(message: str) -> RequestError:
    """An error that may be over at the next try."""
    return RequestError(message, status=503, code="model_unavailable", retry_after=1.0)
