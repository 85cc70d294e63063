"""Where a model may call but need not, no call that is read breaks its schema, whatever the weights."""

from __future__ import annotations

import json
import random
import re

import jsonschema
import numpy as np
import pytest

from server.chat.events import Reasoning
from server.chat.formats import named
from server.engine.beginning import Awaited
from server.engine.request import Grammar
from tests.chat.formats.answering import TOOLS, Free
from tests.chat.formats.examples import CALLING, EXAMPLES
from tests.chat.formats.reading import Call, Example, cases, read

SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
SHARDS = (
    "get_weather",
    "now",
    '{"name": "',
    '", "parameters": {',
    '"arguments": {',
    "{}",
    "}",
    "]",
    "[",
    "(",
    ")",
    "\n",
)
CUT = re.compile(r"<[^<>]*>|\w+|\s+|.")
CLOSING = b'"}])<`;\n'
LENGTH = 300
SEEDS = 12


class Walk:
    """An answer that is put together from parts of what its format writes, as far as each token may come."""

    def __init__(self, answer: Free, seed: int) -> None:
        self._answer = answer
        self._parts = [*(one.text for one in EXAMPLES[answer.style.name] if one.text), *SHARDS, *answer.style.marks]
        self._chance = random.Random(seed)

    def text(self) -> str | None:
        """The whole answer; None where it found no end."""
        held, said = self._answer.held, self._answer.said
        while not held.complete and len(said) < (3 * LENGTH if held.begun else LENGTH):
            self._answer.admitted(self._part())
            if held.begun and not held.complete and self._chance.random() < 0.8 and self._any():
                return said.decode(errors="replace")
        return said.decode(errors="replace") if held.complete or not held.begun else None

    def _part(self) -> str:
        text = self._chance.choice(self._parts)
        if self._chance.random() < 0.5:
            begin = self._chance.randrange(len(text))
            text = text[begin : begin + self._chance.choice([4, 20, 200])]
        return text

    def _any(self) -> bool:
        """Say any token that may come; whether it was the end."""
        ends = self._answer.vocabulary.end_tokens
        row = np.zeros(self._answer.vocabulary.size, np.float32)
        few = self._answer.held.restrict(row)
        left = (np.flatnonzero(np.isfinite(row)) if few is None else few).tolist()
        tokens = {token for token in left if not self._answer.held.vetoes(token)}
        if tokens <= ends or (tokens & ends and self._chance.random() < 0.3):
            return True
        closing = tokens.intersection(CLOSING)
        chosen = closing if closing and self._chance.random() < 0.4 else tokens - ends
        self._answer.say(self._chance.choice(sorted(chosen)))
        return False


PROMPTS = [
    pytest.param(style, prompt, id=f"{style}{'-reasoning' * bool(prompt)}")
    for style in CALLING
    for prompt in ("", *(named(style).reasoning or ())[:1])
]


TOKENS = pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])


@TOKENS
@pytest.mark.parametrize(("style", "prompt"), PROMPTS)
def test_calls_that_are_read_validate(style: str, prompt: str, tokens: bool) -> None:
    for seed in range(SEEDS):
        answer = Free(named(style), prompt, tokens)
        text = Walk(answer, seed).text()
        said = read(named(style), Example(text or "", (), prompt, TOOLS))
        calls = [one for one in said if isinstance(one, Call)]
        assert calls or text is None or not answer.held.begun, text
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


