from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "qwen3-coder": [
        Example(
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nAix\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
            "</function>\n</tool_call>",
            (Call("get_weather", '{"city": "Aix", "days": 2}'),),
            in_grammar=True,
        ),
        Example(
            "I look.\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=plot>\n"
            '<parameter=lines>\n[[1, 2.5]]\n</parameter>\n<parameter=title>\nA "b"\n</parameter>\n</function>\n'
            "</tool_call>",
            (Content("I look."), Call("now", "{}"), Call("plot", '{"lines": [[1, 2.5]], "title": "A \\"b\\""}')),
        ),
        Example(
            "<think>\nHm.\n</think>\n\n<function=get_weather>\n<parameter=city>two\n\nlines\n</parameter>"
            "<parameter=hourly>\nTrue\n</parameter>\n</function>\n</tool_call>",
            (Reasoning("Hm."), Call("get_weather", '{"city": "two\\n\\nlines", "hourly": true}')),
        ),
        Example(
            "<tool_call><function=plot><parameter=title>\nnull\n</parameter>"
            "<parameter=other>1 < 2</parameter></function>",
            (Call("plot", '{"title": null, "other": "1 < 2"}'),),
        ),
        Example(
            "<tool_call>\n<function=plot>\n<parameter=title>\n2024\n</parameter>\n<parameter=lines>\n"
            '["</parameter>", "a\n</parameter>"]\n</parameter>\n<parameter=other>\n2024\n</parameter>\n</function>',
            (Call("plot", '{"title": "2024", "lines": ["</parameter>", "a\\n</parameter>"], "other": 2024}'),),
        ),
        Example("<tool_call>\n<function=rm>\n</function>\n</tool_call>", (
            Content("<tool_call>\n<function=rm>\n</function>\n</tool_call>"),
        )),
        Example("<tool_call>\n<function=get_weather>\n<parameter=city>\nAi", (Call("get_weather", '{"city": "Ai'),)),
        Example("<tool_call>\n<function=now>\nnoon", (Call("now", ""), Content("\nnoon"))),
        Example("a <function= b", (Content("a <function= b"),)),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
