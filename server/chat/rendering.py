"""A process that renders one chat template, within bounds of time and memory: `python -m server.chat.rendering`.

It reads frames from standard input and answers each on standard output: four bytes of length, then JSON, which has
integers of any size. The first frame is a `Load`, the others are `Render`s. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from server.chat.formats import named
from server.chat.template import ChatTemplate, template_fault
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import BinaryIO

MOST_SECONDS = 10
"""How long one frame may compute. Templates take milliseconds."""
MOST_BYTES = 1 << 30
"""How much memory the process may have; without a conversation it has some 30 MB."""
MOST_FRAME = 64 << 20
"""How many bytes an answer may have: more than any model reads."""
MOST_MESSAGE = 2000
"""How many characters of a fault are told."""
LENGTH_BYTES = 4


class Load(Struct, frozen=True, tag=True):
    """Compile a template and try out what it can do; the arguments are `ChatTemplate`'s. Answered by `Loaded`."""

    source: str
    special_tokens: dict[str, str]
    chat_format: str | None


class Render(Struct, frozen=True, tag=True):
    """Render a conversation; the fields are the arguments of `ChatTemplate.render`. Answered by `Rendered`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    variables: dict[str, Any]
    thinking: bool | None


class Loaded(Struct, frozen=True, tag=True):
    """The template is ready; it may be told these variables."""

    variables: list[str]


class Rendered(Struct, frozen=True, tag=True):
    """The fields are those of `Prompt`."""

    text: str
    boundaries: list[int]
    begun: str


class Refused(Struct, frozen=True, tag=True):
    """The template fails or refuses the conversation; the fields are those of `RequestError`."""

    message: str
    status: int
    code: str | None
    param: str | None


Question = Load | Render
Answer = Loaded | Rendered | Refused

_question: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def frame(message: Question | Answer) -> bytes:
    """A message as it goes through a pipe."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def decode_answer(body: bytes) -> Answer:
    """Read a frame's JSON. Raises msgspec.DecodeError where it is no answer."""
    return _answer.decode(body)


def answers(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer each frame of `source` on `sink`."""
    template: ChatTemplate | None = None
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        question = _question.decode(source.read(int.from_bytes(head)))
        with _limited_time():
            match question:
                case Load(text, tokens, name):
                    template = ChatTemplate(text, tokens, named(name) if name else None)
                    answer = Loaded(sorted(template.variables))
                case Render():
                    assert template  # the first frame loads it
                    answer = _render(template, question)
            sink.write(_bounded(answer))
        sink.flush()


def _render(template: ChatTemplate, asked: Render) -> Rendered | Refused:
    try:
        prompt = template.render(asked.messages, tools=asked.tools, variables=asked.variables, thinking=asked.thinking)
    except RequestError as error:
        return _refused(error)
    return Rendered(prompt.text, prompt.boundaries, prompt.begun)


def _bounded(answer: Answer) -> bytes:
    """An answer's frame, or the refusal of one that cannot be told."""
    try:
        data = frame(answer)
        fault = template_fault("the prompt is too long") if len(data) > MOST_FRAME else None
    except UnicodeEncodeError:
        data, fault = b"", template_fault("it writes half a surrogate pair")
    except MemoryError:
        data, fault = b"", template_fault("it takes too much memory")
    return frame(_refused(fault)) if fault else data


def _refused(error: RequestError) -> Refused:
    message = error.message.encode("utf-8", "replace").decode()
    shown = message if len(message) <= MOST_MESSAGE else f"{message[:MOST_MESSAGE]}..."
    return Refused(shown, error.status, error.code, error.param)


@contextlib.contextmanager
def _limited_time() -> Generator[None]:
    """End the process (by SIGPROF) if the block computes for too long, whether the server is still there or not."""
    if sys.platform == "win32":
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS knows the limit and may refuse to set it
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


if __name__ == "__main__":
    _limit_memory()
    answers(sys.stdin.buffer, sys.stdout.buffer)
