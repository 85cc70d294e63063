from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

FUNCTION_GEMMA = [
    Example(
        "<start_function_call>call:get_weather{city:<escape>Aix<escape>,days:2}<end_function_call>",
        (Call("get_weather", '{"city": "Aix", "days": 2}'),),
        in_grammar=True,
    ),
    Example(
        "<start_function_call>call:now{}<end_function_call>"
        "<start_function_call>call:get_weather{city:<escape>a {b}, \"c\"\n<escape>,hourly:true}<end_function_call>",
        (Call("now", "{}"), Call("get_weather", '{"city": "a {b}, \\"c\\"\\n", "hourly": true}')),
        in_grammar=True,
    ),
    Example("<start_function_call>call:rm{}<end_function_call>", (
        Content("<start_function_call>call:rm{}<end_function_call>"),
    )),
    Example("<start_function_call>call:get_weather{city:<escape>Ai", (Call("get_weather", '{"city": "Ai'),)),
]  # fmt: skip
GEMMA_4 = [
    Example(
        '<|tool_call>call:get_weather{city:<|"|>Aix<|"|>,days:2}<tool_call|>',
        (Call("get_weather", '{"city": "Aix", "days": 2}'),),
        in_grammar=True,
    ),
    Example(
        '<|tool_call>call:plot{lines:[[1,2.5]],style:{color:<|"|>red<|"|>},title:null}<tool_call|>',
        (Call("plot", '{"lines": [[1, 2.5]], "style": {"color": "red"}, "title": null}'),),
    ),
    Example(
        "<|channel>thought\nI look.\n<channel|>Wait.<|tool_call>call:now{}<tool_call|>",
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
    ),
    Example("<|tool_call>call:now{<tool_call|> Hm.", (Call("now", "{"), Content("<tool_call|> Hm."))),
]
TABLES = {"functiongemma": FUNCTION_GEMMA, "gemma4": GEMMA_4}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
