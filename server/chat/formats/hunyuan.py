"""Hy3, of Tencent's Hunyuan models: GLM's tags for keys and values, all of whose names end in `:opensource`.

Source: https://huggingface.co/tencent/Hy3-preview/blob/main/chat_template.jinja
"""

from __future__ import annotations

from server.chat.formats.tagged_calls import TaggedFormat, Tags

SUFFIX = ":opensource"


def _tags(name: str) -> tuple[str, str]:
    return f"<{name}{SUFFIX}>", f"</{name}{SUFFIX}>"


OUTER, CALL, KEY, VALUE, THINK = (_tags(name) for name in ("tool_calls", "tool_call", "arg_key", "arg_value", "think"))
SEPARATOR = f"<tool_sep{SUFFIX}>"


class Hy3(TaggedFormat):
    """A tag around all calls, one for each, and for each argument one with its key and one with its value."""

    name = "hy3"
    marks = (*OUTER, *CALL, SEPARATOR, *KEY, *VALUE, *THINK)
    telling = (SUFFIX, "<tool_sep", "<arg_key")
    reasoning = THINK
    tags = Tags(
        outer=OUTER,
        shared=True,
        function=CALL[0],
        named=SEPARATOR,
        function_end=CALL[1],
        parameter=KEY[0],
        text=f"{KEY[1]}\n{VALUE[0]}",
        other=f"{KEY[1]}\n{VALUE[0]}",
        parameter_end=VALUE[1],
    )
