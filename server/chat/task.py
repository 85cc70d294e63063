"""A conversation to be answered, in the one form that every chat protocol translates into."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from server.chat.media import Shown
from server.chat.template import Message
from server.chat.tools import Tool, ToolChoice
from server.engine.request import Generate, Grammar


class ChatTask(Struct, frozen=True, kw_only=True):
    """What to answer and how.

    Attributes:
        messages: the turns as chat templates know them: OpenAI's form, content as text, a call's arguments as JSON
            text. Where the last one is the assistant's, the answer goes on from it.
        tools: what may be called.
        tool_choice: whether one must be.
        parallel_tool_calls: whether one answer may call several.
        answer: what the answer's text must look like.
        thinking: whether to reason first; None leaves it to the template.
        reasoning_budget: after how many tokens reasoning is made to end; None lets it last.
        reasoning_message: what it ends with then.
        variables: further variables for the template.
        shown: the images and sounds whose marks the messages have.
        generate: sampling, limits and partition; its prompt, stop strings' order and grammar are filled in here.
    """

    messages: list[Message]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    answer: Grammar | None = None
    thinking: bool | None = None
    reasoning_budget: int | None = None
    reasoning_message: str = ""
    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    shown: Shown = field(default_factory=Shown)
    generate: Generate
