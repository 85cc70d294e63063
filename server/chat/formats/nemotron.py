"""Nemotron Nano 2 and the Llama Nemotrons: a JSON list of calls between `<TOOLCALL>` tags.

Nemotron 3 writes as Qwen3-Coder does.
Source: https://huggingface.co/nvidia/NVIDIA-Nemotron-Nano-9B-v2/blob/main/nemotron_toolcall_parser_no_streaming.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import json_calls, mark, sequence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<TOOLCALL>", "</TOOLCALL>"


class NemotronReader(MarkedJsonReader):
    """One pair of tags for all calls."""

    opens = (OPEN,)
    closes = (CLOSE,)


class Nemotron(ChatFormat):
    """`<TOOLCALL>[{"name": ..., "arguments": {...}}]</TOOLCALL>`."""

    name = "nemotron"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = (OPEN, CLOSE)
    reader = NemotronReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        rules = sequence('"[" object', '", " object', f'"]" {mark(CLOSE, special)}', parallel=parallel)
        return CallGrammar(mark(OPEN, special), rules + json_calls(tools), (OPEN,))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(json_object(*call) for call in calls)}]{CLOSE}"
