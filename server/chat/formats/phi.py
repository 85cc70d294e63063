"""Phi-4-mini: a JSON list between `<|tool_call|>` and `<|/tool_call|>`, or after `functools`.

Source: https://huggingface.co/microsoft/Phi-4-mini-instruct#tool-enabled-function-calling-format
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import MarkedJsonReader, json_object
from server.chat.formats.lark import LOOSE, literal, mark, spaced_calls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool

OPEN, CLOSE = "<|tool_call|>", "<|/tool_call|>"
FUNCTOOLS = "functools["
LISTED = f"{FUNCTOOLS}{{"
"""The word and a bracket alone stand in Python's code too."""


class PhiReader(MarkedJsonReader):
    """The model has marks for calls, but often writes the `functools` that it was first trained on."""

    opens = (OPEN, LISTED)
    closes = (CLOSE,)


class Phi(ChatFormat):
    """`<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>`."""

    name = "phi"
    marks = (OPEN, CLOSE, "<think>", "</think>")
    telling = ("<|tool|>", "<|/tool|>")
    reader = PhiReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """A list, of one call where they are not parallel."""
        objects = "object (comma object)*" if parallel else "object"
        marked = f"{mark(OPEN, special)} open {objects} close {mark(CLOSE, special)}"
        rules = f"calls: {marked} | {literal(FUNCTOOLS)} {objects} close\n{LOOSE}"
        return CallGrammar("", rules + spaced_calls(tools, "name", ("arguments", "parameters")), (OPEN, LISTED))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """One list for all."""
        return f"{OPEN}[{', '.join(json_object(*call) for call in calls)}]{CLOSE}"
