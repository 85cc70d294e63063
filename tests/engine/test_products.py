"""A batch of a few rows by the plain products instead of llama.cpp's tiled ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp
import numpy as np
import pytest

from converter import convert
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from server.engine.llama.context import Logits

ROOT = Path(__file__).parents[2]
SHAPE = Shape(layers=2, embedding=256, feed_forward=512, heads=4, key_value_heads=2, head=64, vocabulary=384)

pytestmark = pytest.mark.skipif(
    b"AVX2 = 1" not in llama_cpp.llama_print_system_info(), reason="llama.cpp has no tiled products here"
)


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Logits]:
    """Those of a Q6_K model, by the widest batch for plain products and the rows of this one."""
    folder = tmp_path_factory.mktemp("products")
    path, output = folder / "random.gguf", folder / "logits.npz"
    convert(make_checkpoint(folder / "checkpoint", SHAPE, dtype="F32", seed=5), path, "Q6_K")
    wanted = ["0:7", "0:8", "8:8", "0:9", "8:9"]
    command = [sys.executable, "-m", "tests.engine.logits", path, output, "LLAMA", *wanted]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return dict(np.load(output))


def test_plain_products_compute_each_row_of_a_batch_as_in_a_narrower_one(logits: dict[str, Logits]) -> None:
    assert np.array_equal(logits["8:8"][:7], logits["0:7"])


def test_tiled_ones_sum_in_another_order(logits: dict[str, Logits]) -> None:
    assert not np.array_equal(logits["8:8"], logits["0:8"])
    assert np.allclose(logits["8:8"], logits["0:8"], atol=1e-3)


def test_wider_batches_are_left_to_them(logits: dict[str, Logits]) -> None:
    assert np.array_equal(logits["8:9"], logits["0:9"])
