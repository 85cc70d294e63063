"""A real worker on a real model: what a request gets does not depend on who asks beside it or what is cached."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from converter import convert
from server.engine.load_spec import Placement
from server.engine.messages import Delta, TokenLogprob, Usage
from server.engine.request import Generate, Sampling
from server.errors import LoadError, RequestError
from tests.engine.conftest import SHAPE
from tests.engine.uncuttable import write_recurrent
from tests.reference.random_checkpoint import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

PROMPT = [(7 * i + i * i) % 300 + 3 for i in range(120)]
LAYOUTS = pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])


@dataclass
class Answer:
    tokens: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    text: dict[int, str] = field(default_factory=dict[int, str])
    finish: dict[int, str | None] = field(default_factory=dict[int, "str | None"])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    usage: Usage = field(default_factory=lambda: Usage(prompt_tokens=0, completion_tokens=0))


async def ask(engine: Engine, prompt: list[int] | str, tokens: int = 24, **fields: Any) -> Answer:
    fields.setdefault("sampling", Sampling(temperature=0))
    request = Generate(id=0, prompt=prompt, max_tokens=tokens, ignore_eos=fields.pop("ignore_eos", True), **fields)
    answer = Answer()
    async for item in engine.generate(request):
        if isinstance(item, Delta):
            answer.tokens.setdefault(item.index, []).extend(item.tokens)
            answer.text[item.index] = answer.text.get(item.index, "") + item.text
            answer.logprobs += item.logprobs
            answer.prompt_logprobs += item.prompt_logprobs
            answer.finish[item.index] = item.finish or answer.finish.get(item.index)
        else:
            answer.usage = item.usage
    return answer


TIE = 5e-3
"""A state that was moved lies in other cells, so attention adds up its terms in another order. With KV in F16 that
moves this model's log-probabilities by some 0.001; two tokens that lie closer than this may change places."""


def assert_equal_up_to_ties(one: list[TokenLogprob], other: list[TokenLogprob]) -> None:
    """The same tokens, until two candidates lie so close that rounding decides; what follows is not compared."""
    for a, b in zip(one, other, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=TIE)
        if a.token != b.token:
            assert {token for token, _, _ in a.top} == {token for token, _, _ in b.top}
            assert a.top[0][2] - a.top[1][2] < TIE
            return


async def gauges(engine: Engine) -> dict[str, float]:
    return (await engine.stats()).gauges


@LAYOUTS
async def test_cold_warm_and_batched_are_the_same(start_engine: StartEngine, unified: bool) -> None:
    engine = await start_engine(kv_unified=unified, lookup=False)
    cold = await ask(engine, PROMPT)
    assert cold.usage.cached_tokens == 0
    warm = await ask(engine, PROMPT)
    assert warm.usage.cached_tokens == len(PROMPT) - 1
    assert warm.tokens == cold.tokens
    others = [[p + 1 for p in PROMPT[:n]] for n in (3, 40, 90)]
    together = await asyncio.gather(ask(engine, PROMPT), *(ask(engine, other) for other in others))
    assert together[0].tokens == cold.tokens


async def test_with_room_for_all_each_has_its_own_buffer_and_moves_change_nothing(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=4, context=256, kv_cells=1024, lookup=False)
    assert not engine.info.kv_unified
    prompts = [[p + i for p in PROMPT[: 10 + 20 * i]] for i in range(4)]
    lengths = (24, 3, 16, 9)  # so that some end between others, which then move
    asked = list(zip(prompts, lengths, strict=True))
    alone = [await ask(engine, prompt, n, logprobs=2, cache_prompt=False) for prompt, n in asked]
    together = await asyncio.gather(*(ask(engine, prompt, n, logprobs=2) for prompt, n in asked))
    for one, other in zip(alone, together, strict=True):
        assert_equal_up_to_ties(one.logprobs, other.logprobs)


@LAYOUTS
async def test_a_prefix_asked_for_at_once_is_computed_once(start_engine: StartEngine, unified: bool) -> None:
    engine = await start_engine(kv_unified=unified)
    answers = await asyncio.gather(*(ask(engine, [*PROMPT, 5 + i]) for i in range(4)))
    computed = (await engine.stats()).counters["prompt_tokens_computed_total"]
    assert computed < 2 * len(PROMPT)
    assert sum(answer.usage.cached_tokens for answer in answers) >= 3 * (len(PROMPT) - 1)


