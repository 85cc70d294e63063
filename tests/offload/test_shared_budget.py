"""Several models at once: together they hold no more than the budget, and what they hold is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from server.models.ledger import Ledger
from server.offload.holding import Holding, Share, holdings
from tests.offload.models import Shape, TensorType, write_random
from tests.offload.workers import ROOT, SCRATCH, rpc_worker

if TYPE_CHECKING:
    from pathlib import Path

    from server.engine.client import Engine
    from tests.conftest import StartServer

SMALL = Shape("llama", 8, 256, 4, 4, 64, 1024, 512, 2048, tied=False, type=TensorType.F16, output_type=TensorType.F16)
BUDGET = 48 << 20
"""Bytes: enough for one model of this shape and part of another."""


def _served(start_server: StartServer, *arguments: Path | str) -> tuple[int, dict[str, Any], str]:
    """Bytes that a server holds on an RPC worker, what it tells of them once a model has answered, and `brim ps`."""
    with rpc_worker() as worker:
        before = worker.held
        server = start_server(*arguments, "--rpc", worker.endpoint)
        held = worker.held - before
        body = {"model": "one", "prompt": "w300 w301", "max_tokens": 8, "temperature": 0}
        assert server.post("/v1/completions", body).status_code == 200
        return held, server.get("/api/placement").json(), _ps(server.url)


@pytest.mark.slow
def test_a_second_model_gets_what_the_first_leaves_of_the_budget(start_server: StartServer, tmp_path: Path) -> None:
    first, second = (write_random(SMALL, tmp_path / f"{name}.gguf", seed) for seed, name in enumerate(("one", "two")))
    held, answer, listed = _served(
        start_server,
        *(first, second, "--vram-budget", str(BUDGET)),
        *("--gpu-layers", "all", "--ctx", "512", "--parallel", "1"),
    )
    one, two = answer["models"]
    assert answer["vram_budget_bytes"] == BUDGET
    assert one["layers_on_gpu"] == SMALL.layers
    assert one["measured_tokens_per_second"] > 0
    assert two["measured_tokens_per_second"] is None
    on_device = [_on(model, "RPC0") for model in (one, two)]
    assert not any(device["deviates"] for device in on_device)
    assert on_device[0]["allocated_bytes"] > on_device[1]["allocated_bytes"] > 0
    assert sum(device["planned_bytes"] for device in on_device) <= BUDGET
    allocated = sum(device["allocated_bytes"] for device in on_device)
    assert allocated * 0.98 <= held <= allocated * 1.02 + SCRATCH * len(on_device)
    assert allocated <= BUDGET
    assert listed.count("RPC0") >= 4  # for each model in its placement, and in the table of devices
    assert "warning" not in listed


@pytest.mark.slow
def test_a_draft_s_share_is_told_beside_the_model_s(start_server: StartServer, tmp_path: Path) -> None:
    model = write_random(SMALL, tmp_path / "one.gguf")
    draft = write_random(replace(SMALL, layers=2), tmp_path / "draft.gguf")
    held, answer, listed = _served(
        start_server,
        *(model, "--draft", str(draft)),
        *("--gpu-layers", "all", "--ctx", "2048", "--parallel", "2"),
    )
    (one,) = answer["models"]
    parts = {(device["part"], device["name"]): device for device in one["devices"]}
    assert {part for part, _ in parts} == {"model", "draft"}
    assert not any(device["deviates"] for device in parts.values())
    allocated = sum(device["allocated_bytes"] for (_, name), device in parts.items() if name == "RPC0")
    assert allocated * 0.98 <= held <= allocated * 1.02 + SCRATCH
    assert "; draft on " in one["summary"]
    assert listed.count("draft") >= 2
    assert "warning" not in listed


def test_memory_of_the_host_is_what_is_no_devices() -> None:
    shares = (Share("CUDA0", "CUDA0", 3, 100 << 20), Share("CUDA1", "CUDA1", 0, 0), Share("CPU", "CPU", 5, 50 << 20))
    sizes = {"CUDA0": 90 << 20, "CUDA10": 1, "CUDA_Host": 2, "CPU_Mapped": 3, "CUDA0_Split": 5 << 20}
    first, unused, host = holdings(shares, {"model": sizes})
    assert (first.allocated, unused.allocated, host.allocated) == (95 << 20, 0, 6)
    assert first.deviates
    assert first.deviation == pytest.approx(-0.05)
    assert not unused.deviates
    assert host.deviation is None


@pytest.mark.parametrize(("allocated", "deviates"), [(98, False), (102, False), (97, True), (103, True)])
def test_two_percent_more_or_less_is_as_planned(allocated: int, deviates: bool) -> None:
    assert Holding(Share("CUDA0", "CUDA0", 1, 100 << 20), allocated << 20).deviates is deviates


def test_a_projector_may_grow_up_to_its_plan_and_keeps_that_from_others() -> None:
    share = Share("CUDA0", "CUDA0", 1, 100 << 20, part="projector")
    small, large = Holding(share, 60 << 20), Holding(share, 104 << 20)
    assert (small.deviates, large.deviates) == (False, True)
    assert (small.reserved, large.reserved) == (100 << 20, 104 << 20)
    assert Holding(Share("CUDA0", "CUDA0", 1, 100 << 20), 60 << 20).reserved == 60 << 20


def test_an_ended_engine_holds_nothing() -> None:
    class Running:
        alive = True

    ledger, engines = Ledger(), [Running(), Running()]
    for engine in engines:
        share = Share("RPC0", "RPC0[h:1]", 1, 100, overhead=7)
        ledger.enter(cast("Engine", engine), [Holding(share, 100), Holding(Share("CUDA0", "CUDA0", 0, 0, 9), 0)])
    assert ledger.held() == {"RPC0[h:1]": 214}
    engines[0].alive = False
    assert ledger.held() == {"RPC0[h:1]": 107}


def _on(model: dict[str, Any], device: str) -> dict[str, Any]:
    return next(one for one in model["devices"] if one["name"] == device)


def _ps(url: str) -> str:
    command = [sys.executable, "-m", "server.cli", "ps", "--port", url.rpartition(":")[2]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
