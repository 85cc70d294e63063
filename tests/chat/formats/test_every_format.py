"""What holds for every format, shown with the examples of each."""

from __future__ import annotations

import json
import random
from itertools import combinations
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from server.chat.events import Content, Reasoning
from server.chat.formats import FORMATS, named
from server.chat.tools import Tool
from server.engine.grammar import to_lark
from server.engine.json_schema import SchemaError
from server.engine.request import Grammar
from server.errors import RequestError
from tests.chat.formats.examples import CALLING, EXAMPLES
from tests.chat.formats.reading import NOW, PLOT, TOOLS, WEATHER, Call, Example, cases, read

BYTES = LLTokenizer("byte")
WITHOUT_MARKS = ("gemma", "command-r", "functionary-v3.1", "functionary-v3.2")
"""Formats that write calls without special tokens."""


def test_every_format_has_examples() -> None:
    assert set(EXAMPLES) == {style.name for style in FORMATS}


@pytest.mark.parametrize(("style", "example"), cases(EXAMPLES))
def test_cuts_do_not_show(style: str, example: Example) -> None:
    everywhere = range(1, len(example.text))
    assert read(named(style), example, everywhere) == example.says
    for cut in everywhere:
        assert read(named(style), example, [cut]) == example.says, cut


SHORT = {name: [example for example in examples if len(example.text) < 130] for name, examples in EXAMPLES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("style", "example"), cases(SHORT))
def test_no_two_cuts_show(style: str, example: Example) -> None:
    for cuts in combinations(range(1, len(example.text)), 2):
        assert read(named(style), example, cuts) == example.says, cuts


def _slice(text: str, begin: int, end: int) -> str:
    return text[begin:end]


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, str, list[int]]:
    """A format, pieces of what it and others write in any order, and cuts."""
    style = draw(st.sampled_from(FORMATS))
    examples = [example.text for example in EXAMPLES[style.name]]
    pieces = [*style.marks, "get_weather", "now", '{"name": "now", "arguments": {', '"city": "a', '"}', "}", "(", "\n"]
    part = st.one_of(
        st.sampled_from(pieces),
        st.text(max_size=4),
        st.builds(_slice, st.sampled_from(examples), st.integers(0, 60), st.integers(0, 200)),
    )
    text = "".join(draw(st.lists(part, max_size=8)))
    return style.name, text, draw(st.lists(st.integers(0, len(text)), max_size=6))


@given(answers())
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_without_fault_and_cuts_do_not_show(answer: tuple[str, str, list[int]]) -> None:
    style, text, cuts = answer
    assert read(named(style), Example(text, ()), cuts) == read(named(style), Example(text, ()))


@given(st.sampled_from(FORMATS), st.text(st.characters(exclude_characters="<>[]{`")))
@settings(max_examples=200, deadline=None)
def test_text_without_marks_is_content_to_the_letter(style: Any, text: str) -> None:
    prefix = {"functionary-v3.2": "all\n"}.get(style.name, "")
    assert read(style, Example(prefix + text, ())) == ((Content(text),) if text else ())


@pytest.mark.parametrize(
    ("style", "opening"),
    [
        ("hermes", '<tool_call>{"name": "plot", "arguments": {"lines": '),
        ("pythonic", "[plot(lines="),
        ("gemma4", "<|tool_call>call:plot{lines:"),
        ("qwen3-coder", "<tool_call>\n<function=plot>\n<parameter=lines>\n"),
    ],
)
def test_values_nested_without_end_are_no_fault(style: str, opening: str) -> None:
    said = read(named(style), Example(opening + "[" * 20_000 + "\n</parameter>", ()), [20, 2_000])
    assert isinstance(said[0], Call)
    assert said[0].name == "plot"


Arguments = st.SearchStrategy[dict[str, Any]]
WITHOUT_TAGS = st.text(st.characters(exclude_characters="<\r", exclude_categories=["Cs"]))
NUMBERS: st.SearchStrategy[Any] = st.floats(-1e6, 1e6) | st.integers()
STYLES: Arguments = st.fixed_dictionaries({}, optional={"color": WITHOUT_TAGS})
NO_ARGUMENTS: Arguments = st.fixed_dictionaries({})
WEATHER_ARGUMENTS: Arguments = st.fixed_dictionaries(
    {"city": WITHOUT_TAGS},
    optional={"days": st.integers(1, 7), "unit": st.sampled_from(["celsius", "fahrenheit"]), "hourly": st.booleans()},
)
PLOT_ARGUMENTS: Arguments = st.fixed_dictionaries(
    {
        "lines": st.lists(st.lists(NUMBERS, max_size=3), max_size=3),
        "title": st.none() | st.text("abc", min_size=1),
        "style": STYLES,
    }
)
CALLS = st.lists(
    st.tuples(st.just("get_weather"), WEATHER_ARGUMENTS)
    | st.tuples(st.just("plot"), PLOT_ARGUMENTS)
    | st.tuples(st.just("now"), NO_ARGUMENTS),
    min_size=1,
    max_size=3,
)