@LAYOUTS
async def test_states_that_left_the_device_come_back_from_ram(start_engine: StartEngine, unified: bool) -> None:
    engine = await start_engine(kv_unified=unified, parallel=2, context=256, lookup=False)
    cold = await ask(engine, PROMPT)
    for i in range(6):
        await ask(engine, [3 + i, *PROMPT])
    warm = await ask(engine, PROMPT)
    assert warm.tokens == cold.tokens
    assert warm.usage.cached_tokens == len(PROMPT) - 1
    assert (await engine.stats()).counters['prefix_cache_hits_total{tier="ram"}'] >= 1


@LAYOUTS
async def test_states_survive_a_restart_on_disk(start_engine: StartEngine, unified: bool) -> None:
    engine = await start_engine(kv_unified=unified, cache_disk=1 << 26, lookup=False)
    cold = await ask(engine, PROMPT)
    await engine.stop(grace=1.0)
    again = await start_engine(kv_unified=unified, cache_disk=1 << 26, lookup=False)
    warm = await ask(again, PROMPT)
    assert warm.tokens == cold.tokens
    assert warm.usage.cached_tokens == len(PROMPT) - 1
    assert (await again.stats()).counters['prefix_cache_hits_total{tier="disk"}'] == 1
    in_ram = (await gauges(again))['prefix_cache_bytes{tier="ram"}']
    assert in_ram == 0, "what the device and the disk have need not take RAM as well"


async def test_states_survive_a_crash_on_disk(start_engine: StartEngine) -> None:
    engine = await start_engine(cache_disk=1 << 26)
    await ask(engine, PROMPT)
    while (await gauges(engine))['prefix_cache_bytes{tier="disk"}'] == 0:
        await asyncio.sleep(0.05)
    await engine.kill()
    again = await start_engine(cache_disk=1 << 26)
    assert (await ask(again, PROMPT)).usage.cached_tokens == len(PROMPT) - 1


async def test_speculation_changes_nothing_but_the_number_of_steps(start_engine: StartEngine) -> None:
    plain = await start_engine(lookup=False)
    guessing = await start_engine(lookup=True)
    repetitive = PROMPT[:20] * 4
    expected, found = await ask(plain, repetitive, 200), await ask(guessing, repetitive, 200)
    assert found.tokens == expected.tokens
    assert found.usage.drafted_tokens > 0
    sampled = Sampling(temperature=0.7, seed=11, top_k=20)
    expected = await ask(plain, repetitive, 200, sampling=sampled)
    found = await ask(guessing, repetitive, 200, sampling=sampled)
    assert found.tokens == expected.tokens


async def test_a_draft_changes_nothing_but_the_number_of_steps(start_engine: StartEngine, random_gguf: Path) -> None:
    plain = await start_engine(lookup=False)
    drafting = await start_engine(lookup=False, draft_path=str(random_gguf))
    prompts = [PROMPT[i : i + 30] for i in range(4)]
    expected = [await ask(plain, prompt, 60) for prompt in prompts]
    found = await asyncio.gather(*(ask(drafting, prompt, 60) for prompt in prompts))
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    drafted = sum(answer.usage.drafted_tokens for answer in found)
    accepted = sum(answer.usage.accepted_tokens for answer in found)
    assert drafted > 0
    assert accepted > 0.9 * drafted, "a model disagrees with itself"


async def test_a_draft_of_another_vocabulary_is_refused(start_engine: StartEngine, tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, vocabulary=400)
    other = tmp_path / "other.gguf"
    convert(make_checkpoint(tmp_path / "other", shape, dtype="F32"), other, "F32")
    with pytest.raises(LoadError, match="a draft must share the model's tokenizer"):
        await start_engine(draft_path=str(other))


async def test_a_draft_whose_state_cannot_be_cut_is_refused(start_engine: StartEngine, tmp_path: Path) -> None:
    recurrent = str(write_recurrent(tmp_path / "recurrent.gguf"))
    with pytest.raises(LoadError, match="a wrong guess could not be taken back"):
        await start_engine(path=recurrent, draft_path=recurrent)


