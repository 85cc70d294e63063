"""What Ollama's endpoints share: how models are named, how times are written, and JSON however it is declared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field, PlainValidator, model_validator
from starlette.responses import Response

from server.api.whole_text import WholeTextRequest
from server.durations import parse_duration
from server.models.manifest import DEFAULT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Name = Annotated[str, Field(min_length=1)]
KeepAlive = Annotated[float, PlainValidator(parse_duration, json_schema_input_type=float | str)]
"""Seconds that the model stays loaded: a number or a duration such as `10m`; negative is for ever."""


def _may_be_null(schema: dict[str, Any]) -> None:
    """Let a schema say what `NamedModel` does with null."""
    fields: dict[str, Any] = schema["properties"]
    for name, field in fields.items():
        if name != "model":
            told = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
            fields[name] = {"anyOf": [field, {"type": "null"}], **told}


class NamedModel(WholeTextRequest):
    """A request about one model. A field that is null counts as left out."""

    model_config = ConfigDict(json_schema_extra=_may_be_null)

    model: Name
    """A model's name, with or without `:latest`."""

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        """Older clients call the model `name`."""
        if not isinstance(value, dict):
            return value
        given = {name: one for name, one in cast("dict[str, Any]", value).items() if one is not None}
        if "name" in given and "model" not in given:
            given["model"] = given.pop("name")
        return given


class JsonRoute(APIRoute):
    """Takes every body for JSON, as Ollama does: its own documentation calls `curl -d` without a Content-Type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint behind a request that declares JSON."""
        answer = super().get_route_handler()

        async def answer_json(request: Request) -> Response:
            others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            headers = [*others, (b"content-type", b"application/json")]
            return await answer(Request({**request.scope, "headers": headers}, request.receive))

        return answer_json


def json_response(content: Any) -> Response:
    """An answer of status 200."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def tagged(name: str) -> str:
    """A model's name with its tag, as Ollama always shows it."""
    return name if ":" in name else f"{name}:{DEFAULT_TAG}"


def timestamp(moment: datetime | None = None) -> str:
    """A moment, by default now, as Ollama writes it."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """A duration as Ollama writes it."""
    return round(seconds * 1e9)
