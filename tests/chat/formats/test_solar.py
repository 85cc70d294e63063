from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "solar-open": [
        Example(
            "<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>get_weather<|tool_call:args|>"
            '{"city": "A \\"é\\" 東"}<|tool_call:end|><|calls|>',
            (Call("get_weather", '{"city": "A \\"é\\" 東"}'),),
            in_grammar=True,
        ),
        Example(
            "<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>now<|tool_call:args|>{}<|tool_call:end|>"
            "<|tool_call:begin|>a1b2c3d4e6<|tool_call:name|>now<|tool_call:args|>{}<|tool_call:end|><|calls|>",
            (Call("now", "{}"), Call("now", "{}")),
            in_grammar=True,
        ),
        Example(
            "<|think|>Hm.<|end|><|begin|>assistant<|content|>I look.<|end|><|begin|>assistant<|tool_calls|>"
            "<|tool_call:begin|>call_0-1<|tool_call:name|>now<|tool_call:args|>{}<|tool_call:end|>",
            (Reasoning("Hm."), Content("I look."), Call("now", "{}")),
            prompt="<|begin|>assistant",
        ),
        Example("Hm.<|end|><|begin|>assistant<|content|>Noon.", (Reasoning("Hm."), Content("Noon.")), "<|think|>"),
        Example("<|content|>Noon.", (Content("Noon."),), "<|think|><|end|><|begin|>assistant", tools=()),
        Example(
            '<|tool_calls|><|tool_call:begin|>a<|tool_call:name|>get_weather<|tool_call:args|>{"city": "Ai',
            (Call("get_weather", '{"city": "Ai'),),
        ),
        Example(
            "<|tool_call:begin|>a<|tool_call:name|>now<|tool_call:args|>{noon}", (Call("now", "{"), Content("noon}"))
        ),
        Example("<|tool_call:begin|>a<|tool_call:name|>rm<|tool_call:args|>{}", (
            Content("<|tool_call:begin|>a<|tool_call:name|>rm<|tool_call:args|>{}"),
        )),
        Example("<|tool_call:begin|> now", (Content("<|tool_call:begin|> now"),)),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
