from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "granite": [
        Example(
            '<|tool_call|>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Aix"}}]',
            (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
            in_grammar=True,
        ),
        Example('<tool_call>[{"name": "now", "arguments": {}}]', (Call("now", "{}"),)),
        Example("<think>Hm.</think><response>It is noon.</response>", (Reasoning("Hm."), Content("It is noon."))),
        Example(
            'See.<|tool_call|>[{"name": "now", "arguments": {}}, {"name": "rm", "arguments": {}}]',
            (Content("See."), Call("now", "{}"), Content(', {"name": "rm", "arguments": {}}]')),
        ),
        Example(
            '<|tool_call|>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"ci',
            (Call("now", "{}"), Call("get_weather", '{"ci')),
        ),
        Example("<|tool_call|>none", (Content("<|tool_call|>none"),)),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
