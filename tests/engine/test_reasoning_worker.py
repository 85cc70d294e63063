"""Bounded reasoning through a real worker whose random weights would never end it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from msgspec import structs

from server.engine.request import Beginning, Generate, Grammar, OptionalCalls, ReasoningLimit, Sampling
from tests.engine.test_grammar_worker import GREEDY, PROMPT, Answer, collect

if TYPE_CHECKING:
    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

CLOSING = "\n</think>\n\n"
BUDGET = 20


async def ask(engine: Engine, tokens: int | None = BUDGET, closing: str = CLOSING, **fields: Any) -> Answer:
    limit = ReasoningLimit(tokens=tokens, begin="<think>", end="</think>", closing=closing, opened=True)
    defaults: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 80, "sampling": GREEDY, "ignore_eos": True}
    return await collect(engine, Generate(id=0, reasoning=limit, **(defaults | fields)))


async def test_reasoning_ends_with_its_budget_and_the_answer_goes_on(start_engine: StartEngine) -> None:
    engine = await start_engine()
    free = await collect(engine, Generate(id=0, prompt=PROMPT, max_tokens=80, sampling=GREEDY, ignore_eos=True))
    closing = (await engine.tokenize(CLOSING)).tokens
    bounded = await ask(engine)
    head, tail = bounded.tokens[0][:BUDGET], bounded.tokens[0][BUDGET:]
    assert head == free.tokens[0][:BUDGET]
    assert tail[: len(closing)] == closing
    assert len(tail) == 80 - BUDGET
    at_once = await ask(engine, 0)
    assert at_once.tokens[0][: len(closing)] == closing
    several = await ask(engine, sampling=Sampling(temperature=1.5, seed=2), n=3)
    assert len({text.partition(CLOSING)[0] for text in several.text.values()}) == 3
    assert all(CLOSING in text for text in several.text.values())


async def test_a_grammar_begins_behind_reasoning_that_was_ended(start_engine: StartEngine) -> None:
    engine = await start_engine()
    for sampling in (GREEDY, Sampling(temperature=1.0, seed=7)):
        form = Grammar("regex", "[a-f]{3}-[0-9]{2,4}", Beginning(behind="</think>"))
        answer = await ask(engine, closing="\n</think>", grammar=form, sampling=sampling, ignore_eos=False)
        assert answer.finish == {0: "stop"}
        assert answer.text[0].partition("\n</think>")[2].strip("0123456789abcdef") == "-"


async def test_an_answer_that_would_end_in_reasoning_goes_on_to_its_grammar(start_engine: StartEngine) -> None:
    engine = await start_engine()
    form = Grammar("regex", "[a-f]{3}-[0-9]{2,4}", Beginning(behind="</think>"))
    call = Grammar("lark", 'start: "<call>"', Beginning(trigger="<call>"))
    either = structs.replace(form, calls=OptionalCalls(structs.replace(call, begins=form.begins), call))
    for sampling in (await ending(engine, 0.0), await ending(engine, 1.0)):
        for grammar in (form, either):
            fields: dict[str, Any] = {"closing": "\n</think>", "sampling": sampling, "ignore_eos": False}
            answer = await ask(engine, None, grammar=grammar, **fields)
            assert answer.finish == {0: "stop"}
            assert re.fullmatch(r"\n</think>([a-f]{3}-[0-9]{2}|<call>)", answer.text[0])
    free = await ask(engine, None, sampling=await ending(engine, 0.0), ignore_eos=False, grammar=call)
    assert (free.text, free.finish) == ({0: ""}, {0: "stop"})


async def ending(engine: Engine, temperature: float) -> Sampling:
    """Sampling that ends an answer as soon as it may."""
    ends = [token for text, token in engine.info.special_tokens.items() if text in ("<|im_end|>", "<|endoftext|>")]
    return Sampling(temperature=temperature, seed=1, logit_bias=dict.fromkeys(ends, 1000.0))


async def test_reasoning_that_a_grammar_allows_ends_with_its_budget_too(start_engine: StartEngine) -> None:
    engine = await start_engine()
    source = 'start: "<think>" thoughts /[ \\n]{0,4}/ /[a-f]{3}/\nthoughts[suffix="</think>"]: /(?s:.*)/'
    answer = await ask(engine, grammar=Grammar("lark", source), ignore_eos=False)
    assert answer.finish == {0: "stop"}
    thoughts, _, rest = answer.text[0].partition(CLOSING)
    assert thoughts.startswith("<think>")
    assert len(rest.strip()) == 3


async def test_a_grammar_that_forbids_it_goes_before(start_engine: StartEngine) -> None:
    engine = await start_engine()
    answer = await ask(engine, 2, grammar=Grammar("regex", "[ab]{30,40}"), ignore_eos=False)
    assert (answer.finish[0], answer.text[0].strip("ab")) == ("stop", "")


async def test_speculation_and_log_probabilities_change_nothing(start_engine: StartEngine) -> None:
    plain = await ask(await start_engine(lookup=False))
    speculating = await start_engine()
    assert (await ask(speculating)).tokens == plain.tokens
    assert (await ask(speculating)).tokens == plain.tokens
    told = await ask(speculating, logprobs=2)
    assert told.tokens == plain.tokens
    assert [one.token for one in told.logprobs] == plain.tokens[0]


async def test_a_preempted_sequence_keeps_its_count(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=4, context=256, kv_unified=True)
    budgets = (0, 15, 30, 45)
    asked = [ask(engine, budget, prompt=[11 + i, *PROMPT], max_tokens=200) for i, budget in enumerate(budgets)]
    answers = await asyncio.gather(*asked)
    assert (await engine.stats()).counters["preemptions_total"] > 0
    closing = (await engine.tokenize(CLOSING)).tokens
    for budget, answer in zip(budgets, answers, strict=True):
        ends = [at for at in range(200) if answer.tokens[0][at : at + len(closing)] == closing]
        assert ends
        assert budget <= ends[0] <= budget + 4
