"""Pieces of the grammars under which calls are written, in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from server.chat.tools import Tool


def literal(text: str) -> str:
    """A terminal for just this text."""
    return json.dumps(text, ensure_ascii=False)


def mark(text: str, special: Mapping[str, int]) -> str:
    """A terminal for a format's mark: one token where the model has it as such (`special`), else its text."""
    return f"<[{special[text]}]>" if text in special else literal(text)


def sequence(first: str, other: str, end: str = "", *, parallel: bool) -> str:
    """The rule `calls`: one call, where `parallel` any number of others, and an end."""
    return f"calls: {first} ({other})* {end}\n" if parallel else f"calls: {first} {end}\n"


def any_of(name: str, tools: Sequence[Tool], body: Callable[[Tool, str], str]) -> str:
    """Rules of which `name` is a call to any of `tools`.

    Args:
        name: of the rule.
        tools: at least one.
        body: given a tool and the name of a rule for its arguments, what a call to it looks like.
    """
    rules = [f"{name}: " + " | ".join(f"{name}_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        rules.append(f"{name}_{index}: {body(tool, f'arguments_{index}')}")
        rules.append(f"arguments_{index}: {json_value({'type': 'object', **tool.parameters})}")
    return "\n".join(rules) + "\n"


def json_calls(
    tools: Sequence[Tool], *, keys: tuple[str, str] = ("name", "arguments"), begin: str = "{", end: str = '"}"'
) -> str:
    """Rules of which `object` is a call in JSON, each name bound to its own tool's schema.

    Args:
        tools: at least one.
        keys: of the name and of the arguments.
        begin: text before the name's key.
        end: an expression for what follows the arguments.
    """

    def body(tool: Tool, arguments: str) -> str:
        head = f'{begin}"{keys[0]}": {json.dumps(tool.name)}, "{keys[1]}": '
        return f"{literal(head)} {arguments} {end}"

    return any_of("object", tools, body)


def json_value(schema: dict[str, Any]) -> str:
    """An expression for JSON that a schema allows."""
    return "%json " + json.dumps(schema, ensure_ascii=False)
