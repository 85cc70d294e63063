"""Schemas whose objects hold nothing that they do not name."""

from __future__ import annotations

from typing import Any, cast

Schema = dict[str, Any]

_COMPOSED = frozenset({"allOf", "not", "if", "dependentSchemas", "unevaluatedProperties"})
"""With these, what one part of a schema allows depends on what another part names."""
_NAMING = frozenset(
    {*_COMPOSED, "anyOf", "oneOf", "$ref", "patternProperties", "propertyNames", "additionalProperties"}
)
"""An object's schema with any of these says itself what else the object may hold."""
_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset({"items", "additionalProperties"})


def closed(schema: Schema) -> Schema:
    """A schema that allows no undeclared properties where it says nothing of them.

    JSON Schema lets an object hold any others. A model that may write them does, in place of those that the function
    knows. What the result allows, the schema allows.

    Args:
        schema: of a function's arguments. Where parts of it build on one another, only its top is closed.
    """
    return _closed(schema, deep=not _mentions(schema, _COMPOSED))


def _closed(schema: Schema, *, deep: bool) -> Schema:
    found = {key: _within(schema, key) for key in schema} if deep else dict(schema)
    declared: Any = schema.get("properties")
    required: Any = schema.get("required", ())
    if isinstance(declared, dict) and not schema.keys() & _NAMING and set(required) <= cast("Schema", declared).keys():
        found["additionalProperties"] = False
    return found


def _within(schema: Schema, key: str) -> Any:
    """The value of one keyword, with the schemas in it closed."""
    value: Any = schema[key]
    if key in _SINGLE:
        return _if_schema(value)
    if key in _OF_SCHEMAS and isinstance(value, dict):
        return {name: _if_schema(each) for name, each in cast("Schema", value).items()}
    if key in _LISTS and isinstance(value, list) and ("properties" not in schema or key == "prefixItems"):
        return [_if_schema(each) for each in cast("list[Any]", value)]
    return cast("Any", value)


def _if_schema(value: Any) -> Any:
    """A schema closed; anything else, such as true, as it is."""
    return _closed(cast("Schema", value), deep=True) if isinstance(value, dict) else value


def _mentions(node: Any, keywords: frozenset[str]) -> bool:
    if isinstance(node, dict):
        inner = cast("Schema", node)
        return bool(inner.keys() & keywords) or any(_mentions(each, keywords) for each in inner.values())
    return isinstance(node, list) and any(_mentions(each, keywords) for each in cast("list[Any]", node))
