"""Prompts that show pictures: the tokens that llama.cpp's own helper gives, cached and side by side like any other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from server.engine.messages import Delta
from server.engine.request import Generate, Medium, Sampling
from server.errors import LoadError, RequestError
from tests.engine.projectors import (
    GEMMA,
    picture,
    sound,
    write_gemma,
    write_llava,
    write_qwen,
    write_qwen_language_model,
    write_ultravox,
)
from tests.engine.test_engine import TIE, Answer, ask
from tests.offload.models import write_random

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from server.engine.client import Engine
    from tests.engine.conftest import StartEngine

WRITERS: dict[str, Callable[[Path], Path]] = {"llava": write_llava, "gemma": write_gemma, "qwen": write_qwen}
PICTURE_TOKENS = {"llava": 64, "gemma": 4, "qwen": 15}
BEFORE = "w300 w301 "
BETWEEN = " w310 w320 w330 "
BEHIND = " w340 w350"


@pytest.fixture(params=list(WRITERS))
def files(request: pytest.FixtureRequest, tmp_path: Path, random_gguf: Path) -> dict[str, str]:
    """A language model and its projector: patch by patch, attending both ways, and with M-RoPE."""
    model = write_qwen_language_model(tmp_path / "model.gguf") if request.param == "qwen" else random_gguf
    projector = WRITERS[request.param](tmp_path / "projector.gguf")
    return {"path": str(model), "digest": request.param, "projector_path": str(projector)}


def image(seed: int, at: int, **size: int) -> Medium:
    return Medium("image", picture(seed, **size), at)


async def show(engine: Engine, *seeds: int, **fields: Any) -> Answer:
    """Ask about one picture, or two."""
    text = BEFORE + (BETWEEN if len(seeds) > 1 else "") + BEHIND
    places = [len(BEFORE), len(BEFORE + BETWEEN)]
    media = [image(seed, at) for seed, at in zip(seeds, places, strict=False)]
    return await ask(engine, text, 12, media=media, **fields)


def reference(files: dict[str, str], folder: Path, *parts: str | int | bytes) -> dict[str, Any]:
    """What llama.cpp's helper gives for texts, pictures by their seeds, and sounds."""
    arguments: list[str] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            arguments.append(f"text:{part}")
        else:
            file = folder / str(number)
            file.write_bytes(picture(part) if isinstance(part, int) else part)
            arguments.append(f"file:{file}")
    command = [sys.executable, "-m", "tests.engine.mtmd_reference", files["path"], files["projector_path"], "12"]
    return json.loads(subprocess.run([*command, *arguments], capture_output=True, check=True, text=True).stdout)


async def test_the_answer_is_that_of_llama_cpps_own_helper(
    start_engine: StartEngine, files: dict[str, str], tmp_path: Path
) -> None:
    engine = await start_engine(**files)
    one, two = await show(engine, 1), await show(engine, 1, 2)
    seen = [(await show(engine, seed, logprobs=0)).logprobs for seed in (1, 2)]
    assert any(abs(a.logprob - b.logprob) > TIE for a, b in zip(*seen, strict=True)), "the picture does not matter"
    expected = reference(files, tmp_path, BEFORE, 1, BEHIND)
    assert one.tokens[0] == expected["tokens"]
    assert one.usage.prompt_tokens == expected["prompt_tokens"]
    assert two.tokens[0] == reference(files, tmp_path, BEFORE, 1, BETWEEN, 2, BEHIND)["tokens"]


async def test_pictures_are_cached_like_text(start_engine: StartEngine, files: dict[str, str]) -> None:
    engine = await start_engine(**files)
    cold = await show(engine, 1, 2, cache_prompt=False)
    first = await show(engine, 1)
    again = await show(engine, 1)
    assert again.tokens == first.tokens
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    longer = await show(engine, 1, 2)
    assert longer.tokens == cold.tokens
    other = await show(engine, 3)
    shown = PICTURE_TOKENS[files["digest"]]
    assert other.usage.cached_tokens < other.usage.prompt_tokens - shown, "another picture was taken for a known one"
    assert longer.usage.cached_tokens >= other.usage.cached_tokens + shown, "the picture was computed again"


async def test_pictures_come_back_from_memory_and_disk(
    start_engine: StartEngine, files: dict[str, str], tmp_path: Path
) -> None:
    engine = await start_engine(**files, cache_disk=1 << 28, parallel=1)
    cold = await show(engine, 1, 2)
    for i in range(6):  # takes every place on the device
        await ask(engine, [300 + (7 * j + i) % 80 for j in range(400)], 1)
    assert (await show(engine, 1, 2)).tokens == cold.tokens
    await engine.stop()
    restarted = await start_engine(**files, cache_disk=1 << 28, parallel=1)
    answer = await show(restarted, 1, 2)
    assert answer.tokens == cold.tokens
    assert answer.usage.cached_tokens > cold.usage.prompt_tokens - 16


async def test_side_by_side_each_sees_its_own(start_engine: StartEngine, files: dict[str, str]) -> None:
    engine = await start_engine(**files)
    alone = [(await show(engine, seed, cache_prompt=False)).tokens for seed in range(4)]
    together = await asyncio.gather(*(show(engine, seed) for seed in range(4)), ask(engine, BETWEEN * 20, 12))
    assert [answer.tokens for answer in together[:4]] == alone
    same = await asyncio.gather(*(show(engine, 9) for _ in range(3)))
    assert all(answer.tokens == same[0].tokens for answer in same)


