"""What grammar an answer is held to: that of the tool calls it must or may make, that of its text, or both."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from server.chat.tools import NamedTool
from server.engine.messages import Grammar
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.formats.base import ChatFormat
    from server.chat.task import ChatTask
    from server.chat.tools import Tool


def constrain(
    task: ChatTask, style: ChatFormat, special: Mapping[str, int], reasoning_end: str | None
) -> Grammar | None:
    """The grammar for a task's answer; None leaves it free.

    Args:
        task: what is asked for.
        style: how the model writes calls.
        special: the model's special tokens by their text.
        reasoning_end: the mark after which the answer proper begins, where the prompt leaves off inside reasoning.

    Raises:
        RequestError: a tool must be called that is not offered, or the wishes cannot be had together.
    """
    required = task.tool_choice == "required" or isinstance(task.tool_choice, NamedTool)
    tools = _callable(task)
    if not tools:
        return _after(task.answer, reasoning_end)
    calls = style.call_grammar(tools, special, parallel=task.parallel_tool_calls)
    if required:  # an answer that calls has no text that the answer's form could hold for
        return _lark(f"{calls.opening} calls", calls.rules, reasoning_end)
    if task.answer is not None:
        rules = f"answer: {_as_lark(task.answer)}\n{calls.rules}"
        return _lark(f"(answer | {calls.opening} calls)", rules, reasoning_end)
    if calls.trigger is None:
        return None
    return Grammar("lark", f"start: calls\n{calls.rules}", calls.trigger, behind=reasoning_end)


def _callable(task: ChatTask) -> Sequence[Tool]:
    """The tools that the answer may call."""
    choice = task.tool_choice
    if choice == "none":
        return ()
    if isinstance(choice, NamedTool):
        found = [tool for tool in task.tools if tool.name == choice.name]
        if not found:
            raise RequestError(f"there is no tool '{choice.name}' among those given", param="tool_choice")
        return found
    if choice == "required" and not task.tools:
        raise RequestError("tool_choice is required, but no tools are given", param="tool_choice")
    return task.tools


def _after(answer: Grammar | None, reasoning_end: str | None) -> Grammar | None:
    if answer is None or reasoning_end is None:
        return answer
    if answer.kind in ("lark", "gbnf"):
        return Grammar(answer.kind, answer.source, reasoning_end)
    return _lark("answer", f"answer: {_as_lark(answer)}", reasoning_end)


def _lark(start: str, rules: str, reasoning_end: str | None) -> Grammar:
    """A grammar that begins with a rule's body; behind reasoning, models put line breaks before it."""
    if reasoning_end is not None:
        start, rules = f"LEAD {start}", f"LEAD: /[ \\n]{{0,4}}/\n{rules}"
    return Grammar("lark", f"start: {start}\n{rules}", reasoning_end)


def _as_lark(answer: Grammar) -> str:
    """An answer's grammar as the body of a Lark rule."""
    match answer.kind:
        case "json_schema":
            return f"%json {answer.source}"
        case "json_object":
            return '%json {"type": "object"}'
        case "choice":
            return " | ".join(json.dumps(choice) for choice in json.loads(answer.source))
        case "regex":
            return "/" + re.sub(r"(?<!\\)/", r"\\/", answer.source) + "/"
        case "lark" | "gbnf":
            raise RequestError("a grammar and tools cannot be had together; leave one of them out", param="grammar")
