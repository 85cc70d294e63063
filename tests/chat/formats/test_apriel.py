from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TURN = "<|begin_assistant|>\nHere are my reasoning steps:\n"
"""How a prompt of version 1.6 ends; models of version 1.5 write the words themselves."""

APRIEL = [
    Example(
        '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Saint-Rémy \\"x\\"\\n"}}]</tool_calls>',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"\\n"}'),),
        in_grammar=True,
    ),
    Example(
        '<tool_calls>[{"name": "now", "arguments": {}}, {"name": "plot", "arguments": {"lines": [], "title": null}}]'
        "</tool_calls>",
        (Call("now", "{}"), Call("plot", '{"lines": [], "title": null}')),
        in_grammar=True,
    ),
    Example(
        'The user asks.\n[BEGIN FINAL RESPONSE]\nWait.\n<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>',
        (Reasoning("The user asks."), Content("Wait."), Call("now", "{}")),
        prompt=TURN,
    ),
    Example('I look.\n\n<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>', (
        Reasoning("I look."), Call("now", "{}"),
    ), prompt=TURN),
    Example("It takes <tool_calls> to look.", (Reasoning("It takes <tool_calls> to look."),), prompt=TURN, tools=()),
    Example(
        "Here are my reasoning steps:\nI know.\n[BEGIN FINAL RESPONSE]\nNoon.\n[END FINAL RESPONSE]\n",
        (Reasoning("I know."), Content("Noon.\n\n")),
    ),
    Example("Here are my notes.", (Content("Here are my notes."),)),
    # spelled otherwise
    Example('<tool_calls>[\n  {"name": "now", "arguments": {}, "id": "call_1"}\n]</tool_calls>', (Call("now", "{}"),)),
    # cut short
    Example("I thi", (Reasoning("I thi"),), prompt=TURN),
    Example('<tool_calls>[{"name": "get_weather", "arguments": {"ci', (Call("get_weather", '{"ci'),)),
    Example('<tool_calls>[{"name": "now", "arguments": {}}]</tool_c', (Call("now", "{}"),)),
    # no calls
    Example('<tool_calls>[{"name": "rm", "arguments": {}}]</tool_calls>', (
        Content('<tool_calls>[{"name": "rm", "arguments": {}}]</tool_calls>'),
    )),
    Example('<tool_calls>[{"name": "now", "arguments": {"a": tru}}]', (Call("now", '{"a": tru'), Content("}}]"))),
    Example("<tool_calls>none", (Content("<tool_calls>none"),)),
]  # fmt: skip
TABLES = {"apriel": APRIEL}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