WHOLE = {
    name: [one.text for one in EXAMPLES[name] if one.in_grammar and "</param> &" not in one.text] for name in CALLING
}
"""Of the examples the usual ones: no token that is a mark stands within a text."""
USUAL = {
    "llama": [
        '{"name":"get_weather","parameters":{"city":"Aix"}}',
        '{\n  "name": "get_weather",\n  "parameters": {\n    "city": "Aix"\n  }\n}',
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Aix", "days": 2}}',
        '\n\n{"name": "now", "parameters": {}}',
        '{"name": "now", "arguments": {}}',
        '[\n    {\n        "name": "now",\n        "parameters": {}\n    }\n]',
        '{"name": "now", "parameters": {}}, {"name": "get_weather", "parameters": {"city": "Aix"}}',
        '{"name": "now", "parameters": {}}\n',
    ],
    "pythonic": [
        '\n\n[get_weather(city="Aix", days=2), now()]',
        '[\n    get_weather(city="Aix"),\n    now()\n]',
        '<|python_start|>[get_weather(city="Aix")]<|python_end|>',
        "[get_weather(city='Aix',days=2,unit='celsius', hourly=True)]\n",
        "[plot(lines=[], title=None)]",
        '[get_weather.call(\n    city="Aix",\n    days=2\n)]',
    ],
    "functionary-v3.2": [
        'get_weather\n{"city": "Aix"}',
        "\nnow\n{}",
        'all\nI look.>>>get_weather\n{"city": "Aix"}>>>now\n{}',
    ],
    "command-r": [
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {\n            '
        '"city": "Aix"\n        }\n    }\n]```',
        'Plan.\nAction:\n```json\n[{"tool_name":"now","parameters":{}}]\n```',
    ],
    "phi": [
        'functools[{"name": "get_weather", "arguments": {"city": "Aix"}}]',
        'functools[{"name":"now","parameters":{}},{"name":"now","parameters":{}}]',
        '<|tool_call|>[\n  {\n    "name": "now",\n    "arguments": {}\n  }\n]<|/tool_call|>',
    ],
    "functionary-v3.1": ["<function=now>{}</function>\n<function=now>{}</function>"],
    "lfm": ["<|tool_call_start|>[get_weather(city='Aix',days=2)]<|tool_call_end|>"],
    "gemma": ["```tool_code\nget_weather(city='Aix',days=2)\n```"],
    "qwen3-coder": [
        "<function=get_weather>\n<parameter=city>\nAix\n</parameter>\n</function>\n",
        "I look.\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    ],
    "harmony": [
        "<|channel|>analysis<|message|>Hm. to=functions.now<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Aix"}<|call|>',
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary"
        ' json<|message|>{"city": "Aix"}<|call|>',
        " to=functions.now<|channel|>commentary <|constrain|> json<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.now code<|message|>{}<|call|>",
    ],
    "kimi-k2": ["<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|>"],
}
"""How models spell their calls, besides what stands in the tables of examples."""
THOUGHTFUL = [name for name in CALLING if named(name).reasoning and not named(name).text_opening]


@TOKENS
@pytest.mark.parametrize("style", CALLING)
def test_calls_may_be_made(style: str, tokens: bool) -> None:
    for text in [*WHOLE[style], *USUAL.get(style, [])]:
        answer = Free(named(style), "", tokens)
        assert answer.admitted(text) == text
        assert answer.may_end or text.endswith("<|tool_call_end|>"), text
        said = read(named(style), Example(text, (), "", TOOLS))
        assert any(isinstance(one, Call) for one in said), text


@TOKENS
@pytest.mark.parametrize("style", THOUGHTFUL)
def test_calls_may_be_made_behind_reasoning(style: str, tokens: bool) -> None:
    begin, end = named(style).reasoning or ("", "")
    for text in WHOLE[style]:
        for prompt in ("", begin):
            answer = Free(named(style), prompt, tokens)
            thoughts = f"{'' if prompt else begin}\nHm, get_weather, or now?\n{end}\n\n"
            assert answer.admitted(thoughts + text) == thoughts + text
            said = read(named(style), Example(thoughts + text, (), prompt, TOOLS))
            assert [type(one) for one in said][:2] == [Reasoning, Call]


TEXTS = [
    "It is sunny in Aix.",
    '{"answer": 42}',
    '{"tools": [{"name": "get_weather", "parameters": {}}]}',
    '{\n  "type": "weather",\n  "name": "Aix"\n}',
    '{"parameters": {"city": "Aix"}, "name": "get_weather"}',
    "[1] says now(), [now] get_weather.",
    "[1, 2]",
    "```json\n[]\n```",
    "Call get_weather(city='Aix') or to=functions.now, and then <function=...>.",
    'Action: ```json\n[\n    {\n        "tool_name": "directly_answer",\n        "parameters": {}\n    }\n]```',
    "\n\nnow and then >>> or >>>then\n",
    "functools[0]",
]


@TOKENS
@pytest.mark.parametrize("style", CALLING)
@pytest.mark.parametrize("text", TEXTS)
def test_text_may_be_anything_else(style: str, text: str, tokens: bool) -> None:
    answer = Free(named(style), "", tokens)
    assert answer.admitted(text) == text
    assert answer.may_end
    assert not answer.held.begun
    assert not [one for one in read(named(style), Example(text, (), "", TOOLS)) if isinstance(one, Call)]


def _without_calls(style: str) -> list[Example]:
    marks = named(style).call_grammar(TOOLS, {}, parallel=True).marks
    return [
        example
        for example in EXAMPLES[style]
        if example.tools
        and not any(isinstance(one, Call) for one in example.says)
        and not any(mark in example.text for mark in marks)
    ]


@TOKENS
@pytest.mark.parametrize(("style", "example"), cases({name: _without_calls(name) for name in CALLING}))
def test_what_is_no_call_may_be_said(style: str, example: Example, tokens: bool) -> None:
    assert Free(named(style), example.prompt, tokens).admitted(example.text) == example.text


WRONG = '{"bogus": 1}'
FAR = " " * 1100
AROUND = {
    "llama": [
        f'{{"type":"function","type":"function","name":"now","parameters":{WRONG}}}',
        f'{{"parameters": {WRONG}, "name": "now"}}',
        f'{{"id": "1", "name": "now", "parameters": {WRONG}}}',
        f'{{{FAR}"name": "now", "parameters": {WRONG}}}',
        f'[{FAR}{{"name": "now", "parameters": {WRONG}}}]',
        f'{{"type":"function"{FAR},"name": "now", "parameters": {WRONG}}}',
        f'{FAR}{{"name": "now", "parameters": {WRONG}}}',
    ],
    "command-r": [
        f'Action:\n```json\n[{{"type":"function","type":"function","tool_name": "now", "parameters": {WRONG}}}]\n```',
        f'Action:\n```json\n[{{"parameters": {WRONG}, "tool_name": "now"}}]\n```',
        f'Action:\n```json{FAR}[{{"tool_name": "now", "parameters": {WRONG}}}]\n```',
        f'<think>Action:\n```json\n[{{"tool_name": "now", "parameters": {WRONG}}}]\n```',
    ],
    "pythonic": [f"[{FAR}now(bogus=1)]", "[now.call(bogus=1)]", "<|python_tag|>[now(bogus=1)]"],
    "phi": [f'functools[{FAR}{{"name": "now", "arguments": {WRONG}}}]'],
    "harmony": [
        f"<|channel|>commentary to= to=functions.now<|message|>{WRONG}<|call|>",
        f"<|channel|>commentary to=x<|message|><|channel|>commentary to=functions.now<|message|>{WRONG}<|call|>",
        f"<|channel|>commentary to=x<|message|> to=functions.now<|message|>{WRONG}<|call|>",
        f"<|channel|>analysis<|message|>Hm.<|start|>assistant to=functions.now<|message|>{WRONG}<|call|>",
        f"<|start|>{FAR}to=functions.now<|message|>{WRONG}<|call|>",
    ],
    "functionary-v3.2": [f">>>now\n{WRONG}", f"all\nHm.>>>>now\n{WRONG}", f"\n\nnow\n{WRONG}"],
    "qwen3-coder": ["<function=now><parameter=bogus>1</parameter></function>"],
    "kimi-k2": [f"<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{WRONG}<|tool_call_end|>"],
}
"""Ways around the schemas that random weights would hardly find."""


@TOKENS
@pytest.mark.parametrize(("style", "text"), [(style, text) for style, texts in AROUND.items() for text in texts])
def test_there_is_no_way_around_a_schema(style: str, text: str, tokens: bool) -> None:
    answer = Free(named(style), "", tokens)
    said = answer.admitted(text)
    assert not [
        one for one in read(named(style), Example(said, (), "", TOOLS)) if "bogus" in getattr(one, "arguments", "")
    ]


@pytest.mark.parametrize(("style", "prompt"), PROMPTS)
def test_what_sets_nothing_off_is_read_as_no_call(style: str, prompt: str) -> None:
    answer, chance = Free(named(style), prompt, tokens=False), random.Random(style)
    begins = answer.begins
    shards = [*SHARDS, *named(style).marks, *(shard for one in EXAMPLES[style] for shard in CUT.findall(one.text))]
    for _ in range(3000):
        text = "".join(chance.choices(shards, k=chance.randint(1, 14)))
        if isinstance(Awaited.of(begins).after(0, text.encode()), Awaited):
            said = read(named(style), Example(text, (), prompt, TOOLS))
            assert not [one for one in said if isinstance(one, Call)], text


NAMED = {"name": {"type": "string"}, "type": {"type": "string"}, "answer": {"type": "number"}}
FORMS = [
    (Grammar("json_object", ""), '{"name": "nowhere", "n": 1, "type": "function"}'),
    (Grammar("json_object", ""), '{\n  "type": "functional"\n}'),
    (Grammar.of_schema({"type": "object", "properties": NAMED}), '{"name": "get_weathers", "answer": 4}'),
    (Grammar.of_schema({"type": "object", "properties": NAMED}), '{"name":"get","type":"function"}'),
    (Grammar.of_schema({"type": "array", "items": {"type": "object"}}), '[\n  {"name": "nowhere"}\n]'),
    (Grammar("choice", '["now", "[", "{"]'), "["),
    (Grammar("regex", "[{a-z]+"), "{now"),
]


@TOKENS
@pytest.mark.parametrize(("answer", "text"), FORMS)
@pytest.mark.parametrize("style", CALLING)
def test_an_answer_of_a_form_and_calls_do_not_keep_each_other_out(
    style: str, answer: Grammar, text: str, tokens: bool
) -> None:
    text = named(style).text_opening + text
    said = Free(named(style), "", tokens, answer)
    assert said.admitted(text) == text
    assert said.may_end
    for call in WHOLE[style]:
        said = Free(named(style), "", tokens, answer)
        assert said.admitted(call) == call
        assert said.may_end


ANY = [Grammar("json_object", ""), Grammar("regex", "(?s:.*)"), Grammar("lark", 'start: "[" /(?s:.+)/ | /[^\\[]+/')]


@TOKENS
@pytest.mark.parametrize("form", ANY, ids=lambda form: form.kind)
@pytest.mark.parametrize(("style", "prompt"), PROMPTS)
def test_what_has_a_form_is_read_as_no_call(style: str, prompt: str, form: Grammar, tokens: bool) -> None:
    for seed in range(SEEDS // 2):
        answer = Free(named(style), prompt, tokens, form)
        text = Walk(answer, seed).text()
        said = read(named(style), Example(answer.said.decode(errors="replace"), (), prompt, TOOLS))
        calls = [one for one in said if isinstance(one, Call)]
        assert bool(calls) <= answer.held.set_off, answer.said
        assert calls or text is None or not answer.held.set_off, text
        for call in calls if text is not None else []:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


OBJECTS = [
    Grammar("json_object", ""),
    Grammar("regex", r"\{[^}]*\}"),
    Grammar("lark", 'start: "{" WORD? "}"\nWORD: /\\w+/'),
    Grammar("gbnf", 'root ::= "{" [a-z]* "}"'),
]


@TOKENS
@pytest.mark.parametrize("form", OBJECTS, ids=lambda form: form.kind)
@pytest.mark.parametrize("style", [name for name in CALLING if named(name).reasoning])
def test_what_has_a_form_may_follow_reasoning(style: str, form: Grammar, tokens: bool) -> None:
    begin, end = named(style).reasoning or ("", "")
    for prompt in ("", begin):
        answer = Free(named(style), prompt, tokens, form, thinking=True)
        joint = named(style).reasoning_joint or "\n\n"
        text = f"{'' if prompt else begin}Hm.{end}{joint}{named(style).text_opening}{{}}"
        assert answer.admitted(text) == text
        assert answer.may_end
        assert not answer.held.set_off


@TOKENS
@pytest.mark.parametrize("form", ANY, ids=lambda form: form.kind)
@pytest.mark.parametrize(("style", "text"), [(style, text) for style, texts in AROUND.items() for text in texts])
def test_a_form_is_no_way_around_a_schema(style: str, text: str, form: Grammar, tokens: bool) -> None:
    quoted = json.dumps({"text": text}, ensure_ascii=False)
    for whole in (text, named(style).text_opening + text, named(style).text_opening + quoted):
        answer = Free(named(style), "", tokens, form)
        said = answer.admitted(whole)
        read_so = read(named(style), Example(said, (), "", TOOLS))
        assert not [one for one in read_so if "bogus" in getattr(one, "arguments", "")]


@TOKENS
@pytest.mark.parametrize("style", [name for name in CALLING if named(name).reasoning_cuts])
def test_reasoning_before_a_form_spells_no_mark_that_would_cut_it_short(style: str, tokens: bool) -> None:
    begin, _ = named(style).reasoning or ("", "")
    for cut in named(style).reasoning_cuts:
        answer = Free(named(style), "", tokens, Grammar("json_object", ""), thinking=True)
        assert answer.admitted(f"{begin}Hm <|") == f"{begin}Hm <|"
        before = answer.said.decode()
        for byte in cut.encode()[2:-1]:
            assert answer.held.admits(byte)
            answer.say(byte)
        assert answer.said.decode() == before + cut[2:-1]
        assert not answer.held.admits(ord(">"))


def test_an_answer_that_begins_as_a_call_is_one() -> None:
    answer = Free(named("llama"), "", tokens=False, answer=Grammar("json_object", ""))
    assert answer.admitted('{"name": "now", "n": 1}') == '{"name": "now", "'
    assert answer.held.set_off
    assert answer.admitted('parameters": {}}') == '{"name": "now", "parameters": {}}'
    assert answer.may_end
