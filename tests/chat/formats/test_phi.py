from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "phi": [
        Example(
            '<|tool_call|>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Aix"}}]'
            "<|/tool_call|>",
            (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
            in_grammar=True,
        ),
        Example('functools[{"name": "now", "arguments": {}}]', (Call("now", "{}"),)),
        Example('<|tool_call|>{"name": "now"}<|/tool_call|>', (Call("now", "{}"),)),
        Example("Python has functools[...].", (Content("Python has functools[...]."),)),
        Example('<|tool_call|>[{"name": "rm"}]<|/tool_call|>', (
            Content('<|tool_call|>[{"name": "rm"}]<|/tool_call|>'),
        )),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
