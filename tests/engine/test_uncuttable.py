"""Models whose state cannot be cut: conversations go on from checkpoints, and say what they would have said cold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.engine.test_engine import ask, gauges
from tests.engine.uncuttable import write_hybrid, write_recurrent, write_sliding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.conftest import StartEngine

WRITERS: dict[str, Callable[[Path], Path]] = {
    "recurrent": write_recurrent,
    "hybrid": write_hybrid,
    "sliding": write_sliding,
}
FIRST_TURN = " ".join(f"w{300 + 7 * i % 80}" for i in range(20))
SECOND_TURN = " ".join(f"w{300 + 11 * i % 80}" for i in range(12))


@pytest.fixture(params=list(WRITERS))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return WRITERS[request.param](tmp_path / "model.gguf")


async def test_the_next_turn_goes_on_from_the_last_ones_end(start_engine: StartEngine, model: Path) -> None:
    engine = await start_engine(path=str(model), digest=model.name)
    first = await ask(engine, FIRST_TURN, 12, boundaries=[len(FIRST_TURN)])
    conversation = f"{FIRST_TURN} {first.text[0]} {SECOND_TURN}"
    cold = await ask(engine, conversation, 12, cache_prompt=False, partition="someone else")
    warm = await ask(engine, conversation, 12, boundaries=[len(FIRST_TURN), len(conversation)])
    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens > 0
    assert warm.tokens == cold.tokens


async def test_the_same_prompt_again_is_all_but_its_last_token_cached(start_engine: StartEngine, model: Path) -> None:
    engine = await start_engine(path=str(model), digest=model.name)
    cold = await ask(engine, FIRST_TURN, 12)
    again = await ask(engine, FIRST_TURN, 12)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    assert again.tokens == cold.tokens


async def test_side_by_side_each_gets_its_own_answer(start_engine: StartEngine, model: Path) -> None:
    engine = await start_engine(path=str(model), digest=model.name)
    prompts = [f"{FIRST_TURN} w{300 + i}" for i in range(4)]
    alone = [(await ask(engine, prompt, 8, cache_prompt=False)).tokens for prompt in prompts]
    together = await asyncio.gather(*(ask(engine, prompt, 8) for prompt in prompts))
    assert [answer.tokens for answer in together] == alone


async def test_the_same_checkpoint_is_kept_once_for_all_choices(start_engine: StartEngine, model: Path) -> None:
    kept: list[float] = []
    for n in (1, 4):
        engine = await start_engine(path=str(model), digest=model.name)
        await ask(engine, FIRST_TURN, 4, n=n)
        kept.append((await gauges(engine))['prefix_cache_bytes{tier="ram"}'])
    assert kept[0] == kept[1] > 0


async def test_no_checkpoint_is_kept_of_a_request_that_is_not_to_be_cached(
    start_engine: StartEngine, model: Path
) -> None:
    engine = await start_engine(path=str(model), digest=model.name)
    await ask(engine, FIRST_TURN, 4, boundaries=[len(FIRST_TURN)], cache_prompt=False)
    assert (await gauges(engine))['prefix_cache_bytes{tier="ram"}'] == 0