async def test_a_draft_reads_a_long_prompt_piece_by_piece(start_engine: StartEngine, random_gguf: Path) -> None:
    pieces = Placement(n_batch=64, n_ubatch=64)
    drafting = await start_engine(lookup=False, draft_path=str(random_gguf), draft_placement=pieces)
    found = await asyncio.gather(*(ask(drafting, PROMPT[i : i + 100], 300) for i in range(4)))
    accepted = sum(answer.usage.accepted_tokens for answer in found)
    assert accepted > 10
    assert accepted > 0.9 * sum(answer.usage.drafted_tokens for answer in found), "a model disagrees with itself"


async def test_nothing_crosses_a_partition(start_engine: StartEngine) -> None:
    engine = await start_engine()
    await ask(engine, PROMPT, partition="alice")
    assert (await ask(engine, PROMPT, partition="bob")).usage.cached_tokens == 0
    assert (await ask(engine, PROMPT, partition="alice")).usage.cached_tokens == len(PROMPT) - 1


async def test_several_choices_of_one_prefill(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=4)
    answer = await ask(engine, PROMPT, n=3, sampling=Sampling(seed=1))
    assert sorted(answer.tokens) == [0, 1, 2]
    assert len({tuple(tokens) for tokens in answer.tokens.values()}) == 3
    assert answer.usage.completion_tokens == 3 * 24
    assert (await engine.stats()).counters["prompt_tokens_computed_total"] == len(PROMPT) + 2


async def test_the_best_of_several(start_engine: StartEngine) -> None:
    engine = await start_engine()
    sampling = Sampling(seed=1, temperature=1.5)
    all_of_them = await ask(engine, PROMPT, n=4, sampling=sampling, logprobs=0)
    best = await ask(engine, PROMPT, n=1, best_of=4, sampling=sampling)
    assert list(best.tokens) == [0]
    assert best.tokens[0] in all_of_them.tokens.values()


async def test_log_probabilities_of_answer_and_prompt(start_engine: StartEngine) -> None:
    engine = await start_engine()
    answer = await ask(engine, PROMPT, 5, logprobs=3, prompt_logprobs=True)
    assert [logprob.token for logprob in answer.logprobs] == answer.tokens[0]
    for logprob in answer.logprobs:
        assert len(logprob.top) == 3
        assert logprob.top[0][0] == logprob.token
        assert logprob.logprob == pytest.approx(logprob.top[0][2])
    assert [logprob.token for logprob in answer.prompt_logprobs] == PROMPT[1:]


