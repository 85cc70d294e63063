from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "llama": [
        Example(
            '{"name": "get_weather", "parameters": {"city": "Aix"}}',
            (Call("get_weather", '{"city": "Aix"}'),),
            in_grammar=True,
        ),
        Example(
            '{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Aix"}}',
            (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
            in_grammar=True,
        ),
        Example('<|python_tag|>{"name": "now", "parameters": {}}', (Call("now", "{}"),), in_grammar=True),
        Example('{ "type": "function", "name":"now",\n "parameters": {} }', (Call("now", "{}"),), in_grammar=True),
        Example(
            '[{"name": "now", "parameters": {}}, {"name": "get_weather", "arguments": {"city": "Aix"}}]',
            (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
            in_grammar=True,
        ),
        Example('\n{"type": "function", "name": "now", "parameters": {}}', (Call("now", "{}"),)),
        Example('[{"name": "now", "parameters": {}}, {"name": "now"}]', (Call("now", "{}"), Call("now", "{}"))),
        Example('{"answer": 42}', (Content('{"answer": 42}'),)),
        Example('{"name": "rm", "parameters": {}}', (Content('{"name": "rm", "parameters": {}}'),)),
        Example('{"name": "now", "parameters": {}}', (Content('{"name": "now", "parameters": {}}'),), tools=()),
        Example('Call {"name": "now", "parameters": {}}', (Content('Call {"name": "now", "parameters": {}}'),)),
        Example("<|python_tag|>print(1)", (Content("<|python_tag|>print(1)"),)),
        Example("[1] is a list", (Content("[1] is a list"),)),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
