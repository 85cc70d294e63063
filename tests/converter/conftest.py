"""Checkpoints that the converter's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.random_checkpoint import Shape, make_checkpoint

STORIES = Path(__file__).parents[3] / "shared/models/stories260k"


@pytest.fixture(scope="session")
def stories() -> Path:
    """A real trained model with a SentencePiece tokenizer, which is not part of the project."""
    if not STORIES.is_dir():
        pytest.skip("no shared/models/stories260k beside the checkout")
    return STORIES


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny sharded checkpoint of its own for each test, to be damaged at will."""
    return make_checkpoint(tmp_path / "tiny", Shape(), shards=2)


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256, so that K-quants apply."""
    shape = Shape(layers=8, embedding=256, feed_forward=512, heads=8, head=32, tied=True)
    return make_checkpoint(tmp_path_factory.mktemp("wide") / "wide", shape)
