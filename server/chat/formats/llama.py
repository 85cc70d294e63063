"""Llama 3.1 to 3.3: the answer is a call in JSON, which `<|python_tag|>` may announce.

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.json_calls import json_call, json_call_list, json_object
from server.chat.formats.lark import json_calls, sequence
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.tools import Tool

KEYS = ("name", "parameters")
PYTHON = "<|python_tag|>"


class LlamaReader(Reader):
    """Without a mark, only an answer that begins as a call is one."""

    def read(self) -> Generator[None, None, None]:
        """Calls at the beginning or after the mark."""
        yield from self.reasoning("<think>", "</think>")
        if self.tools:
            yield from self._calls()
            while (yield from self.until((PYTHON,), self.content)):
                yield from self._calls()

    def _calls(self) -> Generator[None, None, None]:
        yield from self.space()
        if (yield from self.peek("[")):
            yield from json_call_list(self)
        elif not (yield from self.peek("{")):
            self.give_up()
        else:
            while (yield from json_call(self)):
                yield from self.space()
                if not (yield from self.one_of((";", ","))):
                    self.settle()
                    break


class Llama(ChatFormat):
    """`{"name": ..., "parameters": {...}}`. Calls cannot be told from content before they are read."""

    name = "llama"
    marks = (PYTHON, "<think>", "</think>")
    telling = ("<|start_header_id|>", "ipython", '"parameters": ')
    reader = LlamaReader

    def call_grammar(self, tools: Sequence[Tool], special: Mapping[str, int], *, parallel: bool) -> CallGrammar:
        """The objects, with semicolons between them."""
        return CallGrammar(
            "object", sequence('""', '"; " object', parallel=parallel) + json_calls(tools, keys=KEYS), None
        )

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The objects, with semicolons between them."""
        return "; ".join(json_object(*call, keys=KEYS) for call in calls)
