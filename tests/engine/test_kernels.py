"""brim's own products on the CPU: their sums, and a model that is computed with them."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest

from converter import convert
from server.engine.kernels.known import KNOWN, know_all, know_some
from server.offload.ggml import InitParams
from tests.engine.test_engine import PROMPT, ask
from tests.reference.random_checkpoint import Shape, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.engine.conftest import StartEngine

if platform.machine() != "x86_64":
    pytest.skip("the kernels are for x86", allow_module_level=True)

from server.engine.kernels import ggml, install
from server.engine.kernels.dots import AVX2, VNNI, Dots, dots_of
from server.engine.kernels.formats import FORMATS, Format
from tests.engine.kernel_products import FEATURES, expected, multiply, random_weights

ROOT = Path(__file__).parents[2]
SHAPE = Shape(
    layers=2, embedding=256, feed_forward=512, heads=4, key_value_heads=2, head=64, vocabulary=384, context=512
)
USABLE = [dots for dots in (VNNI, AVX2) if dots_of({name: FEATURES.get(name, False) for name in dots.needs})]
CASES = [
    pytest.param(dots, kind, id=f"{dots.name}-{kind.name}") for dots in USABLE for kind in FORMATS if dots.takes(kind)
]

pytestmark = pytest.mark.skipif(not USABLE, reason="this CPU has no AVX2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model in formats that have products of their own."""
    folder = tmp_path_factory.mktemp("kernels")
    checkpoint = make_checkpoint(folder / "checkpoint", SHAPE, dtype="F32", seed=7)
    paths = {kind: folder / f"{kind}.gguf" for kind in ("Q4_K_M", "Q5_0", "Q8_0")}
    for kind, path in paths.items():
        convert(checkpoint, path, kind)
    return paths


def activations(n: int, k: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


@pytest.mark.parametrize(("dots", "kind"), CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 21])
def test_products_are_those_of_the_unpacked_weights(dots: Dots, kind: Format, n: int) -> None:
    weights, x = random_weights(kind, 48, 768, seed=n), activations(n, 768)
    sums = expected(kind, weights, x)
    assert np.abs(multiply(dots, kind, weights, x) - sums).max() < 1e-5 * np.abs(sums).max()


@pytest.mark.parametrize(("dots", "kind"), CASES)
def test_a_columns_sums_do_not_depend_on_what_is_beside_it(dots: Dots, kind: Format) -> None:
    weights, x = random_weights(kind, 80, 512, seed=2), activations(24, 512)
    alone = np.concatenate([multiply(dots, kind, weights, column[None]) for column in x])
    for n in range(2, 25):
        assert np.array_equal(multiply(dots, kind, weights, x[:n]), alone[:n])


@pytest.mark.parametrize(("dots", "kind"), CASES)
@pytest.mark.parametrize("threads", [1, 3, 7])
def test_nor_on_how_many_threads_there_are(dots: Dots, kind: Format, threads: int) -> None:
    weights, x = random_weights(kind, 64, 256, seed=3), activations(5, 256)
    assert np.array_equal(multiply(dots, kind, weights, x, threads), multiply(dots, kind, weights, x, 2))


@pytest.mark.parametrize(("dots", "kind"), CASES)
def test_activations_may_be_nothing_or_huge(dots: Dots, kind: Format) -> None:
    weights, x = random_weights(kind, 16, 512, seed=4), activations(3, 512)
    x[0], x[1] = 0, x[1] * 1e30
    sums, found = expected(kind, weights, x), multiply(dots, kind, weights, x)
    assert not found[0].any()
    assert np.abs(found[1] - sums[1]).max() < 1e-5 * np.abs(sums[1]).max()


