"""Special tokens that a request wants to see show in its text; all others stay hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.engine.messages import Delta
from server.engine.request import Generate, Sampling

if TYPE_CHECKING:
    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

MARK = "<|im_start|>"


async def text_of(engine: Engine, forced: str, visible: list[str], *, ignore_eos: bool) -> tuple[str, int]:
    """The text and the number of tokens of an answer whose every token is `forced`."""
    token = engine.info.special_tokens[forced]
    sampling = Sampling(temperature=0, logit_bias={token: 1e4})
    ask = Generate(id=0, prompt=[5, 6], max_tokens=3, sampling=sampling, visible=visible, ignore_eos=ignore_eos)
    text, tokens = "", 0
    async for item in engine.generate(ask):
        if isinstance(item, Delta):
            text += item.text
            tokens += len(item.tokens)
    return text, tokens


async def test_special_tokens_show_only_where_asked_for(start_engine: StartEngine) -> None:
    engine = await start_engine()
    assert {MARK, "<|im_end|>", "<|endoftext|>"} <= engine.info.special_tokens.keys()
    assert await text_of(engine, MARK, [], ignore_eos=True) == ("", 3)
    assert await text_of(engine, MARK, [MARK, "no token"], ignore_eos=True) == (MARK * 3, 3)


async def test_a_visible_end_token_shows_and_ends(start_engine: StartEngine) -> None:
    engine = await start_engine()
    end = engine.info.eos_token
    assert await text_of(engine, end, [], ignore_eos=False) == ("", 1)
    assert await text_of(engine, end, [end], ignore_eos=False) == (end, 1)
