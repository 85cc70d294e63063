"""Calls hold the arguments that their function declares, and no others that it never heard of."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from server.chat.formats import named
from server.chat.formats.closed import closed
from server.chat.tools import Tool
from server.engine.grammar import to_lark
from server.engine.request import Grammar

TEXT = {"type": "string"}
CITY: dict[str, Any] = {"type": "object", "properties": {"city": TEXT}}
SHUT = {**CITY, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (CITY, SHUT),
        ({**CITY, "required": ["city"]}, {**SHUT, "required": ["city"]}),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        (
            {"type": "object", "properties": {"at": CITY, "all": {"type": "array", "items": CITY}}},
            {
                "type": "object",
                "properties": {"at": SHUT, "all": {"type": "array", "items": SHUT}},
                "additionalProperties": False,
            },
        ),
        ({"$defs": {"c": CITY}, "$ref": "#/$defs/c"}, {"$defs": {"c": SHUT}, "$ref": "#/$defs/c"}),
        ({"anyOf": [CITY, TEXT]}, {"anyOf": [SHUT, TEXT]}),
        ({"type": "object", "properties": {"a": {"allOf": [CITY]}}}, None),
    ],
)
def test_what_is_said_nothing_of_is_closed(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert closed(schema) == (expected or {**schema, "additionalProperties": False})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**CITY, "additionalProperties": True},
        {**CITY, "additionalProperties": TEXT},
        {**CITY, "patternProperties": {"^x": TEXT}},
        {**CITY, "required": ["country"]},
        {**CITY, "allOf": [{"properties": {"country": TEXT}, "required": ["country"]}]},
        {**CITY, "anyOf": [{"properties": {"country": TEXT}}, {"properties": {"land": TEXT}}]},
        {"properties": {"properties": {"const": {"properties": {"a": 1}}}}, "additionalProperties": {}},
    ],
)
def test_what_says_itself_what_else_there_may_be_stays(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


@pytest.mark.parametrize("value", [{"city": "Aix"}, {}, {"at": {"city": "Aix"}}, {"country": "x"}, {"city": 3}])
def test_nothing_is_allowed_that_the_schema_forbids(value: Any) -> None:
    for schema in (CITY, {"type": "object", "properties": {"at": CITY, "city": TEXT}, "required": ["at"]}):
        try:
            jsonschema.validate(value, closed(schema))
        except jsonschema.ValidationError:
            continue
        jsonschema.validate(value, schema)


def test_a_call_names_no_undeclared_argument() -> None:
    tool = Tool("get_weather", parameters={"type": "object", "properties": {"location": TEXT}})
    grammar = named("hermes").call_grammar([tool], {}, parallel=False)
    lark = to_lark(Grammar("lark", f"start: {grammar.opening} calls\n{grammar.rules}"))
    for argument, allowed in (("location", True), ("city", False)):
        matcher = LLMatcher(LLTokenizer("byte"), lark)
        text = f'<tool_call>\n{{"name": "get_weather", "arguments": {{"{argument}"'
        assert (matcher.try_consume_tokens(list(text.encode())) == len(text)) is allowed
