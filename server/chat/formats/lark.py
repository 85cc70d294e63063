"""Pieces of the grammars under which calls are written, in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.tools import Tool


def literal(text: str) -> str:
    """A terminal for just this text."""
    return json.dumps(text, ensure_ascii=False)


def mark(text: str, special: Mapping[str, int]) -> str:
    """A terminal for a format's mark: one token where the model has it as such (`special`), else its text."""
    return f"<[{special[text]}]>" if text in special else literal(text)


def arguments(tool: Tool) -> str:
    """An expression for a JSON object that the tool's schema allows."""
    return "%json " + json.dumps({"type": "object", **tool.parameters}, ensure_ascii=False)


def json_calls(tools: Sequence[Tool], *, arguments_key: str = "arguments") -> str:
    """Rules of which `object` is a call in JSON, each name bound to its own tool's schema."""
    rules = ["object: " + " | ".join(f"object_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool.name)}, "{arguments_key}": '
        rules += [
            f'object_{index}: {literal(head)} arguments_{index} "}}"',
            f"arguments_{index}: {arguments(tool)}",
        ]
    return "\n".join(rules) + "\n"
