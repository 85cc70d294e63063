from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

NEMO = [
    Example(
        '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Aix"}}]',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example(
        '[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "aB3456789"}]', (Call("now", "{}"),), in_grammar=True
    ),
    Example('[TOOL_CALLS]{"name": "now"}', (Call("now", "{}"),)),
    Example('[TOOL_CALLS] [{"arguments": {"city": "Aix"}, "name": "get_weather"}]', (
        Call("get_weather", '{"city": "Aix"}'),
    )),
    Example("[TOOL_CALLS][1, 2]", (Content("[TOOL_CALLS][1, 2]"),)),
]  # fmt: skip
MISTRAL = [
    Example('[TOOL_CALLS]get_weather[ARGS]{"city": "Aix"}', (Call("get_weather", '{"city": "Aix"}'),), in_grammar=True),
    Example(
        '[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{"city": "Aix"}',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example(
        "[THINK]I look.[/THINK]Wait. [TOOL_CALLS]now[CALL_ID]aB3456789[ARGS]{}",
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
    ),
    Example("I know.[/THINK]Noon.", (Reasoning("I know."), Content("Noon.")), prompt="[/INST][THINK]"),
    Example('[TOOL_CALLS]now {"a": 1}', (Call("now", '{"a": 1}'),)),
    Example("[TOOL_CALLS]rm[ARGS]{}", (Content("[TOOL_CALLS]rm[ARGS]{}"),)),
    Example("[TOOL_CALLS]now[ARGS]noon", (Content("[TOOL_CALLS]now[ARGS]noon"),)),
    Example('[TOOL_CALLS]get_weather[ARGS]{"ci', (Call("get_weather", '{"ci'),)),
]
TABLES = {"mistral-nemo": NEMO, "mistral": MISTRAL}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
