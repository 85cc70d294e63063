from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

R1 = [
    Example(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>\n"
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Aix"}\n```<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example(
        "I look.\n</think>\n\nWait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n"
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
        prompt="<｜Assistant｜><think>\n",
    ),
    Example("<think></think>Noon.", (Content("Noon."),)),
    Example(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>rm\n```json\n{}\n```<｜tool▁call▁end｜>",
        (
            Content(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>rm\n```json\n{}\n```<｜tool▁call▁end｜>"
            ),
        ),
    ),
    Example(
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city"',
        (Call("get_weather", '{"city"'),),
    ),
]
V31 = [
    Example(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Aix"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example("Noon.", (Content("Noon."),), prompt="<｜Assistant｜><think></think>"),
    Example("I know.</think>Noon.", (Reasoning("I know."), Content("Noon.")), prompt="<｜Assistant｜><think>"),
    Example("<｜tool▁calls▁begin｜>Noon.", (Content("<｜tool▁calls▁begin｜>Noon."),)),
]
TABLES = {"deepseek-r1": R1, "deepseek-v3.1": V31}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
