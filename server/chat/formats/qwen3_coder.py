"""Qwen3-Coder, Qwen 3.5 and Nemotron 3: tags for the function and for each argument, whose values are bare text.

Source: https://huggingface.co/Qwen/Qwen3-Coder-480B-A35B-Instruct/blob/main/qwen3coder_tool_parser.py
"""

from __future__ import annotations

from server.chat.formats.tagged_calls import TaggedFormat, Tags

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, ARGUMENT = "<function=", "<parameter="


class Qwen3Coder(TaggedFormat):
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, on many lines."""

    name = "qwen3-coder"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = (OPEN, FUNCTION, ARGUMENT)
    tags = Tags(
        outer=(OPEN, CLOSE),
        shared=False,
        function=FUNCTION,
        named=">",
        function_end="</function>",
        parameter=ARGUMENT,
        text=">",
        other=">",
        parameter_end="</parameter>",
        padding="\n",
    )
