"""From a chat task to its answer: the prompt and the constraint an engine gets, and the events read from its output."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from server.chat.constraint import constrain, head_of
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.chat.reasoning import limit_reasoning
from server.engine.messages import Done, FinishReason, TokenLogprob, Usage
from server.engine.request import Generate, StopPause
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from server.chat.formats.base import ChatFormat, OutputParser
    from server.chat.task import ChatTask
    from server.engine.client import Engine
    from server.engine.messages import Delta, PromptProgress
    from server.models.loading import LoadedModel

ChatFinish = Literal["stop", "length", "tool_calls", "time"]


@dataclass(frozen=True)
class Prepared:
    """A task ready for the engine, with a reader for each of its answers."""

    generate: Generate
    readers: list[AnswerReader]


@dataclass(frozen=True)
class ChatDelta:
    """What one step added to one answer: `tokens`, of which `reasoning_tokens` were spent on reasoning."""

    index: int
    events: list[Event]
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    """Those of tokens that became content; the engine gives them where they were asked for."""
    reasoning_tokens: int = 0
    finish: ChatFinish | None = None
    stop_string: str | None = None
    tokens: list[int] = field(default_factory=list[int])
    progress: PromptProgress | None = None


@dataclass
class Call:
    """A tool call. `arguments` is a JSON object's text, as far as the model came with it."""

    name: str
    arguments: str = ""


@dataclass
class ChatAnswer:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    reasoning_tokens: int = 0
    finish: ChatFinish = "stop"
    stop_string: str | None = None

    def add(self, delta: ChatDelta) -> None:
        """Take in what comes next."""
        for event in delta.events:
            match event:
                case Content(text):
                    self.content += text
                case Reasoning(text):
                    self.reasoning += text
                case CallStart(_, name):
                    self.calls.append(Call(name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text
        self.logprobs += delta.logprobs
        self.reasoning_tokens += delta.reasoning_tokens
        if delta.finish is not None:
            self.finish, self.stop_string = delta.finish, delta.stop_string


class AnswerReader:
    """Reads one answer's deltas with its format's parser.

    Args:
        parser: of the model's format.
        reasons: whether the answer begins inside reasoning.
    """

    def __init__(self, parser: OutputParser, *, reasons: bool) -> None:
        self._parser = parser
        self._reasons = reasons
        self._calls = False
        self._logprobs: list[TokenLogprob] = []

    def read(self, delta: Delta) -> ChatDelta:
        """Translate what the engine said."""
        events = self._parser.push(delta.text) if delta.text else []
        if delta.finish is not None:
            events += self._parser.finish()
        logprobs = self._of_content(delta, events)
        if events:
            self._reasons = isinstance(events[-1], Reasoning)
            self._calls = self._calls or any(isinstance(event, CallStart) for event in events)
        finish = None if delta.finish is None else chat_finish(delta.finish, calls=self._calls)
        return ChatDelta(
            delta.index,
            events,
            logprobs,
            self._reasoning_tokens(len(delta.tokens), events),
            finish,
            delta.stop_string,
            delta.tokens,
            delta.progress,
        )

    def _reasoning_tokens(self, count: int, events: list[Event]) -> int:
        """How many of so many tokens were spent on reasoning: by the lengths of the texts, where several were said."""
        lengths = [
            (len(event.text), isinstance(event, Reasoning)) for event in events if not isinstance(event, CallStart)
        ]
        total = sum(length for length, _ in lengths)
        if not total:
            return count if self._reasons else 0
        return round(count * sum(length for length, reasons in lengths if reasons) / total)

    def _of_content(self, delta: Delta, events: list[Event]) -> list[TokenLogprob]:
        """Hold log-probabilities back with the text they belong to, and drop them with marks, reasoning and calls."""
        self._logprobs += delta.logprobs
        if not events:
            return []
        ready, self._logprobs = self._logprobs, []
        return ready if any(isinstance(event, Content) for event in events) else []


def chat_finish(reason: FinishReason, *, calls: bool) -> ChatFinish:
    """Why an answer is over, in the words that chat protocols have for it."""
    if reason in ("length", "time"):
        return reason
    return "tool_calls" if calls else "stop"


async def prepare(model: LoadedModel, task: ChatTask) -> Prepared:
    """Render a conversation with the model's template, and say how its answer is constrained and read.

    Raises:
        RequestError: the template fails or refuses the conversation, a tool is asked for that is not offered, or the
            conversation shows what the model cannot see or hear.
    """
    _check_senses(model, task)
    style = model.template.format
    tools = () if task.tool_choice == "none" else task.tools
    prompt = await model.template.render(
        model.with_preamble(task.messages),
        tools=[tool.declared() for tool in tools],
        variables=task.variables,
        thinking=task.thinking,
    )
    text, media, boundaries = task.shown.place(prompt.text, prompt.boundaries)
    special = model.info.special_tokens
    head = head_of(task, style, special, prompt)
    held_to = constrain(task, style, special, head)
    generate = structs.replace(
        task.generate,
        prompt=text,
        media=media,
        boundaries=boundaries,
        grammar=held_to.grammar,
        reasoning=limit_reasoning(task, style, text, held_to.grammar),
        stop=[] if held_to.only_calls else task.generate.stop,
        stop_pause=_pause(style, task.generate.stop, opened=head.behind is not None),
        visible=[mark for mark in style.marks if mark in special],
    )
    readers = [AnswerReader(style.parser(tools, text), reasons=head.behind is not None) for _ in range(generate.n)]
    return Prepared(generate, readers)


def _pause(style: ChatFormat, stops: Sequence[str], *, opened: bool) -> StopPause | None:
    """Where stop strings do not count, since they are meant for the answer's text: in reasoning."""
    if not style.reasoning or any(mark in stop for stop in stops for mark in style.reasoning):
        return None
    return StopPause(*style.reasoning, opened)


def _check_senses(model: LoadedModel, task: ChatTask) -> None:
    kinds = task.shown.kinds
    if "image" in kinds and not model.info.vision:
        raise RequestError(f"{model.name} has no vision: leave the images out", param="messages")
    if "audio" in kinds and not model.info.hearing:
        raise RequestError(f"{model.name} does not hear: leave the audio out", param="messages")


async def chat_deltas(engine: Engine, prepared: Prepared) -> AsyncGenerator[ChatDelta | Done]:
    """Run a prepared task; its deltas, and at the end its usage. Raises RequestError as `Engine.generate` does."""
    async with aclosing(engine.generate(prepared.generate)) as items:
        async for item in items:
            yield item if isinstance(item, Done) else prepared.readers[item.index].read(item)


async def gather_chat(engine: Engine, prepared: Prepared) -> tuple[list[ChatAnswer], Usage]:
    """Run a prepared task to its end. Raises RequestError as `Engine.generate` does."""
    answers = [ChatAnswer() for _ in range(prepared.generate.n)]
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    async with aclosing(chat_deltas(engine, prepared)) as items:
        async for item in items:
            if isinstance(item, Done):
                usage = item.usage
            else:
                answers[item.index].add(item)
    return answers, usage