@pytest.mark.parametrize(("dots", "kind"), CASES)
def test_the_largest_weights_and_activations_do_not_overflow(dots: Dots, kind: Format) -> None:
    weights = random_weights(kind, 16, 256, seed=5)
    blocks = weights.reshape(16, -1, kind.size)
    first = {"q8_0": 2, "q4_0": 2, "q5_0": 2, "q6_K": 0}.get(kind.name, 4)
    last = 208 if kind.name == "q6_K" else kind.size
    for fill in (0xFF, 0x80, 0x7F):
        blocks[..., first:last] = fill
        x = np.where(activations(2, 256) > 0, np.float32(1), np.float32(-1))
        x[0] = 1
        sums = expected(kind, weights, x)
        assert np.abs(multiply(dots, kind, weights, x) - sums).max() <= 1e-5 * np.abs(sums).max() + 1e-6


def logits(model: Path, folder: Path, products: str, *rows: int) -> dict[int, NDArray[np.float32]]:
    """Those of the first so many tokens each, in a process of its own: kernels stay once they are there."""
    output = folder / "logits.npz"
    wanted = [f"0:{each}" for each in rows]
    command = [sys.executable, "-m", "tests.engine.logits", model, output, products, *wanted]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    found = np.load(output)
    return {each: found[f"0:{each}"] for each in rows}


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q5_0", "Q8_0"])
def test_a_model_is_computed_as_by_llama_cpp_within_what_rounding_makes(
    models: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    own = logits(models[kind], tmp_path, "OWN", 12, 1, 5, 8)
    theirs = logits(models[kind], tmp_path, "LLAMA", 12)[12]
    assert not np.array_equal(own[12], theirs), "the kernels have not been used"
    assert np.abs(own[12] - theirs).max() < 0.1 * theirs.std(), "both round activations to bytes, each its own way"
    for rows in (1, 5, 8):
        assert np.array_equal(own[rows], own[12][:rows]), "a batch changes what is beside it"


async def test_cold_warm_alone_and_batched_are_the_same(start_engine: StartEngine, models: dict[str, Path]) -> None:
    options: dict[str, Any] = {"path": str(models["Q5_0"]), "kernels": True, "threads": 2}
    engine = await start_engine(**options, lookup=False)
    assert engine.info.kernels
    prompts = [[p + i for p in PROMPT[: 20 + 10 * i]] for i in range(4)]
    alone = [await ask(engine, prompt, 40) for prompt in prompts]
    together = await asyncio.gather(*(ask(engine, prompt, 40) for prompt in prompts))
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert together[3].usage.cached_tokens


async def test_speculation_changes_no_token(start_engine: StartEngine, models: dict[str, Path]) -> None:
    options: dict[str, Any] = {"path": str(models["Q4_K_M"]), "kernels": True, "reorder": False}
    plain = await start_engine(**options, lookup=False)
    guessing = await start_engine(**options, lookup=False, draft_path=str(models["Q4_K_M"]))
    expected_answer, found = await ask(plain, PROMPT, 80), await ask(guessing, PROMPT, 80)
    assert found.tokens == expected_answer.tokens
    assert found.usage.accepted_tokens


async def test_machine_code_is_remembered_and_made_anew_where_it_is_torn(
    start_engine: StartEngine, models: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"path": str(models["Q8_0"]), "kernels": True}
    await start_engine(**options)
    (remembered,) = (tmp_path / "state").glob("kernels-*.o")
    content = remembered.read_bytes()
    remembered.write_bytes(content[:1000])
    engine = await start_engine(**options)
    assert engine.info.kernels
    assert remembered.read_bytes() == content


async def test_they_are_left_out_where_they_are_not_wanted(start_engine: StartEngine, models: dict[str, Path]) -> None:
    engine = await start_engine(path=str(models["Q8_0"]), kernels=False)
    assert not engine.info.kernels


@pytest.mark.parametrize(
    ("part", "answer"),
    [("server.engine.kernels.dots.dots_of", None), ("server.engine.kernels.ggml.fits", False)],
    ids=["another CPU", "another ggml"],
)
def test_llama_cpp_goes_on_without_them_where_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str, answer: Any
) -> None:
    monkeypatch.setattr(part, Mock(return_value=answer))
    with caplog.at_level(logging.INFO, "brim.kernels"):
        assert install.prepare(None) is None
    assert len(caplog.records) == 1
    assert "llama.cpp computes all products" in caplog.text


