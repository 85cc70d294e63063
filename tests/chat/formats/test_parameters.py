from __future__ import annotations

from typing import Any

import pytest

from server.chat.formats.parameters import declared
from server.chat.tools import Tool

ANY = {"string", "integer", "number", "boolean", "array", "object", "null"}


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"anyOf": [{"type": "integer"}, {"oneOf": [{"type": ["string", "null"]}]}]}, {"integer", "string", "null"}),
        ({"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Place"}]}, ANY),
        ({"enum": [1, "two"]}, ANY),
        ({}, ANY),
    ],
)
def test_kinds_are_those_that_the_schema_names(schema: dict[str, Any], kinds: set[str]) -> None:
    tool = Tool("find", "Finds.", {"type": "object", "properties": {"it": schema}})
    assert [parameter.kinds for parameter in declared(tool)] == [kinds]
