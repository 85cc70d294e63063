"""One training or evaluation example: a conversation, the tools it offers, and whether it is held out of training."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NotRequired, TypedDict

HELD_OUT_PERCENT = 8


class FunctionCall(TypedDict):
    """The name of a function and the arguments it is called with."""

    name: str
    arguments: dict[str, object]


class ToolCall(TypedDict):
    """One tool call of an assistant message, as in the OpenAI schema but with decoded arguments."""

    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict):
    """One chat message, as in the OpenAI schema."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]


class Function(TypedDict):
    """A function offered to the model; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, object]


class Tool(TypedDict):
    """One entry of a request's `tools`, as in the OpenAI schema."""

    type: Literal["function"]
    function: Function


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the assistant message the model should write.

    Attributes:
        messages: The turns; the last one is the assistant's expected answer.
        held_out: True where the wording or the combination asked about belongs to the evaluation set.
        tools: The tools offered in the system prompt.
        plain: True for text without chat markers; then `messages` is one assistant message.
    """

    messages: tuple[Message, ...]
    held_out: bool = False
    tools: tuple[Tool, ...] = ()
    plain: bool = False


def system(content: str) -> Message:
    """Return a system message."""
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    """Return a user message."""
    return {"role": "user", "content": content}


def assistant(content: str, reasoning: str = "") -> Message:
    """Return an assistant message, with its reasoning where there is some."""
    if reasoning:
        return {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {"role": "assistant", "content": content}


def is_held_out(key: str) -> bool:
    """Tell whether the combination that `key` names belongs to the evaluation set; no seed changes that."""
    return int.from_bytes(blake2b(key.encode(), digest_size=4).digest()) % 100 < HELD_OUT_PERCENT
