"""When a plan meets reality: what to try next after a load that ran out of memory, and what to remember of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash
from msgspec import Struct, structs

from server.engine.load_spec import Placement
from server.offload.remembered import recall, remember

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.engine.load_spec import LoadSpec

SMALLEST_UBATCH = 128
STEP = 0.1
"""Share of the offloaded layers that each step takes back."""
MORE_MEMORY = 1.05
"""A lesson is void once a device has this many times the free memory it had then."""


def step_down(failed: LoadSpec) -> LoadSpec | None:
    """What to try next after a load that ran out of device memory; None after the CPU alone.

    What was loaded beside the model gives way first: a draft, whose going back costs its help alone, then a projector.
    """
    if failed.draft_placement.devices:
        on_cpu = Placement(
            n_batch=failed.draft_placement.n_batch, summary="the draft on the CPU, since device memory did not suffice"
        )
        return structs.replace(failed, draft_placement=on_cpu)
    if failed.projector_device:
        return structs.replace(failed, projector_device="")
    smaller = smaller_placement(failed.placement)
    return structs.replace(failed, placement=smaller) if smaller else None


def difference(failed: LoadSpec, smaller: LoadSpec) -> str:
    """What a step down changed, for the user."""
    if smaller.draft_placement != failed.draft_placement:
        return smaller.draft_placement.summary
    if smaller.projector_device != failed.projector_device:
        return "the projector on the CPU, since device memory did not suffice"
    return smaller.placement.summary


def smaller_placement(failed: Placement) -> Placement | None:
    """The next placement of a model after one that ran out of device memory; None after the CPU alone.

    First the compute buffers halve, which costs only prompt speed; then a tenth of the layers goes back to the CPU,
    from every device alike, since llama.cpp does not say which one was full.
    """
    if not failed.n_gpu_layers:
        return None
    if failed.n_ubatch > SMALLEST_UBATCH * 2:
        return structs.replace(failed, n_ubatch=failed.n_ubatch // 2, summary=f"{failed.summary} (smaller batches)")
    fewer = failed.n_gpu_layers - max(1, int(failed.n_gpu_layers * STEP))
    if fewer <= 1:  # the output alone gains nothing
        return Placement(n_batch=failed.n_batch, summary="all layers on the CPU, since device memory did not suffice")
    summary = (
        f"{fewer - 1} layers on {', '.join(failed.devices)}, fewer than planned, since device memory did not suffice"
    )
    return structs.replace(failed, n_gpu_layers=fewer, summary=summary)


class Lesson(Struct, frozen=True):
    """How many items went onto the devices at last, and how much memory each had free then, in bytes."""

    n_gpu_layers: int
    free: dict[str, int]


def record(digest: str, free: Mapping[str, int], worked: Placement) -> None:
    """Remember for a model on these devices that no more than this could be loaded.

    Args:
        digest: of the model's header. free: bytes free on each device before the load.
    """
    remember(_name(digest, free), Lesson(worked.n_gpu_layers, dict(free)))


def lesson(digest: str, free: Mapping[str, int]) -> int | None:
    """The most items that could be loaded the last time, unless a device has notably more memory free now."""
    known = recall(_name(digest, free), Lesson)
    if known is None or any(free[name] > MORE_MEMORY * then for name, then in known.free.items()):
        return None
    return known.n_gpu_layers


def _name(digest: str, free: Mapping[str, int]) -> str:
    return f"lesson-{xxhash.xxh3_64_hexdigest(' '.join([digest, *sorted(free)]).encode())}"
