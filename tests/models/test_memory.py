"""How much memory a prefix cache may take where nobody says: never so much that weights would have to leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from server.models.ledger import Ledger
from server.models.loading import LARGEST_DEFAULT_RAM_CACHE, LoadedModel, load
from server.models.resolve import resolve
from server.models.store import Store
from server.offload import devices
from server.offload.host import HostMemory
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GIB = 1 << 30
MODEL = 64 << 20
"""Bytes that are enough for the demo model, its KV cells and its buffers, and more than its weights take."""


class Machine:
    """A machine on which models are loaded, one beside another; a test says what memory is free."""

    def __init__(self, folder: Path, gguf: Path, patch: pytest.MonkeyPatch) -> None:
        self._source = resolve(str(gguf), Store(folder / "models"))
        self._patch = patch
        self._ledger = Ledger()
        self.models: list[LoadedModel] = []

    async def load(self, free: int, **settings: Any) -> LoadedModel:
        """One more model, where so many bytes are free."""
        self._patch.setattr(devices, "host_memory", lambda: HostMemory(64 * GIB, free))
        chosen = Settings(cache_disk=0, threads=1, ctx=256, parallel=2, **settings)
        self.models.append(await load(self._source, chosen, lambda _: None, self._ledger))
        return self.models[-1]


@pytest.fixture
async def machine(tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path))
    machine = Machine(tmp_path, demo_gguf, monkeypatch)
    yield machine
    for model in machine.models:
        await model.stop(0)


async def test_a_cache_takes_a_quarter_of_what_its_model_and_other_caches_leave(machine: Machine) -> None:
    first = (await machine.load(4 * GIB)).engine.spec.cache_ram
    assert (4 * GIB - MODEL) // 4 <= first < GIB
    second = (await machine.load(4 * GIB)).engine.spec.cache_ram
    assert second == first - first // 4
    await machine.models[0].stop(0)
    assert (await machine.load(4 * GIB)).engine.spec.cache_ram == first - second // 4


async def test_it_takes_no_more_than_some_gigabytes_and_nothing_where_weights_do_not_stay(machine: Machine) -> None:
    roomy, tight = (await machine.load(60 * GIB)).engine.spec, (await machine.load(1 << 20)).engine.spec
    assert (roomy.cache_ram, roomy.weights_stay) == (LARGEST_DEFAULT_RAM_CACHE, True)
    assert (tight.cache_ram, tight.weights_stay) == (0, False)


async def test_what_a_user_sets_holds_whatever_is_free(machine: Machine) -> None:
    assert (await machine.load(1 << 20, cache_ram=GIB)).engine.spec.cache_ram == GIB
