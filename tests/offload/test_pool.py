"""The pool of KV cells: room for all parallel requests where it costs nothing, for one where memory is scarce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converter.gguf_info import read_gguf_info
from server.offload.calibration import UNKNOWN_CPU, guess
from server.offload.devices import Device, Machine
from server.offload.host import HostMemory
from server.offload.solving import Outcome, solve
from server.offload.wish import Wish
from tests.offload.models import RANDOM_160M, write_hollow

if TYPE_CHECKING:
    from pathlib import Path

    from converter.gguf_info import GGUFInfo

GIB = 1 << 30
CONTEXT = 4096
PARALLEL = 6


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> GGUFInfo:
    path: Path = write_hollow(RANDOM_160M, tmp_path_factory.mktemp("model") / "random-160m.gguf")
    return read_gguf_info(path)


def _solve(info: GGUFInfo, host: int, device: int = 0, *, unified: bool | None = None, pool: int = 0) -> Outcome:
    card = Device("CARD", "a card", "CUDA", device, device, bandwidth=300e9, link=10e9, hypothetical=True)
    machine = Machine(HostMemory(host, host), (card,) if device else ())
    speeds = {"CARD": guess(card), "CPU": UNKNOWN_CPU}
    return solve(info, machine, Wish(CONTEXT, PARALLEL, kv_unified=unified, pool=pool), speeds, verify=False)


def test_where_memory_is_plenty_all_parallel_requests_have_room(info: GGUFInfo) -> None:
    assert _solve(info, 64 * GIB).wish.pool == CONTEXT * PARALLEL
    assert _solve(info, 64 * GIB, 16 * GIB).wish.pool == CONTEXT * PARALLEL


def test_where_the_host_is_short_one_request_has_room(info: GGUFInfo) -> None:
    outcome = _solve(info, 1 * GIB)
    assert outcome.wish.pool == 0
    assert outcome.plan.host_kv == outcome.wish.shape(outcome.plan.problem.model).cells * 2 * 2 * 12 * 768


@pytest.mark.parametrize("mib", range(400, 2200, 200))
def test_the_pool_never_takes_a_layer_from_a_device(info: GGUFInfo, mib: int) -> None:
    grown, smallest = _solve(info, 64 * GIB, mib << 20), _solve(info, 64 * GIB, mib << 20, pool=CONTEXT)
    assert grown.plan.n_gpu_layers == smallest.plan.n_gpu_layers
    assert grown.plan.seconds <= smallest.plan.seconds
    assert all(stretch.total <= grown.budgets[stretch.device] for stretch in grown.plan.stretches)


def test_split_buffers_hold_a_context_each(info: GGUFInfo) -> None:
    outcome = _solve(info, 64 * GIB, unified=False)
    shape = outcome.wish.shape(outcome.plan.problem.model)
    assert (outcome.wish.pool, shape.cells, shape.streams) == (0, CONTEXT, PARALLEL)
