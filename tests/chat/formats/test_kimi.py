from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "kimi-k2": [
        Example(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            '{"city": "Aix"}<|tool_call_end|><|tool_calls_section_end|>',
            (Call("get_weather", '{"city": "Aix"}'),),
            in_grammar=True,
        ),
        Example(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:12<|tool_call_argument_begin|>{}"
            "<|tool_call_end|><|tool_call_begin|>functions.get_weather:13<|tool_call_argument_begin|>"
            '{"city": "L\'\\"Île\\" 東"}<|tool_call_end|><|tool_calls_section_end|>',
            (Call("now", "{}"), Call("get_weather", '{"city": "L\'\\"Île\\" 東"}')),
            in_grammar=True,
        ),
        Example(
            "<think>Hm.</think>I look.\n<|tool_calls_section_begin|>\n<|tool_call_begin|> functions.now:0 "
            "<|tool_call_argument_begin|> {} <|tool_call_end|>\n<|tool_calls_section_end|>\n",
            (Reasoning("Hm."), Content("I look."), Call("now", "{}")),
        ),
        Example(
            "<|tool_call_begin|>get_weather<|tool_call_argument_begin|>{}<|tool_call_end|>Done.",
            (Call("get_weather", "{}"), Content("Done.")),
        ),
        Example(
            "<think>Hm.\n<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}",
            (Reasoning("Hm."), Call("now", "{}")),
        ),
        Example("Hm.</think>Noon.", (Reasoning("Hm."), Content("Noon.")), prompt="<|im_middle|><think>"),
        Example(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            '{"city": "Ai',
            (Call("get_weather", '{"city": "Ai'),),
        ),
        Example(
            "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{noon}<|tool_call_end|>",
            (Call("now", "{"), Content("noon}<|tool_call_end|>")),
        ),
        Example(
            "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>noon",
            (Content("<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>noon"),),
        ),
        Example("<|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{}", (
            Content("<|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{}"),
        )),
        Example("<|tool_calls_section_begin|>Noon.", (Content("<|tool_calls_section_begin|>Noon."),)),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
