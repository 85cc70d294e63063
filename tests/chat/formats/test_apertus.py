from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

APERTUS = [
    Example(
        '<|tools_prefix|>[{"get_weather": {"city": "Saint-Rémy \\"x\\"\\n", "days": 2}}]<|tools_suffix|>',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"\\n", "days": 2}'),),
        in_grammar=True,
    ),
    Example(
        '<|tools_prefix|>[{"now": {}}, {"get_weather": {"city": "Aix"}}]<|tools_suffix|>',
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example(
        '<|inner_prefix|>I look.\n<|inner_suffix|>Wait.\n<|tools_prefix|>[{"now": {}}]<|tools_suffix|>',
        (Reasoning("I look."), Content("Wait."), Call("now", "{}")),
    ),
    # spelled otherwise
    Example('<|tools_prefix|> [ { "now" : { } } ]<|tools_suffix|>It is noon.', (
        Call("now", "{ }"), Content("It is noon."),
    )),
    Example('<|tools_prefix|>{"now": {}}<|tools_suffix|>', (Call("now", "{}"),)),
    # cut short
    Example('<|tools_prefix|>[{"get_weather": {"ci', (Call("get_weather", '{"ci'),)),
    Example('<|tools_prefix|>[{"now": {}', (Call("now", "{}"),)),
    Example('<|tools_prefix|>[{"now": {}}]<|tools_su', (Call("now", "{}"),)),
    Example('<|tools_prefix|>[{"get_we', (Content('<|tools_prefix|>[{"get_we'),)),
    # no calls
    Example('<|tools_prefix|>[{"rm": {"path": "/"}}]<|tools_suffix|>', (
        Content('<|tools_prefix|>[{"rm": {"path": "/"}}]<|tools_suffix|>'),
    )),
    Example('<|tools_prefix|>[{"now": 12}]', (Content('<|tools_prefix|>[{"now": 12}]'),)),
    Example('<|tools_prefix|>[{"now": {}, "rm": {}}]', (Call("now", "{}"), Content(', "rm": {}}]'))),
    Example("<|tools_prefix|>[1]", (Content("<|tools_prefix|>[1]"),)),
    Example('<|tools_prefix|>[{"now": {}}]', (Content('<|tools_prefix|>[{"now": {}}]'),), tools=()),
]  # fmt: skip
TABLES = {"apertus": APERTUS}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
