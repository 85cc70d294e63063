"""What a model's output says, once its format's marks are read: text, reasoning and tool calls, piece by piece."""

from __future__ import annotations

from msgspec import Struct


class Content(Struct, frozen=True):
    """More of the answer's text."""

    text: str


class Reasoning(Struct, frozen=True):
    """More of what the model thinks before it answers."""

    text: str


class CallStart(Struct, frozen=True):
    """A tool call begins: the `index`-th of this answer, counted from 0. Its arguments follow."""

    index: int
    name: str


class CallArguments(Struct, frozen=True):
    """More of a call's arguments, which are a JSON object's text when all pieces are joined."""

    index: int
    text: str


Event = Content | Reasoning | CallStart | CallArguments
