"""The planner as arithmetic: never past a device, never slower for more memory, as good as trying everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.offload.footprint import Footprint, KvShape, Layer
from server.offload.planner import Budget, Cut, Plan, Problem, plan
from server.offload.speed import Speed

MIB = 1 << 20


def _model(layers: tuple[Layer, ...], output: int = 20 * MIB) -> Footprint:
    return Footprint(
        architecture="test",
        layers=layers,
        embeddings=20 * MIB,
        output=output,
        tied=False,
        bytes_by_type={},
        parameters=1,
        n_vocab=1000,
        n_embd=64,
        n_ff=256,
        context_train=4096,
    )


sizes = st.integers(1, 64).map(lambda n: n * MIB)
speeds = st.builds(
    Speed,
    bandwidth=st.floats(1e9, 1e12),
    kv_bandwidth=st.floats(1e8, 1e12),
    call=st.floats(0, 1e-3),
    logits=st.floats(0, 1e-3),
)
dense = st.builds(
    Layer, attention=sizes, dense=sizes, kv_elements=st.just((1024, 1024)), window=st.sampled_from([0, 512])
)
experts = st.builds(
    Layer,
    attention=sizes,
    shared=st.one_of(st.just(0), sizes),
    experts=sizes.map(lambda n: 4 * n),
    active=st.floats(0.02, 1.0),
    kv_elements=st.just((512, 512)),
)
recurrent = st.builds(Layer, attention=sizes, dense=sizes, state=st.integers(0, 4 * MIB))


@st.composite
def models(draw: st.DrawFn, most: int = 16) -> Footprint:
    kind = draw(st.sampled_from([dense, experts, st.one_of(recurrent, dense), st.one_of(dense, experts)]))
    if draw(st.booleans()):  # real models repeat one layer
        layers = (draw(kind),) * draw(st.integers(1, most))
    else:
        layers = tuple(draw(st.lists(kind, min_size=1, max_size=most)))
    return _model(layers, draw(sizes))


@st.composite
def problems(draw: st.DrawFn, most_layers: int = 16, most_devices: int = 3) -> Problem:
    devices = tuple(
        Budget(f"D{i}", draw(st.integers(0, 3000)) * MIB, draw(speeds), draw(sizes), draw(sizes))
        for i in range(draw(st.integers(1, most_devices)))
    )
    shape = KvShape(draw(st.sampled_from([256, 4096])), draw(st.sampled_from([1, 4])), 4)
    return Problem(draw(models(most_layers)), draw(speeds), devices, shape, draw(st.sampled_from([0, 2048])))


def _bytes_on(found: Plan, problem: Problem) -> dict[str, int]:
    """Bytes on each device, added up here and not by the planner."""
    held: dict[str, int] = {}
    for stretch in found.stretches:
        budget = next(b for b in problem.devices if b.name == stretch.device)
        total = budget.compute_output if stretch.end == problem.n_items else budget.compute
        for item, cut in zip(range(stretch.start, stretch.end), stretch.cuts, strict=True):
            if item == len(problem.model.layers):
                total += problem.model.output
                continue
            layer = problem.model.layers[item]
            total += layer.attention + (layer.kv_bytes(problem.kv) if found.offload_kv else 0)
            total += 0 if cut is Cut.FFN else layer.dense + layer.shared
            total += layer.experts if cut is Cut.NOTHING else 0
        held[stretch.device] = total
    return held


@settings(max_examples=120, deadline=None)
@given(problems())
def test_never_exceeds_a_device_and_reports_its_own_sums(problem: Problem) -> None:
    found = plan(problem)
    held = _bytes_on(found, problem)
    for stretch in found.stretches:
        budget = next(b for b in problem.devices if b.name == stretch.device)
        assert held[stretch.device] == stretch.total <= budget.capacity
    covered = [item for s in found.stretches for item in range(s.start, s.end)]
    assert covered == list(range(problem.n_items - len(covered), problem.n_items))
    on_devices = sum(s.weights for s in found.stretches)
    assert on_devices + found.host_weights == problem.model.weights


@settings(max_examples=120, deadline=None)
@given(problems(), st.integers(1, 2000), st.integers(0, 2))
def test_more_memory_never_gives_a_slower_plan(problem: Problem, more: int, which: int) -> None:
    devices = list(problem.devices)
    index = which % len(devices)
    devices[index] = replace(devices[index], capacity=devices[index].capacity + more * MIB)
    assert plan(replace(problem, devices=tuple(devices))).seconds <= plan(problem).seconds


@settings(max_examples=100, deadline=None)
@given(problems(most_devices=2))
def test_leaves_no_room_for_a_layer_that_would_make_it_faster(problem: Problem) -> None:
    found = plan(problem)
    for first in range(problem.n_items - found.n_gpu_layers):
        alternative = plan(replace(problem, first=first))
        one_more = alternative.n_gpu_layers == problem.n_items - first
        assert not one_more or alternative.seconds >= found.seconds


def _seconds(problem: Problem, device_of: list[int], cuts: list[Cut], offload_kv: bool) -> float | None:
    """Time of any placement whatever, or None where it does not fit: the speed model written a second time."""
    model, host = problem.model, problem.host
    seconds, held = host.call, [0] * len(problem.devices)
    for item in range(problem.n_items):
        output = item == len(model.layers)
        layer = Layer(attention=model.output) if output else model.layers[item]
        where = device_of[item]
        kv_read = layer.kv_read(problem.kv, problem.depth)
        if where < 0:
            seconds += (layer.attention + layer.ffn_read) / host.bandwidth + kv_read / host.kv_bandwidth
            continue
        budget = problem.devices[where]
        on_host = 0.0
        held[where] += layer.weights
        if cuts[item] is Cut.EXPERTS:
            on_host, held[where] = layer.experts * layer.active, held[where] - layer.experts
        elif cuts[item] is Cut.FFN:
            on_host, held[where] = layer.ffn_read, held[where] - layer.ffn
        seconds += (layer.attention + layer.ffn_read - on_host) / budget.speed.bandwidth + on_host / host.bandwidth
        seconds += (host.call + budget.speed.call) * (cuts[item] is not Cut.NOTHING)
        if offload_kv:
            held[where] += layer.kv_bytes(problem.kv)
            seconds += kv_read / budget.speed.kv_bandwidth
        else:
            seconds += kv_read / host.kv_bandwidth + (host.call + budget.speed.call) * (kv_read > 0)
    for where in set(device_of) - {-1}:
        budget = problem.devices[where]
        last = device_of[-1] == where
        held[where] += budget.compute_output if last else budget.compute
        seconds += budget.speed.call + (budget.speed.logits if last else 0.0)
        if held[where] > budget.capacity:
            return None
    return seconds


def _exhaustive(problem: Problem) -> float:
    """The least time over all stretches, all cuts and both homes of the KV cache."""
    best = float("inf")
    n, devices = problem.n_items, len(problem.devices)
    options = [
        [Cut.NOTHING] + [Cut.EXPERTS] * bool(layer.experts) + [Cut.FFN] * bool(layer.dense or layer.shared)
        for layer in problem.model.layers
    ]
    for device_of in product(range(-1, devices), repeat=n):
        offloaded = [where for where in device_of if where >= 0]
        if list(device_of) != [-1] * (n - len(offloaded)) + sorted(offloaded):
            continue  # llama.cpp offloads a suffix, in the devices' order
        choices = [options[i] if device_of[i] >= 0 else [Cut.NOTHING] for i in range(n - 1)]
        for cuts in product(*choices):
            for offload_kv in (True, False):
                seconds = _seconds(problem, list(device_of), [*cuts, Cut.NOTHING], offload_kv)
                best = min(best, seconds if seconds is not None else best)
    return best


@settings(max_examples=60, deadline=None)
@given(problems(most_layers=4, most_devices=2))
def test_is_the_best_of_all_placements_on_small_cases(problem: Problem) -> None:
    assert plan(problem).seconds <= 1.03 * _exhaustive(problem)
    assert plan(problem).seconds >= _exhaustive(problem) * (1 - 1e-9)


FAST = Speed(bandwidth=400e9, kv_bandwidth=200e9, call=20e-6)
SLOW = Speed(bandwidth=40e9, kv_bandwidth=12e9, call=5e-6)


def _one_device(model: Footprint, capacity: int, **changes: int) -> Problem:
    device = Budget("D0", capacity, FAST, compute=10 * MIB, compute_output=30 * MIB)
    return replace(Problem(model, SLOW, (device,), KvShape(4096, 1, 1), 2048), **changes)


def test_experts_leave_first_and_attention_stays() -> None:
    layer = Layer(attention=20 * MIB, shared=10 * MIB, experts=400 * MIB, active=0.06, kv_elements=(512, 512))
    found = plan(_one_device(_model((layer,) * 24), 3000 * MIB))
    assert found.layers_on_device == 24
    cuts = [cut for stretch in found.stretches for cut in stretch.cuts]
    assert Cut.EXPERTS in cuts
    assert Cut.FFN not in cuts


def test_everything_goes_to_a_device_that_is_large_enough() -> None:
    found = plan(
        _one_device(_model((Layer(attention=50 * MIB, dense=100 * MIB, kv_elements=(1024, 1024)),) * 32), 1 << 34)
    )
    assert found.whole
    assert found.whole_layers == 32


def test_a_device_slower_than_the_host_is_left_alone() -> None:
    model = _model((Layer(attention=50 * MIB, dense=100 * MIB),) * 8)
    slow = Budget("D0", 1 << 34, replace(SLOW, bandwidth=1e9, call=1e-3))
    assert not plan(Problem(model, SLOW, (slow,), KvShape(4096, 1, 1), 0)).stretches


@pytest.mark.parametrize(("wanted", "got"), [(0, 33), (20, 13), (33, 0)])
def test_the_user_may_fix_the_number_of_layers(wanted: int, got: int) -> None:
    model = _model((Layer(attention=50 * MIB, dense=100 * MIB),) * 32)
    assert plan(_one_device(model, 1 << 34, first=wanted)).n_gpu_layers == got


def test_a_wish_for_more_layers_than_fit_gets_what_fits() -> None:
    model = _model((Layer(attention=150 * MIB),) * 32)
    found = plan(_one_device(model, 1000 * MIB, first=0))
    assert found.n_gpu_layers == 1 + (1000 - 30 - 20) // 150


def test_what_was_seen_to_fail_is_not_planned_again() -> None:
    model = _model((Layer(attention=150 * MIB),) * 32)
    assert plan(_one_device(model, 1 << 34, earliest=10)).n_gpu_layers == 23


def test_an_80_layer_model_over_four_devices_is_planned_in_reasonable_time() -> None:
    layer = Layer(attention=100 * MIB, dense=400 * MIB, kv_elements=(1024, 1024))
    devices = tuple(Budget(f"D{i}", (8 - i) << 30, FAST, 100 * MIB, 300 * MIB) for i in range(4))
    found = plan(Problem(_model((layer,) * 80), SLOW, devices, KvShape(8192, 1, 1), 4096))
    assert len(found.stretches) == 4
