from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

COMMAND_R = [
    Example(
        'Action:\n```json\n[\n    {"tool_name": "get_weather", "parameters": {"city": "Aix"}},\n'
        '    {"tool_name": "now", "parameters": {}}\n]```',
        (Call("get_weather", '{"city": "Aix"}'), Call("now", "{}")),
        in_grammar=True,
    ),
    Example(
        'Action:\n```json\n[\n    {\n        "tool_name": "now",\n        "parameters": {}\n    }\n]\n```',
        (Call("now", "{}"),),
    ),
    Example("Action: none needed.", (Content("Action: none needed."),)),
    Example('Action:\n```json\n[\n    {"tool_name": "rm", "parameters": {}}\n]```', (
        Content('Action:\n```json\n[\n    {"tool_name": "rm", "parameters": {}}\n]```'),
    )),
]  # fmt: skip
COMMAND_R7B = [
    Example(
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "now", "parameters": {}},\n'
        '    {"tool_call_id": "1", "tool_name": "get_weather", "parameters": {"city": "Aix"}}\n]<|END_ACTION|>',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example(
        "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>[\n    "
        '{"tool_call_id": "0", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        (Reasoning("I look."), Call("now", "{}")),
    ),
    Example(
        "I know.<|END_THINKING|><|START_RESPONSE|>It is noon.<|END_RESPONSE|>",
        (Reasoning("I know."), Content("It is noon.")),
        prompt="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>",
    ),
    Example("<|START_RESPONSE|>It is noon.", (Content("It is noon."),)),
    Example("<|START_ACTION|>[]<|END_ACTION|>", (Content("<|START_ACTION|>[]<|END_ACTION|>"),)),
]
TABLES = {"command-r": COMMAND_R, "command-r7b": COMMAND_R7B}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
