from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"

TABLES = {
    "harmony": [
        Example(
            '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Aix"}<|call|>',
            (Call("get_weather", '{"city": "Aix"}'),),
            in_grammar=True,
        ),
        Example(
            ANALYSIS + "I look.<|end|><|start|>assistant<|channel|>commentary to=functions.now <|constrain|>json"
            "<|message|>{}<|call|>",
            (Reasoning("I look."), Call("now", "{}")),
        ),
        Example(
            ANALYSIS + "I look.<|end|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
            (Reasoning("I look."), Call("now", "{}")),
        ),
        Example(ANALYSIS + "I know.<|end|>" + FINAL + "Noon.<|return|>", (Reasoning("I know."), Content("Noon."))),
        Example(" to=functions.now<|channel|>commentary<|message|>{}", (Call("now", "{}"),)),
        Example("<|channel|>commentary<|message|>Let me see.<|end|>", (Content("Let me see."),)),
        Example("I know.<|end|>" + FINAL + "Noon.", (Reasoning("I know."), Content("Noon.")), prompt=ANALYSIS),
        Example("and a half.", (Content("and a half."),), prompt=FINAL + "Noon "),
        Example("<|channel|>anal", ()),
        Example(
            "<|channel|>commentary to=functions.rm <|constrain|>json<|message|>{}<|call|>",
            (Content("<|channel|>commentary to=functions.rm <|constrain|>json<|message|>{}"),),
        ),
        Example(
            "<|channel|>commentary to=functions.now <|constrain|>json<|message|>noon<|call|>",
            (Content("<|channel|>commentary to=functions.now <|constrain|>json<|message|>noon"),),
        ),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