def test_what_is_known_of_them_without_llvm_is_what_they_are() -> None:
    assert {kind.name.upper() for kind in FORMATS} == KNOWN


@pytest.mark.parametrize(
    ("formats", "dense", "some", "every"),
    [
        ({"F32", "Q4_K", "Q6_K"}, True, True, True),
        ({"F32", "Q4_K", "Q6_K"}, False, True, False),
        ({"F32", "IQ4_NL", "Q6_K"}, True, True, False),
        ({"F32", "F16"}, True, False, True),
        (set[str](), True, False, True),
    ],
)
def test_which_models_they_are_for(formats: set[str], dense: bool, some: bool, every: bool) -> None:
    assert know_some(formats) == some
    assert know_all(formats, dense=dense) == every


class Graph:
    """Tensors without data, as llama.cpp would describe them to a device."""

    def __init__(self) -> None:
        self._context = ggml.function("ggml_init", ctypes.c_void_p, InitParams)(InitParams(1 << 16, None, True))

    def tensor(self, kind: int, *lengths: int) -> int:
        shape = (*lengths, 1, 1, 1)[:4]
        make = ggml.function(
            "ggml_new_tensor_4d", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 4
        )
        return make(self._context, kind, *shape)

    def call(self, name: str, *tensors: int) -> int:
        make = ggml.function(name, ctypes.c_void_p, *[ctypes.c_void_p] * (1 + len(tensors)))
        return make(self._context, *tensors)

    def permuted(self, tensor: int, *axes: int) -> int:
        permute = ggml.function("ggml_permute", *[ctypes.c_void_p] * 3, *[ctypes.c_int] * 4)
        return permute(self._context, tensor, *axes)


@pytest.fixture(scope="module")
def supports() -> Callable[[int], bool]:
    """Whether the device takes an operation."""
    kernels = install.prepare(None)
    assert kernels
    asked = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)(kernels.device.supports_op)
    return lambda operation: asked(ctypes.addressof(kernels.device), operation)


def test_the_device_takes_products_of_weights_that_it_knows(supports: Callable[[int], bool]) -> None:
    graph, f32, f16, q5_0, q4_k, q2_k = Graph(), 0, 1, 6, 12, 10
    x = graph.tensor(f32, 512, 7)
    for kind, taken in ((q5_0, True), (q4_k, True), (f32, False), (f16, False), (q2_k, False)):
        assert supports(graph.call("ggml_mul_mat", graph.tensor(kind, 512, 64), x)) == taken
    assert not supports(graph.call("ggml_mul_mat", graph.tensor(q5_0, 512, 40), x)), "rows that fill no vector"
    assert not supports(graph.call("ggml_add", x, x))


def test_it_takes_columns_of_several_sequences_where_they_follow_each_other(supports: Callable[[int], bool]) -> None:
    graph, f32, q5_0 = Graph(), 0, 6
    weights, x = graph.tensor(q5_0, 512, 64), graph.tensor(f32, 512, 3, 8)
    assert supports(graph.call("ggml_mul_mat", weights, x))
    assert not supports(graph.call("ggml_mul_mat", weights, graph.permuted(x, 0, 2, 1, 3)))
    several = graph.tensor(q5_0, 512, 64, 8)
    assert not supports(graph.call("ggml_mul_mat", several, x)), "weights for each sequence"


def test_it_leaves_to_gpus_what_these_take_over(
    supports: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = install.prepare(None)
    assert kernels
    graph, f32, q5_0 = Graph(), 0, 6
    weights = graph.tensor(q5_0, 512, 64)
    products = [graph.call("ggml_mul_mat", weights, graph.tensor(f32, 512, n)) for n in (31, 32)]
    monkeypatch.setattr(kernels.limits, "most", ggml.offloaded_from() - 1)
    assert [supports(product) for product in products] == [True, False]
