"""Seed-OSS: tags as in Qwen3-Coder's form, but for the outer ones and reasoning, which are the model's own.

A value follows its tag at once: line breaks at its ends are its own.
Source: https://huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct/blob/main/chat_template.jinja
"""

from __future__ import annotations

from server.chat.formats.tagged_calls import TaggedFormat, Tags

OPEN, CLOSE = "<seed:tool_call>", "</seed:tool_call>"
THINK, THOUGHT = "<seed:think>", "</seed:think>"
FUNCTION, ARGUMENT = "<function=", "<parameter="


class SeedOss(TaggedFormat):
    """`<seed:tool_call><function=name><parameter=key>value</parameter></function></seed:tool_call>`."""

    name = "seed-oss"
    marks = (OPEN, CLOSE, THINK, THOUGHT)
    telling = (OPEN, FUNCTION, ARGUMENT)
    reasoning = (THINK, THOUGHT)
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
    )
