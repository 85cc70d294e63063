"""An answer as the items of a response, and the events of the stream that tells of them.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from server.api.openai.output import ChatLogprob, chat_logprobs
from server.api.openai.responses.items import encode_thoughts
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.chat.answer import ChatDelta, ChatFinish
    from server.engine.messages import Usage
    from server.errors import RequestError

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(Struct, tag_field="type", tag="output_text"):
    """The text of an answer."""

    text: str = ""
    annotations: list[Any] = field(default_factory=list[Any])
    logprobs: list[ChatLogprob] = field(default_factory=list[ChatLogprob])


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    """The text of thoughts."""

    text: str = ""


class OutputMessage(Struct, tag_field="type", tag="message"):
    """What the model says."""

    id: str
    content: list[OutputText] = field(default_factory=list[OutputText])
    status: Status = "in_progress"
    role: str = "assistant"


class Thoughts(Struct, tag_field="type", tag="reasoning"):
    """What the model thought."""

    id: str
    content: list[ReasoningText] = field(default_factory=list[ReasoningText])
    summary: list[Any] = field(default_factory=list[Any])
    encrypted_content: str | UnsetType = UNSET
    status: Status = "in_progress"


class FunctionCall(Struct, tag_field="type", tag="function_call"):
    """A call that the caller is asked to make."""

    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str = ""
    status: Status = "in_progress"


OutputItem = OutputMessage | Thoughts | FunctionCall


def new_id(prefix: str) -> str:
    """A fresh id such as `resp_4be1...`."""
    return f"{prefix}_{secrets.token_hex(24)}"


class ResponseWriter:
    """Orders what an answer's deltas bring into items, and writes the events that tell of it.

    Args:
        model: who answers.
        request: what the response object repeats of its request.
        encrypted: whether thoughts also come as `encrypted_content`.
        namespaces: namespace and name of functions that the model calls otherwise.
    """

    def __init__(
        self,
        model: str,
        request: dict[str, Any],
        *,
        encrypted: bool = False,
        namespaces: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self.output: list[OutputItem] = []
        self.body: dict[str, Any] = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "usage": None,
            **request,
        }
        self._encrypted = encrypted
        self._namespaces = namespaces or {}
        self._sequence = 0
        self._open: OutputItem | None = None
        self._pieces: list[str] = []
        self._logprobs: list[ChatLogprob] = []
        self._finish: ChatFinish = "stop"
        self._reasoning_tokens = 0

    @property
    def response(self) -> dict[str, Any]:
        """The response object as it stands."""
        return {**self.body, "output": self.output}

    def begin(self) -> bytes:
        """The stream's first events."""
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def add(self, delta: ChatDelta) -> bytes:
        """Take in what comes next; returns the events that tell of it, which may be none."""
        self._reasoning_tokens += delta.reasoning_tokens
        logprobs = chat_logprobs(delta.logprobs).content
        events: list[bytes] = []
        for event in delta.events:
            if isinstance(event, Content):
                events.append(self._take_text(event.text, logprobs))
                logprobs = []
            else:
                events.append(self._take(event))
        if delta.finish is not None:
            self._finish = delta.finish
            events.append(self._close())
        return b"".join(events)

    def complete(self, usage: Usage) -> None:
        """The answer is whole."""
        cut = self._finish in ("length", "time")
        self.body["status"] = "incomplete" if cut else "completed"
        self.body["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        self.body["completed_at"] = None if cut else int(time.time())
        self.body["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }

    def end(self) -> bytes:
        """The stream's last event, once the answer is whole."""
        return self._event(f"response.{self.body['status']}", response=self.response)

    def fail(self, error: RequestError) -> bytes:
        """The stream's last event where the answer cannot be completed."""
        self.body["status"] = "failed"
        self.body["error"] = {"code": "server_error", "message": error.message}
        return self._event("response.failed", response=self.response)

    def _take_text(self, text: str, logprobs: list[ChatLogprob]) -> bytes:
        begin = b""
        if not isinstance(self._open, OutputMessage):
            begin = self._begin(OutputMessage(new_id("msg"))) + self._begin_part(OutputText())
        self._logprobs += logprobs
        return begin + self._more("response.output_text.delta", text, content_index=0, logprobs=logprobs)

    def _take(self, event: Event) -> bytes:
        match event:
            case Reasoning(text):
                begin = b""
                if not isinstance(self._open, Thoughts):
                    begin = self._begin(Thoughts(new_id("rs"))) + self._begin_part(ReasoningText())
                return begin + self._more("response.reasoning_text.delta", text, content_index=0)
            case CallStart(_, name):
                namespace, name = self._namespaces.get(name, (UNSET, name))
                return self._begin(FunctionCall(new_id("fc"), new_id("call"), name, namespace))
            case CallArguments(_, text):
                return self._more("response.function_call_arguments.delta", text)
            case Content(text):
                return self._take_text(text, [])

    def _begin(self, item: OutputItem) -> bytes:
        events = self._close()
        self.output.append(item)
        self._open = item
        return events + self._event("response.output_item.added", output_index=self._index, item=item)

    def _begin_part(self, part: OutputText | ReasoningText) -> bytes:
        return self._about_item("response.content_part.added", content_index=0, part=part)

    def _more(self, name: str, text: str, **where: Any) -> bytes:
        self._pieces.append(text)
        return self._about_item(name, delta=text, **where)

    def _close(self) -> bytes:
        """End the open item, if there is one: only now is it whole."""
        item, text = self._open, "".join(self._pieces)
        if item is None:
            return b""
        item.status = "incomplete" if self._finish in ("length", "time") else "completed"
        match item:
            case OutputMessage():
                item.content = [OutputText(text, logprobs=self._logprobs)]
                events = self._about_item(
                    "response.output_text.done", content_index=0, text=text, logprobs=self._logprobs
                ) + self._about_item("response.content_part.done", content_index=0, part=item.content[0])
            case Thoughts():
                item.content = [ReasoningText(text)]
                if self._encrypted:
                    item.encrypted_content = encode_thoughts(text)
                events = self._about_item(
                    "response.reasoning_text.done", content_index=0, text=text
                ) + self._about_item("response.content_part.done", content_index=0, part=item.content[0])
            case FunctionCall():
                item.arguments = text
                events = self._about_item("response.function_call_arguments.done", name=item.name, arguments=text)
        self._open, self._pieces, self._logprobs = None, [], []
        return events + self._event("response.output_item.done", output_index=self._index, item=item)

    @property
    def _index(self) -> int:
        return len(self.output) - 1

    def _about_item(self, kind: str, /, **content: Any) -> bytes:
        return self._event(kind, item_id=self.output[-1].id, output_index=self._index, **content)

    def _event(self, kind: str, /, **content: Any) -> bytes:
        body = msgspec.json.encode({"type": kind, "sequence_number": self._sequence, **content})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)
