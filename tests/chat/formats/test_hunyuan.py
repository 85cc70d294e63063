from __future__ import annotations

import pytest

from server.chat.events import Content, Reasoning
from server.chat.formats import named
from tests.chat.formats.reading import Call, Example, Said, cases, read


def _example(text: str, *says: Said, prompt: str = "", in_grammar: bool = False) -> Example:
    """An example whose tags are written without the ending that all of them have."""
    for tag in ("tool_calls", "tool_call", "tool_sep", "arg_key", "arg_value", "think"):
        text = text.replace(f"{tag}>", f"{tag}:opensource>")
    return Example(text, says, prompt=prompt, in_grammar=in_grammar)


TABLES = {
    "hy3": [
        _example(
            '<tool_calls>\n<tool_call>get_weather<tool_sep>\n<arg_key>city</arg_key>\n<arg_value>A "é" 東</arg_value>\n'
            "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n</tool_calls>",
            Call("get_weather", '{"city": "A \\"é\\" 東", "days": 2}'),
            in_grammar=True,
        ),
        _example(
            "<tool_calls>\n<tool_call>now<tool_sep>\n</tool_call>\n<tool_call>plot<tool_sep>\n<arg_key>lines</arg_key>\n"
            "<arg_value>[[1]]</arg_value>\n<arg_key>title</arg_key>\n<arg_value>null</arg_value>\n</tool_call>\n"
            "</tool_calls>",
            Call("now", "{}"),
            Call("plot", '{"lines": [[1]], "title": null}'),
            in_grammar=True,
        ),
        _example(
            "Hm.</think>I look.<tool_calls>\n<tool_call>now<tool_sep></tool_call></tool_calls>",
            Reasoning("Hm."),
            Content("I look."),
            Call("now", "{}"),
            prompt="<think:opensource>",
        ),
        _example("Noon.", Content("Noon."), prompt="<think:opensource></think:opensource>"),
        _example(
            "<tool_call>get_weather<tool_sep>\n<arg_key>city</arg_key>\n<arg_value>Ai",
            Call("get_weather", '{"city": "Ai'),
        ),
        Example(
            "<tool_call:opensource>now<tool_sep:opensource>\nnoon", (Call("now", ""), Content("\nnoon"))
        ),
        Example("<tool_call:opensource>rm<tool_sep:opensource>\n</tool_call:opensource>", (
            Content("<tool_call:opensource>rm<tool_sep:opensource>\n</tool_call:opensource>"),
        )),
        Example("<tool_calls:opensource>now", (Content("<tool_calls:opensource>now"),)),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("style", "example"), cases(TABLES))
def test_reads(style: str, example: Example) -> None:
    assert read(named(style), example) == example.says
