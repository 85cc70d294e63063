"""A tiny model with random weights, and real workers that serve it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from converter import convert
from server.engine.client import Engine
from server.engine.load_spec import LoadSpec
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = Shape(
    layers=3, embedding=64, feed_forward=128, heads=4, key_value_heads=2, head=16, vocabulary=384, context=512
)

StartEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture(scope="session")
def random_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An F32 model whose greedy output is varied and depends on every token before it."""
    folder = tmp_path_factory.mktemp("random")
    path = folder / "random.gguf"
    convert(make_checkpoint(folder / "checkpoint", SHAPE, dtype="F32", seed=3), path, "F32")
    return path


@pytest.fixture
async def start_engine(random_gguf: Path, tmp_path: Path) -> AsyncIterator[StartEngine]:
    """Starts engines on the random model with one thread; they end with the test."""
    engines: list[Engine] = []

    async def start(**options: Any) -> Engine:
        defaults: dict[str, Any] = {
            "path": str(random_gguf),
            "name": "random",
            "digest": "random",
            "context": 512,
            "parallel": 4,
            "threads": 1,
            "cache_ram": 1 << 26,
            "cache_dir": str(tmp_path / "kv"),
            "state_dir": str(tmp_path / "state"),
        }
        engine = await Engine.start(LoadSpec(**(defaults | options)))
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()
