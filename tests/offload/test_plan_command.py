"""`brim plan` on models of real shapes that take no room on disk. No GPU is needed, and none is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from server.errors import BrimError
from server.offload.cli import app
from tests.offload.models import GEMMA_2_27B, LLAMA_3_8B, QWEN3_30B_A3B, write_hollow

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
runner = CliRunner()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    shapes = {"gemma": GEMMA_2_27B, "qwen": QWEN3_30B_A3B, "llama": LLAMA_3_8B}
    return {name: str(write_hollow(shape, folder / f"{name}.gguf")) for name, shape in shapes.items()}


def _plan(*arguments: str) -> dict[str, Any]:
    result = runner.invoke(app, ["plan", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_gemma_2_27b_fits_in_part_on_8_gib_and_wholly_on_24(models: dict[str, str]) -> None:
    small = _plan(models["gemma"], "--ctx", "8192", "--gpu", "RTX 4060")
    large = _plan(models["gemma"], "--ctx", "8192", "--gpu", "RTX 4090")
    assert small["layers_total"] == large["layers_total"] == large["layers_on_gpu"] == 46
    assert 0 < small["layers_on_gpu"] < 46
    assert "of 46 layers fit whole" in small["advice"]
    assert small["cpu_only_tokens_per_second"] < small["predicted_tokens_per_second"]
    assert small["predicted_tokens_per_second"] < small["all_on_gpu_tokens_per_second"]
    for plan in (small, large):
        (device,) = plan["devices"]
        used = device["weights_bytes"] + device["kv_bytes"] + device["compute_bytes"]
        assert used <= device["budget_bytes"] < device["total_bytes"]
        assert plan["compute_buffers_exact"]


def test_experts_of_a_mixture_go_to_the_cpu_first(models: dict[str, str]) -> None:
    plan = _plan(models["qwen"], "--ctx", "8192", "--vram", "8GiB")
    assert plan["layers_on_gpu"] + plan["layers_partly_on_gpu"] == 48
    ((pattern, device),) = plan["placement"]["tensor_overrides"]
    assert device == "CPU"
    assert "exps" in pattern


def test_two_cards_share_a_model_and_the_picture_is_drawn(models: dict[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    plan = _plan(models["llama"], "--ctx", "8192", "--vram", "3GiB", "--vram", "4GiB", "--plot", str(picture))
    assert len(plan["devices"]) == len(plan["placement"]["devices"]) == 2
    assert plan["layers_on_gpu"] == 32
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_report_names_layers_devices_and_what_would_help(models: dict[str, str]) -> None:
    result = runner.invoke(app, ["plan", models["gemma"], "--ctx", "8192", "--vram", "16GiB"], catch_exceptions=False)
    words = " ".join(result.stdout.split())
    assert "46 layers" in words
    assert "Memory limits it" in words
    assert "tokens/s; on the CPU alone" in words
    assert "would" in words.partition("Memory limits it")[2]


def test_all_cards_in_one_table(models: dict[str, str]) -> None:
    result = runner.invoke(
        app, ["plan", models["llama"], "--ctx", "8192", "--all-gpus", "--json"], catch_exceptions=False
    )
    rows = {row["gpu"]: row for row in json.loads(result.stdout)}
    assert len(rows) >= 60
    assert rows["RTX 4090"]["share"] == 1.0
    assert rows["GTX 1650"]["share"] < 1.0
    assert rows["RTX 4090"]["speedup"] > rows["RTX 3060"]["speedup"] > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "RTX 3080 Super"], "RTX 3080, RTX 3080 Ti"),
        (["--vram", "8 gigs"], "--vram: "),
        (["--vram", "0"], "--vram must be more than nothing"),
        (["--kv-type", "f8"], "--kv-type must be one of"),
        (["--gpu-layers", "most"], "auto, all or a number"),
    ],
)
def test_wrong_flags_get_one_clear_sentence(models: dict[str, str], arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["plan", models["llama"], *arguments])
    assert isinstance(result.exception, BrimError)
    assert message in str(result.exception)
