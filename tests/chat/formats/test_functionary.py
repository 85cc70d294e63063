from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

V31 = [
    Example('<function=get_weather>{"city": "Aix"}</function>', (
        Call("get_weather", '{"city": "Aix"}'),
    ), in_grammar=True),
    Example(
        'See. <function=now>{}</function><function=get_weather>{"city": "Aix"}</function>',
        (Content("See."), Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
    ),
    Example("<function=rm>{}</function>", (Content("<function=rm>{}</function>"),)),
    Example("<function=now>{]</function>", (Call("now", "{"), Content("]</function>"))),
]  # fmt: skip
V32 = [
    Example('get_weather\n{"city": "Aix"}', (Call("get_weather", '{"city": "Aix"}'),), in_grammar=True),
    Example(
        'now\n{}>>>get_weather\n{"city": "Aix"}', (Call("now", "{}"), Call("get_weather", '{"city": "Aix"}')),
        in_grammar=True,
    ),
    Example("all\nIt is noon.", (Content("It is noon."),)),
    Example("all\nI look.\n>>>now\n{}", (Content("I look."), Call("now", "{}"))),
    Example("all\n>>> 1 + 1\n2", (Content(">>> 1 + 1\n2"),)),
    Example(">>>all\nNoon.", (Content("Noon."),)),
    Example("rm\n{}", (Content("rm\n{}"),)),
    Example("all of it", (Content("all of it"),)),
]  # fmt: skip
TABLES = {"functionary-v3.1": V31, "functionary-v3.2": V32}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