async def test_log_probabilities_of_a_long_prompt_come_once_though_its_place_is_taken_in_between(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine(parallel=2, kv_unified=True, kv_cells=512)
    older = asyncio.create_task(ask(engine, PROMPT, 350))
    await asyncio.sleep(0)  # it is sent
    prompt = [token + 1 for token in PROMPT] + PROMPT[:80]
    answer = await ask(engine, prompt, 200, logprobs=1, prompt_logprobs=True)
    await older
    assert (await engine.stats()).counters["preemptions_total"] > 0
    assert [logprob.token for logprob in answer.prompt_logprobs] == prompt[1:]
    assert [logprob.token for logprob in answer.logprobs] == answer.tokens[0]


async def test_log_probabilities_of_a_prompt_come_with_the_first_choice_whichever_is_the_best(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine()
    for seed in range(4):
        request = Generate(
            id=0,
            prompt=PROMPT,
            max_tokens=4,
            best_of=4,
            sampling=Sampling(temperature=1.5, seed=seed),
            logprobs=1,
            prompt_logprobs=True,
        )
        told = [item for item in [item async for item in engine.generate(request)] if isinstance(item, Delta)]
        assert [p.token for delta in told if delta.index == 0 for p in delta.prompt_logprobs] == PROMPT[1:]
    computed = (await engine.stats()).counters["prompt_tokens_computed_total"]
    assert computed < 5 * len(PROMPT), "each choice computes the prompt anew"


@LAYOUTS
async def test_a_request_that_is_not_to_be_cached_leaves_the_cache_as_it_was(
    start_engine: StartEngine, unified: bool
) -> None:
    engine = await start_engine(kv_unified=unified, parallel=2)
    await ask(engine, PROMPT, 2)
    secret = [*PROMPT, *(300 - i for i in range(60))]
    passing = await ask(engine, secret, 4, cache_prompt=False)
    assert passing.usage.cached_tokens == len(PROMPT)
    again = await ask(engine, secret, 4, cache_prompt=False)
    assert again.usage.cached_tokens == len(PROMPT), "it is cached all the same, or has destroyed what was"


async def test_a_request_that_is_not_to_be_cached_is_computed_again_where_its_place_was_taken(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine(parallel=2, kv_unified=True, kv_cells=512, cache_disk=1 << 26)
    older = asyncio.create_task(ask(engine, PROMPT, 350))
    await asyncio.sleep(0)  # it is sent
    secret = [token + 1 for token in PROMPT] + PROMPT[:80]
    await ask(engine, secret, 200, cache_prompt=False)
    await older
    assert (await engine.stats()).counters["preemptions_total"] > 0
    assert (await ask(engine, secret, 4, cache_prompt=False)).usage.cached_tokens == 0


async def test_a_cancelled_request_gives_back_its_place(start_engine: StartEngine) -> None:
    engine = await start_engine()
    stream = engine.generate(Generate(id=0, prompt=PROMPT, ignore_eos=True))
    await anext(stream)
    assert (await gauges(engine))["requests_running"] == 1
    await stream.aclose()
    assert (await gauges(engine))["requests_running"] == 0


async def test_a_request_ends_when_its_time_is_over(start_engine: StartEngine) -> None:
    engine = await start_engine()
    answer = await ask(engine, PROMPT[:5], 500, max_time=0.05)
    assert answer.finish == {0: "time"}
    assert answer.usage.completion_tokens < 500


async def test_more_than_fits_takes_turns_and_loses_nothing(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=4, context=256, kv_unified=True, lookup=False)
    prompts = [[3 + i, *PROMPT[: 40 + i]] for i in range(8)]
    alone = [await ask(engine, prompt, 150, logprobs=2) for prompt in prompts]
    together = await asyncio.gather(*(ask(engine, prompt, 150, logprobs=2) for prompt in prompts))
    for one, other in zip(alone, together, strict=True):
        assert len(other.logprobs) == 150
        assert_equal_up_to_ties(one.logprobs, other.logprobs)
    assert (await engine.stats()).counters["preemptions_total"] > 0


async def test_refusals_say_why(start_engine: StartEngine) -> None:
    engine = await start_engine(parallel=1, queue_limit=1)
    with pytest.raises(RequestError, match=r"600 tokens.*512") as refusal:
        await ask(engine, PROMPT * 5)
    assert refusal.value.code == "context_length_exceeded"
    with pytest.raises(RequestError, match="empty"):
        await ask(engine, [])
    with pytest.raises(RequestError, match="token 9999 is not in the vocabulary of 384"):
        await ask(engine, [9999])
    answers = await asyncio.gather(*(ask(engine, PROMPT, 200) for _ in range(6)), return_exceptions=True)
    full = [answer for answer in answers if isinstance(answer, RequestError)]
    assert full
    assert all(refusal.status == 429 and refusal.retry_after for refusal in full)


async def test_a_dead_worker_fails_its_requests_and_nothing_else(start_engine: StartEngine) -> None:
    engine = await start_engine()
    request = Generate(id=0, prompt=PROMPT, max_tokens=450, ignore_eos=True)
    async with aclosing(engine.generate(request)) as items:
        assert isinstance(await anext(items), Delta)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(RequestError, match="killed by signal 9"):
            async for _ in items:
                pass
    await asyncio.wait_for(engine.died.wait(), 5)
    assert not engine.alive
    with pytest.raises(RequestError, match="has ended"):
        await ask(engine, PROMPT)


async def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path, start_engine: StartEngine) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LoadError, match=r"broken\.gguf"):
        await start_engine(path=str(path))


async def test_tokens_there_and_back(start_engine: StartEngine) -> None:
    engine = await start_engine()
    tokens = await engine.tokenize("déjà vu 🦊", pieces=True)
    assert b"".join(tokens.pieces).decode() == "déjà vu 🦊"
    assert await engine.detokenize(tokens.tokens) == "déjà vu 🦊"
