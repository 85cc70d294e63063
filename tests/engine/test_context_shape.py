"""How a context is laid out, and that plain attention gives what flash attention gives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.context_shape import CPU_UBATCH, LONG_CONTEXT, SMALL_SCORES, context_shape, state_key
from server.engine.llama.context import ContextShape
from server.engine.load_spec import IDLE_SEQUENCES, MOST_SEQUENCES, LoadSpec, Placement
from tests.engine.test_engine import PROMPT, ask, assert_equal_up_to_ties

if TYPE_CHECKING:
    from tests.engine.conftest import StartEngine

LONG = LONG_CONTEXT + 256
TEXT = [(11 * i + i * i) % 300 + 3 for i in range(900)]


def model(heads: int = 14, vocabulary: int = 152_000, trained: str | None = None, **fields: Any) -> Any:
    facts = {"truncatable": True, "dense": True, "latent_attention": False} | fields
    metadata = {"phi3.rope.scaling.original_context_length": trained}
    vocab = SimpleNamespace(size=vocabulary)
    return SimpleNamespace(n_heads=heads, vocab=vocab, architecture="phi3", metadata=metadata.get, **facts)


def spec(context: int = LONG, **fields: Any) -> LoadSpec:
    options: dict[str, Any] = {"path": "m.gguf", "name": "m", "digest": "m", "kv_cells": 4 * context, "parallel": 4}
    return LoadSpec(**(options | fields))


def test_requests_have_buffers_of_their_own_where_there_is_room_for_all() -> None:
    assert not context_shape(spec(), model(), LONG).unified
    assert context_shape(spec(kv_cells=3 * LONG), model(), LONG).unified
    assert context_shape(spec(parallel=1), model(), LONG).unified
    assert context_shape(spec(placement=Placement(n_gpu_layers=1)), model(), LONG).unified


def test_a_context_has_no_more_sequences_than_llama_cpp_knows() -> None:
    assert context_shape(spec(parallel=240, kv_unified=True), model(), LONG).sequences == MOST_SEQUENCES
    assert context_shape(spec(parallel=8, kv_unified=True), model(), LONG).sequences == 8 + IDLE_SEQUENCES


def test_long_contexts_attend_plainly() -> None:
    assert not context_shape(spec(), model(), LONG).flash
    assert context_shape(spec(), model(), LONG_CONTEXT).flash


@pytest.mark.parametrize(
    "fields",
    [
        {"kv_type": "q8_0"},
        {"projector_path": "p.gguf"},
        {"kv_unified": True},
        {"kv_unified": False, "placement": Placement(n_gpu_layers=1)},
        {"weights_stay": False},
    ],
    ids=["quantized", "pictures", "pool", "devices", "larger than memory"],
)
def test_flash_attention_stays_where_plain_attention_cannot_be_or_is_slower(fields: dict[str, Any]) -> None:
    assert context_shape(spec(**fields), model(), LONG).flash


@pytest.mark.parametrize(
    "facts",
    [{"truncatable": False}, {"dense": False}, {"latent_attention": True}, {"heads": 0}],
    ids=["uncuttable", "experts", "latent", "no attention"],
)
def test_flash_attention_stays_for_models_that_gain_nothing(facts: dict[str, Any]) -> None:
    assert context_shape(spec(kv_unified=False), model(**facts), LONG).flash


def test_prompts_are_computed_in_smaller_batches_where_all_is_on_the_cpu() -> None:
    assert context_shape(spec(kv_unified=False), model(), LONG_CONTEXT).ubatch == CPU_UBATCH < Placement().n_ubatch
    assert context_shape(spec(), model(dense=False), LONG_CONTEXT).ubatch == Placement().n_ubatch
    assert context_shape(spec(weights_stay=False), model(), LONG_CONTEXT).ubatch == Placement().n_ubatch
    assert context_shape(spec(projector_path="p.gguf"), model(), LONG_CONTEXT).ubatch == Placement().n_ubatch
    on_gpu, small = (Placement(devices=("CUDA0",), n_gpu_layers=1), Placement(n_ubatch=128))
    assert context_shape(spec(placement=on_gpu), model(), LONG_CONTEXT).ubatch == Placement().n_ubatch
    assert context_shape(spec(placement=small), model(), LONG_CONTEXT).ubatch == small.n_ubatch


@given(
    context=st.integers(1, 1 << 20),
    parallel=st.integers(2, 64),
    heads=st.integers(1, 128),
    vocabulary=st.integers(100, 300_000),
)
def test_scores_never_take_more_than_was_planned_for_logits(
    context: int, parallel: int, heads: int, vocabulary: int
) -> None:
    shape = context_shape(
        spec(kv_cells=parallel * (context + 256), parallel=parallel), model(heads, vocabulary), context
    )
    if not shape.flash:
        scores = shape.ubatch * (shape.cells // shape.sequences) * heads
        assert 6 * scores <= max(4 * Placement().n_ubatch * vocabulary, SMALL_SCORES)


def test_states_of_one_attention_are_not_for_the_other() -> None:
    shapes = [context_shape(spec(), model(), LONG), context_shape(spec(projector_path="p.gguf"), model(), LONG)]
    assert len({state_key(spec(), shape, model()) for shape in shapes}) == 2


@pytest.mark.parametrize(("trained", "keys"), [("4096", 2), (None, 1)])
def test_where_long_contexts_turn_keys_otherwise_states_of_short_ones_are_not_for_them(
    trained: str | None, keys: int
) -> None:
    shape = ContextShape(cells=4 * 2048, sequences=4, unified=False, batch=512, ubatch=512)
    shapes = [shape, replace(shape, cells=4 * 4096), replace(shape, cells=4 * 8192)]
    assert len({state_key(spec(), shape, model(trained=trained)) for shape in shapes}) == keys


async def test_plain_attention_gives_what_flash_attention_gives(start_engine: StartEngine) -> None:
    plain = await start_engine(context=LONG, kv_unified=False, lookup=False)
    flash = await start_engine(context=LONG_CONTEXT, kv_unified=False, lookup=False)
    one, other = [await ask(engine, TEXT, logprobs=2) for engine in (plain, flash)]
    assert_equal_up_to_ties(one.logprobs, other.logprobs)


async def test_plain_attention_gives_the_same_cold_warm_and_among_others(start_engine: StartEngine) -> None:
    engine = await start_engine(context=LONG, kv_unified=False, lookup=False)
    cold = await ask(engine, TEXT, logprobs=2)
    warm = await ask(engine, TEXT, logprobs=2)
    assert warm.usage.cached_tokens == len(TEXT) - 1
    assert_equal_up_to_ties(cold.logprobs, warm.logprobs)
    others = [[p + 1 for p in TEXT[:n]] for n in (3, 200, 700)]
    together = await asyncio.gather(ask(engine, TEXT, logprobs=2), *(ask(engine, other) for other in others))
    assert_equal_up_to_ties(cold.logprobs, together[0].logprobs)


async def test_states_of_plain_attention_come_back_from_ram_and_disk(start_engine: StartEngine) -> None:
    options: dict[str, Any] = {"context": LONG, "kv_unified": False, "parallel": 2, "cache_disk": 1 << 26}
    engine = await start_engine(**options, lookup=False)
    cold = await ask(engine, PROMPT, logprobs=2)
    for i in range(6):
        await ask(engine, [3 + i, *PROMPT])
    warm = await ask(engine, PROMPT, logprobs=2)
    assert_equal_up_to_ties(cold.logprobs, warm.logprobs)
    assert (await engine.stats()).counters['prefix_cache_hits_total{tier="ram"}'] >= 1
    await engine.stop(grace=1.0)
    again = await start_engine(**options, lookup=False)
    restored = await ask(again, PROMPT, logprobs=2)
    assert restored.usage.cached_tokens == len(PROMPT) - 1
    assert (await again.stats()).counters['prefix_cache_hits_total{tier="disk"}'] == 1
    assert_equal_up_to_ties(cold.logprobs, restored.logprobs)
