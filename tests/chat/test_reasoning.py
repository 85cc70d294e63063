"""How each format's reasoning is made to end: the format's own parser reads what is forced as just that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.chat.events import Content, Event, Reasoning
from server.chat.formats import FORMATS, named
from server.chat.reasoning import limit_reasoning
from server.chat.task import ChatTask
from server.engine.request import Beginning, Generate, Grammar, ReasoningLimit

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat

REASONING = [style for style in FORMATS if style.reasoning]
PROMPT = "<user>Hi<assistant>"


HEADERS = {"harmony": "<|start|>assistant", "solar-open": "<|begin|>assistant"}
"""What models whose reasoning is a message of its own write before the next."""


def bound(style: ChatFormat, prompt: str, grammar: Grammar | None = None) -> ReasoningLimit | None:
    task = ChatTask(
        messages=[], generate=Generate(id=0, prompt=""), reasoning_budget=7, reasoning_message=" Enough of that."
    )
    return limit_reasoning(task, style, prompt, grammar)


def joined(events: list[Event]) -> tuple[str, str]:
    """The reasoning and the content."""
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
    return reasoning, "".join(event.text for event in events if isinstance(event, Content))


@pytest.mark.parametrize("style", REASONING, ids=lambda style: style.name)
@pytest.mark.parametrize("opened", [True, False])
def test_what_is_forced_ends_reasoning(style: ChatFormat, opened: bool) -> None:
    assert style.reasoning
    begin, end = style.reasoning
    prompt = f"{PROMPT}{begin}\n" if opened else PROMPT
    limit = bound(style, prompt)
    assert limit
    assert (limit.tokens, limit.begin, limit.end, limit.opened) == (7, begin, end, opened)
    parser = style.parser((), prompt)
    said = ("" if opened else f"{begin}\n") + f"So, let me see.{limit.closing}"
    events = parser.push(said) + parser.push(HEADERS.get(style.name, "") + style.text_opening)
    events += parser.push("Yes.") + parser.finish()
    assert joined(events) == ("So, let me see. Enough of that.", "Yes.")


def test_white_space_is_left_to_a_grammar_that_begins_there() -> None:
    style = named("hermes")
    assert (free := bound(style, PROMPT))
    assert (held := bound(style, PROMPT, Grammar("lark", "", Beginning(behind="</think>"))))
    assert (calls := bound(style, PROMPT, Grammar("lark", "", Beginning(behind="</think>", trigger="<tool_call>"))))
    assert free.closing == calls.closing == " Enough of that.\n</think>\n\n"
    assert held.closing == " Enough of that.\n</think>"


def test_where_there_is_no_reasoning_nothing_bounds_it() -> None:
    assert bound(named("gemma"), PROMPT) is None
    task = ChatTask(messages=[], generate=Generate(id=0, prompt=""))
    assert limit_reasoning(task, named("hermes"), PROMPT, None) is None
