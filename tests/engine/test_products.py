"""A batch of a few rows by the plain products instead of llama.cpp's tiled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import llama_cpp
import numpy as np
import pytest

from converter import convert
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import LoadSpec
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.engine.llama.context import Logits

SHAPE = Shape(layers=2, embedding=256, feed_forward=512, heads=4, key_value_heads=2, head=64, vocabulary=384)
TOKENS = list(range(3, 15))

needs_tiled = pytest.mark.skipif(
    b"AVX2 = 1" not in llama_cpp.llama_print_system_info(), reason="llama.cpp has no tiled products here"
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Of a model whose weights are all Q6_K."""
    folder: Path = tmp_path_factory.mktemp("products")
    path = folder / "random.gguf"
    convert(make_checkpoint(folder / "checkpoint", SHAPE, dtype="F32", seed=5), path, "Q6_K")
    spec = LoadSpec(path=str(path), name="random", digest="random", context=64, parallel=1, threads=1)
    context = Context(Model(spec, lambda _: None), spec, ContextShape(64, 1, False, 64, 64))
    context.set_threads(1, 1)
    yield context
    context.close()


def logits(context: Context, rows: int) -> Logits:
    """Of the first `rows` tokens, computed in one batch."""
    context.drop(0)
    assert context.decode(TOKENS[:rows], range(rows), [0] * rows, range(rows))
    return context.logits(rows).copy()


@needs_tiled
def test_plain_products_compute_each_row_of_a_batch_as_in_a_narrower_one(context: Context) -> None:
    assert context.can_choose_products
    narrow = logits(context, 7)
    context.set_plain(8)
    assert np.array_equal(logits(context, 8)[:7], narrow)


@needs_tiled
def test_wider_batches_and_those_of_who_did_not_ask_are_left_to_the_tiled_ones(context: Context) -> None:
    context.set_plain(0)
    tiled = [logits(context, rows) for rows in (8, 9)]
    context.set_plain(8)
    plain, wider = (logits(context, rows) for rows in (8, 9))
    assert not np.array_equal(plain, tiled[0])
    assert np.allclose(plain, tiled[0], atol=1e-3)
    assert np.array_equal(wider, tiled[1])
