"""Real partial offload: layers computed by other processes over RPC, their memory weighed, their output compared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from converter.gguf_info import read_gguf_info
from server.engine.load_spec import LoadSpec, Placement
from server.offload.calibration import UNKNOWN_CPU, guess
from server.offload.devices import Device, Machine, discover
from server.offload.drafting import draft_placement
from server.offload.placing import companions_of
from server.offload.solving import Outcome, solve
from server.offload.wish import GpuLayers, Wish
from tests.offload.models import RANDOM_160M, write_random
from tests.offload.workers import SCRATCH, RpcWorker, decoding, rpc_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTEXT = 512
TOLERANCE = 0.02
"""Share of the plan by which what a worker holds may differ."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(RANDOM_160M, tmp_path_factory.mktemp("model") / "random-160m.gguf")


@pytest.fixture(scope="module")
def on_cpu(model: Path) -> list[int]:
    """What the model says on the CPU alone."""
    with decoding(_spec(model, Placement(), ())) as result:
        return result["tokens"]


@pytest.fixture
def worker() -> Iterator[RpcWorker]:
    with rpc_worker() as running:
        yield running


def _spec(model: Path, placement: Placement, rpc: tuple[str, ...]) -> LoadSpec:
    return LoadSpec(
        path=str(model), name="m", digest="d", placement=placement, context=CONTEXT, parallel=1, rpc=rpc, threads=1
    )


def _solve(model: Path, machine: Machine, gpu_layers: GpuLayers = "auto", draft: Path | None = None) -> Outcome:
    """Plan with speeds that make every device worth using."""
    speeds = {device.name: guess(device) for device in machine.devices} | {"CPU": UNKNOWN_CPU}
    wish = Wish(CONTEXT, 1, "f16", gpu_layers, companions=companions_of(draft=draft))
    return solve(read_gguf_info(model), machine, wish, speeds)


@pytest.mark.slow
@pytest.mark.parametrize("gpu_layers", [0, 6, "all"])
def test_one_device_holds_what_was_planned_and_says_the_same(
    model: Path, on_cpu: list[int], worker: RpcWorker, gpu_layers: GpuLayers
) -> None:
    machine = discover((worker.endpoint,))
    before = worker.held
    outcome = _solve(model, machine, gpu_layers)
    planned = sum(stretch.total for stretch in outcome.plan.stretches)
    assert outcome.exact or gpu_layers == 0
    with decoding(_spec(model, outcome.placement(), (worker.endpoint,)), full_context=True) as result:
        held = worker.held - before
        assert result["tokens"] == on_cpu
    assert _as_planned(held, planned)


@pytest.mark.slow
def test_two_devices_of_different_budgets_share_a_model(model: Path, on_cpu: list[int], worker: RpcWorker) -> None:
    with rpc_worker() as second:
        workers = {"RPC0": worker, "RPC1": second}
        endpoints = (worker.endpoint, second.endpoint)
        found = discover(endpoints)
        small, large = (_limited(device, mib) for device, mib in zip(found.devices, (180, 260), strict=True))
        before = {name: running.held for name, running in workers.items()}
        outcome = _solve(model, replace(found, devices=(small, large)))
        assert {stretch.device for stretch in outcome.plan.stretches} == set(workers)
        with decoding(_spec(model, outcome.placement(), endpoints), full_context=True) as result:
            for stretch in outcome.plan.stretches:
                held = workers[stretch.device].held - before[stretch.device]
                assert _as_planned(held, stretch.total)
                assert stretch.total <= outcome.budgets[stretch.device]
            assert result["tokens"] == on_cpu


@pytest.mark.slow
def test_a_draft_beside_the_model_holds_what_was_planned_for_it(
    model: Path, on_cpu: list[int], worker: RpcWorker, tmp_path: Path
) -> None:
    draft = write_random(
        replace(RANDOM_160M, layers=4, n_embd=256, heads=4, kv_heads=4, n_ff=1024), tmp_path / "d.gguf"
    )
    machine = discover((worker.endpoint,))
    before = worker.held
    outcome = _solve(model, machine, 6, draft)
    (guest,) = outcome.guests
    assert guest.home == "RPC0"
    spec = structs.replace(
        _spec(model, outcome.placement(), (worker.endpoint,)),
        draft_path=str(draft),
        draft_placement=draft_placement(guest),
    )
    (stretch,) = outcome.plan.stretches
    with decoding(spec, full_context=True) as result:
        held = worker.held - before
        assert result["tokens"] == on_cpu
    buffer = machine.devices[0].buffer
    assert result["bytes"][buffer] == pytest.approx(stretch.total, rel=TOLERANCE)
    assert result["draft_bytes"][buffer] == pytest.approx(guest.on_device.total, rel=TOLERANCE)
    assert _as_planned(held, stretch.total + guest.on_device.total)


@pytest.mark.slow
def test_a_cut_layer_computes_the_same(model: Path, on_cpu: list[int], worker: RpcWorker) -> None:
    machine = discover((worker.endpoint,))
    placement = Placement(
        devices=("RPC0",),
        n_gpu_layers=13,
        tensor_split=(13.0,),
        tensor_overrides=((r"^blk\.(8|9|10|11)\.ffn_(gate|up|down|gate_up)(_(ch)?exps|_shexp)?\.", "CPU"),),
        n_ubatch=256,
    )
    assert machine.devices
    with decoding(_spec(model, placement, (worker.endpoint,))) as result:
        assert result["tokens"] == on_cpu
        on_host = 4 * 3 * 2048 * 768 * 2
        assert result["bytes"]["CPU"] >= on_host or result["bytes"]["CPU_Mapped"] >= on_host


def _as_planned(held: int, planned: int) -> bool:
    return planned * (1 - TOLERANCE) <= max(held, 0) <= planned * (1 + TOLERANCE) + SCRATCH


def _limited(device: Device, mib: int) -> Device:
    return replace(device, total=mib << 20, free=mib << 20)
