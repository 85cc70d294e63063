"""How an answer that reasons too long, or would end in reasoning, is made to go on, in its format's own marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.engine.request import Beginning, ReasoningLimit

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat
    from server.chat.task import ChatTask
    from server.engine.request import Grammar

TAG = "</think>"


def limit_reasoning(task: ChatTask, style: ChatFormat, prompt: str, grammar: Grammar | None) -> ReasoningLimit | None:
    """The bound on an answer's reasoning; None where the format knows no reasoning, or it may last and end as it likes.

    It may not where a form or a call must follow it.

    Args:
        style: how the model writes reasoning.
        prompt: the rendered prompt.
        grammar: what the answer is held to; one that begins right behind reasoning has its own say on white space.
    """
    if style.reasoning is None:
        return None
    begin, end = style.reasoning
    constrained = grammar is not None and grammar.begins == Beginning(behind=end)
    if task.reasoning_budget is None and not constrained:
        return None
    closing = end
    if end == TAG:  # templates write it on a line of its own, and an empty line behind it
        closing = f"\n{end}" if constrained else f"\n{end}\n\n"
    return ReasoningLimit(
        tokens=task.reasoning_budget,
        begin=begin,
        end=end,
        closing=(task.reasoning_message if task.reasoning_budget is not None else "") + closing,
        opened=style.open_reasoning(prompt) is not None,
        repeats=bool(style.text_opening),  # where text has a mark of its own, so has any further reasoning
    )