@given(st.sampled_from(CALLING), CALLS)
@settings(max_examples=400, deadline=None)
def test_calls_that_a_format_writes_it_reads(style: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    text = named(style).write([(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls])
    said = read(named(style), Example(text, ()))
    assert [(one.name, json.loads(one.arguments)) for one in said if isinstance(one, Call)] == calls
    assert len(said) == len(calls)


@pytest.mark.parametrize("style", CALLING)
def test_parameters_may_have_any_name(style: str) -> None:
    arguments = {"$filter": "a eq 1", "user id": 2, "x-y.z": "é"}
    kinds = {str: "string", int: "integer"}
    schema = {"type": "object", "properties": {key: {"type": kinds[type(one)]} for key, one in arguments.items()}}
    tools = (Tool("find", "", schema),)
    text = named(style).write([("find", json.dumps(arguments, ensure_ascii=False))])
    (said,) = read(named(style), Example(text, (), tools=tools))
    assert isinstance(said, Call)
    assert json.loads(said.arguments) == arguments


def _matcher(
    style: str, *, parallel: bool, special: dict[str, int] | None = None, tools: tuple[Tool, ...] = TOOLS
) -> LLMatcher:
    grammar = named(style).call_grammar(tools, special or {}, parallel=parallel)
    lark = to_lark(Grammar("lark", f"start: {grammar.opening} calls\n{grammar.rules}"))
    source = LLMatcher.grammar_from_lark(lark)
    matcher = LLMatcher(BYTES, source, log_level=0)
    assert not matcher.get_error()
    return matcher


def _accepts(matcher: LLMatcher, text: str) -> bool:
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(("style", "example"), cases({name: EXAMPLES[name] for name in CALLING}))
def test_the_grammar_takes_what_the_format_writes(style: str, example: Example) -> None:
    calls = [one for one in example.says if isinstance(one, Call)]
    one_each = style == "harmony"
    if example.in_grammar and (len(calls) == 1 or not one_each):
        assert _accepts(_matcher(style, parallel=True), example.text)
        assert _accepts(_matcher(style, parallel=False), example.text) == (len(calls) == 1)
    elif not calls and example.tools:
        assert not _accepts(_matcher(style, parallel=True), example.text)


@pytest.mark.parametrize("style", CALLING)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("rm", {}), ("get_weather", {}), ("get_weather", {"city": "Aix", "days": 9}), ("now", {"city": "Aix"})],
)
def test_the_grammar_binds_each_name_to_its_schema(style: str, name: str, arguments: dict[str, Any]) -> None:
    assert not _accepts(_matcher(style, parallel=True), named(style).write([(name, json.dumps(arguments))]))


@pytest.mark.parametrize("style", CALLING)
def test_marks_that_are_special_tokens_stand_as_such_in_the_grammar(style: str) -> None:
    special = {text: index for index, text in enumerate(named(style).marks)}
    _matcher(style, parallel=True, special=special)
    grammar = named(style).call_grammar(TOOLS, special, parallel=True)
    assert ("<[" in grammar.opening + grammar.rules) == (style not in WITHOUT_MARKS)


@pytest.mark.parametrize("style", CALLING)
@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_grammar_allows_is_read_as_calls_that_validate(style: str, seed: int) -> None:
    matcher = _matcher(style, parallel=seed % 2 == 0)
    text = _random_walk(matcher, random.Random(seed))
    said = read(named(style), Example(text, ()))
    assert said
    for one in said:
        assert isinstance(one, Call), text
        tool = {tool.name: tool for tool in (WEATHER, PLOT, NOW)}[one.name]
        jsonschema.validate(json.loads(one.arguments), tool.parameters)


SEARCH = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "pattern": "^(?!-)"},
        "pages": {"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}},
        "extra": {"type": "object", "propertyNames": {"pattern": "^x-"}, "additionalProperties": {"type": "string"}},
    },
    "anyOf": [{"required": ["query"]}, {"required": ["pages"]}],
    "minProperties": 1,
}
"""Nothing odd for an MCP server, and more than a grammar can hold."""


@pytest.mark.parametrize("style", CALLING)
def test_what_a_schema_cannot_be_held_to_is_left_out_unless_the_tool_is_strict(style: str) -> None:
    call = named(style).write([("search", '{"pages": [2]}')])
    assert _accepts(_matcher(style, parallel=False, tools=(Tool("search", "", SEARCH),)), call)
    wrong = named(style).write([("search", '{"pages": 2}')])
    assert not _accepts(_matcher(style, parallel=False, tools=(Tool("search", "", SEARCH),)), wrong)
    with pytest.raises((RequestError, SchemaError), match=r"anyOf|contains|propertyNames|minProperties"):
        _matcher(style, parallel=False, tools=(Tool("search", "", SEARCH, strict=True),))


ENDS = (
    "<escape>",
    '<|"|>',
    "\n</parameter>\n",
    "</parameter>\n",
    "</arg_value>",
    "</arg_value:opensource>\n",
    "</｜DSML｜parameter>\n",
)


def _random_walk(matcher: LLMatcher, chance: random.Random) -> str:
    """Bytes drawn from those allowed, with a liking for those that end things, until the end is drawn."""
    text = bytearray()
    while not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(256) if mask[token // 8] >> token % 8 & 1]
        if matcher.is_accepting() and (not allowed or chance.random() < 0.5):
            break
        ending = [token for token in allowed if token in b'"}])<`;\n']
        tokens = [chance.choice(ending if ending and chance.random() < 0.4 else allowed)]
        if chance.random() < 0.05:
            tokens = list(chance.choice(ENDS).encode())
        text += bytes(tokens[: matcher.try_consume_tokens(tokens)])
        assert len(text) < 20_000
    return text.decode()


def test_reasoning_is_told_from_the_prompt() -> None:
    for style in FORMATS:
        if style.reasoning:
            assert style.open_reasoning(f"Hello{style.reasoning[0]}\n") == style.reasoning[1]
            said = read(style, Example(f"Hm.{style.reasoning[1]}", (), prompt=style.reasoning[0]))
            assert said == (Reasoning("Hm."),)
