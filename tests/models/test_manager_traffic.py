"""The manager under many requests for many models at once, with engines that only pretend: none is unloaded in use."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from server.chat.renderer import Renderer
from server.errors import LoadError, RequestError
from server.models.loading import LoadedModel
from server.models.manager import ModelManager
from server.models.resolve import ModelSource
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("a", "b", "c", "d")
PLACES = 2


@dataclass
class PretendedEngine:
    """Counts itself among the loaded ones until it is stopped."""

    loaded: set[int]
    users: int = 0
    alive: bool = True
    died: asyncio.Event = field(default_factory=asyncio.Event)
    spec: Any = None

    def __post_init__(self) -> None:
        self.loaded.add(id(self))

    async def stop(self, grace: float = 0.0) -> None:
        assert self.users == 0, "a model was unloaded in use"
        self.alive = False
        await asyncio.sleep(0.001)
        self.loaded.discard(id(self))

    async def kill(self) -> None:
        self.alive = False
        self.loaded.discard(id(self))


class Summary:
    summary = "nowhere"


class Spec:
    placement = Summary()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The engines that are loaded, by identity; in place of real ones."""
    found: set[int] = set()

    async def load(source: ModelSource, *ignored: object, **flags: object) -> LoadedModel:
        await asyncio.sleep(0.001)
        if source.name == "d":
            raise LoadError("d is broken")
        engine = PretendedEngine(found, spec=Spec())
        assert len(found) <= PLACES
        return LoadedModel(source, cast("Any", engine), Renderer(None), 0.0)

    monkeypatch.setattr("server.models.manager.load", load)
    return found


def manager_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> ModelManager:
    manager = ModelManager(Settings(cache_ram=0, **settings), Store(tmp_path))

    def source(name: str, wanted: list[str]) -> ModelSource:
        return ModelSource(name, tmp_path / name, "d")

    monkeypatch.setattr(manager, "_from_store", source)
    return manager


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_unloaded_in_use_and_no_more_is_loaded_than_there_are_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: set[int], seed: int
) -> None:
    chance = random.Random(seed)
    manager = manager_of(tmp_path, monkeypatch, max_models=PLACES)
    answered: list[str] = []

    async def request(name: str, keep_alive: float, length: float, gives_up: bool) -> None:
        try:
            async with (
                asyncio.timeout(length if gives_up else None),
                manager.using(name, keep_alive=keep_alive) as model,
            ):
                engine = cast("PretendedEngine", model.engine)
                assert engine.alive
                engine.users += 1
                try:
                    await asyncio.sleep(length)
                    assert engine.alive
                    answered.append(name)
                finally:
                    engine.users -= 1
        except TimeoutError:
            assert gives_up
        except RequestError as error:
            assert name == "d"
            assert error.status == 503

    requests: list[asyncio.Task[None]] = []
    for _ in range(200):
        keep_alive = chance.choice([0, 0, 0.002, 100])
        work = request(chance.choice(NAMES), keep_alive, chance.random() * 0.004, chance.random() < 0.1)
        requests.append(asyncio.create_task(work))
        if chance.random() < 0.05:
            manager.retire(chance.choice(NAMES))
        await asyncio.sleep(chance.random() * 0.002)
    await asyncio.gather(*requests)
    assert set(answered) == {"a", "b", "c"}
    await manager.stop()
    assert not loaded
    assert manager._places._taken == 0


async def test_a_model_stopped_while_it_is_loaded_is_a_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: set[int]
) -> None:
    manager = manager_of(tmp_path, monkeypatch)
    waiting = asyncio.create_task(manager.get("a"))
    await asyncio.sleep(0)
    while not manager.statuses():
        await asyncio.sleep(0)
    await manager.unload("a")
    with pytest.raises(RequestError, match="stopped") as caught:
        await waiting
    assert caught.value.status == 503
    assert not loaded
    await manager.stop()
