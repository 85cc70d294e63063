"""Constrained output through a real worker: a model of random weights says what the grammar wants and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from server.engine.messages import Delta, TokenLogprob
from server.engine.request import Beginning, Generate, Grammar, GrammarKind, OptionalCalls, Sampling
from server.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

PROMPT = [(5 * i + i * i) % 300 + 3 for i in range(40)]
GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.0, seed=7)
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
)


@dataclass
class Answer:
    text: dict[int, str] = field(default_factory=dict[int, str])
    tokens: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    finish: dict[int, str] = field(default_factory=dict[int, str])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    stop_string: str | None = None


async def ask(engine: Engine, kind: GrammarKind, source: str, behind: str | None = None, **fields: Any) -> Answer:
    defaults: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 200, "sampling": GREEDY}
    begins = Beginning(behind=behind) if behind else None
    return await collect(engine, Generate(id=0, grammar=Grammar(kind, source, begins), **(defaults | fields)))


async def collect(engine: Engine, request: Generate) -> Answer:
    answer = Answer()
    async for item in engine.generate(request):
        if isinstance(item, Delta):
            answer.text[item.index] = answer.text.get(item.index, "") + item.text
            answer.tokens.setdefault(item.index, []).extend(item.tokens)
            answer.logprobs += item.logprobs
            answer.stop_string = item.stop_string or answer.stop_string
            if item.finish:
                answer.finish[item.index] = item.finish
    return answer


EXAMPLES: list[tuple[GrammarKind, str, str]] = [
    ("regex", "[a-f]{3}-[0-9]{2,4}", "[a-f]{3}-[0-9]{2,4}"),
    ("choice", '["yes", "no", "it\\"s \\\\ há\\n"]', 'yes|no|it"s \\\\ há\n'),
    ("lark", 'start: "[" NUMBER ("," NUMBER){1,2} "]"\nNUMBER: /[0-9]{1,3}/', r"\[[0-9]{1,3}(,[0-9]{1,3}){1,2}\]"),
    ("gbnf", 'root ::= word " " word\nword ::= [a-z]{2,5}', "[a-z]{2,5} [a-z]{2,5}"),
]


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
async def test_every_kind_gives_what_it_describes(start_engine: StartEngine, sampling: Sampling) -> None:
    engine = await start_engine()
    for kind, source, pattern in EXAMPLES:
        answer = await ask(engine, kind, source, sampling=sampling)
        assert re.fullmatch(pattern, answer.text[0]), (kind, answer)
        assert answer.finish[0] == "stop"
    person = json.loads((await ask(engine, "json_schema", PERSON, sampling=sampling)).text[0])
    assert list(person) == ["name", "age", "tags"]
    assert 0 <= person["age"] <= 120
    free = await ask(engine, "json_object", "", sampling=sampling, max_tokens=100)
    assert free.text[0].startswith("{")
    assert free.finish[0] == "length" or isinstance(json.loads(free.text[0]), dict)


async def test_each_choice_follows_the_grammar_by_itself(start_engine: StartEngine) -> None:
    engine = await start_engine()
    answer = await ask(engine, "regex", "[a-z]{4,9}!", sampling=Sampling(temperature=1.5), n=4)
    assert len(answer.text) == 4
    assert all(re.fullmatch("[a-z]{4,9}!", text) for text in answer.text.values())
    assert len(set(answer.text.values())) > 1
    best = await ask(engine, "regex", "[a-z]{4,9}!", sampling=Sampling(temperature=1.5), best_of=3)
    assert re.fullmatch("[a-z]{4,9}!", best.text[0])


async def test_the_end_comes_also_where_it_is_to_be_ignored(start_engine: StartEngine) -> None:
    engine = await start_engine()
    for sampling in (GREEDY, WARM):
        word = await ask(engine, "regex", "ab", ignore_eos=True, sampling=sampling)
        assert (word.text, word.finish) == ({0: "ab"}, {0: "stop"})
        longest = await ask(engine, "regex", "[ab]{2,9}", ignore_eos=True, sampling=sampling)
        assert re.fullmatch("[ab]{9}", longest.text[0])
        assert longest.finish == {0: "stop"}
        endless = await ask(engine, "regex", "[ab]+", ignore_eos=True, sampling=sampling, max_tokens=30)
        assert endless.finish == {0: "length"}
        assert re.fullmatch("[ab]{30,}", endless.text[0])


async def test_a_grammar_of_nothing_ends_at_once(start_engine: StartEngine) -> None:
    engine = await start_engine()
    empty: list[tuple[GrammarKind, str]] = [("choice", '[""]'), ("regex", ""), ("lark", 'start: ""')]
    for kind, source in empty:
        for ignore_eos in (False, True):
            answer = await ask(engine, kind, source, ignore_eos=ignore_eos)
            assert (answer.text, answer.finish) == ({0: ""}, {0: "stop"})
            assert len(answer.tokens[0]) == 1


async def test_a_limit_and_a_stop_string_end_a_grammar_early(start_engine: StartEngine) -> None:
    engine = await start_engine()
    cut = await ask(engine, "regex", "x{50}", max_tokens=5)
    assert cut.finish == {0: "length"}
    assert set(cut.text[0]) == {"x"}
    stopped = await ask(engine, "regex", "[0-9]{3}---[a-z]{40}", stop=["--"])
    assert re.fullmatch("[0-9]{3}", stopped.text[0])
    assert (stopped.finish, stopped.stop_string) == ({0: "stop"}, "--")


async def test_log_probabilities_are_the_models_own(start_engine: StartEngine) -> None:
    engine = await start_engine()
    answer = await ask(engine, "regex", "[a-z]{6}", logprobs=2)
    assert re.fullmatch("[a-z]{6}", answer.text[0])
    assert b"".join(one.piece for one in answer.logprobs) == answer.text[0].encode()
    assert any(one.token not in {token for token, _, _ in one.top} for one in answer.logprobs)


async def test_penalties_and_bias_choose_among_what_is_allowed(start_engine: StartEngine) -> None:
    engine = await start_engine()
    tokens = (await engine.tokenize("q")).tokens
    biased = await ask(engine, "regex", "[a-z]{1,12}", sampling=Sampling(temperature=0, logit_bias={tokens[0]: 1e4}))
    assert biased.text[0].startswith("q")
    banned = await ask(engine, "regex", "[pq]{5}", sampling=Sampling(temperature=1, logit_bias={tokens[0]: -100.0}))
    assert banned.text[0] == "ppppp"


async def test_speculation_and_neighbours_do_not_change_a_constrained_answer(start_engine: StartEngine) -> None:
    schema = json.dumps({"type": "array", "items": {"enum": ["abcabcabc", "abc"]}, "minItems": 12, "maxItems": 12})
    plain = await start_engine(lookup=False)
    alone = await ask(plain, "json_schema", schema, max_tokens=400)
    assert len(json.loads(alone.text[0])) == 12
    guessing = await start_engine(lookup=True)
    others = [ask(guessing, "regex", "(ab){30}", prompt=[*PROMPT, 9 + i]) for i in range(3)]
    answers = await asyncio.gather(ask(guessing, "json_schema", schema, max_tokens=400), *others)
    assert answers[0].text == alone.text
    assert all(answer.text[0] == "ab" * 30 for answer in answers[1:])


async def test_a_draft_model_does_not_change_a_constrained_answer(start_engine: StartEngine, random_gguf: Path) -> None:
    schema = json.dumps({"type": "array", "items": {"type": "integer"}, "minItems": 9, "maxItems": 9})
    alone = await ask(await start_engine(lookup=False), "json_schema", schema)
    drafted = await ask(await start_engine(lookup=False, draft_path=str(random_gguf)), "json_schema", schema)
    assert drafted.text == alone.text
    assert drafted.finish == alone.finish


async def test_a_preempted_sequence_goes_on_in_its_grammar(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=4, context=256, kv_unified=True, lookup=False)
    asks = [ask(engine, "regex", "[a-z]{180}", prompt=[11 + i, *PROMPT], max_tokens=200) for i in range(4)]
    answers = await asyncio.gather(*asks)
    assert all(re.fullmatch("[a-z]{180}", answer.text[0]) for answer in answers)
    assert (await engine.stats()).counters["preemptions_total"] > 0


async def force(engine: Engine, text: str) -> Sampling:
    """Sampling that says only the tokens of a text, as far as nothing else decides."""
    tokens = (await engine.tokenize(text)).tokens
    return Sampling(temperature=0, logit_bias=dict.fromkeys(tokens, 1000.0))


async def test_a_grammar_begins_behind_a_text(start_engine: StartEngine) -> None:
    engine = await start_engine()
    sampling = await force(engine, "z")
    answer = await ask(engine, "regex", "[0-9]{3}", behind="zzz", sampling=sampling)
    assert re.fullmatch("zzz[0-9]{3}", answer.text[0])
    assert answer.finish == {0: "stop"}
    never = await ask(engine, "regex", "[0-9]{3}", behind="#!", sampling=sampling, max_tokens=20, ignore_eos=True)
    assert never.text == {0: "z" * 20}


async def test_stop_strings_count_in_text_and_not_in_calls(start_engine: StartEngine) -> None:
    engine = await start_engine()
    call = Grammar("regex", "z{3,5}[0-3]{3}", Beginning(trigger="zz|!"))
    asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 40, "stop": ["0", "1", "2", "3"]}
    sampling = await force(engine, "z")
    answer = await collect(engine, Generate(id=0, grammar=call, sampling=sampling, **asked))
    assert re.fullmatch("z{3,5}[0-3]{3}", answer.text[0])
    assert (answer.finish, answer.stop_string) == ({0: "stop"}, None)
    plain = await collect(engine, Generate(id=0, sampling=await force(engine, "2"), grammar=call, **asked))
    assert (plain.text, plain.stop_string) == ({0: ""}, "2")
    first = Grammar("regex", call.source)
    formed = Grammar("regex", "[a-y][a-y0-9]*|z[a-y0-9]{1,9}", calls=OptionalCalls(first, call))
    answer = await collect(engine, Generate(id=0, grammar=formed, sampling=sampling, **asked))
    assert re.fullmatch("z{3,5}[0-3]{3}", answer.text[0])
    text = await collect(engine, Generate(id=0, grammar=formed, sampling=await force(engine, "y2"), **asked))
    assert text.stop_string == "2"
    assert set(text.text[0]) <= {"y"}


async def test_what_follows_that_text_in_its_token_is_consumed(start_engine: StartEngine) -> None:
    engine = await start_engine()
    spelt = await engine.tokenize("the converter reads a checkpoint", pieces=True)
    token, piece = next((t, p.decode()) for t, p in zip(spelt.tokens, spelt.pieces, strict=True) if len(p) > 2)
    sampling = Sampling(temperature=0, logit_bias={token: 1000.0})
    fits = await ask(engine, "lark", f'start: "{piece[1:]}" /[0-9]{{2}}/', behind=piece[0], sampling=sampling)
    assert re.fullmatch(re.escape(piece) + "[0-9]{2}", fits.text[0])
    # where the rest of the token breaks the grammar, the token may not come
    breaks = await ask(engine, "regex", "[0-9]{2}", behind=piece[:2], sampling=sampling, max_tokens=40)
    assert piece not in breaks.text[0]


async def test_a_visible_special_token_is_such_a_text(start_engine: StartEngine) -> None:
    engine = await start_engine()
    mark = "<|im_start|>"
    sampling = Sampling(temperature=0, logit_bias={engine.info.special_tokens[mark]: 1000.0})
    answer = await ask(engine, "regex", "[a-c]{4}", behind=mark, sampling=sampling, visible=[mark])
    assert re.fullmatch(re.escape(mark) + "[a-c]{4}", answer.text[0])


async def test_special_tokens_come_only_where_the_grammar_names_them(start_engine: StartEngine) -> None:
    engine = await start_engine()
    mark = "<|im_start|>"
    token = engine.info.special_tokens[mark]
    sampling = Sampling(temperature=0, logit_bias={token: 1000.0})
    for named in (mark, f"<[{token}]>"):
        answer = await ask(engine, "lark", f'start: {named} "ab"', visible=[mark])
        assert answer.text == {0: f"{mark}ab"}
        assert answer.tokens[0][0] == token
    free = await ask(engine, "lark", f'start: /(?s:.{{12}})/ | "{mark}"', sampling=sampling, visible=[mark])
    assert token not in free.tokens[0]


@pytest.mark.parametrize(
    ("kind", "source", "says", "param"),
    [
        ("json_schema", '{"not": {}}', "'not'", "response_format"),
        ("json_schema", '{"type": "string", "pattern": "(?=a)"}', "'pattern'", "response_format"),
        ("json_schema", "{", "JSON", "response_format"),
        ("regex", "a(", "unclosed group", "guided_regex"),
        ("choice", "[]", "not empty", "guided_choice"),
        ("lark", 'start: "a"\nb: ]', "line 2", "grammar"),
        ("lark", 'start: %json {"contains": {}}', "'contains'", "grammar"),
        ("lark", "start: <|nothing|>", "unknown special token", "grammar"),
        ("gbnf", 'root ::= "a', "line 1", "grammar"),
        ("gbnf", 'top ::= "a"', "root", "grammar"),
    ],
)
async def test_what_cannot_be_enforced_is_refused(
    start_engine: StartEngine, kind: GrammarKind, source: str, says: str, param: str
) -> None:
    engine = await start_engine()
    with pytest.raises(RequestError, match=re.escape(says)) as refused:
        await ask(engine, kind, source)
    assert refused.value.status == 400
    assert refused.value.param == param
