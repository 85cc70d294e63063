from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Example, cases, read

TABLES = {
    "plain": [
        Example("<think>Hm.</think>\n\nYes.", (Reasoning("Hm."), Content("Yes."))),
        Example("Hm.</think>Yes.", (Reasoning("Hm."), Content("Yes.")), prompt="<think>\n"),
        Example("<tool_call>{}</tool_call>", (Content("<tool_call>{}</tool_call>"),)),
        Example("  a <think>b</think>", (Content("  a <think>b</think>"),)),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
