"""What the tests of all chat formats share: tools, and answers read into what they say."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.chat.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from _pytest.mark.structures import ParameterSet

    from server.chat.formats.base import ChatFormat

WEATHER = Tool(
    "get_weather",
    "The weather of a place.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "hourly": {"type": "boolean"},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
PLOT = Tool(
    "plot",
    "Draws lines.",
    {
        "type": "object",
        "properties": {
            "lines": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "style": {"type": "object", "properties": {"color": {"type": "string"}}, "additionalProperties": False},
            "title": {"type": ["string", "null"]},
        },
        "required": ["lines", "title"],
        "additionalProperties": False,
    },
)
NOW = Tool("now", "The time.", {"type": "object", "properties": {}, "additionalProperties": False})
TOOLS = (WEATHER, PLOT, NOW)


@dataclass(frozen=True)
class Call:
    """A whole call, its arguments as they were passed on."""

    name: str
    arguments: str


Said = Content | Reasoning | Call


@dataclass(frozen=True)
class Example:
    """An answer, and what it says.

    Attributes:
        in_grammar: whether it is how the format's grammar writes calls, from its opening on.
    """

    text: str
    says: tuple[Said, ...]
    prompt: str = ""
    tools: tuple[Tool, ...] = TOOLS
    in_grammar: bool = False


def cases(tables: Mapping[str, Sequence[Example]]) -> list[ParameterSet]:
    """Pairs of a format's name and an example, for pytest to run through."""
    return [
        pytest.param(style, example, id=f"{style}: {example.text}")
        for style, examples in tables.items()
        for example in examples
    ]


def read(style: ChatFormat, example: Example, cuts: Iterable[int] = ()) -> tuple[Said, ...]:
    """An example's text, cut at these characters, as the format's parser reads it."""
    parser = style.parser(example.tools, example.prompt)
    bounds = [0, *sorted(cuts), len(example.text)]
    events: list[Event] = []
    for begin, end in itertools.pairwise(bounds):
        events += parser.push(example.text[begin:end])
    return joined([*events, *parser.finish()])


def joined(events: Sequence[Event]) -> tuple[Said, ...]:
    """Events with those that continue each other put together."""
    said: list[Said] = []
    calls: list[int] = []
    for event in events:
        match event, said[-1] if said else None:
            case Content(text), Content(before):
                said[-1] = Content(before + text)
            case Reasoning(text), Reasoning(before):
                said[-1] = Reasoning(before + text)
            case CallStart(index, name), _:
                assert index == len(calls), "calls are counted from 0"
                calls.append(len(said))
                said.append(Call(name, ""))
            case CallArguments(index, text), Call(name, before):
                assert calls[index] == len(said) - 1, "arguments follow their call's start"
                said[-1] = Call(name, before + text)
            case ((Content() | Reasoning()), _):
                said.append(event)
            case _:
                raise AssertionError(f"{event} without a call")
    return tuple(said)
