"""DeepSeek V3.2 and V4: DSML, tags with a mark in them that say of each argument whether it is a string.

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3.2/blob/main/encoding/encoding_dsv32.py
"""

from __future__ import annotations

from server.chat.formats.tagged_calls import TaggedFormat, Tags

MARK = "｜DSML｜"


def _tags(outer: str) -> Tags:
    return Tags(
        outer=(f"<{MARK}{outer}>", f"</{MARK}{outer}>"),
        shared=True,
        function=f'<{MARK}invoke name="',
        named='">',
        function_end=f"</{MARK}invoke>",
        parameter=f'<{MARK}parameter name="',
        text='" string="true">',
        other='" string="false">',
        parameter_end=f"</{MARK}parameter>",
    )


class DeepSeekV32(TaggedFormat):
    """A tag around all calls, one for each, and one for each argument."""

    name = "deepseek-v3.2"
    marks = (MARK, "<think>", "</think>")
    telling = (MARK, "function_calls")
    tags = _tags("function_calls")


class DeepSeekV4(TaggedFormat):
    """The same with another outer tag."""

    name = "deepseek-v4"
    marks = (MARK, "<think>", "</think>")
    telling = (MARK, "tool_calls>")
    tags = _tags("tool_calls")
