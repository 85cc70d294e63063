"""Llama 3.1 to 3.3: the answer is a call in JSON, which `<|python_tag|>` may announce.

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from server.chat.formats.base import CallGrammar, ChatFormat
from server.chat.formats.beginnings import json_begun
from server.chat.formats.json_calls import json_call, json_call_list, json_object
from server.chat.formats.lark import LOOSE, mark, spaced_calls
from server.chat.formats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from server.chat.formats.json_calls import ReadCall
    from server.chat.tools import Tool

KEYS = ("name", "parameters")
PYTHON = "<|python_tag|>"


class LlamaReader(Reader):
    """Without a mark, only an answer that begins as a call is one."""

    def read(self) -> Generator[None, None, None]:
        """Calls at the beginning or after the mark."""
        yield from self.reasoning("<think>", "</think>")
        if self.tools:
            yield from self._calls(partial(json_call, named_first=True))
            while (yield from self.until((PYTHON,), self.content)):
                yield from self._calls(json_call)

    def _calls(self, call: ReadCall) -> Generator[None, None, None]:
        yield from self.space()
        if (yield from self.peek("[")):
            if (yield from json_call_list(self, call)):
                yield from self.closing()
        elif not (yield from self.peek("{")):
            self.give_up()
        else:
            while (yield from call(self)):
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
        """The objects, one behind the other or in a list, spaced as the model likes."""
        opening = f"{mark(PYTHON, special)}?"
        others, listed = ('(WS? (";" | ",") WS? object)*', "(comma object)*") if parallel else ("", "")
        rules = f"calls: (object {others} | open object {listed} close) WS?\n{LOOSE}"
        rules += spaced_calls(tools, "name", ("parameters", "arguments"))
        return CallGrammar(opening, rules, (PYTHON,), start=json_begun(tools))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The objects, with semicolons between them."""
        return "; ".join(json_object(*call, keys=KEYS) for call in calls)
