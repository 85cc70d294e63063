from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "seed-oss": [
        Example(
            "<seed:tool_call>\n<function=get_weather>\n<parameter=city>\nA \"é\" 東\n</parameter>\n"
            "<parameter=days>2</parameter>\n</function>\n</seed:tool_call>",
            (Call("get_weather", '{"city": "\\nA \\"é\\" 東\\n", "days": 2}'),),
            in_grammar=True,
        ),
        Example(
            "<seed:tool_call>\n<function=now>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n<function=plot>\n"
            "<parameter=lines>[[1]]</parameter>\n<parameter=title>null</parameter>\n</function>\n</seed:tool_call>",
            (Call("now", "{}"), Call("plot", '{"lines": [[1]], "title": null}')),
            in_grammar=True,
        ),
        Example(
            "<seed:think>Hm.</seed:think>\nI look.\n<seed:tool_call><function=get_weather><parameter=city>Aix"
            "</parameter><parameter=hourly>False</parameter></function></seed:tool_call>",
            (Reasoning("Hm."), Content("I look."), Call("get_weather", '{"city": "Aix", "hourly": false}')),
        ),
        Example(
            "<seed:tool_call><function=plot><parameter=title>None</parameter><parameter=style>{'color': 'it\\'s'}"
            "</parameter><parameter=lines>[[True]]</parameter><parameter=more>[{1, 2}]</parameter></function>",
            (Call("plot", '{"title": null, "style": {"color": "it\'s"}, "lines": [[true]], "more": "[{1, 2}]"}'),),
        ),
        Example("Hm.</seed:think>Noon.", (Reasoning("Hm."), Content("Noon.")), prompt="<seed:think>"),
        Example("<seed:tool_call>\n<function=get_weather>\n<parameter=city>Ai", (
            Call("get_weather", '{"city": "Ai'),
        )),
        Example("<seed:tool_call>\n<function=now>\nnoon", (Call("now", ""), Content("\nnoon"))),
        Example("<seed:tool_call>\n<function=rm>\n</function>\n</seed:tool_call>", (
            Content("<seed:tool_call>\n<function=rm>\n</function>\n</seed:tool_call>"),
        )),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
