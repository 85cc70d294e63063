from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from server.engine.load_spec import LoadSpec, Placement
from server.offload.placing import Choice, learn
from server.offload.stepping_down import difference, lesson, smaller_placement, step_down

FREE = {"CUDA0": 8 << 30, "CUDA1": 4 << 30}


@given(st.integers(1, 200), st.sampled_from([128, 256, 512, 2048]))
def test_every_step_asks_for_less_and_the_last_is_the_cpu(layers: int, n_ubatch: int) -> None:
    placement: Placement | None = Placement(
        devices=("CUDA0", "CUDA1"), n_gpu_layers=layers, tensor_split=(2.0, 1.0), n_ubatch=n_ubatch
    )
    steps: list[Placement] = []
    while placement is not None:
        steps.append(placement)
        placement = smaller_placement(placement)
    asked = [(p.n_gpu_layers, p.n_ubatch if p.n_gpu_layers else 0) for p in steps]
    assert all(b < a for a, b in itertools.pairwise(asked) if a[1] and b[1])
    assert steps[-1].n_gpu_layers == 0
    assert steps[-1].devices == ()
    assert len(steps) < 50


def test_batches_shrink_before_layers_do() -> None:
    first = smaller_placement(Placement(devices=("CUDA0",), n_gpu_layers=30, n_ubatch=512))
    assert first is not None
    assert (first.n_gpu_layers, first.n_ubatch) == (30, 256)
    second = smaller_placement(first)
    assert second is not None
    assert (second.n_gpu_layers, second.n_ubatch) == (27, 256)


def test_draft_and_projector_give_way_before_the_model_does() -> None:
    placement = Placement(devices=("CUDA0",), n_gpu_layers=30)
    draft = Placement(devices=("CUDA0",), n_gpu_layers=25, n_batch=512)
    planned = structs.replace(_spec(placement, draft), projector_device="CUDA0")
    first = step_down(planned)
    assert first is not None
    assert (first.placement, first.projector_device) == (placement, "CUDA0")
    assert (first.draft_placement.devices, first.draft_placement.n_gpu_layers) == ((), 0)
    assert difference(planned, first).startswith("the draft on the CPU")
    second = step_down(first)
    assert second is not None
    assert (second.placement, second.projector_device) == (placement, "")
    assert difference(first, second).startswith("the projector on the CPU")
    third = step_down(second)
    assert third is not None
    assert third.draft_placement == first.draft_placement
    assert third.placement.n_ubatch < placement.n_ubatch
    assert difference(second, third) == third.placement.summary
    assert step_down(_spec(Placement())) is None


def _spec(placement: Placement, draft: Placement | None = None) -> LoadSpec:
    return LoadSpec(path="m", name="m", digest="d", placement=placement, draft_placement=draft or Placement())


def test_what_worked_is_remembered_until_there_is_more_memory() -> None:
    worked = Placement(devices=("CUDA0", "CUDA1"), n_gpu_layers=17)
    planned = structs.replace(worked, n_gpu_layers=20)
    learn(Choice(planned, 4096, 0, (), 1.0, (), "digest", FREE, 0), _spec(worked))
    assert lesson("digest", FREE) == 17
    assert lesson("digest", FREE | {"CUDA1": 2 << 30}) == 17
    assert lesson("digest", FREE | {"CUDA1": 6 << 30}) is None
    assert lesson("another model", FREE) is None
