"""Rendering conversations: requests take turns with the process that their model's chat template runs in."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from server.chat.formats import detect, named
from server.chat.rendering import MOST_SECONDS, Load, Refused, Render, Rendered
from server.chat.template import CHATML, Prompt, template_fault
from server.chat.template_process import TemplateProcess, refusal, unavailable, unloaded
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from server.chat.rendering import Answer, Question
    from server.chat.template import Message

LONGEST_ANSWER = 3.0 * MOST_SECONDS
"""Seconds after which a process is given up that has not even used up its time: the machine may be busy."""
LAST_MOMENT = 0.25
"""Seconds for which an answer that nobody wants any more may still come, before the process is ended for it: a client
that leaves costs the next one less by an answer, which takes milliseconds, than by a new process."""
LONGEST_WAIT = 30.0
"""Seconds that a request waits for others' renderings."""


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
        self._process = TemplateProcess(Load(self.source, dict(special_tokens or {}), chat_format))
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
            raise refusal(answer)
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
                raise unloaded()
            asking = asyncio.get_running_loop().run_in_executor(self._thread, self._process.ask, question)
            asking.add_done_callback(_told)
            try:
                async with asyncio.timeout(LONGEST_ANSWER):
                    return await asyncio.shield(asking)
            except TimeoutError:
                self._process.stop()
                raise template_fault(f"it takes longer than {LONGEST_ANSWER:g} s") from None
            except asyncio.CancelledError:
                _, unanswered = await asyncio.wait({asking}, timeout=LAST_MOMENT)
                if unanswered:
                    self._process.stop()
                raise


def _told(asking: asyncio.Future[Answer | None]) -> None:
    """Take what became of a question for known, whoever has waited for it."""
    if not asking.cancelled():
        asking.exception()


@contextlib.asynccontextmanager
async def in_turn(gate: asyncio.Lock | asyncio.Semaphore) -> AsyncGenerator[None]:
    """Hold `gate` for the block. Raises RequestError, a 503, where it is not had within `LONGEST_WAIT` seconds."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await gate.acquire()
    except TimeoutError:
        raise unavailable("chat templates are busy with other requests; try again shortly") from None
    try:
        yield
    finally:
        gate.release()
