"""A tool's parameters one by one, for formats that write each argument apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from server.errors import RequestError

if TYPE_CHECKING:
    from server.chat.tools import Tool

_TOGETHER = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref"),
    *("minProperties", "maxProperties", "patternProperties", "propertyNames", "dependentRequired"),
)
_NAMING = ("allOf", "anyOf", "oneOf", "$ref", "patternProperties")
"""Those that may name parameters which stand nowhere else."""
_SHARED = ("$defs", "definitions")
_KINDS = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


class Parameter(Struct, frozen=True):
    """One parameter. `schema` is complete: what it refers to is in it. `strict` is the tool's."""

    name: str
    schema: dict[str, Any]
    required: bool
    strict: bool

    @property
    def is_text(self) -> bool:
        """Whether it takes strings and nothing else."""
        choices = self.schema.get("enum")
        if isinstance(choices, list):
            return all(isinstance(choice, str) for choice in cast("list[Any]", choices))
        return self.schema.get("type") == "string"

    @property
    def kinds(self) -> frozenset[str]:
        """The types of JSON that it takes by its schema: all of them where that does not say."""
        return _kinds(self.schema)


def parameters(tool: Tool) -> list[Parameter]:
    """The tool's parameters, in the order of its schema.

    Raises:
        RequestError: the schema constrains them together, which cannot be held to one by one. Of a tool that is not
            strict that is left out, but where the schema names parameters in no other way.
    """
    schema = tool.parameters
    for keyword in _TOGETHER if tool.strict else () if schema.get("properties") else _NAMING:
        if keyword in schema:
            raise RequestError(
                f"the parameters of tool '{tool.name}' use '{keyword}' at the top, which this model's way to write "
                "calls cannot be held to; move it into a property",
                code="invalid_json_schema",
                param="tools",
            )
    return declared(tool)


def declared(tool: Tool) -> list[Parameter]:
    """The parameters that the tool's schema names, whatever else it says."""
    schema = tool.parameters
    shared = {key: schema[key] for key in _SHARED if key in schema}
    required = schema.get("required", ())
    properties: dict[str, Any] = schema.get("properties", {})
    return [
        Parameter(name, {**shared, **(inner if isinstance(inner, dict) else {})}, name in required, tool.strict)
        for name, inner in properties.items()
    ]


def _kinds(schema: Any) -> frozenset[str]:
    match schema:
        case {"type": str(kind)}:
            return _KINDS & {kind}
        case {"type": [*listed]}:
            return _KINDS & {kind for kind in listed if isinstance(kind, str)}
        case {"anyOf": [*members]} | {"oneOf": [*members]}:
            return frozenset[str]().union(*(_kinds(member) for member in members))
        case _:
            return _KINDS
