"""What an answer is held to, as llguidance sees it: texts that may come and texts that may not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from llguidance import LLMatcher, LLTokenizer

from server.chat.constraint import LEAD, Head, constrain, head_of
from server.chat.events import Content
from server.chat.formats import named
from server.chat.task import ChatTask
from server.chat.template import Prompt
from server.chat.tools import NamedTool, Tool, ToolChoice
from server.engine.grammar import to_lark
from server.engine.request import Beginning, Generate, Grammar
from server.errors import RequestError

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat

TOKENIZER = LLTokenizer("byte")
HERMES = named("hermes")
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("get_weather", "", CITY), Tool("get_time", "", CITY))
NUMBER = Grammar("json_schema", '{"type": "integer"}')
WEATHER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TIME = WEATHER.replace("get_weather", "get_time")


def _grammar(
    choice: ToolChoice = "auto",
    answer: Grammar | None = None,
    *,
    tools: tuple[Tool, ...] = TOOLS,
    reasoning_end: str | None = None,
) -> Grammar | None:
    task = ChatTask(messages=[], tools=tools, tool_choice=choice, answer=answer, generate=Generate(id=0, prompt=""))
    head = Head("LEAD ", "", LEAD, reasoning_end) if reasoning_end else Head()
    return constrain(task, HERMES, {}, head).grammar


def _allows(grammar: Grammar | None, text: str) -> bool:
    """Whether a text is a whole of the grammar, or of the calls that may be made instead."""
    assert grammar is not None
    tokens = TOKENIZER.tokenize_bytes(text.encode())
    for one in (grammar, grammar.calls.first) if grammar.calls else (grammar,):
        matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(to_lark(one)))
        if matcher.consume_tokens(tokens) and matcher.is_accepting():
            return True
    return False


def test_without_tools_and_form_nothing_is_constrained() -> None:
    assert _grammar(tools=()) is None
    assert _grammar("none") is None


def test_a_tool_may_be_called_from_the_mark_on() -> None:
    grammar = _grammar()
    assert grammar
    assert grammar.begins
    assert re.search(grammar.begins.trigger, WEATHER)
    assert _allows(grammar, WEATHER)
    assert not _allows(grammar, WEATHER.replace("get_weather", "get_news"))


def test_a_tool_that_must_be_called_is_called_at_once() -> None:
    grammar = _grammar("required")
    assert grammar
    assert grammar.begins is None
    assert _allows(grammar, WEATHER)
    assert _allows(grammar, TIME)
    assert not _allows(grammar, "Sunny.")


def test_a_named_tool_is_the_only_one() -> None:
    grammar = _grammar(NamedTool("get_time"))
    assert _allows(grammar, TIME)
    assert not _allows(grammar, WEATHER)


def test_behind_reasoning_line_breaks_may_come_first() -> None:
    for grammar, text in (
        (_grammar("required", reasoning_end="</think>"), TIME),
        (_grammar(answer=NUMBER, tools=(), reasoning_end="</think>"), "12"),
    ):
        assert grammar
        assert grammar.begins == Beginning(behind="</think>")
        assert _allows(grammar, f"\n\n{text}")
        assert _allows(grammar, text)


def test_an_answer_in_a_form_may_still_be_a_call() -> None:
    grammar = _grammar(answer=NUMBER)
    assert _allows(grammar, "12")
    assert _allows(grammar, WEATHER)
    assert not _allows(grammar, "twelve")


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        (Grammar("json_object", ""), '{"a": 1}', "[1]"),
        (Grammar("choice", '["yes", "n\\"o"]'), 'n"o', "no"),
        (Grammar("regex", "a/b|[0-9]+"), "a/b", "a"),
        (Grammar("lark", 'start: calls\ncalls: "x"+'), "xx", "y"),
        (Grammar("gbnf", 'root ::= "x" | "y"'), "y", "z"),
    ],
)
def test_every_form_goes_with_tools(answer: Grammar, right: str, wrong: str) -> None:
    for end in (None, "</think>"):
        grammar = _grammar(answer=answer, reasoning_end=end)
        assert _allows(grammar, right)
        assert _allows(grammar, WEATHER)
        assert not _allows(grammar, wrong)


def test_where_a_call_must_be_made_the_answers_form_does_not_matter() -> None:
    assert _grammar("required", NUMBER) == _grammar("required")


def test_what_cannot_be_had_is_refused_by_its_field() -> None:
    with pytest.raises(RequestError, match="no tool 'get_news'") as caught:
        _grammar(NamedTool("get_news"))
    assert caught.value.param == "tool_choice"
    with pytest.raises(RequestError, match="no tools are given"):
        _grammar("required", tools=())


def _answers(style: ChatFormat, prompt: str, *, thinking: bool | None = None, begun: str = "") -> Grammar | None:
    """The grammar of a number, which may be a call too, behind what the format has come first."""
    task = ChatTask(messages=[], tools=TOOLS, answer=NUMBER, thinking=thinking, generate=Generate(id=0, prompt=""))
    return constrain(task, style, {}, head_of(task, style, {}, Prompt(prompt + begun, [], begun))).grammar


def test_a_model_that_is_asked_to_may_reason_before_its_answer() -> None:
    grammar = _answers(HERMES, "<|im_start|>assistant\n", thinking=True)
    assert grammar
    assert grammar.begins is None
    for text in ("12", WEATHER, "<think>\nHm.\n\nHm 3 < 4.\n</think>\n\n12", f"<think></think>\n{WEATHER}"):
        assert _allows(grammar, text)
    assert not _allows(grammar, "<think>Hm.</think>twelve")
    assert not _allows(grammar, "<think>12")
    assert not _allows(_answers(HERMES, "<|im_start|>assistant\n"), "<think>Hm.</think>12")
    opened = _answers(HERMES, "<|im_start|>assistant\n<think>\n", thinking=True)
    assert opened
    assert opened.begins == Beginning(behind="</think>")


@pytest.mark.parametrize(
    ("name", "prompt", "thoughts", "opening"),
    [
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant",
            "<|channel|>final<|message|>",
        ),
        ("solar-open", "<|begin|>assistant", "<|think|>Hm.<|end|><|begin|>assistant", "<|content|>"),
        ("functionary-v3.2", "assistant\n>>>", "", "all\n"),
    ],
)
def test_an_answer_has_the_mark_that_its_format_puts_before_text(
    name: str, prompt: str, thoughts: str, opening: str
) -> None:
    style = named(name)
    grammar = _answers(style, prompt)
    call = style.write([("get_time", '{"city": "Rome"}')])
    for text in (f"{opening}12", f"{thoughts}{opening}12"):
        assert _allows(grammar, text)
        read = style.parser(TOOLS, prompt)
        assert Content("12") in [*read.push(text), *read.finish()]
    assert not _allows(grammar, "12")
    assert not _allows(grammar, f"{opening}twelve")
    assert _allows(grammar, call.replace("call000000", "abcdefghij"))
    assert _allows(_answers(style, prompt, begun=opening + "1"), "2")
