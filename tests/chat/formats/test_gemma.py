from __future__ import annotations

import pytest

from server.chat.events import Content
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, cases, read

TABLES = {
    "gemma": [
        Example(
            '```tool_code\nget_weather(city="Aix")\nnow()\n```',
            (Call("get_weather", '{"city": "Aix"}'), Call("now", "{}")),
            in_grammar=True,
        ),
        Example("I look.\n```tool_code\nprint(now())\n```\n", (Content("I look."), Call("now", "{}"))),
        Example("```tool_code\nimport os\n```", (Content("```tool_code\nimport os\n```"),)),
        Example("```python\nnow()\n```", (Content("```python\nnow()\n```"),)),
        Example("```tool_code\nget_weather(city='Ai", (Call("get_weather", '{"city": "Ai'),)),
    ]
}


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
