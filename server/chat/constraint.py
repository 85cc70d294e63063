"""What grammar an answer is held to: that of the tool calls it must or may make, that of its text, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from server.chat.formats.beginnings import any_text
from server.chat.formats.lark import all_until, mark, text_without
from server.chat.tools import NamedTool
from server.engine.request import Beginning, Grammar, Lead, OptionalCalls
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.chat.formats.base import CallGrammar, ChatFormat
    from server.chat.task import ChatTask
    from server.chat.template import Prompt
    from server.chat.tools import Tool

LEAD = "LEAD: /[ \\n]{0,4}/\n"
"""Behind reasoning, models put line breaks."""


@dataclass(frozen=True)
class Head:
    """What comes before an answer proper, as expressions in Lark.

    Attributes:
        reasoning: what may come first: reasoning that the model itself begins.
        text: what an answer that is text begins with.
        rules: of which these expressions speak.
        behind: the mark after which all this begins, where the prompt leaves off inside reasoning.
    """

    reasoning: str = ""
    text: str = ""
    rules: str = ""
    behind: str | None = None

    def of_text(self, form: Grammar) -> Grammar:
        """The grammar of an answer whose text has a form."""
        lead = Lead(f"{self.reasoning}{self.text}", self.rules) if self.reasoning or self.text else None
        return structs.replace(form, begins=self.begins, lead=lead)

    def of_calls(self, calls: CallGrammar) -> Grammar:
        """The grammar of an answer that is calls."""
        source = f"start: {self.reasoning}{calls.opening} calls\n{self.rules}{calls.rules}"
        return Grammar("lark", source, self.begins)

    @property
    def begins(self) -> Beginning | None:
        """Where all this begins."""
        return Beginning(behind=self.behind) if self.behind else None


def head_of(task: ChatTask, style: ChatFormat, special: Mapping[str, int], prompt: Prompt) -> Head:
    """What comes before the answer to a task.

    A model may begin to reason where it was asked to, where its answer may be anything, or where it marks its text so
    that both can be told apart.
    """
    end = style.open_reasoning(prompt.text)
    if end is None and prompt.begun:
        return Head()
    text = f"{mark(style.text_opening, special)} " if style.text_opening else ""
    joint = mark(style.reasoning_joint, special) if style.reasoning_joint else "LEAD"
    if end is not None:
        return Head(f"{joint} ", text, LEAD, behind=end)
    anything = task.answer is None and task.tool_choice == "auto"
    if style.reasoning is None or not (task.thinking or anything or style.text_opening):
        return Head(text=text)
    begin, end = style.reasoning
    thoughts = all_until(end, special, "thoughts", text_without(style.reasoning_cuts))
    return Head("thinking? ", text, f"thinking: {mark(begin, special)} thoughts {joint}\n{thoughts}\n{LEAD}")


class Constraint(NamedTuple):
    """What an answer is held to.

    Attributes:
        grammar: None leaves it free.
        only_calls: whether it is to have no text.
    """

    grammar: Grammar | None
    only_calls: bool = False


def constrain(task: ChatTask, style: ChatFormat, special: Mapping[str, int], head: Head) -> Constraint:
    """What a task's answer is held to.

    Args:
        task: what is asked for.
        style: how the model writes calls.
        special: the model's special tokens by their text.
        head: what comes before the answer proper.

    Raises:
        RequestError: a tool must be called that is not offered.
    """
    tools = _callable(task)
    if not tools:
        return Constraint(head.of_text(task.answer) if task.answer else None)
    calls = style.call_grammar(tools, special, parallel=task.parallel_tool_calls)
    if task.tool_choice == "required" or isinstance(task.tool_choice, NamedTool):
        return Constraint(head.of_calls(calls), only_calls=True)  # there is no text that a form could hold for
    begun = structs.replace(Head().of_calls(calls), begins=_beginning(style, head, calls))
    if task.answer is None:
        return Constraint(begun)
    instead = OptionalCalls(head.of_calls(calls), begun)
    return Constraint(structs.replace(head.of_text(task.answer), calls=instead))


def _beginning(style: ChatFormat, head: Head, calls: CallGrammar) -> Beginning:
    """Where calls begin in an answer that may have some: not in reasoning, unless they end it."""
    trigger = calls.trigger or any_text(calls.marks)
    if style.calls_end_reasoning:
        return Beginning(trigger=trigger, start="" if head.behind else calls.start)
    repeats = bool(style.text_opening)
    aside = style.reasoning if repeats or not head.behind else None
    return Beginning(behind=head.behind or "", trigger=trigger, start=calls.start, aside=aside, repeats=repeats)


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
