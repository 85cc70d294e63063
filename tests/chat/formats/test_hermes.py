from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

HERMES = [
    Example(
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        (Call("get_weather", '{"city": "Paris"}'),),
        in_grammar=True,
    ),
    Example(
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Aix\\n", "days": 2}}\n</tool_call>',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix\\n", "days": 2}')),
        in_grammar=True,
    ),
    Example(
        "<think>\nThe user asks.\n\nSo I look.\n</think>\n\nLet me see.\n"
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        (Reasoning("The user asks.\n\nSo I look."), Content("Let me see."), Call("now", "{}")),
    ),
    Example(
        " I see.\n</think>\n\nIt rains in Aix.\n",
        (Reasoning("I see."), Content("It rains in Aix.\n")),
        prompt="<|im_start|>assistant\n<think>\n",
    ),
    Example(
        "It rains in Aix.",
        (Content("It rains in Aix."),),
        prompt="<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    Example("<think>cut sho", (Reasoning("cut sho"),)),
    # spelled otherwise
    Example(
        '<tool_call>{ "arguments" :\n{"days": 3} ,"id": 7, "name":"get_weather"}</tool_call>',
        (Call("get_weather", '{"days": 3}'),),
    ),
    Example('<tool_call>\n{"name": "now"}\n</tool_call>', (Call("now", "{}"),)),
    Example('<tool_call>{"name": "now", "parameters": null}</tool_call>', (Call("now", "{}"),)),
    Example('<tool_calls>[{"name": "now"}, {"name": "now"}]</tool_calls>', (Call("now", "{}"), Call("now", "{}"))),
    Example(
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "two\nlines"}}\n</tool_call>\nDone.',
        (Call("get_weather", '{"city": "two\\nlines"}'), Content("Done.")),
    ),
    Example('<tool_call>{"name": "now", "arguments": {}}', (Call("now", "{}"),)),
    # cut short
    Example('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Pa', (Call("get_weather", '{"city": "Pa'),)),
    Example('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_', (Call("now", "{}"),)),
    Example('<tool_call>\n{"name": "get_we', (Content('<tool_call>\n{"name": "get_we'),)),
    # no calls
    Example('<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>', (
        Content('<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>'),
    )),
    Example("a <tool_call> is a tag", (Content("a <tool_call> is a tag"),)),
    Example('<tool_call>{"name": "now", "arguments": [1]}</tool_call>', (
        Content('<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    )),
    Example('<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>', (
        Call("now", '{"a": tru'), Content("}}</tool_call>"),
    )),
    Example("<tool_call>\n{}\n</tool_call>", (Content("<tool_call>\n{}\n</tool_call>"),), tools=()),
    Example("1 < 2, <b>bold</b> \n", (Content("1 < 2, <b>bold</b> \n"),)),
    Example(" \n", (Content(" \n"),)),
    Example("", ()),
]  # fmt: skip
TABLES = {"hermes": HERMES}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