async def test_several_choices_share_one_picture(start_engine: StartEngine, files: dict[str, str]) -> None:
    engine = await start_engine(**files)
    answer = await show(engine, 1, n=2, best_of=2)
    assert answer.tokens[0] == answer.tokens[1]


async def test_windows_of_attention_go_on_from_checkpoints(start_engine: StartEngine, tmp_path: Path) -> None:
    model = write_random(GEMMA, tmp_path / "model.gguf", seed=5)
    projector = write_gemma(tmp_path / "projector.gguf")
    engine = await start_engine(path=str(model), projector_path=str(projector), digest="sliding")
    head = BEFORE + BETWEEN
    boundaries = [len(head)]
    first = await ask(engine, head, 1, media=[image(1, len(BEFORE))], boundaries=boundaries)
    cold = await ask(engine, head + BEHIND, 12, media=[image(1, len(BEFORE))], cache_prompt=False)
    warm = await ask(engine, head + BEHIND, 12, media=[image(1, len(BEFORE))], boundaries=boundaries)
    assert warm.usage.cached_tokens >= first.usage.prompt_tokens - 1
    assert warm.tokens == cold.tokens


async def test_a_request_can_be_given_up_while_its_picture_is_encoded(
    start_engine: StartEngine, files: dict[str, str]
) -> None:
    engine = await start_engine(**files)
    media = [image(seed, len(BEFORE), width=1400, height=840) for seed in range(3)]
    request = Generate(id=0, prompt=BEFORE + BEHIND, media=media, max_tokens=4, sampling=Sampling(temperature=0))
    task = asyncio.ensure_future(anext(aiter(engine.generate(request))))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async for item in engine.generate(Generate(id=0, prompt=BEHIND, max_tokens=2)):
        assert not isinstance(item, Delta) or item.id
        break


@pytest.mark.parametrize("damage", [b"", b"no picture", picture(1)[:200]])
async def test_what_is_no_picture_is_refused(
    start_engine: StartEngine, random_gguf: Path, tmp_path: Path, damage: bytes
) -> None:
    engine = await start_engine(projector_path=str(write_llava(tmp_path / "projector.gguf")))
    with pytest.raises(RequestError, match="an image cannot be read; send a PNG, JPEG, WEBP, GIF or BMP file"):
        await ask(engine, BEHIND, media=[Medium("image", damage, 0)])
    with pytest.raises(RequestError, match="this model does not hear"):
        await ask(engine, BEHIND, media=[Medium("audio", damage, 0)])
    assert (await ask(engine, BEHIND, 2)).tokens[0]


async def test_a_model_without_projector_says_that_it_has_no_eyes(start_engine: StartEngine) -> None:
    engine = await start_engine()
    with pytest.raises(RequestError, match="this model takes text alone"):
        await ask(engine, BEHIND, media=[image(1, 0)])


async def test_a_prompt_may_not_end_with_a_picture(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(projector_path=str(write_llava(tmp_path / "projector.gguf")))
    with pytest.raises(RequestError, match="ends with an image or a sound: add text behind it"):
        await ask(engine, BEFORE, media=[image(1, len(BEFORE))])


async def test_the_projector_of_another_model_is_refused(start_engine: StartEngine, tmp_path: Path) -> None:
    wide = write_random(replace(GEMMA, arch="llama", window=0, n_embd=128, head=32), tmp_path / "wide.gguf")
    with pytest.raises(LoadError, match=r"the projector .* does not fit"):
        await start_engine(path=str(wide), projector_path=str(write_llava(tmp_path / "projector.gguf")))


async def test_sounds_are_heard(start_engine: StartEngine, random_gguf: Path, tmp_path: Path) -> None:
    ears = write_ultravox(tmp_path / "projector.gguf")
    engine = await start_engine(projector_path=str(ears))
    assert (engine.info.vision, engine.info.hearing) == (False, True)

    async def hear(*seeds: int, **fields: Any) -> Answer:
        text = BEFORE + (BETWEEN if len(seeds) > 1 else "") + BEHIND
        places = [len(BEFORE), len(BEFORE + BETWEEN)]
        media = [Medium("audio", sound(seed), at) for seed, at in zip(seeds, places, strict=False)]
        return await ask(engine, text, 12, media=media, **fields)

    files = {"path": str(random_gguf), "projector_path": str(ears)}
    one, other = await hear(1, logprobs=0), await hear(2, logprobs=0)
    assert any(abs(a.logprob - b.logprob) > TIE for a, b in zip(one.logprobs, other.logprobs, strict=True))
    expected = reference(files, tmp_path, BEFORE, sound(1), BEHIND)
    assert one.tokens[0] == expected["tokens"]
    assert one.usage.prompt_tokens == expected["prompt_tokens"]
    two = await hear(1, 2)
    assert two.tokens[0] == reference(files, tmp_path, BEFORE, sound(1), BETWEEN, sound(2), BEHIND)["tokens"]
    again = await hear(1)
    assert again.tokens == one.tokens
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


@pytest.mark.parametrize("damage", [b"", b"no sound", sound(1)[:20], picture(1)])
async def test_what_is_no_sound_is_refused(start_engine: StartEngine, tmp_path: Path, damage: bytes) -> None:
    engine = await start_engine(projector_path=str(write_ultravox(tmp_path / "projector.gguf")))
    with pytest.raises(RequestError, match="a sound cannot be read; send a WAV, MP3 or FLAC file"):
        await ask(engine, BEHIND, media=[Medium("audio", damage, 0)])
    with pytest.raises(RequestError, match="this model has no vision; leave the images out"):
        await ask(engine, BEHIND, media=[image(1, 0)])
    assert (await ask(engine, BEHIND, 2)).tokens[0]
