from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "pythonic": [
        Example('[get_weather(city="Aix", days=2)]', (
            Call("get_weather", '{"city": "Aix", "days": 2}'),
        ), in_grammar=True),
        Example(
            '[now(), plot(lines=[[1, 2.5]], style={"color": "red"}, title=null)]',
            (Call("now", "{}"), Call("plot", '{"lines": [[1, 2.5]], "style": {"color": "red"}, "title": null}')),
            in_grammar=True,
        ),
        Example(
            "[get_weather(city='Saint-Rémy \\'x\\' \"y\"\\n', hourly=True, unit=None,)]",
            (Call("get_weather", '{"city": "Saint-Rémy \'x\' \\"y\\"\\n", "hourly": true, "unit": null}'),),
        ),
        Example(
            "[plot(lines=[(-1, .5), [1_000, 2e3]], style={'color': '\\u00e9\\x41\\q'}, title='')]",
            (Call("plot", '{"lines": [[-1, 0.5], [1000, 2e3]], "style": {"color": "éA\\\\q"}, "title": ""}'),),
        ),
        Example("[get_weather('Aix', 3)]", (Call("get_weather", '{"city": "Aix", "days": 3}'),)),
        Example("<|python_start|>[now()]<|python_end|>", (Call("now", "{}"),), in_grammar=True),
        Example("<|python_tag|>get_weather.call(city='Aix')", (
            Content("<|python_tag|>get_weather.call(city='Aix')"),
        )),
        Example("[now.call()]", (Call("now", "{}"),)),
        Example("[rm(path='/')]", (Content("[rm(path='/')]"),)),
        Example("[1, 2]", (Content("[1, 2]"),)),
        Example("See [now()].", (Content("See [now()]."),)),
        Example("[get_weather(city='Ai", (Call("get_weather", '{"city": "Ai'),)),
        Example("[get_weather(city=Aix)]", (Call("get_weather", '{"city": '), Content("Aix)]"))),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
