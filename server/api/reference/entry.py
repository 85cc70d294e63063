"""What the reference tells about an endpoint beyond its request's schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

JSON = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; version=0.0.4"


@dataclass(frozen=True)
class Body:
    """What an answer holds.

    Attributes:
        kind: a msgspec type whose JSON it is, or a JSON Schema; a schema of text for what is not JSON.
        example: one such answer.
    """

    kind: Any
    example: Any


@dataclass(frozen=True)
class Entry:
    """An endpoint.

    Attributes:
        answers: by status, then by media type. None stands for an answer without a body.
        requests: bodies that it takes, under a few words that say what they are for.
        parameters: an example for each parameter of its path or query.
        errors: statuses of its own, beside those that every endpoint may answer with.
    """

    answers: dict[int, dict[str, Body] | None]
    requests: dict[str, Any] = field(default_factory=dict[str, Any])
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    errors: tuple[int, ...] = ()


Entries = dict[tuple[str, str], Entry]
"""Entries by method, in lower case, and path."""


def events(data: str, event: str = "message") -> Body:
    """An answer as server-sent events, by the data of one. OpenAPI describes such a stream by its events."""
    members = {"event": {"type": "string"}, "data": {"type": "string"}}
    return Body({"type": "object", "properties": members, "required": ["data"]}, {"event": event, "data": data})


def lines(text: str) -> Body:
    """An answer as lines, each a JSON object, by the text of a short one."""
    return Body({"type": "string"}, text)


def like(example: Any) -> Body:
    """An answer of the shape of an example, for what is written without a type of its own."""
    return Body(shape(example), example)


def shape(example: Any) -> dict[str, Any]:
    """The JSON Schema of values like this one: with all its members, where null stands for anything."""
    if isinstance(example, dict):
        members = cast("dict[str, Any]", example)
        properties = {name: shape(value) for name, value in members.items()}
        return {"type": "object", "properties": properties, "required": [*members]}
    if isinstance(example, list):
        items = cast("list[Any]", example)
        return {"type": "array", "items": shape(items[0]) if items else {}}
    if example is None:
        return {}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": kinds[type(example)]}
