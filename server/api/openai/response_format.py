"""`response_format`: the form that an answer's text is held to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.strict import StrictModel
from server.engine.request import Grammar


class TextFormat(StrictModel):
    """Any text."""

    type: Literal["text"]

    def grammar(self) -> None:
        """Text is not constrained."""


class JsonObjectFormat(StrictModel):
    """Any JSON object, or, as llama-server and others had it before `json_schema`, JSON that a schema holds for."""

    type: Literal["json_object"]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    def grammar(self) -> Grammar:
        """The constraint for the engine."""
        return _json(self.schema_)


class NamedSchema(StrictModel):
    """A JSON Schema and its name, which only serves the caller."""

    name: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None
    """Without effect: a schema always holds."""


class JsonSchemaFormat(StrictModel):
    """JSON that a schema holds for."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def grammar(self) -> Grammar:
        """The constraint for the engine."""
        return _json(self.json_schema.schema_)


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


def _json(schema: dict[str, Any] | None) -> Grammar:
    if schema is None:
        return Grammar("json_object", "")
    return Grammar.of_schema(schema)
