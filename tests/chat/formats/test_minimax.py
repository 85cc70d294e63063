from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

M1 = [
    Example(
        '<tool_calls>\n{"name": "now", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "A \\"é\\""}}\n'
        "</tool_calls>",
        (Call("now", "{}"), Call("get_weather", '{"city": "A \\"é\\""}')),
        in_grammar=True,
    ),
    Example('<tool_calls>\n{"name": "now", "arguments": {}}\n</tool_calls>', (Call("now", "{}"),), in_grammar=True),
    Example(
        '<think>\nHm.\n</think>\n\nI look.\n<tool_calls>{"name": "now"}{"name": "now"}</tool_calls>\n',
        (Reasoning("Hm."), Content("I look."), Call("now", "{}"), Call("now", "{}")),
    ),
    Example('<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Ai', (Call("get_weather", '{"city": "Ai'),)),
    Example('<tool_calls>\n{"name": "rm", "arguments": {}}\n</tool_calls>', (
        Content('<tool_calls>\n{"name": "rm", "arguments": {}}\n</tool_calls>'),
    )),
    Example("<tool_calls>\nnow\n</tool_calls>", (Content("<tool_calls>\nnow\n</tool_calls>"),)),
]  # fmt: skip
M2 = [
    Example(
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">A "é"\n東</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
        (Call("get_weather", '{"city": "A \\"é\\"\\n東", "days": 2}'),),
        in_grammar=True,
    ),
    Example(
        '<minimax:tool_call>\n<invoke name="now">\n</invoke>\n<invoke name="plot">\n'
        '<parameter name="lines">[[1, 2.5]]</parameter>\n<parameter name="title">null</parameter>\n</invoke>\n'
        "</minimax:tool_call>",
        (Call("now", "{}"), Call("plot", '{"lines": [[1, 2.5]], "title": null}')),
        in_grammar=True,
    ),
    Example(
        'Hm.\n</think>\n\nI look.\n\n<minimax:tool_call><invoke name="get_weather"><parameter name="city">1</parameter>'
        '<parameter name="hourly">true</parameter></invoke></minimax:tool_call>\n',
        (Reasoning("Hm."), Content("I look."), Call("get_weather", '{"city": "1", "hourly": true}')),
        prompt="]~b]ai\n<think>\n",
    ),
    Example(
        '<invoke name="get_weather">\n<parameter name="a key">1 < 2</parameter>\n</invoke>\nDone.',
        (Call("get_weather", '{"a key": "1 < 2"}'), Content("Done.")),
    ),
    Example(
        '<minimax:tool_call><invoke name="plot"><parameter name="lines">["</parameter>",\n"</invoke>"]\n</parameter>\n'
        '<parameter name="title">"A" and "B"</parameter>\n<parameter name="style">"</parameter>\n</invoke>',
        (Call("plot", '{"lines": ["</parameter>",\n"</invoke>"], "title": "\\"A\\" and \\"B\\"", "style": "\\""}'),),
    ),
    Example(
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Ai',
        (Call("get_weather", '{"city": "Ai'),),
    ),
    Example(
        '<minimax:tool_call>\n<invoke name="now">\nnoon</invoke>', (Call("now", ""), Content("\nnoon</invoke>"))
    ),
    Example('<minimax:tool_call>\n<invoke name="rm">\n</invoke>', (
        Content('<minimax:tool_call>\n<invoke name="rm">\n</invoke>'),
    )),
    Example("<minimax:tool_call>now", (Content("<minimax:tool_call>now"),)),
]  # fmt: skip
TABLES = {"minimax-m1": M1, "minimax-m2": M2}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
