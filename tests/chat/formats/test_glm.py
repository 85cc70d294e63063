from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "glm": [
        Example(
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Aix</arg_value>\n<arg_key>days</arg_key>\n"
            "<arg_value>2</arg_value>\n</tool_call>",
            (Call("get_weather", '{"city": "Aix", "days": 2}'),),
            in_grammar=True,
        ),
        Example(
            "<tool_call>now</tool_call><tool_call>get_weather<arg_key>city</arg_key><arg_value>A <b></arg_value>"
            "</tool_call>",
            (Call("now", "{}"), Call("get_weather", '{"city": "A <b>"}')),
            in_grammar=True,
        ),
        Example(
            "\n<think>Hm.</think>\nI look.\n<tool_call>plot\n<arg_key>title</arg_key><arg_value>null</arg_value>"
            "<arg_key>lines</arg_key><arg_value>[[1]]</arg_value></tool_call>\n",
            (Reasoning("Hm."), Content("I look."), Call("plot", '{"title": null, "lines": [[1]]}')),
        ),
        Example("<tool_call>rm</tool_call>", (Content("<tool_call>rm</tool_call>"),)),
        Example("<tool_call>now is the time", (Content("<tool_call>now is the time"),)),
        Example("<tool_call>get_weather<arg_key>city</arg_key><arg_value>Ai", (Call("get_weather", '{"city": "Ai'),)),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
