from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

MINICPM = [
    Example(
        '<function name="get_weather"><param name="city">Saint-Rémy "x"</param><param name="days">2</param></function>',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"", "days": 2}'),),
        in_grammar=True,
    ),
    Example(
        '<function name="now"></function>\n'
        '<function name="plot"><param name="lines">[[1, 2.5]]</param><param name="title">null</param></function>',
        (Call("now", "{}"), Call("plot", '{"lines": [[1, 2.5]], "title": null}')),
        in_grammar=True,
    ),
    Example(
        '<function name="get_weather"><param name="city"><![CDATA[a </param> & <b>]]\n]]></param></function>',
        (Call("get_weather", '{"city": "a </param> & <b>]]\\n"}'),),
        in_grammar=True,
    ),
    Example(
        '<think>\nI look.\n</think>\n\nWait.\n<function name="now"></function>\n',
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
    ),
    Example("I know.\n</think>\n\nNoon.", (Reasoning("I know."), Content("Noon.")), prompt="assistant\n<think>\n"),
    # spelled otherwise
    Example(
        '<function name="get_weather">\n<param name="city">a < b</param>\n<param name="days">True</param>\n</function>',
        (Call("get_weather", '{"city": "a < b", "days": true}'),),
    ),
    Example(
        '<function name="plot"><param name="lines"><![CDATA[[[1]]]]></param><param name="title">12</param></function>',
        (Call("plot", '{"lines": [[1]], "title": "12"}'),),
    ),
    # cut short
    Example('<function name="get_weather"><param name="city">Ai', (Call("get_weather", '{"city": "Ai'),)),
    Example('<function name="get_weather"><param name="city">Aix</par', (Call("get_weather", '{"city": "Aix</par'),)),
    Example('<function name="now"></funct', (Call("now", ""), Content("</funct"))),
    Example('<function name="get_we', (Content('<function name="get_we'),)),
    # no calls
    Example('<function name="rm"><param name="path">/</param></function>', (
        Content('<function name="rm"><param name="path">/</param></function>'),
    )),
    Example('<function name="now">at noon</function>', (Call("now", ""), Content("at noon</function>"))),
    Example('<function name="now" />', (Content('<function name="now" />'),)),
    Example('<function name="now"></function>', (Content('<function name="now"></function>'),), tools=()),
    Example("Use <function ... </function>.", (Content("Use <function ... </function>."),)),
]  # fmt: skip
TABLES = {"minicpm": MINICPM}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says


def test_text_is_quoted_where_it_could_be_taken_for_markup() -> None:
    written = named("minicpm").write([("f", '{"a": "x", "b": "x\\ny", "c": "<", "d": "<]]>", "e": ["&"]}')])
    assert written == (
        '<function name="f"><param name="a">x</param><param name="b"><![CDATA[x\ny]]></param>'
        '<param name="c"><![CDATA[<]]></param><param name="d"><]]></param><param name="e">["&"]</param></function>'
    )
