"""Bytes of layers and KV caches, against llama.cpp's own dry run and against figures worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from converter.gguf_format import Field, TensorInfo, TensorType, ValueType
from converter.gguf_info import GGUFInfo, read_gguf_info
from server.engine.load_spec import IDLE_SEQUENCES, LoadSpec
from server.offload.asking import ask
from server.offload.footprint import KvShape, footprint
from server.offload.questions import DryRun, DryRunResult
from tests.offload.models import GEMMA_2_27B, LLAMA_3_8B, QWEN3_30B_A3B, Shape, write_hollow

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
Layers = list[list[tuple[str, tuple[int, ...]]]]


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("shape", [GEMMA_2_27B, QWEN3_30B_A3B, LLAMA_3_8B], ids=lambda shape: shape.arch)
def test_kv_bytes_are_what_llama_cpp_would_allocate(shape: Shape, kv_type: str, tmp_path: Path) -> None:
    path = write_hollow(shape, tmp_path / "model.gguf")
    model = footprint(read_gguf_info(path))
    unified = kv_type == "f16"
    kv = model.kv_shape(8192, 2, unified, kv_type, 512)
    question = DryRun(
        path=str(path),
        devices=("RPC0",),
        n_gpu_layers=99,
        cells=kv.cells * kv.streams,
        sequences=kv.sequences,
        unified=unified,
        kv_type=kv_type,
        stand_ins=1,
    )
    told = ask(question)
    assert isinstance(told, DryRunResult)
    assert model.kv_bytes(kv) == pytest.approx(told.kv, abs=0.02 * MIB)
    assert told.compute[0] > 0


@pytest.mark.parametrize("parallel", [1, 8, 240])
def test_the_engine_keeps_as_many_idle_sequences_as_are_counted(parallel: int, tmp_path: Path) -> None:
    from server.engine.context_shape import context_shape

    path = write_hollow(LLAMA_3_8B, tmp_path / "model.gguf")
    counted = footprint(read_gguf_info(path)).kv_shape(4096, parallel, True, "f16", 512).sequences
    spec = LoadSpec(path=str(path), name="m", digest="m", parallel=parallel, kv_unified=True, projector_path="p")
    assert context_shape(spec, cast("Any", SimpleNamespace(truncatable=True)), 4096).sequences == counted
    assert counted == min(parallel + IDLE_SEQUENCES, 256)


def test_parts_of_a_mixture_of_experts(tmp_path: Path) -> None:
    model = footprint(read_gguf_info(write_hollow(QWEN3_30B_A3B, tmp_path / "model.gguf")))
    layer = model.layers[0]
    # three matrices; the last row of the one whose rows are no multiple of 512 is padded
    assert layer.experts == 3 * 128 * 768 * 2048 // 256 * 144 + 256
    assert layer.active == 8 / 128
    assert layer.dense == layer.shared == 0
    assert not model.tied
    assert model.parameters == pytest.approx(30.2e9, rel=0.01)


def test_tied_embeddings_are_held_twice_where_the_output_is_offloaded(tmp_path: Path) -> None:
    model = footprint(read_gguf_info(write_hollow(GEMMA_2_27B, tmp_path / "model.gguf")))
    assert model.tied
    offloaded = sum(layer.weights for layer in model.layers) + model.output
    assert model.host_only(offloaded=offloaded, with_output=True) == model.embeddings
    assert model.weights == offloaded - model.output + model.embeddings + (model.output - model.embeddings)


def test_sliding_windows_hold_a_window_for_each_sequence_and_one_batch() -> None:
    pool = KvShape(cells=32768, streams=1, sequences=4, n_ubatch=512)
    split = KvShape(cells=32768, streams=4, sequences=4, n_ubatch=512)
    assert pool.cells_of(0) == split.cells_of(0) == 32768
    assert pool.cells_of(1024) == 4 * 1024 + 512
    assert split.cells_of(1024) == 1024 + 512
    assert pool.cells_of(100_000) == 32768


def _info(
    arch: str, values: dict[str, Any], layers: list[list[tuple[str, tuple[int, ...]]]], tmp_path: Path
) -> GGUFInfo:
    fields = {"general.architecture": Field.string(arch)}
    for key, value in {"block_count": len(layers), **values}.items():
        field = Field.array(ValueType.INT32, cast("list[int]", value)) if isinstance(value, list) else Field.u32(value)
        fields[f"{arch}.{key}"] = field
    tensors = [
        TensorInfo(f"blk.{i}.{name}.weight", shape, TensorType.F16, 0)
        for i, layer in enumerate(layers)
        for name, shape in layer
    ]
    tensors.append(TensorInfo("token_embd.weight", (1000, 64), TensorType.F16, 0))
    return GGUFInfo(tmp_path / "none.gguf", 3, fields, tuple(tensors), 0, 0)


def test_latent_attention_stores_one_vector_for_each_token(tmp_path: Path) -> None:
    values = {"attention.head_count": 16, "attention.head_count_kv": 1, "embedding_length": 2048}
    values |= {"attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192}
    model = footprint(_info("deepseek2", values, [[("attn_kv_a_mqa", (576, 2048))]], tmp_path))
    assert model.layers[0].kv_elements == (576,)


def test_a_hybrid_keeps_state_in_some_layers_and_keys_in_others(tmp_path: Path) -> None:
    values = {"attention.head_count": [0, 8], "attention.head_count_kv": [0, 2], "embedding_length": 512}
    values |= {"attention.key_length": 64, "attention.value_length": 64}
    values |= {"ssm.inner_size": 1024, "ssm.state_size": 16, "ssm.conv_kernel": 4, "ssm.group_count": 1}
    layers = [[("ssm_in", (2048, 512))], [("attn_k", (128, 512)), ("attn_v", (128, 512))]]
    recurrent, attending = footprint(_info("granitehybrid", values, layers, tmp_path)).layers
    assert recurrent.kv_elements == ()
    assert recurrent.state == 4 * (3 * (1024 + 2 * 16) + 16 * 1024)
    assert attending.kv_elements == (128, 128)
    assert attending.state == 0


def test_linear_attention_with_deltas_keeps_a_square_for_each_head(tmp_path: Path) -> None:
    values = {"attention.head_count": 32, "attention.head_count_kv": [0, 1], "embedding_length": 2304}
    values |= {"attention.key_length": 576, "attention.key_length_mla": 192, "kda.head_dim": 128, "ssm.conv_kernel": 4}
    layers = [[("ssm_conv1d_q", (4, 4096)), ("attn_k", (4096, 2304))], [("attn_kv_a_mqa", (576, 2304))]]
    delta, latent = footprint(_info("kimi-linear", values, layers, tmp_path)).layers
    assert delta.kv_elements == ()
    assert delta.state == 4 * (3 * 3 * 32 * 128 + 128 * 128 * 32)
    assert (latent.kv_elements, latent.state) == ((576,), 0)


def test_layers_that_only_guess_the_next_tokens_are_not_loaded(tmp_path: Path) -> None:
    values = {
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "embedding_length": 256,
        "nextn_predict_layers": 1,
    }
    layers = [[("attn_k", (128, 256)), ("attn_v", (128, 256))]] * 3
    model = footprint(_info("glm4moe", values, layers, tmp_path))
    assert [layer.weights for layer in model.layers] == [2 * 2 * 128 * 256] * 2 + [0]
    assert [layer.kv_elements for layer in model.layers] == [(128, 128)] * 2 + [()]
    assert model.parameters == 4 * 128 * 256 + 1000 * 64


def test_layers_that_share_keys_have_none_of_their_own(tmp_path: Path) -> None:
    values = {"attention.head_count": 4, "attention.head_count_kv": 2, "embedding_length": 256}
    values |= {
        "attention.shared_kv_layers": 2,
        "attention.sliding_window": 512,
        "attention.sliding_window_pattern": [1, 0, 1],
    }
    layers = [[("attn_k", (128, 256)), ("attn_v", (128, 256))]] * 3
    first, *rest = footprint(_info("gemma4", values, layers, tmp_path)).layers
    assert first.kv_elements == (128, 128)
    assert first.window == 512
    assert [layer.kv_elements for layer in rest] == [(), ()]
