from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

LFM = [
    Example(
        '<|tool_call_start|>[get_weather(city="Saint-Rémy \\"x\\"\\n", days=2, hourly=True)]<|tool_call_end|>',
        (Call("get_weather", '{"city": "Saint-Rémy \\"x\\"\\n", "days": 2, "hourly": true}'),),
        in_grammar=True,
    ),
    Example(
        '<|tool_call_start|>[now(), plot(lines=[[1, 2.5]], style={"color": "red"}, title=null)]<|tool_call_end|>',
        (Call("now", "{}"), Call("plot", '{"lines": [[1, 2.5]], "style": {"color": "red"}, "title": null}')),
        in_grammar=True,
    ),
    Example(
        "<think>The user asks.\nSo <|tool_call_start|>[now()]</think>Let me see.\n"
        "<|tool_call_start|>[now()]<|tool_call_end|>\nChecking the time.",
        (
            Reasoning("The user asks.\nSo <|tool_call_start|>[now()]"),
            Content("Let me see."),
            Call("now", "{}"),
            Content("Checking the time."),
        ),
    ),
    # spelled otherwise
    Example(
        "<|tool_call_start|>[get_weather(city='Aix, \"Sud\"', unit=None), now( )]<|tool_call_end|>",
        (Call("get_weather", '{"city": "Aix, \\"Sud\\"", "unit": null}'), Call("now", "{}")),
    ),
    Example("<|tool_call_start|>[now()]<|tool_call_end|><|tool_call_start|>[now()]<|tool_call_end|>", (
        Call("now", "{}"), Call("now", "{}"),
    )),
    Example("<|tool_call_start|>[get_weather(city='L'Isle d'Abeau' , days=1)]<|tool_call_end|>", (
        Call("get_weather", '{"city": "L\'Isle d\'Abeau", "days": 1}'),
    )),
    Example("<|tool_call_start|> now()", (Call("now", "{}"),)),
    # asked for in JSON
    Example(
        '<|tool_call_start|>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Aix"}}]'
        "<|tool_call_end|>",
        (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example('<|tool_call_start|>[\n  {"name": "now"}\n]<|tool_call_end|>Noon.', (Call("now", "{}"), Content("Noon."))),
    Example('<|tool_call_start|>{"name": "now", "arguments": {}}<|tool_call_end|>', (Call("now", "{}"),)),
    # cut short
    Example('<|tool_call_start|>[get_weather(city="Ai', (Call("get_weather", '{"city": "Ai'),)),
    Example("<|tool_call_start|>[now()]<|tool_call", (Call("now", "{}"),)),
    Example("<|tool_call_start|>[get_we", (Content("<|tool_call_start|>[get_we"),)),
    Example("<|tool_call_start|>[ ", (Content("<|tool_call_start|>[ "),)),
    # no calls
    Example("<|tool_call_start|>[rm(path='/')]<|tool_call_end|>", (
        Content("<|tool_call_start|>[rm(path='/')]<|tool_call_end|>"),
    )),
    Example("<|tool_call_start|>[now(), rm()]<|tool_call_end|>", (
        Call("now", "{}"), Content(", rm()]<|tool_call_end|>"),
    )),
    Example('<|tool_call_start|>[{"name": "rm"}]', (Content('<|tool_call_start|>[{"name": "rm"}]'),)),
    Example("<|tool_call_start|>[get_weather(city=Aix)]", (Call("get_weather", '{"city": '), Content("Aix)]"))),
    Example("<|tool_call_start|>[now()]<|tool_call_end|>", (
        Content("<|tool_call_start|>[now()]<|tool_call_end|>"),
    ), tools=()),
    Example("Write [text](url), as in [now()].", (Content("Write [text](url), as in [now()]."),)),
]  # fmt: skip
TABLES = {"lfm": LFM}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says


def test_what_it_writes_has_strings_in_double_quotes() -> None:
    written = named("lfm").write(
        [("plot", '{"lines": [[1]], "style": {"color": "it\'s"}, "title": null, "dry": true}')]
    )
    assert written == (
        '<|tool_call_start|>[plot(lines=[[1]], style={"color": "it\'s"}, title=None, dry=True)]<|tool_call_end|>'
    )
