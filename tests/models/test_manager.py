"""The manager with real engines: loading, the store behind it, crashes, and what comes before a conversation."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from server.api.ollama.known import known_model, known_models
from server.chat.renderer import Renderer
from server.engine.messages import Delta, Done
from server.engine.request import Generate, Sampling
from server.errors import BrimError, LoadError, RequestError
from server.models.loading import LoadedModel
from server.models.manager import ModelManager
from server.models.resolve import ModelSource, resolve
from server.models.slot import Slot
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from server.engine.client import Engine

LOADED_WITHIN = 240.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path))
    return Store.default()


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[ModelManager]:
    manager = ModelManager(Settings(cache_ram=0, threads=1, ctx=256, parallel=2), store)
    yield manager
    await manager.stop()


def continuation(tokens: int) -> Generate:
    greedy = Sampling(temperature=0)
    return Generate(id=0, prompt="Once", max_tokens=tokens, ignore_eos=True, sampling=greedy)


async def answer(model: LoadedModel, tokens: int = 3) -> str:
    items = [item async for item in model.engine.generate(continuation(tokens))]
    assert isinstance(items[-1], Done)
    return "".join(item.text for item in items if isinstance(item, Delta))


async def test_a_wanted_model_is_loaded_once_for_all_who_ask(
    manager: ModelManager, store: Store, demo_gguf: Path
) -> None:
    manager.want(resolve(str(demo_gguf), store))
    assert manager.statuses()[0].state == "loading"
    models = await asyncio.gather(*(manager.get(name) for name in ("demo", "Demo:latest", None, "")))
    assert all(model is models[0] for model in models)
    assert [status.state for status in manager.statuses()] == ["ready"]
    assert manager.loaded() == [models[0]]
    assert await answer(models[0])
    await manager.unload("demo")
    assert manager.loaded() == []
    assert not models[0].engine.alive
    with pytest.raises(RequestError) as caught:
        await manager.get("demo")  # it was a file of no store
    assert caught.value.status == 404


async def test_a_model_whose_process_dies_fails_its_requests_and_is_loaded_again(
    manager: ModelManager, store: Store, demo_gguf: Path
) -> None:
    manager.want(resolve(str(demo_gguf), store))
    first = await manager.get("demo")
    text = await answer(first)
    running = asyncio.create_task(answer(first, 240))
    await asyncio.sleep(0)
    os.kill(first.engine.pid, signal.SIGKILL)
    with pytest.raises(RequestError) as caught:
        await running
    assert caught.value.status == 503
    assert caught.value.retry_after
    async with asyncio.timeout(LOADED_WITHIN):
        while not manager.loaded():
            await asyncio.sleep(0.05)
    second = await manager.get("demo")
    assert second.engine.pid != first.engine.pid
    assert await answer(second) == text


async def crashed(manager: ModelManager, source: ModelSource) -> None:
    """Have a model loaded, lose its file and its process, and see one attempt at loading it again fail."""
    manager.want(source)
    model = await manager.get(source.name)
    source.path.rename(source.path.with_suffix(".lost"))
    os.kill(model.engine.pid, signal.SIGKILL)
    async with asyncio.timeout(LOADED_WITHIN):
        while "cannot be read" not in manager.statuses()[0].stage:
            await asyncio.sleep(0.01)


@pytest.fixture
def own_source(store: Store, demo_gguf: Path, tmp_path: Path) -> ModelSource:
    """A model whose file the test may move away."""
    path = tmp_path / "own.gguf"
    path.write_bytes(demo_gguf.read_bytes())
    return resolve(str(path), store)


async def test_a_model_that_stays_is_loaded_again_however_often_that_fails(
    manager: ModelManager, own_source: ModelSource
) -> None:
    await crashed(manager, own_source)
    own_source.path.with_suffix(".lost").rename(own_source.path)
    async with asyncio.timeout(LOADED_WITHIN):
        while not manager.loaded():
            await asyncio.sleep(0.05)
    assert await answer(await manager.get("own"))


async def test_a_model_that_is_ended_is_not_loaded_again(manager: ModelManager, own_source: ModelSource) -> None:
    await crashed(manager, own_source)
    (slot,) = manager._slots.values()
    assert slot.watching
    assert not slot.watching.done(), "it waits for the next attempt"
    await manager.unload("own")
    assert slot.watching.cancelled()
    assert (manager.statuses(), slot.loading, slot.model) == ([], None, None)


class OnTheLoop(dict[str, Slot]):
    """Slots that no other thread may look at."""

    def values(self) -> Any:
        asyncio.get_running_loop()
        return super().values()


async def test_threads_that_read_files_leave_the_slots_alone(
    manager: ModelManager, store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    store_models(store, demo_gguf, tmp_path, "mine")
    manager._slots = OnTheLoop(demo=Slot(resolve(str(demo_gguf), store)))
    with pytest.raises(RequestError, match="there is no model 'absent'; there are demo, mine"):
        await manager.get("absent")
    assert set(await known_models(manager)) == {"demo", "mine"}
    assert (await known_model(manager, "Demo:latest")).path == demo_gguf


async def test_a_request_loads_the_model_of_the_store_that_it_names(
    manager: ModelManager, store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    from server.models.create import create
    from server.models.modelfile import parse

    text = f'FROM {demo_gguf}\nPARAMETER temperature 0.25\nPARAMETER num_ctx 128\nSYSTEM "Be brief."\nMESSAGE user Hi\n'
    create(store, "mine", parse(text), tmp_path)
    model = await manager.get("Mine:latest")
    assert model.name == "mine"
    assert model is await manager.get("mine")
    assert model.source.parameters.temperature == 0.25
    assert model.info.context == 256  # what the user set comes before the Modelfile
    assert model.with_preamble([{"role": "user", "content": "x"}])[:2] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


async def test_a_model_that_cannot_be_loaded_is_a_503_and_not_tried_at_once_again(
    manager: ModelManager, store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(demo_gguf.read_bytes())
    source = resolve(str(path), store)
    path.write_bytes(b"no longer a model")
    manager.want(source)
    with pytest.raises(LoadError, match=r"model\.gguf"):
        await manager.wait_until_loaded()
    assert [status.state for status in manager.statuses()] == ["failed"]
    refusals: list[RequestError] = []
    for _ in range(3):
        with pytest.raises(RequestError) as caught:
            await manager.get("model")
        refusals.append(caught.value)
    assert {refusal.status for refusal in refusals} == {503}
    assert "is not available" in refusals[-1].message
    assert refusals[-1].retry_after


def store_models(store: Store, demo_gguf: Path, folder: Path, *names: str) -> None:
    from server.models.create import create
    from server.models.modelfile import parse

    for name in names:
        create(store, name, parse(f"FROM {demo_gguf}\n"), folder)


def names_of(manager: ModelManager) -> list[str]:
    return [model.name for model in manager.loaded()]


async def until_unloaded(model: LoadedModel) -> None:
    async with asyncio.timeout(LOADED_WITHIN):
        while model.engine.alive:
            await asyncio.sleep(0.02)


async def test_a_model_loaded_on_demand_goes_after_its_keep_alive_and_one_named_at_the_start_stays(
    manager: ModelManager, store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    store_models(store, demo_gguf, tmp_path, "mine")
    manager.want(resolve(str(demo_gguf), store))
    async with manager.using("mine", keep_alive=0) as mine, manager.using("demo", keep_alive=0) as demo:
        assert {status.name: status.until for status in manager.statuses()} == {"demo": None, "mine": 0}
        assert await answer(mine) == await answer(demo)
    await until_unloaded(mine)
    assert names_of(manager) == ["demo"]
    async with manager.using("mine", keep_alive=1000) as again:
        assert again is not mine
    left = {status.name: status.until for status in manager.statuses()}["mine"]
    assert left is not None
    assert 900 < left <= 1000
    assert names_of(manager) == ["demo", "mine"]


async def test_the_last_request_s_keep_alive_holds_and_nothing_in_use_is_unloaded(
    manager: ModelManager, store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    store_models(store, demo_gguf, tmp_path, "mine")
    async with manager.using("mine", keep_alive=0) as mine:
        running = asyncio.create_task(answer(mine, 200))
        async with manager.using("mine:latest", keep_alive=0):
            pass
        async with manager.using("mine", keep_alive=0.0):
            pass
        manager.retire("mine")
        async with manager.using("mine", keep_alive=60) as fresh:
            assert fresh is not mine
            assert fresh.engine.pid != mine.engine.pid
        assert await running
        assert mine.engine.alive
    await until_unloaded(mine)
    assert manager.loaded() == [fresh]


async def test_the_model_idle_for_longest_makes_way_and_busy_ones_do_not(
    store: Store, demo_gguf: Path, tmp_path: Path
) -> None:
    store_models(store, demo_gguf, tmp_path, "a", "b", "c")
    manager = ModelManager(Settings(cache_ram=0, threads=1, ctx=256, parallel=2, max_models=2), store)
    manager._places.patience = 0.2
    try:
        async with manager.using("b"):
            pass
        async with manager.using("a") as busy:
            running = asyncio.create_task(answer(busy, 100))
            async with manager.using("c"):
                assert sorted(names_of(manager)) == ["a", "c"]
                with pytest.raises(RequestError) as caught:
                    await manager.get("b")
                assert (caught.value.status, bool(caught.value.retry_after)) == (503, True)
            assert await running
            async with manager.using("b"):
                assert sorted(names_of(manager)) == ["a", "b"]
            assert busy.engine.alive
    finally:
        await manager.stop()
    assert manager.loaded() == []
    assert not busy.engine.alive


async def test_more_models_to_stay_than_may_be_loaded_are_refused(store: Store, demo_gguf: Path) -> None:
    manager = ModelManager(Settings(cache_ram=0, threads=1, ctx=256, max_models=1), store)
    try:
        source = resolve(str(demo_gguf), store)
        manager.want(source)
        manager.want(source)
        with pytest.raises(BrimError, match="--max-models 1"):
            manager.want(replace(source, name="another"))
    finally:
        await manager.stop()


@pytest.mark.parametrize("name", ["absent", "a/b", "../x", "demo.gguf", "/etc/passwd"])
async def test_what_is_not_in_the_store_is_a_404(manager: ModelManager, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        await manager.get(name)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_with_any_model_an_unknown_name_means_the_first(store: Store, demo_gguf: Path, tmp_path: Path) -> None:
    store_models(store, demo_gguf, tmp_path, "a", "b")
    manager = ModelManager(Settings(cache_ram=0, threads=1, ctx=256, any_model=True), store)
    try:
        with pytest.raises(RequestError, match="there is no model 'gpt-x'"):
            await manager.get("gpt-x")
        manager.want(resolve("b", store))
        for name in ("gpt-x", "a/b", "b"):
            assert (await manager.get(name)).name == "b"
        assert (await manager.get("a")).name == "a"
    finally:
        await manager.stop()


SYSTEM = {"role": "system", "content": "S"}
SHOT = {"role": "user", "content": "shot"}
USER = {"role": "user", "content": "U"}
OTHER = {"role": "system", "content": "other"}


@pytest.mark.parametrize(
    ("system", "shots", "given", "result"),
    [
        (None, (), [USER], [USER]),
        ("S", (), [USER], [SYSTEM, USER]),
        ("S", (SHOT,), [USER], [SYSTEM, SHOT, USER]),
        ("S", (SHOT,), [OTHER, USER], [OTHER, SHOT, USER]),
        ("", (SHOT,), [USER], [SHOT, USER]),
    ],
)
def test_a_conversation_goes_behind_what_the_modelfile_says(
    tmp_path: Path, system: str | None, shots: tuple[dict[str, Any], ...], given: list[Any], result: list[Any]
) -> None:
    source = ModelSource("m", tmp_path, "d", system=system, messages=shots)
    model = LoadedModel(source, cast("Engine", None), Renderer(None), 0.0)
    assert model.with_preamble(given) == result
