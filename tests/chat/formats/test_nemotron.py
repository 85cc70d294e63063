from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

NEMOTRON = [
    Example(
        '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Saint-Rémy \\"x\\"\\n"}}]</TOOLCALL>',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"\\n"}'),),
        in_grammar=True,
    ),
    Example(
        '<TOOLCALL>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "A"}}]</TOOLCALL>',
        (Call("now", "{}"), Call("get_weather", '{"city": "A"}')),
        in_grammar=True,
    ),
    Example(
        'I look.\n</think>\n\nWait.\n<TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>\n',
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
        prompt="<SPECIAL_11>Assistant\n<think>\n",
    ),
    Example("It rains.", (Content("It rains."),), prompt="<SPECIAL_11>Assistant\n<think></think>"),
    Example('<TOOLCALL>{"name": "now", "arguments": {}}</TOOLCALL>', (Call("now", "{}"),)),
    # cut short
    Example('<TOOLCALL>[{"name": "get_weather", "arguments": {"ci', (Call("get_weather", '{"ci'),)),
    Example('<TOOLCALL>[{"name": "now", "arguments": {}}]</TOOL', (Call("now", "{}"),)),
    # no calls
    Example('<TOOLCALL>[{"name": "rm", "arguments": {}}]</TOOLCALL>', (
        Content('<TOOLCALL>[{"name": "rm", "arguments": {}}]</TOOLCALL>'),
    )),
    Example("<TOOLCALL>[]</TOOLCALL>", (Content("<TOOLCALL>[]</TOOLCALL>"),)),
    Example('<TOOLCALL>[{"name": "now", "arguments": {"a": tru}}]', (Call("now", '{"a": tru'), Content("}}]"))),
    Example("a <TOOLCALL> is a tag", (Content("a <TOOLCALL> is a tag"),)),
]  # fmt: skip
TABLES = {"nemotron": NEMOTRON}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
