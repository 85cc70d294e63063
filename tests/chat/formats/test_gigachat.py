from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

GIGACHAT = [
    Example(
        '<|function_call|>{"name": "get_weather", "arguments": {"city": "Saint-Rémy \\"x\\"\\n"}}',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"\\n"}'),),
        in_grammar=True,
    ),
    Example(
        '<|function_call|>{"name": "now", "arguments": {}}<|function_call|>{"name": "now", "arguments": {}}',
        (Call("now", "{}"), Call("now", "{}")),
        in_grammar=True,
    ),
    Example('Wait.\n<|function_call|>\n{"name": "now"}', (Content("Wait."), Call("now", "{}"))),
    # cut short
    Example('<|function_call|>{"name": "get_weather", "arguments": {"ci', (Call("get_weather", '{"ci'),)),
    # no calls
    Example('<|function_call|>{"name": "rm", "arguments": {}}', (
        Content('<|function_call|>{"name": "rm", "arguments": {}}'),
    )),
    Example('<|function_call|>{"name": "now", "arguments": {"a": tru}}', (Call("now", '{"a": tru'), Content("}}"))),
    Example("<|function_call|>now()", (Content("<|function_call|>now()"),)),
]  # fmt: skip
TABLES = {"gigachat": GIGACHAT}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
